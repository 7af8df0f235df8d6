//! A node on another machine: from a host name and a key to a queue pair.
//!
//! Every opening of the channel, the first and those after errors, is a conversation with the agent
//! ([`remote`](crate::remote)), which makes a queue pair for us that lives as long as that connection. So a node whose
//! agent was started again is simply found again, with its new memory.

use std::error::Error;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use backdoor_transports::verbs::{
    Connect, Device, DeviceChoice, Endpoint, Peer, RetrySettings, VerbsConfig, VerbsError, VerbsTransport,
};

use super::{AgentLink, Attachment, Link};
use crate::protocol::HOOK_TABLE;
use crate::remote::{
    Answer, Channel, ChannelError, DEFAULT_PORT, KeyError, Reason, Request, SETUP_VERSION, SetupKey, check_regions,
    machine_name, prepare,
};

/// For the name service, which has limits of its own, but generous ones.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// For each address of a host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Addresses of a host that are tried.
const MAX_ADDRESSES: usize = 3;
/// For the whole conversation with an agent.
const CONVERSATION_TIMEOUT: Duration = Duration::from_secs(5);
/// After this long, an agent's machine that answers nothing ends the connection.
const VANISHED_AFTER: Duration = Duration::from_secs(30);

/// A node on another machine, and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerbsAddress {
    /// `HOST` or `HOST:PORT`, by default [`DEFAULT_PORT`]; a numeric IPv6 address in brackets. Any address at which the
    /// agent listens will do: it need not be on the network of the cards, for it is used to set up only.
    pub host: String,
    /// Which network card of this machine to use. The agent chooses its own.
    pub device: DeviceChoice,
    /// The file with the node's key.
    pub key: PathBuf,
    /// How long the card tries to reach the node.
    pub retry: RetrySettings,
}

impl VerbsAddress {
    /// With the default card, key file and retries.
    pub fn new(host: impl Into<String>) -> Self {
        let (device, retry) = Default::default();
        VerbsAddress { host: host.into(), device, key: SetupKey::default_path(), retry }
    }
}

/// Why a node on another machine can't be reached.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Not a host, or not a port.
    #[error("'{0}' is no address of a node: write HOST or HOST:PORT, and a numeric IPv6 address in brackets")]
    Address(String),
    /// The host's name leads nowhere.
    #[error("can't find the address of {host}: {why}")]
    Resolve {
        /// The host.
        host: String,
        /// What the name service said.
        why: String,
    },
    /// The machine is there, and nobody listens.
    #[error("no agent listens at {address}: is one running there, and is it told to serve other machines?")]
    NobodyListens {
        /// Where.
        address: String,
    },
    /// The machine, or a way to it, is not there.
    #[error("can't reach {address}: {source}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Something else listens there.
    #[error("what listens at {address} is no agent: it {why}")]
    NotAnAgent {
        /// Where.
        address: String,
        /// How that is known.
        why: String,
    },
    /// The agent speaks another version.
    #[error("the agent at {address} speaks set-up protocol version {theirs}, this program version {SETUP_VERSION}")]
    WrongVersion {
        /// Where.
        address: String,
        /// The agent's version.
        theirs: u32,
    },
    /// The agent has another key.
    #[error("the agent at {address} has another key: copy its key file from the node to {key} on this machine")]
    WrongKey {
        /// Where.
        address: String,
        /// This machine's key file.
        key: String,
    },
    /// The conversation broke off.
    #[error("the conversation with the agent at {address} failed: {source}")]
    Conversation {
        /// Where.
        address: String,
        /// Why.
        source: ChannelError,
    },
    /// The agent refused, and said why.
    #[error("the agent at {address} refused: {message}")]
    Refused {
        /// Where.
        address: String,
        /// For programs.
        reason: Reason,
        /// For people.
        message: String,
    },
    /// What the agent said of itself makes no sense.
    #[error("what the agent at {address} says of itself makes no sense: {why}")]
    Nonsense {
        /// Where.
        address: String,
        /// What.
        why: String,
    },
    /// The region where monitors begin was revoked.
    #[error("the agent at {address} offers no hook table: that region was revoked")]
    NoHookTable {
        /// Where.
        address: String,
    },
    /// This machine has no usable key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// This machine's card can't be used, or the cards could not be connected.
    #[error(transparent)]
    Verbs(VerbsError),
}

