//! The monitor's side: from a node's address to a transport over its memory.
//!
//! | the node is | reached by | the transport |
//! |---|---|---|
//! | on this machine | its agent's socket: [`NodeAddress::Local`], [`attach_local`] | mapped memory |
//! | on another machine | host name and key: `NodeAddress::Verbs` (feature `verbs`) | a queue pair of a network card |
//!
//! [`attach`] does not care which; what it brings is the same for both, and so is the monitor behind it. Where the
//! transport's own type is wanted, [`attach_local`] gives it.

use std::fmt;
use std::path::{Path, PathBuf};

use backdoor_core::Nanos;
use backdoor_core::transport::{RegionKey, Transport};
use backdoor_transports::shm::{MapError, RegionError};

use crate::protocol::HOOK_TABLE;
use crate::wire::{Connection, ConnectionError};

mod local;
#[cfg(feature = "verbs")]
mod verbs;

pub use local::{attach_local, attach_local_with_depth};
#[cfg(feature = "verbs")]
pub use verbs::{RemoteError, VerbsAddress};

/// Where a node is, and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeAddress {
    /// On this machine: the socket of its agent.
    Local(PathBuf),
    /// On a machine that a network card reaches.
    #[cfg(feature = "verbs")]
    Verbs(VerbsAddress),
}

impl NodeAddress {
    /// How long a READ may go without an answer before the transport itself says so; `None` where an answer comes at
    /// once. A monitor that gives up earlier breaks a channel whose card is still trying.
    pub fn patience(&self) -> Option<Nanos> {
        match self {
            NodeAddress::Local(_) => None,
            #[cfg(feature = "verbs")]
            NodeAddress::Verbs(address) => Some(address.retry.patience()),
        }
    }
}

impl From<PathBuf> for NodeAddress {
    fn from(socket: PathBuf) -> Self {
        NodeAddress::Local(socket)
    }
}

impl From<&Path> for NodeAddress {
    fn from(socket: &Path) -> Self {
        NodeAddress::Local(socket.to_owned())
    }
}

impl fmt::Display for NodeAddress {
    /// The socket's path, or the host as it was given.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeAddress::Local(path) => path.display().fmt(f),
            #[cfg(feature = "verbs")]
            NodeAddress::Verbs(address) => address.host.fmt(f),
        }
    }
}

/// Why a node could not be attached to.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There is no agent, or it refused; which of these, the inner error tells.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The memory that it sent can't be mapped safely.
    #[error("region {key} of the node: {source}")]
    Memory {
        /// The region.
        key: u32,
        /// Why.
        source: MapError,
    },
    /// The regions that it sent contradict each other.
    #[error("the agent sent regions that can't be: {0}")]
    Region(#[from] RegionError),
    /// A node on another machine can't be reached, or refused.
    #[cfg(feature = "verbs")]
    #[error(transparent)]
    Remote(#[from] RemoteError),
}

/// A node within reach.
pub struct Attachment<T = Box<dyn Transport + Send>> {
    transport: T,
    link: AgentLink,
}

/// What is left to know of the agent when the transport is in other hands.
#[derive(Debug)]
pub struct AgentLink(Link);

#[derive(Debug)]
enum Link {
    Local {
        connection: Connection,
        incarnation: u64,
        hook_table_words: usize,
    },
    #[cfg(feature = "verbs")]
    Verbs(verbs::Control),
}

/// Attaches to a node. Blocks until that is done or has failed: for a node on another machine, some seconds at most.
pub fn attach(address: &NodeAddress) -> Result<Attachment, AttachError> {
    match address {
        NodeAddress::Local(path) => Ok(attach_local(path)?.boxed()),
        #[cfg(feature = "verbs")]
        NodeAddress::Verbs(address) => Ok(verbs::attach_verbs(address)?),
    }
}

impl<T> fmt::Debug for Attachment<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment").field("link", &self.link).finish_non_exhaustive()
    }
}

impl<T: Transport> Attachment<T> {
    /// One-sided access to the node's memory.
    pub fn transport(&mut self) -> &mut T {
        &mut self.transport
    }

    /// The transport, for a monitor to own, and the rest.
    pub fn into_parts(self) -> (T, AgentLink) {
        (self.transport, self.link)
    }

    /// The same, whatever the transport.
    pub fn boxed(self) -> Attachment
    where
        T: Send + 'static,
    {
        Attachment { transport: Box::new(self.transport), link: self.link }
    }

    /// The region at whose start the hook table lies.
    pub fn hook_table(&self) -> RegionKey {
        self.link.hook_table()
    }

    /// See [`AgentLink::incarnation`].
    pub fn incarnation(&self) -> u64 {
        self.link.incarnation()
    }

    /// See [`AgentLink::gone`].
    pub fn gone(&self) -> bool {
        self.link.gone()
    }
}

impl AgentLink {
    /// The region at whose start the hook table lies.
    pub fn hook_table(&self) -> RegionKey {
        HOOK_TABLE
    }

    /// Length of that region.
    pub fn hook_table_words(&self) -> usize {
        match &self.0 {
            Link::Local { hook_table_words, .. } => *hook_table_words,
            #[cfg(feature = "verbs")]
            Link::Verbs(control) => control.hook_table_words(),
        }
    }

    /// Which start of the agent this is. After a restart, everything has to be attached and found anew; a transport
    /// over a network card may have done the former itself when its channel was reopened, and then this tells of it.
    pub fn incarnation(&self) -> u64 {
        match &self.0 {
            Link::Local { incarnation, .. } => *incarnation,
            #[cfg(feature = "verbs")]
            Link::Verbs(control) => control.incarnation(),
        }
    }

    /// Whether this agent has stopped or died.
    ///
    /// On this machine its memory stays readable; what applications still write into it is still seen, and a new agent
    /// has memory of its own. On another machine its memory has gone with it. There it counts as gone when the channel
    /// broke and that machine says that nobody listens any more; of a machine that says nothing, nothing is known of its
    /// agent either.
    pub fn gone(&self) -> bool {
        match &self.0 {
            Link::Local { connection, .. } => !connection.is_alive(),
            #[cfg(feature = "verbs")]
            Link::Verbs(control) => control.gone(),
        }
    }

    /// Why the channel could not be opened again, when that was last tried and failed; for people. `None` while it is
    /// open, and always for a node on this machine, whose channel can't break.
    pub fn trouble(&self) -> Option<String> {
        match &self.0 {
            Link::Local { .. } => None,
            #[cfg(feature = "verbs")]
            Link::Verbs(control) => control.trouble(),
        }
    }
}
