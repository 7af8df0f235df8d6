//! READ latency and throughput, against `perftest` on the same device in the same run.
//!
//! The two take turns, so that what else the machine does hits both, and every round of either is a process of its own, for
//! where a process lies in memory sets its speed by a fifth under emulation. Of each, the quietest round counts: what a host
//! of virtual machines adds to a round may last for seconds and hit one of the two alone, and it only ever adds. A round's
//! own figure is the median of its READs.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use backdoor_core::transport::{LocalSlice, Operation, RemoteSlice, Rights, Transport, WorkId, WorkRequest};
use backdoor_transports::verbs::{Device, VerbsConfig, VerbsTransport};

use super::Outcome;
use super::node::{Node, key};

/// Rounds of a size. The smallest READs are over before a disturbance is, and depend most on where a process lies, so it
/// takes more rounds to find a quiet one.
const fn rounds(bytes: usize) -> usize {
    if bytes <= 8 { 15 } else { 4 }
}
const WARM_UP: usize = 100;
const DEPTH: usize = 128;
/// READs of each size in a round.
const fn reads(bytes: usize) -> usize {
    if bytes <= 4 << 10 { 1000 } else { 300 }
}

const SIZES: [usize; 3] = [8, 4 << 10, 64 << 10];

pub(crate) fn check(device: &Device) -> Outcome {
    for bytes in SIZES {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds(bytes) {
            ours.push(in_a_process(device, bytes)?);
            theirs.push(perftest(device, "ib_read_lat", bytes, &[])?);
        }
        eprintln!("{bytes} B, us a round: ours {ours:.2?}, ib_read_lat {theirs:.2?}");
        let (ours, theirs) = (least(&ours), least(&theirs));
        println!("read_{bytes}B {ours:.2} us");
        println!("ib_read_lat_{bytes}B {theirs:.2} us");
        println!("read_{bytes}B_ratio {:.3} ours/perftest", ours / theirs);
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        ours.push(throughput(device)?);
        theirs.push(perftest(device, "ib_read_bw", 8, &["-t", &DEPTH.to_string()])?);
    }
    let (ours, theirs) = (most(&ours), most(&theirs));
    println!("read_8B_rate {:.0} READs/s", ours * 1e6);
    println!("ib_read_bw_8B_rate {:.0} READs/s", theirs * 1e6);
    println!("read_8B_time_ratio {:.3} ours/perftest", theirs / ours);
    Ok(())
}

fn set_up(device: &Device, bytes: usize) -> Result<(Node, VerbsTransport, Operation), Box<dyn std::error::Error>> {
    let words = bytes / 8;
    let node = Node::new(device, &[(words, Rights::READ)])?;
    let mut transport = node.connect(VerbsConfig { depth: DEPTH, ..VerbsConfig::default() })?;
    let buffer = transport.allocate(words)?;
    let from = RemoteSlice { key: key(0), offset: 0, words: words as u64 };
    Ok((node, transport, Operation::Read { from, into: LocalSlice::start_of(buffer) }))
}

/// What [`latency`] answers in a process that ends with it.
fn in_a_process(device: &Device, bytes: usize) -> Result<f64, Box<dyn std::error::Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["latency", &bytes.to_string(), "--device", device.name(), "--port", &device.port().to_string()]);
    command.args(["--gid-index", &device.gid_index().to_string()]).stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output()?;
    let answer = String::from_utf8_lossy(&output.stdout);
    let figure = answer.split_whitespace().nth(1).and_then(|figure| figure.parse().ok());
    figure.ok_or_else(|| format!("{command:?} printed {answer:?}").into())
}

/// Prints the median of one round.
pub(crate) fn check_latency(device: &Device, bytes: usize) -> Outcome {
    println!("read_{bytes}B {:.2} us", latency(device, bytes)?);
    Ok(())
}

/// Median, in µs, from posting one READ to posting the next, which is when its completion has been polled. The clock is
/// read once a READ, as perftest does.
fn latency(device: &Device, bytes: usize) -> Result<f64, Box<dyn std::error::Error>> {
    let (_node, mut transport, operation) = set_up(device, bytes)?;
    let mut completions = Vec::new();
    let mut times = Vec::with_capacity(reads(bytes));
    let mut last = Instant::now();
    for read in 0..WARM_UP + reads(bytes) {
        transport.post(&[WorkRequest { id: WorkId(read as u64), operation }])?;
        while completions.is_empty() {
            transport.poll(&mut completions);
        }
        completions.remove(0).result?;
        let now = Instant::now();
        if read >= WARM_UP {
            times.push((now - last).as_secs_f64() * 1e6);
        }
        last = now;
    }
    Ok(median(&mut times))
}

/// Millions of READs of 8 bytes a second, at most `DEPTH` under way, posted in batches of half of that.
fn throughput(device: &Device) -> Result<f64, Box<dyn std::error::Error>> {
    const BATCHES: usize = 100;
    let (_node, mut transport, operation) = set_up(device, 8)?;
    let batch = [WorkRequest { id: WorkId(0), operation }; DEPTH / 2];
    let mut completions = Vec::new();
    let (mut posted, mut finished) = (0, 0);
    let begin = Instant::now();
    while finished < BATCHES * batch.len() {
        while posted < BATCHES && posted * batch.len() < finished + DEPTH - batch.len() + 1 {
            transport.post(&batch)?;
            posted += 1;
        }
        transport.poll(&mut completions);
        for completion in completions.drain(..) {
            completion.result?;
            finished += 1;
        }
    }
    Ok(finished as f64 / begin.elapsed().as_secs_f64() / 1e6)
}

/// The figure that a tool of perftest prints: the median latency in µs, or millions of messages a second.
fn perftest(device: &Device, tool: &str, bytes: usize, more: &[&str]) -> Result<f64, Box<dyn std::error::Error>> {
    let command = || {
        let mut command = Command::new(tool);
        command.args(["-d", device.name(), "-i", &device.port().to_string()]);
        command.args([
            "-x",
            &device.gid_index().to_string(),
            "-s",
            &bytes.to_string(),
            "-n",
            &reads(bytes).to_string(),
        ]);
        command.args(["-F"]).args(more).stdin(Stdio::null()).stderr(Stdio::null());
        command
    };
    let mut server = command().stdout(Stdio::null()).spawn().map_err(|error| format!("can't start {tool}: {error}"))?;
    // It does not say when it listens.
    let mut answer = None;
    for _ in 0..50 {
        std::thread::sleep(Duration::from_millis(40));
        let output = command().arg("127.0.0.1").output()?;
        if output.status.success() {
            answer = Some(String::from_utf8_lossy(&output.stdout).into_owned());
            break;
        }
    }
    if answer.is_none() {
        let _ = server.kill();
    }
    server.wait()?;
    let answer = answer.ok_or_else(|| format!("{tool} does not connect to itself"))?;
    // bytes, iterations, then: min, max, typical (the median), …; or peak, average, messages.
    let column = |line: &str| {
        let mut columns = line.split_whitespace();
        (columns.next()?.parse() == Ok(bytes)).then(|| columns.nth(3))??.parse().ok()
    };
    answer.lines().find_map(column).ok_or_else(|| format!("{tool} printed no figures for {bytes} bytes").into())
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
