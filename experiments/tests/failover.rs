//! Clients whose server dies go on at another node: real processes, real connections, in network namespaces.
//!
//! As root these run, and fail where they can't; without the privilege the command says what is missing.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use common::failover::{DEADLINE, assert_refused, failovers, is_root};
use common::{PATIENCE, Place, Running};
use rustix::process::Signal;

/// Somebody without any privilege runs the command; root makes itself such a one.
fn unprivileged(place: &Place, arguments: &[&str]) -> Output {
    const NOBODY: u32 = 65_534;
    if !rustix::process::geteuid().is_root() {
        return place.output(arguments);
    }
    // Where it lies now, nobody may be allowed to look.
    let program = place.path().join("backdoor");
    std::fs::copy(env!("CARGO_BIN_EXE_backdoor"), &program).unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = Command::new(program);
    command.args(arguments).env("TMPDIR", place.path()).current_dir(place.path()).uid(NOBODY).gid(NOBODY);
    command.stdin(Stdio::null()).output().unwrap()
}

#[test]
fn without_the_privilege_one_sentence_says_what_is_missing() {
    let place = Place::new();
    for arguments in [&["live", "failover", "--runs", "1"][..], &["live", "overhead", "--pairs", "2"]] {
        let output = unprivileged(&place, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.contains("CAP_"), "{said}");
    }
}

#[test]
fn without_a_place_for_sockets_nothing_is_begun() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let deep = place.path().join("deep".repeat(25));
    std::fs::create_dir(&deep).unwrap();
    let none = place.path().join("none");
    for (directory, why) in [(deep, "its path would have more than 107 bytes"), (none, "no such file")] {
        for arguments in [
            &["live", "failover", "--runs", "1"][..],
            &["live", "overhead", "--quiet"],
            &["live", "detect", "--runs", "1", "--quiet"],
        ] {
            let output = place.backdoor(arguments).env("TMPDIR", &directory).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
            let expected = format!("backdoor: no socket can be in {}: {why}", directory.display());
            assert!(said.starts_with(&expected), "{said}");
        }
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
        (&["--client", "many", "--sessions", "0"], "connections"),
        (&["--client", "telnet"], "telnet"),
        (&["--limit", "0s"], "the limit"),
        (&["--limit", "99d"], "the limit"),
        (&["--limit", "5s", "--deadline", "6s"], "longer than the deadline"),
        (&["--boot-time", "1s"], "only a reboot"),
        (&["--sessions", "5"], "only the client 'many'"),
        (&["--client", "curl,requests,curl"], "curl is named twice"),
        (&["--device", "mlx5_0"], "only with --on"),
        (&["--mirror", "--remedy", "restart"], "nobody asks it"),
    ]);
}

#[test]
fn without_its_program_a_client_is_refused() {
    if is_root() {
        let arguments = ["live", "failover", "--client", "requests,curl", "--runs", "1"];
        let output = Place::new().backdoor(&arguments).env("PATH", "").output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            (output.status.code(), &*stderr),
            (Some(1), "backdoor: can't start curl: no such file or directory\n")
        );
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn rows_come_as_runs_end_and_an_interruption_keeps_them() {
    if is_root() {
        let place = Place::new();
        let arguments = ["--client", "requests", "--size", "200kB", "--runs", "1000", "--format", "csv", "--quiet"];
        let mut command =
            Running::start(place.backdoor(&[&["live", "failover"][..], &arguments].concat()).stderr(Stdio::null()));
        let line = || command.lines.recv_timeout(PATIENCE).unwrap();
        assert!(line().starts_with("run,failure,"));
        assert!(line().starts_with("0,sigstop,requests,"));
        assert!(line().starts_with("1,sigstop,requests,"));
        command.signal(Signal::INT);
        assert_eq!(command.exit_code(), Some(130));
        assert!(command.lines.iter().all(|line| line.contains(",sigstop,requests,")));
        place.assert_nothing_is_left();
    }
}

#[test]
fn an_interruption_ends_a_run_that_waits() {
    if is_root() {
        let place = Place::new();
        // Nobody takes over, so the run would last up to its limit.
        let arguments = ["--client", "requests", "--disturb", "kill-taker", "--limit", "1h", "--quiet"];
        let mut command = Running::start(&mut place.backdoor(&[&["live", "failover"][..], &arguments].concat()));
        common::wait_for("the taker's end", || {
            let processes = place.processes();
            processes.iter().any(|line| line.contains(r#""heir""#) || line.contains(r#""web""#))
                && !processes.iter().any(|line| line.contains(r#""part":"taker""#))
        });
        command.signal(Signal::INT);
        assert_eq!(command.exit_code(), Some(130));
        place.assert_nothing_is_left();
    }
}

#[test]
fn rows_that_cannot_be_written_end_the_runs() {
    if is_root() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let arguments = ["--client", "requests", "--size", "200kB", "--runs", "1000", "--format", "csv", "--quiet"];
        let output =
            Place::new().backdoor(&[&["live", "failover"][..], &arguments].concat()).stdout(full).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(stderr, "backdoor: cannot write to standard output: no space left on device\n");
    }
}
