//! A transport over plain words in this process, for tests of what is built on [`Transport`].
//!
//! It keeps the trait's rules and nothing more: completions in the order of posting, buffers out of reach while work on
//! them is under way. What happens to the memory between two READs, and when work completes, is the test's choice.

#![allow(unreachable_pub, reason = "a module of each test that uses it")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use backdoor_core::transport::{
    BufferId, ChannelState, Completion, Done, Operation, PostError, RegionKey, Transport, TransportError, WorkRequest,
};
use backdoor_core::words::{AtomicU64, Ordering, zeroed};

pub type Words = Arc<[AtomicU64]>;

pub fn words(count: usize) -> Words {
    zeroed(count).into()
}

#[derive(Default)]
struct Buffer {
    words: Vec<u64>,
    holders: usize,
}

/// The memory of a node, and the way to it.
#[derive(Default)]
pub struct InMemory {
    pub regions: BTreeMap<RegionKey, Words>,
    /// Work completes only while this is not set.
    pub held_back: bool,
    /// The next work to complete fails like this, and breaks the channel.
    pub fault: Option<TransportError>,
    /// Changes memory, before each READ that is executed.
    pub before_read: Option<Box<dyn FnMut()>>,
    /// READs executed.
    pub reads: usize,
    buffers: BTreeMap<u32, Buffer>,
    next_buffer: u32,
    queue: VecDeque<(WorkRequest, bool)>,
    broken: bool,
}

impl InMemory {
    /// Buffers that were allocated and not released.
    pub fn buffers(&self) -> usize {
        self.buffers.len()
    }

    fn perform(&mut self, work: &WorkRequest) -> Result<Done, TransportError> {
        let Operation::Read { from, into } = work.operation else { panic!("a monitor only reads: {work:?}") };
        if let Some(error) = self.fault.take() {
            self.broken = true;
            return Err(error);
        }
        if let Some(before_read) = &mut self.before_read {
            before_read();
        }
        self.reads += 1;
        let region = self.regions.get(&from.key).ok_or(TransportError::Refused)?;
        let range = from.offset as usize..(from.offset + from.words) as usize;
        let words = region.get(range).ok_or(TransportError::OutOfBounds)?;
        let buffer = self.buffers.get_mut(&into.buffer.0).expect("held");
        for (copy, word) in buffer.words[into.offset..].iter_mut().zip(words) {
            *copy = word.load(Ordering::Relaxed);
        }
        Ok(Done::Read)
    }

    fn idle(&self, buffer: BufferId) -> Result<&Buffer, PostError> {
        let refused = PostError::Buffer { buffer: buffer.0 };
        self.buffers.get(&buffer.0).filter(|buffer| buffer.holders == 0).ok_or(refused)
    }
}

impl Transport for InMemory {
    fn allocate(&mut self, words: usize) -> Result<BufferId, PostError> {
        self.next_buffer += 1;
        self.buffers.insert(self.next_buffer, Buffer { words: vec![0; words], holders: 0 });
        Ok(BufferId(self.next_buffer))
    }

    fn release(&mut self, buffer: BufferId) -> Result<(), PostError> {
        self.idle(buffer)?;
        self.buffers.remove(&buffer.0);
        Ok(())
    }

    fn buffer(&self, buffer: BufferId) -> Result<&[u64], PostError> {
        Ok(&self.idle(buffer)?.words)
    }

    fn buffer_mut(&mut self, buffer: BufferId) -> Result<&mut [u64], PostError> {
        self.idle(buffer)?;
        Ok(&mut self.buffers.get_mut(&buffer.0).expect("idle").words)
    }

    fn post(&mut self, batch: &[WorkRequest]) -> Result<(), PostError> {
        if self.broken {
            return Err(PostError::NotOpen);
        }
        for work in batch {
            let (local, words) = work.operation.local().expect("a monitor only reads");
            let buffer = self.buffers.get_mut(&local.buffer.0).expect("a buffer that was released is in use");
            assert!(local.offset + words as usize <= buffer.words.len(), "{work:?} reaches outside its buffer");
            buffer.holders += 1;
            self.queue.push_back((*work, false));
        }
        Ok(())
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        while let Some((work, flushed)) = self.queue.front().copied() {
            if self.held_back && !flushed {
                break;
            }
            self.queue.pop_front();
            let flushed = flushed || self.broken;
            let result = if flushed { Err(TransportError::Flushed) } else { self.perform(&work) };
            let (local, _) = work.operation.local().expect("a READ");
            self.buffers.get_mut(&local.buffer.0).expect("held").holders -= 1;
            completions.push(Completion { id: work.id, result });
        }
    }

    fn channel(&self) -> ChannelState {
        if self.broken { ChannelState::Broken } else { ChannelState::Open }
    }

    fn reopen(&mut self) {
        self.queue.iter_mut().for_each(|(_, flushed)| *flushed = true);
        self.broken = false;
    }
}
