//! `backdoor qos` in the hands of scripts: what it prints, what it refuses in one sentence, traces of any size and shape,
//! Ctrl-C half way. A panic would be exit code 101.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const HEADER: &str = "metric,unit,simulated,ci95_low,ci95_high,closed_form";
const METRICS: [&str; 6] = ["t_d_max", "t_d_mean", "t_mr", "t_m", "p_a", "lambda_m"];

/// Few mistakes of a setting in which they are frequent.
const QUICK: &str = "--mistakes 20 --max-heartbeats 100000 --format csv --quiet";

fn qos(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backdoor"));
    command.arg("qos").args(arguments.split_whitespace()).stdin(Stdio::null());
    command
}

/// The cells of each metric: unit, value, bounds, closed form.
#[track_caller]
fn table(output: &Output) -> Vec<Vec<String>> {
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{errors}");
    let mut lines = out.lines();
    assert_eq!(lines.next(), Some(HEADER));
    let rows: Vec<Vec<String>> = lines.map(|line| line.split(',').map(String::from).collect()).collect();
    assert_eq!(rows.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(), METRICS, "{out}");
    assert!(rows.iter().all(|row| row.len() == 6), "{out}");
    for cell in rows.iter().flat_map(|row| &row[2..]).filter(|cell| !cell.is_empty()) {
        assert!(cell.parse::<f64>().is_ok_and(f64::is_finite), "{cell} in {out}");
    }
    rows
}

#[track_caller]
fn measured(arguments: &str) -> Vec<Vec<String>> {
    table(&qos(&format!("{arguments} {QUICK}")).output().unwrap())
}

/// The one sentence with which it refuses.
#[track_caller]
fn refused(arguments: &str) -> String {
    let Output { status, stdout, stderr } = qos(arguments).output().unwrap();
    let message = String::from_utf8(stderr).unwrap();
    assert!(matches!(status.code(), Some(1 | 2)), "{arguments}: {:?}: {message}", status.code());
    assert!(stdout.is_empty(), "{arguments}");
    let message = message.strip_prefix("backdoor: ").unwrap_or_else(|| panic!("{arguments}: {message}")).trim_end();
    assert!(!message.contains('\n') && !message.contains("os error"), "{arguments}: {message}");
    message.to_owned()
}

#[test]
fn the_example_of_its_help_is_as_the_closed_form() {
    let help = String::from_utf8(qos("--help").output().unwrap().stdout).unwrap();
    // The help is broken into lines to fit a terminal.
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let (_, example) = words.split_once("Example: backdoor qos ").expect("an example");
    let example: Vec<&str> = example.split(' ').take_while(|word| *word != "Usage:").collect();
    let rows = table(&qos(&format!("{} --format csv --quiet", example.join(" "))).output().unwrap());
    for row in &rows {
        let number = |place: usize| row[place].parse::<f64>().unwrap();
        let (value, exact) = (number(2), number(5));
        if row[0] == "t_d_max" {
            assert!(value <= exact && value > 0.99 * exact, "{row:?}");
            continue;
        }
        let (low, high) = (number(3), number(4));
        // Twice the half of a 95% interval: four standard errors.
        assert!(low < value && value < high && (value - exact).abs() < high - low, "{row:?}");
    }
    assert_eq!(rows[2][5].parse::<f64>().unwrap().round(), 61.0, "the published 60.59 s");
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for arguments in [
        "--eta 1s --detection-time 1.1s --loss 0.05 --delay exp:20ms --mistakes 200 --precision 0.1",
        "--eta 1s --detection-time 10s --loss 0.01 --delay exp:20ms",
    ] {
        let bytes = |more: &str| qos(&format!("{arguments} --format csv --quiet {more}")).output().unwrap().stdout;
        let expected = bytes("--threads 1");
        assert!(!expected.is_empty());
        for more in ["--threads 1", "--threads 2", "--threads 0", "--threads 2 --seed 1"] {
            assert!(bytes(more) == expected, "{more}: {arguments}");
        }
        assert!(bytes("--seed 2") != expected, "another seed must give other numbers");
    }
}

