//! TCP connections that are carried on elsewhere: reading one out of the kernel, making it anew in another, and letting
//! go of it in silence. All of it by Linux' repair mode (`TCP_REPAIR`, made for checkpoints of containers), which needs
//! the capability `CAP_NET_ADMIN` and nothing of the peer, who notices a pause at most.
//!
//! ```text
//!   the node that fails                                        the heir
//!   accept ── birth ──> State Box ═══════ READ ═════════════> resume (core)
//!                                                                │
//!   held socket ── queues ─────── over the agent's socket ──────>│
//!               └─ silence                                    recreate ── SilentSocket ── speak
//! ```
//!
//! * [`birth`] right after accept, once: what can't be known later. 10 and 15 µs in the medians of two runs of 1000, over
//!   loopback on a virtual machine with 2 processors (`what_it_costs` in `tests/tcp_takeover.rs`).
//! * [`queues`] of a connection whose process is stopped or dead, by anybody who holds its socket.
//! * [`standing`] of one whose process was replaced by another on the same node, which goes on with the very socket.
//! * [`recreate`] in the calling thread's network namespace. Nothing is sent before [`SilentSocket::speak`], nor ever if it
//!   is dropped.
//! * [`silence`] is for a connection that is another's now: it closes without FIN or RST, which its client would take for
//!   the end. [`reset`] is for one that can't be carried on after all.
//! * A [`DeafListener`] keeps the heir's kernel from answering for connections that are not there yet.
//!
//! What is decided, and why that is right, is in [`backdoor_core::channels`].

mod birth;
mod deaf;
#[allow(unsafe_code)]
mod options;
mod queues;
mod recreate;
mod repair;
mod standing;

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

pub use birth::birth;
pub(crate) use birth::wall_clock;
pub use deaf::DeafListener;
pub use queues::{Queues, queues};
pub(crate) use recreate::send_now;
pub use recreate::{MAX_REFILL_BYTES, SilentSocket, recreate};
pub use standing::standing;

use options::Amount;
use repair::Repair;

/// Why a connection could not be read, or made anew.
#[derive(Debug, thiserror::Error)]
pub enum TcpError {
    /// Repair mode is a privilege.
    #[error("carrying TCP connections on needs the capability CAP_NET_ADMIN: start the service as root, or grant it")]
    NotPermitted,
    /// So are buffers beyond the system's limits, and not one that a user namespace gives.
    #[error(
        "a connection made anew needs buffers beyond the system's limits, and so CAP_NET_ADMIN outside of any user namespace"
    )]
    BuffersNotPermitted,
    /// Linux before 3.5, or another system.
    #[error("connections can't be carried on here: the kernel has no TCP_REPAIR")]
    NoRepairMode,
    /// No TCP connection over IPv4.
    #[error("the socket is no TCP connection over IPv4")]
    NotTcp,
    /// Closed, closing, or not yet open.
    #[error("the connection is not established (TCP state {state} of the kernel)")]
    NotEstablished {
        /// The kernel's number of its state.
        state: u8,
    },
    /// Bytes went over it already, so that nobody can tell how it began.
    #[error("the connection is not new: bytes were sent or read already")]
    NotNew,
    /// Bytes came or went while the queues were read.
    #[error("the connection goes on: cut its node off before its queues are read")]
    NotCutOff,
    /// It was made anew, and is another's until it speaks.
    #[error("the connection was made anew and has not spoken yet")]
    Silent,
    /// Numbers that the kernel would not take.
    #[error("this is the birth of no connection: {0}")]
    Nonsense(String),
    /// The service's address is on another machine.
    #[error("{address} is not an address of this machine, or of this network namespace: move it here first")]
    AddressNotHere {
        /// The address.
        address: SocketAddrV4,
    },
    /// Nobody here knows the way.
    #[error("there is no route from here to the client at {peer}")]
    NoRoute {
        /// The client's address.
        peer: SocketAddrV4,
    },
    /// The kernel has that connection already.
    #[error("there is a connection from {peer} to {local} here already")]
    InUse {
        /// This side's address.
        local: SocketAddrV4,
        /// The client's.
        peer: SocketAddrV4,
    },
    /// Not the output that was asked for.
    #[error("{found} bytes of output to play again, {needed} are needed")]
    WrongReplay {
        /// Bytes that were asked for.
        needed: u64,
        /// Bytes that came.
        found: usize,
    },
    /// More than the kernel is asked to hold.
    #[error("{bytes} bytes for a queue of the kernel: at most {MAX_REFILL_BYTES} are put there")]
    TooMuch {
        /// How many.
        bytes: u64,
    },
    /// The system failed.
    #[error("can't {doing}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl TcpError {
    /// For an error that means no more than it says.
    fn while_doing(doing: &'static str) -> impl Fn(Errno) -> TcpError {
        move |errno| TcpError::System { doing, source: errno.into() }
    }
}

/// Whether this process may read connections, so that they can be made anew.
///
/// # Errors
/// [`TcpError::NotPermitted`], [`TcpError::NoRepairMode`], or what the system says.
pub fn may_read() -> Result<(), TcpError> {
    enter_repair(&new_socket()?)
}

/// Whether this process may make connections anew.
///
/// # Errors
/// Those of [`may_read`]; [`TcpError::BuffersNotPermitted`], or what the system says.
pub fn may_recreate() -> Result<(), TcpError> {
    let socket = new_socket()?;
    enter_repair(&socket)?;
    recreate::may_have_room(socket.as_fd())
}

fn enter_repair(new: &OwnedFd) -> Result<(), TcpError> {
    Repair::enter(new.as_fd()).map(drop).map_err(|error| match error {
        TcpError::NotTcp => TcpError::NoRepairMode,
        error => error,
    })
}

fn new_socket() -> Result<OwnedFd, TcpError> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    socket.map_err(TcpError::while_doing("make a socket"))
}

/// Makes a connection silent for good: it sends nothing of its own accord, though it answers what comes; and whoever closes
/// the last descriptor of its socket does so without a word to the peer.
pub fn silence(socket: impl AsFd) -> Result<(), TcpError> {
    Repair::enter(socket.as_fd()).map(Repair::for_good).map(drop)
}

/// Ends a connection at once, whoever else has its socket, and tells the peer by a reset.
pub fn reset(socket: impl AsFd) -> Result<(), TcpError> {
    let socket = socket.as_fd();
    // In repair mode it would end in silence.
    Repair::enter(socket)?.leave()?;
    rustix::net::connect_unspec(socket).map_err(TcpError::while_doing("reset the connection"))
}

/// Bytes that were written to the connection and that the peer has not acknowledged. Needs no privilege.
pub(crate) fn unacknowledged(socket: impl AsFd) -> io::Result<u32> {
    Ok(options::amount(socket.as_fd(), Amount::Unacknowledged)?)
}
