//! Why bytes are no session payload.

use super::payload::ChannelId;

/// Why a payload was refused. Memory of another machine may be corrupt or forged: each of these is an ordinary answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ChannelError {
    /// The first bytes are not the format's magic number.
    #[error("session payload: not found here (the first 8 bytes are {found:#018x})")]
    WrongMagic {
        /// The bytes found, as a little-endian number.
        found: u64,
    },
    /// Written by another version of the format.
    #[error("session payload: format version {found}, this program reads version {expected}")]
    WrongVersion {
        /// Version found.
        found: u32,
        /// Version that this program reads.
        expected: u32,
    },
    /// The bytes end before the structure does.
    #[error("{what}: {have} bytes are left, {need} needed")]
    Truncated {
        /// The structure.
        what: &'static str,
        /// Bytes there are.
        have: usize,
        /// Bytes that it needs.
        need: u64,
    },
    /// There are bytes after the structure's end.
    #[error("{what}: {bytes} bytes too many")]
    TooLong {
        /// The structure.
        what: &'static str,
        /// Bytes after its end.
        bytes: usize,
    },
    /// More channels than a session may have.
    #[error("session payload: {found} channels, at most {} are possible", super::MAX_CHANNELS)]
    TooManyChannels {
        /// Channels there are.
        found: u32,
    },
    /// Ids of channels ascend, so that none is there twice.
    #[error("session payload: channel {} comes after channel {}", id.0, before.0)]
    OutOfOrder {
        /// The channel.
        id: ChannelId,
        /// The one before it.
        before: ChannelId,
    },
    /// A kind of channel that this version doesn't have.
    #[error("channel {}: there is no kind {kind} of channel", id.0)]
    UnknownKind {
        /// The channel.
        id: ChannelId,
        /// Its kind.
        kind: u32,
    },
    /// Numbers of a channel that can't be, or contradict each other.
    #[error("channel {}: {why}", id.0)]
    Inconsistent {
        /// The channel.
        id: ChannelId,
        /// What is wrong.
        why: &'static str,
    },
}

impl ChannelError {
    /// The same without numbers, as [`Seen::of`](crate::takeover::Seen::of) wants it.
    pub const fn reason(self) -> &'static str {
        match self {
            ChannelError::WrongMagic { .. } => "the state is no session payload",
            ChannelError::WrongVersion { .. } => "the session payload is of another format version",
            ChannelError::Truncated { .. } => "the session payload ends too early",
            ChannelError::TooLong { .. } => "the session payload ends too late",
            ChannelError::TooManyChannels { .. } => "more channels than a session may have",
            ChannelError::OutOfOrder { .. } => "ids of channels do not ascend",
            ChannelError::UnknownKind { .. } => "a channel of unknown kind",
            ChannelError::Inconsistent { why, .. } => why,
        }
    }
}
