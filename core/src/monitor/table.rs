//! The monitor's picture of a node's entities, laid out for scanning thousands of liveness words at each poll.
//!
//! Most words of a poll are either all unchanged or all moved by a healthy entity; both are handled in one tight loop.
//! Everything else (an entity that turns idle, leaves, or comes back from suspicion) takes the slow path.

use std::ops::Range;

use fearless_simd::{Level, dispatch};

use super::event::{Event, Verdict};
use super::idle_claims::{IdleClaims, Ruling};
use super::node_clock::NodeClock;
use crate::Nanos;
use crate::detector::{Clock, Detector, Heartbeat};
use crate::progress_box::{EntityRecord, EntityState, FailureLevel, Liveness, Slot};

/// How the monitor sees an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// The slot is free, or what is in it is not known yet.
    Unknown,
    /// Owes progress, and is trusted.
    Trusted,
    /// Waits for work, by its own word, and no pending work says otherwise.
    Idle,
    /// Silent for too long.
    Suspected,
    /// Has ended by its own will.
    Departed,
}

impl Standing {
    /// Of an entity that has just made progress, by its own word.
    fn of(state: EntityState) -> Self {
        match state {
            EntityState::Active => Standing::Trusted,
            EntityState::Idle => Standing::Idle,
            EntityState::Departed => Standing::Departed,
            EntityState::Free => Standing::Unknown,
        }
    }
}

/// An entity as the monitor sees it.
#[derive(Clone, Copy, Debug)]
pub struct EntityView<'a, D> {
    /// Its place in the Progress Box.
    pub slot: Slot,
    /// What the directory says of it.
    pub record: &'a EntityRecord,
    /// How the monitor sees it.
    pub standing: Standing,
    /// Its word in the last sample.
    pub word: Liveness,
    /// When progress was last seen, in evidence time.
    pub last_progress: Nanos,
    /// Since when its silence counts: since its last progress, or since an idle entity was first seen to have work.
    pub silent_since: Nanos,
    /// Its detector.
    pub detector: &'a D,
}

/// One sample of all liveness words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample<'a> {
    pub(super) words: &'a [u64],
    pub(super) gauges: &'a [u64],
    /// Evidence time before which the words can't have been sampled: what accuses least when they have not moved.
    pub(super) begin: Nanos,
    /// Evidence time after which they can't have been sampled: what accuses least when they have.
    pub(super) end: Nanos,
    /// The caller's time, for verdicts.
    pub(super) now: Nanos,
}

/// Words compared at once; a run without change costs one branch.
const RUN: usize = u32::BITS as usize;

/// Whether every word has moved and says that its entity is active: what most polls of a busy node find. Written so
/// that it compiles to vector instructions.
#[inline(always)]
fn all_advanced(new: &[u64], old: &[u64]) -> bool {
    const ACTIVE: u64 = Liveness::new(EntityState::Active, 0).0;
    const STATE: u64 = Liveness::new(EntityState::Departed, 0).0;
    let pairs = new.iter().zip(old);
    let (unmoved, inactive) = pairs.fold((0u64, 0), |(unmoved, inactive), (new, old)| {
        (unmoved + u64::from(new == old), inactive | (new ^ ACTIVE) & STATE)
    });
    unmoved == 0 && inactive == 0
}

#[derive(Debug)]
pub(super) struct EntityTable<D> {
    words: Vec<u64>,
    standing: Vec<Standing>,
    /// A bit for each entity whose standing is `Trusted`.
    trusted: Vec<u32>,
    /// A bit for each entity of which something may have changed since it was last shown as changed.
    changed: Vec<u32>,
    detectors: Vec<Option<D>>,
    /// Of those who are in slots in use, as far as the directory has told.
    records: Vec<Option<EntityRecord>>,
    /// Whether a slot is in use by somebody of whom nothing is known. Each is reported once.
    strangers: Vec<bool>,
    /// No trusted entity's freshness point is earlier. May be too early, never too late.
    earliest: Nanos,
    idle_claims: IdleClaims,
    node_clock: NodeClock,
    /// Whether anybody's silence is measured on the node's clock.
    node_clock_counts: bool,
}

