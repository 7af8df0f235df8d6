//! A channel between two programs that share a key: authenticated, encrypted, and bounded in time and size.
//!
//! ```text
//!   initiator                                     responder
//!   "BackDoor" version ────────────────────────>              in the clear, so that programs of different versions
//!                      <──────────────────────── "BackDoor" version         can tell each other what they are
//!   length, Noise: psk, e ─────────────────────>
//!                      <──────────────────────── 0, length, Noise: e, ee    or 1: another key
//!   length, message ───────────────────────────>
//!                      <──────────────────────── length, message            and so on
//! ```
//!
//! The handshake is `Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s` of the Noise Protocol Framework, revision 34, over what was
//! said in the clear. Without the key nobody gets an answer out of a responder, reads what is said, changes it, or plays
//! it back; and who learns the key later can't read what was said before. A message is JSON of at most
//! [`MAX_MESSAGE_BYTES`]; lengths are of two bytes, the version of four, big-endian.
//!
//! Every wait ends at a deadline that the caller sets for the whole of what it does, however slowly bytes drip in.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;
use snow::{Builder, HandshakeState, TransportState};
use zeroize::Zeroizing;

use super::SetupKey;

/// Version of everything that is said over such a channel.
pub const SETUP_VERSION: u32 = 1;
/// Longest message, in bytes of JSON.
pub const MAX_MESSAGE_BYTES: usize = 8192;

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
const MAGIC: &[u8; 8] = b"BackDoor";
const PREAMBLE_BYTES: usize = MAGIC.len() + 4;
/// An ephemeral key and the tag of an empty payload: both messages of the handshake.
const HANDSHAKE_BYTES: usize = 32 + TAG_BYTES;
const TAG_BYTES: usize = 16;
const ACCEPTED: u8 = 0;
const ANOTHER_KEY: u8 = 1;

/// Why the other end could not be talked to.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// Something else.
    #[error("the other end does not speak this protocol: it {0}")]
    NotOurs(String),
    /// The other end speaks another version.
    #[error("the other end speaks version {theirs} of the set-up protocol, this program version {SETUP_VERSION}")]
    WrongVersion {
        /// The other end's version.
        theirs: u32,
    },
    /// The other end has another key; or somebody in between changed what was said.
    #[error("the other end has another key")]
    WrongKey,
    /// What came is not what the other end sent.
    #[error("what came was changed on its way")]
    Damaged,
    /// A message longer than [`MAX_MESSAGE_BYTES`], announced or to be sent.
    #[error("a message of {bytes} bytes; at most {MAX_MESSAGE_BYTES} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// No message of this protocol, though from somebody who has the key.
    #[error("the message makes no sense: {0}")]
    Malformed(String),
    /// The deadline has passed.
    #[error("the other end was too slow")]
    TooSlow,
    /// The connection was closed.
    #[error("the other end closed the connection")]
    Closed,
    /// The system failed, or random numbers did.
    #[error("can't talk to the other end: {0}")]
    System(#[from] io::Error),
}

/// One end of the channel. The stream stays the caller's, who can keep it for longer or shut it down from elsewhere.
pub struct Channel<'a> {
    wire: Wire<'a>,
    noise: TransportState,
}

impl<'a> Channel<'a> {
    /// Begins the conversation: the monitor's part.
    pub fn initiate(stream: &'a TcpStream, key: &SetupKey, deadline: Instant) -> Result<Self, ChannelError> {
        let wire = Wire { stream, deadline };
        wire.write(&preamble())?;
        let theirs = wire.read_preamble()?;
        let prologue = [preamble(), theirs].concat();
        let mut noise = handshake(|builder| builder.build_initiator(), key, &prologue)?;
        let mut message = [0; HANDSHAKE_BYTES];
        noise.write_message(&[], &mut message).map_err(unexpected)?;
        wire.write(&framed(&message))?;
        let mut verdict = [0];
        wire.read(&mut verdict)?;
        match verdict {
            [ACCEPTED] => {}
            [ANOTHER_KEY] => return Err(ChannelError::WrongKey),
            [other] => return Err(ChannelError::Malformed(format!("a verdict of {other}"))),
        }
        wire.read_handshake(&mut message)?;
        noise.read_message(&message, &mut []).map_err(|_| ChannelError::WrongKey)?;
        Ok(Channel { wire, noise: noise.into_transport_mode().map_err(unexpected)? })
    }

    /// Answers: the node's part. Says nothing to whom does not speak this protocol.
    pub fn respond(stream: &'a TcpStream, key: &SetupKey, deadline: Instant) -> Result<Self, ChannelError> {
        let wire = Wire { stream, deadline };
        let theirs = match wire.read_preamble() {
            // The answer tells the other end of it.
            Err(error @ ChannelError::WrongVersion { .. }) => {
                wire.write(&preamble())?;
                return Err(error);
            }
            theirs => theirs?,
        };
        wire.write(&preamble())?;
        let prologue = [theirs, preamble()].concat();
        let mut noise = handshake(|builder| builder.build_responder(), key, &prologue)?;
        let mut message = [0; HANDSHAKE_BYTES];
        wire.read_handshake(&mut message)?;
        if noise.read_message(&message, &mut []).is_err() {
            wire.write(&[ANOTHER_KEY])?;
            return Err(ChannelError::WrongKey);
        }
        noise.write_message(&[], &mut message).map_err(unexpected)?;
        wire.write(&[&[ACCEPTED], &*framed(&message)].concat())?;
        Ok(Channel { wire, noise: noise.into_transport_mode().map_err(unexpected)? })
    }

