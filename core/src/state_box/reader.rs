//! Reading a State Box out of the copies that READs brought.

use std::ops::Range;

use super::layout::{
    self, HEAD_WORDS, IDENTITY, MAX_PAYLOAD_BYTES, header, slot_range, version, version_check, version_start,
};
use crate::checksum::checksum_of;
use crate::format::FormatError;
use crate::words::{as_bytes, unpack, words_for};

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

/// The checked head of a State Box: all there is besides the payloads.
#[derive(Clone, Copy, Debug)]
pub struct StateBoxHead<'a> {
    words: &'a [u64; HEAD_WORDS],
}

impl<'a> StateBoxHead<'a> {
    /// Checks the head of a box that lies at the front of `memory_words` words, by a copy of at least its first
    /// [`HEAD_WORDS`].
    #[inline]
    pub fn read(copy: &'a [u64], memory_words: usize) -> Result<Self, FormatError> {
        let slot_words = IDENTITY.check(copy, HEAD_WORDS)? as usize;
        let words = copy.first_chunk().expect("its length was checked");
        let head = StateBoxHead { words };
        if words[header::CHECK] != checksum_of(&words[..header::CHECK]) {
            return Err(IDENTITY.checksum());
        }
        if slot_words == 0 || slot_words > layout::slot_words(MAX_PAYLOAD_BYTES) {
            return Err(IDENTITY.impossible("slot length", slot_words as u64));
        }
        let need = head.total_words();
        if memory_words < need {
            return Err(FormatError::Truncated { what: IDENTITY.what, have: memory_words, need });
        }
        Ok(head)
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

    /// Words of the whole box.
    pub fn total_words(&self) -> usize {
        HEAD_WORDS + 2 * self.slot_words()
    }

    /// The header's checksum, which was compared.
    pub(super) fn check(&self) -> u64 {
        self.words[header::CHECK]
    }

    /// Words of one slot, as the box was formatted.
    pub(super) fn slot_words(&self) -> usize {
        unpack(self.words[header::VERSION]).1 as usize
    }

    /// Sequence of the committed version; 0 if nothing was committed.
    pub fn commit(&self) -> Result<u64, FormatError> {
        let word = self.words[header::COMMIT];
        layout::committed_sequence(word).ok_or(IDENTITY.impossible("commit word", word))
    }

    /// The last committed version.
    ///
    /// The commit word may be older than the versions, for a READ is not atomic. If the slot of its version is already
    /// being written again, then the version after it was committed in between, and is the one to take.
    #[inline]
    pub fn committed(&self) -> Result<CommittedVersion, StateBoxError> {
        let commit = self.commit()?;
        if commit == 0 {
            return Err(StateBoxError::Empty);
        }
        let overtaken = self.entry(commit)[version::SEQUENCE] == commit + 2;
        let sequence = if overtaken { commit + 1 } else { commit };
        let entry = self.entry(sequence);
        let slot = slot_range(self.slot_words(), sequence);
        let length = usize::try_from(entry[version::LENGTH_BYTES]).ok();
        match length.filter(|length| words_for(*length) <= slot.len()) {
            Some(length) if entry[version::SEQUENCE] == sequence => {
                let (start, header_check, check) = (slot.start, self.check(), entry[version::CHECK]);
                Ok(CommittedVersion { commit, sequence, start, length, header_check, check })
            }
            _ => Err(StateBoxError::NoWholeVersion { commit }),
        }
    }

    #[inline]
    fn entry(&self, sequence: u64) -> &[u64] {
        &self.words[version_start(sequence)..][..version::WORDS]
    }
}

/// What the head of a State Box says of the last committed version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommittedVersion {
    /// What the commit word says.
    commit: u64,
    sequence: u64,
    /// Word of the box with which the payload begins.
    start: usize,
    /// Bytes of the payload.
    length: usize,
    header_check: u64,
    check: u64,
}

impl CommittedVersion {
    /// The words of the box in which the payload lies.
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + words_for(self.length)
    }

    /// The version itself, given a copy of the words in its [range](Self::range), and maybe more. Checks it as a whole.
    #[inline]
    pub fn read<'a>(&self, payload: &'a [u64]) -> Result<Committed<'a>, StateBoxError> {
        let sequence = self.sequence;
        let whole = |payload: &&[u8]| self.check == version_check(self.header_check, sequence, payload);
        let payload = as_bytes(payload).get(..self.length).filter(whole);
        let payload = payload.ok_or(StateBoxError::NoWholeVersion { commit: self.commit })?;
        Ok(Committed { sequence, payload })
    }
}

/// A checked view on the copy of a whole State Box.
#[derive(Clone, Copy, Debug)]
pub struct StateBoxView<'a> {
    head: StateBoxHead<'a>,
    words: &'a [u64],
}

impl<'a> StateBoxView<'a> {
    /// Checks the head. `words` may be longer than the box.
    #[inline]
    pub fn read(words: &'a [u64]) -> Result<Self, FormatError> {
        Ok(StateBoxView { head: StateBoxHead::read(words, words.len())?, words })
    }

    /// The head.
    pub fn head(&self) -> StateBoxHead<'a> {
        self.head
    }

    /// The last committed version.
    #[inline]
    pub fn committed(&self) -> Result<Committed<'a>, StateBoxError> {
        let version = self.head.committed()?;
        version.read(&self.words[version.range()])
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
        words[version_start(4) + version::SEQUENCE] = 6;
        let committed = StateBoxView::read(&words).unwrap().committed().map(|c| (c.sequence, c.payload[0]));
        assert_eq!(committed, Ok((5, 5)));
    }

    #[test]
    fn a_version_written_but_not_committed_is_not_taken() {
        let mut words = committed_box(5);
        words[header::COMMIT] = layout::commit_word(4);
        let start = StateBoxView::read(&words).unwrap().head.committed().unwrap().start;
        words[start] ^= 1;
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
            let mixed = [&ours[..header::COMMIT], &other[header::COMMIT..]].concat();
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
