//! The claim word: the one place at which it is decided whose a session is.
//!
//! ```text
//!  bit 63      58 57                    26 25               2 1   0
//!     ┌──────────┬────────────────────────┬──────────────────┬─────┐
//!     │ check: 6 │ epoch: 32              │ party: 24        │phase│
//!     └──────────┴────────────────────────┴──────────────────┴─────┘
//!      phase 1  claimed   party = the taker        the old owner must wait; can be given back
//!      phase 2  fencing   party = the taker        no way back: the old owner may be cut off at any time
//!      phase 3  moved     party = the new owner    for good
//! ```
//!
//! "Unclaimed" is no phase but a value: the one that the State Box's header names. It may be anything, a word of an
//! earlier session's takeover too, so a word is only understood beside it.
//!
//! From fencing on, every change of hands raises the epoch and nothing leads back. So no value comes a second time, and
//! a compare-and-swap that lands late can't be mistaken for another. Before, a claim and the unclaimed value may come
//! again; nothing that is done in those phases is for good.
//!
//! The check notices damage, not malice: whoever may swap claim words is trusted with the sessions. A damaged word is
//! left alone, for it might have said that the session has moved.

use std::fmt;

use crate::transport::{Operation, RemoteSlice, WorkId, WorkRequest};

/// A taker or a target: a number that the cluster gives to a monitor or a node. A machine that is both may use one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartyId(u32);

impl PartyId {
    /// Number `number`, of less than 2²⁴; `None` if it does not fit a claim word.
    pub const fn new(number: u32) -> Option<Self> {
        if number >> PARTY_BITS == 0 { Some(PartyId(number)) } else { None }
    }

    /// The number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for PartyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Which of the claims on a session this is. Each taker's next is higher than any that it saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The next one; `None` after the last.
    pub const fn next(self) -> Option<Epoch> {
        match self.0.checked_add(1) {
            Some(next) => Some(Epoch(next)),
            None => None,
        }
    }
}

/// What a claim word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Claim {
    /// The session is its old owner's.
    Unclaimed,
    /// A taker asks for it. The old owner must wait; the taker may still give it back.
    Claimed {
        /// The taker.
        by: PartyId,
        /// Its claim.
        epoch: Epoch,
    },
    /// A taker has the old owner cut off. No way back.
    Fencing {
        /// The taker.
        by: PartyId,
        /// Its claim, and that of the state that it offers to targets.
        epoch: Epoch,
    },
    /// The session is its new owner's, for good.
    Moved {
        /// The new owner.
        to: PartyId,
        /// The offer that it took.
        epoch: Epoch,
    },
}

/// A claim word that no taker writes: damaged, or not a claim word at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("claim word {word:#018x} is damaged")]
pub struct DamagedClaim {
    /// The word.
    pub word: u64,
}

const PHASE_BITS: u32 = 2;
const PARTY_BITS: u32 = 24;
const EPOCH_SHIFT: u32 = PHASE_BITS + PARTY_BITS;
const CHECK_SHIFT: u32 = EPOCH_SHIFT + 32;

const CLAIMED: u64 = 1;
const FENCING: u64 = 2;
const MOVED: u64 = 3;

impl Claim {
    /// The word that says so, of a session whose unclaimed value is `unclaimed`.
    pub const fn word(self, unclaimed: u64) -> u64 {
        let (phase, party, epoch) = match self {
            Claim::Unclaimed => return unclaimed,
            Claim::Claimed { by, epoch } => (CLAIMED, by, epoch),
            Claim::Fencing { by, epoch } => (FENCING, by, epoch),
            Claim::Moved { to, epoch } => (MOVED, to, epoch),
        };
        with_check(phase | (party.0 as u64) << PHASE_BITS | (epoch.0 as u64) << EPOCH_SHIFT)
    }

    /// What `word` says, of a session whose unclaimed value is `unclaimed`.
    #[inline]
    pub const fn of_word(word: u64, unclaimed: u64) -> Result<Self, DamagedClaim> {
        if word == unclaimed { Ok(Claim::Unclaimed) } else { Self::decode(word) }
    }

