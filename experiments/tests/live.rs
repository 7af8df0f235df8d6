//! Live experiments and tools, with real processes: does it find what fails, and does it leave nothing behind?
//!
//! Nothing here asserts how long something takes: deadlines are generous, and the wait for anything is bounded.

mod common;

use std::io::Write;

use backdoor_core::Nanos;
use backdoor_experiments::interrupt::Interrupt;
use backdoor_experiments::live::detect::{DetectConfig, DetectError, FailureKind, run};
use backdoor_experiments::live::detector::DetectorKind;
use backdoor_experiments::live::notice::What;
use backdoor_host::app::Node;
use common::{HEADER, Place, Running, config, every_run_is_detected_and_recovered, undisturbed, wait_for};
use rustix::process::Signal;

#[test]
fn a_stopped_process_is_noticed_and_read_out() {
    every_run_is_detected_and_recovered(&config(FailureKind::Sigstop), 5);
}

#[test]
fn a_killed_process_is_noticed_and_read_out() {
    // States of more than one READ.
    let config = DetectConfig { state_bytes: 20_000, ..config(FailureKind::Sigkill) };
    every_run_is_detected_and_recovered(&config, 5);
}

#[test]
fn a_deadlock_is_noticed_and_read_out() {
    every_run_is_detected_and_recovered(&config(FailureKind::Deadlock), 5);
}

#[test]
fn a_stuck_session_is_noticed_and_nobody_else_is_read_out() {
    every_run_is_detected_and_recovered(&config(FailureKind::SessionStuck), 1);
    let spinning = DetectConfig { stuck_spins: true, runs: 1, spin: true, ..config(FailureKind::SessionStuck) };
    every_run_is_detected_and_recovered(&spinning, 1);
}

/// Whether the agent watches the sockets decides whether they are found at all.
#[test]
fn a_lost_wakeup_and_a_livelock_show_in_the_queues_alone() {
    for (failure, affected) in [(FailureKind::IdleLie, 1), (FailureKind::Livelock, 5)] {
        for detector in DetectorKind::ALL {
            let config = DetectConfig { detector, runs: 1, ..config(failure) };
            every_run_is_detected_and_recovered(&config, affected);
        }
        let report = undisturbed(&DetectConfig { queues: false, ..config(failure) });
        for row in &report.rows {
            assert_eq!((row.detected, row.queues, row.cause.as_str()), (false, false, ""), "{row:?}");
        }
    }
}

#[test]
fn nobody_is_accused_while_everybody_is_healthy() {
    let healthy = Nanos::from_millis(1500);
    let config = DetectConfig { deadline: Nanos::from_secs(1), healthy, runs: 1, ..config(FailureKind::None) };
    let report = undisturbed(&config);
    let row = &report.rows[0];
    assert_eq!((row.detected, row.detection_ms, row.false_positives), (false, None, 0), "{row:?}");
    assert_eq!((row.affected, row.recovered, row.cause.as_str()), (0, 0, ""), "{row:?}");
    assert_eq!(report.keeps_bound(), None);
}

#[test]
fn the_csv_has_its_columns_and_nothing_else_is_printed() {
    let place = Place::new();
    let arguments = ["live", "detect", "--failure", "sigkill,none", "--runs", "1", "--duration", "50ms"];
    let output = place.output(&[&arguments[..], &["--deadline", "100ms", "--load", "1", "--format", "csv"]].concat());
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], HEADER);
    assert!(lines[1].starts_with("0,sigkill,application,shm,100.0,1.0,1,true,"), "{text}");
    assert!(lines[2].starts_with("0,none,none,shm,100.0,1.0,1,false,,"), "{text}");
    assert_eq!(lines.len(), 3, "{text}");
    place.assert_nothing_is_left();
}

