//! The monitor's end of a connection: what is due when, and what then happens.

use std::collections::VecDeque;

use backdoor_core::Nanos;
use backdoor_core::transport::{
    BufferId, ChannelState, Completion, PostError, Transport, TransportError, WorkId, WorkRequest,
};

use super::config::{SimNicConfig, SimNicConfigError};
use super::node::SimNode;
use super::path::{Leg, Path, Transit};
use super::work::{Task, Work};
use crate::buffers::Buffers;

/// A connection from a monitor to a [`SimNode`], in virtual time. See the [module](super) for how it behaves and how
/// an event loop drives it.
///
/// Posting, executing and polling allocate nothing.
#[derive(Debug)]
pub struct SimChannel<P> {
    node: SimNode,
    path: P,
    config: SimNicConfig,
    buffers: Buffers,
    now: Nanos,
    state: ChannelState,
    own_link_up: bool,
    /// The life of the node's card that this connection belongs to.
    nic_life: u32,
    /// Unfinished work, oldest first.
    work: VecDeque<Work>,
    /// How many at the front of `work` were executed at the node since they were last sent.
    executed: usize,
    /// The node refused work and ignores what is behind it.
    node_stopped: bool,
    /// When the node's card can do its next bit of this connection's work.
    node_free_at: Nanos,
    /// When the last message of each direction arrives: messages of a connection stay in order.
    last_request_at: Nanos,
    last_answer_at: Nanos,
    /// When the card stops waiting for an answer to the oldest work.
    timer: Nanos,
    retries_used: u32,
    /// Finished and not yet polled, with the buffer that stays held until then.
    finished: VecDeque<(Completion, Option<BufferId>)>,
}

/// What can be due. At one instant an answer goes before anything else: it saves the card from giving up.
#[derive(Clone, Copy, Debug)]
enum Due {
    Answer,
    Execution,
    Timer,
}

impl<P: Path> SimChannel<P> {
    /// A connection that is open from the start, at virtual time zero.
    ///
    /// If the node can't be reached now, the connection is one that it has lost: the first work reports it.
    pub fn connect(node: &SimNode, path: P, config: SimNicConfig) -> Result<Self, SimNicConfigError> {
        config.validate()?;
        Ok(SimChannel {
            node: node.clone(),
            path,
            buffers: Buffers::default(),
            now: Nanos::ZERO,
            state: ChannelState::Open,
            own_link_up: true,
            nic_life: node.nic_life(),
            work: VecDeque::with_capacity(config.queue_depth),
            executed: 0,
            node_stopped: false,
            node_free_at: Nanos::ZERO,
            last_request_at: Nanos::ZERO,
            last_answer_at: Nanos::ZERO,
            timer: Nanos::MAX,
            retries_used: 0,
            finished: VecDeque::with_capacity(config.queue_depth),
            config,
        })
    }

    /// Does everything that is due up to and including `now`, in order. Time never goes back: an earlier `now` does
    /// nothing.
    #[inline]
    pub fn advance_to(&mut self, now: Nanos) {
        while let Some((at, due)) = self.due()
            && at <= now
        {
            self.now = self.now.max(at);
            match due {
                Due::Answer => self.take_answer(),
                Due::Execution => self.execute(),
                Due::Timer => self.give_up_waiting(),
            }
        }
        self.now = self.now.max(now);
    }

    /// When this channel next needs [`SimChannel::advance_to`], or to be polled: completions that wait for that are due
    /// now. `None` if nothing is under way. Posting, polling and reopening change the answer.
    pub fn next_event(&self) -> Option<Nanos> {
        if self.finished.is_empty() { self.due().map(|(at, _)| at) } else { Some(self.now) }
    }

    /// Up to when the channel was advanced.
    pub fn now(&self) -> Nanos {
        self.now
    }

    /// The node at the other end.
    pub fn node(&self) -> &SimNode {
        &self.node
    }

