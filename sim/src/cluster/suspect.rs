//! Runs under real monitors with any detector, and what they suspected: for questions that only the monitor itself can
//! answer, such as what it makes of gauges.

use backdoor_core::Nanos;
use backdoor_core::detector::Detector;
use backdoor_core::monitor::{Event as Noticed, Monitor};
use backdoor_core::progress_box::{EntityRecord, FailureLevel, Slot};

use super::replay::Suspicion;
use super::scenario::{Scenario, ScenarioError};
use super::world::{Happening, World};
use crate::faults::Failure;
use crate::streams::Streams;

/// What the monitor of one node suspected, and what was true.
#[derive(Clone, Debug)]
pub struct NodeSuspicions {
    /// Its entities, in slot order.
    pub entities: Vec<(Slot, FailureLevel)>,
    /// By entity, in order of time. Their silences are as long as the monitor says.
    pub suspicions: Vec<Vec<Suspicion>>,
    /// The failures that happened.
    pub failures: Vec<Failure>,
}

/// Runs `scenario` with monitors that suspect by the detectors that `make` makes; what they suspected, by node.
///
/// # Errors
/// The scenario is [impossible](Scenario::check).
pub fn suspicions<D: Detector>(
    scenario: &Scenario,
    streams: &Streams,
    make: impl Fn(&EntityRecord, Nanos) -> D + Clone + Send + 'static,
) -> Result<Vec<NodeSuspicions>, ScenarioError> {
    let config = scenario.monitor;
    let mut world = World::new(scenario, streams, |hook_table| Monitor::new(config, hook_table, make.clone()))?;
    let mut found: Vec<Vec<Vec<Suspicion>>> = vec![vec![Vec::new(); scenario.entities_per_node()]; scenario.nodes];
    while let Some(happening) = world.next() {
        let Happening::Stepped(node) = happening else { continue };
        let at = world.watches[node].link.known_at(world.now());
        for noticed in &world.watches[node].noticed {
            match noticed {
                Noticed::Suspected(verdict) => {
                    if let Some(list) = found[node].get_mut(verdict.slot.index()) {
                        list.push(Suspicion { since: at - verdict.silence, from: at, to: Nanos::MAX });
                    }
                }
                Noticed::Trusted(verdict) => {
                    if let Some(last) = found[node].get_mut(verdict.slot.index()).and_then(|list| list.last_mut()) {
                        last.to = at;
                    }
                }
                _ => {}
            }
        }
    }
    let ends = world.nodes.into_iter().zip(world.watches).zip(found);
    Ok(ends
        .map(|((node, watch), mut found)| {
            let entities: Vec<_> = watch.monitor.entities().map(|view| (view.slot, view.record.level)).collect();
            let suspicions = entities.iter().map(|(slot, _)| std::mem::take(&mut found[slot.index()])).collect();
            NodeSuspicions { entities, suspicions, failures: node.failures }
        })
        .collect())
}
