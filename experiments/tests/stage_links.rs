//! Links between a stage and its orchestrator that really go down: two network namespaces of this machine, joined by a
//! pair of virtual cards. Memory is shared all the same, so nothing is to be noticed; what is tested is that links come
//! up again, that experiments go on afterwards, and that nobody waits for ever for a machine that is cut off.
//!
//! Needs root and iproute2: `cargo test -p backdoor-experiments --test stage_links -- --ignored`.

mod common;

use std::process::{Command, Stdio};

use common::{PATIENCE, Place, Running, wait_for};
use rustix::process::Signal;

/// Two namespaces and the pair of cards. Dropping it removes them.
struct Network {
    node: String,
    monitor: String,
}

impl Network {
    fn new(name: &str) -> Self {
        let id = std::process::id();
        let network = Network { node: format!("bd-{name}-n{id}"), monitor: format!("bd-{name}-m{id}") };
        let Network { node, monitor } = &network;
        for line in [
            format!("netns add {node}"),
            format!("netns add {monitor}"),
            format!("link add card netns {node} type veth peer name card netns {monitor}"),
            format!("-n {node} address add 10.99.0.1/24 dev card"),
            format!("-n {monitor} address add 10.99.0.2/24 dev card"),
            format!("-n {node} link set card up"),
            format!("-n {monitor} link set card up"),
        ] {
            let done = Command::new("ip").args(line.split(' ')).status();
            assert!(done.is_ok_and(|status| status.success()), "ip {line}: this test needs root and iproute2");
        }
        network
    }

    fn within(&self, namespace: &str, command: &Command) -> Command {
        let mut within = Command::new("ip");
        within.args(["netns", "exec", namespace]).arg(command.get_program()).args(command.get_args());
        within.stdin(Stdio::null());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => within.env(key, value),
                None => within.env_remove(key),
            };
        }
        within
    }

    fn stage(&self, place: &Place) -> Running {
        let command = place.backdoor(&["live", "stage", "--listen", "10.99.0.1:7170", "--allow-crash"]);
        let stage = Running::start(&mut self.within(&self.node, &command));
        assert_eq!(stage.lines.recv_timeout(PATIENCE).unwrap(), "stage ready at 10.99.0.1:7170");
        stage
    }

    fn detect(&self, place: &Place, arguments: &[&str]) -> Command {
        let always = ["live", "detect", "--on", "10.99.0.1:7170", "--deadline", "150ms", "--quiet", "--format", "csv"];
        self.within(&self.monitor, &place.backdoor(&[&always, arguments].concat()))
    }

    /// Whether both cards are up, whatever the other end does.
    fn is_up(&self) -> bool {
        [&self.node, &self.monitor].iter().all(|namespace| {
            let shown = Command::new("ip").args(["-n", namespace, "-o", "link", "show", "card"]).output().unwrap();
            let shown = String::from_utf8(shown.stdout).unwrap();
            let flags = shown.split(['<', '>']).nth(1).unwrap();
            flags.split(',').any(|flag| flag == "UP")
        })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in [&self.node, &self.monitor] {
            let _ = Command::new("ip").args(["netns", "delete", namespace]).status();
        }
    }
}

#[test]
#[ignore = "needs root and iproute2"]
fn experiments_go_on_after_links_were_down() {
    let (network, place) = (Network::new("on"), Place::new());
    let mut stage = network.stage(&place);
    let failures = "link-down,own-link-down,sigkill";
    let output = network.detect(&place, &["--failure", failures, "--runs", "2"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split(',').collect()).collect();
    let kinds: Vec<_> = rows.iter().map(|row| (row[1], row[2], row[7])).collect();
    let links =
        [("link-down", "link", "false"), ("own-link-down", "link", "false"), ("sigkill", "application", "true")];
    assert_eq!(kinds, links.map(|kind| [kind; 2]).concat(), "{text}");
    wait_for("the links to be up", || network.is_up());
    stage.signal(Signal::INT);
    assert_eq!(stage.exit_code(), Some(0));
    place.assert_nothing_is_left();
}

#[test]
#[ignore = "needs root and iproute2"]
fn a_link_comes_up_again_when_whoever_took_it_down_is_killed() {
    let (network, place) = (Network::new("up"), Place::new());
    let mut stage = network.stage(&place);
    for failure in ["own-link-down", "link-down"] {
        let mut command = Running::start(&mut network.detect(&place, &["--failure", failure, "--runs", "1"]));
        wait_for("a link to be down", || !network.is_up());
        match failure {
            "link-down" => stage.signal(Signal::KILL),
            _ => command.signal(Signal::KILL),
        }
        wait_for("the link to be up", || network.is_up());
        if failure == "own-link-down" {
            assert_eq!(command.exit_code(), None);
            wait_for("all but the stage to be gone", || place.processes().len() == 1);
        }
    }
    assert_eq!(stage.exit_code(), None);
    place.assert_nothing_is_left();
}

#[test]
#[ignore = "needs root and iproute2"]
fn machines_that_are_cut_off_from_each_other_end_the_experiment() {
    let (network, place) = (Network::new("off"), Place::new());
    let mut stage = network.stage(&place);
    let mut command = network.detect(&place, &["--failure", "none", "--duration", "60s"]);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The stage, the command, agent, monitor, worker.
    wait_for("all parts", || place.processes().len() == 5);
    let cut = Command::new("ip").args(["-n", &network.monitor, "link", "set", "card", "down"]).status().unwrap();
    assert!(cut.success());
    let output = command.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("is gone"), "{output:?}");
    wait_for("all but the stage to be gone", || place.processes().len() == 1);
    stage.signal(Signal::INT);
    assert_eq!(stage.exit_code(), Some(0));
    place.assert_nothing_is_left();
}
