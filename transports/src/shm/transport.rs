//! [`Transport`] over mapped memory: the monitor's side.
//!
//! Work is done when it is polled for, not when it is posted: that is as late as possible, so the words are as fresh as
//! they can be, and a poster that does not poll sees its queue fill up, as with a network card. No error breaks this
//! channel; there is nothing in it that could break.

use std::collections::{BTreeMap, VecDeque};

use backdoor_core::transport::{
    BufferId, ChannelState, Completion, Done, Operation, PostError, RegionKey, RemoteSlice, Rights, Transport,
    TransportError, WorkId, WorkRequest,
};
use backdoor_core::words::{AtomicU64, Ordering, fence};

use crate::buffers::Buffers;

use super::mapping::{ReadOnlyWords, SharedWords, copy_words};

/// Why a region can't be offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// Two regions under one key.
    #[error("region key {0} is taken")]
    KeyTaken(u32),
    /// Rights that page protection would turn into a fatal fault.
    #[error("rights {0} need memory mapped for writing")]
    ReadOnly(Rights),
}

#[derive(Debug)]
enum Memory {
    ReadOnly(ReadOnlyWords),
    Shared(SharedWords),
}

#[derive(Debug)]
struct Region {
    memory: Memory,
    rights: Rights,
}

/// One-sided access to memory that another process shares with this one.
///
/// A READ of 4096 words costs about 1.3 times a `memcpy` of as much; the ignored test `read_cost` measures it.
#[derive(Debug)]
pub struct ShmTransport {
    regions: BTreeMap<RegionKey, Region>,
    buffers: Buffers,
    queue: VecDeque<WorkRequest>,
    /// Work that reopening gave up; their completions are polled first, for they were posted first.
    flushed: Vec<WorkId>,
    depth: usize,
}

impl ShmTransport {
    /// Without regions, for at most `depth` operations under way.
    pub fn new(depth: usize) -> Self {
        let (regions, buffers) = (BTreeMap::new(), Buffers::default());
        ShmTransport { regions, buffers, queue: VecDeque::with_capacity(depth), flushed: Vec::new(), depth }
    }

    /// Offers memory mapped for reading. The rights can't go beyond READ.
    pub fn add_read_only(&mut self, key: RegionKey, words: ReadOnlyWords, rights: Rights) -> Result<(), RegionError> {
        if !Rights::READ.allow(rights) {
            return Err(RegionError::ReadOnly(rights));
        }
        self.add(key, Region { memory: Memory::ReadOnly(words), rights })
    }

    /// Offers memory mapped for writing.
    pub fn add_shared(&mut self, key: RegionKey, words: SharedWords, rights: Rights) -> Result<(), RegionError> {
        self.add(key, Region { memory: Memory::Shared(words), rights })
    }

    fn add(&mut self, key: RegionKey, region: Region) -> Result<(), RegionError> {
        if self.regions.contains_key(&key) {
            return Err(RegionError::KeyTaken(key.0));
        }
        self.regions.insert(key, region);
        Ok(())
    }

    /// Length in words of the region under `key`.
    pub fn region_words(&self, key: RegionKey) -> Option<usize> {
        self.regions.get(&key).map(|region| region.memory.len())
    }

    fn perform(&mut self, operation: Operation) -> Result<Done, TransportError> {
        match operation {
            Operation::Read { from, into } => {
                let (region, range) = remote(&self.regions, from, Rights::READ)?;
                let buffer = &mut self.buffers.held_mut(into.buffer)[into.offset..][..range.len()];
                match &region.memory {
                    Memory::ReadOnly(words) => words.copy_to(range, buffer),
                    Memory::Shared(words) => copy_words(&words[range], buffer),
                }
                Ok(Done::Read)
            }
            Operation::Write { from, to } => {
                let (region, range) = remote(&self.regions, to, Rights::WRITE)?;
                let buffer = &self.buffers.held_mut(from.buffer)[from.offset..][..range.len()];
                let words = &region.memory.writable()?[range];
                // Nobody sees these words without those of the operations before.
                fence(Ordering::Release);
                for (word, value) in words.iter().zip(buffer) {
                    word.store(*value, Ordering::Relaxed);
                }
                Ok(Done::Written)
            }
            Operation::CompareSwap { key, offset, expected, new } => {
                let word = RemoteSlice { key, offset, words: 1 };
                let (region, range) = remote(&self.regions, word, Rights::COMPARE_SWAP)?;
                let word = &region.memory.writable()?[range.start];
                let previous = match word.compare_exchange(expected, new, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(previous) | Err(previous) => previous,
                };
                Ok(Done::CompareSwapped { previous })
            }
        }
    }
}

impl Memory {
    fn len(&self) -> usize {
        match self {
            Memory::ReadOnly(words) => words.len(),
            Memory::Shared(words) => words.len(),
        }
    }

    fn writable(&self) -> Result<&[AtomicU64], TransportError> {
        match self {
            Memory::ReadOnly(_) => Err(TransportError::Refused),
            Memory::Shared(words) => Ok(words),
        }
    }
}

fn remote(
    regions: &BTreeMap<RegionKey, Region>,
    slice: RemoteSlice,
    right: Rights,
) -> Result<(&Region, std::ops::Range<usize>), TransportError> {
    let region = regions.get(&slice.key).filter(|region| region.rights.allow(right)).ok_or(TransportError::Refused)?;
    let end = slice.offset.checked_add(slice.words).filter(|end| *end <= region.memory.len() as u64);
    let end = end.ok_or(TransportError::OutOfBounds)?;
    Ok((region, slice.offset as usize..end as usize))
}

impl Transport for ShmTransport {
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

    fn post(&mut self, batch: &[WorkRequest]) -> Result<(), PostError> {
        if batch.len() > self.depth - self.queue.len() {
            return Err(PostError::QueueFull { depth: self.depth });
        }
        for (slice, words) in batch.iter().filter_map(|work| work.operation.local()) {
            self.buffers.check(slice.buffer, slice.offset, words)?;
        }
        for work in batch {
            if let Some((slice, _)) = work.operation.local() {
                self.buffers.hold(slice.buffer);
            }
            self.queue.push_back(*work);
        }
        Ok(())
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        let flushed = self.flushed.drain(..);
        completions.extend(flushed.map(|id| Completion { id, result: Err(TransportError::Flushed) }));
        while let Some(WorkRequest { id, operation }) = self.queue.pop_front() {
            let result = self.perform(operation);
            if let Some((slice, _)) = operation.local() {
                self.buffers.let_go(slice.buffer);
            }
            completions.push(Completion { id, result });
        }
    }

    fn channel(&self) -> ChannelState {
        ChannelState::Open
    }

    fn reopen(&mut self) {
        for work in self.queue.drain(..) {
            if let Some((slice, _)) = work.operation.local() {
                self.buffers.let_go(slice.buffer);
            }
            self.flushed.push(work.id);
        }
    }
}
