//! Sessions of a node are spread over several that stand by, address by address, and an heir that is dead, frozen, full or cut
//! off does not keep the others from theirs. Real processes, in network namespaces; as root only.

mod common;

use backdoor_experiments::live::failover::FailoverRow;
use common::failover::{assert_refused, failovers, is_root};

/// The rows of a command of its own; none for whoever is not root. Nobody ever gets a wrong byte or a reset.
#[track_caller]
fn rows(arguments: &[&str]) -> Vec<FailoverRow> {
    if !is_root() {
        return Vec::new();
    }
    let rows = failovers("200ms", &[arguments, &["--runs", "1"]].concat());
    for row in &rows {
        assert!(!row.trouble.contains("wrong bytes") && row.client_resets == 0, "{row:?}");
    }
    rows
}

/// Everybody goes on over the connections that they began with, at these nodes.
#[track_caller]
fn all_go_on_at(moved_to: &str, arguments: &[&str]) -> Vec<FailoverRow> {
    let rows = rows(arguments);
    for row in &rows {
        assert!(row.is_good() && row.moved == row.sessions, "{row:?}");
        assert_eq!(row.moved_to, moved_to, "{row:?}");
    }
    rows
}

const MANY: [&str; 6] = ["--client", "many", "--sessions", "12", "--size", "150kB"];

#[test]
fn each_of_several_nodes_gets_its_share() {
    all_go_on_at("B:6 C:6", &[&MANY[..], &["--heirs", "2", "--failure", "sigstop,sigkill,cut,wrong"]].concat());
    all_go_on_at("B:3 C:3 D:3 E:3", &[&MANY[..], &["--heirs", "4", "--failure", "deadlock"]].concat());
}

#[test]
fn takers_that_decide_by_themselves_decide_alike() {
    let takers = ["--heirs", "2", "--takers", "2"];
    all_go_on_at("B:6 C:6", &[&MANY[..], &takers, &["--failure", "sigstop,wrong"]].concat());
    // The second one finishes what the first one began.
    for step in ["claimed", "offering", "offered"] {
        let dies = format!("kill-taker@{step}");
        all_go_on_at("B:6 C:6", &[&MANY[..], &takers, &["--failure", "sigstop", "--disturb", &dies]].concat());
    }
}

#[test]
fn what_an_heir_cannot_take_goes_to_the_others() {
    let two = ["--heirs", "2", "--failure", "sigstop", "--disturb"];
    for disturbance in ["kill-heir", "kill-heir@offering", "stop-heir@offering", "cut-heir", "unroute-heir"] {
        all_go_on_at("B:0 C:12", &[&MANY[..], &two, &[disturbance]].concat());
    }
    let takers = ["--takers", "2", "--disturb", "kill-heir"];
    all_go_on_at("B:0 C:12", &[&MANY[..], &["--heirs", "2", "--failure", "sigstop"], &takers].concat());
    // One connection has one address: the other node is there in case that the first one is not.
    let download = ["--client", "curl", "--size", "60MB", "--heirs", "2", "--failure", "sigkill"];
    all_go_on_at("B:1 C:0", &download);
    all_go_on_at("B:0 C:1", &[&download[..], &["--disturb", "kill-heir"]].concat());
}

#[test]
fn sessions_of_an_address_without_an_heir_keep_nobody_from_going_on() {
    let two = ["--heirs", "2", "--failure", "sigstop", "--limit", "6s", "--disturb"];
    // A stranger has the first address; node B dies with its sessions taken, or has room for some of them.
    for (disturbance, moved_to, why) in [
        ("stranger", "B:0 C:6", &["10.0.0.10 is in use"][..]),
        ("heir-dies-taking", "B:6 C:6", &["it has not said that it serves", "stood by at node B has ended"]),
        ("fill-heir", "B:4 C:6", &["no room for a State Box", "10.0.0.10 is in use"]),
    ] {
        for row in rows(&[&MANY[..], &two, &[disturbance]].concat()) {
            assert!(!row.sha256_ok && row.moved_to == moved_to, "{row:?}");
            assert!(why.iter().all(|why| row.trouble.contains(why)), "{row:?}");
        }
    }
}

#[test]
fn settings_that_cannot_be_get_one_sentence() {
    assert_refused([
        (&["--heirs", "0"][..], "for a takeover there must be one"),
        (&["--heirs", "5"], "from 0 to 4"),
        (&["--heirs", "2", "--service", "pair"], "not of a pair"),
    ]);
}
