//! From a failure to its sessions being served elsewhere.

use backdoor_core::Nanos;
use backdoor_core::progress_box::FailureLevel;
use backdoor_core::recovery::{NodeAction, StateError};
use backdoor_core::state_box::StateBoxError;
use backdoor_sim::cluster::{
    Deadlines, RecoveryOptions, RecoveryOutcome, Remedy, Scenario, SessionFate, Timeline, recovery_run,
};
use backdoor_sim::streams::{StreamKey, Streams};

const DEADLINE: Nanos = Nanos::from_millis(30);

fn scenario() -> Scenario {
    let mut scenario = Scenario { deadlines: Deadlines::all(DEADLINE), ..Scenario::default() };
    scenario.workload.applications = 2;
    scenario.workload.sessions = 12;
    scenario
}

fn options(level: FailureLevel) -> RecoveryOptions {
    RecoveryOptions { level, ..RecoveryOptions::default() }
}

fn run(scenario: &Scenario, options: &RecoveryOptions, replication: u64) -> RecoveryOutcome {
    let key = StreamKey { seed: 9, experiment: "recovery tests", point: "", replication };
    recovery_run(scenario, &Streams::new(key), options).unwrap()
}

/// What holds of every recovery, whatever happened.
fn check(outcome: &RecoveryOutcome) {
    for session in &outcome.sessions {
        match session.fate {
            SessionFate::Saved { timeline, intact } => {
                assert!(intact, "session {} came back with a state that it never committed", session.session);
                assert!(session.state_bytes > 0);
                assert_eq!(Some(timeline.detection), outcome.detection);
                for step in [timeline.claiming, timeline.extraction, timeline.reinstatement, timeline.first_service] {
                    assert!(step > Nanos::ZERO, "{timeline:?}");
                }
                assert!(timeline.taking >= Nanos::from_micros(4), "a swap there and back: {timeline:?}");
            }
            _ => assert_eq!(session.state_bytes, 0),
        }
    }
    assert_eq!(outcome.saved() + outcome.lost(), outcome.sessions.len());
}

#[test]
fn each_level_loses_and_saves_its_own_sessions() {
    let expected = [
        (FailureLevel::Os, 24, NodeAction::RebootNode),
        (FailureLevel::Application, 12, NodeAction::None),
        (FailureLevel::Session, 1, NodeAction::None),
    ];
    for (level, sessions, action) in expected {
        for replication in 0..10 {
            let outcome = run(&scenario(), &options(level), replication);
            check(&outcome);
            assert_eq!((outcome.sessions.len(), outcome.saved()), (sessions, sessions), "{level} {replication}");
            assert!(outcome.diagnosed_right(level), "{level} {replication}: {:?}", outcome.causes);
            match level {
                FailureLevel::Application => {
                    assert!(matches!(outcome.actions[..], [NodeAction::RestartApplication(_)]));
                }
                _ => assert_eq!(outcome.actions, [action]),
            }
            let detection = outcome.detection.unwrap();
            assert!(detection <= DEADLINE + Nanos::from_millis(12), "{level} {replication}: {detection}");
            assert!(outcome.extraction.bytes_read >= 4096 * sessions as u64);
        }
    }
}

#[test]
fn whoever_is_cut_off_with_the_failed_is_taken_over_too() {
    for level in [FailureLevel::Os, FailureLevel::Application, FailureLevel::Session] {
        let outcome = run(&scenario(), &RecoveryOptions { whole_node: true, ..options(level) }, 0);
        check(&outcome);
        assert_eq!((outcome.sessions.len(), outcome.saved()), (24, 24), "{level}");
        assert!(outcome.diagnosed_right(level), "{level}: {:?}", outcome.causes);
    }
}

