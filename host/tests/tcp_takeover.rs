//! TCP connections carried on by another socket, with the kernel's own TCP on both sides: every byte arrives once, in both
//! directions, wherever the connection was cut.
//!
//! Repair mode needs CAP_NET_ADMIN: as root these tests never skip.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant, SystemTime};

use backdoor_core::Nanos;
use backdoor_core::channels::{Input, Output, Resume, TcpBirth, TcpState, resume};
use backdoor_host::net::NetworkNamespace;
use backdoor_host::tcp::{MAX_REFILL_BYTES, TcpError, birth, queues, recreate, silence, standing};
use proptest::prelude::*;
use rustix::net::sockopt::{set_socket_send_buffer_size, socket_send_buffer_size};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// Whether this can be tested: not by anybody but root, and always by root.
fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("not tested: repair mode needs root");
    }
    is_root
}

fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let server = listener.accept().unwrap().0;
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (client, server)
}

fn now() -> Nanos {
    Nanos(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64)
}

/// Part of a stream in which no two neighbourhoods look alike.
fn bytes(range: Range<u64>) -> Vec<u8> {
    range.map(|n| (n ^ n >> 8 ^ n >> 16).wrapping_mul(167) as u8).collect()
}

fn expect(stream: &mut TcpStream, range: Range<u64>) {
    let mut read = vec![0; (range.end - range.start) as usize];
    stream.read_exact(&mut read).unwrap();
    assert!(read == bytes(range.clone()), "other bytes at {range:?}");
}

/// Nothing is heard: no byte, no end, no reset.
fn expect_silence(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
}

/// Waits until so much of the input is there.
fn wait_for_input(server: &TcpStream, amount: u64) {
    let start = Instant::now();
    while rustix::io::ioctl_fionread(server).unwrap() < amount {
        assert!(start.elapsed() < Duration::from_secs(10), "the input never came");
        std::thread::yield_now();
    }
}

/// Where a connection is cut.
#[derive(Clone, Debug)]
struct Cut {
    /// Output that the server wrote, and what it had promised beyond.
    written: u64,
    unwritten: u64,
    /// Output that the client has read before the cut; the rest fills its window, so that some was never acknowledged.
    client_read: u64,
    /// Input that was acted upon and taken out of the kernel; acted upon, and still there; neither.
    taken: u64,
    acted_upon: u64,
    unread: u64,
    /// Whether the queues were read.
    exact: bool,
}

fn any_cut() -> impl Strategy<Value = Cut> {
    let size = || prop_oneof![Just(0u64), 1u64..3_000, 1u64..200_000];
    let large = prop_oneof![2 => size(), 1 => 1_000_000u64..6_000_000];
    (large, size(), 0u64..=100, size(), size(), size(), any::<bool>()).prop_map(
        |(written, unwritten, percent, taken, acted_upon, unread, exact)| Cut {
            written,
            unwritten,
            client_read: written * percent / 100,
            taken: taken.min(100_000),
            acted_upon: acted_upon.min(40_000),
            // Without the queues there must be none, or it is lost.
            unread: if exact { unread.min(40_000) } else { 0 },
            exact,
        },
    )
}

