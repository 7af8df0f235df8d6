//! A link to another process of the node that serves the same session.
//!
//! Each of the two processes keeps a State Box of its own for the session: a box has one writer, and a process that is
//! killed can't leave the other's locked or half-written. What joins the two is the [link's number](LinkId), which is in
//! both. An [`IpcChannel`] is one end and its connection, a Unix socket of type `SOCK_SEQPACKET`; an [`IpcSession`] is a
//! session of a process that has no client but the other process. One that serves a TCP connection hands its channel's
//! state to [`TcpSession::commit_and_send_with`](super::TcpSession::commit_and_send_with).
//!
//! The rules are those of [`backdoor_core::channels`]: commit, then [say so](IpcChannel::committed), then
//! [send](IpcChannel::flush). Connections come and go; what is missing after a new one begins is sent again, and what
//! comes twice is dropped.
//!
//! ```no_run
//! use backdoor_core::Nanos;
//! use backdoor_host::app::App;
//! use backdoor_host::serve::{IpcConfig, IpcListener, IpcSession, Received, ServeError};
//!
//! fn worker(app: &App, listener: &IpcListener) -> Result<(), Box<dyn std::error::Error>> {
//!     let Some(incoming) = listener.accept()? else { return Ok(()) };
//!     let greeted = incoming.greeting(std::time::Duration::from_secs(1))?;
//!     let config = IpcConfig {
//!         deadline: Nanos::from_millis(50),
//!         patience: Nanos::from_secs(2),
//!         application_bytes: 64,
//!         room: 4096,
//!     };
//!     let mut session = IpcSession::open(app, "counter", greeted.link(), config)?;
//!     session.answer(greeted)?;
//!     let mut count = 0u64;
//!     while let Received::Message(_) = session.receive(None)? {
//!         count += 1;
//!         session.channel().push(&count.to_le_bytes())?;
//!         session.commit_and_send(&count.to_le_bytes())?;
//!     }
//!     Ok(())
//! }
//! ```

mod channel;
mod listener;
mod session;

use std::io;

use backdoor_core::channels::{ChannelId, FrameError, LinkError, LinkId, MAX_MESSAGE_BYTES};

pub use channel::{IpcChannel, Received};
pub use listener::{Breaker, Greeted, Incoming, IpcListener};
pub use session::{IpcConfig, IpcSession};

/// The link to the other process in a session's payload.
pub const PEER: ChannelId = ChannelId(1);

/// Why nothing more comes or goes over a connection to another process. The link itself is as it was, and can be connected
/// again.
#[derive(Debug, thiserror::Error)]
pub enum IpcError {
    /// The socket can't be used.
    #[error("the link to the other process: {0}")]
    System(#[from] io::Error),
    /// What came is no packet. The other process was told.
    #[error("what came over the link was refused: {0}")]
    Frame(#[from] FrameError),
    /// What came does not fit to what this process knows. The other process was told.
    #[error("what came over the link was refused: {0}")]
    Link(#[from] LinkError),
    /// A packet came where another kind was due. The other process was told.
    #[error("what came over the link was refused: {0}")]
    OutOfTurn(&'static str),
    /// The other process refused.
    #[error("the other process refused: {why}")]
    Refused {
        /// What it said.
        why: String,
    },
    /// The other process has closed the connection.
    #[error("the other process closed the connection")]
    Closed,
    /// It did not greet in time.
    #[error("the other process does not answer")]
    NoAnswer,
    /// Longer than any message can be.
    #[error("a message of {bytes} bytes, at most {MAX_MESSAGE_BYTES} are possible")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// More than the State Box has room for.
    #[error(
        "{needed} bytes of messages to keep, and room for {room}: wait until the other process has acknowledged some"
    )]
    NoRoom {
        /// What it has not acknowledged, and what was to be sent.
        needed: usize,
        /// What can be kept.
        room: usize,
    },
}

impl IpcError {
    /// Whether the other process may answer better in a moment: it isn't there, or not ready.
    pub fn may_pass(&self) -> bool {
        !matches!(self, IpcError::Link(_) | IpcError::Frame(_) | IpcError::TooLong { .. })
    }

    /// What the other process is told, if it may not know.
    fn told(&self) -> Option<String> {
        match self {
            IpcError::Frame(error) => Some(error.to_string()),
            IpcError::Link(error) => Some(error.to_string()),
            IpcError::OutOfTurn(why) => Some((*why).into()),
            _ => None,
        }
    }
}

/// A number for a link that is new.
pub fn new_link() -> io::Result<LinkId> {
    let mut number = [0; 8];
    let mut have = 0;
    while have < number.len() {
        have += rustix::io::retry_on_intr(|| {
            rustix::rand::getrandom(&mut number[have..], rustix::rand::GetRandomFlags::empty())
        })?;
    }
    Ok(LinkId(u64::from_le_bytes(number)))
}
