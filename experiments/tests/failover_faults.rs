//! Takeovers in which something else goes wrong: takers, heirs and agents that are killed, frozen or full, sessions that are
//! opened in the middle of it. Real processes, in network namespaces; as root only.

mod common;

use std::process::Stdio;

use backdoor_experiments::live::failover::FailoverRow;
use common::failover::{DEADLINE, assert_refused, failovers, is_root};
use common::{Place, Running, wait_for};
use rustix::process::Signal;

/// What every row must show, whatever happened.
const WRONG: &str = "wrong bytes";

/// The only run of each combination.
#[track_caller]
fn one(arguments: &[&str]) -> Vec<FailoverRow> {
    rows(&[arguments, &["--runs", "1"]].concat())
}

/// The rows of a command of its own, after which nothing is left.
#[track_caller]
fn rows(arguments: &[&str]) -> Vec<FailoverRow> {
    let rows = failovers(DEADLINE, arguments);
    for row in &rows {
        assert!(!row.trouble.contains(WRONG), "{row:?}");
        assert!(row.outage_ms.is_some(), "{row:?}");
    }
    rows
}

/// Everybody finishes, with every byte right, over the connections that they began with.
#[track_caller]
fn goes_on(arguments: &[&str]) -> Vec<FailoverRow> {
    let rows = one(arguments);
    for row in &rows {
        assert!(row.is_good() && row.hit && row.moved == row.sessions, "{row:?}");
    }
    rows
}

/// Nobody can go on, nobody is told anything wrong, and the row says `why`.
#[track_caller]
fn ends_with(arguments: &[&str], why: &[&str]) -> FailoverRow {
    let mut rows = one(&[arguments, &["--limit", "5s"]].concat());
    assert_eq!(rows.len(), 1);
    let row = rows.remove(0);
    assert!(!row.sha256_ok && row.hit && row.client_resets == 0, "{row:?}");
    for why in why {
        assert!(row.trouble.contains(why), "'{why}': {row:?}");
    }
    row
}

const REQUESTS: [&str; 4] = ["--client", "requests", "--size", "600kB"];
const TEN: [&str; 6] = ["--client", "many", "--sessions", "10", "--size", "100kB"];

#[test]
fn sessions_that_are_opened_until_the_fence_are_carried_on() {
    if is_root() {
        for step in ["decided", "claimed", "fencing"] {
            let at = format!("connect@{step}");
            let rows = goes_on(&[&TEN[..], &["--failure", "wrong", "--disturb", &at]].concat());
            assert_eq!(rows[0].sessions, 15);
        }
        // Whoever comes between the fence and the takeover finds nobody.
        let row = &one(&[&TEN[..], &["--failure", "sigstop", "--disturb", "connect@fenced"]].concat())[0];
        assert!(row.sha256_ok && row.trouble.contains("came late: can't connect"), "{row:?}");
    }
}

#[test]
fn two_takers_at_once_carry_each_session_on_once() {
    if is_root() {
        goes_on(&[&TEN[..], &["--failure", "sigstop,cut,wrong", "--takers", "2"]].concat());
        goes_on(&[&REQUESTS[..], &["--failure", "sigkill", "--takers", "2"]].concat());
    }
}

#[test]
fn what_a_dead_taker_leaves_another_one_finishes() {
    if is_root() {
        for step in ["watching", "decided", "claimed", "fencing", "fenced", "offering", "offered"] {
            let at = format!("kill-taker@{step}");
            let rows = goes_on(&[&REQUESTS[..], &["--failure", "sigstop", "--takers", "2", "--disturb", &at]].concat());
            assert!(rows[0].trouble.contains("the taker process ended early (signal: 9"), "{rows:?}");
        }
    }
}

#[test]
fn without_a_second_taker_the_row_says_that_the_first_one_died() {
    if is_root() {
        for step in ["watching", "claimed", "fenced", "offering"] {
            let at = format!("kill-taker@{step}");
            let arguments = [&REQUESTS[..], &["--failure", "sigstop", "--disturb", &at]].concat();
            let row = ends_with(&arguments, &["the taker process ended early (signal: 9", "did not finish"]);
            assert_eq!(row.moved, 0);
            // A silence that never ends is one up to the end.
            assert!(row.outage_ms.is_some_and(|outage| outage > 4000.0), "{row:?}");
        }
    }
}

