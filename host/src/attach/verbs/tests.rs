//! The connector against a real agent with a card that only keeps books, and against what is no agent.

use std::io::{Read, Write};
use std::net::TcpListener;

use backdoor_transports::verbs::Link as Network;

use super::*;
use crate::agent::fake::{FakeNode, endpoint, wait_for};
use crate::protocol::{CLAIMS, STATE_BOXES};

/// A connector to this address, whose key is a node's.
fn connector(host: &str, node: &FakeNode) -> Connector {
    let address = VerbsAddress { key: node.key_file(), ..VerbsAddress::new(host) };
    Connector::new(&address, Control::default()).unwrap()
}

fn connector_to(node: &FakeNode) -> Connector {
    connector(&node.agent.remote_address().unwrap().to_string(), node)
}

fn meet(connector: &mut Connector) -> Result<Peer, RemoteError> {
    connector.connect(&endpoint(Network::Ethernet)).map_err(|error| *error.downcast::<RemoteError>().unwrap())
}

fn error(connector: &mut Connector) -> RemoteError {
    meet(connector).map(|_| ()).unwrap_err()
}

/// A listener that answers every connection with these bytes; and its address.
fn listener_that_says(bytes: &'static [u8]) -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let accepting = listener.try_clone().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = accepting.accept() {
            let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    (listener, address)
}

#[test]
fn the_agents_queue_pair_lives_as_long_as_ours() {
    let node = FakeNode::start(|_| {});
    let mut connector = connector_to(&node);
    let control = connector.control.clone();
    let peer = meet(&mut connector).unwrap();
    assert_eq!(peer.endpoint, endpoint(Network::Ethernet));
    assert_eq!(peer.regions.len(), 4);
    let table = peer.regions.iter().find(|region| region.region_key() == HOOK_TABLE).unwrap();
    assert_eq!((control.incarnation(), control.hook_table_words() as u64), (node.agent.incarnation(), table.words));
    assert_eq!((control.gone(), control.trouble()), (false, None));
    assert_eq!(node.card.queue_pairs(), 1);
    drop(peer);
    wait_for("the agent's queue pair goes", || node.card.queue_pairs() == 0);
    assert!(!control.gone(), "a channel that broke says nothing about the agent");
}

#[test]
fn a_restarted_agent_is_found_again_and_until_then_gone() {
    let mut node = FakeNode::start(|_| {});
    let mut connector = connector_to(&node);
    let control = connector.control.clone();
    let peer = meet(&mut connector).unwrap();
    let (address, before) = (node.agent.remote_address().unwrap(), control.incarnation());
    drop(node);
    assert!(!control.gone(), "nobody has looked yet");
    drop(peer);
    assert!(!control.gone());
    let why = error(&mut connector);
    assert!(matches!(why, RemoteError::NobodyListens { .. }), "{why}");
    assert_eq!((control.gone(), control.trouble()), (true, Some(why.to_string())));
    assert_eq!(control.incarnation(), before);

    node = FakeNode::start(|remote| remote.listen = address);
    let peer = meet(&mut connector).unwrap();
    assert_eq!((control.gone(), control.trouble()), (false, None));
    assert_eq!(control.incarnation(), node.agent.incarnation());
    assert_ne!(control.incarnation(), before);
    drop(peer);
}

#[test]
fn trouble_with_the_card_is_told_until_the_channel_opens() {
    let node = FakeNode::start(|_| {});
    let mut connector = connector_to(&node);
    let control = connector.control.clone();
    let peer = meet(&mut connector).unwrap();
    drop(peer);
    connector.failed(&VerbsError::NoDevice);
    assert_eq!((control.gone(), control.trouble()), (false, Some(VerbsError::NoDevice.to_string())));
    let _peer = meet(&mut connector).unwrap();
    assert_eq!(control.trouble(), None);
}

#[test]
fn what_was_revoked_meanwhile_is_not_offered_any_more() {
    let node = FakeNode::start(|_| {});
    let mut connector = connector_to(&node);
    let keys = |peer: &Peer| peer.regions.iter().map(|region| region.region_key()).collect::<Vec<_>>();
    assert!(keys(&meet(&mut connector).unwrap()).contains(&STATE_BOXES));
    node.agent.revoke(STATE_BOXES).unwrap();
    node.agent.revoke(HOOK_TABLE).unwrap();
    let peer = meet(&mut connector).unwrap();
    assert_eq!(keys(&peer), [crate::protocol::PROGRESS_BOX, CLAIMS]);
    assert!(connector.control.hook_table_words() > 0, "how long it was is still known");
}

