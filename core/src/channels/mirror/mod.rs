//! What somebody on the way between clients and a service knows of their connections, from the packets that pass.
//!
//! A node that has vanished can't be asked what its sockets held, and input that its kernel had acknowledged is sent by
//! nobody again. But it passed. A mirror keeps each connection's last input and answers, when the node is cut off, what the
//! node's kernel would have answered ([`KernelQueues`](super::KernelQueues)).
//!
//! ```text
//!   input of one connection      ──────────────┬─────────────────────┬───────────┬──────────────>
//!   let go of: too long ago                    │ kept, in order      │  a gap    │ kept, ahead
//!                                              start     consumed    end         (TCP's reordering)
//!                                                          └─ unread ─┘
//! ```
//!
//! * **It must see all that passes,** both directions, before who it is for does: then nobody has acted upon input that it
//!   hasn't seen. What it missed it must be [told](Streams::missed), and then it says so rather than give a wrong answer: a
//!   gap in what was acknowledged is for good, and after a loss a connection counts again when its node was heard anew.
//! * **Input that passed and was not acknowledged** is part of the answer. The client did send it, so that it need not send it
//!   again; and the service may have acted upon it before an acknowledgement could pass.
//! * **Memory is bounded,** per connection and in all. Unread input that was acknowledged is never more than the node's
//!   receive buffer (Linux: `net.ipv4.tcp_rmem`, 6 MiB by default), so [`Limits`] of more than that lose nothing. Bytes
//!   before what a State Box says was consumed are kept, too, for the mirror isn't told of it.
//! * **Wrong bytes are never given.** If two versions of the same input pass before it is acknowledged, nobody on the way
//!   knows which one the node took, and the connection is given up. What a kernel would not take (a wrong checksum) must
//!   not be handed in.
//!
//! ```
//! use std::net::SocketAddrV4;
//! use backdoor_core::channels::mirror::{Limits, Segment, Streams};
//! let (client, service): (SocketAddrV4, SocketAddrV4) = ("10.0.0.1:5000".parse()?, "10.0.0.10:80".parse()?);
//! let mut streams = Streams::new(service, Limits::default());
//! // The node agrees to a connection; then the client speaks.
//! let agreed = Segment { from: service, to: client, sequence: 699, acknowledges: Some(1000), syn: true, ..Segment::EMPTY };
//! streams.pass(&agreed);
//! let request = Segment { from: client, to: service, sequence: 1000, acknowledges: Some(700), ..Segment::EMPTY };
//! streams.pass(&Segment { payload: b"PUT", length: 3, ..request });
//! assert_eq!(streams.queues(client, 1001)?.unread, b"UT");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod connection;
mod input;
mod streams;

use std::net::{Ipv4Addr, SocketAddrV4};

pub use streams::Streams;

/// A TCP segment that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Who sent it.
    pub from: SocketAddrV4,
    /// Whom it is for.
    pub to: SocketAddrV4,
    /// Number of its first byte.
    pub sequence: u32,
    /// Number of the next byte that the sender waits for.
    pub acknowledges: Option<u32>,
    /// Whether it begins a stream. That takes a number of its own.
    pub syn: bool,
    /// Whether it ends the stream, after what it carries. That takes a number, too.
    pub fin: bool,
    /// Whether it breaks the connection off.
    pub rst: bool,
    /// Bytes that it carries.
    pub length: u32,
    /// Those of them that are here, from the first one on: all, of a segment for the service.
    pub payload: &'a [u8],
}

impl Segment<'_> {
    /// One that says nothing, from nobody to nobody.
    pub const EMPTY: Segment<'static> = {
        let nobody = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        Segment {
            from: nobody,
            to: nobody,
            sequence: 0,
            acknowledges: None,
            syn: false,
            fin: false,
            rst: false,
            length: 0,
            payload: &[],
        }
    };
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of input of one connection.
    pub connection_bytes: usize,
    /// Most bytes of all connections together, which they share equally when they are many.
    pub bytes: usize,
    /// Most connections. Those that were closed go first, then those that were silent for longest.
    pub connections: usize,
}

impl Default for Limits {
    /// 32 MiB, to which Linux lets an unread queue grow (`net.ipv4.tcp_rmem` since 6.16), 256 MiB and 4096.
    fn default() -> Self {
        Limits { connection_bytes: 32 << 20, bytes: 256 << 20, connections: 4096 }
    }
}

/// Where a connection stands, in TCP's sequence numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirrored {
    /// Number of the first byte of output that the client has not acknowledged, as far as was seen: the client may have more.
    pub acknowledged: u32,
    /// Number of the first byte of output that never passed: the client can't have it.
    pub sent: u32,
    /// Number of the first byte of input that never passed.
    pub received: u32,
    /// Whether the client has said that no input comes any more.
    pub ended: bool,
    /// Input from what was consumed up to `received`.
    pub unread: Vec<u8>,
}

/// Why a mirror can't tell where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum MirrorError {
    /// Nothing passed, or too long ago.
    #[error("the mirror has seen no packet of the connection")]
    Unknown,
    /// Packets passed unseen, and the node might have acknowledged anything in them.
    #[error("the mirror missed packets, and the node was not heard on the connection since")]
    Missed,
    /// Some of the input passed unseen, or is not kept any more.
    #[error("the mirror doesn't have the connection's input from what was consumed on")]
    Gap,
    /// Two versions of the same input passed.
    #[error("two versions of the same input passed: nobody knows which one the node took")]
    Contradiction,
    /// The client has not acknowledged anything yet.
    #[error("the mirror has not heard the client on the connection")]
    ClientUnheard,
    /// The node, or the client, had ended it.
    #[error("the connection was closed or reset before")]
    Over,
}
