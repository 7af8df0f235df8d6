//! A node's processors: who runs, who waits, what is stuck.
//!
//! Whatever a node's own CPU has to do for its monitoring (answer a request, send a heartbeat, advance a counter) goes
//! through this run queue, so that its delay under load, and its silence when the machine hangs, come out of the model.
//! A remote read does not come here, and that is the point of the comparison.
//!
//! # What is modelled
//! Linux's EEVDF scheduler with `RUN_TO_PARITY` (on by default; kernel/sched/features.h: the task that was chosen runs,
//! undisturbed by wake-ups, until it has used its slice), tasks of equal weight, to this approximation:
//!
//! * A woken task gets an idle core at once. If there is none it waits; a wake-up preempts nobody.
//! * A running task keeps its core until its work is done or, if somebody waits for that core, until its slice is used
//!   up. Slices are counted from when the task got the core, also while nobody waits, so that a task that is woken at
//!   any time finds the rest of a slice before it, on average half of one.
//! * Waiting tasks that have not used up a slice ("sleepers") go first, in order of waking; then those that have, in
//!   order of when they did. So always-busy tasks take turns and get equal shares.
//! * A task takes the used part of its slice along when it sleeps, less the time it slept. A task that sleeps little is
//!   therefore no sleeper for long, and can't keep the busy ones from their share. (EEVDF has the same end in view when
//!   it keeps the lag of a sleeping task and lets it decay: Documentation/scheduler/sched-eevdf.rst.)
//!
//! # What is not
//! One queue serves all cores, as if load balancing were perfect and free. EEVDF's eligibility and virtual deadlines are
//! reduced to the two queues: under heavy load a real woken task may wait for one or two others as well. No nice levels,
//! no real-time classes, no custom slices (`PREEMPT_SHORT`), no cgroups, no cost of a switch or of cold caches; add
//! such costs to the work.
//!
//! # How it is driven
//! No clock in here: the caller says what time it is, and asks when the model next changes by itself.
//!
//! ```
//! use backdoor_core::Nanos;
//! use backdoor_sim::cpu::{Affinity, CpuModel, CpuParams, Finished};
//!
//! let mut cpu = CpuModel::new(CpuParams { cores: 1, slice: Nanos::from_millis(2) })?;
//! let heartbeat = cpu.add_task(Affinity::Free)?;
//! cpu.set_load(Nanos::ZERO, 1); // an always-busy task has the core
//! cpu.wake(Nanos::from_micros(500), heartbeat, Nanos::from_micros(10));
//! // The busy task's slice ends, then the heartbeat's work does.
//! while let Some(at) = cpu.next_change() {
//!     cpu.advance(at);
//!     if let Some(finished) = cpu.drain_finished().next() {
//!         assert_eq!(finished, Finished { task: heartbeat, at: Nanos::from_micros(2_010) });
//!         break;
//!     }
//! }
//! # Ok::<(), backdoor_sim::cpu::CpuError>(())
//! ```
//!
//! After every call that changes something, the caller compares [`CpuModel::next_change`] with the event it has scheduled
//! (see [`EventId`](crate::engine::EventId)). An event is due when a task finishes, and when a slice ends for which
//! somebody waits: a machine that is idle, or busy with no more tasks than cores, has no events.

mod faults;
mod params;

use std::collections::VecDeque;

use backdoor_core::Nanos;

pub use params::{CpuError, CpuParams};

/// A task of one [`CpuModel`]. Handing it to another model is a mistake, and panics if that one has fewer tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(u32);

/// Where a task may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// On any core.
    Free,
    /// On this core only, numbered from 0.
    Pinned(usize),
}

/// A task has done all the work it was woken with, and sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The task.
    pub task: TaskId,
    /// When.
    pub at: Nanos,
}

/// Work without end: a task woken with it is always busy.
pub const ENDLESS: Nanos = Nanos::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No work, or stopped.
    Asleep,
    Waiting,
    Running(usize),
}

