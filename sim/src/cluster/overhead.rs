//! What watching costs: processor time of the node, time of its clients, and traffic.

use backdoor_core::Nanos;
use backdoor_core::detector::Detector;
use backdoor_core::monitor::Monitor;

use super::backup::BackupState;
use super::mode::Traffic;
use super::scenario::{Scenario, ScenarioError};
use super::world::{Happening, World};
use crate::streams::Streams;

/// What watching a run's nodes cost, from the end of the warm-up to the end of the run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overhead {
    /// CPU time of the node's agent, or of a monitor on the node.
    pub agent_cpu: Nanos,
    /// CPU time of the sessions' handlers.
    pub session_cpu: Nanos,
    /// CPU time that backups spent on updates, on nodes of their own.
    pub backup_cpu: Nanos,
    /// CPU time that there was: all cores of all nodes.
    pub all_cpu: Nanos,
    /// Time of all nodes.
    pub time: Nanos,
    /// Messages, without the reports of a watchdog.
    pub traffic: Traffic,
    /// Time from arrival to answer of each request that came after the warm-up and was answered before the end, in order
    /// of answers, node by node. By common random numbers, the same requests in all modes.
    pub served_in: Vec<Nanos>,
    /// Time that the agent waited for a core, at each of its turns for which it was woken after the warm-up; empty in modes
    /// without an agent.
    pub waits: Vec<Nanos>,
}

impl Overhead {
    /// Share of the node's processors that watching it takes.
    pub fn cpu_share(&self) -> f64 {
        self.agent_cpu.as_secs_f64() / self.all_cpu.as_secs_f64()
    }
}

/// Runs `scenario` and measures what watching costs. To see what it costs the clients, compare with the same run in
/// [`Mode::Read`](super::mode::Mode::Read), which takes no time of the node's processors; without faults, or their outages
/// are all that is seen.
///
/// # Errors
/// The scenario is [impossible](Scenario::check).
pub fn overhead(scenario: &Scenario, streams: &Streams) -> Result<Overhead, ScenarioError> {
    let config = scenario.monitor;
    let mut world = World::new(scenario, streams, |hook_table| Monitor::by_deadline(config, hook_table))?;
    // From the start on: a session's line has to be known whole. What came early is left out below.
    world.nodes.iter_mut().for_each(super::node::Node::measure);
    world.call_driver(scenario.warm_up, 0);
    let mut before = Overhead::default();
    while let Some(happening) = world.next() {
        if matches!(happening, Happening::Driver(_)) {
            before = spent(&mut world, scenario.warm_up, scenario.cpu.cores);
        }
    }
    let mut sum = spent(&mut world, scenario.duration, scenario.cpu.cores);
    sum.agent_cpu = sum.agent_cpu - before.agent_cpu;
    sum.session_cpu = sum.session_cpu - before.session_cpu;
    sum.backup_cpu = sum.backup_cpu - before.backup_cpu;
    sum.all_cpu = sum.all_cpu - before.all_cpu;
    sum.time = sum.time - before.time;
    sum.traffic = sum.traffic.less(before.traffic);
    for node in &world.nodes {
        let served = node.served_in.iter().flat_map(|waits| &waits.times);
        sum.served_in.extend(served.filter(|(came, _)| *came >= scenario.warm_up).map(|(_, took)| *took));
        let waits = node.agent.iter().flat_map(|agent| &agent.waits);
        sum.waits.extend(waits.filter(|(woken, _)| *woken >= scenario.warm_up).map(|(_, wait)| *wait));
    }
    Ok(sum)
}

/// What was spent from the start until now.
fn spent<D: Detector>(world: &mut World<D>, now: Nanos, cores: usize) -> Overhead {
    let mut sum = Overhead::default();
    for (node, watch) in world.nodes.iter_mut().zip(&mut world.watches) {
        // A copy, for who looks may not change when things happen.
        let mut cpu = node.cpu.clone();
        cpu.advance(now);
        for task in node.agent.iter().map(|agent| agent.task).chain(node.monitor) {
            sum.agent_cpu += cpu.cpu_time(task);
        }
        for session in &node.sessions {
            sum.session_cpu += cpu.cpu_time(session.task);
        }
        sum.backup_cpu += node.backup.as_ref().map_or(Nanos::ZERO, BackupState::cpu_time);
        sum.all_cpu += now * cores as u64;
        sum.time += now;
        sum.traffic = sum.traffic.and(watch.link.traffic());
    }
    sum
}
