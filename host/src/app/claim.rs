//! Looking at a claim word that one may not write.

use backdoor_core::state_box::ClaimWord;
use backdoor_transports::shm::ReadOnlyWords;

/// One claim word on pages mapped read-only.
#[derive(Clone, Debug)]
pub(super) struct ReadOnlyClaim {
    claims: ReadOnlyWords,
    index: usize,
}

impl ReadOnlyClaim {
    /// `None` if there is no such claim word.
    pub(super) fn new(claims: ReadOnlyWords, index: usize) -> Option<Self> {
        claims.load(index)?;
        Some(ReadOnlyClaim { claims, index })
    }
}

impl ClaimWord for ReadOnlyClaim {
    fn load(&self) -> u64 {
        self.claims.load(self.index).expect("checked when it was made, and mappings don't shrink")
    }
}
