//! Detection accuracy of suspicions that are known already: of replayed detectors, and of monitors that ran.

use super::LevelQos;
use super::judge::Judge;
use crate::cluster::{NodeSuspicions, Observation, Scenario, Suspicions};

/// Judges every rung of a ladder of detectors, whose suspicions are given by node: the quality of each, by level (OS,
/// application, session). Nothing is diagnosed.
///
/// # Panics
/// If nodes have ladders of different heights.
pub fn replayed(observation: &Observation, suspicions: &[Suspicions]) -> Vec<[LevelQos; 3]> {
    let rungs = suspicions.first().map_or(0, Vec::len);
    let mut qualities: Vec<[LevelQos; 3]> = vec![Default::default(); rungs];
    for (node, suspicions) in observation.nodes.iter().zip(suspicions) {
        assert_eq!(suspicions.len(), rungs, "a ladder of another height");
        let entities = node.lives.iter().map(|life| (life.slot, life.record.level));
        let judge = Judge::new((observation.warm_up, observation.duration), entities, &node.failures);
        for (suspicions, quality) in suspicions.iter().zip(&mut qualities) {
            judge.judge(suspicions, quality, |_, _| false);
        }
    }
    qualities
}

/// Judges what the monitors of a run of `scenario` suspected, by level (OS, application, session). Nothing is diagnosed.
pub fn judged(scenario: &Scenario, nodes: &[NodeSuspicions]) -> [LevelQos; 3] {
    let mut levels = Default::default();
    for node in nodes {
        let judge = Judge::new((scenario.warm_up, scenario.duration), node.entities.iter().copied(), &node.failures);
        judge.judge(&node.suspicions, &mut levels, |_, _| false);
    }
    levels
}
