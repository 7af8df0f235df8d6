//! A session at work: requests in, answers out, in an order that makes it recoverable.
//!
//! Input is looked at and left in the socket; what comes of it is committed, with the place in both streams; only then is
//! the input taken out of the socket, and the answer sent. So at any instant whatever is not in the State Box is still in
//! the socket, and whatever a client has seen is in the State Box.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use backdoor_core::state_box::CommitError;
use backdoor_core::takeover::{Doubt, Duty, TakeoverConfig};
use backdoor_host::serve::{ServeError, TcpSession};

use super::serve::{LOOK_AGAIN, Shared};
use super::state::WebState;
use crate::live::two_locks::lock;

/// Most input that is looked at at once.
const INPUT_BYTES: usize = 64 << 10;
/// Stack of a session's thread.
const STACK_BYTES: usize = 256 << 10;

/// A session at work.
pub(super) struct Conversation {
    link: TcpSession,
    state: WebState,
    shared: Arc<Shared>,
    /// Input that was read and not yet acted upon.
    input: Vec<u8>,
    bytes: Vec<u8>,
}

/// The session is in other hands.
#[derive(Debug, thiserror::Error)]
#[error("the session is in other hands")]
struct Lost;

impl Conversation {
    /// Serves the session in a thread of its own, from `state` on.
    pub(super) fn begin(link: TcpSession, state: WebState, shared: Arc<Shared>) -> Result<(), Box<dyn Error>> {
        let mut conversation = Conversation { link, state, shared, input: Vec::new(), bytes: Vec::new() };
        let thread = std::thread::Builder::new().name("session".into()).stack_size(STACK_BYTES);
        // Until its client leaves, or can't be understood, or is another's. Dropping the session says the one, and nothing of
        // the other.
        thread.spawn(move || drop(conversation.serve()))?;
        Ok(())
    }

    fn serve(&mut self) -> Result<(), Box<dyn Error>> {
        let mut buffer = vec![0; INPUT_BYTES];
        loop {
            while self.state.has_more() {
                let promised = self.state.promised();
                self.state.promise_more();
                self.answer(0, promised)?;
            }
            // What was read together with an earlier request may hold another one.
            let promised = self.state.promised();
            let taken = self.state.take(&self.input)?;
            if taken > 0 {
                self.answer(taken, promised)?;
                self.input.drain(..taken);
                continue;
            }
            self.link.idle();
            let length = self.link.read(&mut buffer)?;
            if length == 0 {
                return Ok(());
            }
            self.link.session().progress();
            self.input.extend_from_slice(&buffer[..length]);
        }
    }

    /// Commits the state, `taken` bytes of input further, and then sends what was promised past `promised`.
    fn answer(&mut self, taken: usize, promised: u64) -> Result<(), Box<dyn Error>> {
        if self.shared.stick.load(Ordering::Acquire) {
            self.shared.fails_now();
            loop {
                std::thread::park();
            }
        }
        *lock(&self.shared.locks.requests) += 1;
        self.state.forget(self.link.state().acknowledged);
        let output = self.state.output(promised..self.state.promised())?;
        self.state.to_bytes(&mut self.bytes);
        let mut doubt = Doubt::new(TakeoverConfig::default().patience);
        loop {
            match self.link.commit_and_send(&self.bytes, taken, &output) {
                Err(ServeError::Commit(CommitError::InDoubt { .. })) => {
                    // Advances the counter as long as that is right.
                    if self.link.session().duty(&mut doubt) == Duty::Stop {
                        return Err(Lost.into());
                    }
                    std::thread::sleep(LOOK_AGAIN);
                }
                Err(ServeError::Commit(CommitError::Lost { .. })) => return Err(Lost.into()),
                result => return Ok(result?),
            }
        }
    }
}
