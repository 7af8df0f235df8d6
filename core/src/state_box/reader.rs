//! Reading a State Box out of the copy that a READ brought.

use super::layout::{
    self, IDENTITY, SLOT_HEADER_WORDS, STATE_BOX_HEADER_WORDS, VersionChecksum, header, slot, slot_range,
};
use crate::format::FormatError;
use crate::words::{WORD_BYTES, as_bytes, crc32_of};

/// What lies between a slot's check and its payload, which it covers, too.
const VERSION_HEAD_BYTES: usize = (SLOT_HEADER_WORDS - slot::SEQUENCE) * WORD_BYTES;

/// Why a State Box gave no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum StateBoxError {
    /// The memory is no State Box, or its header is corrupt.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The session was opened, and nothing was committed.
    #[error("State Box: nothing was ever committed")]
    Empty,
    /// No slot holds the committed version whole. From a live writer: read again. From a dead one: corrupt.
    #[error("State Box: version {commit} is committed, but no slot holds it whole (being written, or corrupt)")]
    NoWholeVersion {
        /// What the commit word says.
        commit: u64,
    },
}

/// One whole committed version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed<'a> {
    /// Number of commits up to this one.
    pub sequence: u64,
    /// The session's state.
    pub payload: &'a [u8],
}

/// A checked view on the copy of a State Box.
#[derive(Clone, Copy, Debug)]
pub struct StateBoxView<'a> {
    words: &'a [u64],
    slot_words: usize,
}

impl<'a> StateBoxView<'a> {
    /// Checks the header. `words` may be longer than the box.
    #[inline]
    pub fn read(words: &'a [u64]) -> Result<Self, FormatError> {
        let slot_words = IDENTITY.check(words, STATE_BOX_HEADER_WORDS)? as usize;
        if words[header::CHECK] != u64::from(crc32_of(&words[..header::CHECK])) {
            return Err(IDENTITY.checksum());
        }
        if slot_words <= SLOT_HEADER_WORDS || slot_words > layout::slot_words(layout::MAX_PAYLOAD_BYTES) {
            return Err(IDENTITY.impossible("slot length", slot_words as u64));
        }
        let need = STATE_BOX_HEADER_WORDS + 2 * slot_words;
        if words.len() < need {
            return Err(FormatError::Truncated { what: IDENTITY.what, have: words.len(), need });
        }
        Ok(StateBoxView { words: &words[..need], slot_words })
    }

    /// Session number.
    pub fn session(&self) -> u64 {
        self.words[header::SESSION]
    }

    /// Which use of this memory the session is.
    pub fn incarnation(&self) -> u64 {
        self.words[header::INCARNATION]
    }

    /// Value of the claim word while nobody has taken the session over.
    pub fn unclaimed(&self) -> u64 {
        self.words[header::UNCLAIMED]
    }

    /// The header's checksum, which was compared.
    pub(super) fn header_check(&self) -> u32 {
        self.words[header::CHECK] as u32
    }

    /// Words of one slot, as the box was formatted.
    pub(super) fn slot_words(&self) -> usize {
        self.slot_words
    }

    /// Sequence of the committed version; 0 if nothing was committed.
    pub fn commit(&self) -> Result<u64, FormatError> {
        let word = self.words[header::COMMIT];
        layout::committed_sequence(word).ok_or(IDENTITY.impossible("commit word", word))
    }

