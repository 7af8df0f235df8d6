//! How a monitor reaches the node of an experiment.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::parts::Ready;

/// What the monitor reads through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum TransportKind {
    /// Memory shared between processes.
    #[default]
    Shm,
}

impl TransportKind {
    /// The name used on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            TransportKind::Shm => "shm",
        }
    }

    /// Where a monitor finds the node of this agent, which runs on this machine or on another. Fails with a sentence
    /// for the user.
    pub(super) fn address(self, agent: &Ready, same_machine: bool) -> Result<NodeAddress, String> {
        match self {
            TransportKind::Shm if same_machine => Ok(NodeAddress::Local(agent.socket.clone().into())),
            TransportKind::Shm => Err("shared memory does not reach another machine: the stage is on one, so choose \
                                       another --transport"
                .into()),
        }
    }
}

/// Where a monitor finds a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeAddress {
    /// The socket of an agent on the same machine.
    Local(PathBuf),
}

impl NodeAddress {
    /// The agent's socket.
    pub(super) fn into_socket(self) -> PathBuf {
        match self {
            NodeAddress::Local(socket) => socket,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_stays_on_its_machine() {
        let agent = Ready { socket: "/run/node.sock".into() };
        let here = TransportKind::Shm.address(&agent, true).unwrap();
        assert_eq!(here.into_socket(), PathBuf::from("/run/node.sock"));
        assert!(TransportKind::Shm.address(&agent, false).unwrap_err().contains("does not reach another machine"));
    }
}
