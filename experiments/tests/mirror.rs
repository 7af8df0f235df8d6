//! Uploads outlive a node that vanished, if somebody saw what its kernel had acknowledged: real processes, real connections,
//! in network namespaces. As root these run, and fail where they can't.

mod common;

use backdoor_experiments::live::failover::FailoverRow;
use common::failover::{DEADLINE, failovers, is_root};

/// Of a node that vanishes; `None` for whoever is not root.
fn rows(arguments: &[&str]) -> Option<Vec<FailoverRow>> {
    is_root().then(|| failovers(DEADLINE, &[&["--failure", "cut"], arguments].concat()))
}

fn all_good(arguments: &[&str], runs: usize) {
    let Some(rows) = rows(arguments) else { return };
    assert_eq!(rows.len(), runs);
    for row in rows {
        assert!(row.mirror && row.is_good() && row.moved == row.sessions && row.trouble.is_empty(), "{row:?}");
    }
}

#[test]
fn an_upload_to_a_node_that_vanished_goes_on() {
    all_good(&["--client", "curl-upload", "--mirror", "--size", "40MB", "--runs", "3"], 3);
}

#[test]
fn whatever_else_goes_on_without_a_mirror_goes_on_with_it() {
    all_good(&["--client", "curl,keep-alive", "--mirror", "--size", "20MB", "--runs", "1"], 2);
    all_good(&["--client", "many", "--mirror", "--sessions", "50", "--size", "200kB", "--runs", "1"], 1);
}

#[test]
fn without_a_mirror_the_upload_is_said_not_to_have_finished() {
    let Some(rows) = rows(&["--client", "curl-upload", "--size", "40MB", "--runs", "1", "--limit", "5s"]) else {
        return;
    };
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert!(!row.mirror && !row.is_good() && row.trouble.contains("did not finish"), "{row:?}");
}