#[test]
fn a_later_connection_is_not_closed_by_the_end_of_an_earlier() {
    let node = FakeNode::start(|_| {});
    let mut connector = connector_to(&node);
    let first = meet(&mut connector).unwrap();
    let _second = meet(&mut connector).unwrap();
    drop(first);
    assert!(matches!(connector.control.known().line, Line::Open(_)));
    wait_for("one queue pair is left", || node.card.queue_pairs() == 1);
}

#[test]
fn refusals_are_passed_on() {
    let node = FakeNode::start(|remote| remote.max_monitors = 1);
    let mut connector = connector_to(&node);
    let _peer = meet(&mut connector).unwrap();
    let why = error(&mut connector_to(&node));
    assert!(matches!(why, RemoteError::Refused { reason: Reason::TooManyMonitors, .. }), "{why}");
    let why = connector.connect(&endpoint(Network::InfiniBand)).map(|_| ()).unwrap_err().to_string();
    assert!(why.contains("refused"), "{why}");
}

#[test]
fn another_key_names_the_file_to_replace() {
    let node = FakeNode::start(|remote| remote.key = SetupKey::from_bytes([9; 32]));
    let why = error(&mut connector_to(&node));
    assert!(matches!(why, RemoteError::WrongKey { .. }), "{why}");
    let (why, file) = (why.to_string(), node.key_file().display().to_string());
    assert!(why.contains(&file) && why.contains("copy"), "{why}");
}

#[test]
fn what_is_no_agent_of_ours_is_told_and_not_taken_for_gone() {
    let node = FakeNode::start(|_| {});
    let (_http, address) = listener_that_says(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let mut to_http = connector(&address, &node);
    let text = error(&mut to_http).to_string();
    assert_eq!(text, format!("what listens at {address} is no agent: it said \"HTTP/1.1 400\""));
    assert_eq!((to_http.control.gone(), to_http.control.trouble()), (false, Some(text)));

    let (_newer, address) = listener_that_says(b"BackDoor\0\0\0\x09");
    let text = error(&mut connector(&address, &node)).to_string();
    let ours = format!("version 9, this program version {SETUP_VERSION}");
    assert!(text.contains(&ours) && text.contains(&address), "{text}");
}

#[test]
fn a_missing_key_is_told_before_anything_is_tried() {
    let address = VerbsAddress { key: "/nonexistent/key".into(), ..VerbsAddress::new("127.0.0.1:1") };
    let error = attach_verbs(&address).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/key") && error.contains("copy"), "{error}");
}

#[test]
fn hosts_are_found_by_name_and_shown_with_their_address() {
    let node = FakeNode::start(|_| {});
    let port = node.agent.remote_address().unwrap().port();
    meet(&mut connector(&format!("localhost:{port}"), &node)).unwrap();
    let host = Host::parse("node1").unwrap();
    assert_eq!(host.shown(&"10.0.0.1:7471".parse().unwrap()), "node1:7471 (10.0.0.1)");
    let host = Host::parse("[fe80::1]").unwrap();
    assert_eq!(host.shown(&"[fe80::1]:7471".parse().unwrap()), "[fe80::1]:7471");
    let error = Host::parse("no-such-host.invalid").unwrap().resolve().unwrap_err().to_string();
    assert!(error.contains("no-such-host.invalid"), "{error}");
}

#[test]
fn addresses_are_read_as_people_write_them() {
    let parsed = |text: &str| Host::parse(text).map(|host| (host.name, host.port)).ok();
    let host = |name: &str, port| Some((name.to_owned(), port));
    assert_eq!(parsed("node1"), host("node1", DEFAULT_PORT));
    assert_eq!(parsed("node1.example:99"), host("node1.example", 99));
    assert_eq!(parsed("10.0.0.1:65535"), host("10.0.0.1", 65535));
    assert_eq!(parsed("[::1]"), host("::1", DEFAULT_PORT));
    assert_eq!(parsed("[fe80::1%eth0]:99"), host("fe80::1%eth0", 99));
    for wrong in ["", ":99", "node1:", "node1:0", "node1:65536", "node1:x", "::1", "[::1", "[::1]99", "[node1]", "a b"]
    {
        let error = Host::parse(wrong).unwrap_err();
        assert!(error.to_string().contains("in brackets"), "{wrong}: {error}");
    }
}
