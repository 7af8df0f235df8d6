//! The buffers of a transport: who may look at one, and when.
//!
//! A buffer belongs to the network card from the moment work on it is posted until the completion of that work was
//! polled; until then it can be neither looked at, changed, nor released. Several operations may use parts of one
//! buffer at the same time, as verbs allow, so each buffer counts the operations that hold it.

use backdoor_core::transport::{BufferId, PostError};

/// Bits of a buffer's number that say where it lies; the rest say which use of that place it is, so that the number of
/// a released buffer does not name the next one.
const SLOT_BITS: u32 = 18;
const SLOT_MASK: u32 = (1 << SLOT_BITS) - 1;

/// What buffers are made of: ordinary memory, or memory that a network card knows.
pub(crate) trait BufferMemory {
    /// Its length, whoever writes to it.
    fn length(&self) -> usize;
    fn words(&self) -> &[u64];
    fn words_mut(&mut self) -> &mut [u64];
}

impl BufferMemory for Vec<u64> {
    fn length(&self) -> usize {
        self.len()
    }
    fn words(&self) -> &[u64] {
        self
    }
    fn words_mut(&mut self) -> &mut [u64] {
        self
    }
}

#[derive(Debug)]
struct Slot<M> {
    generation: u32,
    memory: Option<M>,
    holders: u32,
}

/// Buffers by number.
#[derive(Debug)]
pub(crate) struct Buffers<M = Vec<u64>> {
    slots: Vec<Slot<M>>,
    free: Vec<u32>,
}

impl<M> Default for Buffers<M> {
    fn default() -> Self {
        Buffers { slots: Vec::new(), free: Vec::new() }
    }
}

fn refused(buffer: BufferId) -> PostError {
    PostError::Buffer { buffer: buffer.0 }
}

impl Buffers {
    /// A buffer of ordinary memory.
    pub(crate) fn allocate(&mut self, words: usize) -> Result<BufferId, PostError> {
        let mut memory = Vec::new();
        memory.try_reserve_exact(words).map_err(|_| PostError::OutOfMemory { words })?;
        memory.resize(words, 0);
        self.add(memory)
    }
}

impl<M: BufferMemory> Buffers<M> {
    /// A buffer of this memory, zeroed.
    pub(crate) fn add(&mut self, memory: M) -> Result<BufferId, PostError> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = self.slots.len() as u32;
                if index > SLOT_MASK {
                    return Err(PostError::OutOfMemory { words: memory.length() });
                }
                self.slots.push(Slot { generation: 0, memory: None, holders: 0 });
                index
            }
        };
        let slot = &mut self.slots[index as usize];
        slot.memory = Some(memory);
        Ok(BufferId(slot.generation << SLOT_BITS | index))
    }

    pub(crate) fn release(&mut self, buffer: BufferId) -> Result<(), PostError> {
        self.idle(buffer)?;
        let slot = self.slot_mut(buffer).ok_or(refused(buffer))?;
        slot.memory = None;
        slot.generation = (slot.generation + 1) & (u32::MAX >> SLOT_BITS);
        self.free.push(buffer.0 & SLOT_MASK);
        Ok(())
    }

    /// The words, if nothing holds the buffer.
    pub(crate) fn idle(&self, buffer: BufferId) -> Result<&[u64], PostError> {
        match self.slot(buffer) {
            Some(Slot { memory: Some(memory), holders: 0, .. }) => Ok(memory.words()),
            _ => Err(refused(buffer)),
        }
    }

    /// The words, if nothing holds the buffer.
    pub(crate) fn idle_mut(&mut self, buffer: BufferId) -> Result<&mut [u64], PostError> {
        match self.slot_mut(buffer) {
            Some(Slot { memory: Some(memory), holders: 0, .. }) => Ok(memory.words_mut()),
            _ => Err(refused(buffer)),
        }
    }

    /// Whether the buffer is there and that long.
    pub(crate) fn check(&self, buffer: BufferId, offset: usize, words: u64) -> Result<(), PostError> {
        let length = self.memory(buffer).ok_or(refused(buffer))?.length();
        let end = usize::try_from(words).ok().and_then(|words| offset.checked_add(words));
        if end.is_some_and(|end| end <= length) { Ok(()) } else { Err(refused(buffer)) }
    }

    /// One more operation uses the buffer, which was checked.
    pub(crate) fn hold(&mut self, buffer: BufferId) {
        if let Some(slot) = self.slot_mut(buffer) {
            slot.holders += 1;
        }
    }

    /// An operation has let go of the buffer.
    pub(crate) fn let_go(&mut self, buffer: BufferId) {
        if let Some(slot) = self.slot_mut(buffer) {
            slot.holders -= 1;
        }
    }

    /// The memory behind a buffer, whoever holds it: not to be looked into while somebody does.
    pub(crate) fn memory(&self, buffer: BufferId) -> Option<&M> {
        self.slot(buffer)?.memory.as_ref()
    }

    /// The network card's own access to a buffer that work under way holds.
    ///
    /// # Panics
    /// If the buffer is gone: [`Buffers::hold`] keeps it.
    pub(crate) fn held_mut(&mut self, buffer: BufferId) -> &mut [u64] {
        let memory = self.slot_mut(buffer).and_then(|slot| slot.memory.as_mut());
        memory.expect("work under way holds its buffer").words_mut()
    }

    fn slot(&self, buffer: BufferId) -> Option<&Slot<M>> {
        self.slots.get((buffer.0 & SLOT_MASK) as usize).filter(|slot| slot.generation == buffer.0 >> SLOT_BITS)
    }

    fn slot_mut(&mut self, buffer: BufferId) -> Option<&mut Slot<M>> {
        self.slots.get_mut((buffer.0 & SLOT_MASK) as usize).filter(|slot| slot.generation == buffer.0 >> SLOT_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_released_buffer_does_not_name_the_next() {
        let mut buffers = <Buffers>::default();
        let first = buffers.allocate(4).unwrap();
        buffers.idle_mut(first).unwrap()[0] = 9;
        buffers.release(first).unwrap();
        let second = buffers.allocate(4).unwrap();
        assert_ne!(first, second);
        assert_eq!(buffers.idle(first), Err(refused(first)));
        assert_eq!(buffers.idle(second), Ok(&[0; 4][..]));
        assert_eq!(buffers.release(first), Err(refused(first)));
    }

    #[test]
    fn a_buffer_is_free_when_the_last_of_its_holders_let_go() {
        let mut buffers = <Buffers>::default();
        let buffer = buffers.allocate(4).unwrap();
        buffers.hold(buffer);
        buffers.hold(buffer);
        buffers.let_go(buffer);
        assert!(buffers.idle(buffer).is_err());
        buffers.let_go(buffer);
        assert!(buffers.idle(buffer).is_ok());
    }

    #[test]
    fn lengths_that_wrap_around_are_refused() {
        let mut buffers = <Buffers>::default();
        let buffer = buffers.allocate(4).unwrap();
        assert!(buffers.check(buffer, 4, 0).is_ok());
        for (offset, words) in [(0, 5), (5, 0), (usize::MAX, 2), (2, u64::MAX)] {
            assert!(buffers.check(buffer, offset, words).is_err(), "{offset} + {words}");
        }
        assert!(matches!(buffers.allocate(usize::MAX), Err(PostError::OutOfMemory { .. })));
    }
}
