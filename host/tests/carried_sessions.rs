//! Sessions over TCP whose process dies: an heir carries them on, from the State Box and from the connection that the agent
//! kept. With real processes, sockets and kernels; root only, and then never skipped.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_core::channels::{Channel, SessionPayload, resume};
use backdoor_core::takeover::Claim;
use backdoor_core::transport::Done;
use backdoor_host::agent::AgentConfig;
use backdoor_host::app::{App, Node};
use backdoor_host::protocol::Reason;
use backdoor_host::serve::{CLIENT, Retain, ServeError, SessionConfig, TcpSession};
use backdoor_host::tcp::{self, Queues};
use backdoor_host::wire::ConnectionError;
use common::{CLAIMED, Entity, FENCING, MOVED, Monitor, RELAXED, TestNode, is_root, socket_of_parent, wait_for};

const RETAINING: SessionConfig = SessionConfig {
    deadline: RELAXED,
    patience: Nanos::from_secs(2),
    application_bytes: 8,
    input_bytes: 256,
    retain: Retain::Bytes(4_096),
};

/// Answers each number with the sum of all so far: whatever is lost or done twice shows.
fn serve_one(session: &mut TcpSession, sum: &mut u64) -> Result<bool, ServeError> {
    let mut number = [0; 8];
    let mut have = 0;
    while have < 8 {
        match session.read(&mut number[have..]).map_err(ServeError::Client)? {
            0 => return Ok(false),
            more => have += more,
        }
    }
    *sum += u64::from_le_bytes(number);
    session.commit_and_send(&sum.to_le_bytes(), 8, &sum.to_le_bytes())?;
    session.idle();
    Ok(true)
}

fn ask(client: &mut TcpStream, number: u64) -> u64 {
    client.write_all(&number.to_le_bytes()).unwrap();
    answer(client)
}

fn answer(client: &mut TcpStream) -> u64 {
    let mut sum = [0; 8];
    client.read_exact(&mut sum).unwrap();
    u64::from_le_bytes(sum)
}

/// Nothing is heard: no byte, no end, no reset.
fn expect_silence(client: &mut TcpStream) {
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
}

/// Swaps a session's claim word, as takers and targets do.
fn swap(monitor: &mut Monitor, session: &Entity, from: Claim, to: Claim) {
    let [expected, new] = [from, to].map(|claim| claim.word(0));
    let done = monitor.claim(session.record.state_box.unwrap().claim, expected, new);
    assert_eq!(done, Ok(Done::CompareSwapped { previous: expected }));
}

/// Takes a session over as far as a taker can; answers its number and its payload.
fn take(monitor: &mut Monitor, name: &str) -> (u64, Vec<u8>) {
    let session = monitor.find(name).unwrap();
    swap(monitor, &session, Claim::Unclaimed, CLAIMED);
    swap(monitor, &session, CLAIMED, FENCING);
    let (_, payload) = monitor.state(&session).unwrap();
    (session.record.session, payload)
}

/// What an heir is to read first: input that was not acted upon, by the session's state and its socket.
fn not_acted_upon(payload: &[u8], queues: &Queues) -> Vec<u8> {
    let decoded = SessionPayload::decode(payload).unwrap();
    let Some(Channel::Tcp(state)) = decoded.channel(CLIENT) else { panic!("{decoded:?}") };
    resume(&state, Some(queues.kernel()), Nanos::ZERO).unwrap().refill().to_vec()
}

