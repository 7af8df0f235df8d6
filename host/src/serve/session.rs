//! The owner's end.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

use backdoor_core::channels::{Channel, ChannelId, Output, TcpState};
use backdoor_core::state_box::CommitError;
use backdoor_core::takeover::Ownership;

use super::intake::Intake;
use super::progress::{Progress, state_bytes};
use super::waiting::Wait;
use super::{ServeError, SessionConfig};
use crate::app::{App, Session};
use crate::tcp;

/// A session, its connection, and how far the two have come.
///
/// Dropped, it closes the connection as usual, and in silence if the session is another's now. While somebody claims the
/// session, the agent sees to it that the client hears of the end only if the claim is given back.
#[derive(Debug)]
pub struct TcpSession {
    pub(super) stream: TcpStream,
    pub(super) session: Session,
    pub(super) config: SessionConfig,
    pub(super) progress: Progress,
    pub(super) intake: Intake,
    /// Offset after the last byte of input, if it is known that none follows.
    pub(super) input_end: Option<u64>,
}

impl TcpSession {
    /// Opens a session for a connection that was just accepted, and lets the agent keep a duplicate of it: so the queues
    /// can be read when this process is dead, and its death does not end the connection. What is sent over it is sent at
    /// once (`TCP_NODELAY`).
    pub fn accept(app: &App, stream: TcpStream, name: &str, config: SessionConfig) -> Result<Self, ServeError> {
        let state = TcpState::new(tcp::birth(&stream)?, Output::Regenerated);
        let mut progress = Progress::new(&state, config.retain, Vec::new());
        let state_bytes = state_bytes(config.retain, config.application_bytes);
        let mut session = app.open_session_with(&stream, name, config.deadline, state_bytes, config.input_bytes)?;
        let intake = Intake::new(session.input(), &state)?;
        progress.commit(&mut session, b"", &[], 0, b"", 0)?;
        stream.set_nodelay(true).map_err(ServeError::Client)?;
        Ok(TcpSession { stream, session, config, progress, intake, input_end: None })
    }

    /// Reads input that comes after all that was read before; 0 at its end, and when the session has moved. The node keeps
    /// it until it is [acted upon](Self::commit_and_send).
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if the stream doesn't wait, or no longer. [`io::ErrorKind::StorageFull`] if
    /// [`SessionConfig::input_bytes`] were read and none of them is acted upon.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.input_end == Some(self.intake.read_until()) || into.is_empty() {
            return Ok(0);
        }
        let read = self.intake.read(&self.stream, into);
        if let Ok(0) = read {
            self.progress.input_ended();
        }
        read
    }

    /// Commits the application's state with the promise of `output`, and that the next `consumed` bytes of what was read
    /// are acted upon; then sends `output`. Waits while somebody claims the session, and while the connection's buffers are
    /// full, and [says so](super#idle).
    ///
    /// # Errors
    /// [`ServeError::Commit`], [`ServeError::NotRead`] and [`ServeError::NoRoom`]: nothing was committed nor sent.
    /// [`ServeError::Client`]: it is committed, and the client is gone. [`ServeError::Lost`]: the session is another's; it
    /// may have been committed before.
    pub fn commit_and_send(&mut self, application: &[u8], consumed: usize, output: &[u8]) -> Result<(), ServeError> {
        self.commit_and_send_with(application, &[], consumed, output)
    }

    /// The same for a session with channels to other processes: all of them, by ascending id. What isn't given here is no
    /// longer part of the session.
    pub fn commit_and_send_with(
        &mut self,
        application: &[u8],
        others: &[(ChannelId, Channel<'_>)],
        consumed: usize,
        output: &[u8],
    ) -> Result<(), ServeError> {
        let read = self.intake.read_ahead();
        if consumed > read {
            return Err(ServeError::NotRead { consumed, read });
        }
        let acknowledged = match self.progress.should_ask(output.len()) {
            true => self.acknowledged()?,
            false => self.progress.state().acknowledged,
        };
        let mut wait = Wait::new(&self.config);
        loop {
            match self.progress.commit(&mut self.session, application, others, consumed, output, acknowledged) {
                Err(ServeError::Commit(CommitError::InDoubt { .. })) => {
                    wait.is_mine(&mut self.session)?;
                }
                result => break result?,
            }
        }
        self.session.progress();
        self.intake.acted_upon(consumed);
        self.send(output)
    }

    /// Output that the client has acknowledged, all in all.
    pub(super) fn acknowledged(&self) -> Result<u64, ServeError> {
        let outstanding = tcp::unacknowledged(&self.stream).map_err(ServeError::Client)?;
        Ok(self.progress.state().intent.saturating_sub(u64::from(outstanding)))
    }

    /// It waits for its client's input: silence from here on is expected, [unless there is some](super#idle).
    pub fn idle(&mut self) {
        self.session.idle();
    }

    /// What it was opened with.
    pub fn config(&self) -> &SessionConfig {
        &self.config
    }

    /// How far the connection has come. What is retained is not in it.
    pub fn state(&self) -> &TcpState<'static> {
        self.progress.state()
    }

    /// The session.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// The connection. What is read or written there past this session is not carried on.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

impl AsFd for TcpSession {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Drop for TcpSession {
    fn drop(&mut self) {
        if self.session.ownership() == Ownership::Lost {
            let _ = tcp::silence(&self.stream);
        }
    }
}
