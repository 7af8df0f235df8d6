//! What a taker sends to a node that is to carry sessions on, and is answered: a Unix stream of frames. A frame is the
//! length of its head (four bytes, little-endian), the head (JSON), and the bytes that the head announces.

use std::io::{self, Read, Write};

use backdoor_core::takeover::{Epoch, Offer, PartyId, Seen};
use backdoor_core::transport::{RegionKey, RemoteSlice};
use backdoor_host::protocol::QueuesOf;
use backdoor_host::tcp::Queues;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest head.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Most bytes behind one.
const MAX_BODY_BYTES: u64 = 64 << 20;

/// A session's state, offered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferHead {
    by: u32,
    epoch: u32,
    session: u64,
    incarnation: u64,
    unclaimed: u64,
    sequence: u64,
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
            claims: (claims.key.0, claims.offset, claims.words),
            claim,
            name: name.into(),
            deadline_ns,
            more: 0,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerHead {
    /// The session's number at its old owner.
    pub session: u64,
    /// The offer's epoch.
    pub epoch: u32,
    /// Whether it is served here now.
    pub serving: bool,
    /// Why not, if not.
    pub why: Option<String>,
    /// When the target had everything ready, in monotonic ns.
    pub prepared_ns: u64,
    /// When its connection spoke.
    pub served_ns: u64,
}

/// Writes an offer.
pub fn send_offer(
    into: &mut impl Write,
    mut head: OfferHead,
    payload: &[u8],
    queues: Option<&Queues>,
) -> io::Result<()> {
    head.payload_bytes = payload.len() as u64;
    head.queues = queues.map(QueuesOf::from);
    let (unread, unacknowledged) = queues.map_or((&[][..], &[][..]), |queues| (&queues.unread, &queues.unacknowledged));
    send(into, &head, &[payload, unread, unacknowledged])
}

/// Reads what comes behind an offer's head.
pub fn receive_offer(from: &mut impl Read, head: &OfferHead) -> io::Result<(Vec<u8>, Option<Queues>)> {
    let payload = receive_body(from, head.payload_bytes)?;
    let mut queues = None;
    if let Some(found) = head.queues {
        let unread = receive_body(from, found.unread)?;
        queues = Some(found.with(unread, receive_body(from, found.unacknowledged)?));
    }
    Ok((payload, queues))
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

/// Reads the bytes that a head announced.
pub fn receive_body(from: &mut impl Read, bytes: u64) -> io::Result<Vec<u8>> {
    if bytes > MAX_BODY_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{bytes} bytes for one session")));
    }
    let mut body = vec![0; bytes as usize];
    from.read_exact(&mut body)?;
    Ok(body)
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
        send_offer(&mut stream, head.clone(), b"abc", Some(&queues)).unwrap();
        send_offer(&mut stream, head, b"", None).unwrap();
        let mut stream = stream.as_slice();
        let found: OfferHead = receive(&mut stream).unwrap().unwrap();
        assert_eq!((found.offer(), found.claims()), (Some(offer), claims));
        assert_eq!(receive_offer(&mut stream, &found).unwrap(), (b"abc".to_vec(), Some(queues)));
        let found: OfferHead = receive(&mut stream).unwrap().unwrap();
        assert_eq!(receive_offer(&mut stream, &found).unwrap(), (Vec::new(), None));
        assert!(receive::<OfferHead>(&mut stream).unwrap().is_none(), "the end");
    }

    #[test]
    fn what_is_too_long_or_no_frame_is_refused() {
        assert!(receive::<AnswerHead>(&mut [0xff; 8].as_slice()).is_err());
        assert!(receive::<AnswerHead>(&mut [2, 0, 0, 0, b'{', b'}'].as_slice()).is_err());
        assert!(receive::<AnswerHead>(&mut [2, 0].as_slice()).is_err());
        assert!(receive_body(&mut [0; 8].as_slice(), u64::MAX).is_err());
        assert!(receive_body(&mut [0; 8].as_slice(), 9).is_err());
    }
}
