//! A wrapper that counts what passes through a transport, and shows it if asked.
//!
//! What a monitor costs is what it reads: the counts are the "bytes read" of the experiments. The sink gets every
//! finished operation, as a value and, by its `Display`, as a line of text for people.

use std::collections::VecDeque;
use std::fmt;

use backdoor_core::transport::{
    BufferId, ChannelState, Completion, Done, Operation, PostError, Transport, TransportError, WorkRequest,
};
use backdoor_core::words::WORD_BYTES;

/// Operations of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindCounts {
    /// Taken by the transport.
    pub posted: u64,
    /// Ended well.
    pub done: u64,
    /// Words moved by those that ended well.
    pub words: u64,
}

impl KindCounts {
    /// Bytes moved by operations that ended well.
    pub fn bytes(&self) -> u64 {
        self.words * WORD_BYTES as u64
    }
}

/// Operations that ended badly, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorCounts {
    /// [`TransportError::Refused`].
    pub refused: u64,
    /// [`TransportError::OutOfBounds`].
    pub out_of_bounds: u64,
    /// [`TransportError::Unreachable`].
    pub unreachable: u64,
    /// [`TransportError::Flushed`].
    pub flushed: u64,
    /// [`TransportError::LocalFault`].
    pub local_fault: u64,
}

impl ErrorCounts {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.refused + self.out_of_bounds + self.unreachable + self.flushed + self.local_fault
    }

    fn of(&mut self, error: TransportError) -> &mut u64 {
        match error {
            TransportError::Refused => &mut self.refused,
            TransportError::OutOfBounds => &mut self.out_of_bounds,
            TransportError::Unreachable => &mut self.unreachable,
            TransportError::Flushed => &mut self.flushed,
            TransportError::LocalFault => &mut self.local_fault,
        }
    }
}

/// What passed through a [`Tracer`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// READs.
    pub reads: KindCounts,
    /// WRITEs.
    pub writes: KindCounts,
    /// Compare-and-swaps, whether or not they swapped.
    pub compare_swaps: KindCounts,
    /// Failed operations of all kinds.
    pub errors: ErrorCounts,
    /// Batches taken.
    pub batches: u64,
    /// Batches not taken.
    pub refused_posts: u64,
    /// Calls of `reopen`.
    pub reopens: u64,
}

impl Counts {
    fn kind(&mut self, operation: &Operation) -> &mut KindCounts {
        match operation {
            Operation::Read { .. } => &mut self.reads,
            Operation::Write { .. } => &mut self.writes,
            Operation::CompareSwap { .. } => &mut self.compare_swaps,
        }
    }
}

/// One finished operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traced {
    /// Counts operations in the order of posting, from 0.
    pub number: u64,
    /// What was asked for.
    pub request: WorkRequest,
    /// What came of it.
    pub result: Result<Done, TransportError>,
}

impl fmt::Display for Traced {
    /// `#7 READ key 0x1000 words 0..64: done`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} ", self.number)?;
        match self.request.operation {
            Operation::Read { from: slice, .. } | Operation::Write { to: slice, .. } => {
                let name = if matches!(self.request.operation, Operation::Read { .. }) { "READ" } else { "WRITE" };
                let end = slice.offset.saturating_add(slice.words);
                write!(f, "{name} key {:#x} words {}..{end}: ", slice.key.0, slice.offset)?;
            }
            Operation::CompareSwap { key, offset, expected, new } => {
                write!(f, "COMPARE_SWAP key {:#x} word {offset}, {expected:#x} to {new:#x}: ", key.0)?;
            }
        }
        match self.result {
            Ok(Done::Read | Done::Written) => f.write_str("done"),
            Ok(Done::CompareSwapped { previous }) => write!(f, "held {previous:#x}"),
            Err(error) => write!(f, "{error}"),
        }
    }
}

/// A transport that counts what passes through it.
///
/// ```
/// # use backdoor_core::{Nanos, transport::*, words::zeroed};
/// # use backdoor_transports::sim_nic::{FixedPath, SimChannel, SimNicConfig, SimNode};
/// use backdoor_transports::Tracer;
/// # let node = SimNode::new();
/// # let key = node.register(zeroed(8), Rights::READ)?;
/// # let channel = SimChannel::connect(&node, FixedPath::new(Nanos(1)), SimNicConfig::default())?;
/// let mut lines = Vec::new();
/// let mut tracer = Tracer::with_sink(channel, |traced| lines.push(traced.to_string()));
/// let into = LocalSlice::start_of(tracer.allocate(8)?);
/// let from = RemoteSlice { key, offset: 0, words: 8 };
/// tracer.post(&[WorkRequest { id: WorkId(1), operation: Operation::Read { from, into } }])?;
/// tracer.inner_mut().advance_to(Nanos::from_millis(1));
/// tracer.poll(&mut Vec::new());
///
/// assert_eq!(tracer.counts().reads.bytes(), 64);
/// drop(tracer);
/// assert_eq!(lines, ["#0 READ key 0x1000 words 0..8: done"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Tracer<T, S = fn(&Traced)> {
    inner: T,
    sink: S,
    counts: Counts,
    /// Numbered requests that were taken and have not come back.
    under_way: VecDeque<(u64, WorkRequest)>,
    posted: u64,
}

impl<T: fmt::Debug, S> fmt::Debug for Tracer<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").field("inner", &self.inner).field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl<T> Tracer<T> {
    /// Counts only.
    pub fn new(inner: T) -> Self {
        Tracer::with_sink(inner, |_| {})
    }
}

impl<T, S: FnMut(&Traced)> Tracer<T, S> {
    /// Counts, and hands each finished operation to `sink` when it is polled.
    pub fn with_sink(inner: T, sink: S) -> Self {
        Tracer { inner, sink, counts: Counts::default(), under_way: VecDeque::new(), posted: 0 }
    }
}

impl<T, S> Tracer<T, S> {
    /// What passed so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The counts, which start from zero again.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// The transport inside.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    /// The transport inside. What is posted or polled there directly is not counted.
    pub fn inner_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Takes the wrapper off.
    pub fn into_inner(self) -> T {
        self.inner
    }
}

fn words_of(operation: &Operation) -> u64 {
    match operation {
        Operation::Read { from: slice, .. } | Operation::Write { to: slice, .. } => slice.words,
        Operation::CompareSwap { .. } => 1,
    }
}

impl<T: Transport, S: FnMut(&Traced)> Transport for Tracer<T, S> {
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
        if let Err(error) = self.inner.post(batch) {
            self.counts.refused_posts += 1;
            return Err(error);
        }
        self.counts.batches += 1;
        for request in batch {
            self.counts.kind(&request.operation).posted += 1;
            self.under_way.push_back((self.posted, *request));
            self.posted += 1;
        }
        Ok(())
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        let before = completions.len();
        self.inner.poll(completions);
        for completion in &completions[before..] {
            // Completions come in the order of posting; that a transport may be wrong about it shall still be seen.
            let at = self.under_way.iter().position(|(_, request)| request.id == completion.id);
            let Some((number, request)) = at.and_then(|at| self.under_way.remove(at)) else { continue };
            match completion.result {
                Ok(_) => {
                    let kind = self.counts.kind(&request.operation);
                    kind.done += 1;
                    kind.words += words_of(&request.operation);
                }
                Err(error) => *self.counts.errors.of(error) += 1,
            }
            (self.sink)(&Traced { number, request, result: completion.result });
        }
    }

    fn channel(&self) -> ChannelState {
        self.inner.channel()
    }

    fn reopen(&mut self) {
        self.counts.reopens += 1;
        self.inner.reopen();
    }
}
