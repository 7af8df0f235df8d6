//! Memory of the monitor's own machine as a [`Transport`]: a watchdog's node, or what was last heard of another one.
//!
//! Both are read at once. But a poll of what was *heard* waits for news first: it is answered when the next message comes,
//! or with the old words when the next poll is due. So a monitor of messages sees them as soon as they come, and still
//! takes no news for silence; see [`mode`](super::mode).

use backdoor_core::Nanos;
use backdoor_core::transport::{
    BufferId, ChannelState, Completion, Operation, PostError, RemoteSlice, Transport, WorkRequest,
};
use backdoor_transports::sim_nic::{FixedPath, SimChannel, SimNicConfig, SimNicConfigError, SimNode};

/// A poll that waits for news.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    request: WorkRequest,
    until: Nanos,
}

/// Memory next to the monitor.
#[derive(Debug)]
pub(super) struct NearMemory {
    /// Without a way, a card is memory that answers at once.
    memory: SimChannel<FixedPath>,
    /// What is polled and waits for news, and how long at most; `None`: nothing waits.
    patience: Option<(RemoteSlice, Nanos)>,
    waiting: Option<Waiting>,
    /// Polls so far.
    polls: u64,
}

impl NearMemory {
    /// All of `memory`, at once.
    pub(super) fn of_this_machine(memory: &SimNode, nic: &SimNicConfig) -> Result<Self, SimNicConfigError> {
        let at_once = SimNicConfig { chunk_interval: Nanos::ZERO, ..nic.clone() };
        let memory = SimChannel::connect(memory, FixedPath::new(Nanos::ZERO), at_once)?;
        Ok(NearMemory { memory, patience: None, waiting: None, polls: 0 })
    }

    /// A READ of exactly `polled` waits for news, for `patience` at most; everything else is answered at once.
    pub(super) fn of_what_was_heard(
        memory: &SimNode,
        nic: &SimNicConfig,
        polled: RemoteSlice,
        patience: Nanos,
    ) -> Result<Self, SimNicConfigError> {
        Ok(NearMemory { patience: Some((polled, patience)), ..Self::of_this_machine(memory, nic)? })
    }

    /// Number of polls that have begun to wait.
    pub(super) fn polls(&self) -> u64 {
        self.polls
    }

    /// News has come, and is in the memory.
    pub(super) fn heard(&mut self, now: Nanos) {
        self.advance_to(now);
        self.answer();
    }

    pub(super) fn advance_to(&mut self, now: Nanos) {
        self.memory.advance_to(now);
        if self.waiting.is_some_and(|waiting| waiting.until <= now) {
            self.answer();
        }
    }

    pub(super) fn next_event(&self) -> Option<Nanos> {
        let until = self.waiting.map(|waiting| waiting.until);
        self.memory.next_event().into_iter().chain(until).min()
    }

    /// Answers the poll that waits. It was checked when it was posted, so it is taken.
    fn answer(&mut self) {
        if let Some(Waiting { request, .. }) = self.waiting.take() {
            let _ = self.post_at_once(&[request]);
        }
    }

    fn post_at_once(&mut self, batch: &[WorkRequest]) -> Result<(), PostError> {
        self.memory.post(batch)?;
        self.memory.advance_to(self.memory.now());
        Ok(())
    }
}

impl Transport for NearMemory {
    fn allocate(&mut self, words: usize) -> Result<BufferId, PostError> {
        self.memory.allocate(words)
    }

    fn release(&mut self, buffer: BufferId) -> Result<(), PostError> {
        self.memory.release(buffer)
    }

    fn buffer(&self, buffer: BufferId) -> Result<&[u64], PostError> {
        self.memory.buffer(buffer)
    }

    fn buffer_mut(&mut self, buffer: BufferId) -> Result<&mut [u64], PostError> {
        self.memory.buffer_mut(buffer)
    }

    /// A poll that waits keeps what comes behind it from being taken: completions come in the order of posting.
    fn post(&mut self, batch: &[WorkRequest]) -> Result<(), PostError> {
        let poll = |request: &WorkRequest| match (request.operation, self.patience) {
            (Operation::Read { from, into }, Some((polled, patience))) if from == polled => Some((into, patience)),
            _ => None,
        };
        match batch {
            _ if self.waiting.is_some() => Err(PostError::QueueFull { depth: 1 }),
            [request] if self.memory.channel() == ChannelState::Open && poll(request).is_some() => {
                let Some((into, patience)) = poll(request) else { return Ok(()) };
                self.memory.buffer(into.buffer)?;
                self.waiting = Some(Waiting { request: *request, until: self.memory.now() + patience });
                self.polls += 1;
                Ok(())
            }
            _ => self.post_at_once(batch),
        }
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        self.memory.poll(completions);
    }

    fn channel(&self) -> ChannelState {
        self.memory.channel()
    }

    /// A poll that waits is answered with what there is, before the channel is opened anew.
    fn reopen(&mut self) {
        self.answer();
        self.memory.reopen();
    }
}
