//! What people who run failure detectors complain about, one by one: what goes wrong, and what a monitor of progress
//! counters makes of it.

use backdoor_core::Nanos;
use backdoor_core::detector::DeadlineDetector;
use backdoor_core::progress_box::{FailureLevel, Slot};
use backdoor_sim::cluster::mode::Mode;
use backdoor_sim::cluster::{Deadlines, Scenario, VerdictLog, observe, verdicts};
use backdoor_sim::dist::Dist;
use backdoor_sim::faults::{ApplicationFault, Arrivals, FaultOptions, OsFault};
use backdoor_sim::streams::{StreamKey, Streams};
use backdoor_sim::workload::{Activity, Pauses};

/// Slots of the default scenario: processors, the system, the application; then sessions.
const FIRST_CPU: u32 = 0;
const SYSTEM: u32 = 2;
const APPLICATION: u32 = 3;
const SESSIONS: std::ops::Range<u32> = 4..12;

fn dist(text: &str) -> Dist {
    text.parse().unwrap()
}

fn streams() -> Streams {
    Streams::new(StreamKey { seed: 3, experiment: "complaints", point: "", replication: 0 })
}

fn run(scenario: &Scenario) -> VerdictLog {
    verdicts(scenario, &streams()).unwrap().remove(0)
}

/// Who was suspected, in slot order.
fn suspected(log: &VerdictLog) -> Vec<u32> {
    let mut slots: Vec<u32> = log.marks.iter().filter(|mark| mark.suspected).map(|mark| mark.slot.0).collect();
    slots.sort_unstable();
    slots.dedup();
    slots
}

/// One fault after 5 s, never mended, in a run of 10 s.
fn once(level: FailureLevel, faults: FaultOptions) -> Scenario {
    let arrivals = Arrivals::Once { at: Nanos::from_secs(5) };
    let faults = FaultOptions { arrivals, repair_after: None, ..faults }.at_level(level);
    Scenario { duration: Nanos::from_secs(10), faults, ..Scenario::default() }
}

/// An overloaded observer accuses healthy peers; one that knows when it did not watch accuses nobody.
#[test]
fn a_stalled_observer_doubts_itself() {
    let mut scenario = Scenario { duration: Nanos::from_secs(10), ..Scenario::default() };
    scenario.observer_stalls = Some(Pauses { interval: dist("exp:500ms"), length: dist("exp:100ms") });
    for mode in [Mode::Read, Mode::Push] {
        scenario.mode = mode;
        let log = run(&scenario);
        assert_eq!(suspected(&log), [], "{mode}");
        assert!(log.stats.late_samples > 5, "{mode}: {:?}", log.stats);
    }
    // One whose timers go off whatever kept it.
    let accused = |scenario: &Scenario| -> usize {
        let node = observe(scenario, &streams()).unwrap().nodes.remove(0);
        node.by_timers(|record, now| Some(DeadlineDetector::new(record.deadline, now))).iter().map(Vec::len).sum()
    };
    assert!(accused(&scenario) > 5);
    scenario.observer_stalls = None;
    assert_eq!(accused(&scenario), 0);
}

/// What is always taken for active is suspected when it only waits.
#[test]
fn idle_is_taken_for_hung_where_nobody_says_idle() {
    let mut scenario = Scenario { duration: Nanos::from_secs(10), ..Scenario::default() };
    assert_eq!(suspected(&run(&scenario)), []);
    scenario.workload.activity = Activity::Nobody;
    assert_eq!(suspected(&run(&scenario)), SESSIONS.collect::<Vec<_>>());
}

#[test]
fn a_handler_that_hangs_behind_its_idle_claim_is_found_by_its_pending_work() {
    let mut scenario = once(FailureLevel::Session, FaultOptions::default());
    scenario.workload.activity = Activity::Handler;
    assert_eq!(suspected(&run(&scenario)), [], "it says that it is idle");
    scenario.workload.pending_gauges = true;
    let log = run(&scenario);
    let roots = &log.failures[0].roots;
    assert_eq!(suspected(&log), [roots[0].0]);
    let deadline = scenario.deadlines.session + Nanos::from_millis(3);
    let effective = log.failures[0].effective.unwrap();
    assert!(log.marks[0].at > effective && log.marks[0].at < effective + deadline, "{log:?}");
}

#[test]
fn activity_without_progress_shows_in_the_work() {
    let mut scenario = once(
        FailureLevel::Application,
        FaultOptions { application: ApplicationFault::Livelock, ..FaultOptions::default() },
    );
    assert_eq!(suspected(&run(&scenario)), SESSIONS.collect::<Vec<_>>(), "the event loop goes on");
    scenario.workload.activity = Activity::Handler;
    scenario.workload.pending_gauges = true;
    assert_eq!(suspected(&run(&scenario)), SESSIONS.collect::<Vec<_>>());
}

/// Pauses beyond the deadline are mistakes, but they leave nothing behind: the next failure is found as soon.
#[test]
fn a_pause_poisons_nothing() {
    let mut scenario = once(FailureLevel::Application, FaultOptions::default());
    let detection = |scenario: &Scenario| {
        let log = run(scenario);
        let failure = log.failures[0].effective.unwrap();
        log.marks.iter().find(|m| m.slot == Slot(APPLICATION) && m.suspected && m.at > failure).unwrap().at - failure
    };
    let without = detection(&scenario);
    scenario.workload.pauses = Some(Pauses { interval: dist("const:1s"), length: dist("const:200ms") });
    let with = detection(&scenario);
    assert!(with < without + Nanos::from_millis(15) && without < with + Nanos::from_millis(15), "{without}, {with}");
}

/// The node's agent goes on sending while one of its processors hangs: "ready", by its own word.
#[test]
fn a_processor_that_hangs_is_seen_whoever_goes_on() {
    let hung = FaultOptions { os: OsFault::HungProcessor, ..FaultOptions::default() };
    for mode in [Mode::Read, Mode::Push] {
        let mut scenario = once(FailureLevel::Os, hung.clone());
        scenario.mode = mode;
        scenario.deadlines = Deadlines::all(Nanos::from_millis(100));
        let log = run(&scenario);
        assert_eq!(suspected(&log), [log.failures[0].roots[0].0], "{mode}");
        assert!((FIRST_CPU..SYSTEM).contains(&suspected(&log)[0]));
    }
}

#[test]
fn a_hung_processor_is_mended() {
    let mut scenario = once(FailureLevel::Os, FaultOptions { os: OsFault::HungProcessor, ..FaultOptions::default() });
    scenario.faults.repair_after = Some(dist("const:1s"));
    let log = run(&scenario);
    let marks: Vec<bool> = log.marks.iter().map(|mark| mark.suspected).collect();
    assert_eq!(marks, [true, false], "{:?}", log.marks);
}
