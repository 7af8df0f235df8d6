//! Shared memory: the substrate on which a monitor reads another *process's* memory without that process's help.
//!
//! ```text
//!   owner (agent)                                    monitor
//!   SealedMemory::create ── fd over a socket ──>  ReadOnlyWords::open ─┐
//!        │ map                                    SharedWords::open  ──┤ (only for what it may change)
//!        v                                                             v
//!   SharedWords ═══════════ the same pages ════════════════════  ShmTransport: READ, WRITE, COMPARE_SWAP
//! ```
//!
//! What a monitor may do is enforced by page protection: it gets a descriptor opened read-only, and the kernel refuses
//! to map that writable. A READ costs the owner nothing, not even an interrupt, and goes on when the owner is stopped
//! or dead, because the pages live as long as anybody maps them. Only the machine's own death ends them.
//!
//! [`mapping`] is the only module with `unsafe` in it.
//!
//! ```
//! use std::os::fd::AsFd;
//! use backdoor_core::transport::*;
//! use backdoor_core::words::Ordering;
//! use backdoor_transports::shm::{ReadOnlyWords, SealedMemory, ShmTransport};
//!
//! let memory = SealedMemory::create("example", 64)?;
//! memory.map()?[5].store(42, Ordering::Relaxed);
//!
//! // Elsewhere, with a descriptor that came over a socket:
//! let words = ReadOnlyWords::open(memory.read_only_fd()?.as_fd(), 64)?;
//! let mut transport = ShmTransport::new(16);
//! transport.add_read_only(RegionKey(1), words, Rights::READ)?;
//! let buffer = transport.allocate(64)?;
//! let from = RemoteSlice { key: RegionKey(1), offset: 0, words: 64 };
//! let operation = Operation::Read { from, into: LocalSlice::start_of(buffer) };
//! transport.post(&[WorkRequest { id: WorkId(7), operation }])?;
//! let mut completions = Vec::new();
//! transport.poll(&mut completions);
//! assert_eq!(completions, [Completion { id: WorkId(7), result: Ok(Done::Read) }]);
//! assert_eq!(transport.buffer(buffer)?[5], 42);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[allow(unsafe_code)]
pub mod mapping;
mod memory;
mod transport;

#[cfg(test)]
mod tests;

pub use mapping::{MapError, ReadOnlyWords, SharedWord, SharedWords};
pub use memory::SealedMemory;
pub use transport::{RegionError, ShmTransport};
