//! Replay sample by sample, for detectors whose silence is measured on the node's clock.
//!
//! That clock follows from the counters of the operating system, and from which of them are suspected: those don't vouch for
//! others any more. So all entities of a node have to be replayed together, each setting on its own; and who is suspected
//! stays so until it makes progress, for a clock that runs slowly may take back what it said of the past.

use backdoor_core::Nanos;
use backdoor_core::detector::{Clock, Detector, Heartbeat};
use backdoor_core::monitor::NodeClock;
use backdoor_core::progress_box::{EntityRecord, EntityState, FailureLevel};

use super::observe::{Life, NodeObservation, Span};
use super::replay::Suspicion;

impl NodeObservation {
    /// What a monitor would have suspected with the detectors that `make` makes, on whichever clock: by life, in order of
    /// time. [`suspicions`](Self::suspicions) is many times as fast, for those on the monitor's.
    pub fn suspicions_by_sample<D: Detector>(
        &self,
        mut make: impl FnMut(&EntityRecord, Nanos) -> D,
    ) -> Vec<Vec<Suspicion>> {
        let mut found = vec![Vec::new(); self.lives.len()];
        let mut order: Vec<usize> = (0..self.lives.len()).collect();
        order.sort_by_key(|place| self.lives[*place].first);
        let mut coming = order.into_iter().peekable();
        let mut seats: Vec<Seat<'_, D>> = Vec::new();
        let mut clock = NodeClock::default();
        for (sample, span) in self.evidence.iter().enumerate() {
            for seat in seats.extract_if(.., |seat| seat.life.end as usize <= sample) {
                clock.forget(seat.life.slot);
                found[seat.place].extend(seat.suspected);
            }
            while let Some(place) = coming.next_if(|place| self.lives[*place].first as usize <= sample) {
                let life = &self.lives[place];
                let start = self.evidence[life.first as usize - 1].end;
                seats.push(Seat::new(place, life, make(&life.record, start)));
                seats.sort_by_key(|seat| seat.life.slot);
                if life.record.level == FailureLevel::Os {
                    clock.follow(life.slot, life.record.period, life.word.count());
                }
            }
            for seat in &mut seats {
                seat.take_in(self, sample, *span, &mut found[seat.place]);
            }
            clock.sample(span.end, |slot| {
                let at = seats.binary_search_by_key(&slot, |seat| seat.life.slot).ok()?;
                seats[at].is_trusted().then(|| seats[at].count)
            });
            for seat in &mut seats {
                seat.expire(self, sample, *span, &clock);
            }
        }
        for seat in seats {
            found[seat.place].extend(seat.suspected);
        }
        found
    }
}

/// An entity that is watched.
struct Seat<'a, D> {
    /// Its place among the lives.
    place: usize,
    life: &'a Life,
    /// Number of the next change.
    next: usize,
    detector: D,
    owes: bool,
    /// Since when it has owed progress in spite of its word.
    owes_since: Option<Nanos>,
    suspected: Option<Suspicion>,
    count: u64,
    /// The sample that showed its last progress.
    last: usize,
}

impl<'a, D: Detector> Seat<'a, D> {
    fn new(place: usize, life: &'a Life, detector: D) -> Self {
        let owes = life.word.state() == EntityState::Active;
        let (count, last) = (life.word.count(), life.first as usize - 1);
        Seat { place, life, next: 0, detector, owes, owes_since: None, suspected: None, count, last }
    }

    fn is_trusted(&self) -> bool {
        self.owes && self.suspected.is_none()
    }

    /// What a sample shows of it.
    #[inline]
    fn take_in(&mut self, node: &NodeObservation, sample: usize, span: Span, found: &mut Vec<Suspicion>) {
        let Some(change) = self.life.changes.get(self.next).filter(|change| change.sample as usize == sample) else {
            return;
        };
        self.next += 1;
        let is_active = change.word.state() == EntityState::Active;
        if change.moved {
            self.count = change.word.count();
            self.last = sample;
            self.detector.progressed(Heartbeat { number: self.count, at: span.end });
            if self.suspected.is_some() && is_active && span.begin > self.detector.fresh_until() {
                // Progress, and not enough of it for this detector.
                self.owes_since = None;
                return;
            }
        }
        if change.moved || !change.owes {
            found.extend(self.suspected.take().map(|s| Suspicion { to: node.taken[sample].known, ..s }));
        }
        self.owes = is_active || change.owes;
        self.owes_since = change.owes.then_some(span.end);
    }

    #[inline]
    fn expire(&mut self, node: &NodeObservation, sample: usize, span: Span, clock: &NodeClock) {
        if !self.is_trusted() || span.begin <= self.detector.fresh_until() {
            return;
        }
        let last_progress = self.detector.last_progress();
        let since = self.owes_since.map_or(last_progress, |since| since.max(last_progress));
        let stalled = match self.detector.clock() {
            Clock::Node if self.life.record.level != FailureLevel::Os => clock.stalled_since(since),
            _ => Nanos::ZERO,
        };
        if span.begin > self.detector.fresh_until() + (since - last_progress) + stalled {
            let (since, from) = (node.taken[self.last].at, node.taken[sample].known);
            self.suspected = Some(Suspicion { since, from, to: Nanos::MAX });
        }
    }
}
