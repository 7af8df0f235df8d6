//! The agent's process: an agent like that of `backdoor node`, in a directory that goes with it.

use std::error::Error;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_host::agent::{Agent, AgentConfig};
use serde::{Deserialize, Serialize};

/// What the agent's process says once it serves.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Where its socket is.
    pub socket: String,
}

pub(super) fn play(
    capacity: usize,
    state_words: usize,
    os_deadline: Nanos,
    retain: Nanos,
) -> Result<(), Box<dyn Error>> {
    // First, so that the end of the parent is noticed from here on, and what is made below is removed.
    let gone = super::parent_gone();
    let directory = tempfile::Builder::new().prefix("backdoor-live-").tempdir()?;
    let mut config = AgentConfig::at(directory.path().join("node.sock"));
    config.capacity = capacity;
    config.claims = capacity;
    config.state_words = state_words;
    config.os_deadline = os_deadline;
    config.retain = retain;
    let socket = config.socket.to_string_lossy().into_owned();
    let agent = Agent::start(config)?;
    super::tell(&Ready { socket })?;
    while !gone.load(Ordering::Acquire) && agent.is_running() {
        std::thread::sleep(Duration::from_millis(5));
    }
    // The agent removes its socket, then the directory is removed.
    agent.stop();
    directory.close()?;
    Ok(())
}