#[derive(Clone, Debug)]
struct Task {
    affinity: Affinity,
    state: State,
    /// Stopped by a signal; may still be `Running` on a hung core.
    stopped: bool,
    remaining: Nanos,
    /// Used part of the slice.
    used: Nanos,
    asleep_since: Nanos,
    cpu_time: Nanos,
}

#[derive(Clone, Debug)]
struct Core {
    running: Option<TaskId>,
    hung: bool,
    /// Whom it ran last, to tell a switch from a continuation.
    last: Option<TaskId>,
    /// Number of waiting tasks that are pinned to it.
    pinned_waiting: usize,
}

/// The cores and the run queue of one node; see the [module](self).
#[derive(Clone, Debug)]
pub struct CpuModel {
    slice: Nanos,
    now: Nanos,
    /// When the model next changes by itself; [`Nanos::MAX`]: never. Moves only when somebody starts or stops to run or
    /// to wait, because running tasks use up their slices and their work as time passes.
    next: Nanos,
    frozen: bool,
    tasks: Vec<Task>,
    cores: Vec<Core>,
    /// Waiting tasks that have not used up a slice.
    sleepers: VecDeque<TaskId>,
    /// Waiting tasks that have.
    spent: VecDeque<TaskId>,
    free_waiting: usize,
    load: Vec<TaskId>,
    finished: VecDeque<Finished>,
    switches: u64,
}

impl CpuModel {
    /// Idle cores at time zero.
    ///
    /// # Errors
    /// The parameters are [impossible](CpuParams::check).
    pub fn new(params: CpuParams) -> Result<Self, CpuError> {
        params.check()?;
        Ok(CpuModel {
            slice: params.slice,
            now: Nanos::ZERO,
            next: Nanos::MAX,
            frozen: false,
            tasks: Vec::new(),
            cores: vec![Core { running: None, hung: false, last: None, pinned_waiting: 0 }; params.cores],
            sleepers: VecDeque::new(),
            spent: VecDeque::new(),
            free_waiting: 0,
            load: Vec::new(),
            finished: VecDeque::new(),
            switches: 0,
        })
    }

    /// Adds a task, asleep.
    ///
    /// # Errors
    /// It is to be pinned to a core that does not exist.
    pub fn add_task(&mut self, affinity: Affinity) -> Result<TaskId, CpuError> {
        if let Affinity::Pinned(core) = affinity {
            self.check_core(core)?;
        }
        let id = TaskId(self.tasks.len() as u32);
        self.tasks.push(Task {
            affinity,
            state: State::Asleep,
            stopped: false,
            remaining: Nanos::ZERO,
            used: Nanos::ZERO,
            asleep_since: Nanos::ZERO,
            cpu_time: Nanos::ZERO,
        });
        Ok(id)
    }

    /// Gives a task `work` of CPU time to do, [`ENDLESS`] for a busy loop, and wakes it if it sleeps.
    ///
    /// Work given to a task that has some left is added to it, and reported as finished together. A stopped task, and
    /// any task of a frozen machine, keeps the work for later. No work at all still waits for a core before it is
    /// finished.
    pub fn wake(&mut self, now: Nanos, task: TaskId, work: Nanos) {
        self.advance(now);
        self.task_mut(task).remaining += work;
        self.enqueue_woken(task);
        self.dispatch();
    }

    /// Takes all work away from a task and puts it to sleep, as when a process is killed; what it had left.
    pub fn drop_work(&mut self, now: Nanos, task: TaskId) -> Nanos {
        self.advance(now);
        self.take_off(task);
        let left = std::mem::take(&mut self.task_mut(task).remaining);
        self.dispatch();
        left
    }

    /// Keeps exactly `busy_tasks` always-busy tasks, free to run anywhere, besides the tasks of the caller.
    pub fn set_load(&mut self, now: Nanos, busy_tasks: usize) {
        while self.load.len() < busy_tasks {
            // A free task is never refused.
            let Ok(task) = self.add_task(Affinity::Free) else { return };
            self.load.push(task);
        }
        for number in 0..self.load.len() {
            let task = self.load[number];
            let busy = self.task(task).remaining == ENDLESS;
            if number < busy_tasks && !busy {
                self.wake(now, task, ENDLESS);
            } else if number >= busy_tasks && busy {
                self.drop_work(now, task);
            }
        }
    }