/// Attaches to a node on another machine.
pub(super) fn attach_verbs(address: &VerbsAddress) -> Result<Attachment, RemoteError> {
    let control = Control::default();
    let connector = Connector::new(address, control.clone())?;
    let device = Device::open(&address.device).map_err(RemoteError::Verbs)?;
    let config = VerbsConfig { retry: address.retry, ..VerbsConfig::default() };
    let transport = VerbsTransport::open(device, config, Box::new(connector)).map_err(|error| match error {
        VerbsError::Connect(inner) => match inner.downcast::<RemoteError>() {
            Ok(error) => *error,
            Err(inner) => RemoteError::Verbs(VerbsError::Connect(inner)),
        },
        error => RemoteError::Verbs(error),
    })?;
    if control.hook_table_words() == 0 {
        return Err(RemoteError::NoHookTable { address: address.host.clone() });
    }
    Ok(Attachment { transport: Box::new(transport), link: AgentLink(Link::Verbs(control)) })
}

/// What is known of the agent: written by whoever connects, read by the monitor.
#[derive(Clone, Debug, Default)]
pub(super) struct Control(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    incarnation: u64,
    /// 0 before there was any.
    hook_table_words: usize,
    line: Line,
    trouble: Option<String>,
}

/// The connection to the agent, by what is known of it.
#[derive(Debug, Default)]
enum Line {
    /// As long as the queue pair.
    Open(Arc<TcpStream>),
    /// There is none. Nobody has tried again, or nobody knows whether the agent lives.
    #[default]
    Closed,
    /// There is none, and the agent's machine says that nobody listens.
    NobodyListens,
}

impl Control {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn incarnation(&self) -> u64 {
        self.known().incarnation
    }

    pub(super) fn hook_table_words(&self) -> usize {
        self.known().hook_table_words
    }

    pub(super) fn gone(&self) -> bool {
        matches!(self.known().line, Line::NobodyListens)
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.known().trouble.clone()
    }
}

/// Kept with the queue pair. Its end closes the connection, and that tells the agent that the queue pair is not needed
/// any more.
struct Hold {
    stream: Arc<TcpStream>,
    control: Control,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut known = self.control.known();
        if matches!(&known.line, Line::Open(stream) if Arc::ptr_eq(stream, &self.stream)) {
            known.line = Line::Closed;
        }
        // Closed with the last handle, which this is now.
    }
}

/// Meets the agent for every opening of the channel.
struct Connector {
    host: Host,
    /// Where the host was last: a name service may fail together with what it names.
    addresses: Vec<SocketAddr>,
    key: SetupKey,
    key_path: String,
    monitor: String,
    control: Control,
}

impl Connector {
    fn new(address: &VerbsAddress, control: Control) -> Result<Self, RemoteError> {
        Ok(Connector {
            host: Host::parse(&address.host)?,
            addresses: Vec::new(),
            key: SetupKey::load(&address.key)?,
            key_path: address.key.display().to_string(),
            monitor: machine_name(),
            control,
        })
    }

    fn meet(&mut self, ours: &Endpoint) -> Result<Peer, RemoteError> {
        match self.host.resolve() {
            Ok(addresses) => self.addresses = addresses,
            Err(error) if self.addresses.is_empty() => return Err(error),
            Err(_) => {}
        }
        let (stream, address) = self.dial()?;
        let request = Request::Connect { endpoint: *ours, monitor: self.monitor.clone() };
        let answer = self.ask(&stream, &request).map_err(|error| self.explain(error, &address))?;
        let (endpoint, incarnation, regions) = match answer {
            Answer::Connected { endpoint, incarnation, regions } => (endpoint, incarnation, regions),
            Answer::Refused { reason, message } => return Err(RemoteError::Refused { address, reason, message }),
        };
        check_regions(&regions).map_err(|why| RemoteError::Nonsense { address, why })?;
        let stream = Arc::new(stream);
        let mut known = self.control.known();
        known.incarnation = incarnation;
        if let Some(table) = regions.iter().find(|region| region.region_key() == HOOK_TABLE) {
            known.hook_table_words = usize::try_from(table.words).unwrap_or(usize::MAX);
        }
        known.line = Line::Open(Arc::clone(&stream));
        let hold = Hold { stream, control: self.control.clone() };
        Ok(Peer { endpoint, regions, hold: Box::new(hold) })
    }

