//! [`Transport`] over mapped memory: the monitor's side.
//!
//! Work is done when it is polled for, not when it is posted: that is as late as possible, so the words are as fresh as
//! they can be, and a poster that does not poll sees its queue fill up, as with a network card. No error breaks this
//! channel; there is nothing in it that could break.

use std::collections::{BTreeMap, VecDeque};

use backdoor_core::transport::{
    BufferId, ChannelState, Completion, Done, LocalSlice, Operation, PostError, RegionKey, RemoteSlice, Rights,
    Transport, TransportError, WorkRequest,
};
use backdoor_core::words::{AtomicU64, Ordering};

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

#[derive(Debug)]
struct Buffer {
    words: Vec<u64>,
    /// Operations under way that use it.
    users: usize,
}

/// One-sided access to memory that another process shares with this one.
///
/// A READ of 4096 words costs about 1.3 times a `memcpy` of as much; the ignored test `read_cost` measures it.
#[derive(Debug)]
pub struct ShmTransport {
    regions: BTreeMap<RegionKey, Region>,
    buffers: Vec<Option<Buffer>>,
    queue: VecDeque<WorkRequest>,
    depth: usize,
}

impl ShmTransport {
    /// Without regions, for at most `depth` operations under way.
    pub fn new(depth: usize) -> Self {
        ShmTransport { regions: BTreeMap::new(), buffers: Vec::new(), queue: VecDeque::with_capacity(depth), depth }
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

    fn get(&self, id: BufferId) -> Result<&Buffer, PostError> {
        self.buffers.get(id.0 as usize).and_then(Option::as_ref).ok_or(PostError::Buffer { buffer: id.0 })
    }

    fn idle(&self, id: BufferId) -> Result<&Buffer, PostError> {
        self.get(id)
            .and_then(|buffer| if buffer.users == 0 { Ok(buffer) } else { Err(PostError::Buffer { buffer: id.0 }) })
    }

    fn perform(&mut self, operation: Operation) -> Result<Done, TransportError> {
        match operation {
            Operation::Read { from, into } => {
                let (region, range) = remote(&self.regions, from, Rights::READ)?;
                let buffer = local(&mut self.buffers, into, range.len())?;
                match &region.memory {
                    Memory::ReadOnly(words) => words.copy_to(range, buffer),
                    Memory::Shared(words) => copy_words(&words[range], buffer),
                }
                Ok(Done::Read)
            }
            Operation::Write { from, to } => {
                let (region, range) = remote(&self.regions, to, Rights::WRITE)?;
                let buffer = local(&mut self.buffers, from, range.len())?;
                for (word, value) in region.memory.writable()?[range].iter().zip(&*buffer) {
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

/// The buffer that an operation uses, and how many of its words from where.
fn local_part(operation: &Operation) -> Option<(LocalSlice, u64)> {
    match *operation {
        Operation::Read { from, into } => Some((into, from.words)),
        Operation::Write { from, to } => Some((from, to.words)),
        Operation::CompareSwap { .. } => None,
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

/// Posting has checked that this part exists, and a buffer in use can't be released; if it were missing all the same,
/// the fault would be on this side.
fn local(buffers: &mut [Option<Buffer>], slice: LocalSlice, words: usize) -> Result<&mut [u64], TransportError> {
    let buffer = buffers.get_mut(slice.buffer.0 as usize).and_then(Option::as_mut);
    buffer.and_then(|buffer| buffer.words.get_mut(slice.offset..)?.get_mut(..words)).ok_or(TransportError::LocalFault)
}

impl Transport for ShmTransport {
    fn allocate(&mut self, words: usize) -> Result<BufferId, PostError> {
        let mut memory = Vec::new();
        memory.try_reserve_exact(words).map_err(|_| PostError::OutOfMemory { words })?;
        memory.resize(words, 0);
        let buffer = Some(Buffer { words: memory, users: 0 });
        let index = self.buffers.iter().position(Option::is_none).unwrap_or(self.buffers.len());
        let id = u32::try_from(index).map_err(|_| PostError::OutOfMemory { words })?;
        match self.buffers.get_mut(index) {
            Some(free) => *free = buffer,
            None => self.buffers.push(buffer),
        }
        Ok(BufferId(id))
    }

    fn release(&mut self, buffer: BufferId) -> Result<(), PostError> {
        self.idle(buffer)?;
        self.buffers[buffer.0 as usize] = None;
        Ok(())
    }

    fn buffer(&self, buffer: BufferId) -> Result<&[u64], PostError> {
        self.idle(buffer).map(|buffer| &buffer.words[..])
    }

    fn buffer_mut(&mut self, buffer: BufferId) -> Result<&mut [u64], PostError> {
        self.idle(buffer)?;
        let found = self.buffers[buffer.0 as usize].as_mut();
        found.map(|found| &mut found.words[..]).ok_or(PostError::Buffer { buffer: buffer.0 })
    }

    fn post(&mut self, batch: &[WorkRequest]) -> Result<(), PostError> {
        if batch.len() > self.depth - self.queue.len() {
            return Err(PostError::QueueFull { depth: self.depth });
        }
        for (slice, words) in batch.iter().filter_map(|work| local_part(&work.operation)) {
            let room = self.get(slice.buffer)?.words.len().checked_sub(slice.offset);
            if room.is_none_or(|room| words > room as u64) {
                return Err(PostError::Buffer { buffer: slice.buffer.0 });
            }
        }
        for work in batch {
            if let Some((slice, _)) = local_part(&work.operation)
                && let Some(buffer) = &mut self.buffers[slice.buffer.0 as usize]
            {
                buffer.users += 1;
            }
            self.queue.push_back(*work);
        }
        Ok(())
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        while let Some(WorkRequest { id, operation }) = self.queue.pop_front() {
            let result = self.perform(operation);
            if let Some((slice, _)) = local_part(&operation)
                && let Some(buffer) = &mut self.buffers[slice.buffer.0 as usize]
            {
                buffer.users -= 1;
            }
            completions.push(Completion { id, result });
        }
    }

    fn channel(&self) -> ChannelState {
        ChannelState::Open
    }

    fn reopen(&mut self) {
        // Never broken. Work under way is not flushed either: it completes at the next poll, which is no worse.
    }
}
