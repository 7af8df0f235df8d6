//! A run killed at any moment, interrupted, or out of disk space is resumed and gives the same bytes.
//!
//! The run under test is this test binary itself, started again to run the ignored test `child`, which reads what to
//! do from its environment.

use backdoor_experiments::interrupt::Interrupt;
use backdoor_experiments::progress::Progress;
use backdoor_experiments::results::{Manifest, ResultsDir, Table};
use backdoor_experiments::runner::{Run, RunError, TaskError, run_points};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs, thread};

const POINTS: usize = 60;
const OUT: &str = "KILL_AND_RESUME_OUT";

#[derive(Serialize, Deserialize)]
struct Row {
    index: usize,
    x: f64,
    padding: String,
}

/// What a command does with its results directory: the same code for a first run and for a resumption.
fn sweep(out: &Path, threads: usize, pause: Duration, padding: usize) -> Result<(), Box<dyn std::error::Error>> {
    let interrupt = Interrupt::listen()?;
    let manifest = Manifest::new(env::args(), 7, [("e", "points = 60")]);
    let mut dir = ResultsDir::create(out, &manifest).or_else(|_| ResultsDir::resume(out, &manifest))?;
    let points: Vec<usize> = (0..POINTS).collect();
    let journal = dir.journal("e", POINTS)?;
    let bar = Progress::hidden().experiment("e", POINTS);
    let run = Run { journal: &journal, bar: &bar, interrupt: &interrupt, threads, replications: 9 };
    let rows = run_points(&points, run, |task| -> Result<Row, TaskError> {
        // With this set, points never end, save the first few.
        thread::sleep(if task.index > 3 && env::var_os("HANG").is_some() { Duration::MAX } else { pause });
        let x = task.replications.map(|r| 1.0 / (1.0 + (task.index as u64 * 37 + r) as f64)).sum();
        Ok(Row { index: task.index, x, padding: "x".repeat(padding) })
    });
    let rows = match rows {
        Err(RunError::Interrupted { .. }) => std::process::exit(i32::from(interrupt.exit_code())),
        rows => rows?,
    };
    dir.write_csv("e", &Table::from_rows(&rows)?)?;
    dir.finish()?;
    Ok(())
}

#[test]
#[ignore = "not a test: the run that the others kill"]
fn child() {
    let Some(out) = env::var_os(OUT) else { return };
    let number = |name| env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let pause = Duration::from_micros(number("PAUSE_US"));
    if let Err(error) = sweep(Path::new(&out), number("THREADS") as usize, pause, number("PADDING") as usize) {
        eprintln!("error: {error}");
        std::process::exit(2);
    }
    std::process::exit(0);
}

fn start(out: &Path, threads: u64, pause_us: u64) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "child", "--nocapture"]).env(OUT, out);
    command.env("THREADS", threads.to_string()).env("PAUSE_US", pause_us.to_string());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn finish(out: &Path, threads: u64) -> String {
    assert!(start(out, threads, 0).wait().unwrap().success());
    fs::read_to_string(out.join("e.csv")).unwrap()
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn wait_for_points(out: &Path) {
    let journal = out.join("journal/e.jsonl");
    while fs::read_to_string(&journal).map_or(0, |text| text.lines().count()) < 3 {
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn killed_at_any_moment() {
    let place = tempfile::tempdir().unwrap();
    let expected = finish(&place.path().join("whole"), 1);
    assert_eq!(expected.lines().count(), POINTS + 1);
    assert_eq!(finish(&place.path().join("threads"), 4), expected);
    for round in 0..12 {
        let out = place.path().join(round.to_string());
        // Ever later moments, from before the directory exists to near the end.
        for kill in 0..4 {
            let mut child = start(&out, 1 + round % 3, 1000);
            thread::sleep(Duration::from_micros(1500 + round * 1700 + kill * 2300));
            child.kill().unwrap();
            child.wait().unwrap();
            if let Ok(text) = fs::read_to_string(out.join("e.csv")) {
                assert_eq!(text, expected, "a reader saw half a file");
            }
        }
        assert_eq!(finish(&out, 2), expected, "round {round}");
        assert!(!out.join(".e.csv.partial").exists());
    }
}

#[test]
fn interrupted_by_a_signal() {
    for (number, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let place = tempfile::tempdir().unwrap();
        let out = place.path().join("out");
        let mut child = start(&out, 1, 20_000);
        wait_for_points(&out);
        signal(&child, number);
        // Once more at once, as wrappers do: that is no second thought, and the run still ends in order.
        thread::sleep(Duration::from_millis(5));
        signal(&child, number);
        assert_eq!(child.wait().unwrap().code(), Some(code));
        let journal = fs::read_to_string(out.join("journal/e.jsonl")).unwrap();
        assert!(journal.ends_with('\n') && journal.lines().count() < POINTS);
        assert_eq!(finish(&out, 2).lines().count(), POINTS + 1);
    }
}

#[test]
fn a_second_signal_exits_at_once() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("out");
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--ignored", "--exact", "child"]).env(OUT, &out).env("THREADS", "1").env("HANG", "yes");
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for_points(&out);
    signal(&child, Signal::INT);
    thread::sleep(Duration::from_millis(200));
    assert!(child.try_wait().unwrap().is_none(), "the first signal only asks");
    signal(&child, Signal::INT);
    let code = (0..1000).find_map(|_| {
        thread::sleep(Duration::from_millis(10));
        child.try_wait().unwrap()
    });
    // A child that doesn't exit must not outlive the test.
    let _ = child.kill();
    assert_eq!(code.expect("the second signal exits").code(), Some(130));
    assert_eq!(finish(&out, 2).lines().count(), POINTS + 1);
}

/// A real full disk: a file system of 64 KiB in a mount namespace of its own, so nothing of this machine is touched.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_one_sentence_and_resumable() {
    let place = tempfile::tempdir().unwrap();
    let script = r#"set -e
        mount -t tmpfs -o size=64k none "$DIR" || exit 77
        "$TEST" --ignored --exact child --nocapture 2>"$DIR.errors" && exit 1
        mount -o remount,size=4m "$DIR"
        "$TEST" --ignored --exact child --nocapture
        cp "$DIR/out/e.csv" "$DIR.csv""#;
    let dir = place.path().join("disk");
    fs::create_dir(&dir).unwrap();
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script]).env("DIR", &dir).env("TEST", env::current_exe().unwrap());
    command.env(OUT, dir.join("out")).env("THREADS", "2").env("PADDING", "4000");
    let output = match command.output() {
        Ok(output) if output.status.success() => output,
        Ok(output) if !rustix::process::geteuid().is_root() || output.status.code() == Some(77) => {
            eprintln!("SKIPPED: a small file system can't be mounted here; run this test as root");
            return;
        }
        other => panic!("{other:?}"),
    };
    drop(output);
    let errors = fs::read_to_string(dir.with_extension("errors")).unwrap();
    let message = errors.lines().find(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("{errors}"));
    assert!(message.contains("disk/out/") && message.contains("the disk is full"), "{message}");
    let csv = fs::read_to_string(dir.with_extension("csv")).unwrap();
    assert_eq!(csv.lines().count(), POINTS + 1);
}
