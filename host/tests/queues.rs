//! Work that waits in sockets, held against sessions that say they are idle: with real sockets, processes and kernels.

mod common;

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_core::detector::DeadlineDetector;
use backdoor_core::monitor::{Monitor, MonitorConfig, Standing};
use backdoor_core::progress_box::{EntityState, FailureLevel, Pending, Slot};
use backdoor_host::app::{App, Node};
use backdoor_host::attach::{Attachment, attach_local};
use backdoor_host::clock;
use backdoor_host::protocol::{Answer, MAX_PACKET_BYTES, Reason, Request, Status, decode, encode};
use backdoor_host::serve::{Retain, ServeError, SessionConfig, TcpSession};
use backdoor_host::wire::{Connection, ConnectionError};
use backdoor_transports::shm::ShmTransport;
use common::{RELAXED, TestNode, is_root, socket_of_parent, wait_for};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketType,
};

const DEADLINE: Nanos = Nanos::from_millis(30);

/// A monitor in real time.
struct Watch {
    monitor: Monitor<DeadlineDetector>,
    attachment: Attachment<ShmTransport>,
}

impl Watch {
    fn of(test: &TestNode) -> Self {
        let attachment = attach_local(test.socket()).unwrap();
        let config = MonitorConfig::polling_every(Nanos::from_millis(1));
        let monitor = Monitor::by_deadline(config, backdoor_host::protocol::HOOK_TABLE);
        Watch { monitor, attachment }
    }

    /// How it sees `slot` now.
    fn standing(&mut self, slot: Slot) -> Option<Standing> {
        self.monitor.step(clock::now(), self.attachment.transport(), &mut Vec::new());
        self.monitor.entities().find(|entity| entity.slot == slot).map(|entity| entity.standing)
    }

    /// Whether it ever sees `slot` as suspected within so many polls.
    fn suspects(&mut self, slot: Slot, polls: usize) -> bool {
        (0..polls).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            self.standing(slot) == Some(Standing::Suspected)
        })
    }
}

fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

fn registered(test: &TestNode) -> (Node, App) {
    let node = Node::connect(test.socket()).unwrap();
    let app = node.register("kv", RELAXED).unwrap();
    (node, app)
}

#[test]
fn unread_bytes_of_an_idle_session_lead_to_a_suspicion_and_reading_them_ends_it() {
    let test = TestNode::start(|_| {});
    let (_node, app) = registered(&test);
    let mut watch = Watch::of(&test);
    for watched in [true, false] {
        let (mut client, mut server) = tcp();
        let mut session = app.open_session("client", DEADLINE, 100).unwrap();
        if watched {
            session.watch_queue(&server).unwrap();
        }
        session.progress();
        session.idle();
        wait_for("it is seen", || watch.standing(session.slot()) == Some(Standing::Idle));
        assert!(!watch.suspects(session.slot(), 100), "nothing waits");
        client.write_all(b"request").unwrap();
        if !watched {
            assert!(!watch.suspects(session.slot(), 200), "nobody knows that something waits");
            continue;
        }
        wait_for("a suspicion", || watch.suspects(session.slot(), 1));
        server.read_exact(&mut [0; 7]).unwrap();
        wait_for("trust", || watch.standing(session.slot()) == Some(Standing::Idle));
    }
}

#[test]
fn a_session_that_serves_is_not_suspected_for_what_comes_meanwhile() {
    let test = TestNode::start(|_| {});
    let (_node, app) = registered(&test);
    let mut watch = Watch::of(&test);
    let (mut client, mut server) = UnixStream::pair().unwrap();
    // Longer than this machine ever takes for one of the rounds below.
    let mut session = app.open_session("client", Nanos::from_secs(5), 100).unwrap();
    session.watch_queue(&server).unwrap();
    for _ in 0..300 {
        session.idle();
        client.write_all(b"request").unwrap();
        assert!(!watch.suspects(session.slot(), 2));
        server.read_exact(&mut [0; 7]).unwrap();
        session.progress();
    }
}

#[test]
fn a_session_that_waits_for_its_client_to_read_is_not_suspected_for_the_requests_behind() {
    if !is_root() {
        return;
    }
    let test = TestNode::start(|_| {});
    let (_node, app) = registered(&test);
    let mut watch = Watch::of(&test);
    let (mut client, server) = tcp();
    let config = SessionConfig {
        deadline: Nanos::from_secs(1),
        patience: Nanos::from_secs(2),
        application_bytes: 8,
        input_bytes: 256,
        retain: Retain::Regenerated,
    };
    let mut session = TcpSession::accept(&app, server, "client", config).unwrap();
    let slot = session.session().slot();
    let serving = std::thread::spawn(move || {
        assert_eq!(session.read(&mut [0; 7]).unwrap(), 7);
        // More than the kernels hold.
        session.commit_and_send(b"", 7, &vec![0; 32 << 20])
    });
    client.write_all(b"requestanother").unwrap();
    assert!(!watch.suspects(slot, 3_000));
    drop(client);
    assert!(matches!(serving.join().unwrap(), Err(ServeError::Client(_))));
}

