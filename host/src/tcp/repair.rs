//! A socket in repair mode: its sequence numbers and queues can be read and set, and nothing is sent.

use std::io;
use std::os::fd::BorrowedFd;

use linux_raw_sys::net::tcp_info;
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_reuseaddr, set_tcp_nodelay, socket_reuseaddr};
use rustix::net::{RecvFlags, SendFlags};

use super::TcpError;
use super::options::{self, Number};

/// Values of `TCP_REPAIR`.
mod mode {
    pub(super) const OFF: u32 = 0;
    pub(super) const ON: u32 = 1;
    /// Off, and no probe is sent.
    pub(super) const OFF_IN_SILENCE: u32 = -1i32 as u32;
}

/// The two queues of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    Receive = 1,
    Send = 2,
}

/// The kernel's numbers of the states in which a connection can be carried on.
pub(super) mod state {
    pub(crate) const ESTABLISHED: u8 = 1;
    /// The peer has sent its last byte; this side has not.
    pub(crate) const CLOSE_WAIT: u8 = 8;
}

/// Input that waits in a socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unread {
    /// Number of its first byte.
    pub(super) first: u32,
    pub(super) bytes: u64,
    /// Whether the peer has sent its last byte.
    pub(super) ended: bool,
    /// All that ever came, as the kernel counts: the end of the input is one more.
    pub(super) bytes_received: u64,
}

/// Repair mode, until it is dropped. Then the connection goes on as before, without a probe; in repair mode, if it was.
#[derive(Debug)]
pub(super) struct Repair<'s> {
    socket: BorrowedFd<'s>,
    stays: bool,
    /// Leaving repair mode clears this, and with it somebody could no longer listen at the address.
    reuse_address: bool,
}

impl<'s> Repair<'s> {
    /// Fails unless the socket is TCP and this process may.
    pub(super) fn enter(socket: BorrowedFd<'s>) -> Result<Self, TcpError> {
        let reuse_address = socket_reuseaddr(socket).map_err(|_| TcpError::NotTcp)?;
        let stays = options::get(socket, Number::Repair).map_err(|_| TcpError::NotTcp)? == mode::ON;
        options::set(socket, Number::Repair, mode::ON).map_err(|errno| match errno {
            Errno::PERM => TcpError::NotPermitted,
            Errno::NOPROTOOPT | Errno::OPNOTSUPP | Errno::NOTSOCK => TcpError::NotTcp,
            errno => TcpError::while_doing("put the socket into repair mode")(errno),
        })?;
        Ok(Repair { socket, stays, reuse_address })
    }

    /// Whether the socket was in repair mode before: it is silent.
    pub(super) fn was_silent(&self) -> bool {
        self.stays
    }

    /// Not left when this is dropped: whoever closes the socket last closes it in silence.
    pub(super) fn for_good(mut self) -> Self {
        self.stays = true;
        self
    }

    /// Back to work; a probe asks the peer for an acknowledgement.
    pub(super) fn leave_with_probe(self) -> Result<(), TcpError> {
        self.end(mode::OFF)
    }

    /// Back to work, without a word.
    pub(super) fn leave(self) -> Result<(), TcpError> {
        self.end(mode::OFF_IN_SILENCE)
    }

    fn end(mut self, mode: u32) -> Result<(), TcpError> {
        self.stays = true;
        options::set(self.socket, Number::Repair, mode).map_err(TcpError::while_doing("leave repair mode"))?;
        let _ = set_socket_reuseaddr(self.socket, self.reuse_address);
        Ok(())
    }

    /// From here on, everything is about this queue.
    fn choose(&self, queue: Queue) -> Result<(), Errno> {
        options::set(self.socket, Number::RepairQueue, queue as u32)
    }

    /// Sequence number after the last byte of a queue.
    pub(super) fn sequence(&self, queue: Queue) -> Result<u32, Errno> {
        self.choose(queue)?;
        options::get(self.socket, Number::QueueSequence)
    }

    /// Input that nobody has taken out of the socket; `None` if more has come in the meantime.
    pub(super) fn unread(&self) -> Result<Option<Unread>, TcpError> {
        let system = TcpError::while_doing("read how much input is unread");
        let received = self.sequence(Queue::Receive).map_err(&system)?;
        let bytes = rustix::io::ioctl_fionread(self.socket).map_err(&system)?;
        let (info, ended) = established(self.socket)?;
        // The end of the input has a number, too.
        let first = received.wrapping_sub(u32::from(ended)).wrapping_sub(bytes as u32);
        let still = self.sequence(Queue::Receive).map_err(&system)? == received;
        Ok(still.then_some(Unread { first, bytes, ended, bytes_received: info.tcpi_bytes_received }))
    }

    /// Where an empty queue of an unconnected socket begins.
    pub(super) fn set_sequence(&self, queue: Queue, sequence: u32) -> Result<(), Errno> {
        self.choose(queue)?;
        options::set(self.socket, Number::QueueSequence, sequence)
    }

    /// The first `length` bytes of a queue, or fewer; they stay there.
    pub(super) fn peek(&self, queue: Queue, length: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; length];
        if length > 0 {
            self.choose(queue)?;
            let (_, peeked) = rustix::net::recv(self.socket, &mut bytes[..], RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
            bytes.truncate(peeked);
        }
        Ok(bytes)
    }

    /// Appends to a queue, as if the bytes had been received, or sent. Never waits.
    pub(super) fn fill(&self, queue: Queue, mut bytes: &[u8]) -> io::Result<()> {
        /// The kernel takes what it gets into one piece of memory.
        const CHUNK_BYTES: usize = 32 << 10;
        if !bytes.is_empty() {
            self.choose(queue)?;
        }
        while !bytes.is_empty() {
            let chunk = &bytes[..bytes.len().min(CHUNK_BYTES)];
            let sent = super::recreate::send_now(self.socket, chunk, SendFlags::empty())?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }
}

impl Repair<'_> {
    /// What was written before repair mode and could not go out counts as sent now, though it isn't.
    pub(super) fn count_as_sent(&self) -> Result<(), Errno> {
        self.choose(Queue::Send)?;
        // Makes the kernel send what waits.
        set_tcp_nodelay(self.socket, true)
    }
}

impl Drop for Repair<'_> {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        let _ = options::set(self.socket, Number::Repair, mode::OFF_IN_SILENCE);
        let _ = set_socket_reuseaddr(self.socket, self.reuse_address);
    }
}

/// All that the kernel tells of a connection that can be carried on, and whether the peer has sent its last byte.
pub(super) fn established(socket: BorrowedFd<'_>) -> Result<(tcp_info, bool), TcpError> {
    let info = options::info(socket).map_err(|_| TcpError::NotTcp)?;
    match info.tcpi_state {
        state::ESTABLISHED => Ok((info, false)),
        state::CLOSE_WAIT => Ok((info, true)),
        state => Err(TcpError::NotEstablished { state }),
    }
}
