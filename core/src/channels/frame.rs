//! What two processes say over a link: packets, each whole or not at all, in order.
//!
//! ```text
//!   hello          1 │ magic, version │ opens (1 byte) │ link, received, sent
//!   message        2 │ number │ its bytes
//!   acknowledged   3 │ number
//!   bye            4 │
//!   refused        5 │ why, UTF-8
//! ```
//!
//! All numbers are little-endian and have eight bytes, but the version, which has four.

use super::bytes::Reader;
use super::error::ChannelError;
use super::ipc::LinkId;
use super::link::Greeting;

const MAGIC: [u8; 8] = *b"BDLINK01";
const VERSION: u32 = 1;
/// Longest packet in bytes.
pub const MAX_FRAME_BYTES: usize = 64 << 10;
/// Longest message in bytes.
pub const MAX_MESSAGE_BYTES: usize = MAX_FRAME_BYTES - 16;
/// Longest reason for a refusal in bytes.
const MAX_REASON_BYTES: usize = 512;

mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const MESSAGE: u8 = 2;
    pub(super) const ACKNOWLEDGED: u8 = 3;
    pub(super) const BYE: u8 = 4;
    pub(super) const REFUSED: u8 = 5;
}

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Comes first, from both ends.
    Hello {
        /// What is committed.
        greeting: Greeting,
        /// Whether the link is new, so that the other end is to be made.
        opens: bool,
    },
    /// A message.
    Message {
        /// Its number.
        number: u64,
        /// Its bytes.
        message: &'a [u8],
    },
    /// What came of the messages up to this one is committed.
    Acknowledged {
        /// Its number.
        number: u64,
    },
    /// The link is over: nothing follows from this end, and the other one may forget its own.
    Bye,
    /// What came makes no sense. The connection is over; the link is not.
    Refused {
        /// Why, for people.
        why: &'a str,
    },
}

/// Why a packet was refused. Whoever can connect can send anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FrameError {
    /// It ends too early, or too late.
    #[error(transparent)]
    Length(ChannelError),
    /// A kind of packet that there isn't.
    #[error("there is no kind {kind} of packet")]
    UnknownKind {
        /// Its kind.
        kind: u8,
    },
    /// A greeting of something else.
    #[error("the greeting is not one of a link")]
    WrongMagic,
    /// A greeting in another version.
    #[error("the other end speaks version {found}, this one version {VERSION}")]
    WrongVersion {
        /// Its version.
        found: u32,
    },
    /// A field has a value that no sender sets.
    #[error("a packet's {what} makes no sense")]
    Nonsense {
        /// Which.
        what: &'static str,
    },
    /// Longer than any packet.
    #[error("a packet of more than {MAX_FRAME_BYTES} bytes")]
    TooLong,
}

impl<'a> Frame<'a> {
    /// Writes it into `into`, in place of what is there. A reason is cut to 512 bytes.
    pub fn encode(&self, into: &mut Vec<u8>) {
        into.clear();
        match self {
            Frame::Hello { greeting: Greeting { link, received, sent }, opens } => {
                into.push(kind::HELLO);
                into.extend(MAGIC);
                into.extend(VERSION.to_le_bytes());
                into.push(u8::from(*opens));
                for number in [link.0, *received, *sent] {
                    into.extend(number.to_le_bytes());
                }
            }
            Frame::Message { number, message } => {
                into.push(kind::MESSAGE);
                into.extend(number.to_le_bytes());
                into.extend(*message);
            }
            Frame::Acknowledged { number } => {
                into.push(kind::ACKNOWLEDGED);
                into.extend(number.to_le_bytes());
            }
            Frame::Bye => into.push(kind::BYE),
            Frame::Refused { why } => {
                into.push(kind::REFUSED);
                // Whole characters; the empty text is one.
                let end = (0..=why.len().min(MAX_REASON_BYTES)).rev().find(|end| why.is_char_boundary(*end));
                into.extend(&why.as_bytes()[..end.unwrap_or(0)]);
            }
        }
    }

