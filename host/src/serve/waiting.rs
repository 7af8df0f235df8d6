//! Waiting for a client, and what a session says of itself meanwhile; why, is in the [guide](super#idle).

use std::io;
use std::os::fd::AsFd;

use backdoor_core::Nanos;
use backdoor_core::takeover::{Doubt, Duty};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::{ServeError, SessionConfig, TcpSession};
use crate::app::{LOOK_AGAIN, Session};
use crate::{clock, tcp};

/// Time between two looks at how much a client has acknowledged: no event tells.
const ACKNOWLEDGED_AGAIN: Nanos = Nanos::from_millis(1);

/// One wait for a client, or for whoever claims the session.
#[derive(Debug)]
pub(super) struct Wait {
    doubt: Doubt,
    /// The longest that nothing is said.
    at_most: Nanos,
}

impl Wait {
    pub(super) fn new(config: &SessionConfig) -> Self {
        Wait { doubt: Doubt::new(config.patience), at_most: config.say_every() }
    }

    /// Whether what others can see may be done now, or an error if never again. While somebody claims the session it may
    /// not: this then shows life as long as that is right, and waits a moment.
    #[inline]
    pub(super) fn is_mine(&mut self, session: &mut Session) -> Result<bool, ServeError> {
        match session.duty(&mut self.doubt) {
            Duty::Serve => Ok(true),
            Duty::ShowLife | Duty::FallSilent => {
                clock::sleep_until(clock::now() + self.at_most.min(LOOK_AGAIN));
                Ok(false)
            }
            Duty::Stop => Err(ServeError::Lost),
        }
    }

    /// For a session that is its owner's: says that it waits, and waits until one of `events` or an error happens to the
    /// connection. Answers what has happened, nothing if it was time to say so again.
    fn for_client(&self, session: &mut Session, stream: impl AsFd, events: PollFlags) -> Result<PollFlags, ServeError> {
        session.idle();
        let at_most = if events.is_empty() { self.at_most.min(ACKNOWLEDGED_AGAIN) } else { self.at_most };
        let mut polled = [PollFd::new(&stream, events)];
        match rustix::event::poll(&mut polled, Some(&clock::timespec(at_most))) {
            Ok(_) => Ok(polled[0].revents()),
            Err(Errno::INTR) => Ok(PollFlags::empty()),
            Err(errno) => Err(ServeError::Client(errno.into())),
        }
    }
}

impl TcpSession {
    /// Sends what was promised, as the client takes it.
    pub(super) fn send(&mut self, mut output: &[u8]) -> Result<(), ServeError> {
        let mut wait = Wait::new(&self.config);
        while !output.is_empty() {
            if !wait.is_mine(&mut self.session)? {
                continue;
            }
            match tcp::send_now(self.stream.as_fd(), output, SendFlags::empty()) {
                Ok(sent) => {
                    self.session.progress();
                    output = &output[sent..];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait.for_client(&mut self.session, &self.stream, PollFlags::OUT)?;
                }
                Err(error) => return Err(ServeError::Client(error)),
            }
        }
        Ok(())
    }

    /// Waits until the client has acknowledged all output before byte `until`, or all that was promised. For a service whose
    /// State Box has [no room](ServeError::NoRoom) for what comes next.
    ///
    /// # Errors
    /// [`ServeError::Client`], [`ServeError::Lost`].
    pub fn wait_until_acknowledged(&mut self, until: u64) -> Result<(), ServeError> {
        let mut wait = Wait::new(&self.config);
        while self.acknowledged()? < until.min(self.progress.state().intent) {
            if !wait.is_mine(&mut self.session)? {
                continue;
            }
            let happened = wait.for_client(&mut self.session, &self.stream, PollFlags::empty())?;
            if happened.intersects(PollFlags::ERR | PollFlags::HUP) {
                let why = self.stream.take_error().map_err(ServeError::Client)?;
                return Err(ServeError::Client(why.unwrap_or(io::ErrorKind::ConnectionAborted.into())));
            }
        }
        Ok(())
    }
}
