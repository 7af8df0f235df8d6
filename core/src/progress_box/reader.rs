//! Reading a Progress Box out of the copy that a READ brought.

use super::entity::{EntityRecord, Slot};
use super::layout::{ENTRY_WORDS, Geometry, HEADER_WORDS, IDENTITY, header};
use crate::checksum::checksum_of;
use crate::format::FormatError;

/// A checked header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Room in the box.
    pub geometry: Geometry,
    /// Which start of the node's agent this box belongs to. A new one is not progress.
    pub boot_incarnation: u64,
    /// Moves after every change of the directory.
    pub directory_version: u64,
    /// Slots of the directory that were ever in use.
    pub directory_used: usize,
}

impl Header {
    /// Reads the header from the first words of a copy.
    pub fn read(words: &[u64]) -> Result<Self, FormatError> {
        IDENTITY.check(words, HEADER_WORDS)?;
        if words[header::CHECK] != checksum_of(&words[..header::CHECK]) {
            return Err(IDENTITY.checksum());
        }
        let geometry = Geometry::from_word(words[header::GEOMETRY])?;
        let used = words[header::DIRECTORY_USED];
        if used > geometry.capacity() as u64 {
            return Err(IDENTITY.impossible("directory used", used));
        }
        Ok(Header {
            geometry,
            boot_incarnation: words[header::BOOT_INCARNATION],
            directory_version: words[header::DIRECTORY_VERSION],
            directory_used: used as usize,
        })
    }
}

/// Reads the directory entry of `slot` from a copy of the directory's first words.
///
/// `Ok(None)` if it was never written. A checksum error is an entry under change: read again.
pub(super) fn read_entry(directory: &[u64], slot: Slot) -> Result<Option<EntityRecord>, FormatError> {
    let (entries, _) = directory.as_chunks::<ENTRY_WORDS>();
    let words = entries.get(slot.index()).ok_or(FormatError::Truncated {
        what: "Progress Box directory",
        have: directory.len(),
        need: slot.index().saturating_add(1).saturating_mul(ENTRY_WORDS),
    })?;
    EntityRecord::decode(words, slot)
}

/// Reads all entries of a copy of the directory's first words, in slot order.
pub fn read_directory(directory: &[u64]) -> impl Iterator<Item = (Slot, Result<Option<EntityRecord>, FormatError>)> {
    let (entries, _) = directory.as_chunks::<ENTRY_WORDS>();
    (0..).map(Slot).zip(entries).map(|(slot, words)| (slot, EntityRecord::decode(words, slot)))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_memory_never_panics(words in proptest::collection::vec(any::<u64>(), 0..64)) {
            let _ = Header::read(&words);
            prop_assert!(read_directory(&words).count() <= 4);
        }

        #[test]
        fn a_forged_header_is_bounded(geometry: u64, used: u64) {
            let mut words = [0; HEADER_WORDS];
            words[header::MAGIC] = IDENTITY.magic_word();
            words[header::VERSION] = IDENTITY.version_word(0);
            words[header::GEOMETRY] = geometry;
            words[header::CHECK] = checksum_of(&words[..header::CHECK]);
            words[header::DIRECTORY_USED] = used;
            if let Ok(header) = Header::read(&words) {
                prop_assert!(header.geometry.total_words() < 1 << 21);
                prop_assert!(header.directory_used <= header.geometry.capacity());
            }
        }
    }
}