#[test]
fn an_agent_that_is_dead_or_frozen_is_not_waited_for() {
    if is_root() {
        // Of what the sockets hold nobody can tell any more; a download has been asked for before.
        for disturbance in ["kill-agent@decided", "kill-agent@fenced", "stop-agent@decided", "stop-agent@fenced"] {
            let rows =
                goes_on(&["--client", "curl", "--size", "60MB", "--failure", "sigstop", "--disturb", disturbance]);
            assert_eq!(rows[0].input_known, Some(false), "{rows:?}");
            assert!(rows[0].trouble.contains("queues can't be had"), "{rows:?}");
        }
        // With as many seconds for each of the sessions, nobody would finish in time.
        let many = [&TEN[..], &["--failure", "sigstop", "--disturb", "stop-agent@fenced", "--limit", "10s"]].concat();
        let row = &one(&many)[0];
        assert_eq!((row.moved, row.client_resets), (10, 0), "{row:?}");
    }
}

#[test]
fn a_service_is_watched_on_when_its_agent_has_died() {
    if is_root() {
        let curl = ["--client", "curl", "--size", "60MB", "--disturb", "kill-agent", "--failure", "sigstop,deadlock"];
        for row in goes_on(&curl) {
            assert_eq!((row.cause.as_str(), row.input_known), ("application", Some(false)), "{row:?}");
            assert!(row.trouble.contains("queues can't be had"), "{row:?}");
            // Nobody else was suspected, and the end of the agent is told once.
            assert!(row.detection_ms.is_some() && !row.trouble.contains("false positive"), "{row:?}");
            assert_eq!(row.trouble.matches("agent gone").count(), 1, "{row:?}");
        }
        // What the sockets held, a mirror knows.
        for client in [&REQUESTS[..], &["--client", "curl-upload"]] {
            let arguments = [client, &["--failure", "sigstop", "--mirror", "--disturb", "kill-agent"]].concat();
            assert_eq!(goes_on(&arguments)[0].input_known, Some(true));
        }
    }
}

#[test]
fn a_frozen_agent_delays_the_suspicion_and_does_not_prevent_it() {
    if is_root() {
        // Nobody knows that it has ended, so its counters excuse the service, but not for ever.
        let arguments = ["--client", "curl", "--size", "60MB", "--failure", "sigstop", "--disturb", "stop-agent"];
        assert_eq!(goes_on(&arguments)[0].cause, "application");
    }
}

#[test]
fn the_connections_of_a_killed_service_without_an_agent_are_ended_by_its_kernel() {
    if is_root() {
        let arguments = [&REQUESTS[..], &["--failure", "sigkill", "--disturb", "kill-agent", "--limit", "5s"]].concat();
        let row = &one(&arguments)[0];
        assert!(!row.sha256_ok && row.input_known != Some(true), "{row:?}");
        assert!(row.trouble.contains("so node A's kernel ended its connections"), "{row:?}");
    }
}

#[test]
fn an_heir_that_was_started_anew_is_found() {
    if is_root() {
        for step in ["watching", "fenced", "offering"] {
            let at = format!("restart-heir@{step}");
            let rows = goes_on(&[&TEN[..], &["--failure", "sigstop", "--disturb", &at]].concat());
            assert_eq!(rows[0].trouble, "", "{rows:?}");
        }
    }
}