    /// Reads one.
    pub fn decode(packet: &'a [u8]) -> Result<Self, FrameError> {
        if packet.len() > MAX_FRAME_BYTES {
            return Err(FrameError::TooLong);
        }
        let mut reader = Reader::new(packet, "packet");
        let frame = match reader.u8()? {
            kind::HELLO => {
                if reader.array()? != MAGIC {
                    return Err(FrameError::WrongMagic);
                }
                let found = reader.u32()?;
                if found != VERSION {
                    return Err(FrameError::WrongVersion { found });
                }
                let opens = match reader.u8()? {
                    0 => false,
                    1 => true,
                    _ => return Err(FrameError::Nonsense { what: "mark of a new link" }),
                };
                let greeting = Greeting { link: LinkId(reader.u64()?), received: reader.u64()?, sent: reader.u64()? };
                Frame::Hello { greeting, opens }
            }
            kind::MESSAGE => return Ok(Frame::Message { number: reader.u64()?, message: reader.rest() }),
            kind::ACKNOWLEDGED => Frame::Acknowledged { number: reader.u64()? },
            kind::BYE => Frame::Bye,
            kind::REFUSED => {
                let why = reader.rest();
                let text = str::from_utf8(why).ok().filter(|why| why.len() <= MAX_REASON_BYTES);
                return Ok(Frame::Refused { why: text.ok_or(FrameError::Nonsense { what: "reason" })? });
            }
            kind => return Err(FrameError::UnknownKind { kind }),
        };
        reader.end()?;
        Ok(frame)
    }
}

impl From<ChannelError> for FrameError {
    fn from(error: ChannelError) -> Self {
        FrameError::Length(error)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn samples() -> [Frame<'static>; 6] {
        let greeting = Greeting { link: LinkId(7), received: 3, sent: u64::MAX };
        [
            Frame::Hello { greeting, opens: true },
            Frame::Message { number: 4, message: b"count" },
            Frame::Message { number: 5, message: b"" },
            Frame::Acknowledged { number: 2 },
            Frame::Bye,
            Frame::Refused { why: "no such link" },
        ]
    }

    #[test]
    fn what_is_sent_is_received() {
        let mut packet = b"left over".to_vec();
        for frame in samples() {
            frame.encode(&mut packet);
            assert_eq!(Frame::decode(&packet), Ok(frame));
        }
        let why = "ä".repeat(400);
        Frame::Refused { why: &why }.encode(&mut packet);
        assert_eq!(Frame::decode(&packet), Ok(Frame::Refused { why: &why[..512] }));
    }

    #[test]
    fn what_is_no_packet_is_named() {
        let mut hello = Vec::new();
        samples()[0].encode(&mut hello);
        let changed = |at: usize, to: u8| {
            let mut packet = hello.clone();
            packet[at] = to;
            packet
        };
        for (packet, expected) in [
            (changed(0, 9), FrameError::UnknownKind { kind: 9 }),
            (changed(1, 0), FrameError::WrongMagic),
            (changed(9, 2), FrameError::WrongVersion { found: 2 }),
            (changed(13, 2), FrameError::Nonsense { what: "mark of a new link" }),
            (vec![5, 0xff], FrameError::Nonsense { what: "reason" }),
            (vec![2; MAX_FRAME_BYTES + 1], FrameError::TooLong),
            (vec![4, 0], FrameError::Length(ChannelError::TooLong { what: "packet", bytes: 1 })),
            (vec![], FrameError::Length(ChannelError::Truncated { what: "packet", have: 0, need: 1 })),
        ] {
            assert_eq!(Frame::decode(&packet), Err(expected));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..100), kind in 0u8..7) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            if let Ok(frame) = Frame::decode(&bytes) {
                let mut again = Vec::new();
                frame.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
