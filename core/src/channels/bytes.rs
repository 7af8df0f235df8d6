//! Taking little-endian numbers off the front of bytes that may end anywhere.

use super::error::ChannelError;

/// The bytes of a structure that were not read yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    left: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`, whose errors are told of `what`.
    pub(super) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Reader { left: bytes, what }
    }

    /// The next `length` bytes, whatever length a hostile writer claims.
    pub(super) fn take(&mut self, length: u64) -> Result<&'a [u8], ChannelError> {
        let taken = usize::try_from(length).ok().and_then(|length| self.left.split_at_checked(length));
        let (taken, left) = taken.ok_or(self.truncated(length))?;
        self.left = left;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], ChannelError> {
        let (taken, left) = self.left.split_first_chunk().ok_or(self.truncated(N as u64))?;
        self.left = left;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, ChannelError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, ChannelError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, ChannelError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, ChannelError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Whatever is left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.left
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<(), ChannelError> {
        match self.left.len() {
            0 => Ok(()),
            bytes => Err(ChannelError::TooLong { what: self.what, bytes }),
        }
    }

    fn truncated(&self, need: u64) -> ChannelError {
        ChannelError::Truncated { what: self.what, have: self.left.len(), need }
    }
}
