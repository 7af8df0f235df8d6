//! The service's end of a State Box.

use std::ops::Deref;

use super::layout::{
    self, HEAD_WORDS, IDENTITY, MAX_SEQUENCE, capacity_bytes, header, slot_range, version, version_check, version_start,
};
use super::reader::{StateBoxError, StateBoxView};
use crate::Nanos;
use crate::checksum::checksum_of;
use crate::format::FormatError;
use crate::takeover::{Doubt, Duty, Ownership};
use crate::words::{AtomicU64, Ordering, WORD_BYTES, copy_of, fence, store_bytes};

/// Why a commit did not happen. The last committed version stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Somebody has claimed the session, and may give it back: say nothing to anybody, and try again. What to do
    /// meanwhile says [`StateBox::duty`].
    #[error("somebody claims the session (claim word {claim:#018x}): wait, it may be given back")]
    InDoubt {
        /// Value of the claim word.
        claim: u64,
    },
    /// The session is lost to this owner, for good. To be told nothing of the kind is no proof of ownership: a claim may
    /// come a moment later, and a taker fences the node before it trusts what it read.
    #[error("the session was taken over (claim word {claim:#018x}): stop serving it, without a word to its client")]
    Lost {
        /// Value of the claim word.
        claim: u64,
    },
    /// The state is larger than the box.
    #[error("a state of {bytes} bytes does not fit a State Box of {capacity} bytes")]
    TooLarge {
        /// Size of the state.
        bytes: usize,
        /// Room in the box.
        capacity: usize,
    },
    /// No number is left for another version: open the session anew.
    #[error("the State Box has no number left for another version")]
    Exhausted,
}

/// How a service looks at its session's claim word, which it can't write.
pub trait ClaimWord {
    /// The word's value now, and whatever its writer did before.
    fn load(&self) -> u64;
}

impl<W: Deref<Target = AtomicU64>> ClaimWord for W {
    fn load(&self) -> u64 {
        AtomicU64::load(self, Ordering::Acquire)
    }
}

/// The writing end of one session's State Box. One per box.
///
/// `M` is how the memory is held; see [`Counter`](crate::progress_box::Counter).
///
/// ```
/// use std::sync::atomic::AtomicU64;
/// use backdoor_core::state_box::{StateBox, StateBoxView, words_needed};
/// use backdoor_core::words::{copy_of, zeroed};
/// let claim = AtomicU64::new(0);
/// let mut state_box = StateBox::format(zeroed(words_needed(100)), &claim, 1, 1)?;
/// state_box.commit(b"balance = 7")?;
///
/// let copy = copy_of(state_box.memory()); // what a READ would bring
/// assert_eq!(StateBoxView::read(&copy)?.committed()?.payload, b"balance = 7");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct StateBox<M, C> {
    memory: M,
    claim: C,
    /// Of the header.
    check: u64,
    unclaimed: u64,
    slot_words: usize,
    sequence: u64,
}