/// Writes as much of the stream as the kernel takes; answers how much that was.
fn write_some(server: &mut TcpStream, most: u64) -> u64 {
    server.set_nonblocking(true).unwrap();
    let all = bytes(0..most);
    let mut written = 0;
    while written < all.len() {
        match server.write(&all[written..]) {
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    server.set_nonblocking(false).unwrap();
    written as u64
}

fn carry_on(cut: &Cut) {
    let (mut client, mut server) = connection();
    let birth = birth(&server).unwrap();
    let written = write_some(&mut server, cut.written);
    let client_read = cut.client_read.min(written);
    expect(&mut client, 0..client_read);
    let consumed = cut.taken + cut.acted_upon;
    client.write_all(&bytes(0..cut.taken)).unwrap();
    expect(&mut server, 0..cut.taken);
    client.write_all(&bytes(cut.taken..consumed + cut.unread)).unwrap();
    wait_for_input(&server, cut.acted_upon + cut.unread);

    // A delayed acknowledgement would find nobody between the two sockets, and be answered by a reset. Where the old and
    // the new socket are not in the same kernel, the old one is there until its node is cut off.
    std::thread::sleep(Duration::from_millis(60));
    let found = queues(&server).unwrap();
    assert_eq!(found, queues(&server).unwrap(), "nothing changes by looking");
    let intent = written + cut.unwritten;
    let before = intent - u64::from(birth.send_base.wrapping_add(intent as u32).wrapping_sub(found.acknowledged));
    assert_eq!(found.unacknowledged, bytes(before..written));
    let state = TcpState { intent, consumed, acknowledged: 0, ..TcpState::new(birth, Output::Regenerated) };
    // What a service that asks for it now and then would know.
    let state = TcpState { acknowledged: before.saturating_sub(5_000), ..state };
    let resume = resume(&state, cut.exact.then(|| found.kernel()), now()).unwrap();
    if cut.exact {
        assert_eq!(resume.input, Input::Exact { refill: &bytes(consumed..consumed + cut.unread), ended: false });
        assert_eq!(resume.replay_from, before);
    } else if cut.acted_upon > 0 {
        // The kernel has acknowledged what the state says was acted upon, no more.
        assert_eq!(resume.input, Input::UnreadUnknown);
    }
    silence(server).unwrap();
    let silent = recreate(&resume, &bytes(resume.replay())).unwrap();
    assert!(matches!(standing(&silent), Err(TcpError::Silent)), "it is nobody's to go on with");
    let mut heir = silent.speak().unwrap();
    heir.set_read_timeout(Some(Duration::from_secs(20))).unwrap();

    let end = intent + 70_000;
    let input_end = consumed + cut.unread + 70_000;
    std::thread::scope(|scope| {
        let mut client_reads = client.try_clone().unwrap();
        scope.spawn(move || expect(&mut client_reads, client_read..end));
        let mut heir_reads = heir.try_clone().unwrap();
        scope.spawn(move || expect(&mut heir_reads, consumed..input_end));
        scope.spawn(|| client.write_all(&bytes(consumed + cut.unread..input_end)).unwrap());
        heir.write_all(&bytes(intent..end)).unwrap();
    });
    drop(heir);
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "an end like any other");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]

    #[test]
    fn every_byte_arrives_once_wherever_the_connection_is_cut(cut in any_cut()) {
        if is_root() {
            carry_on(&cut);
        }
    }
}

#[test]
fn a_reply_that_was_promised_and_never_sent_arrives() {
    if !is_root() {
        return;
    }
    for exact in [false, true] {
        for unwritten in [1, 400, 20_000, 300_000] {
            let cut = Cut { written: 10, unwritten, client_read: 10, taken: 3, acted_upon: 0, unread: 0, exact };
            carry_on(&cut);
        }
    }
}

#[test]
fn what_was_dropped_in_silence_is_not_heard_and_can_be_made_again() {
    if !is_root() {
        return;
    }
    let (mut client, server) = connection();
    let birth = birth(&server).unwrap();
    silence(server).unwrap();
    let state = TcpState { intent: 100, ..TcpState::new(birth, Output::Regenerated) };
    let resume = resume(&state, None, now()).unwrap();
    for _ in 0..3 {
        drop(recreate(&resume, &bytes(0..100)).unwrap());
        expect_silence(&mut client);
    }
    let taken = recreate(&resume, &bytes(0..100)).unwrap();
    assert!(matches!(recreate(&resume, &bytes(0..100)), Err(TcpError::InUse { .. })));
    let mut heir = taken.speak().unwrap();
    expect(&mut client, 0..100);
    client.write_all(b"and on").unwrap();
    let mut input = [0; 6];
    heir.read_exact(&mut input).unwrap();
    assert_eq!(&input, b"and on");
}

#[test]
fn a_send_buffer_is_no_larger_than_this_machine_allows_whatever_the_state_says() {
    if !is_root() {
        return;
    }
    let (_client, server) = connection();
    let birth = TcpBirth { send_buffer: u32::MAX, ..birth(&server).unwrap() };
    let state = TcpState::new(birth, Output::Regenerated);
    silence(server).unwrap();
    let heir = recreate(&resume(&state, None, now()).unwrap(), b"").unwrap().speak().unwrap();
    let size = socket_send_buffer_size(&heir).unwrap();
    assert!(size <= 2 * MAX_REFILL_BYTES, "{size} bytes");
}