#[test]
fn an_heir_that_dies_is_told() {
    if is_root() {
        for step in ["watching", "offering"] {
            let at = format!("kill-heir@{step}");
            let arguments = [&REQUESTS[..], &["--failure", "sigstop", "--disturb", &at]].concat();
            let row = ends_with(&arguments, &["not taken over in time: node B: ", "stood by at node B has ended"]);
            assert_eq!(row.moved, 0);
        }
        let arguments = [&REQUESTS[..], &["--failure", "sigstop", "--disturb", "heir-dies-taking"]].concat();
        let row =
            ends_with(&arguments, &["moved to node B", "has not said that it serves", "stood by at node B has ended"]);
        assert_eq!((row.moved, row.input_known), (1, None));
        let arguments = [&REQUESTS[..], &["--failure", "sigstop", "--disturb", "stop-heir@offering"]].concat();
        ends_with(&arguments, &["not taken over in time: node B has not answered", "stood by at node B is stopped"]);
        // It has said that it serves, and its node's agent keeps the connection: nobody is told anything wrong.
        for client in [&REQUESTS[..], &["--client", "curl", "--size", "60MB"]] {
            let arguments = [client, &["--failure", "sigstop", "--disturb", "kill-heir@served"]].concat();
            let row = ends_with(&arguments, &["stood by at node B has ended", "did not finish"]);
            assert_eq!((row.moved, row.input_known), (1, Some(true)), "{row:?}");
        }
        for (befell, why) in
            [("cut-heir@served", "has no link any more"), ("restart-heir@served", "knows none of them")]
        {
            let arguments = [&REQUESTS[..], &["--failure", "sigstop", "--disturb", befell]].concat();
            assert_eq!(ends_with(&arguments, &[why, "did not finish"]).moved, 1);
        }
        let both = [&REQUESTS[..], &["--failure", "sigkill", "--disturb", "kill-heir"]].concat();
        ends_with(&both, &["not taken over in time: node B: "]);
    }
}

#[test]
fn an_heir_that_fails_in_turn_is_taken_over_from() {
    if is_root() {
        let requests = ["--client", "requests", "--size", "2MB"];
        let curl = ["--client", "curl", "--size", "100MB"];
        for (client, then) in [(requests, "sigstop"), (requests, "session-stuck"), (curl, "sigkill"), (curl, "wrong")] {
            let row = &goes_on(&[&client[..], &["--failure", "sigstop", "--then", then]].concat())[0];
            assert_eq!((row.moved_again, row.input_known, row.trouble.as_str()), (1, Some(true), ""), "{row:?}");
            assert_eq!(row.then_detection_ms.is_some(), then != "wrong", "{row:?}");
        }
        let cut = ["--client", "curl-upload", "--size", "100MB", "--failure", "cut", "--then", "cut", "--mirror"];
        assert_eq!(goes_on(&cut)[0].moved_again, 1);
        let many =
            ["--client", "many", "--sessions", "10", "--size", "2MB", "--failure", "sigkill", "--then", "sigkill"];
        assert_eq!(goes_on(&many)[0].moved_again, 10);
    }
}

#[test]
fn an_heir_that_can_take_no_session_says_why() {
    if is_root() {
        let arguments = [&REQUESTS[..], &["--failure", "sigstop", "--disturb", "cut-heir"]].concat();
        ends_with(&arguments, &["the link eth0 is down"]);
        let arguments = [&REQUESTS[..], &["--failure", "sigstop", "--disturb", "unroute-heir"]].concat();
        ends_with(&arguments, &["there is no route from here to the client at 10.0.0.1:"]);
        let arguments = [&REQUESTS[..], &["--failure", "sigstop", "--disturb", "stranger"]].concat();
        ends_with(&arguments, &["10.0.0.10 is in use at "]);
    }
}

#[test]
fn sessions_for_which_there_is_no_room_are_declined_alone() {
    if is_root() {
        // Nobody has acknowledged what the clients sent last, so they send it again, and must not be sent a reset.
        let arguments = [&TEN[..], &["--failure", "cut", "--disturb", "fill-heir"]].concat();
        let row = ends_with(&arguments, &["not taken over in time", "no room for a State Box"]);
        assert!(row.moved > 0 && row.moved < 10, "{row:?}");
    }
}

#[test]
fn a_service_that_goes_on_again_stops_serving_what_is_anothers() {
    if is_root() {
        let rows = goes_on(&[&REQUESTS[..], &["--failure", "zombie"]].concat());
        assert_eq!(rows[0].trouble, "");
        let rows = goes_on(&[&TEN[..], &["--failure", "zombie"]].concat());
        assert_eq!(rows[0].trouble, "");
    }
}

