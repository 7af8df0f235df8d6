//! The monitor's picture of a node's entities, laid out for scanning thousands of liveness words at each poll.
//!
//! Most words of a poll are either all unchanged or all moved by a healthy entity; both are handled in one tight loop.
//! Everything else (an entity that turns idle, leaves, or comes back from suspicion) takes the slow path.

use super::event::{Event, Verdict};
use crate::Nanos;
use crate::detector::Detector;
use crate::progress_box::{EntityRecord, EntityState, Liveness, Slot};

/// How the monitor sees an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// The slot is free, or what is in it is not known yet.
    Unknown,
    /// Active and trusted.
    Trusted,
    /// Waits for work, by its own word.
    Idle,
    /// Silent for too long.
    Suspected,
    /// Has ended by its own will.
    Departed,
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
    /// When progress was last seen, in evidence time.
    pub last_progress: Nanos,
    /// Its detector.
    pub detector: &'a D,
}

/// One sample of all liveness words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample<'a> {
    pub(super) words: &'a [u64],
    /// Evidence time before which the words can't have been sampled: what accuses least when they have not moved.
    pub(super) begin: Nanos,
    /// Evidence time after which they can't have been sampled: what accuses least when they have.
    pub(super) end: Nanos,
    /// The caller's time, for verdicts.
    pub(super) now: Nanos,
}

/// Words compared at once; a run without change costs one branch.
const RUN: usize = 32;

#[derive(Debug)]
pub(super) struct EntityTable<D> {
    words: Vec<u64>,
    standing: Vec<Standing>,
    detectors: Vec<Option<D>>,
    records: Vec<Option<EntityRecord>>,
    /// No trusted entity's freshness point is earlier. May be too early, never too late.
    earliest: Nanos,
}

impl<D: Detector> EntityTable<D> {
    pub(super) fn new(capacity: usize) -> Self {
        EntityTable {
            words: vec![0; capacity],
            standing: vec![Standing::Unknown; capacity],
            detectors: (0..capacity).map(|_| None).collect(),
            records: vec![None; capacity],
            earliest: Nanos::MAX,
        }
    }

    /// Takes a sample in: progress first, then verdicts on those that made none.
    pub(super) fn observe(&mut self, sample: Sample<'_>, events: &mut Vec<Event>) {
        debug_assert_eq!(sample.words.len(), self.words.len());
        for start in (0..self.words.len()).step_by(RUN) {
            let run = start..self.words.len().min(start + RUN);
            let pairs = sample.words[run.clone()].iter().zip(&self.words[run.clone()]);
            if pairs.fold(0, |moved, (new, old)| moved | (new ^ old)) != 0 {
                for index in run {
                    self.compare(index, &sample, events);
                }
            }
        }
        if sample.begin > self.earliest {
            self.expire(&sample, events);
        }
    }

    #[inline]
    fn compare(&mut self, index: usize, sample: &Sample<'_>, events: &mut Vec<Event>) {
        let word = sample.words[index];
        if self.words[index] == word {
            return;
        }
        self.words[index] = word;
        if self.standing[index] == Standing::Trusted
            && Liveness(word).state() == EntityState::Active
            && let Some(detector) = &mut self.detectors[index]
        {
            detector.progressed(sample.end);
            self.earliest = self.earliest.min(detector.fresh_until());
        } else {
            self.change_standing(index, sample, events);
        }
    }

    /// The slow path of a moved word.
    #[cold]
    fn change_standing(&mut self, index: usize, sample: &Sample<'_>, events: &mut Vec<Event>) {
        let (Some(detector), Some(record)) = (&mut self.detectors[index], self.records[index]) else { return };
        let slot = Slot(index as u32);
        let silence = sample.begin - detector.last_progress();
        detector.progressed(sample.end);
        let before = self.standing[index];
        let after = match Liveness(self.words[index]).state() {
            EntityState::Active => Standing::Trusted,
            EntityState::Idle => Standing::Idle,
            EntityState::Departed => Standing::Departed,
            EntityState::Free => Standing::Unknown,
        };
        self.standing[index] = after;
        if after == Standing::Trusted {
            self.earliest = self.earliest.min(detector.fresh_until());
        }
        let gone = |standing| matches!(standing, Standing::Departed | Standing::Unknown);
        if before == Standing::Suspected {
            events.push(Event::Trusted(Verdict { slot, record, at: sample.now, silence }));
        }
        match (gone(before), gone(after)) {
            (false, true) => events.push(Event::Left { slot, record }),
            (true, false) => events.push(Event::Joined { slot, record }),
            _ => {}
        }
    }

    /// Suspects whoever is past its freshness point, and finds the next one.
    #[cold]
    fn expire(&mut self, sample: &Sample<'_>, events: &mut Vec<Event>) {
        let mut earliest = Nanos::MAX;
        for (index, standing) in self.standing.iter_mut().enumerate() {
            if *standing != Standing::Trusted {
                continue;
            }
            let (Some(detector), Some(record)) = (&self.detectors[index], self.records[index]) else { continue };
            let fresh_until = detector.fresh_until();
            if sample.begin > fresh_until {
                *standing = Standing::Suspected;
                let silence = sample.begin - detector.last_progress();
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
        let same = known.is_some_and(|known| known.generation == record.generation);
        // A changed deadline takes effect at once, and costs the detector what it has learnt.
        let same_promise = same && known.is_some_and(|known| known.deadline == record.deadline);
        let replaced = known.replace(record).filter(|_| !same);
        if same_promise {
            return;
        }
        let detector = make(&record, at);
        let fresh_until = detector.fresh_until();
        self.detectors[index] = Some(detector);
        if same && self.standing[index] == Standing::Suspected {
            return;
        }
        let was_there = matches!(self.standing[index], Standing::Trusted | Standing::Idle | Standing::Suspected);
        if let Some(old) = replaced
            && was_there
        {
            events.push(Event::Left { slot, record: old });
        }
        self.standing[index] = match Liveness(self.words[index]).state() {
            EntityState::Active => Standing::Trusted,
            EntityState::Idle => Standing::Idle,
            EntityState::Departed => Standing::Departed,
            EntityState::Free => Standing::Unknown,
        };
        let is_there = matches!(self.standing[index], Standing::Trusted | Standing::Idle);
        if self.standing[index] == Standing::Trusted {
            self.earliest = self.earliest.min(fresh_until);
        }
        if is_there && !same {
            events.push(Event::Joined { slot, record });
        }
    }

    /// The entities that are known and whose slots are not free.
    pub(super) fn entities(&self) -> impl Iterator<Item = EntityView<'_, D>> {
        self.records.iter().zip(&self.detectors).enumerate().filter_map(|(index, (record, detector))| {
            let (record, detector) = (record.as_ref()?, detector.as_ref()?);
            let standing = self.standing[index];
            (standing != Standing::Unknown).then(|| EntityView {
                slot: Slot(index as u32),
                record,
                standing,
                last_progress: detector.last_progress(),
                detector,
            })
        })
    }
}