#[test]
#[ignore = "the process that dies"]
fn a_service_that_is_killed() {
    let Some(socket) = socket_of_parent() else { return };
    let app = Node::connect(socket).unwrap().register("sums", RELAXED).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    std::io::stderr().write_all(&listener.local_addr().unwrap().port().to_le_bytes()).unwrap();
    let mut session = TcpSession::accept(&app, listener.accept().unwrap().0, "client", RETAINING).unwrap();
    let mut sum = 0;
    for _ in 0..3 {
        serve_one(&mut session, &mut sum).unwrap();
    }
    // It reads the next request and acts upon it no more.
    session.read(&mut [0; 8]).unwrap();
    session.session().progress();
    std::io::stderr().write_all(b"!").unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
#[ignore = "the process that dies"]
fn a_service_that_dies_before_it_commits() {
    let Some(socket) = socket_of_parent() else { return };
    let app = Node::connect(socket).unwrap().register("early", RELAXED).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    std::io::stderr().write_all(&listener.local_addr().unwrap().port().to_le_bytes()).unwrap();
    let client = listener.accept().unwrap().0;
    let _session = app.open_session_with(&client, "client", RELAXED, 8, 0).unwrap();
    std::io::stderr().write_all(b"!").unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn a_client_of_whom_nothing_was_committed_is_told_at_once_that_its_service_has_died() {
    if !is_root() {
        return;
    }
    let test = TestNode::start(|_| {});
    let mut child = test.spawn("a_service_that_dies_before_it_commits");
    let mut port = [0; 2];
    child.0.stderr.as_mut().unwrap().read_exact(&mut port).unwrap();
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, u16::from_le_bytes(port))).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    child.0.stderr.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    child.kill();
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn what_is_no_socket_is_not_kept_and_leaves_no_session_behind() {
    let test = TestNode::start(|_| {});
    let node = Node::connect(test.socket()).unwrap();
    let app = node.register("files", RELAXED).unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let refused = app.open_session_with(&file, "client", RELAXED, 8, 0).unwrap_err();
    assert_eq!(refused.to_string(), "the agent refused: what was sent is no socket");
    assert_eq!(node.status().unwrap().sessions, 0);
}

/// A connection to a service that has answered three requests, and its process.
fn served(test: &TestNode) -> (TcpStream, common::Killed) {
    let mut child = test.spawn("a_service_that_is_killed");
    let mut port = [0; 2];
    child.0.stderr.as_mut().unwrap().read_exact(&mut port).unwrap();
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, u16::from_le_bytes(port))).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    for (number, sum) in [(1, 1), (10, 11), (100, 111)] {
        assert_eq!(ask(&mut client, number), sum);
    }
    (client, child)
}

/// The same; the service was killed after it had read a fourth.
fn killed(test: &TestNode) -> TcpStream {
    let (mut client, mut child) = served(test);
    client.write_all(&1_000u64.to_le_bytes()).unwrap();
    child.0.stderr.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    child.kill();
    client
}

#[test]
fn a_killed_services_connection_is_carried_on_and_nothing_is_lost_nor_done_twice() {
    if !is_root() {
        return;
    }
    let test = TestNode::start(|_| {});
    let mut monitor = test.attach();
    let mut client = killed(&test);
    // Nobody is there, and nobody tells the client.
    client.write_all(&10_000u64.to_le_bytes()).unwrap();
    expect_silence(&mut client);

    let node = Node::connect(test.socket()).unwrap();
    let number = monitor.find("client").unwrap().record.session;
    expect_not_claimed(node.queues(number));
    let (number, payload) = take(&mut monitor, "client");
    let queues = node.queues(number).unwrap();
    let unread: Vec<u8> = [1_000u64, 10_000].iter().flat_map(|number| number.to_le_bytes()).collect();
    assert_eq!((not_acted_upon(&payload, &queues), queues.unacknowledged.len(), queues.ended), (unread, 0, false));

    // The old end goes in silence, so that the heir can be in the same network namespace.
    let app = node.register("heir", RELAXED).unwrap();
    let decoded = SessionPayload::decode(&payload).unwrap();
    let Some(Channel::Tcp(state)) = decoded.channel(CLIENT) else { panic!("{decoded:?}") };
    assert_eq!((state.intent, state.consumed), (24, 24));
    let mut sum = u64::from_le_bytes(decoded.application().try_into().unwrap());
    assert_eq!(sum, 111);
    let in_the_way = TcpSession::adopt(&app, &decoded, Some(&queues), "client", RETAINING, |_| unreachable!());
    assert!(in_the_way.unwrap_err().to_string().contains("there is a connection"));
    node.let_go(number).unwrap();
    let prepared = TcpSession::adopt(&app, &decoded, Some(&queues), "heirloom", RETAINING, |_| unreachable!()).unwrap();
    assert!(prepared.input_known());
    let heirloom = monitor.find("heirloom").unwrap();
    assert_eq!(monitor.state(&heirloom).unwrap().0, 1, "it can be taken over in turn");
    assert!(heirloom.record.pending.is_some(), "its socket is kept already, for nothing may fail from here on");
    let mut heir = prepared.speak().unwrap();
    assert!(serve_one(&mut heir, &mut sum).unwrap() && serve_one(&mut heir, &mut sum).unwrap());
    assert_eq!([answer(&mut client), answer(&mut client)], [1_111, 11_111]);
    client.write_all(&5u64.to_le_bytes()).unwrap();
    assert!(serve_one(&mut heir, &mut sum).unwrap());
    assert_eq!(answer(&mut client), 11_116);
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(!serve_one(&mut heir, &mut sum).unwrap());
    assert!(heir.state().input_ended);
    drop(heir);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_connection_that_nobody_carries_on_ends_after_a_while() {
    if !is_root() {
        return;
    }
    let test = TestNode::start(|config| config.keep = Nanos::from_millis(300));
    let mut client = killed(&test);
    assert!(!matches!(client.read(&mut [0]), Ok(1..)), "the kernel tells it");
    let node = Node::connect(test.socket()).unwrap();
    wait_for("the socket is let go", || node.status().unwrap().queues == 0);
}

fn accepted(app: &App, name: &str, config: SessionConfig) -> (TcpStream, TcpSession) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (client, TcpSession::accept(app, listener.accept().unwrap().0, name, config).unwrap())
}

