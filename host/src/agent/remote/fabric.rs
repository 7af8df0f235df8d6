//! What serving other machines takes of a network card.

use backdoor_core::transport::{RegionKey, Rights};
use backdoor_transports::shm::SharedWords;
use backdoor_transports::verbs::{Device, DeviceChoice, Endpoint, PassiveQueuePair, Region, RemoteRegion, VerbsError};

/// A network card, or what a test has in its place.
pub(in crate::agent) trait Fabric: Send + Sync + 'static {
    /// Memory that the card knows. Dropping it takes it back.
    type Region: Send;
    /// An end of a connection. Dropping it closes the connection.
    type QueuePair;

    /// Makes memory known to the card.
    fn register(
        &self,
        key: RegionKey,
        memory: &SharedWords,
        rights: Rights,
    ) -> Result<(Self::Region, RemoteRegion), VerbsError>;

    /// Makes a queue pair that serves this peer.
    fn connect(&self, peer: &Endpoint) -> Result<(Self::QueuePair, Endpoint), VerbsError>;
}

/// A real card.
pub(in crate::agent) struct Card(Device);

impl Card {
    pub(in crate::agent) fn open(choice: &DeviceChoice) -> Result<Self, VerbsError> {
        Device::open(choice).map(Card)
    }
}

impl Fabric for Card {
    type Region = Region;
    type QueuePair = PassiveQueuePair;

    fn register(
        &self,
        key: RegionKey,
        memory: &SharedWords,
        rights: Rights,
    ) -> Result<(Region, RemoteRegion), VerbsError> {
        let region = Region::register(&self.0, key, memory.clone(), rights)?;
        let remote = region.remote();
        Ok((region, remote))
    }

    fn connect(&self, peer: &Endpoint) -> Result<(PassiveQueuePair, Endpoint), VerbsError> {
        let mut pair = PassiveQueuePair::create(&self.0)?;
        pair.connect(peer)?;
        let endpoint = pair.endpoint();
        Ok((pair, endpoint))
    }
}