#[test]
fn whoever_goes_on_before_the_fence_keeps_its_sessions() {
    if is_root() {
        for (client, step) in [(&REQUESTS[..], "decided"), (&REQUESTS[..], "claimed"), (&TEN[..], "claimed")] {
            let at = format!("resume@{step}");
            let row = &one(&[client, &["--failure", "sigstop", "--disturb", &at]].concat())[0];
            assert!(row.is_good() && row.hit && row.trouble.is_empty(), "{row:?}");
            assert_eq!((row.moved, row.given_back, &*row.remedy), (0, row.sessions, ""), "{row:?}");
            assert_eq!((row.fence_ms, row.first_byte_ms), (None, None), "{row:?}");
        }
        // After it, it finds itself claimed, and is silent.
        let row = &goes_on(&[&REQUESTS[..], &["--disturb", "resume@fencing"]].concat())[0];
        assert_eq!((row.given_back, row.trouble.as_str()), (0, ""), "{row:?}");
    }
}

#[test]
fn a_client_that_finishes_before_the_failure_is_a_row_with_a_reason() {
    if is_root() {
        let rows = rows(&["--client", "requests", "--size", "1kB", "--failure", "session-stuck", "--runs", "3"]);
        assert_eq!(rows.len(), 3);
        assert!(rows.iter().all(|row| row.sha256_ok && row.hit == row.trouble.is_empty()), "{rows:?}");
        for row in failovers(DEADLINE, &["--client", "curl", "--size", "1kB", "--runs", "3"]) {
            assert!(row.sha256_ok && !row.hit && !row.trouble.is_empty(), "{row:?}");
        }
    }
}

#[test]
fn nothing_outlives_a_command_that_is_killed() {
    if is_root() {
        let place = Place::new();
        // Of a node that is cut off, curl hears nothing any more.
        let arguments =
            ["live", "failover", "--client", "curl-upload", "--failure", "cut", "--disturb", "kill-taker", "--quiet"];
        let running = Running::start(place.backdoor(&arguments).stderr(Stdio::null()));
        let is_there = |name: &str| place.processes().iter().any(|line| line.contains(name));
        wait_for("curl to be at work", || is_there("upload-file"));
        // It would be done long before.
        std::thread::sleep(std::time::Duration::from_secs(3));
        assert!(is_there("upload-file") && !is_there(r#""part":"taker""#), "curl waits for ever");
        running.signal(Signal::KILL);
        place.assert_nothing_is_left();
    }
}

#[test]
fn disturbances_that_cannot_be_get_one_sentence() {
    assert_refused([
        (&["--disturb", "kill-cat"][..], "kill-taker"),
        (&["--disturb", "kill-taker@noon"], "fenced"),
        (&["--disturb", "kill-taker@fenced,kill-agent@claimed"], "one step"),
        (&["--disturb", "connect"], "curl"),
        (&["--disturb", "fill-heir@offering"], "leave out the step"),
        (&["--disturb", "heir-dies-taking@served"], "leave out the step"),
        (&["--disturb", "kill-supervisor"], "no supervisor"),
        (&["--disturb", "resume"], "name a later step"),
        (&["--disturb", "resume@claimed", "--failure", "sigkill"], "the failure sigstop"),
        (&["--disturb", "kill-supervisor@decided", "--remedy", "takeover"], "no supervisor"),
        (&["--disturb", "kill-agent@served", "--remedy", "restart"], "only watches and decides"),
        (&["--disturb", "kill-heir", "--remedy", "reboot", "--client", "requests"], "only a takeover"),
        (&["--then", "zombie"], "possible values: sigstop, sigkill"),
        (&["--then", "sigstop", "--service", "pair"], "not of a pair"),
        (&["--then", "sigstop", "--heirs", "2"], "not of one of several"),
        (&["--then", "sigstop", "--remedy", "restart"], "another remedy has none"),
        (&["--takers", "3"], "takers"),
    ]);
}