    /// The last committed version.
    ///
    /// The commit word may be older than the slots, for a READ is not atomic. If its slot is already being written
    /// again, then the version after it was committed in between, and is taken if it is whole.
    #[inline]
    pub fn committed(&self) -> Result<Committed<'a>, StateBoxError> {
        let commit = self.commit()?;
        if commit == 0 {
            return Err(StateBoxError::Empty);
        }
        let overtaken = self.words[slot_range(self.slot_words, commit)][slot::SEQUENCE] == commit + 2;
        let whole = self.version(if overtaken { commit + 1 } else { commit });
        whole.ok_or(StateBoxError::NoWholeVersion { commit })
    }

    #[inline]
    fn version(&self, sequence: u64) -> Option<Committed<'a>> {
        let words = &self.words[slot_range(self.slot_words, sequence)];
        if words[slot::SEQUENCE] != sequence {
            return None;
        }
        let length = usize::try_from(words[slot::LENGTH_BYTES]).ok()?;
        let payload = as_bytes(&words[SLOT_HEADER_WORDS..]).get(..length)?;
        let version = &as_bytes(&words[slot::SEQUENCE..])[..VERSION_HEAD_BYTES + length];
        let checksum = VersionChecksum::after(self.header_check()).of([version]);
        (words[slot::CHECK] == checksum).then_some(Committed { sequence, payload })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::{StateBox, words_needed};
    use super::*;
    use crate::words::{AtomicU64, copy_of, zeroed};
    use proptest::prelude::*;

    fn committed_box(versions: u64) -> Vec<u64> {
        let claim = AtomicU64::new(0);
        let mut state_box = StateBox::format(zeroed(words_needed(40)), &claim, 5, 1).unwrap();
        for version in 1..=versions {
            state_box.commit(&[version as u8; 33]).unwrap();
        }
        copy_of(state_box.memory())
    }

    #[test]
    fn a_slot_being_rewritten_means_the_next_version_was_committed() {
        let mut words = committed_box(5);
        // The READ caught the commit word at 4 and slot 0 while version 6 was being written into it.
        words[header::COMMIT] = layout::commit_word(4);
        let view = StateBoxView::read(&words).unwrap();
        assert_eq!(view.committed().unwrap().sequence, 4);
        let start = slot_range(view.slot_words, 4).start;
        words[start + slot::SEQUENCE] = 6;
        let committed = StateBoxView::read(&words).unwrap().committed().map(|c| (c.sequence, c.payload[0]));
        assert_eq!(committed, Ok((5, 5)));
    }

    #[test]
    fn a_version_written_but_not_committed_is_not_taken() {
        let mut words = committed_box(5);
        words[header::COMMIT] = layout::commit_word(4);
        let start = slot_range(StateBoxView::read(&words).unwrap().slot_words, 4).start;
        words[start + SLOT_HEADER_WORDS] ^= 1;
        let answer = StateBoxView::read(&words).unwrap().committed();
        assert_eq!(answer, Err(StateBoxError::NoWholeVersion { commit: 4 }));
    }

    #[test]
    fn a_version_of_another_session_or_use_of_the_memory_is_not_taken() {
        let box_of = |session, incarnation, unclaimed| {
            let claim = AtomicU64::new(unclaimed);
            let mut state_box = StateBox::format(zeroed(words_needed(40)), &claim, session, incarnation).unwrap();
            state_box.commit(b"state").unwrap();
            copy_of(state_box.memory())
        };
        let ours = box_of(5, 1, 0);
        for other in [box_of(6, 1, 0), box_of(5, 2, 0), box_of(5, 1, 3)] {
            let mixed = [&ours[..STATE_BOX_HEADER_WORDS], &other[STATE_BOX_HEADER_WORDS..]].concat();
            let answer = StateBoxView::read(&mixed).unwrap().committed();
            assert_eq!(answer, Err(StateBoxError::NoWholeVersion { commit: 1 }));
        }
        assert_eq!(StateBoxView::read(&ours).unwrap().committed().map(|version| version.payload), Ok(&b"state"[..]));
    }

    proptest! {
        #[test]
        fn arbitrary_memory_never_panics(words in proptest::collection::vec(any::<u64>(), 0..64)) {
            if let Ok(view) = StateBoxView::read(&words) {
                let _ = view.committed();
            }
        }

        #[test]
        fn damage_never_yields_a_wrong_payload(versions in 1u64..6, at in 0usize..1000, bit in 0..64) {
            let mut words = committed_box(versions);
            let at = at % words.len();
            words[at] ^= 1u64 << bit;
            if let Ok(view) = StateBoxView::read(&words)
                && let Ok(committed) = view.committed()
            {
                prop_assert_eq!(committed.payload, &[committed.sequence as u8; 33][..]);
            }
        }

        #[test]
        fn two_versions_never_mix(from in 1u64..6, ahead in 0u64..4, newer in proptest::collection::vec(any::<bool>(), 64)) {
            // Any word may come from an older or a newer state of the same box.
            let old = committed_box(from);
            let new = committed_box(from + ahead);
            let mixed: Vec<u64> = (0..old.len()).map(|i| if newer[i % 64] { new[i] } else { old[i] }).collect();
            if let Ok(committed) = StateBoxView::read(&mixed).unwrap().committed() {
                prop_assert!(committed.sequence >= from && committed.sequence <= from + ahead);
                prop_assert_eq!(committed.payload, &[committed.sequence as u8; 33][..]);
            }
        }
    }
}
