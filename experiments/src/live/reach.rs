//! How a monitor reaches a node, in the words of command lines and of the parts of an experiment.
//!
//! The same in every build; one without verbs says so when it is to use them.

use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;

use backdoor_core::Nanos;
use backdoor_host::attach;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::parts::Ready;

/// What is said to whoever asks for verbs in a build that has none.
pub const WITHOUT_VERBS: &str =
    "this program was built without verbs; build it with: cargo build --release --features verbs";

/// Whether this program can use network cards.
pub const fn built_with_verbs() -> bool {
    cfg!(feature = "verbs")
}

/// What a monitor reads through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransportKind {
    /// Memory shared between processes of one machine.
    #[default]
    Shm,
    /// A network card: InfiniBand or RoCE.
    Verbs,
}

impl TransportKind {
    /// The name used on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            TransportKind::Shm => "shm",
            TransportKind::Verbs => "verbs",
        }
    }
}

/// Which network card of a machine to use, and how long it tries. What is left open is found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
pub struct Card {
    /// The RDMA device of this machine, such as mlx5_0. [default: the first with an active port]
    #[arg(long, value_name = "NAME", help_heading = "RDMA")]
    pub device: Option<String>,
    /// The device's port, from 1. [default: the first that is active]
    #[arg(long, value_name = "N", help_heading = "RDMA")]
    pub port: Option<u8>,
    /// Index of the port's global identifier. [default: chosen by type: RoCE v2, IPv4 before IPv6]
    #[arg(long, value_name = "N", help_heading = "RDMA")]
    pub gid_index: Option<u32>,
}

/// How long a network card tries to reach a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
pub struct Retry {
    /// After 4.096 us times two to the power of this, an unanswered READ is sent again.
    #[arg(long, default_value_t = Retry::default().retry_timeout, value_name = "N", help_heading = "RDMA")]
    pub retry_timeout: u8,
    /// After it was sent again this often, the node counts as unreachable.
    #[arg(long, default_value_t = Retry::default().retries, value_name = "N", help_heading = "RDMA")]
    pub retries: u8,
}

impl Default for Retry {
    /// An unanswered READ fails after 0.2 to 0.27 s.
    fn default() -> Self {
        Retry { retry_timeout: 14, retries: 3 }
    }
}

impl Retry {
    /// As the transport has it. Fails with a sentence about the setting that is not allowed.
    #[cfg(feature = "verbs")]
    fn to_settings(self) -> Result<backdoor_transports::verbs::RetrySettings, String> {
        let settings = backdoor_transports::verbs::RetrySettings::new(self.retry_timeout, self.retries);
        settings.map_err(|error| error.to_string())
    }

    /// Within which a card, or we in its stead, has called a dead node unreachable.
    #[cfg(feature = "verbs")]
    pub(in crate::live) fn patience(self) -> Nanos {
        self.to_settings().map_or(Nanos::ZERO, |settings| settings.patience())
    }

    /// Without a card nothing is waited for.
    #[cfg(not(feature = "verbs"))]
    pub(in crate::live) fn patience(self) -> Nanos {
        Nanos::ZERO
    }
}

/// Where a monitor finds a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeAddress {
    /// The socket of an agent on the same machine.
    Local(PathBuf),
    /// A machine that a network card reaches.
    Verbs {
        /// `HOST` or `HOST:PORT` of the agent.
        host: String,
        /// The file with the node's key; none for the user's own.
        key: Option<PathBuf>,
        /// This machine's card.
        card: Card,
        /// How long it tries.
        retry: Retry,
    },
}

impl NodeAddress {
    /// As the host side has it. Fails with a sentence for the user.
    #[cfg(feature = "verbs")]
    pub fn to_attach(&self) -> Result<attach::NodeAddress, String> {
        use backdoor_host::attach::VerbsAddress;

        Ok(match self {
            NodeAddress::Local(socket) => attach::NodeAddress::Local(socket.clone()),
            NodeAddress::Verbs { host, key, card, retry } => {
                let retry = retry.to_settings()?;
                let address = VerbsAddress { device: card.to_choice(), retry, ..VerbsAddress::new(host.clone()) };
                attach::NodeAddress::Verbs(match key {
                    Some(key) => VerbsAddress { key: key.clone(), ..address },
                    None => address,
                })
            }
        })
    }