    /// Says something, before the deadline of the conversation.
    pub fn send<T: Serialize>(&mut self, message: &T) -> Result<(), ChannelError> {
        let text = serde_json::to_vec(message).map_err(|error| ChannelError::Malformed(error.to_string()))?;
        if text.len() > MAX_MESSAGE_BYTES {
            return Err(ChannelError::TooLong { bytes: text.len() });
        }
        let mut sealed = vec![0; text.len() + TAG_BYTES];
        self.noise.write_message(&text, &mut sealed).map_err(unexpected)?;
        self.wire.write(&framed(&sealed))
    }

    /// Hears something, before the deadline of the conversation.
    pub fn receive<T: DeserializeOwned>(&mut self) -> Result<T, ChannelError> {
        let length = self.wire.read_length()?;
        let bytes = length.checked_sub(TAG_BYTES).ok_or(ChannelError::Damaged)?;
        if bytes > MAX_MESSAGE_BYTES {
            return Err(ChannelError::TooLong { bytes });
        }
        let mut sealed = vec![0; length];
        self.wire.read(&mut sealed)?;
        let mut text = vec![0; bytes];
        self.noise.read_message(&sealed, &mut text).map_err(|_| ChannelError::Damaged)?;
        serde_json::from_slice(&text).map_err(|error| ChannelError::Malformed(error.to_string()))
    }
}

fn preamble() -> [u8; PREAMBLE_BYTES] {
    let mut bytes = [0; PREAMBLE_BYTES];
    bytes[..MAGIC.len()].copy_from_slice(MAGIC);
    bytes[MAGIC.len()..].copy_from_slice(&SETUP_VERSION.to_be_bytes());
    bytes
}

fn handshake(
    build: impl FnOnce(Builder<'_>) -> Result<HandshakeState, snow::Error>,
    key: &SetupKey,
    prologue: &[u8],
) -> Result<HandshakeState, ChannelError> {
    let key = Zeroizing::new(*key.bytes());
    let builder = PATTERN.parse().map(Builder::new).and_then(|builder| builder.psk(0, &key));
    builder.and_then(|builder| builder.prologue(prologue)).and_then(build).map_err(unexpected)
}

/// What can't fail, unless random numbers do.
fn unexpected(error: snow::Error) -> ChannelError {
    ChannelError::System(io::Error::other(error))
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    // Callers keep to lengths far below.
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

/// A stream with a deadline for everything together.
struct Wire<'a> {
    stream: &'a TcpStream,
    deadline: Instant,
}

impl Wire<'_> {
    /// What is left of the time; never zero, which would mean for ever.
    fn left(&self) -> Result<Option<std::time::Duration>, ChannelError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ChannelError::TooSlow) } else { Ok(Some(left)) }
    }

    /// Reads at least one byte.
    fn read_some(&self, bytes: &mut [u8]) -> Result<usize, ChannelError> {
        loop {
            self.stream.set_read_timeout(self.left()?)?;
            match (&mut &*self.stream).read(bytes) {
                Ok(0) => return Err(ChannelError::Closed),
                Ok(count) => return Ok(count),
                Err(error) => bearable(error)?,
            }
        }
    }

    fn read(&self, bytes: &mut [u8]) -> Result<(), ChannelError> {
        let mut filled = 0;
        while filled < bytes.len() {
            filled += self.read_some(&mut bytes[filled..])?;
        }
        Ok(())
    }

    fn write(&self, bytes: &[u8]) -> Result<(), ChannelError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            self.stream.set_write_timeout(self.left()?)?;
            match (&mut &*self.stream).write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) => bearable(error)?,
            }
        }
        Ok(())
    }

    fn read_length(&self) -> Result<usize, ChannelError> {
        let mut length = [0; 2];
        self.read(&mut length)?;
        Ok(usize::from(u16::from_be_bytes(length)))
    }

    fn read_handshake(&self, message: &mut [u8; HANDSHAKE_BYTES]) -> Result<(), ChannelError> {
        match self.read_length()? {
            HANDSHAKE_BYTES => self.read(message),
            other => Err(ChannelError::Malformed(format!("a handshake of {other} bytes"))),
        }
    }

    /// What the other end says first, if it is of this version. Does not wait for more once that can't be any more.
    fn read_preamble(&self) -> Result<[u8; PREAMBLE_BYTES], ChannelError> {
        let mut bytes = [0; PREAMBLE_BYTES];
        let mut filled = 0;
        while filled < bytes.len() {
            filled += self.read_some(&mut bytes[filled..]).map_err(|error| match error {
                ChannelError::Closed if filled == 0 => {
                    ChannelError::NotOurs("closed the connection without a word".into())
                }
                ChannelError::TooSlow if filled == 0 => ChannelError::NotOurs("said nothing".into()),
                other => other,
            })?;
            let said = &bytes[..filled.min(MAGIC.len())];
            if !MAGIC.starts_with(said) {
                return Err(ChannelError::NotOurs(format!("said \"{}\"", bytes[..filled].escape_ascii())));
            }
        }
        let (_, version) = bytes.split_at(MAGIC.len());
        let theirs = version.iter().fold(0, |version, byte| version << 8 | u32::from(*byte));
        if theirs == SETUP_VERSION { Ok(bytes) } else { Err(ChannelError::WrongVersion { theirs }) }
    }
}

/// Whether to go on after an error: at the deadline the next look at the clock ends it.
fn bearable(error: io::Error) -> Result<(), ChannelError> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(()),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Err(ChannelError::Closed),
        _ => Err(ChannelError::System(error)),
    }
}

#[cfg(test)]
mod tests;
