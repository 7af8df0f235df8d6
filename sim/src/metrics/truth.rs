//! When each entity was really down.

use backdoor_core::Nanos;

use crate::cluster::{NodeRecord, Record};

/// Down times of one entity, disjoint, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct DownTimes(Vec<(Nanos, Nanos)>);

/// By place in the node's list of entities.
pub(super) fn down_times(node: &NodeRecord) -> Vec<DownTimes> {
    let mut all: Vec<DownTimes> = vec![DownTimes::default(); node.entities.len()];
    for failure in &node.failures {
        let Some(from) = failure.effective else { continue };
        for slot in &failure.affected {
            if let Ok(at) = node.entities.binary_search_by_key(slot, |entity| entity.slot) {
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

    /// Time up between the warm-up and the end of the run.
    pub(super) fn up_time(&self, record: &Record) -> Nanos {
        let clip = |at: Nanos| at.max(record.warm_up).min(record.duration);
        let down: Nanos = self.0.iter().map(|(from, to)| clip(*to) - clip(*from)).sum();
        record.duration - record.warm_up - down
    }
}
