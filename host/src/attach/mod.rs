//! The monitor's side: from an agent's socket to a transport over the node's memory.
//!
//! The socket is needed once. Afterwards the monitor reads memory that it has mapped, which needs neither the agent nor
//! any other process of the node; the open socket only tells when the agent has gone.

use std::path::Path;

use backdoor_core::transport::{RegionKey, Rights};
use backdoor_transports::shm::{MapError, ReadOnlyWords, RegionError, SharedWords, ShmTransport};

use crate::protocol::{Answer, HOOK_TABLE, Request};
use crate::regions::Received;
use crate::wire::{Connection, ConnectionError};

/// Operations that a monitor can have under way, unless it asks for another number.
const DEFAULT_DEPTH: usize = 1024;

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
}

/// A node within reach.
#[derive(Debug)]
pub struct Attachment {
    transport: ShmTransport,
    link: AgentLink,
}

/// What is left to know of the agent when the transport is in other hands.
#[derive(Debug)]
pub struct AgentLink {
    connection: Connection,
    incarnation: u64,
    hook_table_words: usize,
}

/// Attaches to the node whose agent listens at `path`.
pub fn attach(path: impl AsRef<Path>) -> Result<Attachment, AttachError> {
    attach_with_depth(path, DEFAULT_DEPTH)
}

/// The same, for at most `depth` operations under way.
pub fn attach_with_depth(path: impl AsRef<Path>, depth: usize) -> Result<Attachment, AttachError> {
    let connection = Connection::connect(path.as_ref())?;
    let (answer, descriptors) = connection.request(&Request::Attach {})?;
    let Answer::Attached { incarnation, regions } = answer else {
        return Err(connection.no_agent(format!("answered {answer:?} to an attachment")).into());
    };
    let received = Received::new(&regions, descriptors).map_err(|why| connection.no_agent(why))?;
    let (_, hook_table_words) = received.get(HOOK_TABLE).map_err(|why| connection.no_agent(why))?;
    let mut transport = ShmTransport::new(depth);
    for (region, fd) in received.iter() {
        let (key, words) = (RegionKey(region.key), region.words as usize);
        let memory_error = |source| AttachError::Memory { key: key.0, source };
        // Received::new has checked the bits.
        let rights = Rights::from_bits(region.rights).unwrap_or(Rights::NONE);
        if region.writable {
            transport.add_shared(key, SharedWords::open(fd, words).map_err(memory_error)?, rights)?;
        } else {
            transport.add_read_only(key, ReadOnlyWords::open(fd, words).map_err(memory_error)?, rights)?;
        }
    }
    Ok(Attachment { transport, link: AgentLink { connection, incarnation, hook_table_words } })
}

impl Attachment {
    /// One-sided access to the node's memory.
    pub fn transport(&mut self) -> &mut ShmTransport {
        &mut self.transport
    }

    /// The transport, for a monitor to own, and the rest.
    pub fn into_parts(self) -> (ShmTransport, AgentLink) {
        (self.transport, self.link)
    }

    /// The region at whose start the hook table lies.
    pub fn hook_table(&self) -> RegionKey {
        self.link.hook_table()
    }

    /// Which start of the agent this is.
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
        self.hook_table_words
    }

    /// Which start of the agent this is. After a restart, everything has to be attached and found anew.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Whether this agent has stopped or died. The memory stays readable; what applications still write into it is
    /// still seen, and a new agent has memory of its own.
    pub fn gone(&self) -> bool {
        !self.connection.is_alive()
    }
}
