//! When each entity was really down.

use backdoor_core::Nanos;
use backdoor_core::progress_box::{FailureLevel, Slot};

use crate::faults::Failure;

/// Down times of one entity, disjoint, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct DownTimes(Vec<(Nanos, Nanos)>);

/// By place among the node's entities, which are in slot order.
pub(super) fn down_times(entities: &[(Slot, FailureLevel)], failures: &[Failure]) -> Vec<DownTimes> {
    let mut all: Vec<DownTimes> = vec![DownTimes::default(); entities.len()];
    for failure in failures {
        let Some(from) = failure.effective else { continue };
        for slot in &failure.affected {
            if let Ok(at) = entities.binary_search_by_key(slot, |(slot, _)| *slot) {
                all[at].0.push((from, failure.repaired.unwrap_or(Nanos::MAX)));
            }
        }
    }
    for times in &mut all {
        times.merge();
    }
    all
}

impl DownTimes {
    fn merge(&mut self) {
        self.0.sort_unstable();
        let mut merged: Vec<(Nanos, Nanos)> = Vec::with_capacity(self.0.len());
        for (from, to) in self.0.drain(..) {
            match merged.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        self.0 = merged;
    }

    /// The first down time that ends after `at`.
    pub(super) fn ending_after(&self, at: Nanos) -> Option<(Nanos, Nanos)> {
        self.0.get(self.0.partition_point(|(_, to)| *to <= at)).copied()
    }

    /// Time up between two moments.
    pub(super) fn up_time(&self, begin: Nanos, end: Nanos) -> Nanos {
        let clip = |at: Nanos| at.max(begin).min(end);
        let down: Nanos = self.0.iter().map(|(from, to)| clip(*to) - clip(*from)).sum();
        end - begin - down
    }
}
