//! What a session's State Box payload holds: the application's state, and the state of the channels to its clients and
//! to other processes. With it another node carries the session on, connections and all.
//!
//! ```text
//!   payload     magic, version, number of channels, length │ application state │ channel │ channel │ …
//!   channel     kind, id, length │ body
//!   TCP body    the connection's birth │ how far it has come │ output that may be asked for again
//!   IPC body    the link's number │ messages sent and received │ messages that the other process has not acknowledged
//! ```
//!
//! [`SessionPayload`] reads it without a copy and believes nothing; [`encode`](SessionPayload::encode) writes no more
//! than that reads. [`TcpState`] and [`IpcState`] are the two kinds of channel, [`resume`](fn@resume) is the decision of
//! a takeover: from which byte on a TCP connection is played again.
//!
//! # How a stream goes on with every byte once
//! Offsets count the bytes of a direction since the handshake. A service keeps to three rules:
//! 1. it commits [`intent`](TcpState::intent), output promised, *before* it sends any of it;
//! 2. it commits [`consumed`](TcpState::consumed), input acted upon, together with what came of it;
//! 3. it can produce its output again, from what the client is known to have acknowledged up to `intent`: by keeping it
//!    or by computing it.
//!
//! Then the client's kernel sees to the rest, by sequence numbers: output sent twice is dropped there, output never sent
//! is what the heir sends first, and input that nobody acknowledged is sent again. What remains is input that the failed
//! node's *kernel* acknowledged and its process had not acted upon. The client won't send that again, so it must come out
//! of the failed node's socket ([`KernelQueues`]), or from somebody who saw it pass ([`mirror`]); where it can't,
//! [`Input::UnreadUnknown`] says so. A service that takes input out of its socket into memory that outlives it, and keeps it
//! there until it has committed what came of it, loses none to its own death.
//!
//! # How messages go on, each acted upon once
//! A session that two processes serve has a State Box in each, with one writer each, and a link between them. [`IpcEnd`]
//! is an end of it and keeps its rule, that nothing leaves before it is committed; its module says why the two boxes fit
//! together, though they are read one after the other. [`Frame`] is what goes over the connection.
//!
//! # When only the process has died
//! If the node lives and only the process has died, the socket itself goes on, and [`go_on`] decides where.
//!
//! ```
//! use backdoor_core::channels::{Channel, ChannelId, IpcEnd, LinkId, SessionPayload};
//! let mut to_cache = IpcEnd::new(LinkId(0x5eed));
//! to_cache.push(b"put balance 7");
//! let ipc = to_cache.state();
//!
//! let mut payload = Vec::new(); // reused from commit to commit
//! SessionPayload::encode(b"balance = 7", &[(ChannelId(2), Channel::Ipc(ipc))], &mut payload)?;
//!
//! let read = SessionPayload::decode(&payload)?;
//! assert_eq!(read.application(), b"balance = 7");
//! assert_eq!(read.channel(ChannelId(2)), Some(Channel::Ipc(ipc)));
//! # Ok::<(), backdoor_core::channels::ChannelError>(())
//! ```

mod bytes;
mod error;
mod frame;
mod ipc;
mod kept;
mod link;
pub mod mirror;
mod payload;
mod resume;
mod sequence;
mod tcp;

pub use error::ChannelError;
pub use frame::{Frame, FrameError, MAX_FRAME_BYTES, MAX_MESSAGE_BYTES};
pub use ipc::{Arrival, IpcState, LinkId, Messages, Outbox};
pub use kept::{GoOn, KeptSocket, go_on};
pub use link::{Greeting, IpcEnd, LinkError};
pub use payload::{Channel, ChannelId, Channels, MAX_CHANNELS, SessionPayload, TCP_CHANNEL_BYTES, encoded_len};
pub use resume::{Input, KernelQueues, Resume, ResumeError, resume};
pub use sequence::{offset_near, sequence_at};
pub use tcp::{CLOCK_MARGIN, Output, TcpBirth, TcpState, TcpTimestamp, WindowScales};
