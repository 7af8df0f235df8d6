//! What a service's threads share, and how it makes them wait for each other for ever.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Two things with a lock each, as any service has them. In good order `requests` is taken first.
#[derive(Debug, Default)]
pub(in crate::live) struct TwoLocks {
    pub(in crate::live) requests: Mutex<u64>,
    pub(in crate::live) journal: Mutex<u64>,
    partner_holds_journal: AtomicBool,
}

impl TwoLocks {
    /// Waits for a lock that a thread holds which waits for a lock held here. `begins` is called right before.
    pub(in crate::live) fn deadlock(self: &Arc<Self>, begins: impl FnOnce()) {
        let requests = lock(&self.requests);
        let partner = Arc::clone(self);
        std::thread::spawn(move || {
            let journal = lock(&partner.journal);
            partner.partner_holds_journal.store(true, Ordering::Release);
            *lock(&partner.requests) += *journal;
        });
        while !self.partner_holds_journal.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        begins();
        *lock(&self.journal) = *requests;
    }
}

/// A lock whose data are whole, whoever panicked with it.
pub(in crate::live) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
