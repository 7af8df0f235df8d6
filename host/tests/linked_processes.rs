//! Two ends of a link over real sockets, with State Boxes at a real agent: what is missing after a connection is lost, or
//! after an end was carried on, comes again, and is told by its number. Peers that send nonsense are told why.

mod common;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backdoor_core::channels::{Channel, Frame, Greeting, LinkError, LinkId, MAX_FRAME_BYTES, SessionPayload};
use backdoor_core::progress_box::Pending;
use backdoor_host::app::{App, Node};
use backdoor_host::serve::{
    Greeted, IpcChannel, IpcConfig, IpcError, IpcListener, IpcSession, PEER, Received, ServeError, new_link,
};
use common::{RELAXED, TestNode, wait_for};
use proptest::prelude::*;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType};

const CONFIG: IpcConfig = IpcConfig { deadline: RELAXED, patience: RELAXED, application_bytes: 8, room: 200 };
const SOON: Option<Duration> = Some(Duration::from_secs(10));

/// A node, an application on it, and where links begin.
struct Place {
    test: TestNode,
    app: App,
    listener: IpcListener,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let test = TestNode::start(|_| {});
        let app = Node::connect(test.socket()).unwrap().register("counter", RELAXED).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("links");
        let listener = IpcListener::bind(&path).unwrap();
        Place { test, app, listener, path, _directory: directory }
    }

    fn greeted(&self) -> Result<Greeted, IpcError> {
        self.listener.accept().unwrap().expect("a connection").greeting(Duration::from_secs(10))
    }

    /// Connects both.
    fn join(&self, front: &mut IpcSession, worker: &mut IpcSession) -> Result<(), IpcError> {
        std::thread::scope(|scope| {
            let joining = scope.spawn(|| front.channel().connect(&self.path, false, Duration::from_secs(10)));
            let incoming = loop {
                if let Some(incoming) = self.listener.accept().unwrap() {
                    break incoming;
                }
            };
            let answered = match worker.answer(incoming.greeting(Duration::from_secs(10))?) {
                Err(ServeError::Ipc(error)) => Err(error),
                answered => {
                    answered.unwrap();
                    Ok(())
                }
            };
            joining.join().unwrap().and(answered)
        })
    }

    /// Carries on the session whose State Box held `payload`.
    fn adopt(&self, payload: &[u8]) -> Result<IpcSession, ServeError> {
        IpcSession::adopt(&self.app, &SessionPayload::decode(payload)?, "heir", CONFIG)
    }

    fn sessions(&self) -> (IpcSession, IpcSession) {
        let link = new_link().unwrap();
        let open = |name| IpcSession::open(&self.app, name, link, CONFIG).unwrap();
        let (mut front, mut worker) = (open("front"), open("worker"));
        self.join(&mut front, &mut worker).unwrap();
        (front, worker)
    }

    /// What the State Box of that name holds.
    fn state_box(&self, name: &str) -> Vec<u8> {
        let mut monitor = self.test.attach();
        let entity = monitor.find(name).unwrap();
        monitor.state(&entity).unwrap().1
    }
}

fn ask(front: &mut IpcSession, request: u64) {
    front.channel().push(&request.to_le_bytes()).unwrap();
    front.commit_and_send(&request.to_le_bytes()).unwrap();
}

fn next(session: &mut IpcSession) -> u64 {
    match session.receive(SOON).unwrap() {
        Received::Message(message) => u64::from_le_bytes(message.try_into().unwrap()),
        other => panic!("{other:?}"),
    }
}

/// Answers with the sum of all requests so far.
fn work(worker: &mut IpcSession, sum: &mut u64) {
    *sum += next(worker);
    worker.channel().push(&sum.to_le_bytes()).unwrap();
    worker.commit_and_send(&sum.to_le_bytes()).unwrap();
}

#[test]
fn what_is_under_way_when_the_connection_ends_comes_again_and_once() {
    let place = Place::new();
    let (mut front, mut worker) = place.sessions();
    let mut sum = 0;
    for request in [1, 10] {
        ask(&mut front, request);
    }
    work(&mut worker, &mut sum);
    // The first reply and the second request are on their way.
    worker.channel().disconnect();
    assert_eq!(next(&mut front), 1, "what was sent before the end still comes");
    assert_eq!(front.receive(SOON).unwrap(), Received::Disconnected);
    ask(&mut front, 100);
    place.join(&mut front, &mut worker).unwrap();
    work(&mut worker, &mut sum);
    work(&mut worker, &mut sum);
    assert_eq!((next(&mut front), next(&mut front)), (11, 111));
    front.commit_and_send(b"").unwrap();
    worker.channel().push(b"").unwrap();
    assert_eq!(worker.receive(Some(Duration::ZERO)).unwrap(), Received::Nothing);
    front.channel().bye();
    assert_eq!(worker.receive(SOON).unwrap(), Received::Bye);
}