    /// As the host side has it. Fails with a sentence for the user.
    #[cfg(not(feature = "verbs"))]
    pub fn to_attach(&self) -> Result<attach::NodeAddress, String> {
        match self {
            NodeAddress::Local(socket) => Ok(attach::NodeAddress::Local(socket.clone())),
            NodeAddress::Verbs { .. } => Err(WITHOUT_VERBS.into()),
        }
    }
}

impl TransportKind {
    /// Whether this machine can read through it, with this card. Fails with a sentence for the user.
    #[cfg(feature = "verbs")]
    pub fn try_here(self, card: &Card) -> Result<(), String> {
        use backdoor_transports::verbs::Device;

        match self {
            TransportKind::Shm => Ok(()),
            TransportKind::Verbs => Device::open(&card.to_choice()).map(drop).map_err(|error| error.to_string()),
        }
    }

    /// Whether this machine can read through it, with this card. Fails with a sentence for the user.
    #[cfg(not(feature = "verbs"))]
    pub fn try_here(self, _: &Card) -> Result<(), String> {
        if self == TransportKind::Verbs { Err(WITHOUT_VERBS.into()) } else { Ok(()) }
    }
}

#[cfg(feature = "verbs")]
impl Card {
    /// As the transport has it.
    pub fn to_choice(&self) -> backdoor_transports::verbs::DeviceChoice {
        let Card { device, port, gid_index } = self.clone();
        backdoor_transports::verbs::DeviceChoice { device, port, gid_index }
    }
}

/// What the agent of an experiment is to offer to other machines, or to this one through its card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Where to listen. A stage puts its own address here.
    pub listen: IpAddr,
    /// Which card of its machine to use. A stage puts its own here.
    pub card: Card,
}

/// A node of an experiment within reach: the way there, and what it takes.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) address: NodeAddress,
    /// Removed with this.
    _key: Option<NamedTempFile>,
}

/// The way to the agent of an experiment, which runs at `host`: on this machine, or on another. Fails with a sentence
/// for the user.
pub(super) fn reach(
    transport: TransportKind,
    agent: &Ready,
    host: Option<IpAddr>,
    same_machine: bool,
    (card, retry): (&Card, Retry),
) -> Result<Reached, String> {
    match transport {
        TransportKind::Shm if same_machine => {
            Ok(Reached { address: NodeAddress::Local(agent.socket.clone().into()), _key: None })
        }
        TransportKind::Shm => Err("shared memory does not reach another machine: the stage is on one, so choose \
                                   another --transport"
            .into()),
        TransportKind::Verbs => {
            let remote = agent.remote.as_ref().ok_or("the agent offers nothing to network cards")?;
            let key = key_file(&remote.key).map_err(|error| crate::plain(&error))?;
            let host = match host {
                Some(IpAddr::V6(host)) => format!("[{host}]:{}", remote.port),
                Some(IpAddr::V4(host)) => format!("{host}:{}", remote.port),
                None => format!("127.0.0.1:{}", remote.port),
            };
            let (card, path) = (card.clone(), Some(key.path().to_owned()));
            Ok(Reached { address: NodeAddress::Verbs { host, key: path, card, retry }, _key: Some(key) })
        }
    }
}

/// The key in a file that only this user can read: on a command line, everybody could.
fn key_file(text: &str) -> std::io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new().prefix("backdoor-live-").suffix(".key").tempfile()?;
    file.write_all(text.as_bytes())?;
    file.flush()?;
    Ok(file)
}

