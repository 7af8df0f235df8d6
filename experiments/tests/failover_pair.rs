//! A session that two processes serve, a front that talks to the client and a worker that counts, is carried on whichever
//! of them fails, whenever: with real processes, in network namespaces. Each request adds one, and its answer says what it
//! came to; so a request that was lost, or done twice, or a reply that was, shows in the next answer.
//!
//! As root these run, and fail where they can't.

mod common;

use common::failover::{assert_refused, failovers, is_root};

/// Longer than a busy machine keeps a thread waiting for a processor.
const DEADLINE: &str = "1s";

/// Every answer right, over the connection that the client began with; both ends of each session were carried on.
fn every_request_counts_once(arguments: &[&str], runs: usize, carried_on: u64) {
    if !is_root() {
        return;
    }
    let rows = failovers(DEADLINE, &[&["--service", "pair"], arguments].concat());
    assert_eq!(rows.len(), runs);
    for row in rows {
        assert!(row.is_good() && row.moved == carried_on, "{row:?}");
        assert_eq!((&*row.service, &*row.trouble), ("pair", ""), "{row:?}");
    }
}

#[test]
fn a_worker_that_is_frozen_or_killed_in_the_middle_of_a_message() {
    let arguments = ["--client", "requests", "--process", "worker", "--size", "400kB", "--runs", "3"];
    every_request_counts_once(&[&arguments[..], &["--failure", "sigstop,sigkill"]].concat(), 6, 2);
}

#[test]
fn a_worker_that_hangs_with_a_message_acted_upon_and_not_committed_or_committed_and_not_answered() {
    let arguments = ["--client", "requests", "--process", "worker", "--size", "200kB", "--runs", "3"];
    every_request_counts_once(&[&arguments[..], &["--failure", "session-stuck"]].concat(), 3, 2);
}

#[test]
fn whichever_process_fails_and_however() {
    let arguments = ["--client", "requests", "--size", "200kB", "--runs", "1"];
    let with = |process, failures| [&arguments[..], &["--process", process, "--failure", failures]].concat();
    every_request_counts_once(&with("front", "sigstop,sigkill,deadlock,session-stuck"), 4, 2);
    every_request_counts_once(&with("worker", "deadlock,wrong"), 2, 2);
    every_request_counts_once(&with("both", "sigstop,sigkill,deadlock,cut"), 4, 2);
}

#[test]
fn many_sessions_of_a_pair_move_together() {
    let arguments = ["--client", "many", "--sessions", "20", "--size", "200kB", "--runs", "2", "--process", "worker"];
    every_request_counts_once(&[&arguments[..], &["--failure", "sigstop,sigkill"]].concat(), 4, 40);
}

#[test]
fn settings_that_cannot_be_get_one_sentence() {
    assert_refused([
        (&["--process", "worker"][..], "one process has no worker"),
        (&["--service", "pair", "--process", "both", "--failure", "session-stuck"], "one of them is stuck"),
        (&["--service", "three"], "three"),
    ]);
}
