//! What the tests of live experiments share: commands in a place of their own, and what a measurement must show.
#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod failover;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use backdoor_core::Nanos;
use backdoor_experiments::interrupt::Interrupt;
use backdoor_experiments::live::detect::{DetectConfig, DetectReport, FailureKind, run};
use backdoor_experiments::live::notice::{Notice, What};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Long enough for anything on a machine that is busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The columns that others rely on.
pub(crate) const HEADER: &str = "run,failure,level,transport,deadline_ms,poll_ms,load,detected,detection_ms,false_positives,\
    cause,sessions,affected,recovered,recovered_ok,extraction_ms,bytes_read,injection_ms,healthy_ms,late_samples,\
    false_os,false_application,false_session,clock_error_ms,detector,queues";

/// The command, with a place for temporary files that is this test's own: by it, its processes are known.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Place(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path().join("node.sock")
    }

    pub(crate) fn backdoor(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backdoor"));
        command.args(arguments).env("TMPDIR", self.path()).env_remove("XDG_RUNTIME_DIR").stdin(Stdio::null());
        command
    }

    pub(crate) fn output(&self, arguments: &[&str]) -> Output {
        self.backdoor(arguments).output().unwrap()
    }

    /// Each command is refused, in a sentence with this word.
    #[track_caller]
    pub(crate) fn assert_refused<'a>(
        &self,
        command: &[&str],
        arguments: impl IntoIterator<Item = (&'a [&'a str], &'a str)>,
    ) {
        for (arguments, word) in arguments {
            let output = self.output(&[command, arguments].concat());
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && stderr.contains(word), "{arguments:?}: {stderr}");
        }
    }

    /// Processes that were started, directly or not, by commands of this place.
    pub(crate) fn processes(&self) -> Vec<String> {
        let needle = format!("TMPDIR={}\0", self.path().display());
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            if String::from_utf8_lossy(&environment).contains(&needle) {
                found.push(std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default());
            }
        }
        found
    }

    #[track_caller]
    pub(crate) fn assert_nothing_is_left(&self) {
        wait_for("processes and files to be gone", || {
            self.processes().is_empty() && std::fs::read_dir(self.path()).unwrap().count() == 0
        });
    }
}

#[track_caller]
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A child that does not outlive the test.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) lines: Receiver<String>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Running { child, lines }
    }

    pub(crate) fn agent(place: &Place) -> Self {
        let socket = place.socket();
        let agent = Running::start(&mut place.backdoor(&["node", "--socket", socket.to_str().unwrap()]));
        let line = agent.lines.recv_timeout(PATIENCE).unwrap();
        assert_eq!(line, format!("agent ready at {}", socket.display()));
        agent
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        wait_for("the command's end", || self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap().code()
    }

    /// The next notice that is as `wanted`.
    #[track_caller]
    pub(crate) fn notice(&self, wanted: impl Fn(&What) -> bool) -> What {
        let end = Instant::now() + PATIENCE;
        loop {
            let line = self.lines.recv_timeout(end - Instant::now()).expect("a notice in time");
            let notice: Notice = serde_json::from_str(&line).unwrap();
            if wanted(&notice.what) {
                return notice.what;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn config(failure: FailureKind) -> DetectConfig {
    DetectConfig {
        program: env!("CARGO_BIN_EXE_backdoor").into(),
        deadline: Nanos::from_millis(150),
        poll: Nanos::from_millis(2),
        runs: 2,
        sessions: 5,
        state_bytes: 700,
        ..DetectConfig::of(failure).unwrap()
    }
}

/// Where the machine stalls for longer than the deadline, a suspicion may come before the failure, and is then right to
/// be counted as wrong. Such a measurement says nothing about the monitor and is made again.
#[track_caller]
pub(crate) fn undisturbed(config: &DetectConfig) -> DetectReport {
    for _ in 0..5 {
        let mut seen = 0;
        let report = run(config, &Interrupt::new(), &mut |row| {
            assert_eq!(row.run, seen);
            seen += 1;
        });
        let report = report.unwrap();
        assert_eq!((report.rows.len(), seen), (config.runs as usize, config.runs));
        if report.rows.iter().all(|row| row.false_positives == 0) {
            return report;
        }
    }
    panic!("somebody was accused wrongly in each of five measurements, with a deadline of {}", config.deadline);
}

#[track_caller]
pub(crate) fn every_run_is_detected_and_recovered(config: &DetectConfig, affected: u64) {
    let report = undisturbed(config);
    for row in &report.rows {
        assert!(row.detected && row.detection_ms.is_some(), "{row:?}");
        assert_eq!((&*row.failure, &*row.level), (config.failure.name(), config.failure.level()));
        assert_eq!(Some(&*row.cause), config.failure.cause(), "{row:?}");
        assert_eq!((row.affected, row.recovered, row.recovered_ok), (affected, affected, affected), "{row:?}");
        assert!(row.bytes_read.unwrap() >= affected * config.state_bytes as u64, "{row:?}");
    }
    assert!(report.monitor.samples > 0 && report.monitor.wakeups.count > 0, "{:?}", report.monitor);
    assert!(report.keeps_bound().is_some());
}
