//! Throughput of the event engine against a plain binary heap, on the load that the requirement is stated for.
//!
//! `cargo bench -p backdoor-sim --bench engine [ROUNDS]` prints both, and the median of the per-round ratios. It fails
//! (exit status 1) when the engine is less than twice as fast.

use std::process::ExitCode;

use backdoor_sim::engine::workload::{Workload, compare};

const REQUIRED_SPEEDUP: f64 = 2.0;

fn main() -> ExitCode {
    // Cargo passes `--bench`; only a number is ours.
    let rounds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(11usize).max(1);
    let workload = Workload::default();
    println!("{} nodes, {} events, {rounds} rounds in turns", workload.nodes, workload.events);
    let comparison = compare(&workload, rounds);
    for (round, (engine, heap)) in comparison.engine.iter().zip(&comparison.heap).enumerate() {
        let millis = |time: &std::time::Duration| time.as_secs_f64() * 1e3;
        println!("  round {round:2}: engine {:7.1} ms, heap {:7.1} ms", millis(engine), millis(heap));
    }
    println!("engine  {:6.2} million events/s (median)", comparison.engine_events_per_s() / 1e6);
    println!("heap    {:6.2} million events/s (median)", comparison.heap_events_per_s() / 1e6);
    let speedup = comparison.speedup();
    println!("ratio   {speedup:6.2} (median of rounds; required: {REQUIRED_SPEEDUP})");
    if speedup >= REQUIRED_SPEEDUP { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
