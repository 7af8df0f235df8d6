//! Serving a client over TCP so that another node can carry the connection on.
//!
//! A session that two processes of a node serve together has a [link](IpcChannel) between them, too.
//!
//! A [`TcpSession`] is a [`Session`](crate::app::Session) and its connection. It keeps the rules of
//! [`backdoor_core::channels`]: state and promise are committed before output is sent, and input is kept, by the kernel and
//! then in memory of the node, until what came of it is committed. So a service that is killed between any two instructions has lost nothing, and done
//! nothing twice.
//!
//! ```no_run
//! use backdoor_core::Nanos;
//! use backdoor_host::app::Node;
//! use backdoor_host::agent::default_socket;
//! use backdoor_host::serve::{Retain, SessionConfig, TcpSession};
//!
//! let app = Node::connect(default_socket())?.register("echo", Nanos::from_secs(1))?;
//! let listener = std::net::TcpListener::bind("10.0.0.1:7")?;
//! let config = SessionConfig {
//!     deadline: Nanos::from_millis(50),
//!     patience: Nanos::from_secs(2),
//!     application_bytes: 64,
//!     input_bytes: 512,
//!     retain: Retain::Bytes(1 << 20),
//! };
//! let mut session = TcpSession::accept(&app, listener.accept()?.0, "client", config)?;
//! let mut line = [0; 512];
//! loop {
//!     let length = session.read(&mut line)?;
//!     if length == 0 {
//!         break;
//!     }
//!     session.commit_and_send(b"", length, &line[..length])?;
//!     session.idle();
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Idle
//! A session is *active* while the next step is its own, and then owes progress within its deadline. It is *idle* while it
//! waits for its client, and then owes nothing, unless input waits in its socket: that counts as work, for whoever watches
//! can't know what it is good for. So that no healthy session is suspected, three rules see to it that this is true:
//!
//! 1. **Input that can't be acted upon yet does not stay in the socket.** The first half of a request is read, and nothing
//!    waits. If it may be longer than there is [room for](SessionConfig::input_bytes), it is acted upon by committing it:
//!    consumed, it is the service's state. This is up to the service, and how long such a half may be, too.
//! 2. **Who waits for its client to take output says so again and again,** [four times](SessionConfig::say_every) in each
//!    deadline, in [`commit_and_send`](TcpSession::commit_and_send) and
//!    [`wait_until_acknowledged`](TcpSession::wait_until_acknowledged). To say so is progress. So a client may send a
//!    hundred requests and read no answer, for as long as it likes; and a session that hangs is silent and found out.
//! 3. **A session that is prepared waits, too,** and its holder [says so](PreparedSession::waits).
//!
//! # The heir
//! The heir, with what it read out of the failed node's State Box and, if that node's agent still lives, out of the
//! connection's [queues](crate::app::Node::queues):
//!
//! ```no_run
//! # use backdoor_core::channels::SessionPayload;
//! # use backdoor_host::app::App;
//! # use backdoor_host::serve::*;
//! # use backdoor_host::tcp::Queues;
//! # fn heir(app: &App, payload: &[u8], queues: Option<&Queues>, config: SessionConfig) -> Result<TcpSession, ServeError> {
//! let payload = SessionPayload::decode(payload)?; // checked once, and all of it
//! let prepared = TcpSession::adopt(app, &payload, queues, "client", config, |_| Vec::new())?; // silent, and in a State Box
//! // Here the session becomes this node's: `backdoor_core::takeover`.
//! prepared.speak()
//! # }
//! ```
//!
//! # The same node
//! A service that was started again, after its process had died or was ended, goes on with what that process left. The agent
//! has kept connections and State Boxes, so nothing is made anew:
//!
//! ```no_run
//! # use backdoor_host::app::{App, Left};
//! # use backdoor_host::serve::*;
//! # fn start_again(app: &App, config: SessionConfig) -> Result<(), Box<dyn std::error::Error>> {
//! while let Left::Session(left) = app.adopt_orphan()? {
//!     let session = TcpSession::readopt(*left, config, |_| Vec::new())?.go_on()?;
//!     // It is served as if nothing had happened.
//! }
//! # Ok(())
//! # }
//! ```

mod adopt;
mod intake;
mod ipc;
mod progress;
mod readopt;
mod session;
mod waiting;