#[test]
fn who_waits_at_the_listener_of_an_idle_service_leads_to_a_suspicion() {
    let test = TestNode::start(|_| {});
    let node = Node::connect(test.socket()).unwrap();
    let app = node.register("kv", DEADLINE).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    app.watch_queue(&listener).unwrap();
    app.progress().idle();
    let mut watch = Watch::of(&test);
    wait_for("it is seen", || watch.standing(app.slot()) == Some(Standing::Idle));
    assert!(!watch.suspects(app.slot(), 100));
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    wait_for("a suspicion", || watch.suspects(app.slot(), 1));
    let _server = listener.accept().unwrap();
    wait_for("trust", || watch.standing(app.slot()) == Some(Standing::Idle));
}

#[test]
fn the_systems_counters_say_how_often_they_advance() {
    let test = TestNode::start(|config| config.tick = Nanos::from_millis(3));
    let entities = test.attach().entities();
    let periods = entities.iter().filter(|entity| entity.record.level == FailureLevel::Os).map(|e| e.record.period);
    let periods: Vec<Nanos> = periods.collect();
    assert!(periods.len() >= 2 && periods.iter().all(|period| *period == Nanos::from_millis(3)), "{periods:?}");
}

#[test]
#[ignore = "the process that dies"]
fn a_service_that_never_reads() {
    let Some(socket) = socket_of_parent() else { return };
    let app = Node::connect(socket).unwrap().register("kv", RELAXED).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    app.watch_queue(&listener).unwrap();
    std::io::stderr().write_all(&listener.local_addr().unwrap().port().to_le_bytes()).unwrap();
    let mut served = Vec::new();
    loop {
        let (stream, _) = listener.accept().unwrap();
        let session = app.open_session("client", RELAXED, 100).unwrap();
        session.watch_queue(&stream).unwrap();
        (&stream).write_all(b"!").unwrap();
        served.push((stream, session));
    }
}

#[test]
fn a_killed_service_leaves_no_gauge_behind_and_its_clients_are_told() {
    let test = TestNode::start(|_| {});
    let asker = Node::connect(test.socket()).unwrap();
    let mut monitor = test.attach();
    let mut child = test.spawn("a_service_that_never_reads");
    let mut port = [0; 2];
    child.0.stderr.as_mut().unwrap().read_exact(&mut port).unwrap();
    let mut client = TcpStream::connect(("127.0.0.1", u16::from_le_bytes(port))).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client.read_exact(&mut [0]).unwrap();
    client.write_all(b"request").unwrap();
    let gauge = usize::from(monitor.find("client").unwrap().record.pending.expect("the directory names it"));
    wait_for("it is counted", || Pending::of_word(monitor.gauges()[gauge]).amount == 7);
    assert_eq!(asker.status().unwrap().queues, 2);
    child.kill();
    // What the client had sent and nobody read makes this a reset rather than an end.
    assert!(!matches!(client.read(&mut [0]), Ok(1..)), "the kernel closes what the agent has let go");
    wait_for("the sockets are let go", || asker.status().unwrap().queues == 0);
    assert_eq!(monitor.gauges()[gauge], 0);
    for name in ["kv", "client"] {
        let left = monitor.find(name).expect("it is kept for recovery");
        assert_eq!((left.record.pending, left.liveness.state()), (None, EntityState::Idle));
    }
}

#[test]
fn a_gauge_goes_with_its_session_and_begins_at_nothing_for_the_next() {
    let test = TestNode::start(|config| config.queues = 1);
    let (node, app) = registered(&test);
    let mut monitor = test.attach();
    let (mut client, server) = tcp();
    let first = app.open_session("first", RELAXED, 100).unwrap();
    let second = app.open_session("second", RELAXED, 100).unwrap();
    first.watch_queue(&server).unwrap();
    client.write_all(b"request").unwrap();
    let gauge = usize::from(monitor.find("first").unwrap().record.pending.unwrap());
    wait_for("it is counted", || monitor.gauges()[gauge] > 0);
    let (_quiet_client, quiet) = tcp();
    let error = second.watch_queue(&quiet).unwrap_err();
    assert!(matches!(error, ConnectionError::Refused { reason: Reason::Full, .. }), "{error}");
    assert!(error.to_string().contains("all 1 queue gauges are in use"), "{error}");
    drop((first, server));
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert!(!matches!(client.read(&mut [0]), Ok(1..)), "the connection ends with the session");
    wait_for("it is free", || node.status().unwrap().queues == 0);
    assert_eq!(monitor.gauges()[gauge], 0);
    second.watch_queue(&quiet).unwrap();
    assert_eq!(monitor.find("second").unwrap().record.pending.map(usize::from), Some(gauge));
    wait_for("it is looked at", || monitor.gauges()[gauge] > 0);
    assert_eq!(Pending::of_word(monitor.gauges()[gauge]).amount, 0);
}