#[test]
fn every_detector_runs() {
    let heartbeats = "--eta 100ms --loss 0.2 --delay normal:20ms:10ms";
    for detector in [
        "nfd-s --detection-time 200ms",
        "nfd-u --detection-time 200ms",
        "nfd-e --detection-time 200ms",
        "2w-fd --detection-time 200ms --window 100",
        "sfd --detection-time 200ms --cutoff 50ms",
        "deadline --detection-time 200ms",
        "phi-accrual --threshold 1 --window 100",
        "phi-exponential --threshold 1 --window 100",
        "bertier --window 100",
        "satzger --window 100",
        "pull-score --poll 60ms",
    ] {
        let rows = measured(&format!("--detector {detector} {heartbeats}"));
        // All of them err now and then with so many losses, and all find a crash.
        assert!(rows.iter().all(|row| !row[2].is_empty()), "{detector}: {rows:?}");
        assert!(rows[0][2].parse::<f64>().unwrap() > 0.0, "{detector}: {rows:?}");
    }
    // None that the help names is left out above.
    let help = String::from_utf8(qos("--help").output().unwrap().stdout).unwrap();
    let names = help.lines().filter(|line| line.trim_start().starts_with("- ")).count();
    assert!(names >= 11, "{help}");
}

#[test]
fn every_delay_is_understood() {
    let place = Place::new();
    let trace = place.file("delays.csv", "5000000\n20000000\n80000000\n");
    for delay in [
        "exp:20ms",
        "const:20ms",
        "const:0.02s",
        "normal:20ms:5ms",
        "lognormal:20ms:40ms",
        "pareto:1ms:1.5",
        "uniform:0s:50ms",
        &format!("trace:{}", trace.display()),
    ] {
        let rows = measured(&format!("--eta 1s --detection-time 1.1s --loss 0.1 --delay {delay}"));
        assert!(
            rows.iter().all(|row| row[2..].iter().enumerate().all(|(i, cell)| !cell.is_empty() || i == 1 || i == 2))
        );
        assert!(!rows[2][5].is_empty(), "{delay}: NFD-S has a closed form");
    }
}

#[test]
fn what_cannot_be_is_refused_in_a_sentence() {
    let good = "--detector nfd-s --detection-time 1.1s --delay exp:20ms";
    for (arguments, why) in [
        ("--eta 0", "the heartbeat period (eta) must be more than zero"),
        ("--eta 0s", "the heartbeat period (eta) must be more than zero"),
        ("--eta -1s", "'-1s' is not a duration"),
        ("--eta nan", "'nan' is not a duration"),
        ("--eta 1", "'1' is not a duration"),
        ("--eta 2s", "the detection time of 1.1s must be more than eta, 2s"),
        ("--eta 1.1s", "the detection time of 1.1s must be more than eta, 1.1s"),
        ("--eta 1s --loss 1", "the loss must be a probability from 0 to less than 1, not 1"),
        ("--eta 1s --loss 1.5", "the loss must be a probability from 0 to less than 1, not 1.5"),
        ("--eta 1s --loss -0.1", "the loss must be a probability from 0 to less than 1, not -0.1"),
        ("--eta 1s --loss nan", "the loss must be a probability from 0 to less than 1, not NaN"),
        ("--eta 1s --loss inf", "the loss must be a probability from 0 to less than 1, not inf"),
        ("--eta 1s --loss 0.9999999", "hardly any heartbeat arrives"),
        ("--eta 1s --loss x", "invalid value 'x' for '--loss <P>'"),
        ("--eta 1s --mistakes 0", "the number of mistakes must be at least 1"),
        ("--eta 1s --precision nan", "the precision must be a relative half width"),
        ("--eta 1s --precision -1", "the precision must be a relative half width"),
        ("--eta 1s --max-heartbeats 1", "the cap must be at least 1000 heartbeats"),
        ("--eta 1s --threads 100000", "there may be at most 1024 threads"),
        ("--eta 1s --delta 1s", "--delta of 1s makes for another detection time than --detection-time, 1.1s"),
        ("--eta 1s --poll 0s", "the poll interval must be more than zero"),
        ("", "say how often heartbeats are sent with --eta"),
    ] {
        let message = refused(&format!("{good} {arguments}"));
        assert!(message.contains(why), "{arguments}: {message}");
    }
    for (arguments, why) in [
        ("--detector nope --eta 1s --delay exp:20ms", "invalid value 'nope' for '--detector <DETECTOR>'"),
        ("--eta 1s --detection-time 1.1s", "say how long heartbeats take with --delay"),
        ("--eta 1s --delay exp:20ms", "give --detection-time or --delta"),
        ("--eta 1s --detection-time 1.1s --delay nope:20ms", "'nope' is no distribution"),
        ("--eta 1s --detection-time 1.1s --delay exp:0ms", "must be more than zero"),
        ("--eta 1s --detection-time 1.1s --delay exp:nan", "'nan' is not a duration"),
        ("--eta 1s --detection-time 1.1s --delay pareto:1ms:nan", "must be a positive number such as 1.5"),
        ("--eta 1s --detection-time 1.1s --delay uniform:2ms:1ms", "must be a low one and a higher one"),
        ("--eta 1s --detection-time 1.1s --delay trace:", "name the file of delays"),
        ("--detector phi-accrual --threshold nan --eta 1s --delay exp:20ms", "the threshold must be more than 0"),
        (
            "--detector deadline --eta 1s --timeout 1s --detection-time 1.1s --delay exp:20ms",
            "--timeout of 1s makes for another detection time",
        ),
        ("--detector satzger --stretch 1e300 --eta 1s --delay exp:20ms", "a positive number of at most 1000000"),
        ("--detector satzger --stretch -1 --eta 1s --delay exp:20ms", "the stretch must be a positive number"),
        ("--detector nfd-e --window 0 --eta 1s --detection-time 2s --delay exp:20ms", "a window must hold 1 to"),
        ("--detector sfd --eta 1s --detection-time 2s --delay exp:20ms", "say with --cutoff"),
        ("--detector pull-score --eta 1s --delay exp:20ms", "say how often with --poll"),
        ("--detector nfd-u --eta 1s --alpha 1s --delay pareto:1ms:0.9", "mean"),
    ] {
        let message = refused(arguments);
        assert!(message.contains(why), "{arguments}: {message}");
    }
}

