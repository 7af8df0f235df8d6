//! Memory that a network card knows. One of the three modules of this backend with unsafe code.
//!
//! # Why this is sound
//! A registration lets the card read and write memory behind the compiler's back, until it is given up.
//! - [`Registered`] memory is the transport's own: allocated here, never moved, reached through a raw pointer. The card
//!   writes to it only while work on it is under way; meanwhile nobody holds a reference to it, which
//!   [`Buffers`](crate::buffers::Buffers) sees to.
//! - A [`Region`] is the node's memory: words that are only ever accessed as atomics, mapped from a sealed file. What a
//!   card does to them is what another process could do.
//!
//! In both, the registration is given up before the memory is. The library does not tell whether the system did that; it
//! fails where the card was taken away, and then nothing writes any more.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::Arc;

use backdoor_core::transport::{RegionKey, Rights};
use backdoor_core::words::WORD_BYTES;
use sideway::ibverbs::AccessFlags;
use sideway::ibverbs::memory_region::MemoryRegion;

use super::address::RemoteRegion;
use super::device::Device;
use super::error::{VerbsError, chain};
use crate::buffers::BufferMemory;
use crate::shm::SharedWords;

/// Words of our own that the card may write into.
#[derive(Debug)]
pub(super) struct Registered {
    /// Given up first; see `drop`.
    registration: Option<Arc<MemoryRegion>>,
    memory: NonNull<u64>,
    words: usize,
    layout: Layout,
}

// SAFETY: memory that belongs to no thread; `&Registered` gives out shared references only to words that nothing changes
// meanwhile, as the module's documentation says.
unsafe impl Send for Registered {}

impl Registered {
    /// Zeroed words; `None` if there is no memory, or no more may be locked.
    pub(super) fn allocate(device: &Device, words: usize) -> Option<Self> {
        // Whole pages, for pages are what is locked. Never empty, because an allocation can't be.
        let layout = Layout::array::<u64>(words.max(1)).ok()?.align_to(4096).ok()?.pad_to_align();
        // SAFETY: the layout's size is not 0.
        let memory = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) })?.cast::<u64>();
        let mut registered = Registered { registration: None, memory, words, layout };
        let (address, bytes) = (memory.as_ptr() as usize, words.max(1) * WORD_BYTES);
        // SAFETY: the memory is valid for that many bytes until `drop`, which gives up the registration first.
        let registration = unsafe { device.inner().domain.reg_mr(address, bytes, AccessFlags::LocalWrite) };
        registered.registration = Some(registration.ok()?);
        Some(registered)
    }

    /// For the card: its key to the memory, and the address of a word.
    ///
    /// # Panics
    /// If the offset is behind the last word.
    pub(super) fn local(&self, offset: usize) -> (u32, u64) {
        assert!(offset <= self.words, "word {offset} of {}", self.words);
        let key = self.registration.as_ref().map_or(0, |registration| registration.lkey());
        (key, self.memory.as_ptr() as u64 + (offset * WORD_BYTES) as u64)
    }

    /// One word, while the card may be writing to others.
    ///
    /// # Panics
    /// If there is no such word.
    pub(super) fn word(&self, index: usize) -> u64 {
        assert!(index < self.words, "word {index} of {}", self.words);
        // SAFETY: inside the allocation. Volatile, because the card has written it since it was last read.
        unsafe { self.memory.add(index).read_volatile() }
    }
}

impl BufferMemory for Registered {
    fn length(&self) -> usize {
        self.words
    }

    fn words(&self) -> &[u64] {
        // SAFETY: allocated with at least this length, zeroed at first; no work under way holds it, so nobody writes.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.words) }
    }

    fn words_mut(&mut self) -> &mut [u64] {
        // SAFETY: as above, and `&mut self` is the only way to it.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.words) }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        drop(self.registration.take());
        // SAFETY: allocated by `allocate` with this layout, and the card's registration is gone.
        unsafe { std::alloc::dealloc(self.memory.as_ptr().cast(), self.layout) };
    }
}

/// A region of the node, registered with exactly the rights that it is offered with. Dropping it takes it back: from
/// then on, the card refuses its key.
#[derive(Debug)]
pub struct Region {
    /// Given up before the memory, by the order of the fields.
    registration: Arc<MemoryRegion>,
    key: RegionKey,
    rights: Rights,
    memory: SharedWords,
}

impl Region {
    /// Offers `memory` to whoever is connected through `device`.
    pub fn register(
        device: &Device,
        key: RegionKey,
        memory: SharedWords,
        rights: Rights,
    ) -> Result<Region, VerbsError> {
        let bytes = memory.len() * WORD_BYTES;
        // SAFETY: the mapping is valid for that long and held until the registration is gone; its words are only ever
        // accessed as atomics.
        let registration = unsafe { device.inner().domain.reg_mr(memory.as_ptr() as usize, bytes, access(rights)) };
        let registration = registration.map_err(|error| VerbsError::Register { bytes, why: chain(&error) })?;
        Ok(Region { registration, key, rights, memory })
    }

    /// What a peer must know to reach it.
    pub fn remote(&self) -> RemoteRegion {
        RemoteRegion {
            key: self.key.0,
            rkey: self.registration.rkey(),
            address: self.memory.as_ptr() as u64,
            words: self.memory.len() as u64,
            rights: self.rights.bits(),
        }
    }
}

/// A card can only be allowed to write what its own machine may write.
fn access(rights: Rights) -> AccessFlags {
    let mut flags = AccessFlags::none();
    for (right, flag) in [
        (Rights::READ, AccessFlags::RemoteRead),
        (Rights::WRITE, AccessFlags::RemoteWrite | AccessFlags::LocalWrite),
        (Rights::COMPARE_SWAP, AccessFlags::RemoteAtomic | AccessFlags::LocalWrite),
    ] {
        if rights.allow(right) {
            flags |= flag;
        }
    }
    flags
}
