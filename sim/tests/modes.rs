//! Ways of watching against each other, against closed forms, and against what queueing theory says of their waits.

use backdoor_core::Nanos;
use backdoor_core::progress_box::FailureLevel;
use backdoor_sim::cluster::mode::Mode;
use backdoor_sim::cluster::{Deadlines, NodeRecord, Record, Scenario, overhead, record, verdicts};
use backdoor_sim::cpu::CpuParams;
use backdoor_sim::dist::Dist;
use backdoor_sim::faults::{Arrivals, FaultOptions};
use backdoor_sim::metrics::{LevelQos, detection};
use backdoor_sim::streams::{StreamKey, Streams};

const fn ms(n: u64) -> Nanos {
    Nanos::from_millis(n)
}

fn dist(text: &str) -> Dist {
    text.parse().unwrap()
}

fn streams(replication: u64) -> Streams {
    Streams::new(StreamKey { seed: 11, experiment: "modes", point: "", replication })
}

/// Requests, jitter and faults at all levels.
fn troubled(mode: Mode, load: usize) -> Scenario {
    let mut scenario = Scenario { mode, load, duration: Nanos::from_secs(15), ..Scenario::default() };
    scenario.workload.tick_interval = ms(1);
    scenario.workload.loop_interval = ms(1);
    scenario.workload.loop_jitter = dist("uniform:0ns:100us");
    scenario.workload.request_interval = dist("exp:20ms");
    scenario.workload.service_work = dist("exp:300us");
    scenario.faults = FaultOptions {
        arrivals: Arrivals::Poisson { per_second: 1.0 },
        repair_after: Some(Dist::constant(ms(200))),
        ..FaultOptions::default()
    };
    scenario
}

fn judge(scenario: &Scenario, deadline: Nanos) -> [LevelQos; 3] {
    let run = record(scenario, &streams(0), deadline).unwrap();
    detection(&run, &[Deadlines::all(deadline)]).remove(0).levels
}

#[test]
fn a_record_tells_what_every_deadline_would_have_said_in_every_mode() {
    for mode in Mode::ALL {
        let mut scenario = Scenario { duration: Nanos::from_secs(6), ..troubled(mode, 5) };
        scenario.network_delay = dist("exp:50us");
        scenario.network_loss = 0.01;
        let run = record(&scenario, &streams(1), ms(2)).unwrap();
        let mut marks = 0;
        for deadline in [2, 4, 9, 40].map(ms) {
            let scenario = Scenario { deadlines: Deadlines::all(deadline), ..scenario.clone() };
            for (log, node) in verdicts(&scenario, &streams(1)).unwrap().iter().zip(&run.nodes) {
                assert_eq!(log.marks, node.marks(&scenario.deadlines), "{mode}, deadline {deadline}");
                marks += log.marks.len();
            }
        }
        assert!(marks > 100, "{mode}: only {marks} verdicts");
    }
}

#[test]
fn modes_are_compared_under_the_same_faults_and_requests() {
    let faults = |mode| -> Vec<_> {
        let run = record(&troubled(mode, 3), &streams(2), ms(5)).unwrap();
        run.nodes[0].failures.iter().map(|f| (f.struck, f.level, f.roots.clone())).collect()
    };
    let requests = |mode| {
        let mut scenario = troubled(mode, 0);
        scenario.faults.arrivals = Arrivals::Never;
        overhead(&scenario, &streams(2)).unwrap().served_in.len()
    };
    let (expected, served) = (faults(Mode::Read), requests(Mode::Read));
    assert!(expected.len() > 5 && served > 4_000, "{} faults, {served} requests", expected.len());
    for mode in Mode::ALL {
        assert_eq!(faults(mode), expected, "{mode}");
        // But for those that are being served at the end.
        assert!(requests(mode).abs_diff(served) <= 2, "{mode}");
    }
}

/// The delays and works of an idle node, chosen so that nothing coincides.
const POLL: Nanos = Nanos(1_000_000);
const DELAY: Nanos = Nanos(7_003);
const DEADLINE: Nanos = Nanos(4_300_000);

/// Four cores, one application, nothing random. Its loop ends `period` after `period`.
fn idle(mode: Mode, level: FailureLevel, at: Nanos) -> Scenario {
    let mut scenario = Scenario { mode, duration: at + ms(40), warm_up: ms(1), ..Scenario::default() };
    scenario.cpu = CpuParams { cores: 4, ..scenario.cpu };
    scenario.network_delay = Dist::constant(DELAY);
    scenario.workload.sessions = 0;
    scenario.workload.loop_interval = Nanos(911_000);
    scenario.workload.tick_interval = Nanos(1_777_000);
    scenario.faults = FaultOptions { arrivals: Arrivals::Once { at }, repair_after: None, ..FaultOptions::default() };
    scenario.faults = scenario.faults.at_level(level);
    scenario
}

