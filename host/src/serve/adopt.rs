//! The heir's end, in two steps: a connection that is made and silent, in a State Box of the heir's own, so that it can be
//! taken over in turn; and one that speaks.

use std::ops::Range;

use backdoor_core::channels::{Channel, Input, Output, Resume, SessionPayload, TcpState, encoded_len, resume};

use super::intake::Intake;
use super::progress::{Progress, state_bytes};
use super::{CLIENT, Retain, ServeError, SessionConfig, TcpSession};
use crate::app::{App, Session};
use crate::tcp::{self, Queues, SilentSocket};

/// A session that was carried on up to the point at which its connection speaks. Dropped, it never does.
///
/// All that could still fail is done. Its holder [says](Self::waits) that it waits until it speaks.
#[derive(Debug)]
pub struct PreparedSession {
    session: Session,
    config: SessionConfig,
    socket: SilentSocket,
    progress: Progress,
    intake: Intake,
    input_known: bool,
    input_end: Option<u64>,
}

impl TcpSession {
    /// Prepares to carry on the session whose State Box held `payload`, with the `queues` of its socket if they could be
    /// had. `replay` computes output that is needed again, by offsets, if the session didn't retain it.
    ///
    /// The service's address must be here. The old owner must be cut off, and its queues read after that. This node's agent
    /// keeps the new connection from here on.
    pub fn adopt(
        app: &App,
        payload: &SessionPayload<'_>,
        queues: Option<&Queues>,
        name: &str,
        config: SessionConfig,
        replay: impl FnOnce(Range<u64>) -> Vec<u8>,
    ) -> Result<PreparedSession, ServeError> {
        let Some(Channel::Tcp(state)) = payload.channel(CLIENT) else { return Err(ServeError::NoConnection) };
        let resume = resume(&state, queues.map(Queues::kernel), tcp::wall_clock())?;
        let output = match state.output {
            // Checked by the payload: all from `acknowledged` on is there, and `resume` begins no earlier.
            Output::Retained(bytes) => {
                let from = bytes.len() as u64 - (resume.intent - resume.replay_from);
                bytes[from as usize..].to_vec()
            }
            Output::Regenerated => replay(resume.replay()),
        };
        let socket = tcp::recreate(&resume, &output)?;
        let Resume { birth, replay_from, consumed, input, .. } = resume;
        let state = TcpState { birth, acknowledged: replay_from, ..state };
        let (input_known, input_end) = match input {
            Input::Exact { refill, ended } => (true, ended.then_some(consumed + refill.len() as u64)),
            Input::UnreadUnknown => (false, None),
        };
        let state = TcpState { input_ended: input_end.is_some(), ..state };
        let retained = if config.retain == Retain::Regenerated { Vec::new() } else { output };
        let mut progress = Progress::new(&state, config.retain, retained);
        let others: Vec<_> = payload.channels().filter(|(id, _)| *id != CLIENT).collect();
        let needed = encoded_len(payload.application().len(), &others) - encoded_len(0, &[]);
        let state_bytes = state_bytes(config.retain, config.application_bytes.max(needed));
        let mut session = app.open_session_with(&socket, name, config.deadline, state_bytes, config.input_bytes)?;
        let intake = Intake::new(session.input(), &state)?;
        progress.commit(&mut session, payload.application(), &others, 0, b"", replay_from)?;
        Ok(PreparedSession { session, config, socket, progress, intake, input_known, input_end })
    }
}

impl PreparedSession {
    /// Whether all input is here that the old owner's kernel had acknowledged. If not, and there was any, then the client
    /// will wait for ever: see [`Input::UnreadUnknown`].
    pub fn input_known(&self) -> bool {
        self.input_known
    }

    /// What it is opened with.
    pub fn config(&self) -> &SessionConfig {
        &self.config
    }

    /// The session in its new State Box.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Says that it waits to speak: input may lie in its socket already, and is [held against](super#idle) who is silent. To
    /// be called at intervals of [`SessionConfig::say_every`].
    pub fn waits(&mut self) {
        self.session.idle();
    }

    /// The session is this node's: its connection speaks.
    ///
    /// # Errors
    /// [`ServeError::Tcp`]: the client was told by a reset, for it would wait for ever.
    pub fn speak(self) -> Result<TcpSession, ServeError> {
        let PreparedSession { session, config, socket, progress, intake, input_end, .. } = self;
        Ok(TcpSession { stream: socket.speak()?, session, config, progress, intake, input_end })
    }
}
