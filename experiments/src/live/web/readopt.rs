//! A process of the service that was started in a dead one's place goes on with the sessions that are left.

use std::error::Error;
use std::sync::Arc;

use backdoor_core::channels::SessionPayload;
use backdoor_host::app::{AppError, Left, Orphan};
use backdoor_host::serve::TcpSession;

use super::conversation::Conversation;
use super::serve::Shared;
use super::state::WebState;

/// How many sessions there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Readopted {
    /// They go on.
    pub(super) sessions: u64,
    /// They could not go on, and have ended.
    pub(super) lost: u64,
    /// They are not this process' to go on with.
    pub(super) withheld: u64,
}

/// Goes on with all sessions that can be had, each in a thread of its own.
pub(super) fn readopt(shared: &Arc<Shared>) -> Result<Readopted, AppError> {
    let mut readopted = Readopted::default();
    loop {
        let begun = match shared.app.adopt_orphan() {
            Ok(Left::Nothing { withheld }) => return Ok(Readopted { withheld, ..readopted }),
            Ok(Left::Session(orphan)) => begin(*orphan, shared),
            Err(error @ AppError::StateBox(_)) => Err(error.into()),
            Err(error) => return Err(error),
        };
        match begun {
            Ok(()) => readopted.sessions += 1,
            Err(error) => {
                crate::say::err(&format!("a session can't go on: {error}"));
                readopted.lost += 1;
            }
        }
    }
}

fn begin(orphan: Orphan, shared: &Arc<Shared>) -> Result<(), Box<dyn Error>> {
    let state = WebState::from_bytes(SessionPayload::decode(orphan.payload())?.application())?;
    let session = TcpSession::readopt(orphan, shared.config(), |range| state.replay(range))?;
    Ok(Conversation::go_on(session, state, Arc::clone(shared))?)
}