    const fn decode(word: u64) -> Result<Self, DamagedClaim> {
        if with_check(word) != word {
            return Err(DamagedClaim { word });
        }
        let party = PartyId((word >> PHASE_BITS) as u32 & ((1 << PARTY_BITS) - 1));
        let epoch = Epoch((word >> EPOCH_SHIFT) as u32);
        match word & ((1 << PHASE_BITS) - 1) {
            CLAIMED => Ok(Claim::Claimed { by: party, epoch }),
            FENCING => Ok(Claim::Fencing { by: party, epoch }),
            MOVED => Ok(Claim::Moved { to: party, epoch }),
            _ => Err(DamagedClaim { word }),
        }
    }

    /// The epoch of a word, whatever it means now; that of an unclaimed value is that of the session before.
    pub(super) const fn epoch_of(word: u64) -> Epoch {
        match Self::decode(word) {
            Ok(Claim::Claimed { epoch, .. } | Claim::Fencing { epoch, .. } | Claim::Moved { epoch, .. }) => epoch,
            Ok(Claim::Unclaimed) | Err(_) => Epoch(0),
        }
    }
}

/// The word with the check of its other bits.
const fn with_check(word: u64) -> u64 {
    let body = word & ((1 << CHECK_SHIFT) - 1);
    // Fibonacci hashing: every bit of the body moves the product's upper bits. The sum keeps zero from being a claim.
    let check = body.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> CHECK_SHIFT;
    body | check << CHECK_SHIFT
}

/// A compare-and-swap on a session's claim word. It names itself: a completion belongs to every swap of the same values,
/// because what it says of the word is true whichever of them brought it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Swap {
    /// What the word must hold.
    pub expected: u64,
    /// What it then holds; equal to `expected` to look at the word and leave it as it is.
    pub new: u64,
}

impl Swap {
    /// The work to post: on word `index` of the node's claim words. `None` if there is no such word.
    pub fn request(self, id: WorkId, claims: RemoteSlice, index: u32) -> Option<WorkRequest> {
        let word = claims.part(u64::from(index), 1)?;
        let Swap { expected, new } = self;
        Some(WorkRequest {
            id,
            operation: Operation::CompareSwap { key: word.key, offset: word.offset, expected, new },
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_claim() -> impl Strategy<Value = Claim> {
        (1u32..4, 0u32..1 << PARTY_BITS, any::<u32>()).prop_map(|(phase, party, epoch)| {
            let (party, epoch) = (PartyId::new(party).unwrap(), Epoch(epoch));
            match phase {
                1 => Claim::Claimed { by: party, epoch },
                2 => Claim::Fencing { by: party, epoch },
                _ => Claim::Moved { to: party, epoch },
            }
        })
    }

    proptest! {
        #[test]
        fn a_claim_reads_back(claim in any_claim(), unclaimed in any::<u64>()) {
            let word = claim.word(unclaimed);
            prop_assume!(word != unclaimed);
            prop_assert_eq!(Claim::of_word(word, unclaimed), Ok(claim));
            prop_assert_eq!(Claim::of_word(word, word), Ok(Claim::Unclaimed));
        }

        #[test]
        fn arbitrary_words_are_damaged_or_read_back(word in any::<u64>(), unclaimed in any::<u64>()) {
            match Claim::of_word(word, unclaimed) {
                Ok(claim) => prop_assert_eq!(claim.word(unclaimed), word),
                Err(damaged) => prop_assert_eq!(damaged.word, word),
            }
        }

        /// Six bits of check notice 63 of 64 changes; of single flipped bits they notice most.
        #[test]
        fn a_flipped_bit_is_hardly_ever_a_claim(claim in any_claim()) {
            let word = claim.word(0);
            let unnoticed = (0..64).filter(|bit| Claim::of_word(word ^ 1u64 << bit, 0).is_ok()).count();
            prop_assert!(unnoticed <= 3, "{unnoticed} flips of {word:#x} go unnoticed");
        }
    }

    #[test]
    fn zeroed_memory_is_no_claim() {
        assert_eq!(Claim::of_word(0, 1), Err(DamagedClaim { word: 0 }));
        assert_eq!(PartyId::new(1 << PARTY_BITS), None);
    }

    #[test]
    fn a_swap_stays_within_the_claim_words() {
        let claims = RemoteSlice { key: crate::transport::RegionKey(3), offset: 8, words: 4 };
        let swap = Swap { expected: 1, new: 2 };
        let Operation::CompareSwap { offset, .. } = swap.request(WorkId(1), claims, 3).unwrap().operation else {
            panic!("not a compare-and-swap")
        };
        assert_eq!(offset, 11);
        assert_eq!(swap.request(WorkId(1), claims, 4), None);
    }
}
