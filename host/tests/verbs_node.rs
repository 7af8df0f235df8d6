//! A node and its monitor over a real network card. Needs an RDMA device (Soft-RoCE will do) and is therefore run only
//! when asked for, and then fails if there is none:
//!
//! ```text
//! cargo test -p backdoor-host --features verbs --test verbs_node -- --ignored --test-threads 1
//! ```
#![cfg(feature = "verbs")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use backdoor_core::Nanos;
use backdoor_core::hook_table::HookTable;
use backdoor_core::progress_box::Header;
use backdoor_core::takeover::Ownership;
use backdoor_core::transport::{
    ChannelState, Completion, Done, LocalSlice, Operation, RegionKey, RemoteSlice, Transport, TransportError, WorkId,
    WorkRequest,
};
use backdoor_host::agent::{Agent, AgentConfig, RemoteConfig};
use backdoor_host::app::Node;
use backdoor_host::attach::{AgentLink, NodeAddress, RemoteError, VerbsAddress, attach, attach_local};
use backdoor_host::protocol::{CLAIMS, HOOK_TABLE, PROGRESS_BOX, STATE_BOXES};
use backdoor_host::remote::SetupKey;

struct TestNode {
    agent: Option<Agent>,
    directory: tempfile::TempDir,
}

impl TestNode {
    fn start() -> Self {
        let mut node = TestNode { agent: None, directory: tempfile::tempdir().unwrap() };
        node.restart("127.0.0.1:0".parse().unwrap());
        node
    }

    fn restart(&mut self, listen: SocketAddr) {
        let mut config = AgentConfig::at(self.directory.path().join("node.sock"));
        (config.capacity, config.claims, config.state_words) = (32, 16, 1 << 14);
        let key = SetupKey::load_or_create(&self.directory.path().join("key")).unwrap();
        config.remote = Some(RemoteConfig::at(listen, key));
        self.agent = Some(Agent::start(config).unwrap());
    }

    fn agent(&self) -> &Agent {
        self.agent.as_ref().unwrap()
    }

    fn address(&self) -> VerbsAddress {
        let host = self.agent().remote_address().unwrap().to_string();
        VerbsAddress { key: self.directory.path().join("key"), ..VerbsAddress::new(host) }
    }

    fn local(&self) -> Node {
        Node::connect(self.directory.path().join("node.sock")).unwrap()
    }

    fn attach(&self) -> Monitor {
        let (transport, link) = attach(&NodeAddress::Verbs(self.address())).unwrap().into_parts();
        Monitor { transport, link }
    }
}

struct Monitor {
    transport: Box<dyn Transport + Send>,
    link: AgentLink,
}

impl Monitor {
    fn run(&mut self, operation: Operation) -> Result<Done, TransportError> {
        self.transport.post(&[WorkRequest { id: WorkId(1), operation }]).unwrap();
        let mut completions = Vec::new();
        wait_for("the completion", || {
            self.transport.poll(&mut completions);
            !completions.is_empty()
        });
        let [Completion { result, .. }] = completions[..] else { panic!("{completions:?}") };
        result
    }

    fn read(&mut self, key: RegionKey, words: u64) -> Result<Vec<u64>, TransportError> {
        let into = LocalSlice::start_of(self.transport.allocate(words as usize).unwrap());
        let result = self.run(Operation::Read { from: RemoteSlice { key, offset: 0, words }, into });
        let copy = self.transport.buffer(into.buffer).unwrap().to_vec();
        self.transport.release(into.buffer).unwrap();
        result.map(|_| copy)
    }

    /// Tries to open the channel again; answers what came of it.
    fn reopen(&mut self) -> ChannelState {
        self.transport.reopen();
        wait_for("the end of the attempt", || {
            self.transport.poll(&mut Vec::new());
            self.transport.channel() != ChannelState::Opening
        });
        self.transport.channel()
    }

