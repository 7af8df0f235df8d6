//! The front's way to the worker that counts for its session.
//!
//! A front parses what its client sends, and has a worker, a process of its own, count. The link between them is part of
//! the session: what is asked and not answered is in the front's State Box, what was counted and not acknowledged in the
//! worker's. It is opened by the session's first request to count, and always from the worker's end: the worker's State
//! Box knows of the link before the front's does, so a link that a front was carried on with is one that a worker is
//! carried on with, too.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use backdoor_core::channels::{Channel, ChannelId, SessionPayload};
use backdoor_core::takeover::Ownership;
use backdoor_host::app::Session;
use backdoor_host::serve::{IpcChannel, IpcError, PEER, Received, new_link};

/// Bytes of messages that either end keeps until the other acknowledges them.
pub(super) const ROOM: usize = 256;
/// How long a worker is waited for that is not there: it may be on its way here from another node.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a worker that is there may take to greet.
const GREETING: Duration = Duration::from_millis(200);
/// How often whoever waits for an answer looks whether the session is still its own.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Pause between two attempts to connect.
const RETRY: Duration = Duration::from_millis(1);

/// Why a session can't go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// It is in other hands.
    #[error("the session is in other hands")]
    Lost,
    /// The link can't be used any more, or not in time.
    #[error("the worker can't be asked: {0}")]
    Link(#[from] IpcError),
    /// The answer is none.
    #[error("the worker answered {0} bytes, 8 were expected")]
    Nonsense(usize),
}

/// A session's link to the worker, if it has had one to ask.
#[derive(Debug)]
pub(super) struct Asks {
    worker: PathBuf,
    channel: Option<IpcChannel>,
}

impl Asks {
    /// Of a session that has asked nothing yet, where the worker listens at `worker`.
    pub(super) fn new(worker: PathBuf) -> Self {
        Asks { worker, channel: None }
    }

    /// Of a session that is carried on.
    pub(super) fn resume(worker: PathBuf, payload: &SessionPayload<'_>) -> Self {
        let channel = match payload.channel(PEER) {
            Some(Channel::Ipc(state)) => Some(IpcChannel::resume(&state, ROOM)),
            _ => None,
        };
        Asks { worker, channel }
    }

    /// Asks for one more to be counted. It is sent when that is [committed](Self::committed).
    pub(super) fn ask(&mut self, session: &mut Session) -> Result<(), AskError> {
        let channel = match &mut self.channel {
            Some(channel) => channel,
            none => {
                let mut channel = IpcChannel::new(new_link().map_err(IpcError::from)?, ROOM);
                connect(&mut channel, &self.worker, true, session)?;
                none.insert(channel)
            }
        };
        Ok(channel.push(&1u64.to_le_bytes())?)
    }

    /// Bytes that it takes in a session's State Box.
    pub(super) fn state_bytes() -> usize {
        IpcChannel::state_bytes(ROOM)
    }

    /// What of it belongs into the session's State Box.
    pub(super) fn state(&self) -> Vec<(ChannelId, Channel<'_>)> {
        self.channel.iter().map(IpcChannel::state).collect()
    }

    /// What [`state`](Self::state) told is committed.
    pub(super) fn committed(&mut self) {
        if let Some(channel) = &mut self.channel {
            channel.committed();
            // Whatever hinders it shows when the answer is waited for.
            let _ = channel.flush();
        }
    }

    /// Waits for an answer, and over how many it has counted.
    pub(super) fn answer(&mut self, session: &mut Session) -> Result<u64, AskError> {
        let channel = self.channel.as_mut().ok_or(IpcError::Closed)?;
        loop {
            // Who waits for a worker does not hang itself, and says so again and again: more input may come meanwhile.
            session.idle();
            if !channel.is_connected() {
                connect(channel, &self.worker, false, session)?;
            }
            match channel.receive(Some(LOOK_EVERY)) {
                Ok(Received::Message(answer)) => {
                    session.progress();
                    let count = answer.as_slice().try_into().map_err(|_| AskError::Nonsense(answer.len()))?;
                    return Ok(u64::from_le_bytes(count));
                }
                Ok(Received::Nothing | Received::Disconnected) => {}
                Ok(Received::Bye) => return Err(IpcError::Closed.into()),
                Err(error) if error.may_pass() => {}
                Err(error) => return Err(error.into()),
            }
            if session.ownership() == Ownership::Lost {
                return Err(AskError::Lost);
            }
        }
    }

    /// The session is over, and the worker's end with it.
    pub(super) fn bye(&mut self) {
        if let Some(channel) = &mut self.channel {
            channel.bye();
        }
    }
}

/// Connects, as soon as the worker can be.
fn connect(channel: &mut IpcChannel, worker: &Path, opens: bool, session: &mut Session) -> Result<(), AskError> {
    let until = Instant::now() + PATIENCE;
    loop {
        session.idle();
        match channel.connect(worker, opens, GREETING) {
            Err(error) if error.may_pass() && Instant::now() < until => {}
            result => return Ok(result?),
        }
        if session.ownership() == Ownership::Lost {
            return Err(AskError::Lost);
        }
        std::thread::sleep(RETRY);
    }
}