#[test]
fn a_larger_state_takes_longer_to_extract_and_to_reinstate() {
    let parts = |bytes| {
        let mut scenario = scenario();
        scenario.workload.state_bytes = Some(bytes);
        // Nobody is asked, who would be the slowest.
        let outcome = run(&scenario, &options(FailureLevel::Os), 0);
        check(&outcome);
        assert!(outcome.sessions.iter().all(|session| session.state_bytes == bytes as u64));
        let mut sum = (Nanos::ZERO, Nanos::ZERO);
        for session in &outcome.sessions {
            let SessionFate::Saved { timeline, .. } = session.fate else { panic!("{:?}", session.fate) };
            sum = (sum.0 + timeline.extraction, sum.1 + timeline.reinstatement);
        }
        sum
    };
    let sizes = [1 << 10, 32 << 10, 512 << 10].map(parts);
    assert!(sizes.is_sorted_by(|small, large| small.0 < large.0 && small.1 < large.1), "{sizes:?}");
}

#[test]
fn the_agent_tells_of_one_session_after_another_unless_nobody_can_be_asked() {
    let telling = Nanos::from_millis(2);
    let extraction = |level, telling| {
        let outcome = run(&scenario(), &RecoveryOptions { telling, ..options(level) }, 0);
        check(&outcome);
        timelines(&outcome).map(|timeline| timeline.extraction).max().unwrap()
    };
    let [at_once, told] = [Nanos::ZERO, telling].map(|telling| extraction(FailureLevel::Application, telling));
    assert!((telling * 12..telling * 12 + at_once * 2).contains(&told), "{at_once} {told}");
    let [at_once, told] = [Nanos::ZERO, telling].map(|telling| extraction(FailureLevel::Os, telling));
    assert_eq!(at_once, told);
}

#[test]
fn sessions_spread_over_more_nodes_are_served_sooner_and_each_once() {
    let last = |targets| {
        let mut last = Nanos::ZERO;
        for replication in 0..5 {
            let spread =
                RecoveryOptions { targets, reinstate_work: Nanos::from_millis(5), ..options(FailureLevel::Os) };
            let outcome = run(&scenario(), &spread, replication);
            check(&outcome);
            assert_eq!(outcome.saved(), 24);
            last = last.max(timelines(&outcome).map(|timeline| timeline.reinstatement).max().unwrap_or(Nanos::ZERO));
        }
        last
    };
    let [one, two, four] = [1, 2, 4].map(last);
    // 24 sessions of 5 ms each for 2 cores, and then for twice and four times as many.
    assert!(two < one * 6 / 10 && four < two * 6 / 10, "{one} {two} {four}");
}

#[test]
fn damaged_boxes_are_lost_and_never_taken_for_whole() {
    let mut scenario = scenario();
    scenario.faults.corrupt_fraction = 0.4;
    let (mut saved, mut lost) = (0, 0);
    for replication in 0..10 {
        let outcome = run(&scenario, &options(FailureLevel::Os), replication);
        check(&outcome);
        saved += outcome.saved();
        for session in outcome.sessions.iter().filter(|s| !matches!(s.fate, SessionFate::Saved { .. })) {
            let corrupt = SessionFate::NoState(StateError::StateBox(StateBoxError::NoWholeVersion { commit: 0 }));
            assert_eq!(std::mem::discriminant(&session.fate), std::mem::discriminant(&corrupt));
            lost += 1;
        }
    }
    let fraction = f64::from(lost) / (f64::from(lost) + saved as f64);
    assert!((0.3..0.5).contains(&fraction), "{lost} lost, {saved} saved");
}

#[test]
fn without_state_boxes_every_session_is_lost() {
    let mut scenario = scenario();
    scenario.workload.state_bytes = None;
    let outcome = run(&scenario, &options(FailureLevel::Application), 0);
    check(&outcome);
    assert_eq!((outcome.saved(), outcome.lost()), (0, 12));
    assert!(outcome.sessions.iter().all(|session| session.fate == SessionFate::NoStateBox));
    assert!(outcome.detection.is_some());
}

