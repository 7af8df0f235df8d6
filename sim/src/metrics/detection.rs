//! Detection accuracy of every deadline, from one record.

use std::cmp::Reverse;

use backdoor_core::Nanos;
use backdoor_core::diagnosis::{Symptom, diagnose_symptoms};
use backdoor_core::monitor::Standing;
use backdoor_core::progress_box::FailureLevel;

use super::judge::Judge;
use crate::cluster::{Deadlines, EntityRecording, NodeRecord, Record, Suspicion};
use crate::faults::Failure;

/// How good the monitors of a run would have been under some deadlines.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    /// The deadlines.
    pub deadlines: Deadlines,
    /// By level: OS, application, session.
    pub levels: [LevelQos; 3],
}

impl Detection {
    /// Of one level.
    pub fn of(&self, level: FailureLevel) -> &LevelQos {
        &self.levels[level as usize]
    }
}

/// Quality of service at one failure level. The [module](super) says what counts as what.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LevelQos {
    /// Entities of this level, over all nodes.
    pub entities: u64,
    /// Failures that took effect after the warm-up: the sum of the next three.
    pub failures: u64,
    /// Failures detected.
    pub detected: u64,
    /// Failures mended before they were detected.
    pub missed: u64,
    /// Failures neither detected nor mended when the run ended.
    pub undecided: u64,
    /// T_D of each detected failure.
    pub detection_times: Vec<Nanos>,
    /// Detected failures that core's diagnosis, at the moment of detection, put at their level and root.
    pub diagnosed_right: u64,
    /// Alarms for what was down.
    pub right_alarms: u64,
    /// Alarms for what had been down, and was mended.
    pub stale_alarms: u64,
    /// Alarms for what was up.
    pub false_positives: u64,
    /// False positives during which the entity really failed.
    pub overtaken: u64,
    /// T_M of each false positive that ended within the run, in trust or in failure.
    pub mistake_durations: Vec<Nanos>,
    /// T_MR: times from one false positive of an entity to its next.
    pub mistake_recurrences: Vec<Nanos>,
    /// Time of false positives, summed over entities.
    pub mistake_time: Nanos,
    /// Time for which entities were up and suspected, other than by a false positive: after a repair, for what they had
    /// been; or since the warm-up. Summed over entities.
    pub lingering: Nanos,
    /// Time that entities were up, summed over entities.
    pub up_time: Nanos,
}

