//! What can go wrong with a node's processors, and be mended again.

use backdoor_core::Nanos;

use super::{Affinity, CpuError, CpuModel, State, TaskId};

impl CpuModel {
    /// Nothing runs any more, from now on: a kernel panic, or all cores spinning with interrupts off. Work that arrives
    /// is kept, as a NIC keeps what it has received.
    pub fn freeze(&mut self, now: Nanos) {
        self.advance(now);
        self.frozen = true;
        self.find_next();
    }

    /// Ends a freeze; everything continues where it was.
    pub fn thaw(&mut self, now: Nanos) {
        self.advance(now);
        self.frozen = false;
        self.dispatch();
    }

    /// Whether the machine is frozen.
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// One core hangs, as in a loop with interrupts off, while the others go on.
    ///
    /// The task that has the core is stuck on it, whatever its affinity: it is in its context that the core hangs. Tasks
    /// pinned to the core stall; free tasks that wait go to the other cores.
    ///
    /// # Errors
    /// There is no such core.
    pub fn hang_core(&mut self, now: Nanos, core: usize) -> Result<(), CpuError> {
        self.check_core(core)?;
        self.advance(now);
        self.cores[core].hung = true;
        self.find_next();
        Ok(())
    }

    /// A hung core goes on.
    ///
    /// # Errors
    /// There is no such core.
    pub fn resume_core(&mut self, now: Nanos, core: usize) -> Result<(), CpuError> {
        self.check_core(core)?;
        self.advance(now);
        if !std::mem::take(&mut self.cores[core].hung) {
            return Ok(());
        }
        // Signals that came meanwhile take effect now.
        if let Some(id) = self.cores[core].running
            && (self.task(id).stopped || self.task(id).remaining == Nanos::ZERO)
        {
            self.take_off(id);
        }
        self.dispatch();
        Ok(())
    }

    /// Whether a core hangs; false for one that does not exist.
    pub fn is_hung(&self, core: usize) -> bool {
        self.cores.get(core).is_some_and(|core| core.hung)
    }

    /// Stops a task (SIGSTOP): it runs no more, and keeps its work.
    pub fn stop(&mut self, now: Nanos, task: TaskId) {
        self.advance(now);
        self.take_off(task);
        self.task_mut(task).stopped = true;
        self.dispatch();
    }

    /// Continues a stopped task (SIGCONT), as if it were woken.
    pub fn resume(&mut self, now: Nanos, task: TaskId) {
        self.advance(now);
        let was_stopped = std::mem::take(&mut self.task_mut(task).stopped);
        if was_stopped && self.task(task).remaining > Nanos::ZERO {
            self.enqueue_woken(task);
            self.dispatch();
        }
    }

    /// Whether a task is stopped.
    pub fn is_stopped(&self, task: TaskId) -> bool {
        self.task(task).stopped
    }

    /// Whether a task has work and can't do any of it until something is mended.
    pub fn is_stuck(&self, task: TaskId) -> bool {
        let state = self.task(task);
        let core_hangs = match (state.state, state.affinity) {
            (State::Running(core), _) | (_, Affinity::Pinned(core)) => self.is_hung(core),
            (_, Affinity::Free) => self.cores.iter().all(|core| core.hung),
        };
        state.remaining > Nanos::ZERO && (self.frozen || state.stopped || core_hangs)
    }
}