    /// Connects to the first address that somebody listens at.
    fn dial(&self) -> Result<(TcpStream, String), RemoteError> {
        let mut unreachable = None;
        for address in self.addresses.iter().take(MAX_ADDRESSES) {
            let shown = self.host.shown(address);
            let connected = TcpStream::connect_timeout(address, CONNECT_TIMEOUT)
                .and_then(|stream| prepare(&stream, VANISHED_AFTER).map(|()| stream));
            match connected {
                Ok(stream) => return Ok((stream, shown)),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(source) => unreachable = Some(RemoteError::Unreachable { address: shown, source }),
            }
        }
        // Only if all say so: at an address that says nothing, the agent may live.
        Err(unreachable.unwrap_or_else(|| RemoteError::NobodyListens { address: self.host.to_string() }))
    }

    fn ask(&self, stream: &TcpStream, request: &Request) -> Result<Answer, ChannelError> {
        let mut channel = Channel::initiate(stream, &self.key, Instant::now() + CONVERSATION_TIMEOUT)?;
        channel.send(request)?;
        channel.receive()
    }

    fn explain(&self, error: ChannelError, address: &str) -> RemoteError {
        let address = address.to_owned();
        match error {
            ChannelError::NotOurs(why) => RemoteError::NotAnAgent { address, why },
            ChannelError::WrongVersion { theirs } => RemoteError::WrongVersion { address, theirs },
            ChannelError::WrongKey => RemoteError::WrongKey { address, key: self.key_path.clone() },
            source => RemoteError::Conversation { address, source },
        }
    }
}

impl Connect for Connector {
    fn connect(&mut self, ours: &Endpoint) -> Result<Peer, Box<dyn Error + Send + Sync>> {
        let met = self.meet(ours);
        let mut known = self.control.known();
        known.trouble = met.as_ref().err().map(ToString::to_string);
        if let Err(error) = &met {
            known.line =
                if matches!(error, RemoteError::NobodyListens { .. }) { Line::NobodyListens } else { Line::Closed };
        }
        drop(known);
        Ok(met?)
    }

    fn failed(&mut self, why: &VerbsError) {
        self.control.known().trouble = Some(why.to_string());
    }
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Host {
    name: String,
    port: u16,
}

impl Host {
    fn parse(text: &str) -> Result<Self, RemoteError> {
        let wrong = || RemoteError::Address(text.to_owned());
        let (name, rest) = match text.strip_prefix('[') {
            Some(inner) => {
                let (name, rest) = inner.split_once(']').ok_or_else(wrong)?;
                // With a zone, such as %eth0, it is for the system to read.
                let numeric = name.split_once('%').map_or(name, |(numeric, _)| numeric);
                numeric.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
                (name, rest)
            }
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match rest.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?,
            None if rest.is_empty() => DEFAULT_PORT,
            None => return Err(wrong()),
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(wrong());
        }
        Ok(Host { name: name.to_owned(), port })
    }

    /// The host's addresses; never none.
    fn resolve(&self) -> Result<Vec<SocketAddr>, RemoteError> {
        let error = |why: String| RemoteError::Resolve { host: self.name.clone(), why };
        // In a thread of its own, because there is no other way to stop waiting.
        let (sender, receiver) = mpsc::channel();
        let (name, port) = (self.name.clone(), self.port);
        let look_up = move || {
            let _ = sender.send((name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>));
        };
        std::thread::Builder::new()
            .name("resolve".into())
            .spawn(look_up)
            .map_err(|failed| error(failed.to_string()))?;
        let found = receiver.recv_timeout(RESOLVE_TIMEOUT);
        let found = found.map_err(|_| error(format!("no answer within {} s", RESOLVE_TIMEOUT.as_secs())))?;
        let found = found.map_err(|failed| error(failed.to_string()))?;
        if found.is_empty() { Err(error("it has none".into())) } else { Ok(found) }
    }

    /// The host and one of its addresses, where these differ.
    fn shown(&self, address: &SocketAddr) -> String {
        let numeric = address.ip().to_string() == self.name;
        if numeric { self.to_string() } else { format!("{self} ({})", address.ip()) }
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Host { name, port } = self;
        if name.contains(':') { write!(f, "[{name}]:{port}") } else { write!(f, "{name}:{port}") }
    }
}

#[cfg(test)]
mod tests;
