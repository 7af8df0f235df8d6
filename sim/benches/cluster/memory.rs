//! Memory of 10,000 nodes of 100 entities each, measured in a process of its own: the most that it ever had resident.
//!
//! Nodes are simulated one after another. So what a run takes is one node, about a megabyte, and what is kept of the others:
//! nothing if each is judged and dropped ([`record_by_node`]), or their records ([`record`]). A record grows with the
//! length of the run by 16 bytes a sample of a node, and 40 for each silence above its floor; nothing else does.

use std::process::{Command, ExitCode};

use backdoor_core::Nanos;
use backdoor_sim::cluster::{Deadlines, Scenario, record, record_by_node};
use backdoor_sim::metrics::detection;
use backdoor_sim::streams::{StreamKey, Streams};

const CHILD: &str = "BACKDOOR_BENCH_MEMORY";
const NODES: usize = 10_000;
const ENTITIES: usize = 100;

/// What a child process does: nodes, simulated seconds, whether their records are kept together.
type Case = (usize, u64, bool);

pub(crate) fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

pub(crate) fn child() -> ExitCode {
    let case = std::env::var(CHILD).ok();
    let numbers: Vec<u64> = case.iter().flat_map(|case| case.split(' ')).filter_map(|n| n.parse().ok()).collect();
    let [nodes, seconds, together] = numbers[..] else { return ExitCode::FAILURE };
    simulate((nodes as usize, seconds, together != 0));
    println!("{}", peak_kib());
    ExitCode::SUCCESS
}

fn simulate((nodes, seconds, together): Case) {
    let mut scenario = Scenario { nodes, duration: Nanos::from_secs(seconds), load: 1, ..Scenario::default() };
    scenario.warm_up = Nanos::from_millis(100);
    scenario.workload.sessions = ENTITIES - (scenario.cpu.cores + 1) - scenario.workload.applications;
    scenario.workload.request_interval = "exp:1s".parse().expect("a distribution");
    scenario.workload.state_bytes = Some(1024);
    assert_eq!(scenario.entities_per_node(), ENTITIES);
    let streams = Streams::new(StreamKey { seed: 1, experiment: "bench", point: "memory", replication: 0 });
    let (floor, deadlines) = (Nanos::from_millis(20), [Deadlines::all(Nanos::from_millis(50))]);
    if together {
        let run = record(&scenario, &streams, floor).expect("the scenario is possible");
        assert_eq!(run.nodes.len(), nodes);
        std::hint::black_box(run);
    } else {
        for run in record_by_node(&scenario, &streams, floor) {
            std::hint::black_box(detection(&run.expect("the scenario is possible"), &deadlines));
        }
    }
}

/// The process's largest resident set so far, as Linux counts it; 0 elsewhere.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

fn measure(case: Case) -> Option<u64> {
    let (nodes, seconds, together) = case;
    let text = format!("{nodes} {seconds} {}", u8::from(together));
    let output = Command::new(std::env::current_exe().ok()?).env(CHILD, text).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok().filter(|kib| *kib > 0)
}

/// Measures and prints; whether memory is as bounded as it should be.
pub(crate) fn print() -> bool {
    let cases: [(&str, Case, f64); 4] = [
        ("1 node, 1 s", (1, 1, false), 16.0),
        ("10,000 nodes, 1 s, node by node", (NODES, 1, false), 16.0),
        ("1,000 nodes, 10 s, node by node", (NODES / 10, 10, false), 16.0),
        ("10,000 nodes, 1 s, records together", (NODES, 1, true), 640.0),
    ];
    let mut kept = true;
    println!("memory         peak resident set, nodes of {ENTITIES} entities");
    for (what, case, most_mib) in cases {
        let Some(kib) = measure(case) else {
            println!("               {what:<36} could not be measured");
            continue;
        };
        let mib = kib as f64 / 1024.0;
        let bytes = kib as f64 * 1024.0 / (case.0 * ENTITIES) as f64;
        println!("               {what:<36} {mib:7.1} MiB, {bytes:7.0} bytes per entity (required: {most_mib} MiB)");
        kept &= mib <= most_mib;
    }
    kept
}
