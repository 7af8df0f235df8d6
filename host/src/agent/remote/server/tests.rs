//! An agent with a card that only keeps books, and monitors of all kinds.

use std::io::{Read, Write};

use backdoor_transports::verbs::Link;

use super::super::fake::{FakeNode, endpoint, key, wait_for};
use super::*;
use crate::agent::{Agent, AgentConfig, AgentError};
use crate::app::Node;
use crate::protocol::{CLAIMS, HOOK_TABLE, PROGRESS_BOX, STATE_BOXES};
use crate::wire::ConnectionError;

fn connected(node: &FakeNode) -> (Vec<RemoteRegion>, TcpStream) {
    match node.ask(&key(), Link::Ethernet).unwrap() {
        (Answer::Connected { regions, .. }, stream) => (regions, stream),
        other => panic!("{other:?}"),
    }
}

fn refused(node: &FakeNode, link: Link) -> (Reason, String) {
    match node.ask(&key(), link).unwrap().0 {
        Answer::Refused { reason, message } => (reason, message),
        other => panic!("{other:?}"),
    }
}

fn ends(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    match stream.read(&mut [0; 64]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn a_monitor_gets_a_queue_pair_for_as_long_as_it_is_connected() {
    let node = FakeNode::start(|_| {});
    assert_eq!(node.status().remote_monitors, 0);
    let (answer, stream) = node.ask(&key(), Link::Ethernet).unwrap();
    let Answer::Connected { endpoint: theirs, incarnation, regions } = answer else { panic!("{answer:?}") };
    assert_eq!((theirs, incarnation), (endpoint(Link::Ethernet), node.agent.incarnation()));
    let rights: Vec<_> = regions.iter().map(|region| (region.region_key(), region.rights().unwrap())).collect();
    let claims = Rights::READ | Rights::COMPARE_SWAP;
    let right =
        [(HOOK_TABLE, Rights::READ), (PROGRESS_BOX, Rights::READ), (STATE_BOXES, Rights::READ), (CLAIMS, claims)];
    assert_eq!(rights, right);
    assert_eq!(node.card.regions(), right);
    assert_eq!((node.card.queue_pairs(), node.status().remote_monitors), (1, 1));
    let (_, second) = connected(&node);
    assert_eq!((node.card.queue_pairs(), node.status().remote_monitors), (2, 2));
    drop(stream);
    wait_for("the first queue pair goes", || node.card.queue_pairs() == 1);
    wait_for("its place is free", || node.status().remote_monitors == 1);
    // One that breaks off instead of closing properly.
    rustix::net::sockopt::set_socket_linger(&second, Some(Duration::ZERO)).unwrap();
    drop(second);
    wait_for("the second queue pair goes", || node.card.queue_pairs() == 0);
    assert_eq!(node.status().remote_turned_away, 0);
}

#[test]
fn one_monitor_too_many_is_refused_and_told() {
    let node = FakeNode::start(|remote| remote.max_monitors = 2);
    let (_, first) = connected(&node);
    let (_, _second) = connected(&node);
    let (reason, message) = refused(&node, Link::Ethernet);
    assert_eq!(reason, Reason::TooManyMonitors);
    assert!(message.contains("2 monitors"), "{message}");
    wait_for("the refusal is counted", || node.status().remote_turned_away == 1);
    assert_eq!(node.agent.take_turned_away(), [format!("127.0.0.1: refused the monitor tester: {message}")]);
    assert_eq!(node.agent.take_turned_away(), [""; 0]);
    assert_eq!(node.card.queue_pairs(), 2);
    drop(first);
    wait_for("there is room again", || node.status().remote_monitors == 1);
    connected(&node);
}

#[test]
fn a_monitor_on_another_kind_of_network_is_refused_and_told() {
    let node = FakeNode::start(|_| {});
    let (reason, message) = refused(&node, Link::InfiniBand);
    assert_eq!(reason, Reason::OtherLink);
    assert!(message.contains("InfiniBand") && message.contains("Ethernet"), "{message}");
    wait_for("nothing is kept for it", || (node.card.queue_pairs(), node.status().remote_monitors) == (0, 0));
}

#[test]
fn a_wrong_key_is_refused_and_counted() {
    let node = FakeNode::start(|_| {});
    let error = node.ask(&SetupKey::from_bytes([8; 32]), Link::Ethernet).unwrap_err();
    assert!(matches!(error, ChannelError::WrongKey), "{error}");
    wait_for("the refusal is counted", || node.status().remote_turned_away == 1);
    assert_eq!(node.agent.take_turned_away(), ["127.0.0.1: the other end has another key"]);
    assert_eq!((node.card.queue_pairs(), node.status().remote_monitors), (0, 0));
    connected(&node);
}

#[test]
fn notices_are_bounded() {
    let node = FakeNode::start(|_| {});
    let many = MAX_NOTICES + 5;
    for _ in 0..many {
        node.dial().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    }
    wait_for("all are counted", || node.status().remote_turned_away == many as u64);
    let notices = node.agent.take_turned_away();
    assert_eq!(notices.len(), MAX_NOTICES);
    assert!(notices[0].contains("it said \"GET"), "{}", notices[0]);
}

#[test]
fn a_revoked_region_is_taken_from_the_card_and_told_to_nobody() {
    let node = FakeNode::start(|_| {});
    let (before, _first) = connected(&node);
    node.agent.revoke(STATE_BOXES).unwrap();
    let claims = Rights::READ | Rights::COMPARE_SWAP;
    assert_eq!(
        node.card.regions(),
        [(HOOK_TABLE, Rights::READ), (PROGRESS_BOX, Rights::READ), (CLAIMS, claims)],
        "while a monitor is connected"
    );
    assert_eq!(node.card.queue_pairs(), 1, "which keeps its queue pair");
    let (meanwhile, _second) = connected(&node);
    assert!(meanwhile.iter().all(|region| region.region_key() != STATE_BOXES) && meanwhile.len() == 3);
    assert_eq!(node.agent.revoke(STATE_BOXES), Ok(()), "it is so already");

    node.agent.restore(STATE_BOXES).unwrap();
    let (after, _third) = connected(&node);
    let card_key = |regions: &[RemoteRegion]| regions.iter().find(|region| region.key == STATE_BOXES.0).unwrap().rkey;
    assert_ne!(card_key(&before), card_key(&after));
    assert_eq!(node.card.regions().len(), 4);
    let registered = card_key(&after);
    node.agent.restore(STATE_BOXES).unwrap();
    assert_eq!(card_key(&connected(&node).0), registered, "it is so already");
    assert_eq!(node.agent.revoke(RegionKey(9)), Err(OfferError::Unknown { key: 9 }));
}

#[test]
fn regions_are_revoked_and_restored_over_the_socket() {
    let node = FakeNode::start(|_| {});
    let local = node.local();
    local.revoke(PROGRESS_BOX).unwrap();
    assert_eq!(node.card.regions().len(), 3);
    node.card.refuse(true);
    let error = local.restore(PROGRESS_BOX).unwrap_err();
    let ConnectionError::Refused { reason: crate::protocol::Reason::Internal, message } = error else {
        panic!("{error}")
    };
    assert!(message.contains("region 2") && message.contains("the test says so"), "{message}");
    node.card.refuse(false);
    local.restore(PROGRESS_BOX).unwrap();
    assert_eq!(node.card.regions().len(), 4);
    let error = local.revoke(RegionKey(77)).unwrap_err().to_string();
    assert!(error.contains("no region 77"), "{error}");
}

#[test]
fn an_agent_for_this_machine_only_has_nothing_to_revoke() {
    let directory = tempfile::tempdir().unwrap();
    let agent = Agent::start(AgentConfig::at(directory.path().join("node.sock"))).unwrap();
    assert_eq!((agent.revoke(CLAIMS), agent.remote_address()), (Err(OfferError::LocalOnly), None));
    let error = Node::connect(directory.path().join("node.sock")).unwrap().revoke(CLAIMS).unwrap_err();
    assert!(matches!(error, ConnectionError::Refused { reason: crate::protocol::Reason::Invalid, .. }), "{error}");
}

#[test]
fn strangers_who_say_nothing_keep_nobody_out() {
    let node = FakeNode::start(|remote| remote.max_monitors = 2);
    let (_, monitor) = connected(&node);
    let mut strangers: Vec<_> = (0..MAX_STRANGERS + 3).map(|_| node.dial()).collect();
    let (_, second) = connected(&node);
    // Three of the strangers were too many, and the second monitor was one itself when it came.
    wait_for("the oldest have to go", || node.status().remote_turned_away == 4);
    let (oldest, rest) = strangers.split_at_mut(4);
    assert!(oldest.iter_mut().all(ends));
    for stranger in rest {
        stranger.set_nonblocking(true).unwrap();
        let nothing = stranger.read(&mut [0]).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock, "the others have time yet");
    }
    assert_eq!(node.card.queue_pairs(), 2, "monitors stay, however old");
    drop((monitor, second, strangers));
    wait_for("all are gone", || (node.card.queue_pairs(), node.status().remote_monitors) == (0, 0));
}

#[test]
fn a_stranger_who_says_nothing_is_not_borne_for_ever() {
    let node = FakeNode::try_start_with(|config| config.greeting_timeout = Nanos::from_millis(50)).unwrap();
    assert!(ends(&mut node.dial()));
    wait_for("it is counted", || node.status().remote_turned_away == 1);
    assert_eq!(
        node.agent.take_turned_away(),
        ["127.0.0.1: the other end does not speak this protocol: it said nothing"]
    );
}

#[test]
fn a_monitor_has_nothing_more_to_say() {
    let node = FakeNode::start(|_| {});
    let (_, mut stream) = connected(&node);
    stream.write_all(b"and another thing").unwrap();
    assert!(ends(&mut stream));
    wait_for("its queue pair goes", || node.card.queue_pairs() == 0);
}

#[test]
fn requests_that_make_no_sense_are_survived() {
    let node = FakeNode::start(|_| {});
    for request in [
        serde_json::json!(null),
        serde_json::json!({"request": "dance"}),
        serde_json::json!({"request": "connect", "endpoint": {}, "monitor": "x"}),
        serde_json::json!({"request": "connect", "endpoint": endpoint(Link::Ethernet), "monitor": 7}),
    ] {
        let stream = node.dial();
        let mut channel = Channel::initiate(&stream, &key(), Instant::now() + Duration::from_secs(20)).unwrap();
        channel.send(&request).unwrap();
        assert!(matches!(channel.receive::<Answer>(), Err(ChannelError::Closed)));
    }
    wait_for("all are counted", || node.status().remote_turned_away == 4);
    connected(&node);
}

#[test]
fn the_end_of_the_agent_ends_everything() {
    let node = FakeNode::start(|_| {});
    let (_, mut stream) = connected(&node);
    let mut stranger = node.dial();
    let card = node.card.clone();
    drop(node);
    assert_eq!((card.queue_pairs(), card.regions()), (0, Vec::new()));
    assert!(ends(&mut stream) && ends(&mut stranger));
}

#[test]
fn a_port_that_is_taken_is_told() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    let error = FakeNode::try_start(|remote| remote.listen = taken).map(|_| ()).unwrap_err();
    assert!(matches!(error, AgentError::Listen { address, .. } if address == taken), "{error}");
}

#[test]
fn settings_that_can_not_be_are_refused() {
    let refused = |change: fn(&mut RemoteConfig)| match FakeNode::try_start(change).map(|_| ()) {
        Err(AgentError::Config(why)) => why,
        other => panic!("{other:?}"),
    };
    assert!(refused(|remote| remote.max_monitors = 0).contains("max_monitors"));
    assert!(refused(|remote| remote.vanished_after = Nanos::from_secs(2)).contains("vanished_after"));
}
