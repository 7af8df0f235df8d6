//! Any detector, on what a monitor [observed](super::observe): one run, all detectors.
//!
//! Whom a monitor suspects, follows from little: **an entity is suspected after a sample exactly if it owes progress, and
//! the sample's evidence begins after its detector's freshness point.** (For detectors on the monitor's clock.) That holds however the entity came
//! there, by silence, by progress that came too late, or out of an idle time; so a replay needs to remember nothing
//! but the detector itself. It looks only at samples that show a change, and at the last before each: between two changes
//! the freshness point stands, and evidence time only grows.
//!
//! Detectors that are [`Tuned`] are replayed for all settings of their knob in one pass. Since a larger knob never
//! makes for an earlier freshness point, those that suspect are always the smallest ones, and in most samples one
//! comparison shows that there is none.

use backdoor_core::Nanos;
use backdoor_core::detector::{Detector, Heartbeat, Tuned};
use backdoor_core::progress_box::{EntityRecord, EntityState};

use super::observe::{Life, NodeObservation, Span};
use super::record::Mark;

/// A suspicion that a monitor would have had, in time of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspicion {
    /// When progress had last been seen.
    pub since: Nanos,
    /// When it began.
    pub from: Nanos,
    /// When it ended; [`Nanos::MAX`] if the run, or the watch, ended first.
    pub to: Nanos,
}

/// Detectors that see the same, from the hastiest to the most patient.
pub trait Ladder {
    /// How many.
    fn rungs(&self) -> usize;
    /// All are told of progress.
    fn progressed(&mut self, heartbeat: Heartbeat);
    /// When they last saw progress that counts for them.
    fn last_progress(&self) -> Nanos;
    /// Freshness point of one of them; none before that of a lower one.
    fn fresh_until(&self, rung: usize) -> Nanos;
}

/// A detector alone.
#[derive(Clone, Debug)]
pub struct Alone<D>(pub D);

impl<D: Detector> Ladder for Alone<D> {
    fn rungs(&self) -> usize {
        1
    }
    #[inline]
    fn progressed(&mut self, heartbeat: Heartbeat) {
        self.0.progressed(heartbeat);
    }
    fn last_progress(&self) -> Nanos {
        self.0.last_progress()
    }
    #[inline]
    fn fresh_until(&self, _: usize) -> Nanos {
        self.0.fresh_until()
    }
}

/// One detector for all settings of its knob.
#[derive(Clone, Debug)]
pub struct Settings<'a, D: Tuned> {
    /// The detector; its own setting plays no part.
    pub detector: D,
    /// The settings, ascending.
    pub knobs: &'a [D::Knob],
}

impl<D: Tuned> Ladder for Settings<'_, D> {
    fn rungs(&self) -> usize {
        self.knobs.len()
    }
    #[inline]
    fn progressed(&mut self, heartbeat: Heartbeat) {
        self.detector.progressed(heartbeat);
    }
    fn last_progress(&self) -> Nanos {
        self.detector.last_progress()
    }
    #[inline]
    fn fresh_until(&self, rung: usize) -> Nanos {
        self.detector.fresh_until_with(self.knobs[rung])
    }
}

/// The suspicions of each rung of a ladder, by life.
pub type Suspicions = Vec<Vec<Vec<Suspicion>>>;

impl NodeObservation {
    /// What a monitor would have suspected with each of `rungs` detectors: by rung, then by life, in order of time.
    ///
    /// `make` makes a life's detectors, as a monitor's would be made at that time; or none, and it is suspected of
    /// nothing. `clock` is that of the detectors, by sample: [`evidence`](Self::evidence), unless they have another.
    ///
    /// # Panics
    /// If `clock` has fewer samples, or a ladder fewer rungs.
    pub fn suspicions<L: Ladder>(
        &self,
        clock: &[Span],
        rungs: usize,
        mut make: impl FnMut(&EntityRecord, Nanos) -> Option<L>,
    ) -> Suspicions {
        let mut suspicions = vec![Vec::with_capacity(self.lives.len()); rungs];
        for life in &self.lives {
            let start = clock[life.first as usize - 1].end;
            let mut replay = Replay { node: self, clock, open: Vec::new(), found: vec![Vec::new(); rungs] };
            if let Some(ladder) = make(&life.record, start) {
                assert_eq!(ladder.rungs(), rungs, "a ladder of another height");
                replay.run(life, ladder);
            }
            suspicions.iter_mut().zip(replay.found).for_each(|(all, found)| all.push(found));
        }
        suspicions
    }