#[test]
fn only_what_was_not_committed_is_lost() {
    let mut scenario = scenario();
    let lost = |scenario: &Scenario| -> u64 {
        let outcome = run(scenario, &options(FailureLevel::Application), 1);
        check(&outcome);
        outcome.sessions.iter().map(|session| session.requests_lost).sum()
    };
    assert_eq!(lost(&scenario), 0);
    scenario.workload.commit_every = 5;
    assert!(lost(&scenario) > 0);
}

#[test]
fn a_settled_diagnosis_names_the_level_whatever_fell_silent_first() {
    for level in FailureLevel::ALL {
        let wrong = (0..20).filter(|r| !run(&scenario(), &options(level), *r).diagnosed_right(level)).count();
        assert_eq!(wrong, 0, "{level}");
    }
}

#[test]
fn a_busy_target_and_a_lossy_network_only_cost_time() {
    let mut scenario = scenario();
    let quick = run(&scenario, &options(FailureLevel::Os), 2);
    scenario.network_loss = 0.05;
    let busy = RecoveryOptions { target_load: 8, ..options(FailureLevel::Os) };
    let slow = run(&scenario, &busy, 2);
    check(&slow);
    assert_eq!((quick.saved(), slow.saved()), (24, 24));
    let outage = |outcome: &RecoveryOutcome| timelines(outcome).map(|timeline| timeline.outage()).max().unwrap();
    assert!(outage(&slow) > outage(&quick));
}

#[test]
fn a_fence_is_waited_for_before_the_state_is_read() {
    let fence = "const:7ms".parse().unwrap();
    let outcome = run(&scenario(), &RecoveryOptions { fence, ..options(FailureLevel::Os) }, 3);
    check(&outcome);
    assert!(timelines(&outcome).all(|timeline| timeline.fencing == Nanos::from_millis(7)));
    // Each box was read three times: to claim, to be sure, and to have it.
    assert!(outcome.extraction.bytes_read >= 3 * 4096 * 24);
}

fn timelines(outcome: &RecoveryOutcome) -> impl Iterator<Item = Timeline> {
    outcome.sessions.iter().filter_map(|session| match session.fate {
        SessionFate::Saved { timeline, .. } | SessionFate::Renewed { timeline } => Some(timeline),
        _ => None,
    })
}

#[test]
fn other_remedies_lose_the_state_or_need_a_backup() {
    let longest = |remedy, level| {
        let outcome = run(&scenario(), &RecoveryOptions { remedy, ..options(level) }, 4);
        assert_eq!(timelines(&outcome).count(), outcome.sessions.len(), "{remedy:?} {level}: all serve again");
        let outage = timelines(&outcome).map(|timeline| timeline.outage()).max().unwrap();
        (outage, outcome.saved(), outcome.lost(), outcome.interrupted)
    };
    for (level, sessions) in [(FailureLevel::Os, 24), (FailureLevel::Application, 12), (FailureLevel::Session, 1)] {
        let all = Remedy::ALL.map(|remedy| longest(remedy, level));
        let [takeover, failover, restart, reboot] = all;
        assert_eq!((takeover.1, takeover.3, failover.1, failover.3), (sessions, 0, sessions, 0), "{level}");
        assert_eq!((restart.2, restart.1, reboot.2, reboot.1), (sessions, 0, sessions, 0), "{level}");
        // A restart ends every session of the application, a reboot every one of the node.
        let with_it = if level == FailureLevel::Session { 11 } else { 0 };
        assert_eq!((restart.3, reboot.3), (with_it, 24 - sessions as u64), "{level}");
        assert!(failover.0 < takeover.0 && takeover.0 < restart.0 && restart.0 < reboot.0, "{level}: {all:?}");
        assert!(reboot.0 > RecoveryOptions::default().boot);
    }
}

#[test]
fn the_same_key_gives_the_same_recovery_on_any_thread() {
    let digest = || format!("{:?}", run(&scenario(), &options(FailureLevel::Os), 7));
    let there = std::thread::scope(|scope| [scope.spawn(digest), scope.spawn(digest)].map(|t| t.join().unwrap()));
    assert!(there.iter().all(|other| *other == digest()));
}
