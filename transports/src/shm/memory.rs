//! Memory that can be handed to other processes: a memfd, sized once and sealed.
//!
//! Its size is sealed because whoever maps a file and reads behind its end is killed by SIGBUS: if the owner could
//! shrink the memory, it could kill its monitor. All pages are allocated at once for the same reason: an access must
//! not find, years later, that there is no memory left for the page.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use backdoor_core::words::WORD_BYTES;
use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags};

use super::mapping::{MapError, SharedWords};

/// What [`SealedMemory::create`] seals and a receiver insists on at least in part.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// Zeroed memory of a fixed size, shareable as a file descriptor.
#[derive(Debug)]
pub struct SealedMemory {
    fd: OwnedFd,
    words: usize,
}

impl SealedMemory {
    /// Makes `words` zeroed words. The name shows up in `/proc/PID/maps`.
    pub fn create(name: &str, words: usize) -> Result<Self, MapError> {
        // The kernel would go on allocating until it has to kill somebody.
        let machine = rustix::system::sysinfo();
        let most = (machine.totalram as u64).saturating_mul(u64::from(machine.mem_unit)) / 2;
        let bytes = (words as u64).checked_mul(WORD_BYTES as u64).filter(|bytes| (1..=most).contains(bytes));
        let bytes = bytes.ok_or(MapError::Size { words })?;
        let make = || {
            let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
            rustix::fs::ftruncate(&fd, bytes)?;
            rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, bytes)?;
            rustix::fs::fcntl_add_seals(&fd, SEALS)?;
            // A receiver can reopen its descriptor through /proc; without the write bit, only for reading. This stops
            // mistakes and other users; a process of the same user can change the bit, as it can do anything to us.
            rustix::fs::fchmod(&fd, Mode::RUSR)?;
            Ok(fd)
        };
        let fd =
            make().map_err(|errno: rustix::io::Errno| MapError::System { doing: "create", source: errno.into() })?;
        Ok(SealedMemory { fd, words })
    }

    /// Length in words.
    pub fn words(&self) -> usize {
        self.words
    }

    /// Maps it for reading and writing.
    pub fn map(&self) -> Result<SharedWords, MapError> {
        SharedWords::open(self.fd.as_fd(), self.words)
    }

    /// The descriptor that can be mapped for writing, to hand to those who may write.
    pub fn writable_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// A descriptor of the same memory that the kernel refuses to map for writing, to hand to everybody else.
    pub fn read_only_fd(&self) -> Result<OwnedFd, MapError> {
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| MapError::System { doing: "reopen read-only", source: errno.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::ReadOnlyWords;
    use super::*;
    use backdoor_core::words::Ordering;

    #[test]
    fn every_mapping_shows_the_same_words() {
        let memory = SealedMemory::create("test", 1000).unwrap();
        let writer = memory.map().unwrap();
        let reader = ReadOnlyWords::open(memory.read_only_fd().unwrap().as_fd(), 1000).unwrap();
        writer[999].store(7, Ordering::Relaxed);
        assert_eq!((reader.len(), reader.load(999), reader.load(1000)), (1000, Some(7), None));
        drop(memory);
        writer[999].store(8, Ordering::Relaxed);
        assert_eq!(reader.load(999), Some(8));
    }

    #[test]
    fn the_size_can_not_be_changed() {
        let memory = SealedMemory::create("test", 1000).unwrap();
        assert!(rustix::fs::ftruncate(memory.writable_fd(), 8).is_err());
        assert!(rustix::fs::ftruncate(memory.writable_fd(), 80000).is_err());
        assert!(rustix::fs::fcntl_add_seals(memory.writable_fd(), SealFlags::WRITE).is_err());
    }

    #[test]
    fn a_read_only_descriptor_can_not_be_mapped_writable() {
        let memory = SealedMemory::create("test", 10).unwrap();
        let error = SharedWords::open(memory.read_only_fd().unwrap().as_fd(), 10).unwrap_err();
        let MapError::System { source, .. } = error else { panic!("{error}") };
        assert_eq!(source.kind(), std::io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert!(matches!(SealedMemory::create("test", 0), Err(MapError::Size { .. })));
        assert!(matches!(SealedMemory::create("test", usize::MAX), Err(MapError::Size { .. })));
        assert!(matches!(SealedMemory::create("test", usize::MAX / 16), Err(MapError::Size { .. })));
    }
}
