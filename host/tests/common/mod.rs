//! What the tests share: a small agent in a directory of its own, a monitor's eyes, and processes to kill.
#![allow(dead_code, unreachable_pub, reason = "each test file uses some of it")]

pub mod lan;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use backdoor_core::Nanos;
use backdoor_core::progress_box::{EntityRecord, EntityState, Header, Liveness, Slot, read_directory};
use backdoor_core::state_box::{StateBoxError, StateBoxView};
use backdoor_core::takeover::{Claim, Epoch, PartyId};
use backdoor_core::transport::{
    Completion, Done, LocalSlice, Operation, RegionKey, RemoteSlice, Transport, TransportError, WorkId, WorkRequest,
};
use backdoor_host::agent::{Agent, AgentConfig};
use backdoor_host::attach::{Attachment, attach_local};
use backdoor_host::protocol::{CLAIMS, PROGRESS_BOX, STATE_BOXES};
use backdoor_transports::shm::ShmTransport;

/// Tells a test binary run again where its agent is.
pub const SOCKET_VARIABLE: &str = "BACKDOOR_TEST_SOCKET";

/// A deadline that no test lets pass.
pub const RELAXED: Nanos = Nanos::from_secs(60);

/// Whether repair mode can be tested: not by anybody but root, and always by root.
pub fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("not tested: repair mode needs root");
    }
    is_root
}

/// What a claim word says, from one party's claim on.
pub const CLAIMED: Claim = Claim::Claimed { by: PARTY, epoch: Epoch(1) };
pub const FENCING: Claim = Claim::Fencing { by: PARTY, epoch: Epoch(1) };
pub const MOVED: Claim = Claim::Moved { to: PARTY, epoch: Epoch(1) };
const PARTY: PartyId = PartyId::new(1).unwrap();

/// An agent, and the directory of its socket.
pub struct TestNode {
    pub agent: Option<Agent>,
    pub config: AgentConfig,
    _directory: tempfile::TempDir,
}

impl TestNode {
    /// With small boxes, changed by `change`.
    pub fn start(change: impl FnOnce(&mut AgentConfig)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = AgentConfig::at(directory.path().join("node.sock"));
        config.capacity = 32;
        config.claims = 16;
        config.state_words = 1 << 14;
        change(&mut config);
        let agent = Some(Agent::start(config.clone()).unwrap());
        TestNode { agent, config, _directory: directory }
    }

    pub fn socket(&self) -> PathBuf {
        self.config.socket.clone()
    }

    pub fn attach(&self) -> Monitor {
        Monitor(attach_local(self.socket()).unwrap())
    }

    /// Runs one ignored test of this test binary in a process of its own.
    pub fn spawn(&self, test: &str) -> Killed {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([test, "--exact", "--ignored", "--nocapture"]).env(SOCKET_VARIABLE, self.socket());
        Killed(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
    }
}

/// In a process of [`TestNode::spawn`]: where the agent is. `None` if somebody runs the ignored tests by hand.
pub fn socket_of_parent() -> Option<PathBuf> {
    std::env::var_os(SOCKET_VARIABLE).map(Into::into)
}

/// A child that does not outlive the test.
pub struct Killed(pub Child);

impl Killed {
    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until `condition` holds, at most ten seconds.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What a READ of the node tells of one entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entity {
    pub slot: Slot,
    pub record: EntityRecord,
    pub liveness: Liveness,
}

/// An attached node, read whole.
pub struct Monitor(pub Attachment<ShmTransport>);

impl Monitor {
    fn run(&mut self, operation: Operation) -> Result<Done, TransportError> {
        let mut completions = Vec::new();
        self.0.transport().post(&[WorkRequest { id: WorkId(1), operation }]).unwrap();
        self.0.transport().poll(&mut completions);
        let [Completion { result, .. }] = completions[..] else { panic!("{completions:?}") };
        result
    }

    pub fn read(&mut self, key: RegionKey, offset: u64, words: u64) -> Result<Vec<u64>, TransportError> {
        let buffer = self.0.transport().allocate(words as usize).unwrap();
        let into = LocalSlice::start_of(buffer);
        let result = self.run(Operation::Read { from: RemoteSlice { key, offset, words }, into });
        let copy = self.0.transport().buffer(buffer).unwrap().to_vec();
        self.0.transport().release(buffer).unwrap();
        result.map(|_| copy)
    }

    pub fn write(&mut self, key: RegionKey, offset: u64) -> Result<Done, TransportError> {
        let from = LocalSlice::start_of(self.0.transport().allocate(1).unwrap());
        self.run(Operation::Write { from, to: RemoteSlice { key, offset, words: 1 } })
    }

    pub fn claim(&mut self, claim: u32, expected: u64, new: u64) -> Result<Done, TransportError> {
        self.run(Operation::CompareSwap { key: CLAIMS, offset: u64::from(claim), expected, new })
    }

    pub fn read_all(&mut self, key: RegionKey) -> Vec<u64> {
        let words = self.0.transport().region_words(key).unwrap();
        self.read(key, 0, words as u64).unwrap()
    }

    pub fn gauges(&mut self) -> Vec<u64> {
        let words = self.read_all(PROGRESS_BOX);
        words[Header::read(&words).unwrap().geometry.gauges()].to_vec()
    }

    /// All entities that are not free.
    pub fn entities(&mut self) -> Vec<Entity> {
        let words = self.read_all(PROGRESS_BOX);
        let geometry = Header::read(&words).unwrap().geometry;
        let liveness = &words[geometry.liveness()];
        let known = read_directory(&words[geometry.directory()]).filter_map(|(slot, record)| {
            let liveness = Liveness(liveness[slot.index()]);
            let record = record.ok().flatten().filter(|_| liveness.state() != EntityState::Free)?;
            Some(Entity { slot, record, liveness })
        });
        known.collect()
    }

    pub fn find(&mut self, name: &str) -> Option<Entity> {
        self.entities().into_iter().find(|entity| entity.record.name.as_str() == name)
    }

    /// The committed state of an entity.
    pub fn state(&mut self, entity: &Entity) -> Result<(u64, Vec<u8>), StateBoxError> {
        let location = entity.record.state_box.expect("it keeps a State Box");
        let words = self.read(STATE_BOXES, location.offset, location.words).unwrap();
        let view = StateBoxView::read(&words)?;
        assert_eq!(view.head().session(), entity.record.session);
        view.committed().map(|committed| (committed.sequence, committed.payload.to_vec()))
    }
}
