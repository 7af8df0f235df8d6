//! `--transport verbs` where it can't work: in a build without it, and on a machine without an RDMA device. One sentence
//! that says so, and exit code 1; what works with a device is tried in virtual machines, by transports/soft-roce/run.

use std::process::{Command, Output, Stdio};

/// Runs the command, which must fail; answers its one sentence.
#[track_caller]
fn refused(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backdoor"));
    // With no key of the user's, wherever this runs.
    let empty = tempfile::tempdir().unwrap();
    command.env("XDG_CONFIG_HOME", empty.path()).env("HOME", empty.path());
    let Output { status, stdout, stderr } = command.args(arguments).stdin(Stdio::null()).output().unwrap();
    let message = String::from_utf8(stderr).unwrap();
    assert_eq!((status.code(), stdout.is_empty()), (Some(1), true), "{arguments:?}: {message}");
    assert_eq!(message.lines().filter(|line| line.starts_with("backdoor: ")).count(), 1, "{message}");
    message
}

const COMMANDS: [&[&str]; 4] = [
    &["node", "--transport", "verbs", "--listen", "127.0.0.1:0", "--key", "key"],
    &["monitor", "--transport", "verbs", "--connect", "127.0.0.1:1", "--key", "key", "--once"],
    &["inspect", "--transport", "verbs", "--connect", "127.0.0.1:1", "--key", "key"],
    &["live", "detect", "--transport", "verbs", "--runs", "1", "--quiet"],
];

/// The commands, with a key file that is there, and a socket of their own.
fn commands() -> (tempfile::TempDir, Vec<Vec<String>>) {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, format!("{}\n", "5a".repeat(32))).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let socket = directory.path().join("node.sock");
    let mut commands: Vec<Vec<String>> = COMMANDS
        .iter()
        .map(|words| {
            let replaced = words.iter().map(|word| if *word == "key" { key.to_str().unwrap() } else { word });
            replaced.map(str::to_owned).collect()
        })
        .collect();
    commands[0].extend(["--socket".into(), socket.to_str().unwrap().into()]);
    (directory, commands)
}

#[cfg(not(feature = "verbs"))]
#[test]
fn a_build_without_verbs_says_so() {
    let (_directory, commands) = commands();
    for command in commands {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let message = refused(&words);
        assert!(message.contains("cargo build --release --features verbs"), "{message}");
    }
}

/// Also where libibverbs is missing: it is opened at run time.
#[cfg(feature = "verbs")]
#[test]
fn a_machine_without_rdma_is_told_so() {
    if std::fs::read_dir("/sys/class/infiniband").is_ok_and(|mut devices| devices.next().is_some()) {
        return;
    }
    let (_directory, commands) = commands();
    for command in commands {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let message = refused(&words);
        assert!(message.contains("RDMA"), "{message}");
        assert!(message.contains("backdoor doctor"), "{message}");
    }
}

#[test]
fn options_that_contradict_each_other_are_named() {
    for (words, part) in [
        (&["inspect", "--connect", "host"][..], "--transport verbs"),
        (&["inspect", "--transport", "verbs"], "--connect"),
        (&["inspect", "--transport", "verbs", "--connect", "h", "--socket", "s"], "--socket"),
    ] {
        let message = refused(words);
        assert!(message.contains(part), "{message}");
    }
}
