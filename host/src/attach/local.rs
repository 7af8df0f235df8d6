//! A node on this machine: from its agent's socket to memory that the monitor maps.
//!
//! The socket is needed once. Afterwards the monitor reads memory that it has mapped, which needs neither the agent nor
//! any other process of the node; the open socket only tells when the agent has gone.

use std::path::Path;

use backdoor_core::transport::{RegionKey, Rights};
use backdoor_transports::shm::{ReadOnlyWords, SharedWords, ShmTransport};

use super::{AgentLink, AttachError, Attachment, Link};
use crate::protocol::{Answer, HOOK_TABLE, Request};
use crate::regions::Received;
use crate::wire::Connection;

/// Operations that a monitor can have under way, unless it asks for another number.
const DEFAULT_DEPTH: usize = 1024;

/// Attaches to the node on this machine whose agent listens at `path`.
pub fn attach_local(path: impl AsRef<Path>) -> Result<Attachment<ShmTransport>, AttachError> {
    attach_local_with_depth(path, DEFAULT_DEPTH)
}

/// The same, for at most `depth` operations under way.
pub fn attach_local_with_depth(path: impl AsRef<Path>, depth: usize) -> Result<Attachment<ShmTransport>, AttachError> {
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
    let link = AgentLink(Link::Local { connection, incarnation, hook_table_words });
    Ok(Attachment { transport, link })
}
