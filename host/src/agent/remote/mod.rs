//! The agent's door for monitors on other machines: memory that a network card serves, and a thread that lets them in.

mod fabric;
#[cfg(test)]
pub(crate) mod fake;
mod server;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use backdoor_core::Nanos;
use backdoor_transports::verbs::DeviceChoice;

use super::elsewhere::{Elsewhere, Served};
use super::memory::NodeMemory;
use super::{AgentError, Stop};
use crate::remote::SetupKey;

pub(super) use fabric::{Card, Fabric};
use server::Server;

/// How an agent serves monitors on other machines. [`RemoteConfig::at`] has a default for everything but address and
/// key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteConfig {
    /// Where to listen for them; they need not come over the network card's own network. Port 0 takes any that is free.
    pub listen: SocketAddr,
    /// Which network card of this machine to use.
    pub device: DeviceChoice,
    /// Who has it may connect.
    pub key: SetupKey,
    /// Most of them at once.
    pub max_monitors: usize,
    /// A monitor whose machine has vanished without a word is given up after about this long, in whole seconds from 3.
    pub vanished_after: Nanos,
}

impl RemoteConfig {
    /// Defaults: the first usable card, 16 monitors, 30 s.
    pub fn at(listen: SocketAddr, key: SetupKey) -> Self {
        let vanished_after = Nanos::from_secs(30);
        RemoteConfig { listen, device: DeviceChoice::default(), key, max_monitors: 16, vanished_after }
    }

    /// The first setting that can't be, and why.
    pub(super) fn check(&self) -> Result<(), String> {
        if !(1..=4096).contains(&self.max_monitors) {
            return Err(format!("max_monitors is {}, must be from 1 to 4096", self.max_monitors));
        }
        let (shortest, longest) = (Nanos::from_secs(3), Nanos::from_secs(24 * 3600));
        if self.vanished_after < shortest || self.vanished_after > longest {
            return Err(format!("vanished_after is {}, must be from {shortest} to {longest}", self.vanished_after));
        }
        Ok(())
    }
}

/// Registers the node's memory and begins to serve.
pub(super) fn serve<F: Fabric>(
    fabric: F,
    config: &RemoteConfig,
    greeting_timeout: Nanos,
    memory: &NodeMemory,
    incarnation: u64,
    (flag, wake): Stop,
) -> Result<Served, AgentError> {
    let listen_error = |source| AgentError::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).map_err(listen_error)?;
    listener.set_nonblocking(true).map_err(listen_error)?;
    let address = listener.local_addr().map_err(listen_error)?;
    let server = Server::new(fabric, config, (address, greeting_timeout), incarnation, memory.for_cards()?)?;
    let server = Arc::new(server);
    let elsewhere: Arc<dyn Elsewhere> = Arc::clone(&server) as _;
    let thread = std::thread::Builder::new().name("agent-remote".into());
    let thread = thread.spawn(move || server.run(&listener, &flag, &wake));
    let thread = thread.map_err(|source| AgentError::Thread { name: "agent-remote".into(), source })?;
    Ok(Served { elsewhere, thread })
}
