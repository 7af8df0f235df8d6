//! What a sweep over deadlines costs: the measurement behind `cargo bench --bench cluster`.

use std::time::Instant;

use backdoor_core::Nanos;

use super::detection;
use crate::cluster::{Deadlines, Scenario, record};
use crate::dist::Dist;
use crate::faults::Arrivals;
use crate::streams::{StreamKey, Streams};

/// Wall-clock times, medians of several rounds.
#[derive(Clone, Copy, Debug)]
pub struct SweepCost {
    /// The simulation itself, in seconds.
    pub run_s: f64,
    /// Judging one deadline on its record, in seconds.
    pub one_s: f64,
    /// Judging a hundred, in seconds.
    pub hundred_s: f64,
    /// Simulated node time.
    pub simulated: Nanos,
    /// Simulated events.
    pub events: u64,
}

impl SweepCost {
    /// Simulated node time per wall-clock time.
    pub fn simulated_per_wall_second(&self) -> f64 {
        self.simulated.as_secs_f64() / self.run_s
    }
    /// Run and a hundred deadlines, to run and one.
    pub fn ratio(&self) -> f64 {
        (self.run_s + self.hundred_s) / (self.run_s + self.one_s)
    }
}

/// Measures a simulated minute of one node (1 application, 8 sessions, load 4, a failure every two seconds or so,
/// polled every millisecond), and deadlines from 5 ms to 500 ms.
pub fn sweep_cost(rounds: usize) -> SweepCost {
    let mut scenario = Scenario { load: 4, ..Scenario::default() };
    scenario.faults.arrivals = Arrivals::OneAtATime { gap: Dist::constant(Nanos::from_secs(1)) };
    let deadlines: Vec<Deadlines> = (1..=100).map(|step| Deadlines::all(Nanos::from_millis(5) * step)).collect();
    let streams = Streams::new(StreamKey { seed: 1, experiment: "bench", point: "", replication: 0 });
    let (mut run_s, mut one_s, mut hundred_s, mut events) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for _ in 0..rounds.max(1) {
        let start = Instant::now();
        let run = record(&scenario, &streams, Nanos::from_millis(5)).expect("the scenario is possible");
        run_s.push(start.elapsed().as_secs_f64());
        events = run.events;
        let time = |deadlines: &[Deadlines], into: &mut Vec<f64>| {
            let start = Instant::now();
            assert_eq!(std::hint::black_box(detection(&run, deadlines)).len(), deadlines.len());
            into.push(start.elapsed().as_secs_f64());
        };
        time(&deadlines[..1], &mut one_s);
        time(&deadlines, &mut hundred_s);
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (run_s, one_s, hundred_s) = (median(run_s), median(one_s), median(hundred_s));
    SweepCost { run_s, one_s, hundred_s, simulated: scenario.duration, events }
}
