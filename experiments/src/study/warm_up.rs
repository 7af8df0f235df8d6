//! Whether the warm-up of the shipped configs is long enough.
//!
//! What is measured begins at a fixed time, the scenario's `warm_up`. It must be no shorter than what MSER-5 would leave out
//! of the series that know most about how full the run queue is: how long a woken process waits for a core, polled every
//! millisecond, and how long requests take. Both begin with an idle node.

use super::Study;
use crate::stats::mser5;
use backdoor_core::Nanos;
use backdoor_core::monitor::MonitorConfig;
use backdoor_sim::cluster::mode::Mode;
use backdoor_sim::cluster::{Overhead, Scenario, overhead};
use backdoor_sim::faults::Arrivals;
use backdoor_sim::streams::{StreamKey, Streams};
use rayon::prelude::*;

/// Replications whose mean is looked at, observation by observation.
const REPLICATIONS: u64 = 8;

/// Fewer observations say nothing: a node with few sessions has few requests. Nor do those of which not one in a hundred
/// waited: there is no queue on an idle node.
const LEAST: usize = 250;

/// A healthy node that is watched from its start, for three times as long as it would be warmed up.
fn from_the_start(scenario: &Scenario) -> Scenario {
    let mut scenario = scenario.clone();
    scenario.faults.arrivals = Arrivals::Never;
    scenario.monitor_shares_cpu = false;
    scenario.mode = Mode::Pull;
    scenario.monitor = MonitorConfig::polling_every(Nanos::from_millis(1));
    scenario.duration = scenario.warm_up * 3;
    scenario.warm_up = Nanos::ZERO;
    scenario
}

/// How long MSER-5 would leave out, in seconds; the whole time if it can't tell, nothing of a series too short to ask.
fn left_out_s(runs: &[Overhead], series: fn(&Overhead) -> &[Nanos], duration_s: f64) -> f64 {
    let length = runs.iter().map(|run| series(run).len()).min().unwrap_or(0);
    let waited = runs.iter().flat_map(|run| &series(run)[..length]).filter(|time| **time > Nanos::ZERO).count();
    if length < LEAST || waited < runs.len() * length / 100 {
        return 0.0;
    }
    let mean = |index: usize| runs.iter().map(|run| series(run)[index].as_secs_f64()).sum::<f64>() / runs.len() as f64;
    let means: Vec<f64> = (0..length).map(mean).collect();
    mser5(&means).map_or(duration_s, |left_out| left_out as f64 * duration_s / length as f64)
}

#[test]
fn the_shipped_configs_warm_up_for_as_long_as_mser5_asks() {
    let configs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let mut scenarios: Vec<(String, Scenario, Nanos)> = Vec::new();
    for name in ["false-positives", "accuracy", "detectors", "modes", "recovery", "remedies", "live"] {
        let study = Study::load(configs.join(format!("{name}.toml"))).unwrap();
        for scenario in study.scenarios() {
            let watched = from_the_start(&scenario);
            // State that is read elsewhere changes no wait worth another run.
            let alike = |other: &Scenario| {
                let mut other = other.clone();
                other.workload.state_bytes = watched.workload.state_bytes;
                (other.load, other.workload) == (watched.load, watched.workload.clone())
                    && other.duration == watched.duration
            };
            if !scenarios.iter().any(|(_, other, _)| alike(other)) {
                scenarios.push((name.into(), watched, scenario.warm_up));
            }
        }
    }
    assert!(scenarios.len() >= 8, "{}", scenarios.len());
    scenarios.par_iter().for_each(|(name, scenario, warm_up)| {
        let point = format!("load={} sessions={}", scenario.load, scenario.workload.sessions);
        let run = |replication| {
            let key = StreamKey { seed: 1, experiment: "warm-up", point: &point, replication };
            overhead(scenario, &Streams::new(key)).unwrap()
        };
        let runs: Vec<Overhead> = (0..REPLICATIONS).into_par_iter().map(run).collect();
        let duration_s = scenario.duration.as_secs_f64();
        for (what, series) in
            [("waits for a core", (|run| &run.waits) as fn(&Overhead) -> &[Nanos]), ("requests", |run| &run.served_in)]
        {
            let left_out = left_out_s(&runs, series, duration_s);
            assert!(
                left_out <= warm_up.as_secs_f64(),
                "{name}, {point}: MSER-5 leaves out {left_out} s of the {what}, more than the warm-up of {warm_up}"
            );
        }
    });
}