#[test]
fn both_ends_are_carried_on_from_their_boxes_and_every_request_counts_once() {
    let place = Place::new();
    let (mut front, mut worker) = place.sessions();
    let mut sum = 0;
    ask(&mut front, 1);
    work(&mut worker, &mut sum);
    ask(&mut front, 10);
    // The worker has acted upon the second request, and has not committed that; the front has the first reply, and has not
    // committed that either.
    assert_eq!((next(&mut worker), next(&mut front)), (10, 1));
    let boxes = ["front", "worker"].map(|name| place.state_box(name));
    drop((front, worker));
    let mut heirs = boxes.map(|payload| place.adopt(&payload).unwrap());
    let [front, worker] = &mut heirs;
    assert_eq!(sum, 1);
    place.join(front, worker).unwrap();
    work(worker, &mut sum);
    assert_eq!((next(front), next(front)), (1, 11));
    assert_eq!(front.receive(Some(Duration::ZERO)).unwrap(), Received::Nothing);
}

#[test]
fn nothing_is_sent_that_is_not_committed_and_no_more_is_kept_than_there_is_room_for() {
    let place = Place::new();
    let (mut front, mut worker) = place.sessions();
    front.channel().push(b"12345678").unwrap();
    front.channel().flush().unwrap();
    assert_eq!(worker.receive(Some(Duration::from_millis(20))).unwrap(), Received::Nothing);
    let refused = front.commit_and_send(&[0; 4000]).unwrap_err();
    assert!(matches!(refused, ServeError::Commit(_)), "{refused}");
    assert_eq!(worker.receive(Some(Duration::from_millis(20))).unwrap(), Received::Nothing);
    front.commit_and_send(b"").unwrap();
    assert!(matches!(worker.receive(SOON).unwrap(), Received::Message(_)));
    let refused = front.channel().push(&[0; 185]).unwrap_err();
    assert!(matches!(refused, IpcError::NoRoom { needed: 201, room: 200 }), "{refused}");
    let refused = front.channel().push(&[0; MAX_FRAME_BYTES]).unwrap_err();
    assert!(matches!(refused, IpcError::TooLong { .. }), "{refused}");
    // Acknowledged when it is committed, and not before.
    assert_eq!(front.receive(Some(Duration::from_millis(20))).unwrap(), Received::Nothing);
    assert!(front.channel().push(&[0; 185]).is_err());
    worker.commit_and_send(b"").unwrap();
    assert_eq!(front.receive(Some(Duration::from_millis(200))).unwrap(), Received::Nothing);
    front.channel().push(&[0; 185]).unwrap();
}

#[test]
fn ends_of_different_moments_do_not_serve() {
    let place = Place::new();
    let (mut front, mut worker) = place.sessions();
    let early = place.state_box("worker");
    let mut sum = 0;
    ask(&mut front, 1);
    work(&mut worker, &mut sum);
    next(&mut front);
    front.commit_and_send(b"").unwrap();
    drop(worker);
    let mut worker = place.adopt(&early).unwrap();
    let refused = place.join(&mut front, &mut worker).unwrap_err();
    assert!(matches!(refused, IpcError::Link(LinkError::NotRemembered { received: 1, sent: 0 })), "{refused}");
    assert!(!refused.may_pass());
    let no_link = place.adopt(b"nonsense").unwrap_err();
    assert!(no_link.to_string().contains("session payload"), "{no_link}");
    let mut payload = Vec::new();
    SessionPayload::encode(b"", &[], &mut payload).unwrap();
    assert!(matches!(place.adopt(&payload), Err(ServeError::NoLink)));
}

#[test]
fn what_waits_for_a_session_is_seen_and_what_is_refused_waits_for_nobody() {
    let place = Place::new();
    let (mut front, mut worker) = place.sessions();
    let mut monitor = place.test.attach();
    let gauge = usize::from(monitor.find("worker").unwrap().record.pending.expect("its queue is watched"));
    let mut waiting = |expected: bool| {
        wait_for("the agent has looked", || (Pending::of_word(monitor.gauges()[gauge]).amount > 0) == expected);
    };
    ask(&mut front, 1);
    waiting(true);
    next(&mut worker);
    waiting(false);
    ask(&mut front, 2);
    ask(&mut front, 3);
    waiting(true);
    worker.channel().disconnect();
    waiting(false);
    assert_eq!(front.receive(SOON).unwrap(), Received::Disconnected, "though the agent holds a duplicate");
}

/// Somebody who speaks the protocol by hand.
struct Peer(OwnedFd);

impl Peer {
    fn connect(path: &Path) -> Self {
        let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        rustix::net::connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        Peer(socket)
    }