impl LevelQos {
    /// λ_M: false positives per entity and second of its up time.
    pub fn mistakes_per_entity_second(&self) -> f64 {
        self.false_positives as f64 / self.up_time.as_secs_f64()
    }
    /// False positives per entity and hour of its up time.
    pub fn mistakes_per_entity_hour(&self) -> f64 {
        self.mistakes_per_entity_second() * 3600.0
    }
    /// P_A: probability that an entity is trusted, at a random moment at which it is up,
    /// [`lingering`](Self::lingering) suspicions left out.
    pub fn query_accuracy(&self) -> f64 {
        1.0 - self.mistake_time.as_secs_f64() / self.up_time.as_secs_f64()
    }
    /// Share of the alarms that were right, stale ones left out; `None` without alarms.
    pub fn precision(&self) -> Option<f64> {
        ratio(self.right_alarms, self.right_alarms + self.false_positives)
    }
    /// Share of the decided failures that were detected; `None` without failures.
    pub fn recall(&self) -> Option<f64> {
        ratio(self.detected, self.detected + self.missed)
    }
    /// Adds another run's (or node's) outcome under the same deadlines.
    pub fn merge(&mut self, other: &LevelQos) {
        self.entities += other.entities;
        self.failures += other.failures;
        self.detected += other.detected;
        self.missed += other.missed;
        self.undecided += other.undecided;
        self.detection_times.extend(&other.detection_times);
        self.diagnosed_right += other.diagnosed_right;
        self.right_alarms += other.right_alarms;
        self.stale_alarms += other.stale_alarms;
        self.false_positives += other.false_positives;
        self.overtaken += other.overtaken;
        self.mistake_durations.extend(&other.mistake_durations);
        self.mistake_recurrences.extend(&other.mistake_recurrences);
        self.mistake_time += other.mistake_time;
        self.lingering += other.lingering;
        self.up_time += other.up_time;
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Judges every one of `deadlines` on one record.
///
/// # Panics
/// If a deadline is below the record's floor: the silences that it would need were not kept.
pub fn detection(record: &Record, deadlines: &[Deadlines]) -> Vec<Detection> {
    let new = |deadlines: &Deadlines| Detection { deadlines: *deadlines, levels: Default::default() };
    let mut all: Vec<Detection> = deadlines.iter().map(new).collect();
    for detection in &all {
        let Deadlines { os, application, session } = detection.deadlines;
        let shortest = os.min(application).min(session);
        assert!(shortest >= record.floor, "a deadline of {shortest} on a record from {} on", record.floor);
    }
    for node in &record.nodes {
        let entities = node.entities.iter().map(|entity| (entity.slot, entity.record.level));
        let judge = Judge::new((record.warm_up, record.duration), entities, &node.failures);
        let longest = longest_first(node);
        for detection in &mut all {
            let sweep = Sweep { node, longest: &longest, deadlines: detection.deadlines };
            let suspicions: Vec<_> = (0..node.entities.len()).map(|entity| sweep.suspicions(entity)).collect();
            let right = |failure: &Failure, at| sweep.diagnosed_right(failure, at, &suspicions);
            judge.judge(&suspicions, &mut detection.levels, right);
        }
    }
    all
}

/// By entity, its silences that count, the longest first: most deadlines have to look at few of them.
fn longest_first(node: &NodeRecord) -> Vec<Vec<u32>> {
    let of = |entity: &EntityRecording| {
        let silences = &entity.silences;
        let mut places: Vec<u32> = (0..).zip(silences).filter(|(_, s)| s.active).map(|(place, _)| place).collect();
        places.sort_by_key(|place| Reverse(silences[*place as usize].length));
        places
    };
    node.entities.iter().map(of).collect()
}

/// The deadlines on one node's record.
struct Sweep<'a> {
    node: &'a NodeRecord,
    longest: &'a [Vec<u32>],
    deadlines: Deadlines,
}

impl Sweep<'_> {
    /// The suspicions of an entity, in order of time.
    fn suspicions(&self, entity: usize) -> Vec<Suspicion> {
        let longest = &self.longest[entity];
        let entity = &self.node.entities[entity];
        let deadline = self.deadlines.of(entity.record.level);
        let silence = |place: &u32| &entity.silences[*place as usize];
        let mut places = longest[..longest.partition_point(|place| silence(place).length > deadline)].to_vec();
        places.sort_unstable();
        let of = |place| {
            let silence = silence(place);
            let (from, to) = self.node.suspicion(silence, deadline)?;
            Some(Suspicion { since: silence.since, from, to: to.unwrap_or(Nanos::MAX) })
        };
        places.iter().filter_map(of).collect()
    }

    /// Asks core's diagnosis, with what the monitor knew at `at`.
    fn diagnosed_right(&self, failure: &Failure, at: Nanos, suspicions: &[Vec<Suspicion>]) -> bool {
        let samples = &self.node.samples;
        let sample = samples.partition_point(|sample| sample.at <= at).saturating_sub(1);
        let evidence = samples.get(sample).map_or(Nanos::ZERO, |sample| sample.begin);
        let symptoms: Vec<Symptom> = (self.node.entities.iter().zip(suspicions))
            .map(|(entity, suspicions)| {
                let mut record = entity.record;
                record.deadline = self.deadlines.of(record.level);
                let suspicion = suspicions.get(suspicions.partition_point(|s| s.to <= at));
                let suspected = suspicion.is_some_and(|s| s.from <= at);
                let standing = if suspected { Standing::Suspected } else { Standing::Trusted };
                // A silence too short to be on record is as good as none.
                let silence = entity.silences.get(entity.silences.partition_point(|s| s.ended <= sample));
                let last_progress = silence.map_or(evidence, |s| s.start.min(evidence));
                Symptom { slot: entity.slot, record, standing, last_progress, progressed: last_progress }
            })
            .collect();
        let right = |found: &backdoor_core::diagnosis::Failure| {
            found.cause.level() == Some(failure.level) && found.roots.iter().any(|root| failure.roots.contains(root))
        };
        diagnose_symptoms(&symptoms).iter().any(right)
    }
}