fn refusal(link: &Connection, request: &Request, descriptors: &[BorrowedFd<'_>]) -> (Reason, String) {
    match link.request_with(request, descriptors) {
        Err(ConnectionError::Refused { reason, message }) => (reason, message),
        other => panic!("{other:?}"),
    }
}

/// Descriptors of this process, in which the agent runs.
fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn descriptors_that_are_not_wanted_are_refused_and_closed() {
    let test = TestNode::start(|_| {});
    let link = Connection::connect(&test.socket()).unwrap();
    let register = Request::Register { name: "kv".into(), deadline_ns: RELAXED.0 };
    let (Answer::Registered { application, .. }, _) = link.request(&register).unwrap() else { panic!() };
    let (mut client, server) = tcp();
    client.write_all(b"request").unwrap();
    let file: OwnedFd = tempfile::tempfile().unwrap().into();
    let watch = Request::WatchQueue { slot: application, keep: false };
    // Whoever closes last tells: the other end sees the end of a pipe when no duplicate is left.
    let (reader, writer) = std::io::pipe().unwrap();
    let cases: [(&[BorrowedFd<'_>], &str); 5] = [
        (&[], "no descriptor came with it"),
        (&[file.as_fd()], "what was sent is no socket"),
        (&[writer.as_fd()], "what was sent is no socket"),
        (&[server.as_fd(), server.as_fd()], "more than one descriptor"),
        (&[server.as_fd(), writer.as_fd(), writer.as_fd(), file.as_fd()], "more than one descriptor"),
    ];
    for (descriptors, expected) in cases {
        let (reason, message) = refusal(&link, &watch, descriptors);
        assert_eq!(reason, Reason::Invalid);
        assert!(message.contains(expected) && !message.contains('\n'), "{message}");
    }
    let others = Request::WatchQueue { slot: 0, keep: false };
    assert_eq!(refusal(&link, &others, &[server.as_fd()]).0, Reason::NotYours);
    assert_eq!(
        refusal(&link, &Request::WatchQueue { slot: u32::MAX, keep: false }, &[server.as_fd()]).0,
        Reason::NotYours
    );
    // With requests that want none, they are closed, and the request is served.
    for _ in 0..50 {
        let (answer, _) = link.request_with(&Request::Status {}, &[writer.as_fd(), server.as_fd()]).unwrap();
        assert!(matches!(answer, Answer::Status(Status { queues: 0, .. })), "{answer:?}");
    }
    drop(writer);
    let mut rest = Vec::new();
    assert_eq!((&reader).read_to_end(&mut rest).unwrap(), 0);
    assert_eq!(link.request_with(&watch, &[server.as_fd()]).unwrap().0, Answer::Done {});
    let mut request = [0; 7];
    (&server).read_exact(&mut request).unwrap();
    assert_eq!(&request, b"request", "nobody else has read it");
}

/// A hundred at once, over and over: more than the agent may have.
#[test]
fn a_hundred_descriptors_at_once_exhaust_nobody() {
    let test = TestNode::start(|_| {});
    let node = Node::connect(test.socket()).unwrap();
    let (_client, server) = tcp();
    let before = open_descriptors();
    let packet = encode(&Request::WatchQueue { slot: 0, keep: false });
    let peer = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    rustix::net::connect(&peer, &SocketAddrUnix::new(test.socket()).unwrap()).unwrap();
    let hundred = [server.as_fd(); 100];
    for _ in 0..200 {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(100))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&hundred)));
        rustix::net::sendmsg(&peer, &[IoSlice::new(&packet)], &mut control, SendFlags::NOSIGNAL).unwrap();
        let mut answer = [MaybeUninit::uninit(); MAX_PACKET_BYTES];
        let ((answer, _), _) = rustix::net::recv(&peer, &mut answer, RecvFlags::empty()).unwrap();
        let answer: Answer = decode(answer).unwrap();
        assert!(matches!(answer, Answer::Refused { reason: Reason::Invalid, .. }), "{answer:?}");
    }
    assert_eq!(node.status().unwrap().queues, 0);
    // Tests of this process run beside each other, and each of them opens a few.
    assert!(open_descriptors() < before + 100);
}
