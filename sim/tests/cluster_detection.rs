//! What a monitor of a simulated cluster sees, against what is true there.

use backdoor_core::Nanos;
use backdoor_core::progress_box::FailureLevel;
use backdoor_sim::cluster::{Deadlines, Record, Scenario, record, verdicts};
use backdoor_sim::dist::Dist;
use backdoor_sim::faults::{Arrivals, FaultOptions};
use backdoor_sim::metrics::{Detection, detection};
use backdoor_sim::streams::{StreamKey, Streams};
use backdoor_sim::workload::Pauses;

const fn ms(n: u64) -> Nanos {
    Nanos::from_millis(n)
}

fn dist(text: &str) -> Dist {
    text.parse().unwrap()
}

fn streams(replication: u64) -> Streams {
    Streams::new(StreamKey { seed: 5, experiment: "cluster tests", point: "", replication })
}

fn seconds(n: u64) -> Scenario {
    Scenario { duration: Nanos::from_secs(n), ..Scenario::default() }
}

/// Load, pauses, faults at all levels that overlap and are mended soon, two applications, two nodes.
fn troubled() -> Scenario {
    let mut scenario = Scenario { nodes: 2, load: 6, ..seconds(8) };
    scenario.workload.applications = 2;
    scenario.workload.sessions = 4;
    scenario.workload.loop_jitter = dist("exp:2ms");
    scenario.workload.pauses = Some(Pauses { interval: dist("exp:1500ms"), length: dist("exp:40ms") });
    scenario.faults = FaultOptions {
        arrivals: Arrivals::Poisson { per_second: 2.0 },
        repair_after: Some(dist("exp:150ms")),
        ..FaultOptions::default()
    };
    scenario.network_delay = dist("exp:20us");
    scenario
}

fn judge(scenario: &Scenario, deadlines: &[Nanos]) -> (Record, Vec<Detection>) {
    let floor = *deadlines.iter().min().unwrap();
    let run = record(scenario, &streams(0), floor).unwrap();
    let deadlines: Vec<Deadlines> = deadlines.iter().copied().map(Deadlines::all).collect();
    let judged = detection(&run, &deadlines);
    (run, judged)
}

fn false_positives(detection: &Detection) -> u64 {
    detection.levels.iter().map(|level| level.false_positives).sum()
}

#[test]
fn a_record_tells_what_every_deadline_would_have_said() {
    let mut lossy = troubled();
    lossy.network_loss = 0.02;
    let mut shared = troubled();
    shared.monitor_shares_cpu = true;
    shared.monitor_work = Nanos::from_micros(100);
    for (name, scenario) in [("own machine", troubled()), ("lossy", lossy), ("shared CPU", shared)] {
        let run = record(&scenario, &streams(1), ms(4)).unwrap();
        let mut marks = 0;
        for deadline in [4, 9, 15, 33, 100].map(ms) {
            let scenario = Scenario { deadlines: Deadlines::all(deadline), ..scenario.clone() };
            let logs = verdicts(&scenario, &streams(1)).unwrap();
            for (log, node) in logs.iter().zip(&run.nodes) {
                assert_eq!(log.marks, node.marks(&scenario.deadlines), "{name}, deadline {deadline}");
                assert_eq!((log.stats, &log.failures), (node.stats, &node.failures), "{name}, deadline {deadline}");
                marks += log.marks.len();
            }
        }
        assert!(marks > 300, "{name}: only {marks} verdicts");
    }
}

#[test]
fn a_healthy_idle_node_is_accused_of_nothing() {
    let scenario = seconds(20);
    let slack = ms(3);
    let deadline = scenario.workload.tick_interval + scenario.monitor.poll_interval + slack;
    let (run, judged) = judge(&scenario, &[ms(5), deadline]);
    assert_eq!(false_positives(&judged[1]), 0);
    assert!(false_positives(&judged[0]) > 1000, "and a deadline below the tick is always wrong");
    assert!(run.nodes[0].stats.samples > 19_000);
    assert_eq!(judged[1].levels.iter().map(|l| l.entities).sum::<u64>(), 12);
    assert_eq!(judged[1].levels[0].query_accuracy(), 1.0);
}

#[test]
fn every_failure_that_lasts_is_detected_in_time() {
    for level in FailureLevel::ALL {
        let mut scenario = seconds(60);
        scenario.faults = FaultOptions {
            arrivals: Arrivals::OneAtATime { gap: dist("uniform:200ms:400ms") },
            repair_after: Some(Dist::constant(ms(800))),
            ..FaultOptions::default()
        }
        .at_level(level);
        let deadline = ms(30);
        let (run, judged) = judge(&scenario, &[deadline]);
        let qos = judged[0].of(level);
        assert!(qos.failures >= 30, "{level}: {} failures", qos.failures);
        // An idle session's failure takes effect with a request, perhaps just before the repair.
        let lasting = |f: &&backdoor_sim::faults::Failure| {
            f.effective.is_some_and(|at| f.repaired.unwrap_or(run.duration) > at + deadline + ms(2))
        };
        let lasting = run.nodes[0].failures.iter().filter(lasting).count() as u64;
        assert_eq!(qos.detected, lasting, "{level}");
        let bound = deadline + scenario.workload.tick_interval + ms(2);
        assert!(qos.detection_times.iter().all(|t| *t <= bound), "{level}: {:?}", qos.detection_times.iter().max());
        assert!(qos.detection_times.iter().all(|t| *t > ms(15)), "{level}: {:?}", qos.detection_times.iter().min());
        assert!(qos.right_alarms >= qos.detected);
        assert_eq!(false_positives(&judged[0]), 0, "{level}");
        let diagnosed = qos.diagnosed_right as f64 / qos.detected as f64;
        assert!(diagnosed > 0.9, "{level}: {} of {} diagnosed", qos.diagnosed_right, qos.detected);
    }
}

