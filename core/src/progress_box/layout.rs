//! Where each word of a Progress Box lies. Nothing else knows an offset.

use std::ops::Range;

use crate::format::{FormatError, Identity};
use crate::words::{pack, unpack};

pub(super) const IDENTITY: Identity = Identity { what: "Progress Box", magic: *b"BDPROGB1", version: 3 };

/// Words of the header.
pub const HEADER_WORDS: usize = 8;
/// Words of one directory entry.
pub const ENTRY_WORDS: usize = 16;
/// Largest number of entities in one box; a reader refuses more, so that forged memory can't make it allocate.
pub const MAX_ENTITIES: usize = 1 << 16;
/// Largest number of gauges in one box.
pub const MAX_GAUGES: usize = 1 << 12;

/// Header words.
pub(super) mod header {
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const VERSION: usize = 1;
    /// Capacity in the low half, gauges in the high half.
    pub(crate) const GEOMETRY: usize = 2;
    pub(crate) const BOOT_INCARNATION: usize = 3;
    /// Checksum of the words before it, which never change during an incarnation.
    pub(crate) const CHECK: usize = 4;
    pub(crate) const DIRECTORY_VERSION: usize = 5;
    /// Slots that were ever in use: a reader needs no more of the directory than this.
    pub(crate) const DIRECTORY_USED: usize = 6;
}

/// Directory entry words.
pub(super) mod entry {
    use std::ops::Range;
    /// Generation in the low half; above it level and name length, a byte each, and the number of the pending gauge plus
    /// one in the last two; 0 for none.
    pub(crate) const KIND: usize = 0;
    pub(crate) const DEADLINE_NS: usize = 1;
    /// Parent slot in the low half, claim word index in the high half; `u32::MAX` for none.
    pub(crate) const PARENT_AND_CLAIM: usize = 2;
    pub(crate) const STATE_BOX_OFFSET: usize = 3;
    pub(crate) const STATE_BOX_WORDS: usize = 4;
    pub(crate) const SESSION: usize = 5;
    pub(crate) const DEPENDENCIES: Range<usize> = 6..8;
    pub(crate) const NAME: Range<usize> = 8..13;
    pub(crate) const PROCESS: usize = 13;
    pub(crate) const PERIOD_NS: usize = 14;
    /// Checksum of the words before it and, in this place, the slot that the entry belongs to.
    pub(crate) const CHECK: usize = 15;
}

const _: () = {
    assert!(header::CHECK == header::BOOT_INCARNATION + 1, "the check covers what never changes");
    assert!(header::DIRECTORY_VERSION == header::CHECK + 1 && header::DIRECTORY_USED == header::DIRECTORY_VERSION + 1);
    assert!(header::DIRECTORY_USED < HEADER_WORDS);
    assert!(entry::CHECK == ENTRY_WORDS - 1, "the check comes last");
    assert!(entry::PROCESS + 1 == entry::PERIOD_NS && entry::PERIOD_NS + 1 == entry::CHECK, "no padding");
    assert!(MAX_GAUGES < u16::MAX as usize, "the number of a gauge has two bytes, and none is 0");
    assert!(entry::STATE_BOX_WORDS + 1 == entry::SESSION && entry::SESSION + 1 == entry::DEPENDENCIES.start);
    assert!(entry::DEPENDENCIES.end == entry::NAME.start && entry::NAME.end == entry::PROCESS);
    assert!((entry::NAME.end - entry::NAME.start) * 8 == super::MAX_NAME_BYTES);
    assert!((entry::DEPENDENCIES.end - entry::DEPENDENCIES.start) * 2 == super::MAX_DEPENDENCIES);
    assert!(HEADER_WORDS.is_multiple_of(8), "liveness words start on a cache line");
};

/// How many entities and gauges a box has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    capacity: u32,
    gauges: u32,
}

impl Geometry {
    /// Room for `capacity` entities and `gauges` gauges.
    pub fn new(capacity: usize, gauges: usize) -> Result<Self, FormatError> {
        if capacity == 0 || capacity > MAX_ENTITIES {
            return Err(IDENTITY.impossible("capacity", capacity as u64));
        }
        if gauges > MAX_GAUGES {
            return Err(IDENTITY.impossible("gauges", gauges as u64));
        }
        Ok(Geometry { capacity: capacity as u32, gauges: gauges as u32 })
    }
    /// Entities that fit.
    pub fn capacity(self) -> usize {
        self.capacity as usize
    }
    /// Number of gauges.
    pub fn gauge_count(self) -> usize {
        self.gauges as usize
    }
    /// Words of the whole box.
    pub fn total_words(self) -> usize {
        self.directory().end
    }
    /// Words that one poll reads: header, liveness words and gauges.
    pub fn poll_words(self) -> usize {
        self.gauges().end
    }
    /// Where the liveness words lie.
    pub fn liveness(self) -> Range<usize> {
        HEADER_WORDS..HEADER_WORDS + self.capacity()
    }
    /// Where the gauges lie.
    pub fn gauges(self) -> Range<usize> {
        let start = self.liveness().end;
        start..start + self.gauge_count()
    }
    /// Where the directory lies.
    pub fn directory(self) -> Range<usize> {
        let start = self.gauges().end;
        start..start + self.capacity() * ENTRY_WORDS
    }

    pub(super) fn to_word(self) -> u64 {
        pack(self.capacity, self.gauges)
    }
    pub(super) fn from_word(word: u64) -> Result<Self, FormatError> {
        let (capacity, gauges) = unpack(word);
        Geometry::new(capacity as usize, gauges as usize)
    }
}
