//! [`Transport`] over a queue pair: the monitor's side.
//!
//! A batch is posted with one call, and only its last request asks for a report of its success: a completion queue that
//! reports one has reported all before it. A failure is always reported; what lies behind it is flushed. The queue pair
//! is then destroyed, before the work's buffers are let go: without a queue pair, no late answer reaches them.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use backdoor_core::transport::{
    BufferId, ChannelState, Completion, Done, Operation, PostError, RegionKey, RemoteSlice, Transport, TransportError,
    WorkRequest,
};
use backdoor_core::words::WORD_BYTES;
use sideway::ibverbs::completion::WorkCompletionStatus as Status;

use super::address::{Endpoint, RemoteRegion};
use super::device::Device;
use super::error::VerbsError;
use super::memory::Registered;
use super::queue_pair::{ActiveQueuePair, Piece, PieceKind};
use super::settings::RetrySettings;
use crate::buffers::Buffers;

/// Words of one request: the longest message that every card takes is not known here, and 8 MiB is what Soft-RoCE takes.
/// A longer operation is posted in pieces.
const PIECE_WORDS: u64 = 1 << 20;

/// How the two ends meet.
pub trait Connect: Send {
    /// Tells the node about our end, and brings what it says about its own. Called for every opening of the channel, on
    /// a thread of its own but for the first; must return within a bounded time.
    fn connect(&mut self, ours: &Endpoint) -> Result<Peer, Box<dyn Error + Send + Sync>>;
}

/// The node's end.
pub struct Peer {
    /// Its queue pair, which knows ours already.
    pub endpoint: Endpoint,
    /// What can be reached through it.
    pub regions: Vec<RemoteRegion>,
    /// Kept until our queue pair is gone, and then dropped: the connection that tells the node how long it is needed,
    /// say.
    pub hold: Box<dyn Any + Send>,
}

/// Settings of the monitor's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerbsConfig {
    /// Operations under way.
    pub depth: usize,
    /// How long the card tries.
    pub retry: RetrySettings,
}

impl Default for VerbsConfig {
    /// 256 operations, default retries.
    fn default() -> Self {
        VerbsConfig { depth: 256, retry: RetrySettings::default() }
    }
}

/// One-sided access to a node's memory through network cards.
pub struct VerbsTransport {
    // Before the buffers: the queue pair must be gone when they go.
    state: State,
    regions: BTreeMap<RegionKey, RemoteRegion>,
    buffers: Buffers<Registered>,
    /// Where compare-and-swaps bring the word's earlier value: one word per operation under way.
    previous: Registered,
    under_way: VecDeque<UnderWay>,
    /// Pieces of what is under way.
    pieces: usize,
    /// Work that reopening gave up, to be reported first, for it was posted first.
    given_up: Vec<Completion>,
    next_sequence: u64,
    wait: Wait,
    /// Reused from batch to batch.
    requests: Vec<Piece>,
    device: Device,
    config: VerbsConfig,
    /// Locked by the one thread that opens a channel.
    connect: Arc<Mutex<Box<dyn Connect>>>,
    why_broken: Option<String>,
}

enum State {
    Open(Channel),
    Opening(Receiver<Opened>),
    Broken,
}

struct Channel {
    // Before what it is held by.
    pair: ActiveQueuePair,
    _hold: Box<dyn Any + Send>,
}

/// What an attempt to open brought.
type Opened = Result<(Channel, Vec<RemoteRegion>), VerbsError>;

#[derive(Debug)]
struct UnderWay {
    sequence: u64,
    work: WorkRequest,
    pieces: usize,
}

/// How long the oldest work has been waited for. The clock is not read on the fast path, for it can cost as much as a
/// request does: only now and then, while polls bring nothing.
#[derive(Debug, Default)]
struct Wait {
    polls: u32,
    since: Option<Instant>,
}

impl Wait {
    /// Fruitless polls from one look at the clock to the next.
    const POLLS_PER_LOOK: u32 = 32;

    /// Something came.
    fn end(&mut self) {
        *self = Wait::default();
    }

