//! Speed of the cluster model: events, threads, memory, and what a sweep over a hundred deadlines costs besides the run.
//!
//! `cargo bench -p backdoor-sim --bench cluster [ROUNDS]` prints the medians. It fails (exit status 1) if
//! - a core simulates less than 10 million events in a second of its time (of the best round: others may use the machine),
//! - a simulated node-minute takes longer than a second, or a sweep over 100 deadlines more than 1.5 times one deadline,
//! - two threads that run independent replications get less than 1.8 times the work of one done, in their own time,
//! - or 10,000 nodes of 100 entities take more memory than [`memory`] says.
//!
//! # Where the time goes
//! An event is what [`Record::events`](backdoor_sim::cluster::Record) counts: whatever the engine hands out. On the
//! scenario here (2 cores, load 4, polled every millisecond) 63% of them are polls (the monitor posts, the node's card
//! reads, the answer comes), 26% ends of slices and of work, the rest ticks, loops and requests. One takes 1010
//! instructions, as callgrind counts them:
//!
//! | part | % |
//! |---|---|
//! | run queue: who runs, who waits, what is next | 17 |
//! | monitor and detectors: taking samples in, posting | 16 |
//! | network card and path | 18 |
//! | event engine: schedule, cancel, take out | 12 |
//! | workload: counters, random numbers, State Boxes with their checksums | 15 |
//! | event loop: whom an event is for, what is due next | 18 |
//! | recorder: silences, samples | 4 |

mod memory;
mod threads;

use std::process::ExitCode;

use backdoor_core::Nanos;
use backdoor_sim::cluster::{Scenario, record};
use backdoor_sim::dist::Dist;
use backdoor_sim::engine::Engine;
use backdoor_sim::engine::workload::Workload;
use backdoor_sim::faults::Arrivals;
use backdoor_sim::metrics::cost::sweep_cost;
use backdoor_sim::streams::{StreamKey, Streams};
use rustix::time::{ClockId, clock_gettime};

/// Events in a second of a core.
const REQUIRED_MILLIONS: f64 = 10.0;
const REQUIRED_SPEED: f64 = 60.0;
const REQUIRED_RATIO: f64 = 1.5;
const REQUIRED_SCALING: f64 = 1.8;

fn main() -> ExitCode {
    if memory::is_child() {
        return memory::child();
    }
    // Cargo passes `--bench`; only a number is ours.
    let rounds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(11usize).max(1);
    println!("one node, 1 application, 8 sessions, load 4, polled every 1 ms; {rounds} rounds");
    let kept = [events(rounds), sweep(rounds), scaling(rounds), memory::print()];
    if kept.iter().all(|kept| *kept) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A simulated minute of one node.
fn one_minute(replication: u64) -> u64 {
    let mut scenario = Scenario { load: 4, ..Scenario::default() };
    scenario.faults.arrivals = Arrivals::OneAtATime { gap: Dist::constant(Nanos::from_secs(1)) };
    let streams = Streams::new(StreamKey { seed: 1, experiment: "bench", point: "", replication });
    let run = record(&scenario, &streams, Nanos::from_millis(5)).expect("the scenario is possible");
    std::hint::black_box(run).events
}

/// Time that this thread has had a core, in seconds.
fn thread_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn events(rounds: usize) -> bool {
    let engine_alone = Workload { events: 300_000, ..Workload::default() };
    let per_s = |events: &dyn Fn() -> u64| {
        let start = thread_time();
        let events = events() as f64;
        events / (thread_time() - start)
    };
    let (mut model, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        model.push(per_s(&|| one_minute(0)));
        bare.push(per_s(&|| engine_alone.run(&mut Engine::new()).events));
    }
    [&mut model, &mut bare].into_iter().for_each(|values| values.sort_by(f64::total_cmp));
    let (median, best, bare) = (model[rounds / 2] / 1e6, model[rounds - 1] / 1e6, bare[rounds / 2] / 1e6);
    println!("events         {median:8.2} million/s of a core (median; best {best:.2}; required: {REQUIRED_MILLIONS})");
    println!("               {:8.2} times the cost of an event that only the engine handles", bare / median);
    println!("               {bare:8.2} million/s, the engine alone, 1000 nodes");
    best >= REQUIRED_MILLIONS
}

fn sweep(rounds: usize) -> bool {
    let cost = sweep_cost(rounds);
    let (speed, ratio) = (cost.simulated_per_wall_second(), cost.ratio());
    println!("run            {:8.1} ms for {} simulated", cost.run_s * 1e3, cost.simulated);
    println!("speed          {speed:8.1} simulated s per wall s (required: {REQUIRED_SPEED})");
    println!("one deadline   {:8.3} ms", cost.one_s * 1e3);
    println!("100 deadlines  {:8.3} ms", cost.hundred_s * 1e3);
    println!("ratio          {ratio:8.3} (run and 100 deadlines to run and one; required: {REQUIRED_RATIO})");
    speed >= REQUIRED_SPEED && ratio < REQUIRED_RATIO
}

fn scaling(rounds: usize) -> bool {
    let threads::Scaling { wall, own } = threads::scaling(rounds, one_minute);
    println!("two threads    {own:8.2} times one, by the threads' own time (required: {REQUIRED_SCALING})");
    println!("               {wall:8.2} times one, by the clock: less if others use the cores");
    own >= REQUIRED_SCALING
}
