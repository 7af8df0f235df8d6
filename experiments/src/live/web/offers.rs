//! What a taker sends to a node that is to carry sessions on, and is answered: a Unix stream of frames. A frame is the
//! length of its head (four bytes, little-endian), the head (JSON), and the bytes that the head announces.
//!
//! Nobody waits for a peer that is stuck: whoever can't write for [`PATIENCE`] closes the stream.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use backdoor_core::takeover::{Epoch, Offer, PartyId, Seen};
use backdoor_core::transport::{RegionKey, RemoteSlice};
use backdoor_host::protocol::QueuesOf;
use backdoor_host::tcp::Queues;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How long a peer may take to take bytes; and a taker, once it has begun, to go on with what it offers.
pub const PATIENCE: Duration = Duration::from_millis(500);
/// Longest head.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Most bytes behind one: a session's state, its input and its output.
pub const MAX_BODY_BYTES: u64 = 64 << 20;
/// What is announced beyond this is no session, but a stream out of step.
const MOST_SKIPPED_BYTES: u64 = 1 << 32;

/// A session's state, offered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferHead {
    by: u32,
    epoch: u32,
    session: u64,
    incarnation: u64,
    unclaimed: u64,
    sequence: u64,
    /// Which start of the agent the old owner's memory belongs to.
    pub agent: u64,
    /// The claim words at the old owner's node: region, first word, words; and which of them is the session's.
    claims: (u32, u64, u64),
    /// Which claim word is the session's.
    pub claim: u32,
    /// Name of the session.
    pub name: String,
    /// Silence longer than this is a failure, in ns.
    pub deadline_ns: u64,
    /// Offers that follow at once, and belong to this one: sessions of one node, which are to be there all before the first
    /// of them speaks.
    pub more: u32,
    /// Sessions of that node with the same address that are to be carried on, by whichever taker: when as many are here, all
    /// are.
    pub all: u64,
    /// Bytes of the State Box's payload; they come first.
    pub payload_bytes: u64,
    /// Where the connection stood, if the old owner's agent could tell; its unread input and its unacknowledged output come
    /// next.
    pub queues: Option<QueuesOf>,
}

impl OfferHead {
    /// Of a session of this name, whose claim word is number `claim` of `claims`.
    pub fn new(offer: &Offer, claims: RemoteSlice, claim: u32, name: &str, deadline_ns: u64) -> Self {
        let Seen { session, incarnation, unclaimed, sequence } = offer.seen;
        OfferHead {
            by: offer.by.number(),
            epoch: offer.epoch.0,
            session,
            incarnation,
            unclaimed,
            sequence,
            agent: 0,
            claims: (claims.key.0, claims.offset, claims.words),
            claim,
            name: name.into(),
            deadline_ns,
            more: 0,
            all: 0,
            payload_bytes: 0,
            queues: None,
        }
    }

    /// The offer, if it is one.
    pub fn offer(&self) -> Option<Offer> {
        let Self { session, incarnation, unclaimed, sequence, .. } = *self;
        let seen = Seen { session, incarnation, unclaimed, sequence };
        Some(Offer { by: PartyId::new(self.by)?, epoch: Epoch(self.epoch), seen })
    }

    /// The claim words at the old owner's node.
    pub fn claims(&self) -> RemoteSlice {
        let (key, offset, words) = self.claims;
        RemoteSlice { key: RegionKey(key), offset, words }
    }
}

/// What came of an offer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerHead {
    /// The session's number at its old owner.
    pub session: u64,
    /// The offer's epoch.
    pub epoch: u32,
    /// Whether it is served here now.
    pub serving: bool,
    /// Why not, if not; what went wrong all the same, if it is.
    pub why: Option<String>,
    /// Whether all input is there that the old owner's kernel had acknowledged.
    pub input_known: bool,
    /// When its connection spoke.
    pub served_ns: u64,
}

/// Connects to where offers are taken; waits no longer than [`PATIENCE`], then or later.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Bounds the connecting, too, which waits while too many others do.
    set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(UnixStream::from(socket))
}

/// A session's state and its socket's queues, to be offered.
#[derive(Clone, Debug)]
pub struct Offered<'a> {
    /// What is said of them.
    pub head: OfferHead,
    /// The State Box's payload.
    pub payload: &'a [u8],
    /// The queues, if they are known.
    pub queues: Option<&'a Queues>,
}

impl Offered<'_> {
    fn bodies(&self) -> [&[u8]; 3] {
        let (unread, sent) = self.queues.map_or((&[][..], &[][..]), |of| (&of.unread, &of.unacknowledged));
        [self.payload, unread, sent]
    }

    /// Why it can't be offered to anybody, if it is larger than a target takes.
    pub fn too_large(&self) -> Option<String> {
        too_large(self.bodies().iter().map(|body| body.len() as u64).sum())
    }
}

fn too_large(bytes: u64) -> Option<String> {
    (bytes > MAX_BODY_BYTES).then(|| format!("its state and queues have {bytes} bytes, over {MAX_BODY_BYTES}"))
}

/// Writes an offer.
pub fn send_offer(into: &mut impl Write, offered: &Offered<'_>) -> io::Result<()> {
    let mut head = offered.head.clone();
    head.payload_bytes = offered.payload.len() as u64;
    head.queues = offered.queues.map(QueuesOf::from);
    send(into, &head, &offered.bodies())
}

/// What comes behind an offer's head.
#[derive(Debug, PartialEq, Eq)]
pub enum OfferBody {
    /// A session's state and the queues of its socket.
    Here(Vec<u8>, Option<Queues>),
    /// It is too large, and was skipped; why.
    TooLarge(String),
}

