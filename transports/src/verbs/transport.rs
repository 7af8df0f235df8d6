//! [`Transport`] over a queue pair: the monitor's side. One of the three modules of this backend with unsafe code.
//!
//! A batch is posted with one call, and only its last request asks for a report of its success: a completion queue that
//! reports one has reported all before it. A failure is always reported; what lies behind it is flushed. The queue pair
//! is then destroyed, before the work's buffers are let go: without a queue pair, no late answer reaches them. Should the
//! system fail to destroy it, the buffers stay out of reach for as long as the transport lives.

use std::any::Any;
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backdoor_core::transport::{
    BufferId, ChannelState, Completion, Done, Operation, PostError, RegionKey, Transport, TransportError, WorkRequest,
};
use backdoor_core::words::WORD_BYTES;

use super::address::{Endpoint, RemoteRegion};
use super::device::Device;
use super::error::VerbsError;
use super::in_flight::{self, InFlight, Reports, Wait};
use super::memory::Registered;
use super::queue_pair::{ActiveQueuePair, Piece, PieceKind};
use super::settings::RetrySettings;
use crate::buffers::Buffers;

/// How the two ends meet.
pub trait Connect: Send {
    /// Tells the node about our end, and brings what it says about its own. Called for every opening of the channel, on
    /// a thread of its own but for the first; must return within a bounded time.
    fn connect(&mut self, ours: &Endpoint) -> Result<Peer, Box<dyn Error + Send + Sync>>;

    /// Told of every attempt to open the channel that failed, here or elsewhere.
    fn failed(&mut self, _why: &VerbsError) {}
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
    in_flight: InFlight,
    /// Work that reopening gave up, to be reported first, for it was posted first.
    given_up: Vec<Completion>,
    wait: Wait,
    /// How long is too long.
    patience: Duration,
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
    hold: Box<dyn Any + Send>,
}

impl Channel {
    /// Ends it; answers whether the card can't write into anything any more.
    fn close(self) -> bool {
        let Channel { pair, hold } = self;
        let is_gone = pair.destroy();
        drop(hold);
        is_gone
    }
}

/// What an attempt to open brought.
type Opened = Result<(Channel, Vec<RemoteRegion>), VerbsError>;

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
            in_flight: InFlight::new(config.depth),
            given_up: Vec::new(),
            wait: Wait::default(),
            patience: Duration::from_nanos(config.retry.patience().0),
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
        let is_gone = match std::mem::replace(&mut self.state, State::Broken) {
            State::Open(channel) => channel.close(),
            State::Opening(_) | State::Broken => true,
        };
        let mut error = error;
        for work in self.in_flight.give_up() {
            if let Some((slice, _)) = work.operation.local()
                && is_gone
            {
                self.buffers.let_go(slice.buffer);
            }
            completions.push(Completion { id: work.id, result: Err(error) });
            error = TransportError::Flushed;
        }
        self.wait.end();
    }

    /// Everything up to this sequence number is done.
    fn done_up_to(&mut self, sequence: u64, completions: &mut Vec<Completion>) {
        while let Some((sequence, work)) = self.in_flight.take_done(sequence) {
            if let Some((slice, _)) = work.operation.local() {
                self.buffers.let_go(slice.buffer);
            }
            let done = match work.operation {
                Operation::Read { .. } => Done::Read,
                Operation::Write { .. } => Done::Written,
                Operation::CompareSwap { .. } => {
                    Done::CompareSwapped { previous: self.previous.word(self.in_flight.place(sequence)) }
                }
            };
            completions.push(Completion { id: work.id, result: Ok(done) });
        }
    }

    /// What this status of the oldest work means.
    fn failure(&self, status: u32) -> TransportError {
        let is_inside = self.in_flight.oldest().is_none_or(|work| {
            let slice = in_flight::remote(&work.operation);
            self.regions.get(&slice.key).is_none_or(|region| region.holds(slice))
        });
        in_flight::failure(status, is_inside)
    }

    /// The requests that an operation is made of.
    fn pieces_of(&self, sequence: u64, operation: Operation, is_last: bool) -> impl Iterator<Item = Piece> {
        let (kind, local) = match operation {
            Operation::Read { into, .. } => (PieceKind::Read, Some(into)),
            Operation::Write { from, .. } => (PieceKind::Write, Some(from)),
            Operation::CompareSwap { expected, new, .. } => (PieceKind::CompareSwap { expected, new }, None),
        };
        let local = match local {
            None => self.previous.local(self.in_flight.place(sequence)),
            // Checked before.
            Some(slice) => self.buffers.memory(slice.buffer).map_or((0, 0), |memory| memory.local(slice.offset)),
        };
        let remote = in_flight::remote(&operation);
        let region = self.regions.get(&remote.key);
        in_flight::parts(remote.words).map(move |(skip, length)| {
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
                signalled: is_last && skip + length == remote.words,
            }
        })
    }
}

fn open_channel(device: &Device, config: VerbsConfig, connect: &mut dyn Connect) -> Opened {
    let mut open = || {
        let mut pair = ActiveQueuePair::create(device, config.depth)?;
        let Peer { endpoint, regions, hold } = connect.connect(&pair.endpoint()).map_err(VerbsError::Connect)?;
        pair.connect(&endpoint, config.retry)?;
        Ok((Channel { pair, hold }, regions))
    };
    let opened = open();
    if let Err(why) = &opened {
        connect.failed(why);
    }
    opened
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
        self.in_flight.check(batch)?;
        let Some(last) = batch.len().checked_sub(1) else { return Ok(()) };
        let mut requests = std::mem::take(&mut self.requests);
        for (index, work) in batch.iter().enumerate() {
            let sequence = self.in_flight.add(*work);
            requests.extend(self.pieces_of(sequence, work.operation, index == last));
        }
        locals().for_each(|(slice, _)| self.buffers.hold(slice.buffer));
        let State::Open(channel) = &mut self.state else { return Err(PostError::NotOpen) };
        // SAFETY: the local memory of each request is a buffer that is held from above until `done_up_to` or `fail` lets
        // go of it, or a word of `previous` that no other work under way uses. The former is called when the request's
        // completion, or that of a later one, was polled; the latter destroys the queue pair first, and lets nothing go if
        // that fails. A held buffer is not given out by `Buffers`, and not released.
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
        if !self.given_up.is_empty() {
            completions.append(&mut self.given_up);
        }
        self.take_in_opened();
        let State::Open(channel) = &self.state else { return };
        let mut reports = Reports::default();
        // Most polls find nothing, and what they do comes to the time that a READ takes.
        if !channel.pair.poll(|sequence, status| reports.add(sequence, status)) {
            if !self.in_flight.is_empty() && self.wait.is_too_long(self.patience) {
                self.fail(TransportError::Unreachable, completions);
            }
            return;
        }
        self.done_up_to(reports.done(), completions);
        self.wait.end();
        if let Some(status) = reports.failure() {
            self.fail(self.failure(status), completions);
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
