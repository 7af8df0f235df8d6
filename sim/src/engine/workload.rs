//! The load that the engine's speed is judged by, generic over the queue: a cluster of nodes that make progress, and a
//! monitor that polls each of them.
//!
//! Per node one progress event every 1 ms + Exp(100 µs), one poll every 5 ms, and a response Exp(5 µs) after each poll:
//! about 1.3 million events per simulated second for 1000 nodes, some 2000 pending at a time, at three time scales.
//! The same code drives both queues in `benches/engine.rs`, and a test compares the digests of what came out.

use std::hint::black_box;
use std::time::{Duration, Instant};

use backdoor_core::Nanos;
use rand::{RngExt, SeedableRng};
use rand_distr::Exp1;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::reference::HeapEngine;
use super::{Engine, EventQueue};

/// The load's parameters; [`Default`] is the load of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Workload {
    /// Number of nodes.
    pub nodes: u32,
    /// Shortest time between two progress events of a node.
    pub tick: Nanos,
    /// Mean of the exponential time added to `tick`.
    pub tick_jitter_mean: Nanos,
    /// Time between two polls of a node.
    pub poll: Nanos,
    /// Mean of the exponential time from a poll to its response.
    pub response_mean: Nanos,
    /// Number of events after which to stop.
    pub events: u64,
    /// Seed of the random numbers.
    pub seed: u64,
}

impl Default for Workload {
    fn default() -> Self {
        Workload {
            nodes: 1000,
            tick: Nanos::from_millis(1),
            tick_jitter_mean: Nanos::from_micros(100),
            poll: Nanos::from_millis(5),
            response_mean: Nanos::from_micros(5),
            events: 2_000_000,
            seed: 1,
        }
    }
}

/// An event of the load, with the number of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The node makes progress.
    Tick(u32),
    /// The monitor reads the node's counter.
    Poll(u32),
    /// The counter arrives at the monitor.
    Response(u32),
}

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Number of events that came out.
    pub events: u64,
    /// Time of the last of them.
    pub end: Nanos,
    /// Sum of the counters as the monitor saw them last.
    pub progress_seen: u64,
    /// Digest of time, kind and node of every event in the order in which they came out.
    pub digest: u64,
}

impl Workload {
    /// Runs the load on an empty queue.
    pub fn run(&self, queue: &mut impl EventQueue<Event>) -> Outcome {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(self.seed);
        let mut exp = |mean: Nanos| Nanos((mean.0 as f64 * rng.sample::<f64, _>(Exp1)) as u64);
        let mut progress = vec![0u64; self.nodes as usize];
        let mut seen = vec![0u64; self.nodes as usize];
        for node in 0..self.nodes {
            queue.schedule(exp(self.tick), Event::Tick(node));
            // Polls are spread over the period, as a monitor with any sense does it.
            queue.schedule(self.poll * u64::from(node) / u64::from(self.nodes), Event::Poll(node));
        }
        let mut outcome = Outcome { events: 0, end: Nanos::ZERO, progress_seen: 0, digest: 0 };
        while outcome.events < self.events {
            let Some((at, event)) = queue.next() else { break };
            let tag = match event {
                Event::Tick(node) => {
                    progress[node as usize] += 1;
                    queue.schedule_in(self.tick + exp(self.tick_jitter_mean), event);
                    node
                }
                Event::Poll(node) => {
                    queue.schedule_in(exp(self.response_mean), Event::Response(node));
                    queue.schedule_in(self.poll, event);
                    node | 1 << 30
                }
                Event::Response(node) => {
                    seen[node as usize] = progress[node as usize];
                    node | 2 << 30
                }
            };
            outcome.events += 1;
            outcome.end = at;
            outcome.digest = (outcome.digest.rotate_left(5) ^ at.0 ^ u64::from(tag) << 32).wrapping_mul(DIGEST_FACTOR);
        }
        outcome.progress_seen = seen.iter().sum();
        outcome
    }
}

/// Any odd number with bits all over makes each event's place in the order count (2^64 / golden ratio).
const DIGEST_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// What [`compare`] measured.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Wall-clock time of [`Engine`], per round.
    pub engine: Vec<Duration>,
    /// Wall-clock time of the plain heap, per round.
    pub heap: Vec<Duration>,
    /// Events in each run.
    pub events: u64,
}

/// Times both queues on the same load, in turns, `rounds` times, after one round of each to warm up.
///
/// In turns, because a shared machine's speed drifts; the ratio within a round drifts less than either time.
pub fn compare(workload: &Workload, rounds: usize) -> Comparison {
    let run_engine = || time(|| workload.run(&mut Engine::new()));
    let run_heap = || time(|| workload.run(&mut HeapEngine::new()));
    let mut comparison = Comparison { engine: Vec::new(), heap: Vec::new(), events: workload.events };
    run_engine();
    run_heap();
    for round in 0..rounds {
        // Who goes first changes, so that neither always finds the other's leftovers in the caches.
        if round % 2 == 0 {
            comparison.engine.push(run_engine());
            comparison.heap.push(run_heap());
        } else {
            comparison.heap.push(run_heap());
            comparison.engine.push(run_engine());
        }
    }
    comparison
}

fn time(run: impl FnOnce() -> Outcome) -> Duration {
    let start = Instant::now();
    black_box(run());
    start.elapsed()
}

impl Comparison {
    /// Median over the rounds of (heap's time / engine's time): how many times faster the engine is. NaN without rounds.
    pub fn speedup(&self) -> f64 {
        median(self.heap.iter().zip(&self.engine).map(|(heap, engine)| heap.as_secs_f64() / engine.as_secs_f64()))
    }

    /// Median throughput of [`Engine`], in events per second.
    pub fn engine_events_per_s(&self) -> f64 {
        median(self.engine.iter().map(|time| self.events as f64 / time.as_secs_f64()))
    }

    /// Median throughput of the plain heap, in events per second.
    pub fn heap_events_per_s(&self) -> f64 {
        median(self.heap.iter().map(|time| self.events as f64 / time.as_secs_f64()))
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}
