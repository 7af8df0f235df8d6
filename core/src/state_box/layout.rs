//! Where each word of a State Box lies. Nothing else knows an offset.

use std::ops::Range;

use crate::format::Identity;
use crate::words::{WORD_BYTES, words_for};

pub(super) const IDENTITY: Identity = Identity { what: "State Box", magic: *b"BDSTATE1", version: 2 };

/// Words of the header.
pub(super) const STATE_BOX_HEADER_WORDS: usize = 8;
/// Words before a slot's payload.
pub(super) const SLOT_HEADER_WORDS: usize = 4;
/// Largest payload; a reader refuses more, so that forged memory can't make it allocate.
pub const MAX_PAYLOAD_BYTES: usize = 64 << 20;

/// Header words. The free half of the version word holds the words of one slot.
pub(super) mod header {
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const VERSION: usize = 1;
    pub(crate) const SESSION: usize = 2;
    pub(crate) const INCARNATION: usize = 3;
    pub(crate) const UNCLAIMED: usize = 4;
    /// CRC-32 of the words before it, which never change while the session is open.
    pub(crate) const CHECK: usize = 5;
    /// Sequence of the committed version, with a check above it; 0 before the first commit.
    pub(crate) const COMMIT: usize = 6;
}

/// Slot words, from the slot's start. What the check covers lies in a row, the payload last.
pub(super) mod slot {
    pub(crate) const CHECK: usize = 1;
    pub(crate) const SEQUENCE: usize = 2;
    pub(crate) const LENGTH_BYTES: usize = 3;
}

const _: () = {
    assert!(header::COMMIT == header::CHECK + 1 && header::COMMIT < STATE_BOX_HEADER_WORDS);
    assert!(header::CHECK == header::UNCLAIMED + 1, "the check covers what never changes");
    assert!(slot::CHECK < slot::SEQUENCE && slot::LENGTH_BYTES == slot::SEQUENCE + 1);
    assert!(SLOT_HEADER_WORDS == slot::LENGTH_BYTES + 1, "the check covers what lies in a row");

    assert!(slot_range(0, 0).start == STATE_BOX_HEADER_WORDS, "the first slot follows the header");
    assert!(STATE_BOX_HEADER_WORDS.is_multiple_of(LINE_WORDS), "slots start on a cache line");
};

const LINE_WORDS: usize = 8;

/// Words of one slot for payloads up to `payload_bytes`: whole cache lines.
pub(super) const fn slot_words(payload_bytes: usize) -> usize {
    (SLOT_HEADER_WORDS + words_for(payload_bytes)).next_multiple_of(LINE_WORDS)
}

/// Words of a State Box for payloads up to `payload_bytes`.
pub const fn words_needed(payload_bytes: usize) -> usize {
    STATE_BOX_HEADER_WORDS + 2 * slot_words(payload_bytes)
}

/// The largest payload that a State Box of `words` words can hold, in bytes; 0 if there is no room for any.
pub(super) const fn capacity_bytes(words: usize) -> usize {
    let slot = words.saturating_sub(STATE_BOX_HEADER_WORDS) / 2 / LINE_WORDS * LINE_WORDS;
    let capacity = slot.saturating_sub(SLOT_HEADER_WORDS) * WORD_BYTES;
    if capacity > MAX_PAYLOAD_BYTES { MAX_PAYLOAD_BYTES } else { capacity }
}

/// Where the slot of `sequence` lies.
pub(super) const fn slot_range(slot_words: usize, sequence: u64) -> Range<usize> {
    let start = STATE_BOX_HEADER_WORDS + (sequence % 2) as usize * slot_words;
    start..start + slot_words
}

/// The last number that a version can have; the bits above hold the commit word's check.
pub(super) const MAX_SEQUENCE: u64 = (1 << SEQUENCE_BITS) - 1;
const SEQUENCE_BITS: u32 = 48;

/// The commit word for `sequence`, of at most [`MAX_SEQUENCE`].
///
/// It names a version on its own, so no checksum of what it names would notice that it was damaged: a flipped bit would
/// quietly bring back the version before.
pub(super) const fn commit_word(sequence: u64) -> u64 {
    // Fibonacci hashing: every bit of the sequence moves the product's upper bits.
    let check = sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> SEQUENCE_BITS;
    sequence | check << SEQUENCE_BITS
}

/// The sequence in a commit word; `None` if the word is damaged.
pub(super) const fn committed_sequence(word: u64) -> Option<u64> {
    let sequence = word & MAX_SEQUENCE;
    if commit_word(sequence) == word { Some(sequence) } else { None }
}

/// CRC-32 of the versions of one State Box. It goes on where the header's ended, for a version belongs to its header; so the
/// bytes of both are checked, and nobody's twice.
#[derive(Clone, Debug)]
pub(super) struct VersionChecksum {
    /// Kept, for to make one is to ask what the processor can do.
    header: crc32fast::Hasher,
}

impl VersionChecksum {
    pub(super) fn after(header_check: u32) -> Self {
        VersionChecksum { header: crc32fast::Hasher::new_with_initial(header_check) }
    }

    /// Of a version, given in parts: sequence, length, payload.
    #[inline]
    pub(super) fn of<const PARTS: usize>(&self, version: [&[u8]; PARTS]) -> u64 {
        let mut hasher = self.header.clone();
        for part in version {
            hasher.update(part);
        }
        u64::from(hasher.finalize())
    }
}

/// Where the parts of a State Box of given length lie: what to READ to bring no more than needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoxLayout {
    slot_words: usize,
}

impl BoxLayout {
    /// The layout of a box that fills `words` words; `None` if that is too short or too long for a box.
    pub fn of_words(words: usize) -> Option<Self> {
        let capacity = capacity_bytes(words);
        (capacity > 0 && words <= words_needed(MAX_PAYLOAD_BYTES))
            .then(|| BoxLayout { slot_words: slot_words(capacity) })
    }

    /// Words of the whole box.
    pub fn total_words(self) -> usize {
        STATE_BOX_HEADER_WORDS + 2 * self.slot_words
    }

    /// Where the box's header and its slots' headers lie.
    pub fn header_ranges(self) -> [Range<usize>; 2] {
        let [even, odd] = [0, 1].map(|sequence| {
            let start = slot_range(self.slot_words, sequence).start;
            start..start + SLOT_HEADER_WORDS
        });
        // The first slot follows the header.
        [0..even.end, odd]
    }

    /// Where the payload of the committed version lies, by a copy in which the [headers](Self::header_ranges) are.
    ///
    /// The slot's length is that of the version in it; if it is forged, the answer still lies within the slot.
    pub fn committed_range(self, copy: &[u64]) -> Option<Range<usize>> {
        let slot = slot_range(self.slot_words, committed_sequence(*copy.get(header::COMMIT)?)?);
        let length = *copy.get(slot.start + slot::LENGTH_BYTES)?;
        let payload = slot.start + SLOT_HEADER_WORDS..slot.end;
        let words = length.div_ceil(WORD_BYTES as u64).min(payload.len() as u64) as usize;
        Some(payload.start..payload.start + words)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_commit_word_reads_back_and_a_flipped_bit_is_noticed(
            sequence in prop_oneof![0..10_000u64, 0..=MAX_SEQUENCE],
            bit in 0..64,
        ) {
            let word = commit_word(sequence);
            prop_assert_eq!(committed_sequence(word), Some(sequence));
            prop_assert_eq!(committed_sequence(word ^ 1u64 << bit), None);
        }
    }

    #[test]
    fn zeroed_memory_says_that_nothing_was_committed() {
        assert_eq!(committed_sequence(0), Some(0));
    }
}