    /// How it was set up.
    pub fn config(&self) -> &SimNicConfig {
        &self.config
    }

    /// The way to the node, to change its conditions.
    pub fn path_mut(&mut self) -> &mut P {
        &mut self.path
    }

    /// This side's link (or card) fails: work under way ends with `LocalFault` at once, and so does what is posted
    /// later. It breaks the channel only when there is work, as with verbs.
    pub fn cut_own_link(&mut self) {
        self.own_link_up = false;
        if !self.work.is_empty() {
            self.fail(TransportError::LocalFault);
        }
    }

    /// This side's link works again. A channel that broke meanwhile stays broken until reopened.
    pub fn restore_own_link(&mut self) {
        self.own_link_up = true;
    }

    #[inline]
    fn due(&self) -> Option<(Nanos, Due)> {
        let oldest = self.work.front()?;
        let mut next = (self.timer, Due::Timer);
        if let Some(work) = self.work.get(self.executed)
            && let Some(arrives) = work.arrives
            && !self.node_stopped
        {
            let at = arrives.max(self.node_free_at);
            if at <= next.0 {
                next = (at, Due::Execution);
            }
        }
        if let Some(at) = oldest.answered
            && at <= next.0
        {
            next = (at, Due::Answer);
        }
        Some(next)
    }

    /// The node's card does one bit of the next piece of work.
    fn execute(&mut self) {
        let Some(work) = self.work.get_mut(self.executed) else { return };
        let connecting = matches!(work.task, Task::Connect);
        match self.node.answering_life() {
            Some(life) if connecting => self.nic_life = life,
            Some(life) if life == self.nic_life => {}
            // Nobody there, or nobody who knows this connection: as if the request had been lost.
            _ => {
                work.arrives = None;
                return;
            }
        }
        let at_once = self.config.chunk_interval == Nanos::ZERO;
        let chunk_words = if at_once { u64::MAX } else { self.config.chunk_words };
        if !work.execute(&self.node, &mut self.buffers, chunk_words) {
            self.node_free_at = self.now + self.config.chunk_interval;
            return;
        }
        self.node_free_at = self.now;
        // After a refusal the node's end of the connection is broken too, and ignores what comes behind.
        self.node_stopped = matches!(work.outcome, Some(Err(_)));
        work.answered = match self.path.one_way(Leg::FromNode, self.now, work.answer_words()) {
            Transit::ArrivesAfter(delay) => {
                self.last_answer_at = self.last_answer_at.max(self.now + delay);
                Some(self.last_answer_at)
            }
            Transit::Lost => None,
        };
        self.executed += 1;
    }

    /// The answer to the oldest work is here.
    fn take_answer(&mut self) {
        let Some(work) = self.work.front() else { return };
        match (work.task, work.outcome) {
            (Task::Operation(_), Some(Err(error))) => return self.fail(error),
            (Task::Operation(_), Some(Ok(done))) => {
                self.finished.push_back((Completion { id: work.id, result: Ok(done) }, work.buffer()));
            }
            // Operations have an outcome before they have an answer.
            (Task::Operation(_), None) => return,
            (Task::Connect, _) => self.state = ChannelState::Open,
        }
        self.work.pop_front();
        self.executed -= 1;
        self.retries_used = 0;
        self.timer = if self.work.is_empty() { Nanos::MAX } else { self.now + self.config.retransmit_after };
    }

    /// The card has waited long enough for the answer to the oldest work.
    fn give_up_waiting(&mut self) {
        if self.retries_used == self.config.retries {
            return self.fail(TransportError::Unreachable);
        }
        self.retries_used += 1;
        self.timer = self.now + self.config.retransmit_after;
        let Some(oldest) = self.work.front() else { return };
        let lost = if self.executed > 0 { oldest.answered.is_none() } else { oldest.arrives.is_none() };
        // If nothing is lost but only late, the request that is now sent twice changes nothing.
        if lost {
            self.executed = 0;
            self.node_stopped = false;
            for index in 0..self.work.len() {
                let arrives = self.send(self.now, self.work[index].request_words());
                self.work[index].begin_again(arrives);
            }
        }
    }

