//! The node that takes sessions over: reinstates them as fast as its own processors allow.

use std::collections::BTreeMap;

use backdoor_core::Nanos;
use backdoor_core::recovery::{SessionState, SessionToRecover, StateError};

use super::node::Node;
use super::recovery::{RecoveryOptions, is_intact};
use super::scenario::ScenarioError;
use crate::cpu::{Affinity, CpuModel, TaskId};
use crate::dist::Dist;
use crate::streams::Streams;

/// A session as it came out of the extraction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    pub(super) session: u64,
    /// When.
    pub(super) at: Nanos,
    /// Whether the state is what was committed last; or why there is none.
    pub(super) state: Result<bool, StateError>,
    pub(super) bytes: u64,
    pub(super) restored: Option<Nanos>,
    pub(super) served: Option<Nanos>,
}

pub(super) struct Target {
    cpu: CpuModel,
    /// Task to place in `received`.
    tasks: BTreeMap<TaskId, usize>,
    pub(super) received: Vec<Received>,
    reinstate_work: Nanos,
    reinstate_work_per_kib: Nanos,
    service_work: Dist,
    streams: Streams,
    called: Option<Nanos>,
}

impl Target {
    pub(super) fn new(options: &RecoveryOptions, service_work: Dist, streams: &Streams) -> Result<Self, ScenarioError> {
        let mut cpu = CpuModel::new(options.target_cpu)?;
        cpu.set_load(Nanos::ZERO, options.target_load);
        Ok(Target {
            cpu,
            tasks: BTreeMap::new(),
            received: Vec::new(),
            reinstate_work: options.reinstate_work,
            reinstate_work_per_kib: options.reinstate_work_per_kib,
            service_work,
            streams: *streams,
            called: None,
        })
    }

    /// Takes in what became of a session's extraction, and begins to reinstate it.
    pub(super) fn receive(
        &mut self,
        now: Nanos,
        node: &Node,
        session: &SessionToRecover,
        state: Result<SessionState<'_>, StateError>,
    ) {
        let bytes = state.as_ref().map_or(0, |state| state.committed.payload.len() as u64);
        let state = state.map(|state| is_intact(node, &state));
        let session = session.record.session;
        self.received.push(Received { session, at: now, state, bytes, restored: None, served: None });
        // A free task is never refused.
        if let (Ok(_), Ok(task)) = (state, self.cpu.add_task(Affinity::Free)) {
            self.tasks.insert(task, self.received.len() - 1);
            let work = self.reinstate_work + self.reinstate_work_per_kib * bytes / 1024;
            self.cpu.wake(now, task, work.max(Nanos(1)));
        }
    }

    /// Lets its processors catch up with `now`.
    pub(super) fn run(&mut self, now: Nanos) {
        self.cpu.advance(now);
        loop {
            let finished: Vec<_> = self.cpu.drain_finished().collect();
            if finished.is_empty() {
                return;
            }
            for done in finished {
                let Some(received) = self.tasks.get(&done.task).and_then(|at| self.received.get_mut(*at)) else {
                    continue;
                };
                if received.restored.is_some() {
                    received.served = Some(done.at);
                    continue;
                }
                received.restored = Some(done.at);
                let mut stream = self.streams.indexed("service after recovery", received.session);
                self.cpu.wake(now, done.task, self.service_work.sample(&mut stream).max(Nanos(1)));
            }
        }
    }

    /// When to [`run`](Self::run) next, if that was not said before.
    pub(super) fn next_call(&mut self, now: Nanos) -> Option<Nanos> {
        let next = if self.is_done() { None } else { self.cpu.next_change().map(|at| at.max(now)) };
        if next == self.called.filter(|at| *at > now) {
            return None;
        }
        self.called = next;
        next
    }

    /// Whether every session that came with a state has served.
    pub(super) fn is_done(&self) -> bool {
        self.received.iter().all(|received| received.state.is_err() || received.served.is_some())
    }
}
