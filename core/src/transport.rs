//! One-sided access to another machine's memory: posted work, polled completions.
//!
//! The shape is that of verbs, the harshest of the substrates. Work is posted in batches and finishes later; what came
//! of it is polled; nothing here blocks. Data of a READ lands in a buffer that the transport owns, because a network
//! card writes only into memory registered with it, and is looked at there. An error may break the channel, as it does
//! a queue pair; then later work is flushed, and the channel is opened anew.
//!
//! Completions tell *refused*, *out of bounds*, *unreachable* and *flushed* apart, because diagnosis depends on it: a
//! silent channel is not a dead node, and a frozen counter behind a healthy channel is.

use std::fmt;
use std::ops::BitOr;

/// What remote operations may do to a region.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rights(u8);

impl Rights {
    /// Nothing.
    pub const NONE: Rights = Rights(0);
    /// READ.
    pub const READ: Rights = Rights(1);
    /// WRITE.
    pub const WRITE: Rights = Rights(2);
    /// Compare-and-swap of single words.
    pub const COMPARE_SWAP: Rights = Rights(4);

    /// Whether all of `other` is granted.
    pub const fn allow(self, other: Rights) -> bool {
        self.0 & other.0 == other.0
    }
    /// Both; `|` for constants.
    pub const fn and(self, other: Rights) -> Self {
        Rights(self.0 | other.0)
    }
    /// As stored in a hook table.
    pub const fn bits(self) -> u8 {
        self.0
    }
    /// From a hook table; `None` if a bit has no meaning.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits < 8 { Some(Rights(bits)) } else { None }
    }
}

impl BitOr for Rights {
    type Output = Rights;
    fn bitor(self, other: Rights) -> Rights {
        self.and(other)
    }
}

impl fmt::Display for Rights {
    /// `r`, `w` and `c` (compare-and-swap), or `-` in their place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |right, letter| if self.allow(right) { letter } else { '-' };
        let text: String =
            [letter(Rights::READ, 'r'), letter(Rights::WRITE, 'w'), letter(Rights::COMPARE_SWAP, 'c')].iter().collect();
        f.pad(&text)
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rights({self})")
    }
}

/// The key under which a region of the node is reachable (verbs: rkey).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionKey(pub u32);

/// Words in a region of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteSlice {
    /// The region.
    pub key: RegionKey,
    /// First word.
    pub offset: u64,
    /// Number of words.
    pub words: u64,
}

impl RemoteSlice {
    /// A part of this slice; `None` if it reaches outside.
    pub fn part(self, offset: u64, words: u64) -> Option<RemoteSlice> {
        let end = offset.checked_add(words)?;
        let start = self.offset.checked_add(offset)?;
        (end <= self.words).then_some(RemoteSlice { key: self.key, offset: start, words })
    }
}

/// A buffer that the transport owns and that its network card can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BufferId(pub u32);

/// Words in a buffer of the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalSlice {
    /// The buffer.
    pub buffer: BufferId,
    /// First word.
    pub offset: usize,
}

impl LocalSlice {
    /// From the start of `buffer`.
    pub const fn start_of(buffer: BufferId) -> Self {
        LocalSlice { buffer, offset: 0 }
    }
}

/// The poster's own number for a piece of work; comes back in its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkId(pub u64);

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Bring words of the node into a local buffer. Atomic per word, not as a whole; and with Soft-RoCE, whose driver may
    /// copy byte by byte, not even per word. Formats carry checksums, and of a counter it only matters that it moved.
    Read {
        /// Remote words.
        from: RemoteSlice,
        /// Where they land.
        into: LocalSlice,
    },
    /// Store words of a local buffer at the node. Atomic per word, not as a whole.
    Write {
        /// Local words.
        from: LocalSlice,
        /// Where they go.
        to: RemoteSlice,
    },
    /// Replace one word of the node if it holds `expected`. Atomic against other remote operations, not against the
    /// node's own processor.
    CompareSwap {
        /// The region.
        key: RegionKey,
        /// The word in it.
        offset: u64,
        /// What it must hold.
        expected: u64,
        /// What it then holds.
        new: u64,
    },
}

impl Operation {
    /// The local words that the operation uses: where they start, and how many; `None` if it uses none.
    pub const fn local(&self) -> Option<(LocalSlice, u64)> {
        match *self {
            Operation::Read { from, into } => Some((into, from.words)),
            Operation::Write { from, to } => Some((from, to.words)),
            Operation::CompareSwap { .. } => None,
        }
    }
}

/// A piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkRequest {
    /// The poster's number.
    pub id: WorkId,
    /// What to do.
    pub operation: Operation,
}

/// What a finished piece of work brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// The words are in the buffer.
    Read,
    /// The words are at the node.
    Written,
    /// What the word held before; the swap happened if that is what was expected.
    CompareSwapped {
        /// The word's earlier value.
        previous: u64,
    },
}

