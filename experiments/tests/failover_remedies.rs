//! Other remedies than a takeover: the service is started again on its own node, and its sessions go on over the sockets that
//! the node's agent has kept; a policy decides which remedy is tried. Real processes, in network namespaces; as root only.

mod common;

use backdoor_experiments::live::failover::FailoverRow;
use common::failover::{DEADLINE, assert_refused, failovers, is_root};

/// Every client finishes with every byte right, without a reset or a new connection, by this remedy. No rows for whoever is
/// not root.
#[track_caller]
fn goes_on_by(remedy: &str, arguments: &[&str]) -> Vec<FailoverRow> {
    let rows = if is_root() { failovers(DEADLINE, arguments) } else { Vec::new() };
    for row in &rows {
        let (readopted, moved) = if remedy == "restart" { (row.sessions, 0) } else { (0, row.sessions) };
        assert!(row.is_good() && row.remedy == remedy, "{row:?}");
        assert_eq!((row.readopted, row.moved), (readopted, moved), "{row:?}");
        assert!(row.reinstate_ms.is_some() && row.first_byte_ms.is_some(), "{row:?}");
    }
    rows
}

const REQUESTS: [&str; 4] = ["--client", "requests", "--size", "300kB"];

#[test]
fn a_service_started_again_goes_on_with_its_clients() {
    let failures = ["--remedy", "restart", "--failure", "sigstop,sigkill,deadlock", "--runs", "2"];
    for client in
        [&REQUESTS[..], &["--client", "curl-upload", "--size", "20MB"], &["--client", "curl", "--size", "60MB"]]
    {
        let rows = goes_on_by("restart", &[client, &failures].concat());
        for row in rows {
            assert_eq!((row.claim_ms, row.fence_ms), (None, None), "{row:?}");
        }
    }
}

#[test]
fn many_sessions_go_on_at_once_whoever_asks_for_it() {
    let many = ["--client", "many", "--sessions", "30", "--size", "100kB", "--failure", "sigstop", "--runs", "1"];
    goes_on_by("restart", &[&many[..], &["--remedy", "restart"]].concat());
    goes_on_by("restart", &[&many[..], &["--remedy", "restart", "--takers", "2"]].concat());
}

#[test]
fn the_policy_restarts_what_can_be_restarted_and_takes_over_what_cannot() {
    let by_policy = |failure| [&REQUESTS[..], &["--remedy", "policy", "--runs", "1", "--failure", failure]].concat();
    goes_on_by("restart", &by_policy("sigkill"));
    for row in goes_on_by("takeover", &by_policy("cut")) {
        assert_eq!(row.afterwards, "start the application again");
    }
}

#[test]
fn where_a_restart_cannot_help_nothing_is_ended_and_the_sessions_are_taken_over() {
    for (accident, why) in [
        ("kill-supervisor", "the supervisor of the node"),
        ("kill-agent@decided", "its sessions would end"),
        ("stop-agent@decided", "its sessions would end"),
    ] {
        // Without an agent nobody knows what a client had sent that asks for more, so this one does not.
        let download = ["--client", "curl", "--size", "60MB", "--failure", "sigstop", "--runs", "1"];
        let arguments = [&download[..], &["--remedy", "policy", "--disturb", accident]];
        for row in goes_on_by("takeover", &arguments.concat()) {
            assert!(row.trouble.contains(why), "{row:?}");
        }
    }
}

#[test]
fn what_cannot_be_restarted_is_refused_with_a_sentence() {
    assert_refused([
        (&["--remedy", "restart", "--failure", "cut"][..], "nobody at a node that is cut off"),
        (&["--remedy", "restart", "--service", "pair"], "not of a pair"),
    ]);
}

/// Clients that were told that their sessions have ended, and connected again, all of them; everything that they were answered then was right.
#[track_caller]
fn begins_anew(arguments: &[&str]) -> Vec<FailoverRow> {
    let rows = if is_root() { failovers(DEADLINE, arguments) } else { Vec::new() };
    for row in &rows {
        assert!(row.sha256_ok && !row.is_good(), "{row:?}");
        assert_eq!((&*row.remedy, row.moved, row.readopted, row.lost), ("reboot", 0, 0, row.sessions), "{row:?}");
        assert!(row.client_connections >= row.sessions + row.lost, "{row:?}");
        assert!(row.reinstate_ms.is_some() && row.first_byte_ms.is_some() && row.outage_ms.is_some(), "{row:?}");
    }
    rows
}

#[test]
fn a_rebooted_node_knows_nobody_and_its_clients_begin_anew() {
    let reboot = ["--remedy", "reboot", "--runs", "1", "--failure"];
    begins_anew(&[&REQUESTS[..], &reboot, &["sigstop,sigkill,deadlock,session-stuck,wrong"]].concat());
    let many = ["--client", "many", "--sessions", "20", "--size", "100kB"];
    begins_anew(&[&many[..], &reboot, &["sigstop", "--takers", "2"]].concat());
    begins_anew(&[&many[..], &reboot, &["sigkill", "--heirs", "2"]].concat());
    begins_anew(&[&REQUESTS[..], &reboot, &["sigkill", "--service", "pair", "--process", "both"]].concat());
    for row in begins_anew(&[&REQUESTS[..], &reboot, &["sigstop", "--boot-time", "700ms"]].concat()) {
        assert!(row.reinstate_ms.is_some_and(|took| took > 700.0), "{row:?}");
    }
}

#[test]
fn the_policy_reboots_when_nothing_else_can_be_had() {
    let policy = ["--remedy", "policy", "--runs", "1", "--failure", "sigstop", "--disturb"];
    // Nobody can start the service again, and nobody stands by.
    begins_anew(&[&REQUESTS[..], &policy, &["kill-supervisor", "--heirs", "0"]].concat());
    // Nobody can be asked for anything either.
    let nothing = ["--remedy", "policy", "--runs", "1", "--failure", "cut", "--heirs", "0", "--limit", "3s"];
    for row in if is_root() { failovers(DEADLINE, &[&REQUESTS[..], &nothing].concat()) } else { Vec::new() } {
        assert!(row.trouble.contains("no remedy is left"), "{row:?}");
    }
    // Whoever stood by has died, and so it can't take anything any more.
    begins_anew(&[&REQUESTS[..], &policy, &["kill-supervisor,kill-heir", "--limit", "8s"]].concat());
    if !is_root() {
        return;
    }
    // It may be late only, and is not to serve beside a rebooted node.
    for row in failovers(DEADLINE, &[&REQUESTS[..], &policy, &["kill-supervisor,stop-heir", "--limit", "6s"]].concat())
    {
        assert_eq!((&*row.remedy, row.lost, row.client_resets), ("", 0, 0), "{row:?}");
    }
}

#[test]
fn a_reboot_after_which_nobody_would_be_there_is_refused_with_a_sentence() {
    assert_refused([
        (&["--remedy", "reboot"][..], "connect again"),
        (&["--remedy", "reboot", "--client", "requests", "--failure", "cut"], "does not mend the link"),
        (&["--remedy", "reboot", "--client", "requests", "--boot-time", "1min"], "shorter than the limit"),
        (&["--remedy", "policy", "--heirs", "0", "--disturb", "kill-heir"], "where there is none"),
    ]);
}
