//! Looking at a claim word that one may not write.
//!
//! A [`StateBox`](backdoor_core::state_box::StateBox) takes its claim word as an `AtomicU64`, to which anybody could
//! store; on pages mapped read-only that would be fatal. So it gets a private word, which takes on the shared one's
//! value before every look.

use std::ops::Deref;
use std::sync::Arc;

use backdoor_core::words::{AtomicU64, Ordering};
use backdoor_transports::shm::ReadOnlyWords;

/// A private copy of one claim word. Clones share the copy.
#[derive(Clone, Debug)]
pub(super) struct ClaimMirror {
    claims: ReadOnlyWords,
    index: usize,
    copy: Arc<AtomicU64>,
}

impl ClaimMirror {
    /// `None` if there is no such claim word.
    pub(super) fn new(claims: ReadOnlyWords, index: usize) -> Option<Self> {
        let copy = Arc::new(AtomicU64::new(claims.load(index)?));
        Some(ClaimMirror { claims, index, copy })
    }

    /// Takes on the shared word's value.
    pub(super) fn refresh(&self) {
        if let Some(value) = self.claims.load(self.index) {
            self.copy.store(value, Ordering::Release);
        }
    }
}

impl Deref for ClaimMirror {
    type Target = AtomicU64;
    fn deref(&self) -> &AtomicU64 {
        &self.copy
    }
}
