//! Monitors on other machines, as the rest of the agent sees them. Only with the feature `verbs` is there an
//! implementation.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use backdoor_core::transport::RegionKey;

use super::registry::Refusal;
use crate::protocol::{Reason, Status};

/// What the agent offers to other machines.
pub(super) trait Elsewhere: Debug + Send + Sync {
    /// Takes a region back from the network card. Does not wait for any monitor.
    fn revoke(&self, region: RegionKey) -> Result<(), OfferError>;
    /// Offers it again.
    fn restore(&self, region: RegionKey) -> Result<(), OfferError>;
    /// Fills in what a status tells of other machines.
    fn describe(&self, status: &mut Status);
    /// Who was turned away since the last call, and why; only the latest.
    fn take_turned_away(&self) -> Vec<String>;
    /// Where it listens.
    fn address(&self) -> SocketAddr;
}

/// An implementation, and the thread that serves. It ends when the agent stops.
pub(super) struct Served {
    pub(super) elsewhere: Arc<dyn Elsewhere>,
    pub(super) thread: JoinHandle<()>,
}

/// Why a region could not be revoked or restored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// There is nothing to revoke.
    #[error("this agent offers no memory to other machines")]
    LocalOnly,
    /// No such region.
    #[error("there is no region {key}")]
    Unknown {
        /// The key asked for.
        key: u32,
    },
    /// The network card did not take it.
    #[error("region {key}: {why}")]
    Device {
        /// The region.
        key: u32,
        /// What the card's library said.
        why: String,
    },
}

impl From<OfferError> for Refusal {
    fn from(error: OfferError) -> Self {
        let reason = match error {
            OfferError::LocalOnly | OfferError::Unknown { .. } => Reason::Invalid,
            OfferError::Device { .. } => Reason::Internal,
        };
        Refusal(reason, error.to_string())
    }
}
