//! A chain of processes, of which each waits for the reply of the next: one stops, and those before it fall silent.

mod diagnosis_support;

use backdoor_sim::cluster::{Found, Scenario, Worth};
use backdoor_sim::dist::Dist;
use backdoor_sim::faults::Breakdown;
use diagnosis_support::{AT_ONCE, AT_ONCE_INFORMED, SETTLED, SETTLED_INFORMED, answers, scenario, worths};

/// Processes that work for long, so that a request is seen to pass: those that had it first are overdue first.
fn slow_chain() -> Scenario {
    let mut scenario = scenario();
    if let Some(chain) = &mut scenario.workload.chain {
        chain.work = "const:8ms".parse::<Dist>().unwrap();
        chain.request_interval = "exp:200ms".parse().unwrap();
    }
    scenario
}

#[test]
fn the_first_process_stops_alone() {
    for way in [AT_ONCE, SETTLED, SETTLED_INFORMED] {
        assert_eq!(worths(&answers(&scenario(), Breakdown::First, way)), [10, 0, 0]);
    }
}

#[test]
fn a_process_in_the_middle_takes_those_before_it_along() {
    let by_counters = answers(&scenario(), Breakdown::Middle, SETTLED);
    assert!(by_counters.iter().all(|answer| answer.found == Found::Several), "{by_counters:?}");
    assert_eq!(worths(&answers(&scenario(), Breakdown::Middle, SETTLED_INFORMED)), [10, 0, 0]);
}

#[test]
fn the_root_at_the_end_is_overdue_last_and_named_when_it_is() {
    let early = answers(&slow_chain(), Breakdown::Last, AT_ONCE_INFORMED);
    let client = |answer: &backdoor_sim::cluster::Answer| answer.found == Found::First;
    assert!(early.iter().filter(|answer| client(answer)).count() >= 8, "who waits longest is blamed first: {early:?}");
    let settled = answers(&slow_chain(), Breakdown::Last, SETTLED_INFORMED);
    assert_eq!(worths(&settled), [10, 0, 0], "{settled:?}");
    let later = early.iter().zip(&settled).filter(|(early, settled)| early.after < settled.after).count();
    assert!(later >= 8);
}

#[test]
fn a_process_that_hangs_behind_its_idle_claim_leaves_a_doubt() {
    let answers = answers(&scenario(), Breakdown::LastIdle, SETTLED_INFORMED);
    assert_eq!(worths(&answers), [0, 10, 0]);
    assert!(answers.iter().all(|answer| answer.found == Found::Middle), "its client is there to be seen: {answers:?}");
}

#[test]
fn counted_work_takes_the_idle_claim_away() {
    let answers = answers(&scenario(), Breakdown::LastIdleCounted, SETTLED_INFORMED);
    assert_eq!(worths(&answers), [10, 0, 0]);
    assert!(answers.iter().all(|answer| answer.found == Found::Last && answer.worth == Worth::Right));
}

/// Nothing is put in by hand: a chain without a breakdown accuses nobody, and the doubts are gone with the idle claims.
#[test]
fn a_chain_that_works_is_silent_nowhere() {
    use backdoor_sim::cluster::verdicts;
    use backdoor_sim::streams::{StreamKey, Streams};
    for scenario in [scenario(), slow_chain()] {
        let scenario = Scenario { duration: backdoor_core::Nanos::from_secs(5), ..scenario };
        let streams = Streams::new(StreamKey { seed: 7, experiment: "chain", point: "", replication: 0 });
        let log = verdicts(&scenario, &streams).unwrap().remove(0);
        assert_eq!(log.marks, []);
    }
}