/// The first instant of `origin + k·POLL` that is `after` something, or at it.
fn next_beat(origin: Nanos, after: Nanos) -> Nanos {
    origin + POLL * (after - origin).0.div_ceil(POLL.0)
}

/// When each mode suspects the application after its last progress: by the polls' rhythm and the delays alone.
///
/// The monitor posts at p₀ + k·POLL. Words are sampled σ later and taken in τ after posting. Progress at L is credited to
/// the end of the first sample that can show it, and the entity is suspected by the first sample posted more than the
/// deadline after that.
fn closed_form(mode: Mode, scenario: &Scenario, node: &NodeRecord, last: Nanos) -> Nanos {
    let work = mode.work(&scenario.agent, 8 + scenario.entities_per_node() as u64);
    // The watchdog posts when its step has had its time, and what it saw is known when a report of it arrives.
    let (sampled, taken) = match mode {
        Mode::Read => (DELAY, DELAY * 2),
        Mode::Pull => (DELAY + work, DELAY * 2 + work),
        // The timer beats with the polls, for both begin at zero.
        Mode::Push => (work, work + DELAY),
        Mode::Watchdog => (Nanos::ZERO, Nanos::ZERO),
    };
    let reported = if mode == Mode::Watchdog { DELAY } else { Nanos::ZERO };
    // Not the first sample: the first heartbeat is sent after the first poll.
    let first = node.samples[5].at - taken - reported;
    let shown = next_beat(first, last - sampled) + taken;
    let posted = next_beat(first, shown + DEADLINE + Nanos(1));
    posted + taken + reported
}

fn suspected(run: &Record, slot: usize) -> Option<Nanos> {
    let marks = run.nodes[0].marks(&Deadlines::all(DEADLINE));
    marks.iter().find(|mark| mark.slot.index() == slot && mark.suspected).map(|mark| mark.at)
}

#[test]
fn at_idle_an_application_is_suspected_exactly_when_the_closed_form_says() {
    for mode in Mode::ALL {
        for step in 0..25 {
            let at = ms(30) + Nanos(step * 73_331);
            let scenario = idle(mode, FailureLevel::Application, at);
            let run = record(&scenario, &streams(0), ms(2)).unwrap();
            let (work, sleep) = (scenario.workload.loop_work, scenario.workload.loop_interval);
            // Turns begin half an interval after the start.
            let turns = (at - sleep / 2 - work).0 / (sleep + work).0;
            let last = sleep / 2 + work + (sleep + work) * turns;
            let expected = closed_form(mode, &scenario, &run.nodes[0], last);
            let found = suspected(&run, 5).unwrap();
            assert_eq!(found, expected, "{mode}, failed at {at}");
        }
    }
}

#[test]
fn at_idle_all_agree_within_a_poll_and_the_watchdog_misses_the_operating_system() {
    for step in 0..10 {
        let at = ms(30) + Nanos(step * 137_331);
        let time = |mode, level, slot| {
            let run = record(&idle(mode, level, at), &streams(0), ms(2)).unwrap();
            suspected(&run, slot)
        };
        let slack = POLL + Nanos::from_micros(100);
        for (level, slot) in [(FailureLevel::Os, 4), (FailureLevel::Application, 5)] {
            let read = time(Mode::Read, level, slot).unwrap();
            for mode in [Mode::Pull, Mode::Push, Mode::Watchdog] {
                match time(mode, level, slot) {
                    Some(found) => assert!(found.0.abs_diff(read.0) <= slack.0, "{mode} {level}: {found}, READ {read}"),
                    None => assert_eq!((mode, level), (Mode::Watchdog, FailureLevel::Os)),
                }
            }
        }
    }
}

#[test]
fn under_overload_messages_accuse_the_healthy_and_reads_do_not() {
    let deadline = Nanos::from_micros(3_000);
    let wrong = |mode, load| {
        let levels = judge(&troubled(mode, load), deadline);
        // Sessions wait for a core themselves, which every mode sees.
        levels[..2].iter().map(|level| level.false_positives).sum::<u64>()
    };
    for load in [2, 12] {
        let read = wrong(Mode::Read, load);
        for mode in [Mode::Pull, Mode::Push] {
            let found = wrong(mode, load);
            assert!(found > 50 && found > 20 * read, "{mode}, load {load}: {found}, READ {read}");
        }
    }
    for mode in Mode::ALL {
        assert!(wrong(mode, 0) <= 5, "{mode} at idle");
    }
}

#[test]
fn what_fails_is_found_in_every_mode_but_for_what_kills_the_watchdog() {
    for mode in Mode::ALL {
        let [os, application, _] = judge(&troubled(mode, 4), ms(20));
        assert!(os.failures > 2 && application.failures > 1, "{} {}", os.failures, application.failures);
        assert!(application.detected > 0, "{mode}");
        match mode {
            Mode::Watchdog => assert_eq!(os.detected, 0),
            _ => assert_eq!((os.missed, application.missed), (0, 0), "{mode}"),
        }
    }
}