impl<D: Detector> EntityTable<D> {
    pub(super) fn new(capacity: usize) -> Self {
        EntityTable {
            words: vec![0; capacity],
            standing: vec![Standing::Unknown; capacity],
            trusted: vec![0; capacity.div_ceil(RUN)],
            changed: vec![0; capacity.div_ceil(RUN)],
            detectors: (0..capacity).map(|_| None).collect(),
            records: vec![None; capacity],
            strangers: vec![false; capacity],
            earliest: Nanos::MAX,
            idle_claims: IdleClaims::default(),
            node_clock: NodeClock::default(),
            node_clock_counts: false,
        }
    }

    /// Whoever keeps the operating system's counters has ended.
    pub(super) fn keeper_ended(&mut self) {
        self.node_clock.keeper_ended();
    }

    /// Takes a sample in: progress first, then verdicts on those that made none. Answers whether a slot came into use
    /// whose entity is not known: the directory may tell.
    pub(super) fn observe(&mut self, sample: Sample<'_>, events: &mut Vec<Event>) -> bool {
        debug_assert_eq!(sample.words.len(), self.words.len());
        let stranger = dispatch!(Level::new(), _simd => self.take_in(&sample, events));
        self.hold_idle_claims(&sample, events);
        if self.node_clock_counts {
            let (standing, words) = (&self.standing, sample.words);
            self.node_clock.sample(sample.end, |slot| {
                (standing[slot.index()] == Standing::Trusted).then(|| Liveness(words[slot.index()]).count())
            });
        }
        if sample.begin > self.earliest {
            self.expire(&sample, events);
        }
        stranger
    }

    /// Takes the words in. What it calls for each run is inlined, so that it is compiled for the processor at hand.
    #[inline(always)]
    fn take_in(&mut self, sample: &Sample<'_>, events: &mut Vec<Event>) -> bool {
        let mut stranger = false;
        for (number, start) in (0..self.words.len()).step_by(RUN).enumerate() {
            let run = start..self.words.len().min(start + RUN);
            let pairs = sample.words[run.clone()].iter().zip(&self.words[run.clone()]);
            if pairs.fold(0, |moved, (new, old)| moved | (new ^ old)) != 0 {
                let mut others = self.progress(number, run, sample);
                while others != 0 {
                    stranger |= self.change_standing(start + others.trailing_zeros() as usize, sample, events);
                    others &= others - 1;
                }
            }
        }
        stranger
    }

    /// Who says it is idle and has work waiting is watched like the active.
    fn hold_idle_claims(&mut self, sample: &Sample<'_>, events: &mut Vec<Event>) {
        if self.idle_claims.is_empty() {
            return;
        }
        let mut claims = std::mem::take(&mut self.idle_claims);
        let mut rulings = Vec::new();
        claims.rule(sample, &self.standing, |slot, ruling| rulings.push((slot, ruling)));
        self.idle_claims = claims;
        for (slot, ruling) in rulings {
            let index = slot.index();
            match ruling {
                Ruling::Owes => {
                    self.set_standing(index, Standing::Trusted);
                    if let (Some(record), Some(detector)) = (self.records[index], &self.detectors[index]) {
                        self.earliest = self.earliest.min(self.fresh_until(index, &record, detector));
                    }
                }
                Ruling::IsIdle => {
                    let was_suspected = self.standing[index] == Standing::Suspected;
                    self.set_standing(index, Standing::Idle);
                    if let (true, Some(record), Some(detector)) =
                        (was_suspected, self.records[index], &self.detectors[index])
                    {
                        let silence = sample.begin - detector.last_progress();
                        events.push(Event::Trusted(Verdict { slot, record, at: sample.now, silence }));
                    }
                }
            }
        }
    }

    /// Since when the silence of a known entity counts.
    fn silent_since(&self, index: usize, detector: &D) -> Nanos {
        let last_progress = detector.last_progress();
        self.idle_claims.owes_since(Slot(index as u32)).map_or(last_progress, |since| since.max(last_progress))
    }