    fn hook_table(&mut self) -> HookTable {
        let words = self.link.hook_table_words() as u64;
        HookTable::read(&self.read(HOOK_TABLE, words).unwrap()).unwrap()
    }
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_monitor_reaches_what_it_may_and_nothing_else() {
    let node = TestNode::start();
    let mut monitor = node.attach();
    assert_eq!(monitor.link.incarnation(), node.agent().incarnation());
    assert_eq!(monitor.hook_table().incarnation, node.agent().incarnation());
    assert_eq!(node.local().status().unwrap().remote_monitors, 1);

    let (local, _) = attach_local(node.directory.path().join("node.sock")).unwrap().into_parts();
    let words = local.region_words(PROGRESS_BOX).unwrap() as u64;
    let progress = monitor.read(PROGRESS_BOX, words).unwrap();
    let liveness = Header::read(&progress).unwrap().geometry.liveness();
    wait_for("the system's counter advances", || {
        monitor.read(PROGRESS_BOX, words).unwrap()[liveness.start] > progress[liveness.start]
    });

    let app = node.local().register("kv", Nanos::from_secs(60)).unwrap();
    app.progress().advance();
    let mut session = app.open_session("client", Nanos::from_secs(60), 64).unwrap();
    session.commit(b"balance = 7").unwrap();
    let states = monitor.read(STATE_BOXES, 64).unwrap();
    assert!(bytes(&states).windows(11).any(|window| window == b"balance = 7"));

    let claim = Operation::CompareSwap { key: CLAIMS, offset: 0, expected: 0, new: 99 };
    assert_eq!(monitor.run(claim), Ok(Done::CompareSwapped { previous: 0 }));
    assert_eq!(session.ownership(), Ownership::Lost, "the service sees what the card has changed");

    for key in [HOOK_TABLE, PROGRESS_BOX, STATE_BOXES, CLAIMS] {
        let from = LocalSlice::start_of(monitor.transport.allocate(1).unwrap());
        let write = Operation::Write { from, to: RemoteSlice { key, offset: 0, words: 1 } };
        assert_eq!(monitor.run(write), Err(TransportError::Refused), "{key:?}");
        assert_eq!(monitor.reopen(), ChannelState::Open);
    }
    for key in [HOOK_TABLE, PROGRESS_BOX, STATE_BOXES] {
        let swap = Operation::CompareSwap { key, offset: 0, expected: 0, new: 1 };
        assert_eq!(monitor.run(swap), Err(TransportError::Refused), "{key:?}");
        assert_eq!(monitor.reopen(), ChannelState::Open);
    }
    drop(monitor);
    wait_for("the node forgets the monitor", || node.local().status().unwrap().remote_monitors == 0);
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_revoked_region_is_out_of_reach_at_once_and_comes_back() {
    let node = TestNode::start();
    let mut monitor = node.attach();
    monitor.read(STATE_BOXES, 8).unwrap();
    node.agent().revoke(STATE_BOXES).unwrap();
    assert_eq!(monitor.read(STATE_BOXES, 8), Err(TransportError::Refused));
    assert_eq!(monitor.reopen(), ChannelState::Open);
    assert_eq!(monitor.read(STATE_BOXES, 8), Err(TransportError::Refused));
    assert_eq!(monitor.reopen(), ChannelState::Open);
    monitor.hook_table();
    node.local().restore(STATE_BOXES).unwrap();
    assert_eq!(monitor.reopen(), ChannelState::Open);
    monitor.read(STATE_BOXES, 8).unwrap();
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_restarted_agent_is_found_again() {
    let mut node = TestNode::start();
    let mut monitor = node.attach();
    let (before, address) = (monitor.link.incarnation(), node.agent().remote_address().unwrap());
    drop(node.agent.take());
    assert_eq!(monitor.read(HOOK_TABLE, 1), Err(TransportError::Unreachable));
    assert!(!monitor.link.gone(), "nobody has looked yet");
    assert_eq!(monitor.reopen(), ChannelState::Broken);
    assert!(monitor.link.gone());
    let trouble = monitor.link.trouble().unwrap();
    assert!(trouble.contains("no agent listens"), "{trouble}");
    node.restart(address);
    assert_eq!(monitor.reopen(), ChannelState::Open);
    assert_eq!((monitor.link.gone(), monitor.link.trouble()), (false, None));
    assert_eq!(monitor.hook_table().incarnation, monitor.link.incarnation());
    assert_ne!(monitor.link.incarnation(), before);
}

#[test]
#[ignore = "needs an RDMA device"]
fn another_key_is_told() {
    let node = TestNode::start();
    let other = node.directory.path().join("other");
    SetupKey::load_or_create(&other).unwrap();
    let address = VerbsAddress { key: other, ..node.address() };
    let error = attach(&NodeAddress::Verbs(address)).unwrap_err();
    assert!(error.to_string().contains("another key"), "{error}");
    let error = attach(&NodeAddress::Verbs(VerbsAddress { key: "/nonexistent".into(), ..node.address() })).unwrap_err();
    let backdoor_host::attach::AttachError::Remote(RemoteError::Key(_)) = error else { panic!("{error}") };
}

fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
