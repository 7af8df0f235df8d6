//! Any detector, on what a monitor [observed](super::observe): one run, all detectors.
//!
//! Whom a monitor suspects, follows from little: **an entity is suspected after a sample exactly if it says that it is
//! active, and the sample's evidence begins after its detector's freshness point.** That holds however the entity came
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
        let ends = life.moves.iter().skip(1).map(|next| next.sample).chain([life.end]);
        let quiet = life.moves.first().map_or(life.end, |next| next.sample);
        self.stretch(&ladder, life.state, (life.first - 1, life.first, quiet));
        for (seen, end) in life.moves.iter().zip(ends) {
            let heartbeat = Heartbeat { number: seen.word.count(), at: self.clock[seen.sample as usize].end };
            ladder.progressed(heartbeat);
            self.stretch(&ladder, seen.word.state(), (seen.sample, seen.sample, end));
        }
        while let Some(open) = self.open.pop() {
            self.found[self.open.len()].push(open);
        }
    }

    /// From sample `begin` up to, not with, sample `end`, nothing changed; progress was last seen in sample `last`.
    #[inline]
    fn stretch<L: Ladder>(&mut self, ladder: &L, state: EntityState, (last, begin, end): (u32, u32, u32)) {
        if begin >= end {
            return;
        }
        let most = self.clock[end as usize - 1].begin;
        let is_active = state == EntityState::Active;
        if self.open.is_empty() && (!is_active || ladder.rungs() == 0 || most <= ladder.fresh_until(0)) {
            return;
        }
        self.change(ladder, is_active, (last as usize, begin as usize, end as usize));
    }

    /// The slow path: somebody is suspected, or was.
    #[cold]
    fn change<L: Ladder>(&mut self, ladder: &L, is_active: bool, (last, begin, end): (usize, usize, usize)) {
        let Replay { node, clock, open, found } = self;
        let first = clock[begin].begin;
        let expired = |rung: usize, at: Nanos| rung < ladder.rungs() && at > ladder.fresh_until(rung);
        // Who is trusted again with this sample.
        while let Some(highest) = open.len().checked_sub(1)
            && !(is_active && expired(highest, first))
        {
            if let Some(suspicion) = open.pop() {
                found[highest].push(Suspicion { to: node.taken[begin].known, ..suspicion });
            }
        }
        if !is_active {
            return;
        }
        while expired(open.len(), clock[end - 1].begin) {
            let fresh_until = ladder.fresh_until(open.len());
            let sample = begin + clock[begin..end].partition_point(|sample| sample.begin <= fresh_until);
            open.push(Suspicion { since: node.taken[last].at, from: node.taken[sample].known, to: Nanos::MAX });
        }
    }
}
