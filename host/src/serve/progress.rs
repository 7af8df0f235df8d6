//! What is committed of a connection.

use backdoor_core::channels::{Channel, ChannelId, Output, SessionPayload, TCP_CHANNEL_BYTES, TcpState, encoded_len};

use super::{CLIENT, Retain, ServeError};
use crate::app::Session;

/// How far the connection has come, and what is committed of it.
#[derive(Debug)]
pub(super) struct Progress {
    /// Its output is not looked at: `retained` is.
    state: TcpState<'static>,
    retain: Retain,
    /// Output from `state.acknowledged` to `state.intent`.
    retained: Vec<u8>,
    payload: Vec<u8>,
    /// Commits since it was known how much the client has acknowledged.
    commits_since: u32,
}

/// Output that may be outstanding without asking how much of it is acknowledged: less than a commit notices.
const UNASKED_BYTES: u64 = 256;
/// The same where nothing is retained, so that only the application's memory of what it promised grows: so much output, and
/// so many commits.
const UNASKED_PROMISES: (u64, u32) = (32 << 10, 8);

/// Bytes of State Box that a session takes whose other channels count as the application's.
pub(super) fn state_bytes(retain: Retain, application_bytes: usize) -> usize {
    let most = match retain {
        Retain::Bytes(bytes) => bytes,
        Retain::Regenerated => 0,
    };
    encoded_len(application_bytes, &[]) + TCP_CHANNEL_BYTES + most
}

impl Progress {
    pub(super) fn new(state: &TcpState<'_>, retain: Retain, retained: Vec<u8>) -> Self {
        let state = TcpState { output: Output::Regenerated, ..*state };
        Progress { state, retain, retained, payload: Vec::new(), commits_since: 0 }
    }

    /// How far the connection has come. What is retained is not in it.
    pub(super) fn state(&self) -> &TcpState<'static> {
        &self.state
    }

    /// Whether it is time to ask the kernel how much is acknowledged, before `more` bytes are promised. That makes a state
    /// smaller, and nothing depends on it.
    pub(super) fn should_ask(&mut self, more: usize) -> bool {
        self.commits_since += 1;
        let outstanding = self.state.intent - self.state.acknowledged + more as u64;
        let asks = match self.retain {
            Retain::Bytes(room) => outstanding > UNASKED_BYTES.min(room as u64 / 2),
            Retain::Regenerated => {
                let (bytes, commits) = UNASKED_PROMISES;
                outstanding > bytes || self.commits_since >= commits
            }
        };
        if asks {
            self.commits_since = 0;
        }
        asks
    }

    /// No input comes any more; committed with whatever is next.
    pub(super) fn input_ended(&mut self) {
        self.state.input_ended = true;
    }

    /// Commits that `output` is promised and `consumed` more bytes were acted upon. If that fails, all is as
    /// before, but for what is known to be acknowledged.
    pub(super) fn commit(
        &mut self,
        session: &mut Session,
        application: &[u8],
        others: &[(ChannelId, Channel<'_>)],
        consumed: usize,
        output: &[u8],
        acknowledged: u64,
    ) -> Result<(), ServeError> {
        let (intent, kept) = (self.state.intent, self.retained.len());
        // Never negative: the client acknowledges no more than was promised.
        let known = acknowledged.saturating_sub(self.state.acknowledged);
        if let Retain::Bytes(room) = self.retain {
            let needed = kept - known as usize + output.len();
            if needed > room {
                return Err(ServeError::NoRoom { needed, room });
            }
            if known > 0 {
                self.retained.drain(..known as usize);
            }
            self.retained.extend(output);
        }
        self.state.acknowledged += known;
        self.state.intent += output.len() as u64;
        self.state.consumed += consumed as u64;
        let outcome = self.encode(application, others).and_then(|()| Ok(session.commit(&self.payload)?));
        if let Err(error) = outcome {
            self.state.intent = intent;
            self.state.consumed -= consumed as u64;
            if self.retain != Retain::Regenerated {
                self.retained.truncate(kept - known as usize);
            }
            return Err(error);
        }
        Ok(())
    }

    /// Into the payload.
    fn encode(&mut self, application: &[u8], others: &[(ChannelId, Channel<'_>)]) -> Result<(), ServeError> {
        let output = match self.retain {
            Retain::Bytes(_) => Output::Retained(&self.retained),
            Retain::Regenerated => Output::Regenerated,
        };
        let tcp = TcpState { output, ..self.state };
        let client = [(CLIENT, Channel::Tcp(tcp))];
        if others.is_empty() {
            return Ok(SessionPayload::encode(application, &client, &mut self.payload)?);
        }
        let channels: Vec<_> = client.iter().chain(others).copied().collect();
        Ok(SessionPayload::encode(application, &channels, &mut self.payload)?)
    }
}
