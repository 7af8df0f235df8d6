//! Recording real processes: what a trace holds, what survives the recorder, and whether a replay says what the monitor
//! said that recorded it.
//!
//! Nothing here asserts how long something takes; how often somebody is suspected is compared, never judged.

mod common;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use backdoor_core::Nanos;
use backdoor_core::progress_box::{EntityState, FailureLevel};
use backdoor_experiments::interrupt::Interrupt;
use backdoor_experiments::live::detect::{DetectConfig, FailureKind};
use backdoor_experiments::live::record::about::About;
use backdoor_experiments::live::record::format::Row;
use backdoor_experiments::live::record::{RecordConfig, Subject, record};
use backdoor_experiments::qos::trace::progress::{Rows, mistakes, replay};
use backdoor_sim::qos::replay::ReplayConfig;
use backdoor_sim::qos::setting::DetectorKind;
use common::{Place, Running, config, wait_for};
use rustix::process::Signal;

fn rows(path: &Path) -> Vec<Row> {
    let mut rows = Rows::open(path).unwrap().expect("a trace of progress");
    std::iter::from_fn(|| rows.next_row().unwrap()).collect()
}

fn text(place: &Place, arguments: &[&str]) -> (bool, String) {
    let output = place.output(arguments);
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[test]
fn a_trace_has_everybody_in_order() {
    let place = Place::new();
    let trace = place.path().join("trace.csv");
    let path = trace.to_str().unwrap();
    let command = ["live", "record", "--out", path, "--duration", "500ms", "--sessions", "3", "--load", "1"];
    let (done, said) = text(&place, &command);
    assert!(done, "{said}");
    let rows = rows(&trace);
    let names: HashSet<&str> = rows.iter().map(|row| row.entity.as_str()).collect();
    for name in ["os", "agent", "worker", "client 0", "client 1", "client 2"] {
        assert!(names.contains(name), "{name} in {names:?}");
    }
    assert!(rows.is_sorted_by_key(|row| (row.seen, row.earliest)));
    let mut last: HashMap<u64, &Row> = HashMap::new();
    for row in &rows {
        assert!(row.unmoved <= row.earliest && row.earliest <= row.latest, "{row:?}");
        if let Some(before) = last.insert(row.watch, row) {
            assert!(row.count > before.count, "{before:?} {row:?}");
            assert!(row.latest >= before.latest && row.unmoved >= before.earliest, "{before:?} {row:?}");
            let who = |row: &Row| (row.entity.clone(), row.level, row.deadline);
            assert_eq!(who(row), who(before));
        }
    }
    let worker = last.values().find(|row| row.entity == "worker").unwrap();
    assert_eq!((worker.level, worker.deadline), (FailureLevel::Application, Nanos::from_millis(20)));
    assert!(rows.iter().any(|row| row.state == EntityState::Idle), "clients wait");

    let about: About = serde_json::from_slice(&std::fs::read(About::path(&trace)).unwrap()).unwrap();
    let finished = about.finished.expect("it ended in order");
    assert_eq!((finished.lines, finished.watches), (rows.len() as u64, last.len() as u64));
    assert!(said.contains(&format!("{} lines", rows.len())), "{said}");

    let (done, said) = text(&place, &["live", "record", "--out", path]);
    assert!(!done && said.contains("--force"), "{said}");
    for file in [trace.clone(), About::path(&trace)] {
        std::fs::remove_file(file).unwrap();
    }
    place.assert_nothing_is_left();
}

#[test]
fn qos_takes_a_trace() {
    let place = Place::new();
    let trace = place.path().join("trace.csv");
    let path = trace.to_str().unwrap();
    let (done, said) = text(&place, &["live", "record", "--out", path, "--duration", "400ms", "-q"]);
    assert!(done, "{said}");
    let qos = |more: &[&str]| {
        let first = ["qos", "--trace", path, "--format", "csv", "--detector"];
        text(&place, &[&first[..], more].concat())
    };
    let (done, said) = qos(&["deadline", "--timeout", "5ms", "--entity", "worker"]);
    assert!(done && said.contains("\nlambda_m,1/s,"), "{said}");
    let (done, said) = qos(&["phi-accrual", "--window", "20", "--entity", "os"]);
    assert!(done && said.contains("the first 60 of each watch not measured"), "{said}");
    let (done, said) = qos(&["nfd-e", "--eta", "1ms", "--alpha", "5ms", "--entity", "os"]);
    assert!(done, "{said}");
    let (done, said) = qos(&["deadline", "--timeout", "5ms"]);
    assert!(!done && said.contains("--entity") && said.contains("'client 7'"), "{said}");
    let (done, said) = qos(&["deadline", "--timeout", "5ms", "--entity", "worker", "--poll", "1ms"]);
    assert!(!done && said.contains("--poll"), "{said}");
}

#[test]
fn a_killed_recorder_leaves_what_it_saw() {
    let place = Place::new();
    let trace = place.path().join("trace.csv");
    let arguments = ["live", "record", "--out", trace.to_str().unwrap(), "--duration", "60s", "-q"];
    let mut command = Running::start(&mut place.backdoor(&arguments));
    let lines = || std::fs::read(&trace).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count();
    wait_for("some lines", || lines() > 500);
    command.signal(Signal::KILL);
    assert_eq!(command.exit_code(), None);
    let whole = rows(&trace);
    assert!(whole.len() >= 500, "{}", whole.len());
    let about: About = serde_json::from_slice(&std::fs::read(About::path(&trace)).unwrap()).unwrap();
    assert_eq!(about.finished, None);
    // Wherever it is torn, all but the last line is read, and whoever asks for a result is told.
    let bytes = std::fs::read(&trace).unwrap();
    for cut in 1..60 {
        std::fs::write(&trace, &bytes[..bytes.len() - cut]).unwrap();
        let left = rows(&trace);
        assert_eq!(left, whole[..left.len()], "cut {cut}");
        assert!(left.len() + 3 > whole.len());
    }
    let qos =
        ["qos", "--trace", trace.to_str().unwrap(), "--entity", "os", "--detector", "deadline", "--timeout", "5ms"];
    std::fs::write(&trace, &bytes[..bytes.len() - 5]).unwrap();
    let (done, said) = text(&place, &qos);
    assert!(!done && said.contains("--allow-torn"), "{said}");
    let (done, said) = text(&place, &[&qos[..], &["--allow-torn"]].concat());
    assert!(done, "{said}");
}

#[test]
fn an_interrupted_recording_is_kept_and_nothing_else() {
    let place = Place::new();
    let trace = place.path().join("trace.csv");
    let arguments = ["live", "record", "--out", trace.to_str().unwrap(), "--duration", "60s", "-q"];
    let mut command = Running::start(&mut place.backdoor(&arguments));
    wait_for("some lines", || trace.metadata().is_ok_and(|trace| trace.len() > 5000));
    command.signal(Signal::INT);
    assert_eq!(command.exit_code(), Some(130));
    assert!(!rows(&trace).is_empty());
    let about: About = serde_json::from_slice(&std::fs::read(About::path(&trace)).unwrap()).unwrap();
    assert!(about.finished.expect("it ended in order").interrupted);

    let nobody = place.path().join("nobody.csv");
    let socket = place.socket();
    let arguments = ["live", "record", "--socket", socket.to_str().unwrap(), "--out", nobody.to_str().unwrap(), "-q"];
    let mut command = Running::start(&mut place.backdoor(&arguments));
    wait_for("the trace", || About::path(&nobody).exists());
    command.signal(Signal::INT);
    assert_eq!(command.exit_code(), Some(130));
    assert!(!nobody.exists() && !About::path(&nobody).exists(), "there was nothing to record");
}

#[test]
fn a_running_node_is_recorded_through_its_agents_restart() {
    let place = Place::new();
    let trace = place.path().join("trace.csv");
    let socket = place.socket();
    let arguments =
        ["live", "record", "--socket", socket.to_str().unwrap(), "--out", trace.to_str().unwrap(), "--duration", "60s"];
    let mut command = Running::start(&mut place.backdoor(&arguments));
    let agent = Running::agent(&place);
    let seen = |watches: usize| {
        let Ok(Some(mut rows)) = Rows::open(&trace) else { return false };
        let mut of_os = HashSet::new();
        while let Ok(Some(row)) = rows.next_row() {
            if row.entity == "os" {
                of_os.insert(row.watch);
            }
        }
        of_os.len() >= watches
    };
    wait_for("the first agent's counters", || seen(1));
    drop(agent);
    let _second = Running::agent(&place);
    wait_for("the second agent's counters", || seen(2));
    command.signal(Signal::INT);
    assert_eq!(command.exit_code(), Some(130));
    let rows = rows(&trace);
    assert!(rows.is_sorted_by_key(|row| row.earliest), "evidence time goes on");
    let detector = DetectorKind::Deadline { timeout: Nanos::from_secs(30) };
    let config = ReplayConfig { detector, period: Nanos::from_millis(1), poll: None };
    let report = replay(&trace, false, Some("os"), &config, &Interrupt::new()).unwrap();
    assert!(report.method.contains("; 0 mistakes"), "{}", report.method);
    assert!(report.notes.iter().any(|note| note.contains("watched 2 times")), "{:?}", report.notes);
}

/// The recorder's monitor is one of the paper's: what it said by the entities' deadlines is what follows from its trace.
#[test]
fn a_replay_says_what_the_monitor_said() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("trace.csv");
    // The worker's loop sleeps for a millisecond: by half of one there is something to be wrong about, on any machine.
    let (deadline, short) = (Nanos::from_millis(2), Nanos::from_micros(500));
    let parts = DetectConfig {
        deadline,
        poll: Nanos::from_micros(200),
        load: 2 * std::thread::available_parallelism().map_or(2, usize::from) as u32,
        ..config(FailureKind::None)
    };
    let record_config = RecordConfig {
        poll: parts.poll,
        subject: Subject::Parts(Box::new(parts)),
        spin: false,
        duration: Nanos::from_millis(1500),
        out: out.clone(),
        force: false,
    };
    let interrupt = Interrupt::new();
    let recorded = record(&record_config, &interrupt, &mut |_| {}).unwrap();
    let found = mistakes(&out, &[short], |row| row.deadline == deadline, &interrupt).unwrap();
    assert_eq!(found.by_own, recorded.suspicions);
    let of_deadline: u64 = found.mistakes.iter().map(|counts| counts[0]).sum();
    assert!(of_deadline > 0, "nobody was silent for {short}: {found:?}");
    // One entity at a time, by the detectors of `backdoor qos`.
    let names: HashSet<String> =
        rows(&out).into_iter().filter(|row| row.deadline == deadline).map(|row| row.entity).collect();
    let detector = DetectorKind::Deadline { timeout: short };
    let config = ReplayConfig { detector, period: short, poll: None };
    let one_by_one: u64 = names
        .iter()
        .map(|name| {
            let method = replay(&out, false, Some(name), &config, &interrupt).unwrap().method;
            let (_, rest) = method.split_once("; ").unwrap();
            rest.split_once(" mistakes").unwrap().0.parse::<u64>().unwrap()
        })
        .sum();
    assert_eq!(one_by_one, of_deadline);
}
