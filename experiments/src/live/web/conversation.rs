//! A session at work: requests in, answers out, in an order that makes it recoverable.
//!
//! Input is looked at and left in the socket; what comes of it is committed, with the place in both streams; only then is
//! the input taken out of the socket, and the answer sent. So at any instant whatever is not in the State Box is still in
//! the socket, and whatever a client has seen is in the State Box.

use std::error::Error;
use std::sync::Arc;

use backdoor_core::state_box::CommitError;
use backdoor_core::takeover::{Doubt, Duty, Ownership, TakeoverConfig};
use backdoor_host::serve::{ServeError, TcpSession};

use super::asks::{AskError, Asks};
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
    /// The way to the worker that counts, if one does.
    asks: Option<Asks>,
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
    pub(super) fn begin(
        link: TcpSession,
        mut state: WebState,
        asks: Option<Asks>,
        shared: Arc<Shared>,
    ) -> Result<(), Box<dyn Error>> {
        if asks.is_some() {
            state.ask_a_worker();
        }
        let mut conversation = Conversation { link, state, asks, shared, input: Vec::new(), bytes: Vec::new() };
        let thread = std::thread::Builder::new().name("session".into()).stack_size(STACK_BYTES);
        // Until its client leaves, or can't be understood, or is another's. Dropping the session says the one, and nothing of
        // the other.
        thread.spawn(move || {
            match conversation.serve().map_err(|error| error.downcast::<AskError>()) {
                Err(Ok(error)) if !matches!(*error, AskError::Lost) => {
                    crate::say::err(&format!("a session ends: {error}"));
                }
                _ => {}
            }
            conversation.leave();
        })?;
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
                if let Some(asks) = self.asks.as_mut().filter(|_| self.state.is_asking()) {
                    asks.ask(self.link.session())?;
                }
                self.answer(taken, promised)?;
                self.input.drain(..taken);
                continue;
            }
            if self.state.is_asking() {
                let asks = self.asks.as_mut().ok_or("a worker was asked, and there is none here")?;
                self.state.counted(asks.answer(self.link.session())?);
                self.answer(0, promised)?;
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
        if self.shared.is_to_stick() {
            self.shared.sticks();
        }
        *lock(&self.shared.locks.requests) += 1;
        self.state.forget(self.link.state().acknowledged);
        let output = self.state.output(promised..self.state.promised())?;
        self.state.to_bytes(&mut self.bytes);
        let mut doubt = Doubt::new(TakeoverConfig::default().patience);
        loop {
            let others = self.asks.as_ref().map(Asks::state).unwrap_or_default();
            match self.link.commit_and_send_with(&self.bytes, &others, taken, &output) {
                Err(ServeError::Commit(CommitError::InDoubt { .. })) => {
                    // Advances the counter as long as that is right.
                    if self.link.session().duty(&mut doubt) == Duty::Stop {
                        return Err(Lost.into());
                    }
                    std::thread::sleep(LOOK_AGAIN);
                }
                Err(ServeError::Commit(CommitError::Lost { .. })) => return Err(Lost.into()),
                result => {
                    if let Some(asks) = self.asks.as_mut().filter(|_| result.is_ok()) {
                        asks.committed();
                    }
                    return Ok(result?);
                }
            }
        }
    }

    /// Its client is gone, or it is another's.
    fn leave(&mut self) {
        if self.link.session().ownership() == Ownership::Mine
            && let Some(asks) = &mut self.asks
        {
            asks.bye();
        }
    }
}
