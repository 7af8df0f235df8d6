//! Little-endian numbers: taken off the front of bytes that may end anywhere, and put behind each other.

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

/// A structure of `N` bytes that is being written. What is put where is known when this is compiled: a few moves, and one copy
/// into the payload.
pub(super) struct Writer<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Writer<N> {
    pub(super) const fn new() -> Self {
        Writer { bytes: [0; N], length: 0 }
    }

    /// # Panics
    /// If the structure is longer than it is meant to be.
    #[inline(always)]
    pub(super) fn put<const M: usize>(&mut self, bytes: [u8; M]) -> &mut Self {
        self.bytes[self.length..][..M].copy_from_slice(&bytes);
        self.length += M;
        self
    }

    /// # Panics
    /// If the structure is shorter than it is meant to be.
    #[inline(always)]
    pub(super) fn done(&self) -> &[u8; N] {
        assert_eq!(self.length, N);
        &self.bytes
    }
}