/// A node that serves one client, and everybody around.
struct Scene {
    test: TestNode,
    node: Node,
    app: App,
    monitor: Monitor,
    config: SessionConfig,
    client: TcpStream,
    old: TcpSession,
    sum: u64,
}

impl Scene {
    /// A session that has answered one request and has read another one, of 8. `None` for whoever is not root.
    fn in_the_second_request(retain: Retain, change: impl FnOnce(&mut AgentConfig)) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let test = TestNode::start(change);
        let node = Node::connect(test.socket()).unwrap();
        let app = node.register("sums", RELAXED).unwrap();
        let monitor = test.attach();
        let (config, mut sum) = (SessionConfig { retain, ..RETAINING }, 0);
        let (mut client, mut old) = accepted(&app, "client", config);
        client.write_all(&7u64.to_le_bytes()).unwrap();
        assert!(serve_one(&mut old, &mut sum).unwrap());
        assert_eq!(answer(&mut client), 7);
        client.write_all(&8u64.to_le_bytes()).unwrap();
        assert_eq!(old.read(&mut [0; 8]).unwrap(), 8);
        Some(Scene { test, node, app, monitor, config, client, old, sum })
    }

    /// Sockets that the agent holds.
    fn kept(&self) -> u64 {
        self.node.status().unwrap().queues
    }
}

const BOTH_WAYS: [Retain; 2] = [Retain::Bytes(4_096), Retain::Regenerated];

#[test]
fn an_owner_that_lost_its_session_falls_silent_and_the_heir_serves_the_request_that_it_had_read() {
    for retain in BOTH_WAYS {
        let Some(scene) = Scene::in_the_second_request(retain, |_| {}) else { return };
        let Scene { test: _test, node, app, mut monitor, config, mut client, mut old, mut sum } = scene;
        let (number, payload) = take(&mut monitor, "client");
        let refused = old.commit_and_send(b"", 8, b"never heard").unwrap_err();
        assert!(matches!(refused, ServeError::Lost), "{refused}");
        let queues = node.queues(number).unwrap();
        assert_eq!(not_acted_upon(&payload, &queues), 8u64.to_le_bytes());
        drop(old);
        assert_eq!(node.queues(number).unwrap(), queues, "kept for whoever took it");
        node.let_go(number).unwrap();
        wait_for("it is let go", || node.status().unwrap().queues == 0);
        let replay = |range: std::ops::Range<u64>| vec![0; (range.end - range.start) as usize];
        let payload = SessionPayload::decode(&payload).unwrap();
        let heir = TcpSession::adopt(&app, &payload, Some(&queues), "heirloom", config, replay).unwrap();
        let mut heir = heir.speak().unwrap();
        assert!(serve_one(&mut heir, &mut sum).unwrap());
        assert_eq!(answer(&mut client), 15);
    }
}