    /// The freshness point of a known entity, with all that excuses its silence: the time that it was idle, and the time
    /// that its node did not run, if its detector cares.
    fn fresh_until(&self, index: usize, record: &EntityRecord, detector: &D) -> Nanos {
        let since = self.silent_since(index, detector);
        let was_idle = since - detector.last_progress();
        let stalled = match detector.clock() {
            Clock::Node if record.level != FailureLevel::Os => self.node_clock.stalled_since(since),
            _ => Nanos::ZERO,
        };
        detector.fresh_until() + was_idle + stalled
    }

    /// Takes in the words of a run. Does what a trusted entity's progress asks for; answers a bit for each word that
    /// moved otherwise.
    #[inline(always)]
    fn progress(&mut self, number: usize, run: Range<usize>, sample: &Sample<'_>) -> u32 {
        let (new, old) = (&sample.words[run.clone()], &mut self.words[run.clone()]);
        let detectors = &mut self.detectors[run];
        let mut earliest = self.earliest;
        let mut advance = |detector: &mut Option<D>, word: u64| {
            if let Some(detector) = detector {
                detector.progressed(Heartbeat { number: Liveness(word).count(), at: sample.end });
                if !D::STEADY {
                    earliest = earliest.min(detector.fresh_until());
                }
            }
        };
        let (mut moved, mut others) = (u32::MAX, 0);
        if self.trusted[number] == u32::MAX && all_advanced(new, old) {
            old.copy_from_slice(new);
            detectors.iter_mut().zip(new).for_each(|(detector, word)| advance(detector, *word));
        } else {
            let trusted = self.trusted[number];
            moved = 0;
            for (bit, ((new, old), detector)) in new.iter().zip(old).zip(detectors).enumerate() {
                if new == old {
                    continue;
                }
                *old = *new;
                moved |= 1 << bit;
                if trusted & 1 << bit != 0 && Liveness(*new).state() == EntityState::Active {
                    advance(detector, *new);
                } else {
                    others |= 1 << bit;
                }
            }
        }
        self.changed[number] |= moved;
        self.earliest = earliest;
        others
    }

    fn set_standing(&mut self, index: usize, standing: Standing) {
        self.standing[index] = standing;
        let bit = 1 << (index % RUN);
        self.changed[index / RUN] |= bit;
        match standing {
            Standing::Trusted => self.trusted[index / RUN] |= bit,
            _ => self.trusted[index / RUN] &= !bit,
        }
    }

    /// The slow path of a moved word; answers whether it is that of a stranger who was none before.
    #[cold]
    fn change_standing(&mut self, index: usize, sample: &Sample<'_>, events: &mut Vec<Event>) -> bool {
        let (Some(detector), Some(record)) = (&mut self.detectors[index], self.records[index]) else {
            let stranger = Liveness(self.words[index]).state() != EntityState::Free;
            let was_one = std::mem::replace(&mut self.strangers[index], stranger);
            return stranger && !was_one;
        };
        let slot = Slot(index as u32);
        let silence = sample.begin - detector.last_progress();
        let word = Liveness(self.words[index]);
        detector.progressed(Heartbeat { number: word.count(), at: sample.end });
        let before = self.standing[index];
        let after = Standing::of(word.state());
        if (before, after) == (Standing::Suspected, Standing::Trusted) && sample.begin > detector.fresh_until() {
            // Progress, and not enough of it for this detector.
            return false;
        }
        if after == Standing::Trusted {
            self.earliest = self.earliest.min(detector.fresh_until());
        }
        self.set_standing(index, after);
        let gone = |standing| matches!(standing, Standing::Departed | Standing::Unknown);
        if before == Standing::Suspected {
            events.push(Event::Trusted(Verdict { slot, record, at: sample.now, silence }));
        }
        match (gone(before), gone(after)) {
            (false, true) => events.push(Event::Left { slot, record }),
            (true, false) => events.push(Event::Joined { slot, record }),
            _ => {}
        }
        if after == Standing::Unknown {
            // What the directory said of the slot does not hold for its next user.
            (self.detectors[index], self.records[index], self.strangers[index]) = (None, None, false);
            self.idle_claims.learn(slot, None);
            self.node_clock.forget(slot);
        }
        false
    }

