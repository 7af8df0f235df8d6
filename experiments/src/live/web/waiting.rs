//! Sessions that wait to speak. The event loop says so for all of them: a thread that woke up for each would take the
//! processors from those that get sessions ready.

use std::sync::{Arc, Mutex, Weak};

use backdoor_core::Nanos;
use backdoor_host::serve::PreparedSession;

use crate::live::two_locks::lock;

/// A session that was got ready, until it speaks.
pub(super) type Ready = Mutex<Option<PreparedSession>>;

/// All that wait.
#[derive(Default)]
pub(super) struct WaitingRoom(Mutex<Vec<Waiting>>);

struct Waiting {
    session: Weak<Ready>,
    every: Nanos,
    /// When it is to be said next.
    next: Nanos,
}

impl WaitingRoom {
    /// Says of this one that it waits, until it speaks or is dropped.
    pub(super) fn enter(&self, session: PreparedSession) -> Arc<Ready> {
        let every = session.config().say_every();
        let session = Arc::new(Mutex::new(Some(session)));
        lock(&self.0).push(Waiting { session: Arc::downgrade(&session), every, next: Nanos::ZERO });
        session
    }

    /// Says so of all of whom it is time to say so.
    pub(super) fn say(&self, now: Nanos) {
        lock(&self.0).retain_mut(|waiting| {
            let Some(session) = waiting.session.upgrade() else { return false };
            let mut ready = lock(&session);
            let Some(session) = &mut *ready else { return false };
            if now >= waiting.next {
                session.waits();
                waiting.next = now + waiting.every;
            }
            true
        });
    }
}
