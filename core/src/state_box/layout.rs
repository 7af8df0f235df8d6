//! Where each word of a State Box lies. Nothing else knows an offset.

use std::ops::Range;

use crate::checksum::{checksum, checksum_of};
use crate::format::Identity;
use crate::words::{WORD_BYTES, words_for};

pub(super) const IDENTITY: Identity = Identity { what: "State Box", magic: *b"BDSTATE1", version: 3 };

/// Words of a State Box before its payloads: a cache line that stays as it is while the session is open, and one that
/// every commit writes.
pub const HEAD_WORDS: usize = 2 * LINE_WORDS;
/// Largest payload; a reader refuses more, so that forged memory can't make it allocate.
pub const MAX_PAYLOAD_BYTES: usize = 64 << 20;

/// Words of the head. The free half of the version word holds the words of one slot.
pub(super) mod header {
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const VERSION: usize = 1;
    pub(crate) const SESSION: usize = 2;
    pub(crate) const INCARNATION: usize = 3;
    pub(crate) const UNCLAIMED: usize = 4;
    /// Checksum of the words before it, which never change while the session is open.
    pub(crate) const CHECK: usize = 5;
    /// Sequence of the committed version, with a check above it; 0 before the first commit.
    pub(crate) const COMMIT: usize = 8;
    /// What is known of the payload in each slot: see [`version`](super::version).
    pub(crate) const VERSIONS: usize = 9;
}

/// Words of a slot's entry in the head, from where it [starts](version_start).
pub(super) mod version {
    pub(crate) const SEQUENCE: usize = 0;
    pub(crate) const LENGTH_BYTES: usize = 1;
    /// Of header, sequence, length and payload.
    pub(crate) const CHECK: usize = 2;
    pub(crate) const WORDS: usize = 3;
}

const _: () = {
    assert!(header::CHECK == header::UNCLAIMED + 1, "the check covers what never changes");
    assert!(header::CHECK < LINE_WORDS && header::COMMIT == LINE_WORDS, "a commit leaves the first line alone");
    assert!(header::VERSIONS + 2 * version::WORDS <= HEAD_WORDS, "a commit writes one line of the head");
};

const LINE_WORDS: usize = 8;

/// Words of one slot for payloads up to `payload_bytes`: whole cache lines.
pub(super) const fn slot_words(payload_bytes: usize) -> usize {
    words_for(payload_bytes).next_multiple_of(LINE_WORDS)
}

/// Words of a State Box for payloads up to `payload_bytes`.
pub const fn words_needed(payload_bytes: usize) -> usize {
    HEAD_WORDS + 2 * slot_words(payload_bytes)
}

/// The largest payload that a State Box of `words` words can hold, in bytes; 0 if there is no room for any.
pub(super) const fn capacity_bytes(words: usize) -> usize {
    let slot = words.saturating_sub(HEAD_WORDS) / 2 / LINE_WORDS * LINE_WORDS;
    let capacity = slot * WORD_BYTES;
    if capacity > MAX_PAYLOAD_BYTES { MAX_PAYLOAD_BYTES } else { capacity }
}

/// Where the head tells of the version `sequence`.
pub(super) const fn version_start(sequence: u64) -> usize {
    header::VERSIONS + (sequence % 2) as usize * version::WORDS
}

/// Where the slot lies in which the payload of version `sequence` is.
pub(super) const fn slot_range(slot_words: usize, sequence: u64) -> Range<usize> {
    let start = HEAD_WORDS + (sequence % 2) as usize * slot_words;
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

/// Checksum of a version: of its header, sequence and length, and of its payload's checksum. A version belongs to its
/// header, which is why that counts.
#[inline]
pub(super) fn version_check(header_check: u64, sequence: u64, payload: &[u8]) -> u64 {
    checksum_of(&[header_check, sequence, payload.len() as u64, checksum(payload)])
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
