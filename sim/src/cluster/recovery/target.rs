//! The node that takes sessions over: work for its run queue.

use std::collections::BTreeMap;

use backdoor_core::Nanos;

use crate::cpu::{Affinity, CpuError, CpuModel, CpuParams, TaskId};

/// Its processors, and a task for each of what it is given to do.
pub(super) struct Target {
    cpu: CpuModel,
    tasks: BTreeMap<usize, TaskId>,
    /// By task, whose it is.
    owners: BTreeMap<TaskId, usize>,
}

impl Target {
    pub(super) fn new(params: CpuParams, load: usize) -> Result<Self, CpuError> {
        let mut cpu = CpuModel::new(params)?;
        cpu.set_load(Nanos::ZERO, load);
        Ok(Target { cpu, tasks: BTreeMap::new(), owners: BTreeMap::new() })
    }

    /// Gives `owner`'s task `work` to do.
    pub(super) fn work(&mut self, now: Nanos, owner: usize, work: Nanos) {
        let task = match self.tasks.get(&owner) {
            Some(task) => *task,
            None => {
                // A free task is never refused.
                let Ok(task) = self.cpu.add_task(Affinity::Free) else { return };
                self.tasks.insert(owner, task);
                self.owners.insert(task, owner);
                task
            }
        };
        self.cpu.wake(now, task, work.max(Nanos(1)));
    }

    /// Whose work is done by `now`, and when it was; to be called until there is nobody.
    pub(super) fn next_done(&mut self, now: Nanos) -> Option<(usize, Nanos)> {
        self.cpu.advance(now);
        while let Some(done) = self.cpu.next_finished() {
            if let Some(owner) = self.owners.get(&done.task) {
                return Some((*owner, done.at));
            }
        }
        None
    }

    /// When somebody's work may be done.
    pub(super) fn next_event(&self) -> Option<Nanos> {
        let busy = self.tasks.values().any(|task| self.cpu.remaining(*task) > Nanos::ZERO);
        if busy { self.cpu.next_change() } else { None }
    }
}
