//! Both ends over loopback TCP, and ends that do not keep to the rules.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

fn key(byte: u8) -> SetupKey {
    SetupKey::from_bytes([byte; 32])
}

/// A deadline that no test lets pass.
fn relaxed() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(300)
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (ours, listener.accept().unwrap().0)
}

/// What a responder says to a peer that does as it likes.
fn respond_to(peer: impl FnOnce(TcpStream) + Send + 'static) -> Result<(), ChannelError> {
    let (theirs, ours) = pair();
    let peer = thread::spawn(move || peer(theirs));
    let result = Channel::respond(&ours, &key(1), relaxed()).map(|_| ());
    drop(ours);
    peer.join().unwrap();
    result
}

/// The same for an initiator.
fn initiate_with(peer: impl FnOnce(TcpStream) + Send + 'static) -> Result<(), ChannelError> {
    let (ours, theirs) = pair();
    let peer = thread::spawn(move || peer(theirs));
    let result = Channel::initiate(&ours, &key(1), relaxed()).map(|_| ());
    drop(ours);
    peer.join().unwrap();
    result
}

/// Everything that arrives until the end.
fn drain(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

fn ended(mut stream: &TcpStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
}

fn say_and_end(peer: TcpStream, bytes: &[u8]) {
    ended(&peer, bytes);
    drain(peer);
}

#[test]
fn messages_come_through_both_ways() {
    let (client, server) = pair();
    let server = thread::spawn(move || {
        let mut channel = Channel::respond(&server, &key(1), relaxed()).unwrap();
        for _ in 0..3 {
            let heard: String = channel.receive().unwrap();
            channel.send(&format!("{heard}, indeed")).unwrap();
        }
    });
    let mut channel = Channel::initiate(&client, &key(1), relaxed()).unwrap();
    for said in ["one", "", "\u{1F512}"] {
        channel.send(&said).unwrap();
        assert_eq!(channel.receive::<String>().unwrap(), format!("{said}, indeed"));
    }
    server.join().unwrap();
    assert!(matches!(channel.receive::<String>(), Err(ChannelError::Closed)));
}

#[test]
fn nothing_is_said_in_the_clear() {
    let (client, relay_in) = pair();
    let (relay_out, server) = pair();
    let (mut back_in, mut back_out) = (relay_out.try_clone().unwrap(), relay_in.try_clone().unwrap());
    let tap = thread::spawn(move || {
        let (mut from, mut to, mut seen) = (relay_in, relay_out, Vec::new());
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            seen.extend_from_slice(&bytes[..count]);
            to.write_all(&bytes[..count]).unwrap();
        }
        let _ = to.shutdown(Shutdown::Write);
        seen
    });
    let back = thread::spawn(move || std::io::copy(&mut back_in, &mut back_out));
    let server = thread::spawn(move || {
        let mut channel = Channel::respond(&server, &key(1), relaxed()).unwrap();
        assert_eq!(channel.receive::<String>().unwrap(), "the rkey is 4711");
    });
    Channel::initiate(&client, &key(1), relaxed()).unwrap().send(&"the rkey is 4711").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    server.join().unwrap();
    let seen = tap.join().unwrap();
    assert!(seen.starts_with(b"BackDoor\0\0\0\x01"));
    assert!(!seen.windows(4).any(|window| window == b"rkey") && !seen.windows(8).any(|window| window == [1; 8]));
    drop(client);
    let _ = back.join();
}

#[test]
fn both_ends_learn_that_the_keys_differ() {
    let (client, server) = pair();
    let server = thread::spawn(move || Channel::respond(&server, &key(1), relaxed()).map(|_| ()));
    let error = Channel::initiate(&client, &key(2), relaxed()).map(|_| ()).unwrap_err();
    assert!(matches!(error, ChannelError::WrongKey), "{error}");
    let error = server.join().unwrap().unwrap_err();
    assert!(matches!(error, ChannelError::WrongKey), "{error}");
}

#[test]
fn both_ends_learn_that_the_versions_differ() {
    let check = |error: ChannelError| {
        assert!(matches!(error, ChannelError::WrongVersion { theirs: 0x0102_0304 }), "{error}");
        let text = error.to_string();
        assert!(text.contains("version 16909060") && text.contains(&format!("version {SETUP_VERSION}")), "{text}");
    };
    let other = b"BackDoor\x01\x02\x03\x04";
    check(
        respond_to(move |mut peer| {
            peer.write_all(other).unwrap();
            assert_eq!(drain(peer), preamble(), "the other version is told ours");
        })
        .unwrap_err(),
    );
    check(
        initiate_with(move |mut peer| {
            peer.write_all(other).unwrap();
            drain(peer);
        })
        .unwrap_err(),
    );
}

#[test]
fn what_is_no_agent_is_told_by_what_it_says() {
    for (said, shown) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "said \"HTTP/1.1 400\""),
        (b"SSH-2.0-", "said \"SSH-2.0-\""),
        (b"\0", "said \"\\x00\""),
        (b"", "closed the connection without a word"),
    ] {
        let error = initiate_with(move |peer| {
            ended(&peer, said);
            drain(peer);
        });
        let Err(ChannelError::NotOurs(why)) = error else { panic!("{error:?}") };
        assert_eq!(why, shown);
    }
}

#[test]
fn strangers_get_no_answer_from_a_node() {
    for said in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x02\0", b""] {
        let error = respond_to(move |peer| {
            ended(&peer, said);
            assert_eq!(drain(peer), b"");
        });
        assert!(matches!(error, Err(ChannelError::NotOurs(_))), "{error:?}");
    }
}