    /// Nothing came; answers whether that has been so for longer than `patience`.
    fn is_too_long(&mut self, patience: Duration) -> bool {
        self.polls += 1;
        if self.polls < Self::POLLS_PER_LOOK {
            return false;
        }
        self.polls = 0;
        self.since.get_or_insert_with(Instant::now).elapsed() > patience
    }
}

impl VerbsTransport {
    /// Connects. Blocks until that is done or has failed; from then on, nothing blocks.
    pub fn open(device: Device, config: VerbsConfig, mut connect: Box<dyn Connect>) -> Result<Self, VerbsError> {
        let previous = Registered::allocate(&device, config.depth);
        let previous = previous.ok_or(VerbsError::Register {
            bytes: config.depth.saturating_mul(WORD_BYTES),
            why: "the system refused".into(),
        })?;
        let (channel, regions) = open_channel(&device, config, &mut *connect)?;
        let mut transport = VerbsTransport {
            state: State::Broken,
            regions: BTreeMap::new(),
            buffers: Buffers::default(),
            previous,
            under_way: VecDeque::with_capacity(config.depth),
            pieces: 0,
            given_up: Vec::new(),
            next_sequence: 0,
            wait: Wait::default(),
            requests: Vec::new(),
            device,
            config,
            connect: Arc::new(Mutex::new(connect)),
            why_broken: None,
        };
        transport.opened(channel, regions);
        Ok(transport)
    }

    /// Length in words of the region under `key`, as the node described it.
    pub fn region_words(&self, key: RegionKey) -> Option<u64> {
        self.regions.get(&key).map(|region| region.words)
    }

    /// Why the last attempt to open the channel failed; `None` while it is open.
    pub fn why_broken(&self) -> Option<&str> {
        self.why_broken.as_deref()
    }

    fn opened(&mut self, channel: Channel, regions: Vec<RemoteRegion>) {
        self.regions = regions.into_iter().map(|region| (region.region_key(), region)).collect();
        self.state = State::Open(channel);
        self.why_broken = None;
    }

    /// Takes in what an attempt to open has brought.
    fn take_in_opened(&mut self) {
        let State::Opening(opened) = &self.state else { return };
        let why = match opened.try_recv() {
            Err(TryRecvError::Empty) => return,
            Ok(Ok((channel, regions))) => return self.opened(channel, regions),
            Ok(Err(error)) => error.to_string(),
            Err(TryRecvError::Disconnected) => "the attempt to connect ended without a result".into(),
        };
        self.state = State::Broken;
        self.why_broken = Some(why);
    }

    /// The oldest work ended like this, and everything behind it is flushed.
    fn fail(&mut self, error: TransportError, completions: &mut Vec<Completion>) {
        // First of all: from here on, no card writes into the buffers of what is given up.
        self.state = State::Broken;
        let mut error = error;
        for UnderWay { work, .. } in self.under_way.drain(..) {
            if let Some((slice, _)) = work.operation.local() {
                self.buffers.let_go(slice.buffer);
            }
            completions.push(Completion { id: work.id, result: Err(error) });
            error = TransportError::Flushed;
        }
        self.pieces = 0;
        self.wait.end();
    }

    /// Everything up to this sequence number is done.
    fn done_up_to(&mut self, sequence: u64, completions: &mut Vec<Completion>) {
        while self.under_way.front().is_some_and(|work| work.sequence <= sequence) {
            let Some(UnderWay { sequence, work, pieces, .. }) = self.under_way.pop_front() else { return };
            if let Some((slice, _)) = work.operation.local() {
                self.buffers.let_go(slice.buffer);
            }
            self.pieces -= pieces;
            let done = match work.operation {
                Operation::Read { .. } => Done::Read,
                Operation::Write { .. } => Done::Written,
                Operation::CompareSwap { .. } => {
                    Done::CompareSwapped { previous: self.previous.word(self.place_of_previous(sequence)) }
                }
            };
            completions.push(Completion { id: work.id, result: Ok(done) });
        }
    }

    /// Operations under way have consecutive numbers and are no more than `depth`, so no two share a place.
    fn place_of_previous(&self, sequence: u64) -> usize {
        (sequence % self.config.depth as u64) as usize
    }