#[test]
fn nothing_is_left_after_an_error() {
    let error = run(
        &DetectConfig { program: "/bin/false".into(), ..config(FailureKind::None) },
        &Interrupt::new(),
        &mut |_| {},
    );
    assert!(matches!(error, Err(DetectError::Part(_))), "{error:?}");
    let place = Place::new();
    let output = place.output(&["live", "detect", "--sessions", "0"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty() && String::from_utf8_lossy(&output.stderr).contains("sessions"), "{output:?}");
    place.assert_nothing_is_left();
}

#[test]
fn nothing_is_left_after_an_interruption_or_a_kill() {
    for (signal, code) in [(Signal::INT, Some(130)), (Signal::KILL, None)] {
        let place = Place::new();
        let arguments = ["live", "detect", "--failure", "none", "--duration", "60s", "--load", "1"];
        let mut command = Running::start(&mut place.backdoor(&arguments));
        // Itself, agent, load, monitor, worker.
        wait_for("all parts", || place.processes().len() == 5);
        command.signal(signal);
        assert_eq!(command.exit_code(), code, "{signal:?}");
        place.assert_nothing_is_left();
    }
}

#[test]
fn an_interrupted_experiment_says_how_far_it_came() {
    let interrupt = Interrupt::new();
    let asks = interrupt.clone();
    let outcome = run(&DetectConfig { runs: 50, ..config(FailureKind::Sigkill) }, &interrupt, &mut |_| asks.request());
    assert!(
        matches!(&outcome, Err(DetectError::Interrupted { report, runs: 50 }) if report.rows.len() == 1),
        "{outcome:?}"
    );
}

#[test]
fn a_monitor_waits_for_the_agent_and_for_the_next_one() {
    let place = Place::new();
    let socket = place.socket();
    let arguments = ["monitor", "--format", "json", "--socket", socket.to_str().unwrap()];
    let mut monitor = Running::start(&mut place.backdoor(&arguments));
    monitor.notice(|what| matches!(what, What::Waiting { why } if why.contains("no such socket")));
    let agent = Running::agent(&place);
    monitor.notice(|what| matches!(what, What::Connected { again: false, .. }));
    monitor.notice(|what| matches!(what, What::Joined { entity } if entity.name == "os"));
    agent.signal(Signal::KILL);
    monitor.notice(|what| matches!(what, What::AgentGone));
    monitor.notice(|what| matches!(what, What::Waiting { why } if why.contains("stale")));
    // The machine goes on, so it is not accused.
    monitor.notice(|what| matches!(what, What::Failure { cause, .. } if cause == "reporter"));
    let _second = Running::agent(&place);
    monitor.notice(|what| matches!(what, What::Connected { again: true, .. }));
    monitor.notice(|what| matches!(what, What::Joined { entity } if entity.name == "os"));
    monitor.signal(Signal::INT);
    assert_eq!(monitor.exit_code(), Some(130));
    let What::Summary(summary) = monitor.notice(|what| matches!(what, What::Summary(_))) else { unreachable!() };
    assert_eq!(summary.attached, 2, "{summary:?}");
    assert!(summary.samples > 0, "{summary:?}");
}

#[test]
fn a_monitor_of_nobody_ends_when_it_is_told() {
    let place = Place::new();
    let socket = place.socket();
    let once = place.output(&["monitor", "--once", "--socket", socket.to_str().unwrap()]);
    assert_eq!(once.status.code(), Some(1), "{once:?}");
    let brief = place.output(&["monitor", "--for", "100ms", "--socket", socket.to_str().unwrap()]);
    assert!(brief.status.success(), "{brief:?}");
    let text = String::from_utf8(brief.stdout).unwrap();
    assert!(text.contains("waiting: no agent") && text.contains("there was no agent"), "{text}");
    assert!(!text.contains('\x1b'), "colours only for a terminal");
}

#[test]
fn a_healthy_node_is_judged_once() {
    let place = Place::new();
    let mut agent = Running::agent(&place);
    let once = place.output(&["monitor", "--once", "--socket", place.socket().to_str().unwrap()]);
    assert!(once.status.success(), "{once:?}");
    assert!(String::from_utf8_lossy(&once.stdout).contains("nobody is suspected"), "{once:?}");
    agent.signal(Signal::INT);
    assert_eq!(agent.exit_code(), Some(0));
    assert!(!place.socket().exists());
}

#[test]
fn inspect_shows_what_a_dead_service_left() {
    let place = Place::new();
    let socket = place.socket();
    let socket_text = socket.to_str().unwrap();
    let nobody = place.output(&["inspect", "--socket", socket_text]);
    assert_eq!(nobody.status.code(), Some(1), "{nobody:?}");
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("no such socket"), "{nobody:?}");

    let _agent = Running::agent(&place);
    let node = Node::connect(&socket).unwrap();
    let app = node.register("shop \u{1b}[31m", Nanos::from_secs(60)).unwrap();
    let mut session = app.open_session("cart 7", Nanos::from_secs(60), 100).unwrap();
    let fresh = app.open_session("cart 8", Nanos::from_secs(60), 100).unwrap();
    let (mut client, server) = std::os::unix::net::UnixStream::pair().unwrap();
    fresh.watch_queue(&server).unwrap();
    client.write_all(b"two figs").unwrap();
    wait_for("the agent to look", || {
        let json = place.output(&["inspect", "--format", "json", "--socket", socket_text]);
        String::from_utf8_lossy(&json.stdout).contains("\"pending\": 8")
    });
    session.commit(b"one pear").unwrap();
    session.commit(b"two pears").unwrap();
    session.progress();

    let json = place.output(&["inspect", "--format", "json", "--socket", socket_text]);
    assert!(json.status.success(), "{json:?}");
    let snapshot: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(snapshot["problems"], serde_json::json!([]));
    let purposes: Vec<&str> =
        snapshot["hooks"].as_array().unwrap().iter().filter_map(|h| h["purpose"].as_str()).collect();
    assert_eq!(purposes, ["monitoring", "recovery", "claim"]);
    let entities = snapshot["entities"].as_array().unwrap();
    let find = |name: &str| entities.iter().find(|entity| entity["name"] == name).unwrap();
    let (cart, shop) = (find("cart 7"), find("shop ?[31m"));
    assert_eq!(cart["parent"], shop["slot"]);
    assert_eq!((cart["state"].as_str(), cart["level"].as_str()), (Some("active"), Some("session")));
    let state_box = &cart["state_box"];
    assert_eq!((state_box["sequence"].as_u64(), state_box["state_bytes"].as_u64()), (Some(2), Some(9)));
    assert_eq!((&state_box["claimed"], &state_box["error"]), (&false.into(), &serde_json::Value::Null));
    let (owing, quiet) = (find("cart 8"), find("os"));
    assert_eq!((&owing["state"], &owing["owes_progress"]), (&"idle".into(), &true.into()), "{owing}");
    assert_eq!((&cart["pending"], &cart["owes_progress"]), (&serde_json::Value::Null, &true.into()), "{cart}");
    assert_eq!(quiet["pending"], serde_json::Value::Null);
    assert!(find("cart 8")["state_box"]["error"].as_str().unwrap().contains("nothing was ever committed"));

    let text = place.output(&["inspect", "--socket", socket_text]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.contains("cart 7")
            && text.contains("commit 2, 9 bytes")
            && text.contains("idle, owes")
            && !text.contains('\x1b'),
        "{text}"
    );
}
