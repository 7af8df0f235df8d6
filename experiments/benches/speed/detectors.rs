//! What one observation costs each detector: to be told of a progress, and to be asked up to when it trusts.
//!
//! The heartbeats are sent every 10 ms, come 1 ms late on average (exponential), and 1 in 100 is lost. There are so many
//! before they repeat that a processor does not learn them by heart. Windows are full, and as long as their sources have
//! them. The baseline makes the same heartbeats and adds up their times.

use std::hint::black_box;

use backdoor_core::Nanos;
use backdoor_core::detector::{
    Bertier, BertierGains, DeadlineDetector, Detector, Duty, Heartbeat, NfdE, NfdS, NfdU, PhiExponential, PhiNormal,
    PullScore, Satzger, Schedule, Sfd, SilenceRecorder, TwoWindows,
};
use backdoor_sim::dist::Dist;
use backdoor_sim::streams::{StreamKey, Streams};
use rand::RngExt;

use crate::measure::{Table, compare};

/// Most nanoseconds of an observation: of the paper's detector, and of all others.
const DEADLINE_BOUND_NS: f64 = 5.0;
const BOUND_NS: f64 = 50.0;

const PERIOD: Nanos = Nanos::from_millis(10);
const MARGIN: Nanos = Nanos::from_millis(5);
const LONG: usize = 1000;

pub(crate) fn detectors(table: &mut Table) {
    let start = Heartbeat { number: 0, at: PERIOD };
    let Heartbeat { at, .. } = start;
    let sent = Schedule { period: PERIOD, number: 0, at };
    let beats = Beats::new();
    let mut bench = Bench { table, beats };
    bench.run("deadline", DEADLINE_BOUND_NS, DeadlineDetector::new(MARGIN, at));
    bench.run("duty", BOUND_NS, Duty::new(MARGIN, at));
    bench.run("SFD", BOUND_NS, Sfd::new(sent, MARGIN, PERIOD * 2, start));
    bench.run("NFD-S", BOUND_NS, NfdS::new(sent, MARGIN, start));
    bench.run("NFD-U", BOUND_NS, NfdU::new(sent, MARGIN, start));
    bench.run("NFD-E, window 32", BOUND_NS, NfdE::new(PERIOD, MARGIN, 32, start));
    bench.run("2W-FD, windows 1 and 1000", BOUND_NS, TwoWindows::new(PERIOD, MARGIN, (1, LONG), start));
    let gains = BertierGains::default();
    bench.run("Bertier, window 1000", BOUND_NS, Bertier::new(PERIOD, MARGIN, LONG, gains, start));
    let least = Nanos::from_micros(100);
    bench.run("φ, normal, window 1000", BOUND_NS, PhiNormal::new(8.0, LONG, least, PERIOD, at));
    bench.run("φ, exponential, window 1000", BOUND_NS, PhiExponential::new(8.0, LONG, PERIOD, at));
    bench.run("Satzger, window 1000, threshold 0.99", BOUND_NS, Satzger::new(0.99, LONG, 1.0, PERIOD, at));
    bench.run("Satzger, window 1000, threshold 0.5", BOUND_NS, Satzger::new(0.5, LONG, 2.0, PERIOD, at));
    bench.run("pull score", BOUND_NS, PullScore::new(PERIOD, at));
    bench.run("silence recorder", BOUND_NS, SilenceRecorder::new(PERIOD * 4, at));
}

struct Bench<'a> {
    table: &'a mut Table,
    beats: Beats,
}

impl Bench<'_> {
    fn run<D: Detector>(&mut self, name: &str, bound: f64, mut detector: D) {
        let mut beats = self.beats.clone();
        for _ in 0..3 * LONG {
            detector.progressed(beats.next());
        }
        let mut others = beats.clone();
        let mut sum = 0u64;
        let ratio = compare(
            4096,
            || {
                detector.progressed(beats.next());
                black_box(detector.fresh_until());
            },
            || {
                sum = sum.wrapping_add(others.next().at.0);
                black_box(sum);
            },
        );
        self.table.at_most_ns(&format!("observation by {name} / sum of times"), bound, &ratio);
    }
}

/// Steps of numbers, and the nanoseconds that they took, over and over.
#[derive(Clone)]
struct Beats {
    steps: Vec<(u32, u32)>,
    next: usize,
    last: Heartbeat,
}

impl Beats {
    fn new() -> Self {
        let streams = Streams::new(StreamKey { seed: 1, experiment: "bench", point: "detectors", replication: 0 });
        let mut rng = streams.stream("heartbeats");
        let lateness: Dist = "exp:1ms".parse().expect("a distribution");
        let start = Heartbeat { number: 0, at: PERIOD };
        let (mut number, mut last) = (0u64, start);
        let steps = (0..1 << 14)
            .map(|_| {
                number += 1 + u64::from(rng.random::<f64>() < 0.01);
                let at = (start.at + PERIOD * number + lateness.sample(&mut rng)).max(last.at + Nanos(1));
                let step = ((number - last.number) as u32, (at - last.at).0 as u32);
                last = Heartbeat { number, at };
                step
            })
            .collect();
        Beats { steps, next: 0, last: start }
    }

    #[inline]
    fn next(&mut self) -> Heartbeat {
        let (steps, nanos) = self.steps[self.next];
        self.next = (self.next + 1) % (1 << 14);
        self.last = Heartbeat { number: self.last.number + u64::from(steps), at: self.last.at + Nanos(nanos.into()) };
        self.last
    }
}