    /// When the model next changes by itself: a task finishes, or a slice ends for which somebody waits. `None`: not
    /// before something is done to it.
    pub fn next_change(&self) -> Option<Nanos> {
        (self.next != Nanos::MAX).then_some(self.next)
    }

    /// Lets time pass until `now`, with all changes that are due until then, in order. A time that has passed already
    /// changes nothing.
    pub fn advance(&mut self, now: Nanos) {
        while self.next <= now && self.next != Nanos::MAX {
            self.run_until(self.next);
            self.settle();
        }
        if self.now < now {
            self.run_until(now);
        }
    }

    /// Takes out what has finished first, in order of time, then of core.
    pub fn next_finished(&mut self) -> Option<Finished> {
        self.finished.pop_front()
    }

    /// Takes out what has finished since the last call, in the same order.
    pub fn drain_finished(&mut self) -> impl Iterator<Item = Finished> {
        self.finished.drain(..)
    }

    /// CPU time that a task has had, until the last call with a time.
    pub fn cpu_time(&self, task: TaskId) -> Nanos {
        self.task(task).cpu_time
    }

    /// Work that a task has left.
    pub fn remaining(&self, task: TaskId) -> Nanos {
        self.task(task).remaining
    }

    /// Whether a task has a core, be it a hung one.
    pub fn is_running(&self, task: TaskId) -> bool {
        matches!(self.task(task).state, State::Running(_))
    }

    /// Number of tasks that run or wait: Linux's `procs_running`.
    pub fn runnable(&self) -> usize {
        let running = self.cores.iter().filter(|core| core.running.is_some()).count();
        running + self.sleepers.len() + self.spent.len()
    }

    /// Number of cores that have nobody to run and could.
    pub fn idle_cores(&self) -> usize {
        self.cores.iter().filter(|core| core.running.is_none() && !core.hung).count()
    }

    /// Number of times a core went over to another task: Linux's `ctxt`, without the switches to the idle task.
    pub fn context_switches(&self) -> u64 {
        self.switches
    }

    fn task(&self, task: TaskId) -> &Task {
        &self.tasks[task.0 as usize]
    }

    fn task_mut(&mut self, task: TaskId) -> &mut Task {
        &mut self.tasks[task.0 as usize]
    }

    fn check_core(&self, core: usize) -> Result<(), CpuError> {
        let cores = self.cores.len();
        if core < cores { Ok(()) } else { Err(CpuError::NoSuchCore { core, cores }) }
    }

    fn somebody_waits_for(&self, core: usize) -> bool {
        self.free_waiting + self.cores[core].pinned_waiting > 0
    }

    /// Gives the running tasks the time until `now`, in which nothing may be due.
    fn run_until(&mut self, now: Nanos) {
        let elapsed = now - self.now;
        if elapsed == Nanos::ZERO {
            return;
        }
        self.now = now;
        if self.frozen {
            return;
        }
        for index in 0..self.cores.len() {
            let waited_for = self.somebody_waits_for(index);
            let core = &self.cores[index];
            let Some(id) = core.running.filter(|_| !core.hung) else { continue };
            let task = &mut self.tasks[id.0 as usize];
            if task.remaining != ENDLESS {
                task.remaining = task.remaining - elapsed;
            }
            task.cpu_time += elapsed;
            task.used += elapsed;
            // Nobody waited: the task went on into further slices.
            if !waited_for && task.used >= self.slice {
                task.used = Nanos(task.used.0 % self.slice.0);
            }
        }
    }