/// A directory of its own.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Place(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, contents).unwrap();
        path
    }

    /// A pipe with a name: whoever reads it is alive until its writer is done.
    fn pipe(&self) -> PathBuf {
        let path = self.0.path().join("arrivals");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        path
    }
}

/// An arrival every 10 ms, each hundredth 8 ms late.
fn arrival(number: u64) -> u64 {
    number * 10_000_000 + if number.is_multiple_of(100) { 8_000_000 } else { 0 }
}

fn arrivals(count: u64) -> String {
    (1..=count).map(|number| format!("{}\n", arrival(number))).collect()
}

const DEADLINE: &str = "--detector deadline --timeout 12ms";

#[test]
fn traces_that_cannot_be_used_are_refused_in_a_sentence() {
    let place = Place::new();
    let binary: Vec<u8> = (0..4000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (name, contents, why) in [
        ("empty", &b""[..], "there are no"),
        ("unsorted", b"10\n30\n20\n", "line 3: the arrival at 20 ns is before the one above it, at 30 ns"),
        ("not-a-number", b"10\nNaN\n", "line 2: 'NaN' is no whole number"),
        ("negative", b"10\n-5\n", "line 2: '-5' is no whole number"),
        ("binary", &binary, "line 1: is no text"),
        ("zeros", &[0; 9000], "line 1: is longer than 4096 bytes"),
        ("torn", b"10\n20\n3", "line 3 has no line end and may be torn; --allow-torn uses the rest"),
        ("short", b"10\n20\n30\n", "are too few"),
    ] {
        let path = place.file(name, contents);
        let message = refused(&format!("{DEADLINE} --trace {}", path.display()));
        assert!(message.starts_with(&path.display().to_string()) && message.contains(why), "{name}: {message}");
        if !["unsorted", "short"].contains(&name) {
            let message = refused(&format!("--eta 1s --detection-time 1.1s --delay trace:{}", path.display()));
            assert!(message.contains(why), "{name} as delays: {message}");
        }
    }
    let directory = place.0.path().display();
    for arguments in
        [format!("{DEADLINE} --trace {directory}"), format!("--eta 1s --detection-time 1.1s --delay trace:{directory}")]
    {
        assert_eq!(refused(&arguments), format!("cannot read {directory}: it is a directory"));
    }
    assert!(refused(&format!("{DEADLINE} --trace {directory}/none")).ends_with("no such file or directory"));
    let sender = format!("--eta 10ms --detection-time 20ms --trace {directory}/none");
    assert!(refused(&sender).contains("nfd-e estimates it"));
}

#[test]
fn a_torn_last_line_is_left_out_where_that_is_allowed() {
    let place = Place::new();
    let whole = place.file("whole.csv", arrivals(1000));
    let torn = place.file("torn.csv", arrivals(1000) + "10010");
    let of = |path: &Path, more: &str| {
        qos(&format!("{DEADLINE} --trace {} --format csv {more}", path.display())).output().unwrap()
    };
    assert_eq!(of(&torn, "").status.code(), Some(1));
    let (expected, found) = (of(&whole, ""), of(&torn, "--allow-torn"));
    assert_eq!(table(&expected), table(&found));
    let notes = String::from_utf8(found.stderr).unwrap();
    assert!(notes.contains("line 1001 has no line end and may be torn; it was left out"), "{notes}");
    assert!(!String::from_utf8(expected.stderr).unwrap().contains("torn"));
}

/// Feeds arrivals to a reader of a pipe until it has had `rows`, then waits to be told to end.
struct Feed {
    child: Child,
    writer: JoinHandle<Option<File>>,
}

impl Feed {
    fn start(place: &Place, rows: u64) -> Self {
        let pipe = place.pipe();
        let mut command = qos(&format!("{DEADLINE} --trace {} --format csv --quiet", pipe.display()));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let writer = std::thread::spawn(move || {
            let mut file = BufWriter::new(File::options().write(true).open(pipe).unwrap());
            for n in 1..=rows {
                // The reader may have left.
                writeln!(file, "{}", arrival(n)).ok()?;
            }
            file.into_inner().ok()
        });
        Feed { child, writer }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

/// Most memory that a reader of so many rows had, in KiB, when it had read nearly all of them.
fn most_memory_kib(rows: u64) -> u64 {
    let place = Place::new();
    let mut feed = Feed::start(&place, rows);
    // All is written, so all but what fits the pipe was read; the end has not come, so the process is there.
    let file = feed.writer.join().unwrap().expect("somebody reads");
    let status = fs::read_to_string(format!("/proc/{}/status", feed.child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kib = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    drop(file);
    let mut out = String::new();
    feed.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert!(feed.child.wait().unwrap().success());
    assert!(out.starts_with(HEADER), "{out}");
    kib
}

#[test]
fn ten_times_as_long_a_trace_takes_no_more_memory() {
    let (short, long) = (most_memory_kib(100_000), most_memory_kib(1_000_000));
    // A million times are 8 MB.
    assert!(long < short + 2048, "{short} KiB for 100 000 rows, {long} KiB for 1 000 000");
}

#[track_caller]
fn ends_cleanly(mut child: Child, message: &str) {
    let status = child.wait().unwrap();
    let (mut out, mut errors) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!(status.code(), Some(130), "{errors}");
    assert_eq!((out.as_str(), errors.trim_end()), ("", message));
}

#[test]
fn ctrl_c_half_way_through_a_trace() {
    let place = Place::new();
    let feed = Feed::start(&place, 100_000_000);
    // Nobody can be half way before the handlers are there; so look for them.
    wait_for_handlers(feed.child.id());
    kill_process(feed.pid(), Signal::INT).unwrap();
    let Feed { child, writer } = feed;
    ends_cleanly(child, "backdoor: stopped before the end of the trace");
    assert!(writer.join().unwrap().is_none(), "it read a hundred million rows first");
}

#[test]
fn ctrl_c_half_way_through_a_simulation() {
    let arguments =
        "--eta 1s --detection-time 1.1s --loss 0.01 --delay exp:20ms --method direct --quiet --mistakes 1000000000";
    let child = qos(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_handlers(child.id());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    ends_cleanly(child, "backdoor: stopped before the simulation had a result");
}

/// Waits until a process catches SIGINT: bit 1 of its mask of caught signals.
fn wait_for_handlers(pid: u32) {
    loop {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("it runs").trim();
        if u64::from_str_radix(mask, 16).unwrap() & 0b10 != 0 {
            return;
        }
        std::thread::yield_now();
    }
}
