//! A network card for tests: it keeps books and reaches nothing.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use backdoor_core::Nanos;
use backdoor_core::transport::{RegionKey, Rights};
use backdoor_transports::shm::SharedWords;
use backdoor_transports::verbs::{Endpoint, Link, RemoteRegion, VerbsError};

use super::{Fabric, RemoteConfig, serve};
use crate::agent::{Agent, AgentConfig, AgentError};
use crate::app::Node;
use crate::protocol::Status;
use crate::remote::{Answer, Channel, ChannelError, Request, SetupKey};

/// The books of one card.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeCard(Arc<Books>);

#[derive(Debug, Default)]
struct Books {
    /// By the card's key.
    regions: Mutex<BTreeMap<u32, (RegionKey, Rights)>>,
    queue_pairs: AtomicUsize,
    registrations: AtomicU32,
    refuses: AtomicBool,
}

impl FakeCard {
    pub(crate) fn regions(&self) -> Vec<(RegionKey, Rights)> {
        let mut regions: Vec<_> = self.0.regions.lock().unwrap().values().copied().collect();
        regions.sort_by_key(|(key, _)| *key);
        regions
    }

    pub(crate) fn queue_pairs(&self) -> usize {
        self.0.queue_pairs.load(Ordering::SeqCst)
    }

    /// From now on, nothing can be registered.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.0.refuses.store(refuses, Ordering::SeqCst);
    }
}

#[derive(Debug)]
pub(crate) struct FakeRegion(FakeCard, u32);

impl Drop for FakeRegion {
    fn drop(&mut self) {
        self.0.0.regions.lock().unwrap().remove(&self.1);
    }
}

#[derive(Debug)]
pub(crate) struct FakePair(FakeCard);

impl Drop for FakePair {
    fn drop(&mut self) {
        self.0.0.queue_pairs.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Fabric for FakeCard {
    type Region = FakeRegion;
    type QueuePair = FakePair;

    fn register(
        &self,
        key: RegionKey,
        memory: &SharedWords,
        rights: Rights,
    ) -> Result<(FakeRegion, RemoteRegion), VerbsError> {
        if self.0.refuses.load(Ordering::SeqCst) {
            return Err(VerbsError::Register { bytes: 8 * memory.len(), why: "the test says so".into() });
        }
        let rkey = 1000 + self.0.registrations.fetch_add(1, Ordering::SeqCst);
        self.0.regions.lock().unwrap().insert(rkey, (key, rights));
        let (address, words) = (memory.as_ptr() as u64, memory.len() as u64);
        Ok((FakeRegion(self.clone(), rkey), RemoteRegion { key: key.0, rkey, address, words, rights: rights.bits() }))
    }

    fn connect(&self, peer: &Endpoint) -> Result<(FakePair, Endpoint), VerbsError> {
        self.0.queue_pairs.fetch_add(1, Ordering::SeqCst);
        let pair = FakePair(self.clone());
        if peer.link != Link::Ethernet {
            return Err(VerbsError::OtherLink { ours: Link::Ethernet, theirs: peer.link });
        }
        Ok((pair, endpoint(Link::Ethernet)))
    }
}

pub(crate) fn endpoint(link: Link) -> Endpoint {
    Endpoint { link, gid: [1; 16], lid: 0, mtu: 1024, queue_pair: 17, first_packet: 5, reads: 16 }
}

/// A node whose agent serves through a fake card.
pub(crate) struct FakeNode {
    pub(crate) agent: Agent,
    pub(crate) card: FakeCard,
    pub(crate) config: AgentConfig,
    directory: tempfile::TempDir,
}

impl FakeNode {
    /// At a port of the loopback, changed by `change`.
    pub(crate) fn start(change: impl FnOnce(&mut RemoteConfig)) -> Self {
        FakeNode::try_start(change).unwrap()
    }

    pub(crate) fn try_start(change: impl FnOnce(&mut RemoteConfig)) -> Result<Self, AgentError> {
        FakeNode::try_start_with(|config| change(config.remote.as_mut().unwrap()))
    }

    /// The same for all settings. Unless told otherwise, strangers have more time than any test takes.
    pub(crate) fn try_start_with(change: impl FnOnce(&mut AgentConfig)) -> Result<Self, AgentError> {
        let directory = tempfile::tempdir().unwrap();
        let mut config = AgentConfig::at(directory.path().join("node.sock"));
        (config.capacity, config.claims, config.state_words) = (32, 16, 1 << 14);
        config.greeting_timeout = Nanos::from_secs(60);
        config.remote = Some(RemoteConfig::at("127.0.0.1:0".parse().unwrap(), key()));
        change(&mut config);
        let card = FakeCard::default();
        let fabric = card.clone();
        let agent = Agent::start_with(config.clone(), |config, memory, incarnation, stop| {
            let remote = config.remote.as_ref().unwrap();
            serve(fabric, remote, config.greeting_timeout, memory, incarnation, stop).map(Some)
        })?;
        Ok(FakeNode { agent, card, config, directory })
    }

    pub(crate) fn dial(&self) -> TcpStream {
        TcpStream::connect(self.agent.remote_address().unwrap()).unwrap()
    }

    /// What the agent answers to a monitor on this kind of network, and the connection.
    pub(crate) fn ask(&self, key: &SetupKey, link: Link) -> Result<(Answer, TcpStream), ChannelError> {
        let stream = self.dial();
        let mut channel = Channel::initiate(&stream, key, Instant::now() + Duration::from_secs(20))?;
        channel.send(&Request::Connect { endpoint: endpoint(link), monitor: "tester".into() })?;
        let answer = channel.receive()?;
        Ok((answer, stream))
    }

    pub(crate) fn local(&self) -> Node {
        Node::connect(&self.config.socket).unwrap()
    }

    pub(crate) fn status(&self) -> Status {
        self.local().status().unwrap()
    }

    /// A file with the node's key.
    pub(crate) fn key_file(&self) -> std::path::PathBuf {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.directory.path().join("key");
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
        std::io::Write::write_all(&mut file.unwrap(), "07".repeat(32).as_bytes()).unwrap();
        path
    }
}

/// The key of a [`FakeNode`].
pub(crate) fn key() -> SetupKey {
    SetupKey::from_bytes([7; 32])
}

/// Waits until `condition` holds, at most ten seconds.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
