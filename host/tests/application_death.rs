//! A service that dies: its agent lives on, its entities and State Boxes stay until their room is needed.

mod common;

use std::io::Read;
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_core::progress_box::EntityState;
use backdoor_core::state_box::CommitError;
use backdoor_core::takeover::{Doubt, Duty, Ownership};
use backdoor_core::transport::Done;
use backdoor_host::app::{AppError, Node};
use backdoor_host::protocol::Reason;
use backdoor_host::wire::ConnectionError;
use common::{CLAIMED, FENCING, Monitor, RELAXED, TestNode, socket_of_parent, wait_for};

fn state_of(client: usize) -> Vec<u8> {
    (0..1000 + client).map(|i| (i * 31 + client * 7) as u8).collect()
}

#[test]
#[ignore = "the process that dies"]
fn three_clients_served_for_ever() {
    let Some(socket) = socket_of_parent() else { return };
    let node = Node::connect(socket).unwrap();
    let app = node.register("kv", RELAXED).unwrap();
    let mut sessions = Vec::new();
    for client in 0..3 {
        let mut session = app.open_session(&format!("client {client}"), RELAXED, 2000).unwrap();
        session.progress();
        session.commit(&state_of(client)).unwrap();
        sessions.push(session);
    }
    eprint!("!");
    loop {
        app.progress().advance();
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_it_left_is_read_byte_for_byte() {
    let node = TestNode::start(|_| {});
    let mut monitor = node.attach();
    assert_eq!(monitor.find("kv"), None);
    let mut child = node.spawn("three_clients_served_for_ever");
    let pid = u64::from(child.0.id());
    child.0.stderr.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let app = monitor.find("kv").expect("a monitor attached before sees what is registered later");
    assert_eq!(app.record.process, pid);
    assert_eq!(app.record.parent, monitor.find("os").map(|os| os.slot));
    child.kill();

    let asker = Node::connect(node.socket()).unwrap();
    wait_for("the agent notices the death", || asker.status().unwrap().orphans == 4);
    let frozen = monitor.find("kv").unwrap();
    for client in 0..3 {
        let entity = monitor.find(&format!("client {client}")).unwrap();
        assert_eq!(entity.record.parent, Some(app.slot));
        assert_eq!(entity.liveness.state(), EntityState::Active, "it did not depart");
        assert_eq!(monitor.state(&entity), Ok((1, state_of(client))));
    }
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(monitor.find("kv").unwrap(), frozen, "nobody advances for the dead");
    assert!(node.agent.as_ref().unwrap().is_running());
}

#[test]
fn a_clean_departure_leaves_nothing() {
    let test = TestNode::start(|_| {});
    let mut monitor = test.attach();
    let asker = Node::connect(test.socket()).unwrap();
    let before = asker.status().unwrap();
    let node = Node::connect(test.socket()).unwrap();
    let app = node.register("kv", RELAXED).unwrap();
    let mut session = app.open_session("client", RELAXED, 100).unwrap();
    session.commit(b"secret").unwrap();
    let entity = monitor.find("client").unwrap();
    let location = entity.record.state_box.unwrap();
    drop(app);
    assert_eq!(session.commit(b"secret two"), Ok(2), "a session may outlive the handle of its application");
    drop(session);
    wait_for("everything is freed", || asker.status().unwrap() == before);
    assert_eq!((monitor.find("kv"), monitor.find("client")), (None, None));
    let words = monitor.read(backdoor_host::protocol::STATE_BOXES, location.offset, location.words).unwrap();
    assert!(words.iter().all(|word| *word == 0), "the state is not left for the next session to see");
}

#[test]
fn a_panic_is_no_departure() {
    let test = TestNode::start(|_| {});
    let mut monitor = test.attach();
    let node = Node::connect(test.socket()).unwrap();
    let app = node.register("kv", RELAXED).unwrap();
    let mut session = app.open_session("client", RELAXED, 100).unwrap();
    session.progress();
    session.commit(b"half way").unwrap();
    let handler = std::thread::spawn(move || {
        let _session = session;
        std::panic::resume_unwind(Box::new("a bug"));
    });
    assert!(handler.join().is_err());
    node.status().unwrap();
    let entity = monitor.find("client").unwrap();
    assert_eq!(entity.liveness.state(), EntityState::Active);
    assert_eq!(monitor.state(&entity), Ok((1, b"half way".to_vec())));
}

#[test]
fn a_session_taken_over_is_kept_for_its_heir() {
    let test = TestNode::start(|config| config.retain = Nanos::MAX);
    let mut monitor = test.attach();
    let node = Node::connect(test.socket()).unwrap();
    let app = node.register("kv", RELAXED).unwrap();
    let mut session = app.open_session("client", RELAXED, 100).unwrap();
    session.commit(b"mine").unwrap();
    let entity = monitor.find("client").unwrap();
    let claim = entity.record.state_box.unwrap().claim;
    let [claimed, fencing] = [CLAIMED, FENCING].map(|claim| claim.word(0));
    assert_eq!(monitor.claim(claim, 0, claimed), Ok(Done::CompareSwapped { previous: 0 }));
    assert_eq!(session.ownership(), Ownership::InDoubt);
    assert_eq!(session.commit(b"perhaps mine"), Err(CommitError::InDoubt { claim: claimed }));
    assert_eq!(monitor.claim(claim, claimed, fencing), Ok(Done::CompareSwapped { previous: claimed }));
    assert_eq!(session.ownership(), Ownership::Lost);
    assert_eq!(session.commit(b"not mine"), Err(CommitError::Lost { claim: fencing }));
    drop((session, app));
    wait_for("the departure arrives", || node.status().unwrap().orphans == 2);
    assert_eq!(monitor.state(&entity), Ok((1, b"mine".to_vec())));
}

#[test]
fn a_session_in_doubt_shows_life_for_the_takers_patience_and_is_served_on_when_given_back() {
    let test = TestNode::start(|_| ());
    let mut monitor = test.attach();
    let node = Node::connect(test.socket()).unwrap();
    let app = node.register("kv", RELAXED).unwrap();
    let mut session = app.open_session("client", RELAXED, 100).unwrap();
    session.commit(b"one").unwrap();
    let claim = monitor.find("client").unwrap().record.state_box.unwrap().claim;
    let word = CLAIMED.word(0);
    monitor.claim(claim, 0, word).unwrap();

    let count = |monitor: &mut Monitor| monitor.find("client").unwrap().liveness.count();
    let before = count(&mut monitor);
    assert_eq!(session.duty(&mut Doubt::new(Nanos::ZERO)), Duty::FallSilent);
    assert_eq!(count(&mut monitor), before);
    assert_eq!(session.duty(&mut Doubt::new(RELAXED)), Duty::ShowLife);
    assert_eq!(count(&mut monitor), before + 1);

    let waiter = std::thread::spawn(move || (session.commit_or_wait(b"two", RELAXED), session));
    wait_for("it shows life", || count(&mut monitor) > before + 2);
    monitor.claim(claim, word, 0).unwrap();
    let (committed, mut session) = waiter.join().unwrap();
    assert_eq!(committed, Ok(2));
    assert_eq!(session.duty(&mut Doubt::new(RELAXED)), Duty::Serve);

    let word = FENCING.word(0);
    monitor.claim(claim, 0, word).unwrap();
    assert_eq!(session.commit_or_wait(b"three", RELAXED), Err(CommitError::Lost { claim: word }));
}

#[test]
fn a_claim_that_comes_too_late_concerns_nobody_else() {
    let test = TestNode::start(|_| ());
    let mut monitor = test.attach();
    let app = Node::connect(test.socket()).unwrap().register("kv", RELAXED).unwrap();
    let claim_of = |monitor: &mut Monitor, name: &str| monitor.find(name).unwrap().record.state_box.unwrap().claim;
    let first = app.open_session("first", RELAXED, 100).unwrap();
    let claim = claim_of(&mut monitor, "first");
    drop(first);
    wait_for("it is gone", || monitor.find("first").is_none());
    for word in [CLAIMED, FENCING].map(|claim| claim.word(0)) {
        monitor.claim(claim, 0, word).unwrap();
        let second = app.open_session("second", RELAXED, 100).unwrap();
        // Given back, or moved: whatever becomes of the first.
        monitor.claim(claim, word, 0).unwrap();
        assert_eq!(second.ownership(), Ownership::Mine);
        assert_ne!(claim_of(&mut monitor, "second"), claim);
        drop(second);
        wait_for("it is gone", || monitor.find("second").is_none());
    }
    // When there is no other, such a word serves, too.
    monitor.claim(claim, 0, CLAIMED.word(0)).unwrap();
    let all: Vec<_> = (0..16).map(|i| app.open_session(&format!("{i}"), RELAXED, 100).unwrap()).collect();
    assert!(all.iter().all(|session| session.ownership() == Ownership::Mine));
}

/// Fills the node with the sessions of an application that then dies.
fn dead_application(test: &TestNode, asker: &Node) {
    let node = Node::connect(test.socket()).unwrap();
    let app = node.register("dead", RELAXED).unwrap();
    let sessions: Vec<_> = (0..16).map(|i| app.open_session(&format!("dead {i}"), RELAXED, 100).unwrap()).collect();
    // Closing the connection without departing is what the kernel does for a process that was killed; here the
    // destructors run on a thread that panics.
    let _ = std::thread::spawn(move || {
        let _all = (sessions, app, node);
        std::panic::resume_unwind(Box::new("dies"));
    })
    .join();
    wait_for("the agent notices", || asker.status().unwrap().orphans == 17);
}

#[test]
fn the_dead_give_way_when_their_room_is_needed_and_not_before() {
    let test = TestNode::start(|config| config.retain = Nanos::from_millis(200));
    let asker = Node::connect(test.socket()).unwrap();
    dead_application(&test, &asker);
    std::thread::sleep(Duration::from_millis(250));
    let app = asker.register("alive", RELAXED).unwrap();
    assert_eq!(asker.status().unwrap().orphans, 17, "there was room without them");
    let _session = app.open_session("needs a claim word", RELAXED, 100).unwrap();
    assert_eq!(asker.status().unwrap().orphans, 0);
}

#[test]
fn the_dead_are_kept_while_they_may_be_recovered() {
    let test = TestNode::start(|config| config.retain = Nanos::from_secs(3600));
    let asker = Node::connect(test.socket()).unwrap();
    dead_application(&test, &asker);
    let app = asker.register("alive", RELAXED).unwrap();
    let error = app.open_session("too many", RELAXED, 100).unwrap_err();
    let AppError::Connection(ConnectionError::Refused { reason: Reason::Full, message }) = error else {
        panic!("{error}")
    };
    assert!(message.contains("16 claim words"), "{message}");
    assert_eq!(asker.status().unwrap().orphans, 17);
}

#[test]
fn a_full_node_says_what_is_full() {
    let test = TestNode::start(|config| config.capacity = 8);
    let node = Node::connect(test.socket()).unwrap();
    let app = node.register("kv", RELAXED).unwrap();
    let message = app.open_session("large", RELAXED, 1 << 20).unwrap_err().to_string();
    assert!(message.contains("no room for a State Box"), "{message}");
    assert!(app.open_session("impossible", RELAXED, usize::MAX).unwrap_err().to_string().contains("possible"));
    assert!(app.open_session("never", Nanos::ZERO, 8).unwrap_err().to_string().contains("deadline"));
    let free = node.status().unwrap().free_state_words;
    let mut sessions = Vec::new();
    let error = loop {
        match app.open_session("client", RELAXED, 8) {
            Ok(session) => sessions.push(session),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("the Progress Box is full"), "{error}");
    let used = 32 * sessions.len() as u64;
    assert_eq!(node.status().unwrap().free_state_words, free - used, "a refused session keeps no memory");
}
