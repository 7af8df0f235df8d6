//! A node's live memory is overwritten under the eyes of `inspect` and `monitor`: they say that it is bad, accuse nobody,
//! and go on once it is good again.

#![cfg(target_os = "linux")]

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

const PROGRAM: &str = env!("CARGO_BIN_EXE_backdoor");
/// Byte at which each format keeps its version.
const VERSION: u64 = 8;

struct Node {
    agent: Child,
    place: tempfile::TempDir,
}

impl Node {
    fn start() -> Self {
        let place = tempfile::tempdir().unwrap();
        let mut agent = Command::new(PROGRAM)
            // A long deadline: what is accused within the test is not accused for a stall of the machine.
            .args(["node", "--arena", "64KiB", "--os-deadline", "10s", "--socket"])
            .arg(place.path().join("s"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(agent.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("agent ready"), "{line}");
        Node { agent, place }
    }

    fn socket(&self) -> PathBuf {
        self.place.path().join("s")
    }

    /// The memory called `name`, through the agent's own descriptors.
    fn memory(&self, name: &str) -> File {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.agent.id())).unwrap().map(|entry| entry.unwrap().path());
        let ours = |path: &PathBuf| fs::read_link(path).is_ok_and(|target| target.to_string_lossy().contains(name));
        let path = entries.into_iter().find(ours).expect("the agent holds its memory");
        OpenOptions::new().read(true).write(true).open(path).unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(PROGRAM).args(arguments).arg("--socket").arg(self.socket()).output().unwrap()
    }

    /// What a command says that must fail, in one sentence.
    #[track_caller]
    fn refused(&self, arguments: &[&str]) -> String {
        let Output { status, stderr, .. } = self.run(arguments);
        let message = String::from_utf8(stderr).unwrap();
        assert_eq!((status.code(), message.lines().count()), (Some(1), 1), "{message}");
        message
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.agent), Signal::INT);
        let _ = self.agent.wait();
    }
}

#[test]
fn memory_keeps_its_length() {
    let node = Node::start();
    for name in ["backdoor-hooks", "backdoor-progress", "backdoor-states", "backdoor-claims"] {
        let memory = node.memory(name);
        for length in [0, 8, memory.metadata().unwrap().len() * 2] {
            assert!(memory.set_len(length).is_err(), "{name} was made {length} bytes long under its readers");
        }
    }
}

#[test]
fn another_version_is_named_with_ours() {
    let node = Node::start();
    for (name, ours) in [("backdoor-hooks", 2), ("backdoor-progress", 3)] {
        let memory = node.memory(name);
        let mut version = [0; 4];
        memory.read_exact_at(&mut version, VERSION).unwrap();
        memory.write_all_at(&7u32.to_le_bytes(), VERSION).unwrap();
        for arguments in [&["inspect"][..], &["monitor", "--once", "--format", "json"]] {
            let message = node.refused(arguments);
            let named = format!("format version 7, this program reads version {ours}");
            assert!(message.contains(&named), "{message}");
        }
        memory.write_all_at(&version, VERSION).unwrap();
        assert!(node.run(&["inspect"]).status.success());
    }
}

#[test]
fn random_bytes_accuse_nobody() {
    let node = Node::start();
    let mut monitor = Command::new(PROGRAM);
    monitor.args(["monitor", "--for", "2500ms", "--format", "json", "--socket"]).arg(node.socket());
    let monitor = monitor.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let memory = node.memory("backdoor-progress");
    let mut whole = vec![0; memory.metadata().unwrap().len() as usize];
    memory.read_exact_at(&mut whole, 0).unwrap();
    let mut state = 1u64;
    for round in 0..40 {
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        });
        // First ever larger parts behind the header, then the header as well.
        let (from, length) = if round < 20 { (128, 64 << round.min(10)) } else { (0, 4096) };
        memory.write_all_at(&noise.take(length).collect::<Vec<u8>>(), from).unwrap();
        if round % 10 == 0 {
            let code = node.run(&["inspect"]).status.code();
            assert!(matches!(code, Some(0 | 1)), "{code:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    memory.write_all_at(&whole, 0).unwrap();
    let Output { status, stdout, stderr } = monitor.wait_with_output().unwrap();
    let said = String::from_utf8(stdout).unwrap();
    assert!(status.success() && stderr.is_empty(), "{}", String::from_utf8_lossy(&stderr));
    assert!(said.contains("bad_memory"), "{said}");
    assert!(!said.contains("\"failure\""), "somebody was accused of what the memory did: {said}");
    let attached = said.lines().filter(|line| line.contains("\"attached\"")).count();
    assert!(attached >= 2, "it was attached to again once the memory was good: {said}");
    assert!(node.run(&["inspect"]).status.success());
}
