//! A node on which many wait for each other, and what is made of its breakdowns.
#![allow(dead_code, reason = "every test file uses a part of it")]

use backdoor_core::Nanos;
use backdoor_sim::cluster::{
    Answer, Deadlines, DiagnosisOptions, DiagnosisOutcome, Scenario, Way, Worth, diagnosis_run,
};
use backdoor_sim::faults::Breakdown;
use backdoor_sim::streams::{StreamKey, Streams};
use backdoor_sim::workload::{Chain, Disk};

pub(crate) const AT_ONCE: Way = Way { informed: false, settled: false };
pub(crate) const AT_ONCE_INFORMED: Way = Way { informed: true, settled: false };
pub(crate) const SETTLED: Way = Way { informed: false, settled: true };
pub(crate) const SETTLED_INFORMED: Way = Way { informed: true, settled: true };

/// Two applications with sessions, a chain of three processes, a disk for all of them; every deadline is 100 ms. The
/// network card gives up after 67 ms.
pub(crate) fn scenario() -> Scenario {
    let mut scenario = Scenario { deadlines: Deadlines::all(Nanos::from_millis(100)), ..Scenario::default() };
    scenario.workload.applications = 2;
    scenario.workload.sessions = 4;
    scenario.workload.chain = Some(Chain::default());
    scenario.workload.disk = Some(Disk::default());
    scenario.nic.retransmit_after = Nanos(4_096 << 12);
    scenario
}

/// The outcome of one breakdown, with random numbers of its own.
pub(crate) fn outcome(scenario: &Scenario, breakdown: Breakdown, replication: u64) -> DiagnosisOutcome {
    let streams = Streams::new(StreamKey { seed: 7, experiment: "diagnosis tests", point: "", replication });
    diagnosis_run(scenario, &streams, &DiagnosisOptions::of(breakdown)).unwrap()
}

/// The answers that ten breakdowns get in one way; all of them took effect.
pub(crate) fn answers(scenario: &Scenario, breakdown: Breakdown, way: Way) -> Vec<Answer> {
    let outcomes = (0..10).map(|replication| outcome(scenario, breakdown, replication));
    outcomes
        .map(|outcome| {
            assert!(outcome.effective.is_some());
            outcome.answer(way)
        })
        .collect()
}

/// How many answers are right, leave the truth open, and are wrong.
pub(crate) fn worths(answers: &[Answer]) -> [usize; 3] {
    [Worth::Right, Worth::Open, Worth::Wrong].map(|worth| answers.iter().filter(|a| a.worth == worth).count())
}
