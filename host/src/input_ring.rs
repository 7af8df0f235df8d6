//! Input that a service has taken out of its socket and not acted upon yet, in memory that outlives the service.
//!
//! The kernel writes it here by the very call that takes it out. So at whatever instant the service dies, each byte that was
//! acknowledged to its client is acted upon, by the State Box's word; or in the ring; or in the socket still. Where a byte
//! lies follows from its TCP sequence number, and how far it was taken out the kernel knows, so the ring needs no marks of its
//! own that could be missing after a death.
//!
//! ```text
//!   word 0: where it begins │ 7 words unused │ bytes, as many as a power of two
//! ```

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use backdoor_core::words::{AtomicU64, Ordering, WORD_BYTES};
use backdoor_transports::shm::SharedWords;
use rustix::io::Errno;

/// Words before the bytes: a cache line.
const HEADER_WORDS: usize = 8;
/// So that a small read seldom goes over the turn, which is dearer.
const LEAST_BYTES: usize = 4 << 10;
/// Most that a ring can hold.
pub(crate) const MAX_INPUT_BYTES: usize = 1 << 20;

/// What word 0 says in its upper half; below it is a sequence number. Zeros say that nothing was ever taken out.
mod begins {
    /// The ring has no byte before that number.
    pub(super) const AT: u64 = 1 << 32;
    /// As many bytes as it has room for were taken out, and numbers before may come again.
    pub(super) const LONG_AGO: u64 = 2 << 32;
}

/// Words of a ring that holds at least `bytes` bytes, and none for none; `None` if it can't hold so many.
pub(crate) fn words_needed(bytes: usize) -> Option<usize> {
    match bytes {
        0 => Some(0),
        1..=MAX_INPUT_BYTES => Some(HEADER_WORDS + bytes.max(LEAST_BYTES).next_power_of_two() / WORD_BYTES),
        _ => None,
    }
}

/// One session's ring. A clone is another handle to the same.
#[derive(Clone, Debug)]
pub(crate) struct InputRing {
    words: SharedWords,
}

impl InputRing {
    /// The ring that fills these words; `None` if they are no ring's.
    pub(crate) fn new(words: SharedWords) -> Option<Self> {
        let bytes = words.len().checked_sub(HEADER_WORDS)? * WORD_BYTES;
        (bytes.is_power_of_two() && (LEAST_BYTES..=MAX_INPUT_BYTES).contains(&bytes)).then_some(InputRing { words })
    }

    fn bytes(&self) -> &[AtomicU64] {
        &self.words[HEADER_WORDS..]
    }