/// Where the node is, for commands that read it.
#[derive(Clone, Debug, clap::Args)]
pub struct ReachArguments {
    /// What to read through.
    #[arg(long, value_enum, default_value_t = TransportKind::Shm)]
    transport: TransportKind,
    /// The agent's socket, on this machine. [default: backdoor.sock in $XDG_RUNTIME_DIR or the temporary directory]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The machine whose agent serves network cards. [default port: 7471]
    #[arg(long, value_name = "HOST[:PORT]", help_heading = "RDMA")]
    connect: Option<String>,
    /// The file with that agent's key, copied from there. [default: backdoor/key in the user's configuration directory]
    #[arg(long, value_name = "FILE", help_heading = "RDMA")]
    key: Option<PathBuf>,
    #[command(flatten)]
    card: Card,
    #[command(flatten)]
    retry: Retry,
}

impl ReachArguments {
    /// Whether a node is named, by its agent's socket or by its host.
    pub fn names_a_node(&self) -> bool {
        self.socket.is_some() || self.connect.is_some()
    }

    /// The way to parts that are started for an experiment: what to read through, by which card, and how long it tries.
    pub fn way(&self) -> (TransportKind, Card, Retry) {
        (self.transport, self.card.clone(), self.retry)
    }

    /// The node's address. Fails with a sentence for the user.
    pub fn address(&self) -> Result<attach::NodeAddress, String> {
        let address = match self.transport {
            TransportKind::Shm if self.connect.is_some() => {
                return Err("--connect is for nodes that a network card reaches: add --transport verbs".into());
            }
            TransportKind::Shm => {
                let default = backdoor_host::agent::default_socket;
                NodeAddress::Local(self.socket.clone().unwrap_or_else(default))
            }
            TransportKind::Verbs if self.socket.is_some() => {
                return Err("--socket is for an agent on this machine; with --transport verbs, name its host by \
                            --connect"
                    .into());
            }
            TransportKind::Verbs => NodeAddress::Verbs {
                host: self.connect.clone().ok_or("--transport verbs needs --connect HOST")?,
                key: self.key.clone(),
                card: self.card.clone(),
                retry: self.retry,
            },
        };
        address.to_attach()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::parts::RemoteReady;

    fn agent(remote: Option<RemoteReady>) -> Ready {
        Ready { socket: "/run/node.sock".into(), remote }
    }

    fn way(transport: TransportKind, agent: &Ready, host: Option<&str>, same: bool) -> Result<Reached, String> {
        let host = host.map(|host| host.parse().unwrap());
        reach(transport, agent, host, same, (&Card::default(), Retry::default()))
    }

    #[test]
    fn shared_memory_stays_on_its_machine() {
        let here = way(TransportKind::Shm, &agent(None), None, true).unwrap();
        assert_eq!(here.address, NodeAddress::Local("/run/node.sock".into()));
        let error = way(TransportKind::Shm, &agent(None), Some("10.0.0.1"), false).unwrap_err();
        assert!(error.contains("does not reach another machine"), "{error}");
    }

    #[cfg(feature = "verbs")]
    #[test]
    fn the_cards_own_settings_are_the_default() {
        let (here, there) = (Retry::default(), backdoor_transports::verbs::RetrySettings::default());
        assert_eq!((here.retry_timeout, here.retries), (there.timeout(), there.retries()));
    }

    #[test]
    fn a_card_is_reached_with_a_key_in_a_file() {
        let remote = RemoteReady { port: 9, key: "ab\n".into() };
        let there = way(TransportKind::Verbs, &agent(Some(remote.clone())), Some("fd00::1"), false).unwrap();
        let NodeAddress::Verbs { host, key: Some(key), .. } = &there.address else { panic!("{there:?}") };
        assert_eq!((host.as_str(), std::fs::read_to_string(key).unwrap().as_str()), ("[fd00::1]:9", "ab\n"));
        let path = key.clone();
        drop(there);
        assert!(!path.exists());
        let here = way(TransportKind::Verbs, &agent(Some(remote)), None, true).unwrap();
        assert!(matches!(&here.address, NodeAddress::Verbs { host, .. } if host == "127.0.0.1:9"));
        assert!(way(TransportKind::Verbs, &agent(None), None, true).is_err());
    }
}
