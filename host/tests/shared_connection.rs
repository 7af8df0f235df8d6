//! One connection to an agent, used by many threads at once: everybody gets the answer to what it asked.

mod common;

use std::time::Duration;

use backdoor_host::app::Node;
use backdoor_host::protocol::Reason;
use backdoor_host::wire::ConnectionError;
use common::TestNode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

const THREADS: u64 = 8;

/// Asks for the queues of sessions that there are not: each refusal names its session.
fn asks_in_vain(node: &Node, sessions: &[u64]) -> Vec<Result<u64, ConnectionError>> {
    let answers = node.queues_of_all(sessions);
    assert_eq!(answers.len(), sessions.len());
    let named = |answer| match answer {
        Err(ConnectionError::Refused { reason: Reason::Invalid, message }) => {
            Ok(message.rsplit(' ').next().and_then(|number| number.parse().ok()).expect(&message))
        }
        Err(other) => Err(other),
        Ok(queues) => panic!("{queues:?}"),
    };
    answers.into_iter().map(named).collect()
}

#[test]
fn each_thread_gets_its_own_answers_however_many_are_under_way() {
    let test = TestNode::start(|_| {});
    let node = Node::connect(test.socket()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let node = &node;
            scope.spawn(move || {
                for round in 0..50 {
                    // More than may be under way, and fewer, and one.
                    let count = [40, 3, 1][(round + thread as usize) % 3];
                    let sessions: Vec<u64> =
                        (0..count).map(|n| 1_000_000 * (thread + 1) + 100 * round as u64 + n).collect();
                    let named: Vec<u64> = asks_in_vain(node, &sessions).into_iter().map(Result::unwrap).collect();
                    assert_eq!(named, sessions);
                    assert_eq!(node.status().unwrap().sessions, 0);
                }
            });
        }
    });
}

#[test]
fn who_waits_for_an_agent_that_ends_hears_that_it_is_gone() {
    let mut test = TestNode::start(|_| {});
    let node = Node::connect(test.socket()).unwrap();
    std::thread::scope(|scope| {
        let asking = (0..THREADS).map(|_| {
            scope.spawn(|| {
                loop {
                    let answers = asks_in_vain(&node, &[7; 40]);
                    if let Some(first) = answers.iter().position(Result::is_err) {
                        let gone = |answer: &Result<u64, _>| matches!(answer, Err(ConnectionError::Gone));
                        assert!(answers[first..].iter().all(gone), "{answers:?}");
                        return;
                    }
                }
            })
        });
        let asking: Vec<_> = asking.collect();
        std::thread::sleep(Duration::from_millis(20));
        drop(test.agent.take());
        asking.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// Answers that come late would be taken for those to other questions.
#[test]
fn after_an_answer_that_did_not_come_nobody_is_asked_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("silent.sock");
    let silent =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::bind(&silent, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&silent, 1).unwrap();
    let patience = Duration::from_millis(50);
    let node = Node::connect_within(&path, patience).unwrap();
    let no_answer = |error: &ConnectionError| matches!(error, ConnectionError::NoAnswer { .. });
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let answers = node.queues_of_all(&[7; 40]);
                assert!(answers.iter().all(|answer| answer.as_ref().is_err_and(no_answer)), "{answers:?}");
            });
        }
    });
    assert!(node.status().as_ref().is_err_and(no_answer));
}
