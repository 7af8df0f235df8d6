//! Input on its way from the kernel to the service: taken out of the socket when the service reads it, and kept in memory of
//! the node until what came of it is committed.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;

use backdoor_core::channels::{ResumeError, TcpState};
use rustix::io::Errno;

use super::ServeError;
use crate::input_ring::InputRing;
use crate::wire::has_hung_up;

/// What was taken out of a connection's socket and not acted upon yet. Offsets count the bytes of input since the handshake.
#[derive(Debug)]
pub(super) struct Intake {
    ring: InputRing,
    /// Sequence number of the first byte of input.
    base: u32,
    acted_upon: u64,
    /// What the service has read.
    read: u64,
    /// What was taken out of the socket.
    taken: u64,
}

impl Intake {
    /// Of a connection whose socket has all that comes after what was acted upon.
    pub(super) fn new(ring: Option<&InputRing>, state: &TcpState<'_>) -> Result<Self, ServeError> {
        let intake = Intake::left(ring, state, 0)?;
        intake.ring.begin(intake.number(state.consumed));
        Ok(intake)
    }

    /// Of one that another process had before, which had taken out so many bytes and not acted upon them.
    pub(super) fn left(ring: Option<&InputRing>, state: &TcpState<'_>, taken: u64) -> Result<Self, ServeError> {
        let ring = ring.ok_or(ServeError::NoInput)?.clone();
        if taken > ring.capacity() as u64 {
            return Err(ResumeError::InputLost { bytes: taken }.into());
        }
        let (base, acted_upon) = (state.birth.receive_base, state.consumed);
        Ok(Intake { ring, base, acted_upon, read: acted_upon, taken: acted_upon + taken })
    }

    fn number(&self, offset: u64) -> u32 {
        // Sequence numbers wrap.
        self.base.wrapping_add(offset as u32)
    }

    /// Offset after the last byte that was read.
    pub(super) fn read_until(&self) -> u64 {
        self.read
    }

    /// Input that was read and not yet acted upon, in bytes.
    pub(super) fn read_ahead(&self) -> usize {
        (self.read - self.acted_upon) as usize
    }

    /// Reads input that comes after all that was read before; 0 at its end, and when the session has moved.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if the stream doesn't wait, or no longer. [`io::ErrorKind::StorageFull`] if there is no
    /// room for more that is not acted upon.
    pub(super) fn read(&mut self, stream: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
        if self.read == self.taken {
            let room = self.ring.capacity() - self.read_ahead();
            if room == 0 {
                let bytes = self.ring.capacity();
                let why = format!("{bytes} bytes of input were read and not acted upon, and there is room for no more");
                return Err(io::Error::new(io::ErrorKind::StorageFull, why));
            }
            // No more than is asked for: whoever polls the stream is to find it readable as long as there is more.
            self.taken += match self.ring.take(stream.as_fd(), self.number(self.taken), room.min(into.len())) {
                Ok(taken) => taken as u64,
                // The agent has silenced it, in repair mode.
                Err(error) if is_of_repair_mode(&error) && has_hung_up(stream.as_fd()) => 0,
                Err(error) => return Err(error),
            };
        }
        let length = into.len().min((self.taken - self.read) as usize);
        self.ring.copy_to(self.number(self.read), &mut into[..length]);
        self.read += length as u64;
        Ok(length)
    }

    /// What was read first was acted upon, and that is committed.
    pub(super) fn acted_upon(&mut self, bytes: usize) {
        self.acted_upon += bytes as u64;
    }
}

