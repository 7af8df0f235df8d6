//! A wrapper that makes a transport fail, lie, or repeat itself.
//!
//! Every fault is decided when the operation is posted, from its number and one draw, so what happens to operation
//! 1000 does not depend on when anything was polled. With no faults set the wrapper changes nothing: it passes the
//! conformance suite like the transport inside.
//!
//! An injected error breaks the channel as a real one does: what was posted behind it is flushed, and the channel
//! stays broken until it is reopened. It is reported as soon as the transport inside has finished the operation, thus
//! earlier than a real `Unreachable`, which takes all the retries; where that time matters, cut the link instead.

mod options;

use std::collections::{HashMap, VecDeque};

use backdoor_core::transport::{
    BufferId, ChannelState, Completion, LocalSlice, Operation, PostError, RegionKey, RemoteSlice, Transport,
    TransportError, WorkRequest,
};
use rand::{Rng, RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

pub use options::{Fault, FaultOptions, FaultOptionsError, ScheduledFault};

/// No transport gives out this key.
const NOBODYS_KEY: RegionKey = RegionKey(u32::MAX);

/// An operation that the transport inside has taken.
#[derive(Clone, Copy, Debug)]
struct UnderWay {
    request: WorkRequest,
    fault: Option<Fault>,
    /// Which bits to flip.
    bits: u64,
    /// Posted on a connection that has been given up since.
    given_up: bool,
}

/// Data to change once its buffer is free.
#[derive(Clone, Copy, Debug)]
struct Change {
    fault: Option<Fault>,
    bits: u64,
    from: RemoteSlice,
    into: LocalSlice,
}

/// A transport that goes wrong as told by [`FaultOptions`].
#[derive(Debug)]
pub struct FaultInjector<T> {
    inner: T,
    options: FaultOptions,
    operation_draws: Xoshiro256PlusPlus,
    post_draws: Xoshiro256PlusPlus,
    posted: u64,
    injected: u64,
    /// An injected error broke the channel; the transport inside doesn't know.
    broken: bool,
    under_way: VecDeque<UnderWay>,
    changes: Vec<Change>,
    remember: bool,
    remembered: HashMap<(RegionKey, u64, u64), Vec<u64>>,
    batch: Vec<WorkRequest>,
}

impl<T: Transport> FaultInjector<T> {
    /// Puts `inner` under the faults of `options`.
    pub fn new(inner: T, options: FaultOptions) -> Result<Self, FaultOptionsError> {
        options.validate()?;
        Ok(FaultInjector {
            inner,
            operation_draws: Xoshiro256PlusPlus::seed_from_u64(options.seed),
            // Another stream, so that refused batches don't shift the faults of operations.
            post_draws: Xoshiro256PlusPlus::seed_from_u64(options.seed ^ 0x9e37_79b9_7f4a_7c15),
            posted: 0,
            injected: 0,
            broken: false,
            under_way: VecDeque::new(),
            changes: Vec::new(),
            remember: options.may_be_stale(),
            remembered: HashMap::new(),
            batch: Vec::new(),
            options,
        })
    }

    /// Faults that took effect on an operation so far.
    pub fn injected(&self) -> u64 {
        self.injected
    }

    /// Operations taken so far: the number of the next one.
    pub fn posted(&self) -> u64 {
        self.posted
    }

    /// The transport inside.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    /// The transport inside, for example to advance its time. Post and poll through the wrapper only.
    pub fn inner_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Takes the wrapper off.
    pub fn into_inner(self) -> T {
        self.inner
    }

    /// What the poster gets to see of a completion of the transport inside.
    fn ending(&mut self, work: UnderWay, completion: Completion) -> Completion {
        let id = completion.id;
        if work.given_up || self.broken {
            return Completion { id, result: Err(TransportError::Flushed) };
        }
        let injected = match work.fault {
            Some(Fault::Unreachable) => Some(TransportError::Unreachable),
            Some(Fault::LocalFault) => Some(TransportError::LocalFault),
            _ => None,
        };
        // What has failed by itself is not made to fail otherwise.
        if let (Some(error), Ok(_)) = (injected, completion.result) {
            self.injected += 1;
            self.broken = true;
            return Completion { id, result: Err(error) };
        }
        if work.fault == Some(Fault::Refused) && completion.result == Err(TransportError::Refused) {
            self.injected += 1;
        }
        if let (Operation::Read { from, into }, Ok(_)) = (work.request.operation, completion.result)
            && (self.remember || work.fault == Some(Fault::CorruptRead))
        {
            self.changes.push(Change { fault: work.fault, bits: work.bits, from, into });
        }
        completion
    }

    /// Changes what READs brought. A buffer that other work still holds can't be looked at by the poster either; its
    /// turn comes when that work is done.
    fn change_data(&mut self) {
        let mut changes = std::mem::take(&mut self.changes);
        changes.retain(|change| {
            let LocalSlice { buffer, offset } = change.into;
            let Ok(words) = self.inner.buffer_mut(buffer) else { return true };
            let Some(data) = words.get_mut(offset..).and_then(|words| words.get_mut(..change.from.words as usize))
            else {
                return false;
            };
            let slice = (change.from.key, change.from.offset, change.from.words);
            match change.fault {
                Some(Fault::CorruptRead) if !data.is_empty() => {
                    let mut bits = Xoshiro256PlusPlus::seed_from_u64(change.bits);
                    for _ in 0..self.options.corrupt_bits {
                        let bit = bits.random_range(0..data.len() * 64);
                        data[bit / 64] ^= 1 << (bit % 64);
                    }
                    self.injected += 1;
                }
                Some(Fault::StaleRead) if self.remembered.contains_key(&slice) => {
                    data.copy_from_slice(&self.remembered[&slice]);
                    self.injected += 1;
                }
                _ if self.remember => {
                    if let Some(memory) = self.remembered.get_mut(&slice) {
                        memory.copy_from_slice(data);
                    } else if self.remembered.len() < self.options.remembered_slices {
                        self.remembered.insert(slice, data.to_vec());
                    }
                }
                _ => {}
            }
            false
        });
        self.changes = changes;
    }
}

/// The same operation under a key that nobody has.
fn misdirected(operation: Operation) -> Operation {
    match operation {
        Operation::Read { from, into } => Operation::Read { from: RemoteSlice { key: NOBODYS_KEY, ..from }, into },
        Operation::Write { from, to } => Operation::Write { from, to: RemoteSlice { key: NOBODYS_KEY, ..to } },
        Operation::CompareSwap { offset, expected, new, .. } => {
            Operation::CompareSwap { key: NOBODYS_KEY, offset, expected, new }
        }
    }
}

impl<T: Transport> Transport for FaultInjector<T> {
    fn allocate(&mut self, words: usize) -> Result<BufferId, PostError> {
        self.inner.allocate(words)
    }
    fn release(&mut self, buffer: BufferId) -> Result<(), PostError> {
        self.inner.release(buffer)
    }
    fn buffer(&self, buffer: BufferId) -> Result<&[u64], PostError> {
        self.inner.buffer(buffer)
    }
    fn buffer_mut(&mut self, buffer: BufferId) -> Result<&mut [u64], PostError> {
        self.inner.buffer_mut(buffer)
    }

    fn post(&mut self, batch: &[WorkRequest]) -> Result<(), PostError> {
        if self.broken {
            return Err(PostError::NotOpen);
        }
        if self.post_draws.random_bool(self.options.refused_post_probability) {
            return Err(PostError::QueueFull { depth: self.under_way.len() });
        }
        self.batch.clear();
        // A batch that is not taken leaves no trace: neither in the numbers of operations nor in their draws.
        let mut draws = self.operation_draws.clone();
        let known = self.under_way.len();
        for (number, request) in (self.posted..).zip(batch) {
            // Two draws for each, used or not, so that one fault doesn't shift the next.
            let (draw, bits) = (draws.random::<f64>(), draws.next_u64());
            let fault = self.options.fault(number, draw);
            let operation =
                if fault == Some(Fault::Refused) { misdirected(request.operation) } else { request.operation };
            self.batch.push(WorkRequest { id: request.id, operation });
            self.under_way.push_back(UnderWay { request: *request, fault, bits, given_up: false });
        }
        if let Err(error) = self.inner.post(&self.batch) {
            self.under_way.truncate(known);
            return Err(error);
        }
        self.operation_draws = draws;
        self.posted += batch.len() as u64;
        Ok(())
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        let before = completions.len();
        self.inner.poll(completions);
        for completion in &mut completions[before..] {
            if let Some(work) = self.under_way.pop_front() {
                *completion = self.ending(work, *completion);
            }
        }
        if !self.changes.is_empty() {
            self.change_data();
        }
    }

    fn channel(&self) -> ChannelState {
        if self.broken { ChannelState::Broken } else { self.inner.channel() }
    }

    fn reopen(&mut self) {
        if self.broken {
            self.under_way.iter_mut().for_each(|work| work.given_up = true);
            self.broken = false;
        }
        self.inner.reopen();
    }
}
