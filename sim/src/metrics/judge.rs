//! What a monitor would have said of one node, against what was true.

use backdoor_core::Nanos;
use backdoor_core::progress_box::{FailureLevel, Slot};

use super::LevelQos;
use super::truth::{DownTimes, down_times};
use crate::cluster::Suspicion;
use crate::faults::Failure;

/// What was true of one node, and what time of it counts.
pub(super) struct Judge<'a> {
    /// Nothing before counts.
    pub(super) warm_up: Nanos,
    /// When the run ended.
    pub(super) duration: Nanos,
    /// The entities, in slot order.
    pub(super) entities: Vec<(Slot, FailureLevel)>,
    pub(super) failures: &'a [Failure],
    down: Vec<DownTimes>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(
        (warm_up, duration): (Nanos, Nanos),
        entities: impl IntoIterator<Item = (Slot, FailureLevel)>,
        failures: &'a [Failure],
    ) -> Self {
        let entities: Vec<_> = entities.into_iter().collect();
        let down = down_times(&entities, failures);
        Judge { warm_up, duration, entities, failures, down }
    }

    /// Judges the suspicions of each entity, which are in order of time; `right` tells whether the diagnosis of a failure
    /// that was detected at some moment would have been.
    pub(super) fn judge(
        &self,
        suspicions: &[Vec<Suspicion>],
        levels: &mut [LevelQos; 3],
        right: impl Fn(&Failure, Nanos) -> bool,
    ) {
        for (((_, level), down), suspicions) in self.entities.iter().zip(&self.down).zip(suspicions) {
            let qos = &mut levels[*level as usize];
            qos.entities += 1;
            qos.up_time += down.up_time(self.warm_up, self.duration);
            self.judge_alarms(suspicions, down, qos);
        }
        for failure in self.failures {
            let Some(effective) = failure.effective.filter(|at| *at >= self.warm_up) else { continue };
            let qos = &mut levels[failure.level as usize];
            qos.failures += 1;
            let noticed = self.noticed(failure, effective, suspicions);
            match noticed.filter(|at| *at < failure.repaired.unwrap_or(Nanos::MAX)) {
                Some(at) => {
                    qos.detected += 1;
                    qos.detection_times.push(at - effective);
                    qos.diagnosed_right += u64::from(right(failure, at));
                }
                None if failure.repaired.is_some() => qos.missed += 1,
                None => qos.undecided += 1,
            }
        }
    }

    fn judge_alarms(&self, suspicions: &[Suspicion], down: &DownTimes, qos: &mut LevelQos) {
        let mut last_mistake = None;
        for suspicion in suspicions {
            if suspicion.since < self.warm_up {
                qos.lingering += self.up_between(down, self.warm_up, suspicion.to);
                continue;
            }
            let next_down = down.ending_after(suspicion.from);
            if let Some((_, repaired)) = next_down.filter(|(from, _)| *from <= suspicion.from) {
                qos.right_alarms += 1;
                qos.lingering += self.up_between(down, repaired, suspicion.to);
                continue;
            }
            if down.ending_after(suspicion.since).is_some_and(|(_, to)| to <= suspicion.from) {
                qos.stale_alarms += 1;
                qos.lingering += self.up_between(down, suspicion.from, suspicion.to);
                continue;
            }
            qos.false_positives += 1;
            let failure = next_down.filter(|(from, _)| *from < suspicion.to);
            qos.overtaken += u64::from(failure.is_some());
            let end = failure.map_or(suspicion.to, |(from, _)| from);
            if end != Nanos::MAX {
                qos.mistake_durations.push(end - suspicion.from);
            }
            qos.mistake_time += end.min(self.duration) - suspicion.from;
            if let Some((_, repaired)) = failure {
                qos.lingering += self.up_between(down, repaired, suspicion.to);
            }
            if let Some(last) = last_mistake.replace(suspicion.from) {
                qos.mistake_recurrences.push(suspicion.from - last);
            }
        }
    }

    /// Time that an entity was up from one moment to another, as far as the run goes.
    fn up_between(&self, down: &DownTimes, from: Nanos, to: Nanos) -> Nanos {
        let to = to.min(self.duration);
        if from < to { down.up_time(from, to) } else { Nanos::ZERO }
    }

    /// When all roots of a failure were suspected, be it before it or after its repair; `None`: never.
    fn noticed(&self, failure: &Failure, effective: Nanos, suspicions: &[Vec<Suspicion>]) -> Option<Nanos> {
        let mut noticed = effective;
        for root in &failure.roots {
            let at = self.entities.binary_search_by_key(root, |(slot, _)| *slot).ok()?;
            let list = &suspicions[at];
            let first = list.get(list.partition_point(|s| s.to <= effective))?;
            noticed = noticed.max(first.from);
        }
        Some(noticed)
    }
}