    /// Does what is due now: takes off their cores who has finished or used up a slice, and fills the cores again.
    fn settle(&mut self) {
        let (now, slice) = (self.now, self.slice);
        for index in 0..self.cores.len() {
            let core = &self.cores[index];
            let Some(id) = core.running.filter(|_| !core.hung) else { continue };
            let task = self.task_mut(id);
            if task.remaining == Nanos::ZERO {
                task.state = State::Asleep;
                task.asleep_since = now;
                self.cores[index].running = None;
                self.finished.push_back(Finished { task: id, at: now });
            } else if task.used >= slice && self.somebody_waits_for(index) {
                self.cores[index].running = None;
                self.enqueue_spent(id);
            }
        }
        self.dispatch();
    }

    /// Lets a task that sleeps, and may run, wait for a core; its place depends on how it used its last slice.
    fn enqueue_woken(&mut self, id: TaskId) {
        let (now, slice) = (self.now, self.slice);
        let task = self.task_mut(id);
        if task.state != State::Asleep || task.stopped {
            return;
        }
        task.used = task.used - (now - task.asleep_since);
        if task.used >= slice {
            return self.enqueue_spent(id);
        }
        task.state = State::Waiting;
        self.sleepers.push_back(id);
        self.count_waiting(id, 1);
    }

    fn enqueue_spent(&mut self, id: TaskId) {
        let task = self.task_mut(id);
        task.used = Nanos::ZERO;
        task.state = State::Waiting;
        self.spent.push_back(id);
        self.count_waiting(id, 1);
    }

    fn count_waiting(&mut self, id: TaskId, change: isize) {
        let count = match self.task(id).affinity {
            Affinity::Free => &mut self.free_waiting,
            Affinity::Pinned(core) => &mut self.cores[core].pinned_waiting,
        };
        *count = count.saturating_add_signed(change);
    }

    /// After anything that lets tasks run, wait or stop.
    fn dispatch(&mut self) {
        if !self.frozen {
            self.fill_cores();
        }
        self.find_next();
    }

    /// Finds out when a task finishes, or a slice ends for which somebody waits.
    fn find_next(&mut self) {
        self.next = Nanos::MAX;
        if self.frozen {
            return;
        }
        for core in &self.cores {
            let Some(id) = core.running.filter(|_| !core.hung) else { continue };
            let task = &self.tasks[id.0 as usize];
            let waited_for = self.free_waiting + core.pinned_waiting > 0;
            let slice_left = if waited_for { self.slice - task.used } else { Nanos::MAX };
            self.next = self.next.min(self.now + slice_left.min(task.remaining));
        }
    }

    /// Gives every idle core the first waiting task that may run there.
    fn fill_cores(&mut self) {
        for index in 0..self.cores.len() {
            let core = &self.cores[index];
            if core.running.is_some() || core.hung || !self.somebody_waits_for(index) {
                continue;
            }
            let tasks = &self.tasks;
            let may_run = |id: &TaskId| match tasks[id.0 as usize].affinity {
                Affinity::Free => true,
                Affinity::Pinned(core) => core == index,
            };
            let take = |queue: &mut VecDeque<TaskId>| match queue.iter().position(may_run)? {
                0 => queue.pop_front(),
                place => queue.remove(place),
            };
            let Some(id) = take(&mut self.sleepers).or_else(|| take(&mut self.spent)) else { continue };
            self.count_waiting(id, -1);
            self.task_mut(id).state = State::Running(index);
            let core = &mut self.cores[index];
            core.running = Some(id);
            self.switches += u64::from(core.last != Some(id));
            core.last = Some(id);
        }
    }

    /// Puts a task to sleep, wherever it is; only a hung core does not let go of it.
    fn take_off(&mut self, id: TaskId) {
        match self.task(id).state {
            State::Asleep => return,
            State::Running(core) if self.cores[core].hung => return,
            State::Running(core) => self.cores[core].running = None,
            State::Waiting => {
                self.sleepers.retain(|&waiting| waiting != id);
                self.spent.retain(|&waiting| waiting != id);
                self.count_waiting(id, -1);
            }
        }
        let now = self.now;
        let task = self.task_mut(id);
        task.state = State::Asleep;
        task.asleep_since = now;
    }
}