#[test]
fn a_client_whose_connection_can_not_speak_is_told() {
    if !is_root() {
        return;
    }
    let (mut client, server) = connection();
    let birth = birth(&server).unwrap();
    silence(server).unwrap();
    // What was never sent does not fit a buffer that somebody made smaller.
    let exact = Input::Exact { refill: b"", ended: false };
    let state = TcpState { intent: 32 << 20, ..TcpState::new(birth, Output::Regenerated) };
    let resume = Resume { input: exact, replay_until: 0, ..resume(&state, None, now()).unwrap() };
    let silent = recreate(&resume, &bytes(resume.replay())).unwrap();
    let held_elsewhere = silent.as_fd().try_clone_to_owned().unwrap();
    set_socket_send_buffer_size(&silent, 5_000).unwrap();
    let error = silent.speak().unwrap_err();
    assert!(matches!(error, TcpError::System { .. }), "{error}");
    let mut heard = Vec::new();
    assert_eq!(client.read_to_end(&mut heard).unwrap_err().kind(), ErrorKind::ConnectionReset);
    drop(held_elsewhere);
}

#[test]
fn looking_at_the_queues_of_a_silent_socket_leaves_it_silent() {
    if !is_root() {
        return;
    }
    let (mut client, server) = connection();
    birth(&server).unwrap();
    silence(&server).unwrap();
    queues(&server).unwrap();
    drop(server);
    expect_silence(&mut client);
}

#[test]
fn the_birth_is_right_though_the_client_speaks_first_and_falls_silent() {
    if !is_root() {
        return;
    }
    let (mut client, server) = connection();
    client.write_all(&bytes(0..5_000)).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    wait_for_input(&server, 5_000);
    let before = birth(&server).unwrap();
    let found = queues(&server).unwrap();
    assert_eq!(found.received, before.receive_base.wrapping_add(5_000));
    let state = TcpState { intent: 9, consumed: 1_000, ..TcpState::new(before, Output::Regenerated) };
    let resume = resume(&state, Some(found.kernel()), now()).unwrap();
    assert_eq!(resume.input, Input::Exact { refill: &bytes(1_000..5_000), ended: true });
    silence(server).unwrap();
    let mut heir = recreate(&resume, &bytes(0..9)).unwrap().speak().unwrap();
    expect(&mut heir, 1_000..5_000);
    expect(&mut client, 0..9);
    drop(heir);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

#[test]
fn looking_at_the_queues_leaves_the_socket_as_it_was() {
    if !is_root() {
        return;
    }
    let (mut client, mut server) = connection();
    let address = server.local_addr().unwrap();
    birth(&server).unwrap();
    queues(&server).unwrap();
    expect_silence(&mut client);
    server.write_all(&bytes(0..10)).unwrap();
    expect(&mut client, 0..10);
    // As before, a service that starts again can listen there although the connection lives.
    TcpListener::bind(address).unwrap();
    assert!(rustix::net::sockopt::socket_reuseaddr(&server).unwrap());
}

fn garbage(birth: TcpBirth, change: impl FnOnce(&mut TcpBirth)) -> TcpError {
    let mut birth = birth;
    change(&mut birth);
    let state = TcpState::new(birth, Output::Regenerated);
    recreate(&resume(&state, None, now()).unwrap(), b"").unwrap_err()
}

#[test]
fn a_birth_that_is_none_of_this_machine_is_refused() {
    if !is_root() {
        return;
    }
    let (client, server) = connection();
    let good = birth(&server).unwrap();
    let elsewhere = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 80);
    let error = garbage(good, |birth| birth.local = elsewhere);
    assert_eq!(
        error.to_string(),
        "192.0.2.1:80 is not an address of this machine, or of this network namespace: move it here first"
    );
    let error = garbage(good, |_| {});
    assert!(matches!(error, TcpError::InUse { .. }), "{error}");
    // A network of its own, in which nobody else is.
    let nowhere = NetworkNamespace::new().unwrap();
    let nobody = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 4000);
    let error = nowhere.enter(|| garbage(good, |birth| birth.peer = nobody)).unwrap();
    assert_eq!(error.to_string(), "there is no route from here to the client at 192.0.2.1:4000");
    drop((client, server));
    let state = TcpState { intent: 7, ..TcpState::new(good, Output::Regenerated) };
    let needs_seven = resume(&state, None, now()).unwrap();
    assert!(matches!(recreate(&needs_seven, b"six"), Err(TcpError::WrongReplay { needed: 7, found: 3 })));
    let huge = TcpState { intent: u64::MAX, ..state };
    assert!(matches!(recreate(&resume(&huge, None, now()).unwrap(), b""), Err(TcpError::TooMuch { .. })));
}

