//! What watching costs: processor time of the node, time of its clients, and traffic.

use backdoor_core::Nanos;
use backdoor_core::monitor::Monitor;

use super::mode::Traffic;
use super::scenario::{Scenario, ScenarioError};
use super::world::World;
use crate::streams::Streams;

/// What watching a run's nodes cost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overhead {
    /// CPU time of the node's agent, or of a monitor on the node.
    pub agent_cpu: Nanos,
    /// CPU time that there was: all cores of all nodes.
    pub all_cpu: Nanos,
    /// Time of all nodes.
    pub time: Nanos,
    /// Messages, without the reports of a watchdog.
    pub traffic: Traffic,
    /// Time from arrival to answer of each request that came after the warm-up and was answered before the end, in order
    /// of answers, node by node. By common random numbers, the same requests in all modes.
    pub served_in: Vec<Nanos>,
    /// Time that the agent waited for a core, at each of its turns; empty in modes without an agent.
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
    while world.next().is_some() {}
    let mut sum = Overhead::default();
    for (node, watch) in world.nodes.iter_mut().zip(&mut world.watches) {
        node.cpu.advance(scenario.duration);
        for task in node.agent.iter().map(|agent| agent.task).chain(node.monitor) {
            sum.agent_cpu += node.cpu.cpu_time(task);
        }
        sum.all_cpu += scenario.duration * scenario.cpu.cores as u64;
        sum.time += scenario.duration;
        sum.traffic = sum.traffic.and(watch.link.traffic());
        let served = node.served_in.iter().flat_map(|waits| &waits.times);
        sum.served_in.extend(served.filter(|(came, _)| *came >= scenario.warm_up).map(|(_, took)| *took));
        sum.waits.extend(node.agent.iter().flat_map(|agent| &agent.waits));
    }
    Ok(sum)
}