    /// What a refusal of this work means.
    fn refusal(&self, operation: &Operation) -> TransportError {
        let slice = match *operation {
            Operation::Read { from, .. } => from,
            Operation::Write { to, .. } => to,
            Operation::CompareSwap { key, offset, .. } => RemoteSlice { key, offset, words: 1 },
        };
        match self.regions.get(&slice.key) {
            Some(region) if !region.holds(slice) => TransportError::OutOfBounds,
            _ => TransportError::Refused,
        }
    }

    fn failure(&self, operation: &Operation, status: u32) -> TransportError {
        const REFUSED: [Status; 3] =
            [Status::RemoteAccessError, Status::RemoteInvalidRequestError, Status::RemoteOperationError];
        const UNANSWERED: [Status; 3] = [
            Status::RetryCounterExceededError,
            Status::ResponderNotReadyRetryCounterExceededError,
            Status::ResponseTimeoutError,
        ];
        // Compared as numbers: a status that the library does not know must not end the program.
        let is = |known: &Status| *known as u32 == status;
        if REFUSED.iter().any(is) {
            self.refusal(operation)
        } else if UNANSWERED.iter().any(is) {
            TransportError::Unreachable
        } else if is(&Status::WorkRequestFlushedError) {
            TransportError::Flushed
        } else {
            TransportError::LocalFault
        }
    }

    /// The requests that an operation is made of.
    fn pieces_of(&self, sequence: u64, operation: Operation, is_last: bool) -> impl Iterator<Item = Piece> {
        let (kind, local, remote) = match operation {
            Operation::Read { from, into } => (PieceKind::Read, Some(into), from),
            Operation::Write { from, to } => (PieceKind::Write, Some(from), to),
            Operation::CompareSwap { key, offset, expected, new } => {
                (PieceKind::CompareSwap { expected, new }, None, RemoteSlice { key, offset, words: 1 })
            }
        };
        let local = match local {
            None => self.previous.local(self.place_of_previous(sequence)),
            // Checked before.
            Some(slice) => self.buffers.memory(slice.buffer).map_or((0, 0), |memory| memory.local(slice.offset)),
        };
        let region = self.regions.get(&remote.key);
        let (words, pieces) = (remote.words, pieces(&operation) as u64);
        (0..pieces).map(move |piece| {
            let (skip, length) = (piece * PIECE_WORDS, (words - piece * PIECE_WORDS).min(PIECE_WORDS));
            // No process has memory at address 0, so an address that can't be is refused by the node's card, as is a
            // key that nobody gave us.
            let offset = remote.offset.checked_add(skip);
            let address = offset.and_then(|offset| region?.address_of(offset)).unwrap_or(0);
            Piece {
                id: sequence,
                kind,
                local: (local.0, local.1 + skip * WORD_BYTES as u64),
                length: (length * WORD_BYTES as u64) as u32,
                remote: (region.map_or(remote.key.0, |region| region.rkey), address),
                signalled: is_last && piece + 1 == pieces,
            }
        })
    }
}

/// Requests that an operation takes.
fn pieces(operation: &Operation) -> usize {
    let words = operation.local().map_or(1, |(_, words)| words);
    usize::try_from(words.div_ceil(PIECE_WORDS).max(1)).unwrap_or(usize::MAX)
}

fn open_channel(
    device: &Device,
    config: VerbsConfig,
    connect: &mut dyn Connect,
) -> Result<(Channel, Vec<RemoteRegion>), VerbsError> {
    let mut pair = ActiveQueuePair::create(device, config.depth)?;
    let Peer { endpoint, regions, hold } = connect.connect(&pair.endpoint()).map_err(VerbsError::Connect)?;
    pair.connect(&endpoint, config.retry)?;
    Ok((Channel { pair, _hold: hold }, regions))
}

