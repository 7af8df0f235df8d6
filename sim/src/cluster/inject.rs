//! One breakdown, made to happen, and what is true of it.

use backdoor_core::Nanos;
use backdoor_core::detector::Detector;
use backdoor_core::progress_box::{FailureLevel, Slot};
use backdoor_transports::sim_nic::SimNode;

use super::disk::Health;
use super::link::Link;
use super::node::Node;
use super::scenario::{Scenario, ScenarioError};
use super::world::World;
use crate::faults::{Breakdown, Failure};

/// How much slower a slow disk is.
const SLOWER: u64 = 100;

/// Nodes that lose their connection in a partition: those behind the victim's path.
pub(super) const BEHIND_ONE_PATH: usize = 2;

/// The entities of a breakdown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hit {
    /// Those that fail, in slot order.
    pub(super) roots: Vec<Slot>,
    /// Those that are stuck in what fails, and may be taken for failures of their own.
    pub(super) stuck: Vec<Slot>,
}

/// Refuses a breakdown of what the workload does not have.
pub(super) fn check(scenario: &Scenario, breakdown: Breakdown) -> Result<(), ScenarioError> {
    use Breakdown as B;
    let work = &scenario.workload;
    let missing = match breakdown {
        B::Application if work.applications == 0 => "application",
        B::Session if work.total_sessions() == 0 => "session",
        B::First | B::Last | B::LastIdle | B::LastIdleCounted if work.processes() < 2 => "chain of processes",
        B::Middle if work.processes() < 3 => "chain with a middle",
        B::DiskHangs | B::DiskSlow | B::DiskErrors if work.disk.is_none() => "disk",
        _ => return Ok(()),
    };
    Err(ScenarioError::Lacks(missing))
}

impl Node {
    /// Whether a breakdown can strike as it is meant to.
    pub(super) fn is_ready_for(&self, breakdown: Breakdown) -> bool {
        let last = self.work.processes().wrapping_sub(1);
        match breakdown {
            Breakdown::LastIdle | Breakdown::LastIdleCounted => {
                self.chain.as_ref().is_some_and(|chain| chain.is_at_rest(last))
            }
            _ => true,
        }
    }

    /// Something of the node itself breaks down; `draw` says which, where there are several. Breakdowns of the channel
    /// are none of the node's.
    fn break_down(&mut self, breakdown: Breakdown, draw: u64, now: Nanos) -> Hit {
        use Breakdown as B;
        let pick = |count: usize| (draw % count.max(1) as u64) as usize;
        let (mut level, mut at_once, mut stuck) = (FailureLevel::Application, true, Vec::new());
        let last = self.work.processes().saturating_sub(1);
        let roots = match breakdown {
            B::System | B::Power | B::SystemAndCard => {
                level = FailureLevel::Os;
                self.cpu.freeze(now);
                self.slots.os().collect()
            }
            B::Processor => {
                level = FailureLevel::Os;
                let core = pick(self.slots.os().len() - 1);
                // One of this machine's.
                let _ = self.cpu.hang_core(now, core);
                let root = self.slots.os().start + core;
                stuck = self.slots_stuck();
                vec![root]
            }
            B::Application => {
                let index = pick(self.applications.len());
                self.applications[index].failed = true;
                self.apply_stops(index, now);
                vec![self.slots.application(index)]
            }
            B::Session => {
                level = FailureLevel::Session;
                let index = pick(self.sessions.len());
                self.sessions[index].stuck = true;
                at_once = self.sessions[index].pending > 0;
                self.apply_stops(index / self.work.sessions, now);
                vec![self.slots.session(index)]
            }
            B::First | B::Middle | B::Last | B::LastIdle | B::LastIdleCounted => {
                let index = match breakdown {
                    B::First => 0,
                    B::Middle => last / 2,
                    _ => last,
                };
                at_once = self.chain.as_ref().is_some_and(|chain| !chain.is_at_rest(index));
                self.stop_process(index, now);
                vec![self.slots.process(index)]
            }
            B::DiskHangs | B::DiskSlow | B::DiskErrors => {
                if let Some(disk) = &mut self.disk {
                    at_once = !disk.queue.is_empty();
                    disk.health = match breakdown {
                        B::DiskHangs => Health::Hung,
                        B::DiskSlow => Health::Slow(SLOWER),
                        _ => Health::Failing,
                    };
                }
                vec![self.slots.disk()]
            }
            B::Card | B::Link | B::Partition | B::OwnLink => return Hit::default(),
        };
        let slots = |list: Vec<usize>| -> Vec<Slot> { list.into_iter().map(|index| Slot(index as u32)).collect() };
        let hit = Hit { roots: slots(roots), stuck: slots(stuck) };
        self.failures.push(Failure {
            level,
            struck: now,
            effective: at_once.then_some(now),
            repaired: None,
            roots: hit.roots.clone(),
            affected: hit.roots.clone(),
        });
        hit
    }
}

impl<D: Detector> World<D> {
    /// Lets something break down at node 0, or on the way to it. `second` is the node's other card, if it has one.
    pub(super) fn break_down(&mut self, breakdown: Breakdown, draw: u64, second: Option<&SimNode>) -> Hit {
        use Breakdown as B;
        let now = self.now();
        // What has happened until now has happened before it.
        self.watches.iter_mut().for_each(|watch| watch.link.advance_to(now));
        let mut hit = Hit::default();
        self.act(0, |node, _| hit = node.break_down(breakdown, draw, now));
        let card = |index: usize| &self.nodes[index].memory.nic;
        match breakdown {
            B::Card | B::SystemAndCard => card(0).fail_nic(),
            B::Link => card(0).cut_link(),
            B::Partition => (0..BEHIND_ONE_PATH.min(self.nodes.len())).for_each(|index| card(index).cut_link()),
            B::Power => [card(0)].into_iter().chain(second).for_each(SimNode::power_off),
            B::OwnLink => {
                for index in 0..self.watches.len() {
                    if let Link::Cards(channel) = &mut self.watches[index].link {
                        channel.cut_own_link();
                    }
                    self.look_at_link(index);
                }
            }
            _ => {}
        }
        hit
    }
}