/// Why a piece of work failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TransportError {
    /// The key is unknown, revoked, or does not grant the right.
    #[error("refused: no such region, or not with that right")]
    Refused,
    /// The region is shorter than that. Where the substrate can't tell the two apart, as verbs can't, a transport checks
    /// the bounds that it was told at set-up, and what is left is `Refused`.
    #[error("out of bounds of the region")]
    OutOfBounds,
    /// Nobody answered. The node, its network card, or the way there is gone; which one, this can't tell.
    #[error("unreachable: nobody answered")]
    Unreachable,
    /// Given up because the channel broke: not known to have been executed, and not known not to.
    #[error("flushed: the channel was broken by an earlier error")]
    Flushed,
    /// This side's own network card or link failed. Says nothing about the node.
    #[error("the local network card or link failed")]
    LocalFault,
}

/// The end of a piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The poster's number.
    pub id: WorkId,
    /// What came of it.
    pub result: Result<Done, TransportError>,
}

/// Why work was not taken. Nothing of the batch was posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PostError {
    /// More work under way than the transport holds; poll first.
    #[error("the queue of {depth} operations is full")]
    QueueFull {
        /// Operations that fit.
        depth: usize,
    },
    /// No such buffer, or not that long; or to be looked at, changed or released while work on it is under way.
    #[error("buffer {buffer} is missing, too short, or in use by work under way")]
    Buffer {
        /// Number of the buffer.
        buffer: u32,
    },
    /// The channel is broken or not open yet.
    #[error("the channel is not open")]
    NotOpen,
    /// No memory for another buffer.
    #[error("no memory for a buffer of {words} words")]
    OutOfMemory {
        /// Words asked for.
        words: usize,
    },
}

/// Whether work can be posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelState {
    /// Yes.
    Open,
    /// Not yet: [`Transport::reopen`] is at work.
    Opening,
    /// No: an error broke it.
    Broken,
}

/// One-sided access to the memory of one node.
///
/// # Rules that every transport keeps
/// - Every posted operation completes once: done, failed, or flushed. Completions come in the order of posting.
/// - Work is under way until its completion was polled. A buffer with a READ or WRITE under way can be neither looked
///   at, changed, nor released; several operations may use parts of it at the same time.
/// - The number of a released buffer does not name a later one.
/// - Operations take effect in the order of posting: what a READ brings is no older than what the one before it brought.
/// - Work posted as one batch is taken whole or not at all.
/// - A READ or WRITE of no words succeeds within bounds and rights.
/// - Nothing blocks.
pub trait Transport {
    /// Makes a zeroed buffer of `words` words.
    fn allocate(&mut self, words: usize) -> Result<BufferId, PostError>;

    /// Gives a buffer back.
    fn release(&mut self, buffer: BufferId) -> Result<(), PostError>;

    /// The words of a buffer, in place.
    fn buffer(&self, buffer: BufferId) -> Result<&[u64], PostError>;

    /// The words of a buffer, to fill before a WRITE.
    fn buffer_mut(&mut self, buffer: BufferId) -> Result<&mut [u64], PostError>;

    /// Posts a batch.
    fn post(&mut self, batch: &[WorkRequest]) -> Result<(), PostError>;

    /// Appends what has finished since the last call.
    fn poll(&mut self, completions: &mut Vec<Completion>);

    /// Whether work can be posted.
    fn channel(&self) -> ChannelState;

    /// Starts to open the channel anew; no effect on one that is opening already. Work under way is flushed first; buffers
    /// stay. An attempt may fail, and leaves the channel broken.
    fn reopen(&mut self);
}

impl<T: Transport + ?Sized> Transport for &mut T {
    fn allocate(&mut self, words: usize) -> Result<BufferId, PostError> {
        (**self).allocate(words)
    }
    fn release(&mut self, buffer: BufferId) -> Result<(), PostError> {
        (**self).release(buffer)
    }
    fn buffer(&self, buffer: BufferId) -> Result<&[u64], PostError> {
        (**self).buffer(buffer)
    }
    fn buffer_mut(&mut self, buffer: BufferId) -> Result<&mut [u64], PostError> {
        (**self).buffer_mut(buffer)
    }
    fn post(&mut self, batch: &[WorkRequest]) -> Result<(), PostError> {
        (**self).post(batch)
    }
    fn poll(&mut self, completions: &mut Vec<Completion>) {
        (**self).poll(completions)
    }
    fn channel(&self) -> ChannelState {
        (**self).channel()
    }
    fn reopen(&mut self) {
        (**self).reopen()
    }
}

impl<T: Transport + ?Sized> Transport for Box<T> {
    fn allocate(&mut self, words: usize) -> Result<BufferId, PostError> {
        (**self).allocate(words)
    }
    fn release(&mut self, buffer: BufferId) -> Result<(), PostError> {
        (**self).release(buffer)
    }
    fn buffer(&self, buffer: BufferId) -> Result<&[u64], PostError> {
        (**self).buffer(buffer)
    }
    fn buffer_mut(&mut self, buffer: BufferId) -> Result<&mut [u64], PostError> {
        (**self).buffer_mut(buffer)
    }
    fn post(&mut self, batch: &[WorkRequest]) -> Result<(), PostError> {
        (**self).post(batch)
    }
    fn poll(&mut self, completions: &mut Vec<Completion>) {
        (**self).poll(completions)
    }
    fn channel(&self) -> ChannelState {
        (**self).channel()
    }
    fn reopen(&mut self) {
        (**self).reopen()
    }
}
