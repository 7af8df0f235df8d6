//! The memory of the node whose sessions may be carried on here, as far as it is swapped.

use std::error::Error;
use std::sync::Mutex;

use backdoor_core::transport::TransportError;
use backdoor_host::attach::{Attachment, NodeAddress as Address, attach};

use super::swaps::{OnWord, Swaps};
use crate::live::reach::NodeAddress;
use crate::live::two_locks::lock;

/// A way to the claim words, for all takers' threads.
pub(super) struct OldOwner {
    node: Address,
    way: Mutex<Way>,
}

struct Way {
    attached: Attachment,
    swaps: Swaps,
}

impl OldOwner {
    /// Of this node. Once attached, its agent is needed no more.
    pub(super) fn attach(node: &NodeAddress) -> Result<Self, Box<dyn Error>> {
        let node = node.to_attach()?;
        let way = Way { attached: attach(&node)?, swaps: Swaps::new() };
        Ok(OldOwner { node, way: Mutex::new(way) })
    }

    /// Sees to it that the memory is that of this start of the agent; answers whether it is. A taker may have found another
    /// agent meanwhile, whose memory is another one.
    pub(super) fn is(&self, agent: u64) -> bool {
        let mut way = lock(&self.way);
        if way.attached.incarnation() != agent
            && let Ok(attached) = attach(&self.node)
        {
            *way = Way { attached, swaps: Swaps::new() };
        }
        way.attached.incarnation() == agent
    }

    /// Swaps one word; answers what it held before.
    pub(super) fn swap(&self, agent: u64, swap: OnWord) -> Result<u64, TransportError> {
        let mut way = lock(&self.way);
        let Way { attached, swaps } = &mut *way;
        if attached.incarnation() != agent {
            // Another taker found a later agent: what this one offers is out of reach for good.
            return Err(TransportError::Refused);
        }
        swaps.run(attached.transport(), &[swap]).pop().unwrap_or(Err(TransportError::LocalFault))
    }
}
