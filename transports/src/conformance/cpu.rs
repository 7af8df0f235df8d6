//! What the node's processor does while the suite reads: given by name, so that a process on another machine can do it.

use std::ops::Deref;

use backdoor_core::state_box::StateBox;
use backdoor_core::words::{AtomicU64, Ordering};

/// Session number of [`CpuWork::CommitStates`].
pub(super) const SESSION: u64 = 77;

/// Work of the node's processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuWork {
    /// The region is a State Box; version after version is committed, each payload full of one byte: its sequence
    /// number, modulo 256.
    CommitStates,
    /// Every word is stored anew, its two halves equal.
    DoubledHalves,
}

impl CpuWork {
    /// Prepares the memory of a region and gives the work's next bit, to be called over and over.
    ///
    /// # Panics
    /// If the region is too short for a State Box.
    pub fn start<M>(self, memory: M) -> Box<dyn FnMut() + Send>
    where
        M: Deref<Target = [AtomicU64]> + Send + 'static,
    {
        match self {
            CpuWork::CommitStates => {
                let claim = Box::new(AtomicU64::new(0));
                let mut state_box = StateBox::format(memory, claim, SESSION, 1).expect("the region holds a State Box");
                let mut payload = vec![0; state_box.capacity()];
                Box::new(move || {
                    payload.fill((state_box.sequence() + 1) as u8);
                    state_box.commit(&payload).expect("nobody claims the session");
                })
            }
            CpuWork::DoubledHalves => {
                let mut round = 0u64;
                Box::new(move || {
                    round = (round + 1) % (1 << 32);
                    memory.iter().for_each(|word| word.store(round << 32 | round, Ordering::Relaxed));
                })
            }
        }
    }
}
