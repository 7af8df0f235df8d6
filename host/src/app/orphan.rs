//! Sessions that a dead process of the same application left, taken up one by one.

use std::os::fd::OwnedFd;

use backdoor_core::Nanos;

use super::{App, AppError, Session};
use crate::clock;
use crate::protocol::{Answer, Reason, Request};
use crate::wire::ConnectionError;

/// How long a process that is dying is waited for. Its descriptors are closed some microseconds before it has ended.
const PATIENCE: Nanos = Nanos::from_secs(1);
const ASK_AGAIN: Nanos = Nanos::from_micros(500);

/// A session that was served by a process that has ended, and is this one's now. Dropped, it ends, and its client is told.
#[derive(Debug)]
pub struct Orphan {
    session: Session,
    payload: Vec<u8>,
    socket: OwnedFd,
}

impl Orphan {
    /// What was committed last; empty if nothing was.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn into_parts(self) -> (Session, Vec<u8>, OwnedFd) {
        (self.session, self.payload, self.socket)
    }
}

/// What came of asking for a session that was left.
#[derive(Debug)]
pub enum Left {
    /// This one is the asking process' now.
    Session(Box<Orphan>),
    /// There is none (any more).
    Nothing {
        /// Sessions that were left, and are not handed on: they are claimed, have no connection, or their process lives.
        withheld: u64,
    },
}

impl App {
    /// Takes up the next session that a dead process of this application's name left: the agent has kept its connection, and
    /// it goes on in its State Box. For a service that was started again; to be called until there is none any more. Whoever
    /// restarts a process that hangs has ended it before.
    ///
    /// A session that somebody has claimed is withheld: it is about to go on elsewhere, or may be asked for later.
    ///
    /// # Errors
    /// The agent could not be asked. [`AppError::StateBox`]: that session's state is damaged; it has ended, the next one can
    /// be asked for.
    pub fn adopt_orphan(&self) -> Result<Left, AppError> {
        let link = &self.shared.link;
        let request = Request::AdoptOrphan { application: self.shared.application.0 };
        let give_up = clock::now() + PATIENCE;
        let (answer, descriptors) = loop {
            match link.request(&request) {
                Err(ConnectionError::Refused { reason: Reason::NotYet, .. }) if clock::now() < give_up => {
                    clock::sleep_until(clock::now() + ASK_AGAIN);
                }
                other => break other?,
            }
        };
        if let Answer::NoOrphan { withheld } = answer {
            return Ok(Left::Nothing { withheld });
        }
        let [socket] = <[_; 1]>::try_from(descriptors)
            .map_err(|_| link.no_agent("it handed a session on without its connection".into()))?;
        let session = self.session(&answer)?;
        let payload = session.committed()?;
        Ok(Left::Session(Box::new(Orphan { session, payload, socket })))
    }
}