#[test]
fn only_a_new_connection_over_ipv4_has_a_birth() {
    if !is_root() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(matches!(birth(&listener), Err(TcpError::NotEstablished { state: 10 })));
    assert!(matches!(birth(UnixStream::pair().unwrap().0), Err(TcpError::NotTcp)));
    assert!(matches!(birth(UdpSocket::bind("127.0.0.1:0").unwrap()), Err(TcpError::NotTcp)));
    let (mut client, mut server) = connection();
    server.write_all(b"x").unwrap();
    assert!(matches!(birth(&server), Err(TcpError::NotNew)));
    client.write_all(b"request").unwrap();
    server.read_exact(&mut [0; 7]).unwrap();
    assert!(matches!(birth(&server), Err(TcpError::NotNew)));
    let (mut client, mut server) = connection();
    client.write_all(b"request").unwrap();
    server.read_exact(&mut [0; 3]).unwrap();
    assert!(matches!(birth(&server), Err(TcpError::NotNew)), "some of it was read");
    drop(client);
}

#[test]
fn who_may_not_is_told_what_it_takes() {
    if !is_root() {
        return;
    }
    let (_client, server) = connection();
    // Privileges are a thread's own.
    let refused = std::thread::spawn(move || {
        let none = CapabilitySet::empty();
        rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
            .unwrap();
        [birth(&server).unwrap_err(), queues(server.as_fd()).unwrap_err(), silence(server).unwrap_err()]
    });
    for error in refused.join().unwrap() {
        assert!(matches!(error, TcpError::NotPermitted), "{error}");
        assert!(error.to_string().contains("CAP_NET_ADMIN"));
    }
}

#[test]
#[ignore = "a measurement: cargo test --release -p backdoor-host --test tcp_takeover -- --ignored --nocapture"]
fn what_it_costs() {
    const ROUNDS: usize = 1000;
    let mut times: [Vec<Duration>; 5] = Default::default();
    let replay = bytes(0..16 << 10);
    for _ in 0..ROUNDS {
        let (mut client, mut server) = connection();
        let mut timed = |which: usize, start: Instant| times[which].push(start.elapsed());
        let start = Instant::now();
        let birth = birth(&server).unwrap();
        timed(0, start);
        server.write_all(&replay[..1_000]).unwrap();
        expect(&mut client, 0..1_000);
        client.write_all(&replay).unwrap();
        wait_for_input(&server, replay.len() as u64);
        let start = Instant::now();
        let found = queues(&server).unwrap();
        timed(1, start);
        let intent = replay.len() as u64;
        let state = TcpState { intent, acknowledged: 0, ..TcpState::new(birth, Output::Regenerated) };
        let resume = resume(&state, None, now()).unwrap();
        let resume = Resume { input: Input::Exact { refill: &found.unread, ended: false }, ..resume };
        silence(server).unwrap();
        let start = Instant::now();
        let silent = recreate(&resume, &replay).unwrap();
        timed(2, start);
        let start = Instant::now();
        let heir = silent.speak().unwrap();
        timed(3, start);
        expect(&mut client, 1_000..intent);
        timed(4, start);
        // No connection is left waiting for its peer.
        client.set_nonblocking(true).unwrap();
        silence(heir).unwrap();
        silence(client).unwrap();
    }
    for (what, times) in
        ["birth", "queues (16 KiB unread)", "recreate (16 KiB each way)", "speak", "speak to last byte"]
            .iter()
            .zip(&mut times)
    {
        times.sort_unstable();
        let at = |percent: usize| times[times.len() * percent / 100].as_nanos() as f64 / 1e3;
        println!("{what}: {:.1} us at 5%, {:.1} us at 50%, {:.1} us at 95%, n = {ROUNDS}", at(5), at(50), at(95));
    }
}
