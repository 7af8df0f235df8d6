//! The agent's process: an agent like that of `backdoor node`, in a directory that goes with it.

use std::error::Error;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_host::agent::{Agent, AgentConfig};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::PartError;
use crate::live::reach::Offer;

/// What the agent's process says once it serves.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Where its socket is.
    pub socket: String,
    /// What other machines need, if it serves them.
    pub remote: Option<RemoteReady>,
}

/// What it takes to reach an agent through a network card.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RemoteReady {
    /// Where it listens.
    pub port: u16,
    /// The contents of its key file.
    pub key: String,
}

/// How often the agent looks at the sockets that it watches.
pub const QUEUE_PERIOD: Nanos = Nanos::from_millis(2);

/// What its socket is called, in a directory that other sockets may share.
const SOCKET_NAME: &str = "node.sock";

/// A new directory as each agent has one.
fn directory() -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("backdoor-live-").tempdir()
}

/// Whether there can be an agent.
pub(super) fn check_place() -> Result<(), PartError> {
    check_place_for_sockets(SOCKET_NAME)
}

/// Whether there can be a socket of that name beside an agent's.
///
/// # Errors
/// [`PartError::NoSocket`].
pub(in crate::live) fn check_place_for_sockets(longest: &str) -> Result<(), PartError> {
    let parent = std::env::temp_dir();
    let no = |error: io::Error| {
        let why = match error.kind() {
            io::ErrorKind::InvalidInput => "its path would have more than 107 bytes".into(),
            _ => crate::plain(&error),
        };
        PartError::NoSocket { directory: parent.display().to_string(), why }
    };
    let directory = directory().map_err(no)?;
    UnixListener::bind(directory.path().join(longest)).map(drop).map_err(no)
}

/// What it has room for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) capacity: usize,
    pub(super) state_words: usize,
    pub(super) queues: usize,
}

pub(super) fn play(room: Room, os_deadline: Nanos, retain: Nanos, offer: Option<&Offer>) -> Result<(), Box<dyn Error>> {
    // First, so that the end of the parent is noticed from here on, and what is made below is removed.
    let gone = super::parent_gone();
    let directory = directory()?;
    let mut config = AgentConfig::at(directory.path().join(SOCKET_NAME));
    config.capacity = room.capacity;
    config.claims = room.capacity;
    config.state_words = room.state_words;
    config.queues = room.queues;
    config.queue_period = QUEUE_PERIOD;
    config.os_deadline = os_deadline;
    config.retain = retain;
    let socket = config.socket.to_string_lossy().into_owned();
    let key = match offer {
        Some(offer) => Some(serve_cards(&mut config, offer, directory.path())?),
        None => None,
    };
    let agent = Agent::start(config)?;
    let remote = agent.remote_address().zip(key);
    super::tell(&Ready { socket, remote: remote.map(|(address, key)| RemoteReady { port: address.port(), key }) })?;
    while !gone.load(Ordering::Acquire) && agent.is_running() {
        std::thread::sleep(Duration::from_millis(5));
    }
    // The agent removes its socket, then the directory is removed.
    agent.stop();
    directory.close()?;
    Ok(())
}

/// Has the agent serve network cards, under a key of its own in `directory`. Answers the key's text.
#[cfg(feature = "verbs")]
fn serve_cards(config: &mut AgentConfig, offer: &Offer, directory: &Path) -> Result<String, Box<dyn Error>> {
    use backdoor_host::agent::RemoteConfig;
    use backdoor_host::remote::SetupKey;

    let path = directory.join("key");
    let remote = RemoteConfig::at((offer.listen, 0).into(), SetupKey::load_or_create(&path)?);
    config.remote = Some(RemoteConfig { device: offer.card.to_choice(), ..remote });
    Ok(std::fs::read_to_string(path)?)
}

#[cfg(not(feature = "verbs"))]
fn serve_cards(_: &mut AgentConfig, _: &Offer, _: &Path) -> Result<String, Box<dyn Error>> {
    Err(crate::live::reach::WITHOUT_VERBS.into())
}
