//! Mappings of shared memory as atomic words. The only unsafe code of this backend.
//!
//! # Why this is sound
//! The words of a mapping are `AtomicU64`, for which every bit pattern is valid and every access from elsewhere that is
//! itself atomic is no data race; other processes are outside this program, and access the same pages word by word.
//! The mapping lives in an `Arc` that every handle holds, so no pointer outlives it. The pages can't go away under it
//! either, because only memory sealed against shrinking is accepted. Read-only pages are only ever loaded from, and only
//! by `Relaxed` loads: of all atomic accesses those alone are guaranteed to work there, for words no wider than a
//! pointer. A fence after the load makes it acquire.

use std::io;
use std::ops::{Deref, Range};
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use backdoor_core::words::{AtomicU64, Ordering, WORD_BYTES, fence};
use rustix::fs::SealFlags;
use rustix::mm::{MapFlags, ProtFlags};

#[cfg(not(target_pointer_width = "64"))]
compile_error!("words are loaded from read-only pages, which is only permitted up to the width of a pointer");

/// Why memory could not be created or mapped.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// Nothing at all, or more than half of this machine's memory.
    #[error("shared memory of {words} words is impossible on this machine")]
    Size {
        /// Words asked for.
        words: usize,
    },
    /// The descriptor's owner could shrink the memory and so kill whoever maps it.
    #[error("the memory is not sealed against shrinking: its owner could make every access to it fatal")]
    NotSealed,
    /// The descriptor is no memory that can carry seals: a file, a pipe, a socket.
    #[error("the descriptor is not shared memory")]
    NotMemory,
    /// The memory is smaller than its owner said.
    #[error("the memory holds {have_bytes} bytes, {need_bytes} were promised")]
    TooSmall {
        /// Size found.
        have_bytes: u64,
        /// Size promised.
        need_bytes: u64,
    },
    /// The system refused. Permission: the descriptor does not allow this kind of mapping.
    #[error("can't {doing} shared memory: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// The mapping itself; unmapped when its last handle goes.
#[derive(Debug)]
struct Map {
    base: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: a `Map` is a piece of address space that belongs to no thread, and is only reached as `AtomicU64`.
unsafe impl Send for Map {}
// SAFETY: as above; shared access is atomic.
unsafe impl Sync for Map {}

impl Map {
    fn open(fd: BorrowedFd<'_>, words: usize, writable: bool) -> Result<Arc<Self>, MapError> {
        let bytes = words.checked_mul(WORD_BYTES).filter(|bytes| (1..=isize::MAX as usize).contains(bytes));
        let bytes = bytes.ok_or(MapError::Size { words })?;
        // Seals first: once shrinking is sealed, the size can't fall below what is seen next.
        let seals = rustix::fs::fcntl_get_seals(fd).map_err(|_| MapError::NotMemory)?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(MapError::NotSealed);
        }
        let system = |errno: rustix::io::Errno| MapError::System { doing: "map", source: errno.into() };
        let have_bytes = u64::try_from(rustix::fs::fstat(fd).map_err(system)?.st_size).unwrap_or(0);
        if have_bytes < bytes as u64 {
            return Err(MapError::TooSmall { have_bytes, need_bytes: bytes as u64 });
        }
        let protection = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // Populated at once, so that no first access pays for a page fault in the middle of a poll.
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: the kernel chooses the address, so no memory in use is replaced; offset 0 and the length lie inside
        // the file, which can't shrink.
        let base =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), bytes, protection, flags, fd, 0) }.map_err(system)?;
        let base = NonNull::new(base.cast()).ok_or(MapError::Size { words })?;
        Ok(Arc::new(Map { base, words }))
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: this very range was mapped by `open`, and the last handle to it is gone. That a mapping can't be
        // removed would be a bug here; nothing could be done about it, and nothing depends on it.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.words * WORD_BYTES) };
    }
}

/// Words that this process may write. Cheap to clone; a clone is another handle to the same words.
#[derive(Clone, Debug)]
pub struct SharedWords {
    words: NonNull<[AtomicU64]>,
    map: Arc<Map>,
}

// SAFETY: a pointer to atomics inside `map`, which is Send and Sync itself and lives as long as the handle.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Maps the first `words` words behind `fd` for reading and writing, if `fd` allows that and can't shrink.
    pub fn open(fd: BorrowedFd<'_>, words: usize) -> Result<Self, MapError> {
        let map = Map::open(fd, words, true)?;
        Ok(SharedWords { words: NonNull::slice_from_raw_parts(map.base, map.words), map })
    }

    /// A handle to some of the words.
    ///
    /// # Panics
    /// If the range reaches outside, as with a slice.
    pub fn slice(&self, range: Range<usize>) -> SharedWords {
        SharedWords { words: NonNull::from(&self[range]), map: Arc::clone(&self.map) }
    }

    /// A handle to one word, which costs no more to follow than a reference.
    ///
    /// # Panics
    /// If there is no such word, as with a slice.
    pub fn word(&self, index: usize) -> SharedWord {
        SharedWord { word: NonNull::from(&self[index]), _map: Arc::clone(&self.map) }
    }
}

impl Deref for SharedWords {
    type Target = [AtomicU64];
    #[inline]
    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the pointer lies within `map`, which is held; the words are only ever accessed as atomics.
        unsafe { self.words.as_ref() }
    }
}

/// One word that this process may write.
#[derive(Clone, Debug)]
pub struct SharedWord {
    word: NonNull<AtomicU64>,
    _map: Arc<Map>,
}

