//! A node's part in being watched by messages: a process that waits for its turn, reads the words, and sends them.

use std::collections::VecDeque;

use backdoor_core::Nanos;
use backdoor_core::words::copy_of;

use super::memory::NodeMemory;
use super::mode::Mode;
use super::node::{Node, at_least};
use super::scenario::Scenario;
use super::{Agenda, What};
use crate::cpu::TaskId;

/// The agent of a node.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) task: TaskId,
    /// CPU time of a message.
    work: Nanos,
    /// Sends by itself, so often.
    pub(super) beat: Option<Nanos>,
    /// When the work that it has was given to it.
    woken: Option<Nanos>,
    /// What it has just sent.
    pub(super) sends: Option<Vec<u64>>,
    /// When it was woken for each of its turns, and how long it waited for it.
    pub(super) waits: Vec<(Nanos, Nanos)>,
}

impl Agent {
    pub(super) fn new(task: TaskId, scenario: &Scenario, memory: &NodeMemory) -> Self {
        let work = at_least(scenario.mode.work(&scenario.agent, memory.polled().len() as u64));
        let beat = (scenario.mode == Mode::Push).then_some(scenario.monitor.poll_interval);
        Agent { task, work, beat, woken: None, sends: None, waits: Vec::new() }
    }
}

impl Node {
    /// A request, or the timer, wakes the agent; nothing changes if it has work already.
    pub(super) fn wake_agent(&mut self, now: Nanos) {
        if let Some(agent) = &mut self.agent
            && agent.woken.is_none()
        {
            agent.woken = Some(now);
            self.cpu.wake(now, agent.task, agent.work);
        }
    }

    /// The agent's timer.
    pub(super) fn beat(&mut self, agenda: &mut Agenda<'_>) {
        if let Some(interval) = self.agent.as_ref().and_then(|agent| agent.beat) {
            agenda.after(interval, What::Beat);
            self.wake_agent(agenda.now());
        }
    }

    /// The agent has had its turn: it sends what the words are now.
    pub(super) fn agent_has_worked(&mut self, now: Nanos) {
        let Some(agent) = &mut self.agent else { return };
        agent.sends = Some(copy_of(self.memory.polled()));
        if let Some(woken) = agent.woken.take()
            && self.served_in.is_some()
        {
            agent.waits.push((woken, now - woken - agent.work));
        }
    }

    /// From now on, notes how long requests and the agent wait.
    pub(super) fn measure(&mut self) {
        self.served_in = Some(Waits { begun: vec![VecDeque::new(); self.sessions.len()], times: Vec::new() });
    }
}

/// How long each of many things took, that come in line.
#[derive(Debug)]
pub(super) struct Waits {
    /// By line, when those that have not ended began.
    begun: Vec<VecDeque<Nanos>>,
    pub(super) times: Vec<(Nanos, Nanos)>,
}

impl Waits {
    pub(super) fn begin(&mut self, line: usize, now: Nanos) {
        self.begun[line].push_back(now);
    }

    /// The first of the line has ended; one that began before measuring did is not measured.
    pub(super) fn end(&mut self, line: usize, now: Nanos) {
        if let Some(begun) = self.begun[line].pop_front() {
            self.times.push((begun, now - begun));
        }
    }
}