#[test]
fn a_session_that_hangs_while_idle_fails_with_its_next_request() {
    let mut scenario = seconds(30);
    scenario.faults = FaultOptions {
        arrivals: Arrivals::OneAtATime { gap: Dist::constant(ms(300)) },
        repair_after: Some(Dist::constant(ms(400))),
        ..FaultOptions::default()
    }
    .at_level(FailureLevel::Session);
    let (run, _) = judge(&scenario, &[ms(20)]);
    let failures = &run.nodes[0].failures;
    let later = failures.iter().filter(|f| f.effective.is_some_and(|at| at > f.struck)).count();
    let never = failures.iter().filter(|f| f.effective.is_none()).count();
    assert!(later > failures.len() / 2, "{later} of {}", failures.len());
    assert!(never < failures.len() / 4, "{never} of {}", failures.len());
}

#[test]
fn false_positives_grow_with_load_and_never_with_the_deadline() {
    let deadlines: Vec<Nanos> = (100..600).step_by(10).map(|n| Nanos::from_micros(n * 100)).collect();
    let mut by_load = Vec::new();
    for load in [0, 12, 40] {
        let (_, judged) = judge(&Scenario { load, ..seconds(10) }, &deadlines);
        let counts: Vec<u64> = judged.iter().map(false_positives).collect();
        assert!(counts.is_sorted_by(|a, b| a >= b), "load {load}: {counts:?}");
        by_load.push(counts.iter().sum::<u64>());
    }
    assert!(by_load.is_sorted_by(|a, b| a < b), "{by_load:?}");
    let (_, judged) = judge(&troubled(), &deadlines);
    assert!(judged.iter().map(false_positives).is_sorted_by(|a, b| a >= b));
}

#[test]
fn a_starved_monitor_accuses_nobody_of_its_own_lateness() {
    // It needs more of the core than it is given, so it waits behind every busy task in turn.
    let mut scenario = Scenario { load: 40, monitor_shares_cpu: true, ..seconds(20) };
    scenario.monitor_work = ms(3);
    let deadline = ms(40);
    let (run, judged) = judge(&scenario, &[deadline]);
    let node = &run.nodes[0];
    let worst = node.samples.windows(2).map(|pair| pair[1].at - pair[0].at).max().unwrap();
    assert!(worst > deadline && node.stats.late_samples > 100, "worst gap {worst}, {:?}", node.stats);
    assert_eq!(false_positives(&judged[0]), 0);
}

#[test]
fn losses_of_the_network_are_the_channels_and_nobody_elses() {
    let scenario = Scenario { network_loss: 0.35, ..seconds(20) };
    let (run, judged) = judge(&scenario, &[ms(15)]);
    assert!(run.nodes[0].channel_losses > 0);
    assert!(run.nodes[0].stats.samples > 100);
    assert_eq!(false_positives(&judged[0]), 0);
}

#[test]
fn failures_mended_before_the_deadline_are_missed() {
    let mut scenario = seconds(30);
    scenario.faults = FaultOptions {
        arrivals: Arrivals::OneAtATime { gap: Dist::constant(ms(500)) },
        repair_after: Some(Dist::constant(ms(30))),
        ..FaultOptions::default()
    }
    .at_level(FailureLevel::Application);
    let (_, judged) = judge(&scenario, &[ms(15), ms(100)]);
    let (short, long) = (judged[0].of(FailureLevel::Application), judged[1].of(FailureLevel::Application));
    assert_eq!(short.recall(), Some(1.0));
    assert_eq!((long.recall(), long.detected, long.missed), (Some(0.0), 0, short.detected));
    assert_eq!(short.precision(), Some(1.0));
    assert_eq!(long.precision(), None);
}

#[test]
fn deadline_and_monitor_change_neither_workload_nor_faults() {
    let struck = |scenario: &Scenario| -> Vec<_> {
        let run = record(scenario, &streams(2), ms(10)).unwrap();
        run.nodes.iter().flat_map(|n| n.failures.iter().map(|f| (f.struck, f.level, f.roots.clone()))).collect()
    };
    let base = troubled();
    let mut others = vec![base.clone(); 3];
    others[0].deadlines = Deadlines::all(ms(1));
    others[1].monitor.poll_interval = ms(7);
    others[2].network_delay = Dist::constant(ms(1));
    let expected = struck(&base);
    assert!(expected.len() > 10);
    for other in others {
        assert_eq!(struck(&other), expected);
    }
}

#[test]
fn the_same_key_gives_the_same_run_on_any_thread() {
    let digest = || {
        let run = record(&troubled(), &streams(3), ms(5)).unwrap();
        let judged = detection(&run, &[Deadlines::all(ms(5)), Deadlines::all(ms(25))]);
        format!("{run:?}{judged:?}")
    };
    let here = digest();
    let there: Vec<String> =
        std::thread::scope(|scope| [scope.spawn(digest), scope.spawn(digest)].map(|t| t.join().unwrap()).into());
    assert!(there.iter().all(|other| *other == here));
    let other = format!("{:?}", record(&troubled(), &streams(4), ms(5)).unwrap());
    assert!(!here.starts_with(&other));
}