    /// Sends a request; when it arrives.
    fn send(&mut self, departs: Nanos, words: u64) -> Option<Nanos> {
        match self.path.one_way(Leg::ToNode, departs, words) {
            Transit::ArrivesAfter(delay) => {
                self.last_request_at = self.last_request_at.max(departs + delay);
                Some(self.last_request_at)
            }
            Transit::Lost => None,
        }
    }

    /// The oldest work ends with `error`, the rest is flushed, the channel is broken.
    fn fail(&mut self, error: TransportError) {
        let mut error = error;
        for work in self.work.drain(..) {
            if matches!(work.task, Task::Operation(_)) {
                self.finished.push_back((Completion { id: work.id, result: Err(error) }, work.buffer()));
                error = TransportError::Flushed;
            }
        }
        self.executed = 0;
        self.node_stopped = false;
        // What is still on the way belongs to a connection that is no more, and delays nothing of the next.
        self.last_request_at = self.now;
        self.last_answer_at = self.now;
        self.retries_used = 0;
        self.timer = Nanos::MAX;
        self.state = ChannelState::Broken;
    }

    fn enqueue(&mut self, mut work: Work, departs: Nanos) {
        if self.work.is_empty() {
            self.timer = departs + self.config.retransmit_after;
        }
        work.arrives = self.send(departs, work.request_words());
        self.work.push_back(work);
    }
}

impl<P: Path> Transport for SimChannel<P> {
    fn allocate(&mut self, words: usize) -> Result<BufferId, PostError> {
        self.buffers.allocate(words)
    }

    fn release(&mut self, buffer: BufferId) -> Result<(), PostError> {
        self.buffers.release(buffer)
    }

    fn buffer(&self, buffer: BufferId) -> Result<&[u64], PostError> {
        self.buffers.idle(buffer)
    }

    fn buffer_mut(&mut self, buffer: BufferId) -> Result<&mut [u64], PostError> {
        self.buffers.idle_mut(buffer)
    }

    /// Completions that were not polled count as under way: they have to be kept somewhere.
    fn post(&mut self, batch: &[WorkRequest]) -> Result<(), PostError> {
        if self.state != ChannelState::Open {
            return Err(PostError::NotOpen);
        }
        let depth = self.config.queue_depth;
        if batch.len() > depth - self.work.len() - self.finished.len() {
            return Err(PostError::QueueFull { depth });
        }
        for request in batch {
            if let Some((local, words)) = request.operation.local() {
                self.buffers.check(local.buffer, local.offset, words)?;
            }
        }
        for request in batch {
            let work = Work::new(request.id, Task::Operation(request.operation));
            if let Some(buffer) = work.buffer() {
                self.buffers.hold(buffer);
            }
            self.enqueue(work, self.now);
        }
        if !self.own_link_up && !self.work.is_empty() {
            self.fail(TransportError::LocalFault);
        }
        Ok(())
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        while let Some((completion, buffer)) = self.finished.pop_front() {
            if let Some(buffer) = buffer {
                self.buffers.let_go(buffer);
            }
            completions.push(completion);
        }
    }

    fn channel(&self) -> ChannelState {
        self.state
    }

    /// The channel is `Opening` for [`connect_time`](SimNicConfig::connect_time) and the way there and back; lost
    /// messages are sent again as for any work. If the node doesn't answer by the last retry, the attempt has failed
    /// and the channel is `Broken` again; with the own link down it is so at once. An attempt in progress is left alone.
    fn reopen(&mut self) {
        if self.state == ChannelState::Opening {
            return;
        }
        self.fail(TransportError::Flushed);
        if self.own_link_up {
            self.state = ChannelState::Opening;
            self.enqueue(Work::new(WorkId(0), Task::Connect), self.now + self.config.connect_time);
        }
    }
}