fn is_of_repair_mode(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::PERM))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use backdoor_transports::shm::SealedMemory;
    use rustix::event::{PollFd, PollFlags};

    use super::*;
    use crate::input_ring;

    const BASE: u32 = u32::MAX - 10;

    /// A client, its service's end, and its intake, whose sequence numbers are about to wrap.
    fn connected(room: usize) -> (TcpStream, TcpStream, Intake) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let memory = SealedMemory::create("ring", input_ring::words_needed(room).unwrap()).unwrap();
        let ring = InputRing::new(memory.map().unwrap()).unwrap();
        ring.begin(BASE);
        let intake = Intake { ring, base: BASE, acted_upon: 0, read: 0, taken: 0 };
        (client, listener.accept().unwrap().0, intake)
    }

    fn is_readable(stream: &TcpStream, within_seconds: i64) -> bool {
        let at_most = rustix::time::Timespec { tv_sec: within_seconds, tv_nsec: 0 };
        rustix::event::poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&at_most)).unwrap() == 1
    }

    #[test]
    fn each_byte_is_read_once_however_it_is_cut_and_acted_upon() {
        let (mut client, service, mut intake) = connected(1);
        let sent: Vec<u8> = (0..60_000u32).map(|number| (number % 251) as u8).collect();
        let sending = {
            let sent = sent.clone();
            std::thread::spawn(move || {
                sent.chunks(137).for_each(|chunk| client.write_all(chunk).unwrap());
                client
            })
        };
        let (mut read, mut acted_upon, mut buffer) = (Vec::new(), 0, [0; 1_000]);
        while read.len() < sent.len() {
            let most = 1 + read.len() % buffer.len();
            let new = intake.read(&service, &mut buffer[..most]).unwrap();
            assert_ne!(new, 0);
            read.extend_from_slice(&buffer[..new]);
            // All of it, half of it, or nothing; but all of what the ring has hardly room for.
            let ahead = read.len() - acted_upon;
            let bytes = if ahead > 3_000 { ahead } else { ahead * (read.len() % 3) / 2 };
            intake.acted_upon(bytes);
            acted_upon += bytes;
            assert_eq!(intake.read_ahead(), read.len() - acted_upon);
        }
        assert!(read == sent);
        drop(sending.join().unwrap());
        assert_eq!(intake.read(&service, &mut buffer).unwrap(), 0);
    }

    #[test]
    fn who_does_not_wait_finds_the_stream_readable_when_more_comes_and_no_sooner() {
        let (mut client, service, mut intake) = connected(1);
        service.set_nonblocking(true).unwrap();
        for half in [b"four", b"five"] {
            client.write_all(half).unwrap();
            assert!(is_readable(&service, 20));
            assert_eq!(intake.read(&service, &mut [0; 3]).unwrap(), 3);
            assert!(is_readable(&service, 0), "there is more");
            assert_eq!(intake.read(&service, &mut [0; 8]).unwrap(), 1);
            assert_eq!(intake.read(&service, &mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            assert!(!is_readable(&service, 0));
        }
    }

    #[test]
    fn a_service_that_reads_and_never_acts_is_told_that_there_is_no_more_room() {
        let (mut client, service, mut intake) = connected(1);
        client.write_all(&[7; 5_000]).unwrap();
        let mut read = 0;
        let error = loop {
            match intake.read(&service, &mut [0; 300]) {
                Ok(length) => read += length,
                Err(error) => break error,
            }
        };
        assert_eq!((read, error.kind()), (4_096, io::ErrorKind::StorageFull));
        intake.acted_upon(1);
        assert_eq!(intake.read(&service, &mut [0; 50]).unwrap(), 1);
    }

    #[test]
    fn what_another_process_took_out_is_read_first() {
        let (mut client, service, mut intake) = connected(1);
        client.write_all(b"abcdefgh").unwrap();
        assert_eq!(intake.read(&service, &mut [0; 5]).unwrap(), 5);
        let mut next = Intake { acted_upon: 2, read: 2, ..intake };
        let mut rest = [0; 8];
        assert_eq!((next.read(&service, &mut rest).unwrap(), &rest[..3]), (3, &b"cde"[..]));
        assert_eq!((next.read(&service, &mut rest).unwrap(), &rest[..3]), (3, &b"fgh"[..]));
        assert_eq!(next.read_ahead(), 6);
    }
}
