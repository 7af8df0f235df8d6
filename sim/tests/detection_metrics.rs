//! What counts as what: records written by hand, so that every number can be checked by eye.

use backdoor_core::Nanos;
use backdoor_core::monitor::MonitorStats;
use backdoor_core::progress_box::{EntityRecord, FailureLevel, Slot};
use backdoor_sim::cluster::{Deadlines, EntityRecording, NodeRecord, Record, RecordedSilence, Sample};
use backdoor_sim::faults::Failure;
use backdoor_sim::metrics::{LevelQos, detection};

const fn ms(n: u64) -> Nanos {
    Nanos::from_millis(n)
}

/// One application, sampled every millisecond for a second, the first 100 ms being warm-up.
fn node(silences: &[(u64, u64)], failures: &[(u64, Option<u64>)]) -> Record {
    let slot = Slot(0);
    let recorded = |&(from, to): &(u64, u64)| RecordedSilence {
        start: ms(from),
        since: ms(from),
        length: ms(to - from),
        ended: to as usize,
        active: true,
    };
    let failed = |&(from, to): &(u64, Option<u64>)| Failure {
        level: FailureLevel::Application,
        struck: ms(from),
        effective: Some(ms(from)),
        repaired: to.map(ms),
        roots: vec![slot],
        affected: vec![slot],
    };
    let entity = EntityRecording {
        slot,
        record: EntityRecord::new("app", FailureLevel::Application, ms(1)),
        silences: silences.iter().map(recorded).collect(),
    };
    let node = NodeRecord {
        samples: (0..1000).map(|n| Sample { begin: ms(n), at: ms(n) }).collect(),
        entities: vec![entity],
        failures: failures.iter().map(failed).collect(),
        stats: MonitorStats::default(),
        channel_losses: 0,
    };
    Record { nodes: vec![node], warm_up: ms(100), duration: ms(1000), floor: ms(1), events: 0 }
}

fn judge(record: &Record, deadline: u64) -> LevelQos {
    detection(record, &[Deadlines::all(ms(deadline))])[0].of(FailureLevel::Application).clone()
}

#[test]
fn a_silence_of_a_healthy_entity_is_a_mistake_until_it_ends() {
    let qos = judge(&node(&[(200, 250), (400, 430), (600, 610)], &[]), 19);
    assert_eq!((qos.false_positives, qos.right_alarms, qos.stale_alarms), (2, 0, 0));
    // Suspected at the first sample after 19 ms of silence.
    assert_eq!(qos.mistake_durations, [ms(30), ms(10)]);
    assert_eq!(qos.mistake_recurrences, [ms(200)]);
    assert_eq!((qos.mistake_time, qos.up_time), (ms(40), ms(900)));
    assert!((qos.query_accuracy() - (1.0 - 40.0 / 900.0)).abs() < 1e-12);
    assert!((qos.mistakes_per_entity_second() - 2.0 / 0.9).abs() < 1e-12);
    assert_eq!((qos.precision(), qos.recall()), (Some(0.0), None));
}

#[test]
fn a_failure_is_detected_after_what_is_left_of_the_deadline() {
    let qos = judge(&node(&[(295, 501)], &[(300, Some(500))]), 20);
    assert_eq!((qos.failures, qos.detected, qos.right_alarms, qos.false_positives), (1, 1, 1, 0));
    assert_eq!(qos.detection_times, [ms(16)]);
    assert_eq!(qos.diagnosed_right, 1);
    assert_eq!(qos.up_time, ms(700));
    assert_eq!((qos.precision(), qos.recall()), (Some(1.0), Some(1.0)));
}

#[test]
fn a_mistake_overtaken_by_a_failure_ends_there_and_detects_it_at_once() {
    let qos = judge(&node(&[(250, 501)], &[(300, Some(500))]), 19);
    assert_eq!((qos.false_positives, qos.overtaken, qos.right_alarms), (1, 1, 0));
    assert_eq!(qos.mistake_durations, [ms(30)]);
    assert_eq!((qos.detected, &qos.detection_times[..]), (1, &[Nanos::ZERO][..]));
    assert_eq!(qos.mistake_time, ms(30));
}

#[test]
fn an_alarm_after_the_repair_is_stale_and_the_failure_missed() {
    let qos = judge(&node(&[(295, 330)], &[(300, Some(310))]), 19);
    assert_eq!((qos.stale_alarms, qos.false_positives, qos.right_alarms), (1, 0, 0));
    assert_eq!((qos.detected, qos.missed), (0, 1));
    assert_eq!((qos.precision(), qos.recall()), (None, Some(0.0)));
}

#[test]
fn a_failure_that_outlives_the_run_unnoticed_is_undecided() {
    let qos = judge(&node(&[(985, 1000)], &[(990, None)]), 50);
    assert_eq!((qos.failures, qos.detected, qos.missed, qos.undecided), (1, 0, 0, 1));
    assert_eq!(qos.up_time, ms(890));
}

#[test]
fn the_warm_up_counts_for_nothing() {
    let qos = judge(&node(&[(50, 90), (95, 140)], &[(20, Some(30))]), 19);
    assert_eq!((qos.false_positives, qos.failures), (0, 0));
    assert_eq!(qos.mistake_time, Nanos::ZERO);
}

#[test]
fn runs_add_up() {
    let record = node(&[(200, 250), (295, 501)], &[(300, Some(500))]);
    let one = judge(&record, 20);
    let mut two = one.clone();
    two.merge(&one);
    let twice = Record { nodes: [record.nodes.clone(), record.nodes.clone()].concat(), ..record };
    assert_eq!(judge(&twice, 20), two);
}

#[test]
#[should_panic(expected = "a deadline of 2ms on a record from 3ms on")]
fn a_deadline_below_the_floor_is_refused() {
    let record = Record { floor: ms(3), ..node(&[], &[]) };
    judge(&record, 2);
}