#[test]
fn a_reply_that_was_promised_and_not_sent_comes_from_the_heir_without_its_socket() {
    for retain in BOTH_WAYS {
        let Some(scene) = Scene::in_the_second_request(retain, |_| {}) else { return };
        let Scene { test: _test, node, app, mut monitor, config, mut client, mut old, mut sum } = scene;
        // From here on nothing leaves, as on a node that is cut off after the commit.
        tcp::silence(old.stream()).unwrap();
        sum += 8;
        let failed = old.commit_and_send(&sum.to_le_bytes(), 8, &sum.to_le_bytes()).unwrap_err();
        assert!(matches!(failed, ServeError::Client(_)), "{failed}");
        let (number, payload) = take(&mut monitor, "client");
        drop(old);
        node.let_go(number).unwrap();
        wait_for("it is let go", || node.status().unwrap().queues == 0);
        let replay = |range: std::ops::Range<u64>| {
            let replies = [7u64, 15].map(u64::to_le_bytes).concat();
            replies[range.start as usize..range.end as usize].to_vec()
        };
        let payload = SessionPayload::decode(&payload).unwrap();
        let heir = TcpSession::adopt(&app, &payload, None, "heirloom", config, replay).unwrap();
        assert!(!heir.input_known(), "and there was none");
        let mut heir = heir.speak().unwrap();
        assert_eq!(answer(&mut client), 15);
        client.write_all(&1u64.to_le_bytes()).unwrap();
        assert!(serve_one(&mut heir, &mut sum).unwrap());
        assert_eq!(answer(&mut client), 16);
    }
}

fn expect_not_claimed<T: std::fmt::Debug>(outcome: Result<T, ConnectionError>) {
    let refused = outcome.unwrap_err();
    assert!(matches!(refused, ConnectionError::Refused { reason: Reason::NotClaimed, .. }), "{refused}");
}

#[test]
fn an_owner_in_doubt_waits_and_serves_on_when_its_session_is_given_back() {
    let Some(mut scene) = Scene::in_the_second_request(Retain::Regenerated, |_| {}) else { return };
    let session = scene.monitor.find("client").unwrap();
    swap(&mut scene.monitor, &session, Claim::Unclaimed, CLAIMED);
    // Who may get its session back has its connection to itself.
    expect_not_claimed(scene.node.queues(session.record.session));
    expect_not_claimed(scene.node.let_go(session.record.session));
    let mut old = scene.old;
    let serving = std::thread::spawn(move || old.commit_and_send(b"", 8, &15u64.to_le_bytes()).map(|()| old));
    expect_silence(&mut scene.client);
    let seen = scene.monitor.find("client").unwrap();
    assert!(seen.liveness.count() > session.liveness.count() + 2, "it shows life");
    swap(&mut scene.monitor, &session, CLAIMED, Claim::Unclaimed);
    assert_eq!(answer(&mut scene.client), 15);
    drop(serving.join().unwrap().unwrap());
    assert_eq!(scene.client.read(&mut [0]).unwrap(), 0);
}

#[test]
fn what_its_owner_closes_in_doubt_ends_when_it_is_given_back_and_not_before() {
    let Some(mut scene) = Scene::in_the_second_request(Retain::Regenerated, |_| {}) else { return };
    scene.old.commit_and_send(b"", 8, b"").unwrap();
    let session = scene.monitor.find("client").unwrap();
    swap(&mut scene.monitor, &session, Claim::Unclaimed, CLAIMED);
    drop(scene.old);
    expect_silence(&mut scene.client);
    swap(&mut scene.monitor, &session, CLAIMED, Claim::Unclaimed);
    assert_eq!(scene.client.read(&mut [0]).unwrap(), 0, "an end like any other");
    wait_for("it is gone", || scene.node.status().unwrap().sessions == 0);
}

