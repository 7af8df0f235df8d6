//! What the three formats share: the header's first two words, and the reasons for refusing memory.

use crate::words::{pack, unpack};

/// Why memory was refused by a reader. Memory of another machine may be corrupt, torn or forged: every one of these is
/// an ordinary answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FormatError {
    /// The memory ends before the structure does.
    #[error("{what}: {have} words of memory, at least {need} needed")]
    Truncated {
        /// The structure.
        what: &'static str,
        /// Words there are.
        have: usize,
        /// Words that the structure needs.
        need: usize,
    },
    /// The first word is not the structure's magic number.
    #[error("{what}: not found here (first word is {found:#018x})")]
    WrongMagic {
        /// The structure.
        what: &'static str,
        /// The word found.
        found: u64,
    },
    /// Written by another version of the format.
    #[error("{what}: format version {found}, this program reads version {expected}")]
    WrongVersion {
        /// The structure.
        what: &'static str,
        /// Version found.
        found: u32,
        /// Version that this program reads.
        expected: u32,
    },
    /// A checksum does not match: torn by a concurrent update, or corrupt.
    #[error("{what}: checksum does not match, the memory is being written or corrupt")]
    Checksum {
        /// The structure.
        what: &'static str,
    },
    /// A field holds a value that no writer writes.
    #[error("{what}: field '{field}' holds {value}, which is impossible")]
    Impossible {
        /// The structure.
        what: &'static str,
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}

/// Name, magic and version of a format: the first two words of its header.
pub(crate) struct Identity {
    pub(crate) what: &'static str,
    pub(crate) magic: [u8; 8],
    pub(crate) version: u32,
}

impl Identity {
    pub(crate) const fn magic_word(&self) -> u64 {
        u64::from_le_bytes(self.magic)
    }

    /// The second word: the version, and a number that the format is free to choose.
    pub(crate) const fn version_word(&self, other: u32) -> u64 {
        pack(self.version, other)
    }

    /// Checks length, magic and version of a copy; answers the free half of the second word.
    #[inline]
    pub(crate) fn check(&self, words: &[u64], need: usize) -> Result<u32, FormatError> {
        let what = self.what;
        if words.len() < need.max(2) {
            return Err(FormatError::Truncated { what, have: words.len(), need });
        }
        if words[0] != self.magic_word() {
            return Err(FormatError::WrongMagic { what, found: words[0] });
        }
        let (version, other) = unpack(words[1]);
        if version != self.version {
            return Err(FormatError::WrongVersion { what, found: version, expected: self.version });
        }
        Ok(other)
    }

    pub(crate) fn impossible(&self, field: &'static str, value: u64) -> FormatError {
        FormatError::Impossible { what: self.what, field, value }
    }

    pub(crate) fn checksum(&self) -> FormatError {
        FormatError::Checksum { what: self.what }
    }
}
