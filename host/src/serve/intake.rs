//! Input on its way from the kernel to the service: looked at when it comes, and taken out when what came of it is committed
//! and answered. That may be late, for what was acted upon is known from the State Box, whoever reads the socket afterwards.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::RecvFlags;

use crate::tcp;
use crate::wire::has_hung_up;

/// What was read of a connection, was not yet acted upon, and is still in the kernel.
#[derive(Debug)]
pub(super) struct Intake {
    read: usize,
    /// Bytes that make the stream readable.
    low_water: usize,
    scratch: Vec<u8>,
}

impl Intake {
    /// Of a connection whose kernel holds nothing that was read.
    pub(super) fn new() -> Self {
        Intake { read: 0, low_water: 1, scratch: Vec::new() }
    }

    /// Input that was read and not yet acted upon, in bytes.
    pub(super) fn read_ahead(&self) -> usize {
        self.read
    }

    /// Looks at input that comes after all that was read before; 0 at its end, and when the session has moved.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if the stream doesn't wait, or no longer. Then it is readable, to whoever polls it, when
    /// more comes.
    pub(super) fn read(&mut self, stream: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
        self.wait_for(stream, self.read + 1)?;
        if self.read == 0 {
            self.read = look(stream, into)?;
            return Ok(self.read);
        }
        let needed = self.read + into.len();
        if self.scratch.len() < needed {
            self.scratch.resize(needed, 0);
        }
        let length = look(stream, &mut self.scratch[..needed])?;
        match length.checked_sub(self.read) {
            Some(new) if new > 0 => {
                into[..new].copy_from_slice(&self.scratch[self.read..length]);
                self.read = length;
                Ok(new)
            }
            _ if has_hung_up(stream.as_fd()) => Ok(0),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn wait_for(&mut self, stream: &TcpStream, bytes: usize) -> io::Result<()> {
        if self.low_water != bytes {
            tcp::wait_for_bytes(stream, bytes)?;
            self.low_water = bytes;
        }
        Ok(())
    }

    /// What was read first was acted upon, and that is committed: takes it out of the kernel.
    pub(super) fn acted_upon(&mut self, stream: &TcpStream, bytes: usize) -> io::Result<()> {
        self.read -= bytes;
        take_out(stream, bytes as u64, &mut self.scratch)
    }
}

fn look(stream: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
    match rustix::io::retry_on_intr(|| rustix::net::recv(stream, &mut *into, RecvFlags::PEEK)) {
        Ok((_, length)) => Ok(length),
        // The agent has silenced it, in repair mode.
        Err(Errno::INVAL | Errno::PERM) if has_hung_up(stream.as_fd()) => Ok(0),
        Err(errno) => Err(errno.into()),
    }
}

/// Most that is taken out at once.
const PIECE_BYTES: u64 = 64 << 10;

/// Takes so many bytes of input, which are there, out of a socket. They go nowhere.
pub(super) fn take_out(stream: &TcpStream, bytes: u64, scratch: &mut Vec<u8>) -> io::Result<()> {
    let mut left = bytes;
    while left > 0 {
        let length = left.min(PIECE_BYTES) as usize;
        if scratch.len() < length {
            scratch.resize(length, 0);
        }
        // The kernel takes out as many as fit, and copies none.
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        left -= match rustix::io::retry_on_intr(|| rustix::net::recv(stream, &mut scratch[..length], flags))?.1 {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            taken => taken as u64,
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags};

    use super::*;

    /// A client, its service's end, and its intake.
    fn connected() -> (TcpStream, TcpStream, Intake) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        (client, listener.accept().unwrap().0, Intake::new())
    }

    fn is_readable(stream: &TcpStream, within_seconds: i64) -> bool {
        let at_most = rustix::time::Timespec { tv_sec: within_seconds, tv_nsec: 0 };
        rustix::event::poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&at_most)).unwrap() == 1
    }

    #[test]
    fn each_byte_is_read_once_however_it_is_cut_and_acted_upon() {
        let (mut client, service, mut intake) = connected();
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
            // All of it, half of it, or nothing.
            let bytes = (read.len() - acted_upon) * (read.len() % 3) / 2;
            intake.acted_upon(&service, bytes).unwrap();
            acted_upon += bytes;
        }
        assert!(read == sent);
        intake.acted_upon(&service, read.len() - acted_upon).unwrap();
        drop(sending.join().unwrap());
        assert_eq!(intake.read(&service, &mut buffer).unwrap(), 0);
    }

    #[test]
    fn who_does_not_wait_finds_the_stream_readable_when_more_comes_and_no_sooner() {
        let (mut client, service, mut intake) = connected();
        service.set_nonblocking(true).unwrap();
        for half in [b"four", b"five"] {
            client.write_all(half).unwrap();
            assert!(is_readable(&service, 20));
            assert_eq!(intake.read(&service, &mut [0; 8]).unwrap(), 4);
            assert_eq!(intake.read(&service, &mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            assert!(!is_readable(&service, 0));
        }
        intake.acted_upon(&service, 8).unwrap();
        assert_eq!(intake.read(&service, &mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(!is_readable(&service, 0));
        client.write_all(b"!").unwrap();
        assert!(is_readable(&service, 20));
    }

    #[test]
    fn who_waits_for_more_of_what_it_has_read_is_woken_up() {
        let (mut client, service, mut intake) = connected();
        client.set_nodelay(true).unwrap();
        let reading = std::thread::spawn(move || {
            let mut read = 0;
            while read < 8 {
                read += intake.read(&service, &mut [0; 8]).unwrap();
            }
        });
        for _ in 0..8 {
            client.write_all(b"?").unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
        let begin = std::time::Instant::now();
        while !reading.is_finished() {
            assert!(begin.elapsed() < Duration::from_secs(20), "nobody is woken up");
            std::thread::sleep(Duration::from_millis(1));
        }
        reading.join().unwrap();
    }
}
