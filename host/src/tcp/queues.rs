//! What a connection's kernel has and its process had not: read by whoever holds a duplicate of the socket.

use std::os::fd::AsFd;

use backdoor_core::channels::KernelQueues;

use super::TcpError;
use super::options::{self, Amount};
use super::repair::{Queue, Repair, established};

/// How often it is tried to catch a moment in which nothing comes or goes.
const ATTEMPTS: u32 = 16;

/// The queues of a connection, in TCP's sequence numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queues {
    /// Number of the first byte of output that the peer has not acknowledged.
    pub acknowledged: u32,
    /// Number of the first byte of output that was never sent.
    pub sent: u32,
    /// Number of the first byte of input that was not acknowledged to the peer.
    pub received: u32,
    /// Whether the peer has said that it sends no more.
    pub ended: bool,
    /// Input that was acknowledged to the peer and that nobody has read; as an agent tells it, with what was read last before.
    pub unread: Vec<u8>,
    /// Output from `acknowledged` to the last byte that the process had written.
    pub unacknowledged: Vec<u8>,
}

impl Queues {
    /// For [`resume`](fn@backdoor_core::channels::resume).
    pub fn kernel(&self) -> KernelQueues<'_> {
        KernelQueues {
            acknowledged: self.acknowledged,
            sent: self.sent,
            received: self.received,
            unread: &self.unread,
            ended: self.ended,
        }
    }
}

/// Reads the queues. The connection is left as it was.
///
/// Its process must be stopped or dead, for its own calls fail while its socket is in repair mode; and its node must be cut
/// off from the network, or the answer is old at once.
///
/// # Errors
/// [`TcpError::NotPermitted`], [`TcpError::NotTcp`], [`TcpError::NotEstablished`]; [`TcpError::NotCutOff`] if the
/// connection never pauses.
pub fn queues(socket: impl AsFd) -> Result<Queues, TcpError> {
    let socket = socket.as_fd();
    let system = TcpError::while_doing("read the connection's queues");
    established(socket)?;
    let repair = Repair::enter(socket)?;
    for _ in 0..ATTEMPTS {
        let (_, ended) = established(socket)?;
        let received = repair.sequence(Queue::Receive).map_err(&system)?;
        let waiting = rustix::io::ioctl_fionread(socket).map_err(&system)? as usize;
        let unread = repair.peek(Queue::Receive, waiting).map_err(&system)?;
        let written = repair.sequence(Queue::Send).map_err(&system)?;
        let unsent = options::amount(socket, Amount::Unsent).map_err(&system)?;
        let outstanding = options::amount(socket, Amount::Unacknowledged).map_err(&system)?;
        let unacknowledged = repair.peek(Queue::Send, outstanding as usize).map_err(&system)?;
        let still = options::amount(socket, Amount::Unacknowledged).map_err(&system)? == outstanding
            && options::amount(socket, Amount::Unsent).map_err(&system)? == unsent
            && repair.sequence(Queue::Receive).map_err(&system)? == received;
        if still && unread.len() == waiting && unacknowledged.len() == outstanding as usize {
            return Ok(Queues {
                acknowledged: written.wrapping_sub(outstanding),
                sent: written.wrapping_sub(unsent),
                // The end of the input has a number, too.
                received: received.wrapping_sub(u32::from(ended)),
                ended,
                unread,
                unacknowledged,
            });
        }
    }
    Err(TcpError::NotCutOff)
}
