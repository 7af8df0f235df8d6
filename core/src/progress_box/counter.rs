//! Liveness words: one store per update, by one writer.

use std::ops::Deref;

use crate::words::{AtomicU64, Ordering};

const STATE_BITS: u32 = 2;
const STATE_MASK: u64 = (1 << STATE_BITS) - 1;
const ONE_STEP: u64 = 1 << STATE_BITS;

/// What an entity says of itself, in the low bits of its liveness word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum EntityState {
    /// The slot belongs to nobody. Zeroed memory reads as free.
    Free = 0,
    /// It has work: its count must advance within its deadline.
    Active = 1,
    /// It waits for work: silence is expected.
    Idle = 2,
    /// It has ended by its own will.
    Departed = 3,
}

/// The value of a liveness word: state and progress count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Liveness(pub u64);

impl Liveness {
    /// A word of this state and count. The count wraps at 2⁶².
    pub const fn new(state: EntityState, count: u64) -> Self {
        Liveness(count << STATE_BITS | state as u64)
    }
    /// What the entity says of itself.
    pub const fn state(self) -> EntityState {
        match self.0 & STATE_MASK {
            0 => EntityState::Free,
            1 => EntityState::Active,
            2 => EntityState::Idle,
            _ => EntityState::Departed,
        }
    }
    /// Progress so far.
    pub const fn count(self) -> u64 {
        self.0 >> STATE_BITS
    }
    /// Steps from one count to a later one. Counts wrap; one that stepped back is far ahead.
    pub const fn steps(from: u64, to: u64) -> u64 {
        to.wrapping_sub(from) & u64::MAX >> STATE_BITS
    }
}

/// The writing end of one progress counter.
///
/// `W` is how the word is held: a reference, an `Arc`, or a handle into memory shared with an agent. There must be one
/// `Counter` per word: updates are plain stores, and two writers would undo each other's progress.
///
/// ```
/// use std::sync::atomic::AtomicU64;
/// use backdoor_core::progress_box::{Counter, EntityState};
/// let word = AtomicU64::new(0);
/// let mut counter = Counter::resume(&word);
/// counter.advance();
/// counter.idle();
/// assert_eq!(counter.liveness().state(), EntityState::Idle);
/// assert_eq!(counter.liveness().count(), 2);
/// ```
#[derive(Debug)]
pub struct Counter<W> {
    word: W,
    value: u64,
}

impl<W: Deref<Target = AtomicU64>> Counter<W> {
    /// Takes the word over where its last writer left it, so that counts never step back.
    pub fn resume(word: W) -> Self {
        let value = word.load(Ordering::Relaxed);
        Counter { word, value }
    }

    /// Progress was made. The entity is active from here on.
    #[inline]
    pub fn advance(&mut self) {
        self.enter(EntityState::Active);
    }

    /// The entity waits for work; to say so is progress.
    #[inline]
    pub fn idle(&mut self) {
        self.enter(EntityState::Idle);
    }

    /// The entity ends by its own will.
    pub fn depart(&mut self) {
        self.enter(EntityState::Departed);
    }

    /// The slot is nobody's again. For the owner of the box.
    pub fn free(&mut self) {
        self.enter(EntityState::Free);
    }

    /// The word as last written.
    pub fn liveness(&self) -> Liveness {
        Liveness(self.value)
    }

    #[inline]
    fn enter(&mut self, state: EntityState) {
        self.value = (self.value & !STATE_MASK).wrapping_add(ONE_STEP | state as u64);
        // Release: whoever sees this step also sees the work that it reports.
        self.word.store(self.value, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn zeroed_memory_is_free() {
        assert_eq!(Liveness(0).state(), EntityState::Free);
    }

    #[test]
    fn every_update_moves_the_count() {
        let word = AtomicU64::new(0);
        let mut counter = Counter::resume(&word);
        counter.advance();
        counter.advance();
        counter.idle();
        assert_eq!(Liveness(word.load(Ordering::Relaxed)), Liveness::new(EntityState::Idle, 3));
        let mut heir = Counter::resume(&word);
        heir.depart();
        assert_eq!(heir.liveness(), Liveness::new(EntityState::Departed, 4));
    }

    #[test]
    fn counts_wrap_without_touching_the_state() {
        let word = AtomicU64::new(Liveness::new(EntityState::Active, u64::MAX).0);
        let mut counter = Counter::resume(&word);
        let before = counter.liveness().count();
        counter.idle();
        assert_eq!(counter.liveness(), Liveness::new(EntityState::Idle, 0));
        assert_eq!(Liveness::steps(before, counter.liveness().count()), 1);
    }
}