use std::io;

use backdoor_core::Nanos;
use backdoor_core::channels::{ChannelError, ChannelId, ResumeError};
use backdoor_core::state_box::{self, CommitError};

use crate::app::AppError;
use crate::input_ring;
use crate::tcp::TcpError;
use crate::wire::ConnectionError;

pub use adopt::PreparedSession;
pub use ipc::{
    Breaker, Greeted, Incoming, IpcChannel, IpcConfig, IpcError, IpcListener, IpcSession, PEER, Received, new_link,
};
pub use readopt::ReadoptedSession;
pub use session::TcpSession;

/// The connection to the client in a session's payload.
pub const CLIENT: ChannelId = ChannelId(0);

/// Where output comes from that a client asks for again after a takeover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retain {
    /// From the State Box, which has room for so many bytes of output: all that the client has not acknowledged, and what
    /// is sent next.
    Bytes(usize),
    /// From the application, which can compute it anew.
    Regenerated,
}

/// What a session is opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    /// Silence longer than this while active is a failure.
    pub deadline: Nanos,
    /// For how long a session shows life while the same taker claims it: the patience of the cluster's takers
    /// ([`TakeoverConfig`](backdoor_core::takeover::TakeoverConfig::patience)).
    pub patience: Nanos,
    /// Largest state of the application, in bytes; with that of [channels to other processes](IpcChannel::state_bytes).
    pub application_bytes: usize,
    /// Most input that is read and not acted upon yet, in bytes, from 1 to 1 MiB; the next power of two is what there is
    /// room for, but no less than 4 KiB. A service that reads a whole request before it acts upon it needs as much.
    pub input_bytes: usize,
    /// Where output comes from that is asked for again.
    pub retain: Retain,
}

impl SessionConfig {
    /// Words of the agent's memory ([`state_words`](crate::agent::AgentConfig::state_words)) that such a session takes.
    pub fn words(&self) -> usize {
        let state_bytes = progress::state_bytes(self.retain, self.application_bytes);
        state_box::words_needed(state_bytes) + input_ring::words_needed(self.input_bytes).unwrap_or(0)
    }

    /// How often a session that waits says so: four times in its deadline.
    pub const fn say_every(&self) -> Nanos {
        Nanos(self.deadline.0 / 4)
    }
}

/// Why a session could not be opened, served, or carried on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The agent.
    #[error(transparent)]
    App(#[from] AppError),
    /// The agent would not keep the connection.
    #[error(transparent)]
    Keep(#[from] ConnectionError),
    /// The connection can't be read or made.
    #[error(transparent)]
    Tcp(#[from] TcpError),
    /// The state was not committed, so nothing was sent.
    #[error(transparent)]
    Commit(CommitError),
    /// The session is another's: drop it, which closes the connection without a word to the client.
    #[error("the session was taken over: stop serving it")]
    Lost,
    /// The payload is none.
    #[error(transparent)]
    Payload(#[from] ChannelError),
    /// State and socket don't fit together.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// The session has no connection to a client.
    #[error("the session's state has no TCP connection {}", CLIENT.0)]
    NoConnection,
    /// The session has no memory for input: it was not opened by a [`TcpSession`], or for 0 bytes of it.
    #[error("the session has no memory for input")]
    NoInput,
    /// The session has no link to another process.
    #[error("the session's state has no IPC channel {}", PEER.0)]
    NoLink,
    /// The link to another process.
    #[error(transparent)]
    Ipc(#[from] IpcError),
    /// More than was read.
    #[error("{consumed} bytes of input acted upon, of {read} that were read")]
    NotRead {
        /// What was said to be acted upon.
        consumed: usize,
        /// What was read and not yet acted upon.
        read: usize,
    },
    /// More output than the State Box has room for.
    #[error("{needed} bytes of output to retain, and room for {room}: send less at once, or wait for the client")]
    NoRoom {
        /// Output that the client has not acknowledged, and what was to be sent.
        needed: usize,
        /// What can be retained.
        room: usize,
    },
    /// The client is gone.
    #[error("the connection to the client: {0}")]
    Client(#[source] io::Error),
}

impl From<CommitError> for ServeError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Lost { .. } => ServeError::Lost,
            error => ServeError::Commit(error),
        }
    }
}