#[test]
fn silence_ends_at_the_deadline() {
    let (ours, _silent) = pair();
    let error = Channel::initiate(&ours, &key(1), soon()).map(|_| ()).unwrap_err();
    assert!(matches!(&error, ChannelError::NotOurs(why) if why == "said nothing"), "{error}");
    let (mut ours, server) = pair();
    ours.write_all(&preamble()).unwrap();
    let error = Channel::respond(&server, &key(1), soon()).map(|_| ()).unwrap_err();
    assert!(matches!(error, ChannelError::TooSlow), "{error}");
}

#[test]
fn the_deadline_is_for_everything_together() {
    let (mut ours, server) = pair();
    let dripping = thread::spawn(move || {
        for byte in preamble() {
            thread::sleep(Duration::from_millis(100));
            if ours.write_all(&[byte]).is_err() {
                return;
            }
        }
    });
    // No pause is as long as the time allowed; a deadline for each read would let the whole preamble in.
    let error = Channel::respond(&server, &key(1), soon()).map(|_| ()).unwrap_err();
    assert!(matches!(error, ChannelError::TooSlow), "{error}");
    drop(server);
    dripping.join().unwrap();
}

#[test]
fn a_peer_that_takes_nothing_is_not_waited_for() {
    let (client, server) = pair();
    let peer = thread::spawn(move || {
        let mut channel = Channel::respond(&server, &key(1), relaxed()).unwrap();
        channel.wire.deadline = soon();
        let endless = "x".repeat(MAX_MESSAGE_BYTES - 2);
        loop {
            if let Err(error) = channel.send(&endless) {
                return error;
            }
        }
    });
    let _channel = Channel::initiate(&client, &key(1), relaxed()).unwrap();
    let error = peer.join().unwrap();
    assert!(matches!(error, ChannelError::TooSlow), "{error}");
}

/// A responder that has shaken hands with a peer who then says these bytes.
fn after_the_handshake(bytes: &[u8]) -> ChannelError {
    let (client, server) = pair();
    let bytes = bytes.to_vec();
    let peer = thread::spawn(move || {
        let _ = Channel::initiate(&client, &key(1), relaxed()).unwrap();
        ended(&client, &bytes);
        drain(client);
    });
    let mut channel = Channel::respond(&server, &key(1), relaxed()).unwrap();
    let error = channel.receive::<serde_json::Value>().unwrap_err();
    drop(server);
    peer.join().unwrap();
    error
}

#[test]
fn frames_are_bounded_and_whole() {
    let longest = (MAX_MESSAGE_BYTES + TAG_BYTES) as u16;
    let error = after_the_handshake(&(longest + 1).to_be_bytes());
    assert!(matches!(error, ChannelError::TooLong { bytes } if bytes == MAX_MESSAGE_BYTES + 1), "{error}");
    let error = after_the_handshake(&[&longest.to_be_bytes()[..], b"cut off"].concat());
    assert!(matches!(error, ChannelError::Closed), "{error}");
    for forged in [&b"\0\0"[..], b"\0\x0f fifteen bytes", &[&[0, 40][..], &[7; 40]].concat()] {
        let error = after_the_handshake(forged);
        assert!(matches!(error, ChannelError::Damaged), "{error}");
    }
    let (client, server) = pair();
    let peer = thread::spawn(move || {
        let mut channel = Channel::initiate(&client, &key(1), relaxed()).unwrap();
        let error = channel.send(&"x".repeat(MAX_MESSAGE_BYTES)).unwrap_err();
        assert!(matches!(error, ChannelError::TooLong { .. }), "{error}");
        channel.send(&"x".repeat(MAX_MESSAGE_BYTES - 2)).unwrap();
        channel.send(&"text").unwrap();
    });
    let mut channel = Channel::respond(&server, &key(1), relaxed()).unwrap();
    assert_eq!(channel.receive::<String>().unwrap().len(), MAX_MESSAGE_BYTES - 2);
    assert!(matches!(channel.receive::<u32>(), Err(ChannelError::Malformed(_))));
    peer.join().unwrap();
}

/// What an initiator says up to the end of its part of the handshake.
fn overture() -> Vec<u8> {
    let prologue = [preamble(), preamble()].concat();
    let mut noise = handshake(|builder| builder.build_initiator(), &key(1), &prologue).unwrap();
    let mut message = [0; HANDSHAKE_BYTES];
    noise.write_message(&[], &mut message).unwrap();
    [&preamble()[..], &framed(&message)].concat()
}

#[test]
fn what_was_recorded_can_not_be_played_back() {
    let (mut client, server) = pair();
    client.write_all(&overture()).unwrap();
    // The handshake's first message is as good as ever; what comes next is of another handshake.
    client.write_all(&framed(&[9; 64])).unwrap();
    let mut channel = Channel::respond(&server, &key(1), relaxed()).unwrap();
    assert!(matches!(channel.receive::<serde_json::Value>(), Err(ChannelError::Damaged)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_are_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200), greeted: bool) {
        let mut said = if greeted { preamble().to_vec() } else { Vec::new() };
        said.extend(bytes);
        let copy = said.clone();
        let responder = respond_to(move |peer| say_and_end(peer, &said));
        let initiator = initiate_with(move |peer| say_and_end(peer, &copy));
        prop_assert!(responder.is_err() && initiator.is_err());
    }

    #[test]
    fn a_changed_or_cut_overture_is_an_error(at in 0..62usize, flip in 1u8.., cut: bool) {
        let mut said = overture();
        if cut { said.truncate(at) } else { said[at] ^= flip }
        let responder = respond_to(move |peer| say_and_end(peer, &said));
        prop_assert!(responder.is_err());
    }

    #[test]
    fn arbitrary_messages_are_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        after_the_handshake(&bytes);
    }
}
