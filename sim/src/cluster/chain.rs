//! The chain of processes: a request passes through all of them, and each waits for the next one's reply.
//!
//! ```text
//!  message comes ──> take it up ──> work ──> pass it on ──> wait for the reply ──> answer ──> next message, or idle
//!  (kernel: active)   advance      advance   (last: read)                         advance
//! ```

use backdoor_core::Nanos;
use backdoor_core::progress_box::EntityState;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::disk::User;
use super::node::{Node, at_least};
use super::{Agenda, What};
use crate::cpu::{CpuError, TaskId};
use crate::streams::Streams;
use crate::workload::{Activity, Chain};

/// CPU time to take a message, or a reply, out of its queue.
const TAKE: Nanos = Nanos::from_micros(2);

/// What a process is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing: no message is there.
    Rest,
    /// To take up a message.
    Take,
    Work,
    /// To wait for the disk.
    Read,
    /// To wait for the reply of the next process.
    Await,
    /// To answer.
    Answer,
}

#[derive(Debug)]
pub(super) struct Process {
    pub(super) task: TaskId,
    step: Step,
    /// Messages that came and were not answered.
    waiting: u64,
    pub(super) stopped: bool,
    work: Xoshiro256PlusPlus,
}

/// All processes, and the requests to the first.
#[derive(Debug)]
pub(super) struct ChainState {
    chain: Chain,
    pub(super) processes: Vec<Process>,
    arrivals: Xoshiro256PlusPlus,
}

impl ChainState {
    /// `task` makes a task for a process, by number.
    pub(super) fn new(
        chain: Chain,
        streams: &Streams,
        mut task: impl FnMut(usize) -> Result<TaskId, CpuError>,
    ) -> Result<Self, CpuError> {
        let mut process = |index| {
            let work = streams.indexed("chain work", index as u64);
            Ok(Process { task: task(index)?, step: Step::Rest, waiting: 0, stopped: false, work })
        };
        let processes = (0..chain.processes).map(&mut process).collect::<Result<_, CpuError>>()?;
        Ok(ChainState { chain, processes, arrivals: streams.stream("chain arrivals") })
    }

    fn next_request(&mut self) -> Nanos {
        self.chain.request_interval.sample(&mut self.arrivals)
    }

    /// Whether a process has nothing to do.
    pub(super) fn is_at_rest(&self, process: usize) -> bool {
        self.processes[process].step == Step::Rest
    }
}

impl Node {
    /// Schedules the first request.
    pub(super) fn start_chain(&mut self, agenda: &mut Agenda<'_>) {
        if let Some(state) = &mut self.chain {
            agenda.after(state.next_request(), What::ChainRequest);
        }
    }

    /// A request comes from the network.
    pub(super) fn chain_request(&mut self, agenda: &mut Agenda<'_>) {
        let Some(state) = &mut self.chain else { return };
        agenda.after(state.next_request(), What::ChainRequest);
        self.deliver(0, agenda.now());
    }

    /// A message comes to a process.
    fn deliver(&mut self, index: usize, now: Nanos) {
        let Some(state) = &mut self.chain else { return };
        let process = &mut state.processes[index];
        process.waiting += 1;
        let (task, at_rest, stopped) = (process.task, process.step == Step::Rest, process.stopped);
        if at_rest {
            process.step = Step::Take;
            self.cpu.wake(now, task, TAKE);
        }
        // The kernel's part; a frozen one's network card keeps the request.
        if !self.cpu.is_frozen() {
            self.announce(index);
        }
        if stopped {
            self.takes_effect(self.slots.process(index), now);
        }
    }

    /// The kernel tells what waits for a process.
    fn announce(&mut self, index: usize) {
        let waiting = self.chain.as_ref().map_or(0, |state| state.processes[index].waiting);
        self.memory.count_pending(self.work.total_sessions() + index, waiting);
        let counter = &mut self.memory.counters[self.slots.process(index)];
        let is_idle = matches!(counter.liveness().state(), EntityState::Idle | EntityState::Free);
        if waiting > 0 && is_idle && self.work.activity == Activity::Kernel {
            counter.advance();
        }
    }

    /// A thawed kernel takes in what its network card has kept.
    pub(super) fn take_in_chain(&mut self) {
        if self.chain.is_some() {
            self.announce(0);
        }
    }

    /// A process has done what it had to do.
    pub(super) fn process_done(&mut self, index: usize, agenda: &mut Agenda<'_>) {
        let Some(state) = &mut self.chain else { return };
        let is_last = index + 1 == state.processes.len();
        let reads = is_last && state.chain.reads_disk && self.disk.is_some();
        let process = &mut state.processes[index];
        let (now, task) = (agenda.now(), process.task);
        self.memory.counters[self.slots.process(index)].advance();
        match process.step {
            Step::Rest | Step::Await => {}
            Step::Take => {
                process.step = Step::Work;
                let work = state.chain.work.sample(&mut process.work);
                self.cpu.wake(now, task, at_least(work));
            }
            Step::Work if reads => {
                process.step = Step::Read;
                self.submit(User::Process(index), agenda);
            }
            Step::Work if !is_last => {
                process.step = Step::Await;
                self.deliver(index + 1, now);
            }
            Step::Work | Step::Read | Step::Answer => self.process_answers(index, now),
        }
    }

    /// What a process waited for is there.
    pub(super) fn process_continues(&mut self, index: usize, now: Nanos) {
        let Some(state) = &mut self.chain else { return };
        let process = &mut state.processes[index];
        process.step = Step::Answer;
        self.cpu.wake(now, process.task, TAKE);
    }

    fn process_answers(&mut self, index: usize, now: Nanos) {
        let Some(state) = &mut self.chain else { return };
        let process = &mut state.processes[index];
        process.waiting -= 1;
        let (task, waiting) = (process.task, process.waiting);
        process.step = if waiting > 0 { Step::Take } else { Step::Rest };
        self.memory.count_pending(self.work.total_sessions() + index, waiting);
        if waiting > 0 {
            self.cpu.wake(now, task, TAKE);
        } else if self.work.activity != Activity::Nobody {
            self.memory.counters[self.slots.process(index)].idle();
        }
        if let Some(caller) = index.checked_sub(1) {
            self.process_continues(caller, now);
        }
    }

    /// A process stops, for good.
    pub(super) fn stop_process(&mut self, index: usize, now: Nanos) {
        if let Some(process) = self.chain.as_mut().and_then(|state| state.processes.get_mut(index)) {
            process.stopped = true;
            self.cpu.stop(now, process.task);
        }
    }
}
