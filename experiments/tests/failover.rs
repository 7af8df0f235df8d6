//! Clients whose server dies go on at another node: real processes, real connections, in network namespaces.
//!
//! As root these run, and fail where they can't; without the privilege the command says what is missing.

mod common;

use common::Place;
use common::failover::{DEADLINE, assert_refused, failovers, is_root};

#[test]
fn without_the_privilege_one_sentence_says_what_is_missing() {
    if !rustix::process::geteuid().is_root() {
        let output = Place::new().output(&["live", "failover", "--runs", "1"]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains("CAP_"), "{stderr}");
    }
}

/// Every byte right, no reset, no new connection, and carried on.
fn all_good(arguments: &[&str], runs: usize) {
    if !is_root() {
        return;
    }
    let rows = failovers(DEADLINE, arguments);
    assert_eq!(rows.len(), runs);
    for row in rows {
        assert!(row.is_good() && row.moved > 0 && row.outage_ms.is_some(), "{row:?}");
    }
}

#[test]
fn a_download_goes_on_whatever_fails() {
    let failures = "sigstop,sigkill,deadlock,session-stuck,cut,wrong";
    all_good(&["--client", "curl", "--failure", failures, "--size", "60MB", "--runs", "1"], 6);
}

#[test]
fn an_upload_goes_on_whatever_process_fails() {
    let failures = "sigstop,sigkill,deadlock,session-stuck,wrong";
    all_good(&["--client", "curl-upload", "--failure", failures, "--size", "40MB", "--runs", "1"], 5);
}

#[test]
fn a_connection_that_stays_open_carries_one_object_after_the_other() {
    let failures = "sigstop,sigkill,session-stuck,wrong";
    all_good(&["--client", "keep-alive", "--failure", failures, "--size", "20MB", "--runs", "1"], 4);
}

#[test]
fn no_request_is_acted_upon_twice_or_not_at_all() {
    let failures = "sigstop,sigkill,deadlock,session-stuck,cut,wrong";
    all_good(&["--client", "requests", "--failure", failures, "--size", "500kB", "--runs", "1"], 6);
}

#[test]
fn many_sessions_move_together() {
    all_good(
        &["--client", "many", "--failure", "sigstop,sigkill", "--sessions", "50", "--size", "200kB", "--runs", "1"],
        2,
    );
}

#[test]
fn larger_states_are_carried_along() {
    if !is_root() {
        return;
    }
    let arguments = ["--client", "many", "--sessions", "3", "--size", "40kB", "--state-size", "20KiB", "--runs", "1"];
    let rows = failovers(DEADLINE, &arguments);
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert!(row.is_good() && row.moved == 3 && row.state_bytes >= 3 * 20 * 1024, "{row:?}");
}

#[test]
fn settings_that_cannot_be_get_one_sentence() {
    assert_refused([
        (&["--state-size", "1GiB"][..], "bytes of state"),
        (&["--deadline", "1ms"], "deadline"),
        (&["--size", "10"], "1 kB"),
        (&["--size", "10XB"], "unit"),
        (&["--runs", "0"], "runs"),
        (&["--sessions", "0"], "connections"),
        (&["--client", "telnet"], "telnet"),
    ]);
}
