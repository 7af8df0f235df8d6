//! A gauge of pending work: how much waits for an entity, and which look at it that was.

use crate::words::{pack, unpack};

/// What the gauge says that an entity's record names as [pending](super::EntityRecord::pending).
///
/// A plain count below 2³² is a gauge of pending work, too. Its keeper then doesn't tell when it looked, and is taken to
/// have looked just now.
///
/// ```
/// use backdoor_core::progress_box::Pending;
/// let first = Pending::seen(8, Pending::next_look(0));
/// assert_eq!(Pending::of_word(first.to_word()), first);
/// assert_eq!(Pending::of_word(3), Pending { amount: 3, look: 0 });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// How much waits: bytes, requests, connections; 0 for nothing. In the low half of the gauge.
    pub amount: u32,
    /// Number of the look, one more each time the keeper looks; 0 if it doesn't tell. In the high half.
    pub look: u32,
}

impl Pending {
    /// `amount` was found at a look; more than fits is as much as fits.
    pub fn seen(amount: u64, look: u32) -> Self {
        Pending { amount: u32::try_from(amount).unwrap_or(u32::MAX), look }
    }

    /// The number of the look after that of number `look`.
    pub const fn next_look(look: u32) -> u32 {
        match look.wrapping_add(1) {
            0 => 1,
            next => next,
        }
    }

    /// As the gauge holds it.
    pub const fn to_word(self) -> u64 {
        pack(self.amount, self.look)
    }

    /// What a gauge holds.
    pub const fn of_word(word: u64) -> Self {
        let (amount, look) = unpack(word);
        Pending { amount, look }
    }

    /// Whether the keeper has certainly looked after the moment at which the gauge showed `earlier`. One look more is not
    /// enough: it may have been under way at that moment.
    pub const fn looked_since(self, earlier: Pending) -> bool {
        self.look == 0 || self.look.wrapping_sub(earlier.look) >= 2
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_may_have_been_under_way_is_not_one_after() {
        let at = |look| Pending::seen(1, look);
        assert!(!at(7).looked_since(at(7)) && !at(8).looked_since(at(7)) && at(9).looked_since(at(7)));
        assert!(at(0).looked_since(at(0)), "who does not tell is taken at its word");
        let last = at(u32::MAX);
        let next = at(Pending::next_look(last.look));
        assert_eq!(next.look, 1);
        assert!(at(Pending::next_look(next.look)).looked_since(last), "numbers begin anew");
    }

    #[test]
    fn more_than_fits_is_not_nothing() {
        assert_eq!(Pending::seen(1 << 32, 0).amount, u32::MAX);
    }
}
