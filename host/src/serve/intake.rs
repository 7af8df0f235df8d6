//! Input on its way from the kernel to the service: looked at when it comes, and taken out when what came of it is committed.
//!
//! Taking out is a system call. It may be late, for what was acted upon is known from the State Box, whoever reads the
//! socket afterwards. So input is taken out for several requests at once where the kernel remembers how far it was looked
//! at (`SO_PEEK_OFF`, for TCP since Linux 6.9). Elsewhere it is taken out at once, or each look would be at what was acted
//! upon before, too.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;

use rustix::net::RecvFlags;

use crate::tcp;
use crate::wire::has_hung_up;

/// Input that was acted upon and may stay in the kernel: so much of it, and of so many commits, for each look passes over
/// all of it.
const LATE_BYTES: usize = 2048;
const LATE_COMMITS: u32 = 16;

/// What was read of a connection, and is still in the kernel: first what was acted upon, then what was not.
#[derive(Debug)]
pub(super) struct Intake {
    /// Whether the kernel remembers how far it was looked at.
    remembers: bool,
    acted_upon: usize,
    commits: u32,
    /// Handed out and not yet acted upon.
    read: usize,
    /// Bytes that make the stream readable.
    low_water: usize,
    /// What was looked at, if it doesn't.
    looked_at: Vec<u8>,
}

impl Intake {
    /// Of a connection whose kernel holds nothing that was read.
    pub(super) fn of(stream: &TcpStream) -> Self {
        let remembers = tcp::look_from(stream, Some(0)).is_ok();
        Intake { remembers, acted_upon: 0, commits: 0, read: 0, low_water: 1, looked_at: Vec::new() }
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
        let looked = if self.remembers { self.read_on(stream, into) } else { self.read_again(stream, into) };
        if let Ok(new) = looked {
            self.read += new;
        }
        looked
    }

    /// The same where each look begins where the last one ended.
    fn read_on(&mut self, stream: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
        // Of a look, it is how much there must be that is new.
        self.wait_for(stream, 1)?;
        let looked = look(stream, into);
        if looked.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            self.take_out(stream)?;
            self.wait_for(stream, self.read + 1)?;
        }
        looked
    }

    /// The same where each look begins at the first byte that is in the kernel.
    fn read_again(&mut self, stream: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
        self.wait_for(stream, self.read + 1)?;
        let needed = self.read + into.len();
        if self.looked_at.len() < needed {
            self.looked_at.resize(needed, 0);
        }
        let length = look(stream, &mut self.looked_at[..needed])?;
        match length.checked_sub(self.read) {
            Some(new) if new > 0 => {
                into[..new].copy_from_slice(&self.looked_at[self.read..length]);
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

    /// What was read first was acted upon, and that is committed.
    pub(super) fn acted_upon(&mut self, stream: &TcpStream, bytes: usize) -> io::Result<()> {
        self.read -= bytes;
        self.acted_upon += bytes;
        self.commits += 1;
        if self.remembers && self.acted_upon <= LATE_BYTES && self.commits < LATE_COMMITS {
            return Ok(());
        }
        self.take_out(stream)
    }

    /// Takes out of the kernel all that was acted upon. A connection that is closed before that would end in a reset.
    pub(super) fn take_out(&mut self, stream: &TcpStream) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.acted_upon);
        self.commits = 0;
        take_out(stream, bytes as u64)
    }
}

fn look(stream: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
    let looked = rustix::io::retry_on_intr(|| rustix::net::recv(stream, &mut *into, RecvFlags::PEEK));
    Ok(looked?.1)
}

/// Takes so many bytes of input, which are there, out of a socket.
pub(super) fn take_out(stream: &TcpStream, bytes: u64) -> io::Result<()> {
    // The kernel only counts them, and reads no more than fits.
    let mut nothing = [0; 4096];
    let mut left = bytes;
    while left > 0 {
        let piece = &mut nothing[..left.min(4096) as usize];
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        left -= match rustix::io::retry_on_intr(|| rustix::net::recv(stream, &mut *piece, flags))?.1 {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            taken => taken as u64,
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags};

    use super::*;

    /// A client, its service's end, and its intake: as the kernel remembers, and as if it didn't.
    fn intakes() -> [(TcpStream, TcpStream, Intake); 2] {
        [true, false].map(|remembers| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let service = listener.accept().unwrap().0;
            let intake = Intake::of(&service);
            if !remembers {
                let _ = tcp::look_from(&service, None);
            }
            (client, service, Intake { remembers: remembers && intake.remembers, ..intake })
        })
    }

    fn is_readable(stream: &TcpStream, within_seconds: i64) -> bool {
        let at_most = rustix::time::Timespec { tv_sec: within_seconds, tv_nsec: 0 };
        rustix::event::poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&at_most)).unwrap() == 1
    }

    #[test]
    fn each_byte_is_read_once_however_it_is_cut_and_acted_upon() {
        for (mut client, service, mut intake) in intakes() {
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
            intake.take_out(&service).unwrap();
            drop(sending.join().unwrap());
            assert_eq!(intake.read(&service, &mut buffer).unwrap(), 0);
        }
    }

    #[test]
    fn who_does_not_wait_finds_the_stream_readable_when_more_comes_and_no_sooner() {
        for (mut client, service, mut intake) in intakes() {
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
    }

    #[test]
    fn what_was_acted_upon_is_out_of_the_kernel_before_a_connection_is_closed() {
        for (mut client, service, mut intake) in intakes() {
            client.write_all(b"request").unwrap();
            assert_eq!(intake.read(&service, &mut [0; 8]).unwrap(), 7);
            intake.acted_upon(&service, 7).unwrap();
            intake.take_out(&service).unwrap();
            drop(service);
            assert_eq!(client.read(&mut [0; 8]).unwrap(), 0, "and no reset");
        }
    }
}