    /// The same suspicions, of one rung, as a monitor would have told them, in order of (time, trust before suspicion,
    /// slot).
    pub fn marks(&self, suspicions: &[Vec<Suspicion>]) -> Vec<Mark> {
        let mut marks = Vec::new();
        for (life, suspicions) in self.lives.iter().zip(suspicions) {
            for suspicion in suspicions {
                marks.push(Mark { at: suspicion.from, suspected: true, slot: life.slot });
                if suspicion.to < Nanos::MAX {
                    marks.push(Mark { at: suspicion.to, suspected: false, slot: life.slot });
                }
            }
        }
        marks.sort_unstable();
        marks
    }
}

/// The replay of one life.
struct Replay<'a> {
    node: &'a NodeObservation,
    clock: &'a [Span],
    /// The suspicions of the lowest rungs, which have not ended.
    open: Vec<Suspicion>,
    /// By rung.
    found: Vec<Vec<Suspicion>>,
}

impl Replay<'_> {
    fn run<L: Ladder>(&mut self, life: &Life, mut ladder: L) {
        let ends = life.changes.iter().skip(1).map(|next| next.sample).chain([life.end]);
        let quiet = life.changes.first().map_or(life.end, |next| next.sample);
        let mut last = life.first - 1;
        let start = Stretch { last, begin: life.first, end: quiet, excused: Nanos::ZERO };
        self.stretch(&ladder, life.word.state() == EntityState::Active, start);
        for (seen, end) in life.changes.iter().zip(ends) {
            let at = self.clock[seen.sample as usize].end;
            let is_active = seen.word.state() == EntityState::Active;
            if seen.moved {
                last = seen.sample;
                ladder.progressed(Heartbeat { number: seen.word.count(), at });
                if !is_active {
                    // To say that it is idle clears it of all suspicion, even if it has work.
                    self.trust(seen.sample as usize, 0);
                }
            }
            // What is owed by the idle is owed from the sample that showed it.
            let excused = if seen.owes { at - ladder.last_progress() } else { Nanos::ZERO };
            self.stretch(&ladder, is_active || seen.owes, Stretch { last, begin: seen.sample, end, excused });
        }
        while let Some(open) = self.open.pop() {
            self.found[self.open.len()].push(open);
        }
    }

    #[inline]
    fn stretch<L: Ladder>(&mut self, ladder: &L, owes: bool, stretch: Stretch) {
        let Stretch { begin, end, excused, .. } = stretch;
        if begin >= end {
            return;
        }
        let most = self.clock[end as usize - 1].begin;
        if self.open.is_empty() && (!owes || ladder.rungs() == 0 || most <= ladder.fresh_until(0) + excused) {
            return;
        }
        self.change(ladder, owes, stretch);
    }

    /// The slow path: somebody is suspected, or was.
    #[cold]
    fn change<L: Ladder>(&mut self, ladder: &L, owes: bool, stretch: Stretch) {
        let (begin, end) = (stretch.begin as usize, stretch.end as usize);
        let clock = self.clock;
        let fresh_until = |rung: usize| ladder.fresh_until(rung) + stretch.excused;
        let expired = |rung: usize, at: Nanos| owes && rung < ladder.rungs() && at > fresh_until(rung);
        let suspected = (0..self.open.len()).rev().find(|rung| expired(*rung, clock[begin].begin));
        self.trust(begin, suspected.map_or(0, |highest| highest + 1));
        while expired(self.open.len(), clock[end - 1].begin) {
            let fresh_until = fresh_until(self.open.len());
            let sample = begin + clock[begin..end].partition_point(|sample| sample.begin <= fresh_until);
            let since = self.node.taken[stretch.last as usize].at;
            self.open.push(Suspicion { since, from: self.node.taken[sample].known, to: Nanos::MAX });
        }
    }

    /// With a sample, all but the lowest `still` rungs trust again.
    fn trust(&mut self, sample: usize, still: usize) {
        for rung in (still..self.open.len()).rev() {
            let suspicion = self.open[rung];
            self.found[rung].push(Suspicion { to: self.node.taken[sample].known, ..suspicion });
        }
        self.open.truncate(still);
    }
}

/// Samples, from `begin` up to, not with, `end`, in which nothing changes.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    /// That in which progress was last seen.
    last: u32,
    begin: u32,
    end: u32,
    /// Silence before that does not count.
    excused: Nanos,
}
