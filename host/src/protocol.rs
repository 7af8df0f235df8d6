//! What an agent, its applications and its monitors say to each other when they meet. Afterwards they share memory.
//!
//! A Unix socket of type `SOCK_SEQPACKET` carries packets; a packet is one JSON object of at most [`MAX_PACKET_BYTES`]
//! with a `version`. Everything is refused that another version sent, and the refusal names both versions.
//!
//! | request | from | answer | descriptors |
//! |---|---|---|---|
//! | `{"version":7,"request":"attach"}` | monitor | `attached` | hook table, Progress Box, State Boxes: read-only; claims: writable |
//! | `{"version":7,"request":"register","name":"kv","deadline_ns":20000000}` | application | `registered` | Progress Box, State Boxes: writable; claims: read-only |
//! | `{…"request":"open_session","application":4,"name":"client 7","deadline_ns":…,"state_bytes":4096,"input_bytes":1024}` | application | `session_opened` | |
//! | the same and a socket | application | `session_opened` | |
//! | `{…"request":"adopt_orphan","application":4}` | application | `session_opened` or `no_orphan` | the session's socket |
//! | `{…"request":"watch_queue","slot":5,"keep":true}` and a socket | application | `done` | |
//! | `{…"request":"queues","session":3}` | taker | `queues` | what the queues hold |
//! | `{…"request":"let_go","session":3}` | taker | `done` | |
//! | `{…"request":"close_session","session":3}` | application | none | |
//! | `{…"request":"depart","application":4}` | application | none | |
//! | `{…"request":"status"}` | anybody | `status` | |
//! | `{…"request":"revoke","region":3}` | anybody | `done` | |
//! | `{…"request":"restore","region":3}` | anybody | `done` | |
//!
//! Any request can be answered by `refused`, with a reason for programs and a message for people. A closing notice
//! (`close_session`, `depart`) is answered only if it is refused as malformed, so that no destructor waits for anybody.
//! An answer lists regions in the order of its descriptors. Requests over one connection are answered in their order, and
//! several may be under way; whoever leaves so many answers in its queue that it is full is disconnected.
//!
//! An application that closes its connection without `depart` has died: its entities and State Boxes stay.
//!
//! `watch_queue` takes exactly one descriptor: a stream socket, or a Unix socket of packets in order, whose duplicate the
//! agent keeps for the application or session in that slot, and from then on tells how much waits in it. If it is to `keep`
//! the socket, the agent does so when the application dies, so that its client is not told, for as long as the agent is
//! configured to: somebody may carry the connection on. A socket that comes with `open_session` is kept for that session;
//! until something was committed there is nothing to carry on, and it goes with its process. What comes with other requests
//! is closed.
//!
//! `adopt_orphan` is for an application that was started again: it gets the next session that a process of the same name left
//! when it died, in the State Box that the session has, and a descriptor of its connection. A session is left that is kept,
//! whose process has ended by the kernel's word, and that nobody has claimed. While such a process is about to end, the
//! request is refused: ask again.
//!
//! `queues` is for whoever takes a session over: what its kept TCP connection holds, as it is now, and before that whatever its
//! owner has taken out of it and may not have acted upon. It is refused as long as
//! the session may be given back (its claim word says *unclaimed* or *claimed*), for the connection pauses meanwhile, and
//! its owner's calls may fail. `let_go` closes what the agent keeps of it, in silence and under the same condition: the
//! connection lives elsewhere now, or can't be carried on. The agent does so by itself when it finds that the session has
//! moved, or has been lost to its owner for as long as the agent keeps connections.
//!
//! `revoke` takes a region back from the network card, so that no monitor on another machine can reach it; `restore`
//! offers it again, under another key of the card. Memory that processes of this machine have mapped stays with them.

use backdoor_core::transport::{RegionKey, Rights};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::tcp::Queues;

/// Version of the packets.
pub const PROTOCOL_VERSION: u32 = 7;
/// Longest packet.
pub const MAX_PACKET_BYTES: usize = 4096;
/// Most descriptors in one packet.
pub const MAX_DESCRIPTORS: usize = 8;

/// Region of the hook table; monitors start here.
pub const HOOK_TABLE: RegionKey = RegionKey(1);
/// Region of the Progress Box.
pub const PROGRESS_BOX: RegionKey = RegionKey(2);
/// Region of all State Boxes.
pub const STATE_BOXES: RegionKey = RegionKey(3);
/// Region of all claim words.
pub const CLAIMS: RegionKey = RegionKey(4);

