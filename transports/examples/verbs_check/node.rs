//! A node in this process: regions in shared memory, and a queue pair for whoever connects.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use backdoor_core::transport::{RegionKey, Rights};
use backdoor_transports::shm::{SealedMemory, SharedWords};
use backdoor_transports::verbs::{
    Connect, Device, Endpoint, PassiveQueuePair, Peer, Region, VerbsConfig, VerbsError, VerbsTransport,
};

/// The node's side.
pub(crate) struct Node {
    device: Device,
    shared: Arc<Mutex<Shared>>,
    memory: Vec<SharedWords>,
}

#[derive(Default)]
struct Shared {
    regions: Vec<Option<Region>>,
    connections: Vec<PassiveQueuePair>,
    cut: bool,
}

/// The key of the `region`th region.
pub(crate) fn key(region: usize) -> RegionKey {
    RegionKey(region as u32 + 1)
}

impl Node {
    pub(crate) fn new(device: &Device, regions: &[(usize, Rights)]) -> Result<Self, Box<dyn Error>> {
        let mut shared = Shared::default();
        let mut memory = Vec::new();
        for (region, (words, rights)) in regions.iter().enumerate() {
            let words = SealedMemory::create("verbs-check", *words)?.map()?;
            shared.regions.push(Some(Region::register(device, key(region), words.clone(), *rights)?));
            memory.push(words);
        }
        Ok(Node { device: device.clone(), shared: Arc::new(Mutex::new(shared)), memory })
    }

    /// A transport to it.
    pub(crate) fn connect(&self, config: VerbsConfig) -> Result<VerbsTransport, VerbsError> {
        let connect = Meet { device: self.device.clone(), shared: Arc::clone(&self.shared) };
        VerbsTransport::open(self.device.clone(), config, Box::new(connect))
    }

    pub(crate) fn memory(&self, region: usize) -> &SharedWords {
        &self.memory[region]
    }

    /// Takes a region back.
    pub(crate) fn revoke(&self, region: usize) {
        // The registration is given up after the lock, which nobody needs meanwhile.
        let taken = lock(&self.shared).regions[region].take();
        drop(taken);
    }

    /// Offers a region again.
    pub(crate) fn restore(&self, region: usize, rights: Rights) -> Result<(), VerbsError> {
        let offered = Region::register(&self.device, key(region), self.memory[region].clone(), rights)?;
        lock(&self.shared).regions[region] = Some(offered);
        Ok(())
    }

    /// Lets no packet of anybody's connection be answered any more, nor anybody connect, or the latter again.
    pub(crate) fn set_cut(&self, cut: bool) {
        let mut shared = lock(&self.shared);
        shared.cut = cut;
        if cut {
            shared.connections.clear();
        }
    }
}

struct Meet {
    device: Device,
    shared: Arc<Mutex<Shared>>,
}

impl Connect for Meet {
    fn connect(&mut self, ours: &Endpoint) -> Result<Peer, Box<dyn Error + Send + Sync>> {
        let mut shared = lock(&self.shared);
        if shared.cut {
            return Err("the way to the node is cut".into());
        }
        let mut pair = PassiveQueuePair::create(&self.device)?;
        pair.connect(ours)?;
        let endpoint = pair.endpoint();
        // One monitor at a time, whose earlier queue pair is gone when it makes a new one.
        shared.connections = vec![pair];
        let regions = shared.regions.iter().flatten().map(Region::remote).collect();
        Ok(Peer { endpoint, regions, hold: Box::new(()) })
    }
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
