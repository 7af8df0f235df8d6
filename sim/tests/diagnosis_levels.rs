//! Failures at each level behind a channel that works: the counters of one thing stand still, or of everything.

mod diagnosis_support;

use backdoor_core::Nanos;
use backdoor_sim::cluster::{Deadlines, DiagnosisOptions, Found, ScenarioError, Worth, diagnosis_run};
use backdoor_sim::faults::Breakdown;
use backdoor_sim::streams::{StreamKey, Streams};
use diagnosis_support::{AT_ONCE, AT_ONCE_INFORMED, SETTLED, SETTLED_INFORMED, answers, scenario, worths};

#[test]
fn a_system_that_stops_is_recognised_when_the_last_of_its_counters_is_overdue() {
    assert_eq!(worths(&answers(&scenario(), Breakdown::System, AT_ONCE)), [0, 0, 10], "whoever ticked last is blamed");
    for way in [SETTLED, SETTLED_INFORMED] {
        let answers = answers(&scenario(), Breakdown::System, way);
        assert_eq!(worths(&answers), [10, 0, 0]);
        let slack = Nanos::from_millis(112);
        assert!(answers.iter().all(|answer| answer.after.unwrap() < slack), "{answers:?}");
    }
}

#[test]
fn a_system_with_a_longer_deadline_is_waited_for() {
    let ms = Nanos::from_millis;
    let mut scenario = scenario();
    scenario.deadlines = Deadlines { os: ms(300), application: ms(100), session: ms(50) };
    let early = answers(&scenario, Breakdown::System, AT_ONCE_INFORMED);
    assert!(early.iter().all(|answer| answer.worth == Worth::Wrong && answer.after.unwrap() < ms(110)), "{early:?}");
    let settled = answers(&scenario, Breakdown::System, SETTLED_INFORMED);
    assert!(
        settled.iter().all(|answer| answer.worth == Worth::Right && answer.after.unwrap() > ms(280)),
        "{settled:?}"
    );
}

#[test]
fn one_processor_that_hangs_is_no_system() {
    let mut scenario = scenario();
    for load in [0, 6] {
        scenario.load = load;
        let answers = answers(&scenario, Breakdown::Processor, SETTLED_INFORMED);
        assert_eq!(worths(&answers), [10, 0, 0], "load {load}: {answers:?}");
    }
}

#[test]
fn an_application_that_stops_is_told_from_a_session_that_is_stuck() {
    for (breakdown, found) in [(Breakdown::Application, Found::Application), (Breakdown::Session, Found::Session)] {
        let answers = answers(&scenario(), breakdown, SETTLED_INFORMED);
        assert_eq!(worths(&answers), [10, 0, 0], "{breakdown}");
        assert!(answers.iter().all(|answer| answer.found == found), "{breakdown}: {answers:?}");
    }
}

#[test]
fn what_is_not_there_can_not_break_down() {
    let streams = Streams::new(StreamKey { seed: 7, experiment: "diagnosis tests", point: "", replication: 0 });
    let refused = |change: fn(&mut backdoor_sim::workload::Workload), breakdown| {
        let mut scenario = scenario();
        change(&mut scenario.workload);
        diagnosis_run(&scenario, &streams, &DiagnosisOptions::of(breakdown)).unwrap_err()
    };
    assert_eq!(refused(|work| work.disk = None, Breakdown::DiskSlow), ScenarioError::Lacks("disk"));
    assert_eq!(refused(|work| work.chain = None, Breakdown::Last), ScenarioError::Lacks("chain of processes"));
    assert_eq!(refused(|work| work.sessions = 0, Breakdown::Session), ScenarioError::Lacks("session"));
}
