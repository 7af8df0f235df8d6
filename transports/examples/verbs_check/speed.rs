//! READ latency and throughput, against `perftest` on the same device in the same run.
//!
//! The two take turns, so that what else the machine does hits both, and every round of either is a process of its own, for
//! where a process lies in memory sets its speed by a fifth under emulation. Of each, the quietest round counts: what a host
//! of virtual machines adds to a round may last for seconds and hit one of the two alone, and it only ever adds. A round's
//! own figure is the median of its READs.
//!
//! Another pair of rounds is taken while the ratio is above what is wanted, up to as many as outlast such a disturbance. Both
//! sides get the same number, so what is slower by itself stays slower; but since the first ratio that is kept ends the
//! rounds, it says "not above", and is no estimate of how far below.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use backdoor_core::transport::{LocalSlice, Operation, RemoteSlice, Rights, Transport, WorkId, WorkRequest};
use backdoor_transports::verbs::{Device, VerbsConfig, VerbsTransport};

use super::Outcome;
use super::node::{Node, key};

/// A ratio above this gets another pair of rounds.
const WANTED: f64 = 1.15;
/// Pairs of rounds: at least so many, and at most. The smallest READs depend most on where a process lies.
const fn rounds(bytes: usize) -> (usize, usize) {
    if bytes <= 8 { (5, 40) } else { (2, 12) }
}
const WARM_UP: usize = 50;
const DEPTH: usize = 128;
/// READs of each size in a round.
const fn reads(bytes: usize) -> usize {
    if bytes <= 4 << 10 { 1000 } else { 200 }
}

const SIZES: [usize; 3] = [8, 4 << 10, 64 << 10];

pub(crate) fn check(device: &Device) -> Outcome {
    for bytes in SIZES {
        let theirs = || perftest(device, "ib_read_lat", bytes, &[]);
        let (ours, theirs) = duel(rounds(bytes), || in_a_process(device, bytes), theirs)?;
        println!("read_{bytes}B {ours:.2} us");
        println!("ib_read_lat_{bytes}B {theirs:.2} us");
        println!("read_{bytes}B_ratio {:.3} ours/perftest", ours / theirs);
    }
    let depth = DEPTH.to_string();
    let theirs = || Ok(1.0 / perftest(device, "ib_read_bw", 8, &["-t", &depth])?);
    let (ours, theirs) = duel((2, 12), || throughput(device), theirs)?;
    println!("read_8B_rate {:.0} READs/s", 1e6 / ours);
    println!("ib_read_bw_8B_rate {:.0} READs/s", 1e6 / theirs);
    println!("read_8B_time_ratio {:.3} ours/perftest", ours / theirs);
    Ok(())
}

/// The least time of ours, and of theirs, after as many rounds as it takes.
fn duel(
    (fewest, most): (usize, usize),
    ours: impl Fn() -> Result<f64, Box<dyn std::error::Error>>,
    theirs: impl Fn() -> Result<f64, Box<dyn std::error::Error>>,
) -> Result<(f64, f64), Box<dyn std::error::Error>> {
    let mut best = (f64::INFINITY, f64::INFINITY);
    for round in 0..most {
        if round >= fewest && best.0 <= WANTED * best.1 {
            break;
        }
        let (our, their) = (ours()?, theirs()?);
        eprintln!("us a READ: ours {our:.2}, perftest {their:.2}");
        best = (best.0.min(our), best.1.min(their));
    }
    Ok(best)
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

/// Microseconds a READ of 8 bytes, with at most `DEPTH` under way, posted in batches of half of that.
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
    Ok(begin.elapsed().as_secs_f64() * 1e6 / finished as f64)
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

pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
