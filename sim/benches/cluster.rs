//! Speed of the cluster model, and what a sweep over a hundred deadlines costs besides the run itself.
//!
//! `cargo bench -p backdoor-sim --bench cluster [ROUNDS]` prints the medians. It fails (exit status 1) if a simulated
//! node-minute takes longer than a second, or a sweep over 100 deadlines more than 1.5 times one deadline.

use std::process::ExitCode;

use backdoor_sim::metrics::cost::sweep_cost;

const REQUIRED_SPEED: f64 = 60.0;
const REQUIRED_RATIO: f64 = 1.5;

fn main() -> ExitCode {
    // Cargo passes `--bench`; only a number is ours.
    let rounds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(7usize).max(1);
    let cost = sweep_cost(rounds);
    let (speed, ratio) = (cost.simulated_per_wall_second(), cost.ratio());
    println!("one node, 1 application, 8 sessions, load 4, polled every 1 ms; medians of {rounds} rounds");
    println!("run            {:8.1} ms for {} simulated", cost.run_s * 1e3, cost.simulated);
    println!("events         {:8.2} million/s ({} events)", cost.events as f64 / cost.run_s / 1e6, cost.events);
    println!("speed          {speed:8.1} simulated s per wall s (required: {REQUIRED_SPEED})");
    println!("one deadline   {:8.3} ms", cost.one_s * 1e3);
    println!("100 deadlines  {:8.3} ms", cost.hundred_s * 1e3);
    println!("ratio          {ratio:8.3} (run and 100 deadlines to run and one; required: {REQUIRED_RATIO})");
    if speed >= REQUIRED_SPEED && ratio < REQUIRED_RATIO { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