impl<M, C> StateBox<M, C>
where
    M: Deref<Target = [AtomicU64]>,
    C: ClaimWord,
{
    /// Opens an empty State Box that fills `memory`. `incarnation` must differ from that of the memory's earlier uses.
    pub fn format(memory: M, claim: C, session: u64, incarnation: u64) -> Result<Self, FormatError> {
        let capacity = capacity_bytes(memory.len());
        if capacity == 0 {
            let need = layout::words_needed(1);
            return Err(FormatError::Truncated { what: IDENTITY.what, have: memory.len(), need });
        }
        let slot_words = layout::slot_words(capacity);
        let unclaimed = claim.load();
        // No magic, no box: until the header is whole again, a reader refuses the memory.
        memory[header::MAGIC].store(0, Ordering::Relaxed);
        fence(Ordering::Release);
        for word in &memory[header::COMMIT..HEAD_WORDS] {
            word.store(0, Ordering::Relaxed);
        }
        let mut fixed = [0; header::CHECK];
        fixed[header::MAGIC] = IDENTITY.magic_word();
        fixed[header::VERSION] = IDENTITY.version_word(slot_words as u32);
        fixed[header::SESSION] = session;
        fixed[header::INCARNATION] = incarnation;
        fixed[header::UNCLAIMED] = unclaimed;
        for (word, value) in memory.iter().zip(fixed).skip(1) {
            word.store(value, Ordering::Relaxed);
        }
        let check = checksum_of(&fixed);
        memory[header::CHECK].store(check, Ordering::Relaxed);
        memory[header::MAGIC].store(fixed[header::MAGIC], Ordering::Release);
        Ok(StateBox { memory, claim, check, unclaimed, slot_words, sequence: 0 })
    }

    /// Goes on where an earlier writer of the same memory stopped.
    pub fn resume(memory: M, claim: C) -> Result<Self, StateBoxError> {
        let copy = copy_of(&memory);
        let view = StateBoxView::read(&copy)?;
        let sequence = match view.committed() {
            Ok(committed) => committed.sequence,
            Err(StateBoxError::Empty) => 0,
            Err(error) => return Err(error),
        };
        if sequence >= MAX_SEQUENCE {
            return Err(IDENTITY.impossible("commit", sequence).into());
        }
        let head = view.head();
        let (check, unclaimed) = (head.check(), head.unclaimed());
        // The box's own length, which that of the memory need not be.
        let slot_words = head.slot_words();
        Ok(StateBox { memory, claim, check, unclaimed, slot_words, sequence })
    }

    /// Makes `payload` the session's committed state; answers its number.
    ///
    /// # Errors
    /// The session is not this owner's, or may not be; the payload is too large; the numbers are used up.
    pub fn commit(&mut self, payload: &[u8]) -> Result<u64, CommitError> {
        let claim = self.claim.load();
        match Ownership::of(claim, self.unclaimed) {
            Ownership::Mine => {}
            Ownership::InDoubt => return Err(CommitError::InDoubt { claim }),
            Ownership::Lost => return Err(CommitError::Lost { claim }),
        }
        if payload.len() > self.capacity() {
            return Err(CommitError::TooLarge { bytes: payload.len(), capacity: self.capacity() });
        }
        let sequence = self.sequence + 1;
        if sequence > MAX_SEQUENCE {
            return Err(CommitError::Exhausted);
        }
        let entry = &self.memory[version_start(sequence)..][..version::WORDS];
        // The sequence goes first and is ordered before the rest: a reader that finds any of the new words in a slot
        // still finds out that the slot is no longer what it was.
        entry[version::SEQUENCE].store(sequence, Ordering::Relaxed);
        fence(Ordering::Release);
        entry[version::LENGTH_BYTES].store(payload.len() as u64, Ordering::Relaxed);
        store_bytes(&self.memory[slot_range(self.slot_words, sequence)], payload);
        entry[version::CHECK].store(version_check(self.check, sequence, payload), Ordering::Relaxed);
        // Release: whoever sees the commit sees the slot.
        self.memory[header::COMMIT].store(layout::commit_word(sequence), Ordering::Release);
        self.sequence = sequence;
        Ok(sequence)
    }

    /// Whose the session is.
    pub fn ownership(&self) -> Ownership {
        Ownership::of(self.claim.load(), self.unclaimed)
    }

    /// What its owner is to do now, having waited as `doubt` knows; see [`Doubt::duty`].
    pub fn duty(&self, doubt: &mut Doubt, now: impl FnOnce() -> Nanos) -> Duty {
        doubt.duty(now, self.claim.load(), self.unclaimed)
    }

    /// Number of commits so far.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Largest payload in bytes.
    pub fn capacity(&self) -> usize {
        self.slot_words * WORD_BYTES
    }

    /// The memory of the box.
    pub fn memory(&self) -> &[AtomicU64] {
        &self.memory
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::state_box::words_needed;
    use crate::takeover::{Claim, Epoch, PartyId};
    use crate::words::zeroed;

    #[test]
    fn the_last_commit_is_what_is_read() {
        let claim = AtomicU64::new(0);
        let mut state_box = StateBox::format(zeroed(words_needed(100)), &claim, 3, 9).unwrap();
        let read = |memory: &[AtomicU64]| {
            let copy = copy_of(memory);
            StateBoxView::read(&copy).unwrap().committed().map(|c| (c.sequence, c.payload.to_vec()))
        };
        assert_eq!(read(state_box.memory()), Err(StateBoxError::Empty));
        for (sequence, payload) in [(1, &b"one"[..]), (2, b""), (3, &[7; 100])] {
            assert_eq!(state_box.commit(payload), Ok(sequence));
            assert_eq!(read(state_box.memory()), Ok((sequence, payload.to_vec())));
        }
    }

    #[test]
    fn a_claimed_session_is_not_written_until_it_is_given_back_and_a_lost_one_never() {
        const UNCLAIMED: u64 = 17;
        let claim = AtomicU64::new(UNCLAIMED);
        let mut state_box = StateBox::format(zeroed(words_needed(8)), &claim, 1, 1).unwrap();
        let (by, epoch) = (PartyId::new(1).unwrap(), Epoch(1));
        let [claimed, fencing] =
            [Claim::Claimed { by, epoch }, Claim::Fencing { by, epoch }].map(|c| c.word(UNCLAIMED));
        let steps = [
            (UNCLAIMED, Ownership::Mine, Ok(1)),
            (claimed, Ownership::InDoubt, Err(CommitError::InDoubt { claim: claimed })),
            (UNCLAIMED, Ownership::Mine, Ok(2)),
            (fencing, Ownership::Lost, Err(CommitError::Lost { claim: fencing })),
        ];
        for (step, (word, ownership, result)) in steps.into_iter().enumerate() {
            claim.store(word, Ordering::Release);
            assert_eq!(state_box.ownership(), ownership);
            assert_eq!(state_box.commit(&[step as u8]), result);
        }
        let copy = copy_of(state_box.memory());
        assert_eq!(StateBoxView::read(&copy).unwrap().committed().unwrap().payload, [2]);
        assert_eq!(state_box.duty(&mut Doubt::new(Nanos(1)), || Nanos::ZERO), Duty::Stop);
    }

    #[test]
    fn a_state_too_large_leaves_the_last_one() {
        let claim = AtomicU64::new(0);
        let mut state_box = StateBox::format(zeroed(words_needed(8)), &claim, 1, 1).unwrap();
        state_box.commit(b"kept").unwrap();
        let capacity = state_box.capacity();
        let error = state_box.commit(&vec![0; capacity + 1]);
        assert_eq!(error, Err(CommitError::TooLarge { bytes: capacity + 1, capacity }));
        assert_eq!(state_box.sequence(), 1);
    }

    #[test]
    fn a_resumed_writer_goes_on_counting() {
        let claim = AtomicU64::new(0);
        let mut first = StateBox::format(zeroed(words_needed(64)), &claim, 1, 1).unwrap();
        first.commit(b"a").unwrap();
        first.commit(b"b").unwrap();
        let mut second = StateBox::resume(first.memory, &claim).unwrap();
        assert_eq!(second.commit(b"c"), Ok(3));
        let copy = copy_of(second.memory());
        assert_eq!(StateBoxView::read(&copy).unwrap().committed().unwrap().payload, b"c");
    }

    #[test]
    fn a_box_resumed_in_longer_memory_keeps_its_layout() {
        let claim = AtomicU64::new(0);
        let memory = zeroed(words_needed(8) + 100);
        StateBox::format(&memory[..words_needed(8)], &claim, 1, 1).unwrap().commit(b"a").unwrap();
        let mut heir = StateBox::resume(memory, &claim).unwrap();
        for (sequence, payload) in [(2, b"b"), (3, b"c")] {
            assert_eq!(heir.commit(payload), Ok(sequence));
            let copy = copy_of(heir.memory());
            assert_eq!(StateBoxView::read(&copy).unwrap().committed().unwrap().payload, payload);
        }
    }

    #[test]
    fn after_the_last_number_nothing_is_committed_nor_resumed() {
        let claim = AtomicU64::new(0);
        let mut state_box = StateBox::format(zeroed(words_needed(8)), &claim, 1, 1).unwrap();
        state_box.sequence = MAX_SEQUENCE - 1;
        state_box.commit(b"last").unwrap();
        assert_eq!(state_box.commit(b"one more"), Err(CommitError::Exhausted));
        assert!(StateBox::resume(state_box.memory, &claim).is_err());
    }

    #[test]
    fn memory_without_room_is_refused() {
        let claim = AtomicU64::new(0);
        assert!(StateBox::format(zeroed(15), &claim, 1, 1).is_err());
        assert!(StateBox::resume(zeroed(100), &claim).is_err());
    }
}