impl Transport for VerbsTransport {
    fn allocate(&mut self, words: usize) -> Result<BufferId, PostError> {
        let memory = Registered::allocate(&self.device, words).ok_or(PostError::OutOfMemory { words })?;
        self.buffers.add(memory)
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

    fn post(&mut self, batch: &[WorkRequest]) -> Result<(), PostError> {
        if !matches!(self.state, State::Open(_)) {
            return Err(PostError::NotOpen);
        }
        let locals = || batch.iter().filter_map(|work| work.operation.local());
        for (slice, words) in locals() {
            self.buffers.check(slice.buffer, slice.offset, words)?;
        }
        let depth = self.config.depth;
        let needed = batch.iter().fold(0usize, |sum, work| sum.saturating_add(pieces(&work.operation)));
        if needed > depth - self.pieces {
            return Err(PostError::QueueFull { depth });
        }
        let Some(last) = batch.len().checked_sub(1) else { return Ok(()) };
        let first = self.next_sequence;
        let mut requests = std::mem::take(&mut self.requests);
        for (index, (sequence, work)) in (first..).zip(batch).enumerate() {
            requests.extend(self.pieces_of(sequence, work.operation, index == last));
        }
        locals().for_each(|(slice, _)| self.buffers.hold(slice.buffer));
        self.next_sequence += batch.len() as u64;
        self.pieces += needed;
        self.under_way.extend((first..).zip(batch).map(|(sequence, work)| UnderWay {
            sequence,
            work: *work,
            pieces: pieces(&work.operation),
        }));
        let State::Open(channel) = &mut self.state else { return Err(PostError::NotOpen) };
        // SAFETY: the local memory of each request is a buffer that is held from above until `done_up_to` or `fail` lets
        // go of it, or a word of `previous` that no other work under way uses. The former is called when the request's
        // completion, or that of a later one, was polled; the latter drops the queue pair first. A held buffer is not
        // given out by `Buffers`, and not released.
        let result = unsafe { channel.pair.post(requests.drain(..)) };
        self.requests = requests;
        if result.is_err() {
            // It is not known which of them were posted, so they all were, and have failed.
            let mut failed = std::mem::take(&mut self.given_up);
            self.fail(TransportError::LocalFault, &mut failed);
            self.given_up = failed;
        }
        Ok(())
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        completions.append(&mut self.given_up);
        self.take_in_opened();
        let State::Open(channel) = &self.state else { return };
        let (mut done, mut failed) = (None, None);
        channel.pair.poll(|sequence, status| match status {
            _ if failed.is_some() => {}
            0 => done = Some(sequence),
            _ => failed = Some((sequence, status)),
        });
        if let Some(sequence) = failed.map(|(sequence, _)| sequence.wrapping_sub(1)).or(done) {
            // What was posted before work that failed was done, reported or not.
            if sequence != u64::MAX {
                self.done_up_to(sequence, completions);
            }
        }
        let patience = Duration::from_nanos(self.config.retry.patience().0);
        match (self.under_way.front(), failed) {
            (Some(oldest), Some((_, status))) => {
                let error = self.failure(&oldest.work.operation, status);
                self.fail(error, completions);
            }
            (Some(_), None) if done.is_none() => {
                if self.wait.is_too_long(patience) {
                    self.fail(TransportError::Unreachable, completions);
                }
            }
            _ => self.wait.end(),
        }
    }

    fn channel(&self) -> ChannelState {
        match self.state {
            State::Open(_) => ChannelState::Open,
            State::Opening(_) => ChannelState::Opening,
            State::Broken => ChannelState::Broken,
        }
    }

    fn reopen(&mut self) {
        if matches!(self.state, State::Opening(_)) {
            return;
        }
        let mut given_up = std::mem::take(&mut self.given_up);
        self.fail(TransportError::Flushed, &mut given_up);
        self.given_up = given_up;
        let (device, config, connect) = (self.device.clone(), self.config, Arc::clone(&self.connect));
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new().name("verbs-open".into()).spawn(move || {
            let mut connect = connect.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody waits for it any more if the transport was dropped meanwhile.
            let _ = sender.send(open_channel(&device, config, &mut **connect));
        });
        match thread {
            Ok(_) => self.state = State::Opening(receiver),
            Err(error) => self.why_broken = Some(format!("can't start a thread to connect: {error}")),
        }
    }
}