#[test]
fn reads_cost_the_node_nothing_and_the_rest_what_their_work_comes_to() {
    let measure = |mode, poll: Nanos| {
        let mut scenario = troubled(mode, 0);
        scenario.faults.arrivals = Arrivals::Never;
        scenario.monitor.poll_interval = poll;
        overhead(&scenario, &streams(4)).unwrap()
    };
    let read = measure(Mode::Read, ms(1));
    assert_eq!(read.agent_cpu, Nanos::ZERO);
    assert_eq!(read.served_in, measure(Mode::Read, ms(100)).served_in, "how often is read changes nothing there");
    for (mode, micros) in [(Mode::Pull, 20.0), (Mode::Push, 15.0), (Mode::Watchdog, 5.0)] {
        let cost = measure(mode, ms(1));
        // Two cores, a turn each millisecond.
        let expected = micros / 1000.0 / 2.0;
        assert!((cost.cpu_share() / expected - 1.0).abs() < 0.02, "{mode}: {}", cost.cpu_share());
        assert_ne!(cost.served_in, read.served_in, "{mode}");
    }
    let seconds = read.time.as_secs_f64();
    for (mode, per_second) in [(Mode::Read, 2_000.0), (Mode::Pull, 2_000.0), (Mode::Push, 1_000.0)] {
        let traffic = measure(mode, ms(1)).traffic;
        let rate = traffic.messages() as f64 / seconds;
        assert!((rate / per_second - 1.0).abs() < 0.01, "{mode}: {rate} messages/s");
    }
}

/// Mean wait of the agent in seconds, by replication.
fn waits(scenario: &Scenario, replications: u64) -> Vec<f64> {
    let mean = |replication| {
        let waits = overhead(scenario, &streams(replication)).unwrap().waits;
        waits.iter().map(|wait| wait.as_secs_f64()).sum::<f64>() / waits.len() as f64
    };
    (0..replications).map(mean).collect()
}

#[track_caller]
fn agrees(means: &[f64], expected: f64) {
    let n = means.len() as f64;
    let mean = means.iter().sum::<f64>() / n;
    let sd = (means.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    // Student's t with 9 degrees of freedom, two-sided 99.9%.
    let half_width = 4.781 * sd / n.sqrt();
    assert_eq!(means.len(), 10);
    assert!((mean - expected).abs() < half_width + 0.01 * expected, "{mean} ± {half_width}, expected {expected}");
    assert!(half_width < 0.15 * expected, "the test must be able to fail: ± {half_width} for {expected}");
}

/// One core; the agent comes every 29.31 ms, which keeps step with nothing, and is longer than it waits: an agent who still
/// waits isn't woken again, and the longest waits would be counted too seldom.
fn one_core(mode: Mode) -> Scenario {
    let mut scenario = Scenario { mode, duration: Nanos::from_secs(24), ..Scenario::default() };
    scenario.cpu.cores = 1;
    scenario.monitor.poll_interval = Nanos::from_micros(29_310);
    scenario.workload.state_bytes = None;
    scenario.workload.tick_interval = Nanos::from_secs(100);
    scenario.workload.loop_interval = Nanos::from_secs(100);
    scenario
}

#[test]
fn first_come_first_served_the_agent_waits_as_pollaczek_and_khinchine_say() {
    // So many sessions that hardly a request waits for its own session's handler rather than for the core.
    for (mode, service, second_moment) in [(Mode::Pull, "const:1ms", 1e-6), (Mode::Push, "exp:1ms", 2e-6)] {
        let mut scenario = one_core(mode);
        scenario.cpu.slice = Nanos::MAX;
        scenario.workload.sessions = 400;
        scenario.workload.request_interval = dist("exp:666667us");
        scenario.workload.service_work = dist(service);
        let rate = 400.0 / 0.666_667;
        // The agent itself is a small part of the load, which comes at regular times: it does not wait for itself.
        let expected = rate * second_moment / (2.0 * (1.0 - rate * 1e-3));
        agrees(&waits(&scenario, 10), expected);
    }
}

#[test]
fn under_linux_slices_the_agent_waits_for_the_rest_of_one() {
    for load in [1, 6] {
        let mut scenario = Scenario { load, duration: Nanos::from_secs(10), ..one_core(Mode::Pull) };
        scenario.workload.sessions = 0;
        // Nothing is random here: turns and slices slide past each other.
        scenario.monitor.poll_interval = Nanos(7_313_713);
        agrees(&waits(&scenario, 10), scenario.cpu.slice.as_secs_f64() / 2.0);
    }
}

#[test]
fn the_same_key_gives_the_same_run_in_every_mode() {
    for mode in Mode::ALL {
        let digest = || format!("{:?}", record(&troubled(mode, 4), &streams(3), ms(5)).unwrap());
        let other = std::thread::scope(|scope| scope.spawn(digest).join().unwrap());
        assert!(digest() == other, "{mode}");
    }
}