// SAFETY: a pointer to an atomic inside `_map`, which is Send and Sync itself and lives as long as the handle.
unsafe impl Send for SharedWord {}
// SAFETY: as above.
unsafe impl Sync for SharedWord {}

impl Deref for SharedWord {
    type Target = AtomicU64;
    #[inline]
    fn deref(&self) -> &AtomicU64 {
        // SAFETY: the pointer lies within `_map`, which is held; the word is only ever accessed as an atomic.
        unsafe { self.word.as_ref() }
    }
}

/// Words that this process may only look at: a store to such pages would be fatal, so there is no way to ask for one.
#[derive(Clone, Debug)]
pub struct ReadOnlyWords {
    map: Arc<Map>,
}

impl ReadOnlyWords {
    /// Maps the first `words` words behind `fd` for reading, if `fd` can't shrink.
    pub fn open(fd: BorrowedFd<'_>, words: usize) -> Result<Self, MapError> {
        Ok(ReadOnlyWords { map: Map::open(fd, words, false)? })
    }

    /// Length in words; never 0.
    #[allow(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.map.words
    }

    /// One word; `None` if there is none such. Acquire: what was stored before that word was stored is seen too.
    #[inline]
    pub fn load(&self, index: usize) -> Option<u64> {
        let value = self.words().get(index)?.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        Some(value)
    }

    /// Copies words in address order; atomic word by word, not as a whole. Acquire, for every word of them.
    ///
    /// # Panics
    /// If the range reaches outside, or `into` is not as long as it.
    pub fn copy_to(&self, range: Range<usize>, into: &mut [u64]) {
        copy_words(&self.words()[range], into);
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: `map` is held; the words are only ever accessed as atomics, and here only by relaxed
        // loads.
        unsafe { std::slice::from_raw_parts(self.map.base.as_ptr(), self.map.words) }
    }
}

/// The loop behind every READ, of lines of eight words so that it is unrolled: atomic loads are never vectorised, and
/// the loop's own counting would be what it costs.
pub(super) fn copy_words(from: &[AtomicU64], into: &mut [u64]) {
    assert_eq!(from.len(), into.len(), "a copy of another length");
    let (from_lines, from_rest) = from.as_chunks::<8>();
    let (into_lines, into_rest) = into.as_chunks_mut::<8>();
    for (into, from) in into_lines.iter_mut().zip(from_lines) {
        for (into, from) in into.iter_mut().zip(from) {
            *into = from.load(Ordering::Relaxed);
        }
    }
    for (into, from) in into_rest.iter_mut().zip(from_rest) {
        *into = from.load(Ordering::Relaxed);
    }
    // What the next copy brings is no older than what this one brought.
    fence(Ordering::Acquire);
}

#[cfg(test)]
mod tests {
    use super::super::SealedMemory;
    use super::*;
    use rustix::fs::MemfdFlags;
    use std::os::fd::AsFd;

    #[test]
    fn memory_that_could_shrink_is_refused() {
        let fd = rustix::fs::memfd_create("hostile", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&fd, 4096).unwrap();
        assert!(matches!(ReadOnlyWords::open(fd.as_fd(), 512), Err(MapError::NotSealed)));
        assert!(matches!(SharedWords::open(fd.as_fd(), 512), Err(MapError::NotSealed)));
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK).unwrap();
        assert!(ReadOnlyWords::open(fd.as_fd(), 512).is_ok());
    }

    #[test]
    fn memory_smaller_than_promised_is_refused() {
        let memory = SealedMemory::create("small", 10).unwrap();
        let error = ReadOnlyWords::open(memory.writable_fd(), 11).unwrap_err();
        assert!(matches!(error, MapError::TooSmall { have_bytes: 80, need_bytes: 88 }), "{error}");
        assert!(matches!(ReadOnlyWords::open(memory.writable_fd(), 0), Err(MapError::Size { words: 0 })));
        assert!(matches!(ReadOnlyWords::open(memory.writable_fd(), usize::MAX), Err(MapError::Size { .. })));
    }

    #[test]
    fn what_is_no_memory_is_refused() {
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(matches!(ReadOnlyWords::open(socket.as_fd(), 1), Err(MapError::NotMemory)));
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(ReadOnlyWords::open(file.as_fd(), 1).is_err());
    }

    #[test]
    fn handles_keep_the_mapping() {
        let memory = SealedMemory::create("kept", 100).unwrap();
        let words = memory.map().unwrap();
        let (part, word) = (words.slice(10..20), words.word(15));
        drop((words, memory));
        std::thread::spawn(move || word.store(5, Ordering::Relaxed)).join().unwrap();
        assert_eq!((part.len(), part[5].load(Ordering::Relaxed)), (10, 5));
    }

    #[test]
    fn copies_of_every_length_are_exact() {
        let memory = SealedMemory::create("copied", 64).unwrap();
        for (index, word) in memory.map().unwrap().iter().enumerate() {
            word.store(index as u64 + 1, Ordering::Relaxed);
        }
        let reader = ReadOnlyWords::open(memory.writable_fd(), 64).unwrap();
        for start in 0..20 {
            for end in start..=64 {
                let mut copy = vec![0; end - start];
                reader.copy_to(start..end, &mut copy);
                assert!(copy.iter().copied().eq(start as u64 + 1..=end as u64), "{start}..{end}");
            }
        }
    }
}