    fn send(&self, packet: &[u8]) {
        rustix::net::send(&self.0, packet, SendFlags::NOSIGNAL).unwrap();
    }

    fn say(&self, frame: Frame<'_>) {
        let mut packet = Vec::new();
        frame.encode(&mut packet);
        self.send(&packet);
    }

    /// Why it was refused, whatever came before.
    fn refusal(&self) -> String {
        let mut packet = vec![0; MAX_FRAME_BYTES];
        loop {
            let length = rustix::net::recv(&self.0, &mut packet[..], RecvFlags::empty()).unwrap().0;
            assert!(length > 0, "the connection ended without a reason");
            if let Frame::Refused { why } = Frame::decode(&packet[..length]).unwrap() {
                return why.into();
            }
        }
    }
}

const LINK: LinkId = LinkId(77);

fn hello(link: LinkId, received: u64, sent: u64) -> Frame<'static> {
    Frame::Hello { greeting: Greeting { link, received, sent }, opens: true }
}

#[test]
fn who_greets_with_nonsense_is_told_why() {
    let place = Place::new();
    let mut version = Vec::new();
    hello(LINK, 0, 0).encode(&mut version);
    version[9] = 9;
    let mut message = Vec::new();
    Frame::Message { number: 1, message: b"" }.encode(&mut message);
    for (packet, why) in [
        (vec![0xff; 40], "no kind 255 of packet"),
        (version, "version 9"),
        (message, "no greeting came first"),
        (vec![1; MAX_FRAME_BYTES + 1], "more than 65536 bytes"),
    ] {
        let peer = Peer::connect(&place.path);
        peer.send(&packet);
        let error = place.greeted().unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert!(peer.refusal().contains(why), "{why}");
    }
    let _silent = Peer::connect(&place.path);
    let incoming = place.listener.accept().unwrap().unwrap();
    assert!(matches!(incoming.greeting(Duration::from_millis(20)), Err(IpcError::NoAnswer)));
}

#[test]
fn who_goes_on_with_nonsense_is_told_why_and_the_link_is_as_it_was() {
    let place = Place::new();
    let mut worker = IpcSession::open(&place.app, "worker", LINK, CONFIG).unwrap();
    let mut expect = |greeting: Frame<'_>, then: Option<Frame<'_>>, why: &str| {
        let before = worker.channel().state();
        let Channel::Ipc(before) = before.1 else { unreachable!() };
        let (received, sent) = (before.received, before.unacknowledged.last());
        let peer = Peer::connect(&place.path);
        peer.say(greeting);
        let outcome = worker.channel().answer(place.greeted().unwrap());
        let error = match then {
            None => outcome.unwrap_err(),
            Some(frame) => {
                outcome.unwrap();
                peer.say(frame);
                worker.channel().receive(SOON).unwrap_err()
            }
        };
        assert!(error.to_string().contains(why), "{error}");
        assert!(peer.refusal().contains(why), "{why}");
        assert!(!worker.channel().is_connected());
        let Channel::Ipc(after) = worker.channel().state().1 else { unreachable!() };
        assert_eq!((after.received, after.unacknowledged.last()), (received, sent));
    };
    expect(hello(LinkId(78), 0, 0), None, "link 000000000000004e");
    expect(hello(LINK, 1, 0), None, "has received 1 messages, and 0 were sent");
    let fine = hello(LINK, 0, 0);
    expect(fine, Some(fine), "a greeting came again");
    expect(fine, Some(Frame::Message { number: 2, message: b"" }), "message 2 came, and message 1 is the next");
    expect(fine, Some(Frame::Acknowledged { number: 1 }), "has received 1 messages, and 0 were sent");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever comes, it is an answer; and nothing is taken for a message that is none.
    #[test]
    fn garbage_ends_the_connection_at_most(packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..60), 1..5)) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("links");
        let listener = IpcListener::bind(&path).unwrap();
        let peer = Peer::connect(&path);
        peer.say(hello(LINK, 0, 0));
        let mut channel = IpcChannel::new(LINK, 100);
        let incoming = listener.accept().unwrap().unwrap();
        channel.answer(incoming.greeting(Duration::from_secs(10)).unwrap()).unwrap();
        for packet in &packets {
            // It may have hung up already.
            let _ = rustix::net::send(&peer.0, packet, SendFlags::NOSIGNAL);
        }
        drop(peer);
        let mut messages = 0;
        loop {
            match channel.receive(SOON) {
                Ok(Received::Message(_)) => messages += 1,
                Ok(Received::Nothing) => prop_assert!(false, "it waits for nobody"),
                Ok(_) | Err(_) => break,
            }
        }
        let (id, Channel::Ipc(state)) = channel.state() else { unreachable!() };
        prop_assert_eq!((id, state.received), (PEER, messages));
    }
}