    /// Suspects whoever is past its freshness point, and finds the next one.
    #[cold]
    fn expire(&mut self, sample: &Sample<'_>, events: &mut Vec<Event>) {
        let mut earliest = Nanos::MAX;
        for index in 0..self.standing.len() {
            if self.standing[index] != Standing::Trusted {
                continue;
            }
            let (Some(detector), Some(record)) = (&self.detectors[index], self.records[index]) else { continue };
            let fresh_until = self.fresh_until(index, &record, detector);
            if sample.begin > fresh_until {
                let silence = sample.begin - self.silent_since(index, detector);
                self.set_standing(index, Standing::Suspected);
                events.push(Event::Suspected(Verdict { slot: Slot(index as u32), record, at: sample.now, silence }));
            } else {
                earliest = earliest.min(fresh_until);
            }
        }
        self.earliest = earliest;
    }

    /// Takes in what the directory says of `slot`. A new generation is a new entity, watched from `at` on.
    pub(super) fn learn(
        &mut self,
        slot: Slot,
        record: EntityRecord,
        at: Nanos,
        make: &mut dyn FnMut(&EntityRecord, Nanos) -> D,
        events: &mut Vec<Event>,
    ) {
        let index = slot.index();
        let Some(known) = self.records.get_mut(index) else { return };
        if Liveness(self.words[index]).state() == EntityState::Free {
            // Entries stay when their entity goes, and are written before their next one comes.
            return;
        }
        self.changed[index / RUN] |= 1 << (index % RUN);
        let same = known.is_some_and(|known| known.generation == record.generation);
        // A changed deadline takes effect at once, and costs the detector what it has learnt.
        let same_promise = same && known.is_some_and(|known| known.deadline == record.deadline);
        let same_clock = same && known.is_some_and(|known| known.period == record.period);
        let replaced = known.replace(record).filter(|_| !same);
        self.idle_claims.learn(slot, Some(&record));
        if record.level == FailureLevel::Os && !same_clock {
            self.node_clock.follow(slot, record.period, Liveness(self.words[index]).count());
        }
        if same_promise {
            return;
        }
        let is_suspected = same && self.standing[index] == Standing::Suspected;
        // A new promise makes no progress: who is suspected has been silent since when it was.
        let since = self.detectors[index].as_ref().filter(|_| is_suspected).map_or(at, Detector::last_progress);
        let detector = make(&record, since);
        let fresh_until = detector.fresh_until();
        self.node_clock_counts |= detector.clock() == Clock::Node;
        self.detectors[index] = Some(detector);
        if is_suspected {
            return;
        }
        let was_there = matches!(self.standing[index], Standing::Trusted | Standing::Idle | Standing::Suspected);
        if let Some(old) = replaced
            && was_there
        {
            events.push(Event::Left { slot, record: old });
        }
        let standing = Standing::of(Liveness(self.words[index]).state());
        self.set_standing(index, standing);
        let is_there = matches!(standing, Standing::Trusted | Standing::Idle);
        if standing == Standing::Trusted {
            self.earliest = self.earliest.min(fresh_until);
        }
        if is_there && !same {
            events.push(Event::Joined { slot, record });
        }
    }

    /// The entities that are known and whose slots are not free.
    pub(super) fn entities(&self) -> impl Iterator<Item = EntityView<'_, D>> {
        (0..self.standing.len()).filter_map(|index| self.view(index))
    }

    /// Those of them of which something may have changed since the last call.
    pub(super) fn show_changed(&mut self, mut show: impl FnMut(EntityView<'_, D>)) {
        for number in 0..self.changed.len() {
            let mut changed = std::mem::take(&mut self.changed[number]);
            while changed != 0 {
                self.view(number * RUN + changed.trailing_zeros() as usize).map(&mut show);
                changed &= changed - 1;
            }
        }
    }

    fn view(&self, index: usize) -> Option<EntityView<'_, D>> {
        let (record, detector) = (self.records[index].as_ref()?, self.detectors[index].as_ref()?);
        let standing = self.standing[index];
        (standing != Standing::Unknown).then(|| EntityView {
            slot: Slot(index as u32),
            record,
            standing,
            word: Liveness(self.words[index]),
            last_progress: detector.last_progress(),
            silent_since: self.silent_since(index, detector),
            detector,
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
