//! Peers that send nonsense, say nothing, or do not listen: they get an error or are let go, and nobody else notices.

mod common;

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_host::app::Node;
use backdoor_host::attach::{AttachError, attach_local};
use backdoor_host::protocol::{Answer, MAX_PACKET_BYTES, Reason, Request, decode, encode};
use backdoor_host::wire::{Connection, ConnectionError};
use common::{RELAXED, TestNode, wait_for};
use proptest::prelude::*;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType};

fn raw_socket() -> OwnedFd {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_secs(10))).unwrap();
    socket
}

fn raw_peer(path: &Path) -> OwnedFd {
    let socket = raw_socket();
    rustix::net::connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    socket
}

fn send(peer: &OwnedFd, packet: &[u8]) {
    rustix::net::send(peer, packet, SendFlags::NOSIGNAL).unwrap();
}

/// The next answer; `None` at the end of the connection.
fn answer(peer: &OwnedFd) -> Option<Answer> {
    let mut packet = [MaybeUninit::uninit(); MAX_PACKET_BYTES];
    let ((packet, _), _) = rustix::net::recv(peer, &mut packet, RecvFlags::empty()).unwrap();
    (!packet.is_empty()).then(|| decode(packet).unwrap())
}

fn refusal(peer: &OwnedFd) -> (Reason, String) {
    match answer(peer) {
        Some(Answer::Refused { reason, message }) => (reason, message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn another_version_is_told_both() {
    let test = TestNode::start(|_| {});
    let peer = raw_peer(&test.socket());
    send(&peer, br#"{"version":6,"request":"attach"}"#);
    let (reason, message) = refusal(&peer);
    assert_eq!(reason, Reason::WrongVersion);
    assert!(message.contains("version 6") && message.contains("version 7"), "{message}");
    send(&peer, &encode(&Request::Status {}));
    assert!(matches!(answer(&peer), Some(Answer::Status(_))), "the connection goes on");
}

#[test]
fn packets_too_long_or_empty_are_refused() {
    let test = TestNode::start(|_| {});
    let peer = raw_peer(&test.socket());
    send(&peer, &vec![b' '; MAX_PACKET_BYTES + 1]);
    assert_eq!(refusal(&peer).0, Reason::Malformed);
    send(&peer, b"");
    assert_eq!(refusal(&peer).0, Reason::Malformed);
    send(&peer, &vec![b'['; MAX_PACKET_BYTES]);
    assert_eq!(refusal(&peer).0, Reason::Malformed);
    let long_name = Request::Register { name: "n".repeat(3000), deadline_ns: 1 };
    send(&peer, &encode(&long_name));
    assert!(matches!(answer(&peer), Some(Answer::Registered { .. })), "a long name is cut");
}

#[test]
fn what_is_not_yours_is_refused() {
    let test = TestNode::start(|_| {});
    let node = Node::connect(test.socket()).unwrap();
    let app = node.register("kv", RELAXED).unwrap();
    let session = app.open_session("client", RELAXED, 100).unwrap();
    let before = node.status().unwrap();
    let peer = raw_peer(&test.socket());
    for application in [app.slot().0, 0, u32::MAX] {
        let name = "thief".into();
        send(
            &peer,
            &encode(&Request::OpenSession { application, name, deadline_ns: 1, state_bytes: 8, input_bytes: 0 }),
        );
        assert_eq!(refusal(&peer).0, Reason::NotYours);
        send(&peer, &encode(&Request::Depart { application }));
    }
    send(&peer, &encode(&Request::CloseSession { session: session.number() }));
    send(&peer, &encode(&Request::Status {}));
    assert_eq!(answer(&peer), Some(Answer::Status(before)), "notices about others have no effect and no answer");
}

#[test]
fn silent_peers_stall_nobody_and_are_let_go() {
    let test = TestNode::start(|config| {
        config.max_connections = 8;
        config.greeting_timeout = Nanos::from_millis(300);
    });
    let node = Node::connect(test.socket()).unwrap();
    node.status().unwrap();
    let silent: Vec<OwnedFd> = (0..7).map(|_| raw_peer(&test.socket())).collect();
    wait_for("the agent is busy", || match attach_local(test.socket()) {
        Err(AttachError::Connection(ConnectionError::Refused { reason: Reason::Busy, message })) => {
            message.contains("8 connections")
        }
        other => panic!("{other:?}"),
    });
    node.status().unwrap();
    wait_for("there is room again", || attach_local(test.socket()).is_ok());
    assert!(silent.iter().all(|peer| answer(peer).is_none()));
    node.status().unwrap();
}

#[test]
fn a_peer_that_takes_no_answers_is_let_go() {
    let test = TestNode::start(|_| {});
    let node = Node::connect(test.socket()).unwrap();
    let deaf = raw_peer(&test.socket());
    let mut sent = 0;
    // Its queue of answers fills up, then its requests are refused by a closed connection.
    while rustix::net::send(&deaf, &encode(&Request::Status {}), SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
        != Err(rustix::io::Errno::PIPE)
    {
        sent += 1;
        assert!(sent < 10_000_000, "never let go");
        if sent % 64 == 0 {
            node.status().unwrap();
        }
    }
    node.status().unwrap();
}

/// Answers every packet with `reply`, in place of an agent.
fn impostor(reply: &'static [u8]) -> (tempfile::TempDir, std::thread::JoinHandle<()>) {
    let directory = tempfile::tempdir().unwrap();
    let socket = raw_socket();
    rustix::net::bind(&socket, &SocketAddrUnix::new(directory.path().join("node.sock")).unwrap()).unwrap();
    rustix::net::listen(&socket, 1).unwrap();
    let thread = std::thread::spawn(move || {
        let peer = rustix::net::accept(&socket).unwrap();
        let mut packet = [MaybeUninit::uninit(); MAX_PACKET_BYTES];
        rustix::net::recv(&peer, &mut packet, RecvFlags::empty()).unwrap();
        send(&peer, reply);
    });
    (directory, thread)
}

#[test]
fn an_impostor_is_found_out() {
    let wrong = br#"{"version":7,"answer":"attached","incarnation":1,"regions":[{"key":1,"words":99,"rights":1,"writable":false}]}"#;
    let cases: [(&'static [u8], &str); 5] = [
        (b"hello", "no agent"),
        (b"", "closed the connection"),
        (br#"{"version":7,"answer":"status","incarnation":1,"entities":0,"capacity":0,"applications":0,"sessions":0,"orphans":0,"free_state_words":0,"state_words":0,"queues":0,"max_queues":0,"remote_monitors":0,"remote_turned_away":0}"#, "no agent"),
        (br#"{"version":9,"answer":"attached"}"#, "version 9, this program version 7"),
        (wrong, "described 1 regions and sent 0"),
    ];
    for (reply, expected) in cases {
        let (directory, thread) = impostor(reply);
        let error = attach_local(directory.path().join("node.sock")).unwrap_err().to_string();
        thread.join().unwrap();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn any_garbage_is_answered_and_survived() {
    let test = TestNode::start(|_| {});
    let node = Node::connect(test.socket()).unwrap();
    let field = prop_oneof![
        Just("\"attach\"".to_owned()),
        Just("\"register\"".to_owned()),
        Just("\"open_session\"".to_owned()),
        Just("18446744073709551616".to_owned()),
        Just("-1".to_owned()),
        Just("null".to_owned()),
        ".{0,9}".prop_map(|text| format!("{text:?}")),
    ];
    let nearly = (0u32..3, field.clone(), field.clone(), field).prop_map(|(version, a, b, c)| {
        format!("{{\"version\":{version},\"request\":{a},\"name\":{b},\"deadline_ns\":{c},\"application\":{c}}}")
            .into_bytes()
    });
    let garbage = prop_oneof![proptest::collection::vec(any::<u8>(), 1..200), nearly];
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    runner
        .run(&garbage, |packet| {
            let peer = raw_peer(&test.socket());
            send(&peer, &packet);
            prop_assert!(answer(&peer).is_some());
            Ok(())
        })
        .unwrap();
    let status = node.status().unwrap();
    assert_eq!((status.sessions, node.agent_alive()), (0, true));
    // Connections above have ended; a well-behaved one is served as ever.
    Connection::connect(&test.socket()).unwrap().request(&Request::Attach {}).unwrap();
}