/// What is asked of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// A monitor wants to read the node.
    Attach {},
    /// How full is the node?
    Status {},
    /// A region must not be reachable from other machines any more.
    Revoke {
        /// Its key.
        region: u32,
    },
    /// A region may be reached from other machines again.
    Restore {
        /// Its key.
        region: u32,
    },
    /// An application wants to be watched.
    Register {
        /// Its name.
        name: String,
        /// Silence longer than this while active is a failure.
        deadline_ns: u64,
    },
    /// A registered application has a new client; maybe with its socket, which is to be kept.
    OpenSession {
        /// The application's slot.
        application: u32,
        /// Name of the session.
        name: String,
        /// Silence longer than this while active is a failure.
        deadline_ns: u64,
        /// Largest state that it will commit.
        state_bytes: u64,
        /// Input that it will have taken out of the socket and not acted upon at most; 0 if it keeps none here.
        input_bytes: u64,
    },
    /// A registered application wants to go on with a session that a dead process of the same name left.
    AdoptOrphan {
        /// The application's slot.
        application: u32,
    },
    /// With a socket: what waits in it is work of an application or session.
    WatchQueue {
        /// The slot of the application or session.
        slot: u32,
        /// Whether it is kept for a while if the application dies.
        keep: bool,
    },
    /// Whoever takes a session over wants to know what its kept connection holds.
    Queues {
        /// Its number.
        session: u64,
    },
    /// Whoever takes a session over has no more use for its kept connection.
    LetGo {
        /// Its number.
        session: u64,
    },
    /// The session has ended as it should. No answer.
    CloseSession {
        /// Its number.
        session: u64,
    },
    /// The application ends as it should, and its sessions with it. No answer.
    Depart {
        /// The application's slot.
        application: u32,
    },
}

/// What an agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// To `attach`.
    Attached {
        /// Which start of the agent this is.
        incarnation: u64,
        /// What the descriptors are.
        regions: Vec<Region>,
    },
    /// To `register`.
    Registered {
        /// Which start of the agent this is.
        incarnation: u64,
        /// The application's slot in the Progress Box.
        application: u32,
        /// Index of its liveness word in the Progress Box's region.
        liveness_word: u64,
        /// What the descriptors are.
        regions: Vec<Region>,
    },
    /// To `open_session`: the State Box is formatted already. To `adopt_orphan`: it is as its last writer left it, and the
    /// descriptor is the session's socket.
    SessionOpened {
        /// The session's slot in the Progress Box.
        slot: u32,
        /// Index of its liveness word in the Progress Box's region.
        liveness_word: u64,
        /// Its number, unique on the node, and the incarnation of its State Box.
        session: u64,
        /// First word of its State Box.
        offset: u64,
        /// Words of its State Box.
        words: u64,
        /// Words for its input, right behind the State Box.
        input_words: u64,
        /// Index of its claim word.
        claim: u32,
    },
    /// To `adopt_orphan`: there is none (any more).
    NoOrphan {
        /// Sessions that were left and are not handed on: they are claimed, have no connection, or their process lives.
        withheld: u64,
    },
    /// To `queues`. The descriptor is a file with the unread input, and then the unacknowledged output.
    Queues(QueuesOf),
    /// To `status`.
    Status(Status),
    /// To `watch_queue`, `let_go`, `revoke` and `restore`: it is so now, and may have been before.
    Done {},
    /// To anything.
    Refused {
        /// For programs.
        reason: Reason,
        /// For people.
        message: String,
    },
}

/// One region behind a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// The key under which hooks name it.
    pub key: u32,
    /// Its length.
    pub words: u64,
    /// What remote operations may do; see [`Rights::bits`].
    pub rights: u8,
    /// Whether its descriptor can be mapped for writing.
    pub writable: bool,
}

impl Region {
    pub(crate) fn new(key: RegionKey, words: usize, rights: Rights, writable: bool) -> Self {
        Region { key: key.0, words: words as u64, rights: rights.bits(), writable }
    }
}

/// Where a TCP connection stands, in sequence numbers; see [`Queues`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuesOf {
    /// First byte of output that the client has not acknowledged.
    pub acknowledged: u32,
    /// First byte of output that was never sent.
    pub sent: u32,
    /// First byte of input that was not acknowledged to the client.
    pub received: u32,
    /// Whether the client sends no more.
    pub ended: bool,
    /// Bytes of unread input.
    pub unread: u64,
    /// Bytes of unacknowledged output.
    pub unacknowledged: u64,
}

impl From<&Queues> for QueuesOf {
    fn from(queues: &Queues) -> Self {
        let Queues { acknowledged, sent, received, ended, ref unread, ref unacknowledged } = *queues;
        let (unread, unacknowledged) = (unread.len() as u64, unacknowledged.len() as u64);
        QueuesOf { acknowledged, sent, received, ended, unread, unacknowledged }
    }
}

impl QueuesOf {
    /// With the bytes, whose numbers are not looked at.
    pub fn with(self, unread: Vec<u8>, unacknowledged: Vec<u8>) -> Queues {
        let QueuesOf { acknowledged, sent, received, ended, .. } = self;
        Queues { acknowledged, sent, received, ended, unread, unacknowledged }
    }
}

