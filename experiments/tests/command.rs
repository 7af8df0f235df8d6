//! The `backdoor` command in the hands of scripts and tired people: pipes that nobody reads any more, results that were
//! damaged or not finished. A panic would be exit code 101.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const CONFIG: &str = r#"
study = "detection"
figure = "accuracy"
title = "Small"
summary = "A study of an instant."
replications = 1
deadlines = ["5ms"]
[scenario]
warm_up = "100ms"
duration = "300ms"
"#;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Place(tempfile::tempdir().unwrap());
        fs::write(place.path("small.toml"), CONFIG).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn sweep(&self) -> Command {
        let mut command = backdoor(["sweep".as_ref(), self.path("small.toml").as_path()]);
        command.arg("--out").arg(self.path("out"));
        command
    }

    fn plot(&self) -> Command {
        backdoor(["plot".as_ref(), self.path("out").as_path()])
    }
}

fn backdoor<'a>(arguments: impl IntoIterator<Item = &'a Path>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backdoor"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs it with both outputs going into a pipe whose reader has left; answers the exit code.
fn unread(mut command: Command) -> Option<i32> {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdout(writer.try_clone().unwrap()).stderr(writer).status().unwrap().code()
}

#[track_caller]
fn refused(mut command: Command) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    let message = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{message}");
    let message = message.strip_prefix("backdoor: ").expect("the name first").trim_end().to_owned();
    assert!(!message.contains('\n') && !message.contains("os error"), "{message}");
    message
}

#[test]
fn nobody_reads_any_more() {
    let place = Place::new();
    assert_eq!(unread(place.sweep()), Some(0));
    assert!(place.path("out/report.html").exists());
    assert_eq!(unread(place.plot()), Some(0));
    assert_eq!(unread(place.sweep()), Some(1), "refused, with nobody to tell");
}

#[test]
fn figures_are_not_replaced_by_those_of_a_damaged_table() {
    let place = Place::new();
    assert!(place.sweep().output().unwrap().status.success());
    let (csv, report) = (place.path("out/small.csv"), place.path("out/report.html"));
    let whole = fs::read_to_string(&csv).unwrap();
    let drawn = fs::read(&report).unwrap();
    let head = whole.lines().next().unwrap().to_owned() + "\n";
    for (damaged, why) in [
        (String::new(), "no rows"),
        (head, "no rows"),
        (whole.replacen(",precision,", ",prec,", 1), "lacks the columns"),
        (whole.replacen(",5,", ",five,", 1), "'five' in column 'deadline_ms' is no number"),
        (whole[..whole.len() - 30].to_owned(), "cannot understand"),
    ] {
        fs::write(&csv, damaged).unwrap();
        let message = refused(place.plot());
        assert!(message.contains("small.csv") && message.contains(why), "{message}");
        assert!(fs::read(&report).unwrap() == drawn, "a report was lost to a damaged table");
    }
    fs::write(&csv, whole).unwrap();
    assert!(place.plot().output().unwrap().status.success());
    assert!(fs::read(&report).unwrap() == drawn, "redrawn from the same table, it is the same report");
}

#[test]
fn a_run_that_was_not_finished_is_not_drawn() {
    let place = Place::new();
    assert!(place.sweep().output().unwrap().status.success());
    let manifest = place.path("out/manifest.json");
    let mut value: serde_json::Value = serde_json::from_str(&fs::read_to_string(&manifest).unwrap()).unwrap();
    value["finished_unix_s"] = serde_json::Value::Null;
    fs::write(&manifest, value.to_string()).unwrap();
    assert!(refused(place.plot()).contains("was not finished; go on with it by --resume"));
}

#[test]
fn as_many_threads_as_nobody_means_leave_no_trace() {
    let place = Place::new();
    for threads in ["1025", "100000"] {
        let mut command = place.sweep();
        command.args(["--threads", threads]);
        assert_eq!(refused(command), format!("there may be at most 1024 threads, not {threads}"));
    }
    assert!(!place.path("out").exists());
}

#[test]
fn paths_that_no_socket_can_have() {
    let long = "x".repeat(200);
    for arguments in [&["node"][..], &["inspect"], &["monitor", "--once"]] {
        let mut command = backdoor(arguments.iter().map(Path::new));
        command.args(["--socket", &long]);
        assert!(refused(command).ends_with("is too long for a socket, whose path has at most 107 bytes"));
    }
}

#[test]
fn all_settings_are_checked_before_the_first_run() {
    for (arguments, why) in [
        (["--load", "0,100000"], "at most 1024"),
        (["--runs", "4000000000"], "must be from 1 to 100000"),
        (["--deadline", "0"], "must be from 2ms"),
        (["--poll", "0"], "must be from 10us"),
        (["--duration", "100h"], "at most a day"),
    ] {
        let mut command = backdoor(["live", "detect", "--quiet"].map(Path::new));
        command.args(arguments);
        let message = refused(command);
        assert!(message.contains(why), "{message}");
    }
}