/// Reads what comes behind an offer's head.
pub fn receive_offer(from: &mut impl Read, head: &OfferHead) -> io::Result<OfferBody> {
    let queues = head.queues.map_or([0; 2], |queues| [queues.unread, queues.unacknowledged]);
    let bytes = queues.iter().fold(head.payload_bytes, |sum, bytes| sum.saturating_add(*bytes));
    if let Some(why) = too_large(bytes) {
        if bytes > MOST_SKIPPED_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{bytes} bytes for one session")));
        }
        return match io::copy(&mut from.take(bytes), &mut io::sink())? {
            skipped if skipped == bytes => Ok(OfferBody::TooLarge(why)),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        };
    }
    let mut body = |bytes: u64| {
        let mut body = vec![0; bytes as usize];
        from.read_exact(&mut body).map(|()| body)
    };
    let payload = body(head.payload_bytes)?;
    let mut queues = None;
    if let Some(found) = head.queues {
        let unread = body(found.unread)?;
        queues = Some(found.with(unread, body(found.unacknowledged)?));
    }
    Ok(OfferBody::Here(payload, queues))
}

/// Writes one frame.
pub fn send(into: &mut impl Write, head: &impl Serialize, bodies: &[&[u8]]) -> io::Result<()> {
    let head = serde_json::to_vec(head)?;
    let length = u32::try_from(head.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    into.write_all(&length.to_le_bytes())?;
    into.write_all(&head)?;
    bodies.iter().try_for_each(|body| into.write_all(body))?;
    into.flush()
}

/// Reads the head of a frame; `None` if the other end has closed.
pub fn receive<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    if from.read(&mut length[..1])? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut length[1..])?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_HEAD_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a head of {length} bytes")));
    }
    let mut head = vec![0; length];
    from.read_exact(&mut head)?;
    Ok(Some(serde_json::from_slice(&head)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_comes_over() {
        let seen = Seen { session: 7, incarnation: 2, unclaimed: u64::MAX, sequence: 5 };
        let offer = Offer { by: PartyId::new(3).unwrap(), epoch: Epoch(9), seen };
        let claims = RemoteSlice { key: RegionKey(4), offset: 8, words: 64 };
        let head = OfferHead::new(&offer, claims, 5, "client 1", 20);
        let queues = Queues {
            acknowledged: 1,
            sent: u32::MAX,
            received: 9,
            ended: true,
            unread: b"de".to_vec(),
            unacknowledged: b"f".to_vec(),
        };
        let mut stream = Vec::new();
        send_offer(&mut stream, &Offered { head: head.clone(), payload: b"abc", queues: Some(&queues) }).unwrap();
        send_offer(&mut stream, &Offered { head, payload: b"", queues: None }).unwrap();
        let mut stream = stream.as_slice();
        let found: OfferHead = receive(&mut stream).unwrap().unwrap();
        assert_eq!((found.offer(), found.claims()), (Some(offer), claims));
        assert_eq!(receive_offer(&mut stream, &found).unwrap(), OfferBody::Here(b"abc".to_vec(), Some(queues)));
        let found: OfferHead = receive(&mut stream).unwrap().unwrap();
        assert_eq!(receive_offer(&mut stream, &found).unwrap(), OfferBody::Here(Vec::new(), None));
        assert!(receive::<OfferHead>(&mut stream).unwrap().is_none(), "the end");
    }

    #[test]
    fn what_is_too_long_or_no_frame_is_refused() {
        assert!(receive::<AnswerHead>(&mut [0xff; 8].as_slice()).is_err());
        assert!(receive::<AnswerHead>(&mut [2, 0, 0, 0, b'{', b'}'].as_slice()).is_err());
        assert!(receive::<AnswerHead>(&mut [2, 0].as_slice()).is_err());
        let mut head = some_head();
        head.payload_bytes = u64::MAX;
        assert!(receive_offer(&mut [0; 8].as_slice(), &head).is_err());
        head.payload_bytes = 9;
        assert!(receive_offer(&mut [0; 8].as_slice(), &head).is_err());
    }

    fn some_head() -> OfferHead {
        let seen = Seen { session: 7, incarnation: 2, unclaimed: 0, sequence: 5 };
        let offer = Offer { by: PartyId::new(3).unwrap(), epoch: Epoch(9), seen };
        OfferHead::new(&offer, RemoteSlice { key: RegionKey(4), offset: 8, words: 64 }, 5, "client 1", 20)
    }

    #[test]
    fn what_is_too_large_is_skipped_and_the_next_one_comes_over() {
        let large = vec![7; MAX_BODY_BYTES as usize + 1];
        let mut stream = Vec::new();
        let offered = Offered { head: some_head(), payload: &large, queues: None };
        assert!(offered.too_large().is_some());
        send_offer(&mut stream, &offered).unwrap();
        send_offer(&mut stream, &Offered { payload: b"small", ..offered }).unwrap();
        let mut stream = stream.as_slice();
        let found: OfferHead = receive(&mut stream).unwrap().unwrap();
        assert!(matches!(receive_offer(&mut stream, &found), Ok(OfferBody::TooLarge(why)) if why.contains("67108865")));
        let found: OfferHead = receive(&mut stream).unwrap().unwrap();
        assert_eq!(receive_offer(&mut stream, &found).unwrap(), OfferBody::Here(b"small".to_vec(), None));
    }

    #[test]
    fn a_peer_that_is_stuck_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("offers");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let mut stream = connect(&path).unwrap();
        let _stuck = listener.accept().unwrap();
        // More than any socket takes.
        let error = stream.write_all(&vec![0; 64 << 20]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