    /// Most that was taken out and not acted upon, in bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes().len() * WORD_BYTES
    }

    fn place(&self, sequence: u32) -> usize {
        // A power of two.
        sequence as usize & (self.capacity() - 1)
    }

    /// Nothing was taken out of the socket before this byte.
    pub(crate) fn begin(&self, sequence: u32) {
        self.words[0].store(begins::AT | u64::from(sequence), Ordering::Release);
    }

    /// Takes up to `most` bytes, but not none, out of a TCP socket: its next one is that with number `sequence`. Answers how
    /// many those were; 0 at the end of the input.
    pub(crate) fn take(&self, socket: BorrowedFd<'_>, sequence: u32, most: usize) -> io::Result<usize> {
        let (place, most) = (self.place(sequence), most.min(self.capacity()));
        let begin = self.bytes().as_ptr().cast::<u8>().cast_mut();
        let piece = |at: usize, length| libc::iovec { iov_base: begin.wrapping_add(at).cast(), iov_len: length };
        let to_the_end = most.min(self.capacity() - place);
        let pieces = [piece(place, to_the_end), piece(0, most - to_the_end)];
        let taken = rustix::io::retry_on_intr(|| {
            let socket = socket.as_raw_fd();
            let nobody = std::ptr::null_mut::<libc::c_void>();
            // By number, for the C library's `recv` does more than that, lest a thread be cancelled.
            // SAFETY: the kernel writes into the two pieces, which lie in the words that `self` holds mapped. These are
            // atomics, so that others may write to them while there are references; no Rust code writes to them, and who
            // reads them meanwhile gets bytes of one or the other.
            let taken = unsafe {
                match pieces[1].iov_len {
                    0 => libc::syscall(libc::SYS_recvfrom, socket, pieces[0].iov_base, to_the_end, 0, nobody, nobody),
                    _ => libc::syscall(libc::SYS_readv, socket, pieces.as_ptr(), 2),
                }
            };
            usize::try_from(taken).map_err(|_| last_error())
        })?;
        self.turned_over(sequence.wrapping_add(taken as u32));
        Ok(taken)
    }

    fn turned_over(&self, taken_until: u32) {
        let begin = self.words[0].load(Ordering::Relaxed);
        if begin & begins::AT != 0 && taken_until.wrapping_sub(begin as u32) as usize >= self.capacity() {
            self.words[0].store(begins::LONG_AGO, Ordering::Release);
        }
    }

    /// Bytes from number `sequence` on, which are in the ring.
    pub(crate) fn copy_to(&self, sequence: u32, into: &mut [u8]) {
        let (words, mut at) = (self.bytes(), self.place(sequence));
        let mut left = into;
        while !left.is_empty() {
            let word = words[(at / WORD_BYTES) & (words.len() - 1)].load(Ordering::Relaxed).to_ne_bytes();
            let bytes = &word[at % WORD_BYTES..];
            let (now, later) = left.split_at_mut(bytes.len().min(left.len()));
            now.copy_from_slice(&bytes[..now.len()]);
            at += now.len();
            left = later;
        }
    }

    /// All that the ring has of the input before number `end`, which is the next to be taken out of the socket.
    pub(crate) fn before(&self, end: u32) -> Vec<u8> {
        let begin = self.words[0].load(Ordering::Acquire);
        let length = match begin & !u64::from(u32::MAX) {
            begins::AT => (end.wrapping_sub(begin as u32) as usize).min(self.capacity()),
            begins::LONG_AGO => self.capacity(),
            _ => 0,
        };
        let mut bytes = vec![0; length];
        self.copy_to(end.wrapping_sub(length as u32), &mut bytes);
        bytes
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use backdoor_transports::shm::SealedMemory;
    use proptest::prelude::*;

    use super::*;

    fn ring(bytes: usize) -> InputRing {
        let memory = SealedMemory::create("ring", words_needed(bytes).unwrap()).unwrap();
        InputRing::new(memory.map().unwrap()).unwrap()
    }

    fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn only_a_power_of_two_is_a_ring() {
        assert_eq!((words_needed(0), words_needed(1), words_needed(4097)), (Some(0), Some(520), Some(1032)));
        assert_eq!(words_needed(MAX_INPUT_BYTES + 1), None);
        for words in [0, 8, 16, 519, 521, 1000] {
            let memory = SealedMemory::create("ring", 1024).unwrap();
            assert!(InputRing::new(memory.map().unwrap().slice(0..words)).is_none(), "{words}");
        }
    }

    #[test]
    fn of_what_was_never_begun_there_is_nothing() {
        assert_eq!(ring(1).before(1_000), b"");
    }

    proptest! {
        /// Numbers that wrap, streams longer than the ring: what is in it is what was taken out last.
        #[test]
        fn what_was_taken_out_last_is_there(begin: u32, takes in proptest::collection::vec(1usize..3_000, 1..10)) {
            let (mut client, service) = connected();
            let ring = ring(1);
            prop_assert_eq!(ring.capacity(), LEAST_BYTES);
            ring.begin(begin);
            let (mut sent, mut next) = (Vec::new(), begin);
            for (number, length) in takes.into_iter().enumerate() {
                let bytes: Vec<u8> = (0..length).map(|byte| (number * 31 + byte) as u8).collect();
                client.write_all(&bytes).unwrap();
                prop_assert_eq!(ring.take(service.as_fd(), next, length).unwrap(), length);
                next = next.wrapping_add(length as u32);
                sent.extend(bytes);
                let mut copy = vec![0; length];
                ring.copy_to(next.wrapping_sub(length as u32), &mut copy);
                prop_assert_eq!(&copy[..], &sent[sent.len() - length..]);
                prop_assert_eq!(&ring.before(next)[..], &sent[sent.len().saturating_sub(LEAST_BYTES)..]);
            }
        }
    }
}