/// How full a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Which start of the agent this is.
    pub incarnation: u64,
    /// Entities in the Progress Box, the agent's own among them.
    pub entities: u64,
    /// Room of the Progress Box.
    pub capacity: u64,
    /// Applications, orphans among them.
    pub applications: u64,
    /// Sessions, orphans among them.
    pub sessions: u64,
    /// Applications and sessions that nobody serves and that are kept for recovery.
    pub orphans: u64,
    /// Words for State Boxes that are free.
    pub free_state_words: u64,
    /// Words for State Boxes.
    pub state_words: u64,
    /// Sockets that are watched.
    pub queues: u64,
    /// Sockets that can be watched at once.
    pub max_queues: u64,
    /// Monitors on other machines that are connected now.
    pub remote_monitors: u64,
    /// Connections from other machines that were turned away: strangers, other keys, other versions, one too many.
    pub remote_turned_away: u64,
}

/// Why an agent refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The packet is of another version.
    WrongVersion,
    /// The packet is no request.
    Malformed,
    /// A value that can't be.
    Invalid,
    /// No room in the Progress Box, for State Boxes, for claims, or for queues.
    Full,
    /// Too many connections.
    Busy,
    /// The application is not registered over this connection.
    NotYours,
    /// The session is its owner's, or may be given back.
    NotClaimed,
    /// It can't be answered yet: ask again.
    NotYet,
    /// The agent itself failed.
    Internal,
}

/// Why a packet can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Another version.
    #[error("the packet is of protocol version {found}, this program speaks version {PROTOCOL_VERSION}")]
    WrongVersion {
        /// Its version.
        found: u32,
    },
    /// No packet of this protocol.
    #[error("the packet is malformed: {0}")]
    Malformed(String),
}

#[derive(Serialize)]
struct Packet<'a, T> {
    version: u32,
    #[serde(flatten)]
    body: &'a T,
}

/// Only this is asked of a packet of any version.
#[derive(Deserialize)]
struct AnyVersion {
    version: u32,
}

/// A request or an answer as a packet.
pub fn encode<T: Serialize>(body: &T) -> Vec<u8> {
    // Maps with string keys and integers: nothing that JSON can't hold. An empty packet is refused by any receiver.
    serde_json::to_vec(&Packet { version: PROTOCOL_VERSION, body }).unwrap_or_default()
}

/// A packet as a request or an answer. The version is looked at first.
pub fn decode<T: DeserializeOwned>(packet: &[u8]) -> Result<T, PacketError> {
    if packet.len() > MAX_PACKET_BYTES {
        return Err(PacketError::Malformed(format!("longer than {MAX_PACKET_BYTES} bytes")));
    }
    let malformed = |error: serde_json::Error| PacketError::Malformed(error.to_string());
    let AnyVersion { version } = serde_json::from_slice(packet).map_err(malformed)?;
    if version != PROTOCOL_VERSION {
        return Err(PacketError::WrongVersion { found: version });
    }
    serde_json::from_slice(packet).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn packets_come_back() {
        for request in [
            Request::Attach {},
            Request::Register { name: "kv \"ü\"".into(), deadline_ns: u64::MAX },
            Request::OpenSession {
                application: 4,
                name: String::new(),
                deadline_ns: 1,
                state_bytes: 9,
                input_bytes: 0,
            },
            Request::WatchQueue { slot: 5, keep: true },
            Request::AdoptOrphan { application: 4 },
            Request::Queues { session: 3 },
            Request::Depart { application: 7 },
        ] {
            assert_eq!(decode(&encode(&request)), Ok(request));
        }
        let answer = Answer::Status(Status { incarnation: u64::MAX, orphans: 3, ..Status::default() });
        assert_eq!(decode(&encode(&answer)), Ok(answer));
    }

    #[test]
    fn the_documented_packets_are_read() {
        let attach: Request = decode(br#"{"version":7,"request":"attach"}"#).unwrap();
        assert_eq!(attach, Request::Attach {});
        let revoke: Request = decode(br#"{"version":7,"request":"revoke","region":3}"#).unwrap();
        assert_eq!(revoke, Request::Revoke { region: STATE_BOXES.0 });
        let register = decode(br#"{"version":7,"request":"register","name":"kv","deadline_ns":20000000}"#);
        assert_eq!(register, Ok(Request::Register { name: "kv".into(), deadline_ns: 20_000_000 }));
    }

    #[test]
    fn the_version_is_looked_at_first() {
        let error = decode::<Request>(br#"{"version":1,"request":"dance","partners":[1]}"#).unwrap_err();
        assert_eq!(error, PacketError::WrongVersion { found: 1 });
        assert!(error.to_string().contains("version 7") && error.to_string().contains("version 1"), "{error}");
    }

    proptest! {
        #[test]
        fn garbage_is_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(decode::<Request>(&bytes).is_err());
        }
    }
}
