//! A session that is served to another process.

use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_core::channels::{Channel, LinkId, SessionPayload, encoded_len};

use super::{Greeted, IpcChannel, PEER, Received};
use crate::app::{App, Session};
use crate::serve::ServeError;

/// What a session is opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpcConfig {
    /// Silence longer than this while active is a failure.
    pub deadline: Nanos,
    /// That of the cluster's takers: how long it shows life while somebody claims the session.
    pub patience: Nanos,
    /// Largest state of the application, in bytes.
    pub application_bytes: usize,
    /// Bytes of messages that are kept until the other process acknowledges them, each with 4 bytes for its length.
    pub room: usize,
}

/// A session without a client of its own: what it is asked, and answers, goes over a link.
#[derive(Debug)]
pub struct IpcSession {
    session: Session,
    channel: IpcChannel,
    patience: Nanos,
    payload: Vec<u8>,
}

impl IpcSession {
    /// Opens a session for a link that is new. It is in its State Box before the other end hears of it.
    pub fn open(app: &App, name: &str, link: LinkId, config: IpcConfig) -> Result<Self, ServeError> {
        Self::with(app, name, IpcChannel::new(link, config.room), b"", config)
    }

    /// Carries on the session whose State Box held `payload`, in a State Box of its own. It says nothing until it is
    /// [answers](Self::answer) or is [connected](IpcChannel::connect), which is to wait until it is this node's.
    pub fn adopt(app: &App, payload: &SessionPayload<'_>, name: &str, config: IpcConfig) -> Result<Self, ServeError> {
        let Some(Channel::Ipc(state)) = payload.channel(PEER) else { return Err(ServeError::NoLink) };
        let room = config.room.max(state.unacknowledged.iter().map(|(_, message)| 4 + message.len()).sum());
        let application_bytes = config.application_bytes.max(payload.application().len());
        let config = IpcConfig { application_bytes, room, ..config };
        Self::with(app, name, IpcChannel::resume(&state, room), payload.application(), config)
    }

    fn with(
        app: &App,
        name: &str,
        channel: IpcChannel,
        application: &[u8],
        config: IpcConfig,
    ) -> Result<Self, ServeError> {
        let state_bytes = encoded_len(config.application_bytes, &[]) + IpcChannel::state_bytes(config.room);
        let session = app.open_session(name, config.deadline, state_bytes)?;
        let mut session = IpcSession { session, channel, patience: config.patience, payload: Vec::new() };
        session.commit(application)?;
        session.session.idle();
        Ok(session)
    }

    /// Goes on over a connection that the other end began; see [`IpcChannel::answer`]. The agent watches what waits in it, so
    /// that the session can't be idle while something does.
    pub fn answer(&mut self, greeted: Greeted) -> Result<(), ServeError> {
        self.channel.answer(greeted)?;
        // Where the agent has died, or has no room, what exists is served all the same, and unwatched.
        let _ = self.session.watch_queue(self.channel.socket()?);
        Ok(())
    }

    /// What comes next; see [`IpcChannel::receive`]. While it waits, the session is idle; a message is progress.
    pub fn receive(&mut self, patience: Option<Duration>) -> Result<Received, ServeError> {
        self.session.idle();
        let received = self.channel.receive(patience)?;
        if matches!(received, Received::Message(_)) {
            self.session.progress();
        }
        Ok(received)
    }

    /// Commits the application's state with what was received and what is to be sent; then sends it, and acknowledges.
    /// Waits while somebody claims the session.
    ///
    /// # Errors
    /// [`ServeError::Commit`]: nothing was committed nor sent.
    pub fn commit_and_send(&mut self, application: &[u8]) -> Result<(), ServeError> {
        self.commit(application)?;
        Ok(self.channel.flush()?)
    }

    /// The same, but sends nothing yet: the next [`receive`](Self::receive) does, or [`IpcChannel::flush`].
    pub fn commit(&mut self, application: &[u8]) -> Result<(), ServeError> {
        SessionPayload::encode(application, &[self.channel.state()], &mut self.payload)?;
        self.session.commit_or_wait(&self.payload, self.patience)?;
        self.channel.committed();
        self.session.progress();
        Ok(())
    }

    /// Its end of the link. What is pushed there is sent by the next commit.
    pub fn channel(&mut self) -> &mut IpcChannel {
        &mut self.channel
    }

    /// The session.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }
}