#[test]
fn what_its_owner_closes_in_doubt_is_there_for_the_taker_and_closed_in_silence_when_it_has_moved() {
    let Some(mut scene) = Scene::in_the_second_request(Retain::Regenerated, |_| {}) else { return };
    let session = scene.monitor.find("client").unwrap();
    swap(&mut scene.monitor, &session, Claim::Unclaimed, CLAIMED);
    drop(std::mem::replace(&mut scene.old, accepted(&scene.app, "another", RETAINING).1));
    swap(&mut scene.monitor, &session, CLAIMED, FENCING);
    assert!(scene.node.queues(session.record.session).unwrap().unread.ends_with(&8u64.to_le_bytes()));
    assert_eq!(scene.kept(), 2);
    swap(&mut scene.monitor, &session, FENCING, MOVED);
    wait_for("it is let go", || scene.kept() == 1);
    expect_silence(&mut scene.client);
}

#[test]
fn an_owner_that_waits_for_input_of_a_session_that_has_moved_waits_no_longer() {
    let Some(mut scene) = Scene::in_the_second_request(Retain::Regenerated, |_| {}) else { return };
    let mut old = scene.old;
    let reading = std::thread::spawn(move || old.read(&mut [0; 8]));
    take(&mut scene.monitor, "client");
    let session = scene.monitor.find("client").unwrap();
    swap(&mut scene.monitor, &session, FENCING, MOVED);
    wait_for("an end", || reading.is_finished());
    assert_eq!(reading.join().unwrap().unwrap(), 0);
    expect_silence(&mut scene.client);
}

#[test]
fn a_lost_session_whose_owner_lives_is_let_go_in_silence_after_a_while() {
    let while_ = Nanos::from_millis(300);
    let Some(mut scene) = Scene::in_the_second_request(Retain::Regenerated, |config| config.keep = while_) else {
        return;
    };
    let (number, payload) = take(&mut scene.monitor, "client");
    assert_eq!(not_acted_upon(&payload, &scene.node.queues(number).unwrap()), 8u64.to_le_bytes());
    wait_for("it is let go", || scene.kept() == 0);
    expect_silence(&mut scene.client);
    drop(scene.old);
    expect_silence(&mut scene.client);
}

#[test]
fn a_dead_owners_connection_that_is_claimed_to_the_end_is_closed_in_silence() {
    if !is_root() {
        return;
    }
    let test = TestNode::start(|config| config.keep = Nanos::from_millis(300));
    let (mut monitor, node) = (test.attach(), Node::connect(test.socket()).unwrap());
    let mut client = killed(&test);
    let session = monitor.find("client").unwrap();
    swap(&mut monitor, &session, Claim::Unclaimed, CLAIMED);
    expect_not_claimed(node.queues(session.record.session));
    wait_for("it is let go", || node.status().unwrap().queues == 0);
    expect_silence(&mut client);
}

#[test]
fn what_can_not_be_retained_or_was_not_read_is_refused_before_anything_happens() {
    if !is_root() {
        return;
    }
    let test = TestNode::start(|_| {});
    let app = Node::connect(test.socket()).unwrap().register("sums", RELAXED).unwrap();
    let (mut client, mut session) = accepted(&app, "client", RETAINING);
    client.write_all(b"12345").unwrap();
    assert_eq!(session.read(&mut [0; 3]).unwrap(), 3);
    let refused = session.commit_and_send(b"", 4, b"").unwrap_err();
    assert!(matches!(refused, ServeError::NotRead { consumed: 4, read: 3 }), "{refused}");
    let refused = session.commit_and_send(b"", 3, &[0; 5_000]).unwrap_err();
    assert!(matches!(refused, ServeError::NoRoom { needed: 5_000, room: 4_096 }), "{refused}");
    let before = *session.state();
    let refused = session.commit_and_send(&[0; 100_000], 3, b"x").unwrap_err();
    assert!(matches!(refused, ServeError::Commit(_)), "{refused}");
    assert_eq!(*session.state(), before);
    // What was read before is not read again, and what was acted upon never.
    let mut rest = [0; 9];
    assert_eq!((session.read(&mut rest).unwrap(), &rest[..2]), (2, &b"45"[..]));
    session.commit_and_send(b"state", 4, b"four").unwrap();
    client.write_all(b"6").unwrap();
    assert_eq!((session.read(&mut rest).unwrap(), rest[0]), (1, b'6'));
    assert_eq!((session.state().consumed, session.state().intent), (4, 4));
    let mut four = [0; 4];
    client.read_exact(&mut four).unwrap();
    assert_eq!(&four, b"four");
}
