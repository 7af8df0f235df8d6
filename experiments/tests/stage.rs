//! Experiments whose node is on a stage, here on the same machine: are they the same, whatever ends first, and whoever
//! else comes to the port?

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use backdoor_experiments::interrupt::Interrupt;
use backdoor_experiments::live::detect::{DetectConfig, FailureKind, run};
use backdoor_experiments::live::stage::protocol::{Answer, Greeting, Request, VERSION};
use common::{HEADER, PATIENCE, Place, Running, config, every_run_is_detected_and_recovered, undisturbed, wait_for};
use rustix::process::Signal;

/// A stage of this test's own place.
struct OnStage {
    stage: Running,
    address: SocketAddr,
}

impl OnStage {
    fn new(place: &Place) -> Self {
        let stage = Running::start(&mut place.backdoor(&["live", "stage", "--listen", "127.0.0.1:0"]));
        let line = stage.lines.recv_timeout(PATIENCE).unwrap();
        let address = line.strip_prefix("stage ready at ").unwrap().parse().unwrap();
        OnStage { stage, address }
    }

    fn config(&self, failure: FailureKind) -> DetectConfig {
        DetectConfig { on: Some(self.address), ..config(failure) }
    }

    /// A command that runs until it is stopped.
    fn long_run(&self, place: &Place) -> Running {
        let on = self.address.to_string();
        let arguments = ["live", "detect", "--on", &on, "--failure", "none", "--duration", "60s", "--load", "1"];
        Running::start(place.backdoor(&arguments).arg("--quiet"))
    }

    #[track_caller]
    fn ends_and_leaves_nothing(mut self, place: &Place) {
        self.stage.signal(Signal::INT);
        assert_eq!(self.stage.exit_code(), Some(0));
        place.assert_nothing_is_left();
    }
}

/// Says something to a port, and answers what is said there until the connection ends.
fn conversation(address: SocketAddr, says: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may hang up at any time, and then what it said before may be lost.
    let _ = stream.write_all(says);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard);
    String::from_utf8(heard).unwrap()
}

fn line(message: &impl serde::Serialize) -> String {
    serde_json::to_string(message).unwrap() + "\n"
}

/// Somebody at a port of this machine who says these lines, each after one was heard, but the first at once.
fn somebody_who_says(lines: Vec<String>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut heard = BufReader::new(stream.try_clone().unwrap());
        for line in lines {
            stream.write_all(line.as_bytes()).unwrap();
            heard.read_line(&mut String::new()).unwrap();
        }
    });
    address
}

/// What the command says when it fails.
#[track_caller]
fn complaint(place: &Place, on: SocketAddr) -> String {
    let output = place.output(&["live", "detect", "--quiet", "--runs", "1", "--on", &on.to_string()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn failures_on_a_stage_are_noticed_and_read_out() {
    let place = Place::new();
    let on = OnStage::new(&place);
    every_run_is_detected_and_recovered(&on.config(FailureKind::Sigstop), 5);
    every_run_is_detected_and_recovered(&on.config(FailureKind::Deadlock), 5);
    every_run_is_detected_and_recovered(&on.config(FailureKind::SessionStuck), 1);
    on.ends_and_leaves_nothing(&place);
}

#[test]
fn the_csv_has_the_same_columns() {
    let place = Place::new();
    let on = OnStage::new(&place);
    let address = on.address.to_string();
    let arguments = ["live", "detect", "--on", &address, "--failure", "sigkill,none", "--runs", "1", "--quiet"];
    let output =
        place.output(&[&arguments[..], &["--deadline", "100ms", "--duration", "50ms", "--format", "csv"]].concat());
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines[0], lines.len()), (HEADER, 3), "{text}");
    assert!(lines[1].starts_with("0,sigkill,application,shm,100.0,1.0,0,true,"), "{text}");
    // One machine, one clock.
    assert!(lines[1..].iter().all(|line| line.ends_with(",0.0,duty,true")), "{text}");
    on.ends_and_leaves_nothing(&place);
}

/// A machine that stands still while its memory can be read, as a crashed one whose network card goes on: all processes
/// of the node are stopped.
#[test]
fn a_node_that_stands_still_is_told_by_its_operating_system() {
    let place = Place::new();
    let on = OnStage::new(&place);
    // The parts that the stage started, by its own process: their parent.
    let parts = |signal: &str| format!("kill -{signal} $(cat /proc/{0}/task/*/children)", on.stage.child.id());
    let config =
        DetectConfig { inject: Some(parts("STOP")), repair: Some(parts("CONT")), ..on.config(FailureKind::Command) };
    let report = undisturbed(&config);
    for row in &report.rows {
        assert!(row.detected, "{row:?}");
        assert_eq!((&*row.level, row.cause.as_str()), ("os", "operating_system"), "{row:?}");
        assert_eq!((row.affected, row.recovered, row.recovered_ok), (5, 5, 5), "{row:?}");
        assert!(row.injection_ms.unwrap() > 0.0, "{row:?}");
    }
    assert_eq!(report.keeps_bound(), None);
    on.ends_and_leaves_nothing(&place);
}

#[test]
fn a_command_that_fails_is_undone_and_named() {
    let place = Place::new();
    let on = OnStage::new(&place);
    let undone = tempfile::tempdir().unwrap();
    let marker = undone.path().join("undone");
    let config = DetectConfig {
        inject: Some("echo no >&2; exit 3".into()),
        repair: Some(format!("touch {}", marker.display())),
        ..on.config(FailureKind::Command)
    };
    let error = run(&config, &Interrupt::new(), &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("--inject") && error.contains("exit status: 3"), "{error}");
    assert!(marker.exists());
    on.ends_and_leaves_nothing(&place);
}

#[test]
fn a_stage_that_was_not_told_so_leaves_its_machine_alone() {
    let place = Place::new();
    let on = OnStage::new(&place);
    for failure in [FailureKind::KernelCrash, FailureKind::LinkDown] {
        let error = run(&on.config(failure), &Interrupt::new(), &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("--allow-crash"), "{error}");
    }
    let error = run(&on.config(FailureKind::OwnLinkDown), &Interrupt::new(), &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("loopback") || error.contains("iproute2"), "{error}");
    on.ends_and_leaves_nothing(&place);
}

#[test]
fn a_stage_takes_one_orchestrator_at_a_time() {
    let place = Place::new();
    let on = OnStage::new(&place);
    let mut first = on.long_run(&place);
    // The stage, the command, agent, load, monitor, worker.
    wait_for("all parts", || place.processes().len() == 6);
    let refused = complaint(&place, on.address);
    assert!(refused.contains("one experiment at a time"), "{refused}");
    assert!(first.child.try_wait().unwrap().is_none());
    first.signal(Signal::INT);
    assert_eq!(first.exit_code(), Some(130));
    on.ends_and_leaves_nothing(&place);
}

#[test]
fn the_parts_on_a_stage_end_with_their_orchestrator() {
    let place = Place::new();
    let on = OnStage::new(&place);
    let mut command = on.long_run(&place);
    wait_for("all parts", || place.processes().len() == 6);
    command.signal(Signal::KILL);
    assert_eq!(command.exit_code(), None);
    wait_for("all but the stage to be gone", || place.processes().len() == 1);
    // It is free again.
    every_run_is_detected_and_recovered(&DetectConfig { runs: 1, ..on.config(FailureKind::Sigkill) }, 5);
    on.ends_and_leaves_nothing(&place);
}

#[test]
fn an_orchestrator_says_that_its_stage_is_gone() {
    for signal in [Signal::KILL, Signal::INT] {
        let place = Place::new();
        let on = OnStage::new(&place);
        let arguments = ["live", "detect", "--failure", "none", "--duration", "60s", "--quiet", "--on"];
        let mut command = place.backdoor(&arguments);
        let command = command.arg(on.address.to_string()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let command = command.spawn().unwrap();
        wait_for("all parts", || place.processes().len() == 5);
        on.stage.signal(signal);
        let output = command.wait_with_output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains(&format!("the stage at {} is gone", on.address)), "{message}");
        drop(on);
        place.assert_nothing_is_left();
    }
}

/// Says a greeting, and answers the lines that come then.
fn greet(address: SocketAddr, experiment: &str) -> (TcpStream, BufReader<TcpStream>, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    lines.read_line(&mut String::new()).unwrap();
    stream.write_all(line(&Greeting::ours(experiment)).as_bytes()).unwrap();
    let mut answer = String::new();
    lines.read_line(&mut answer).unwrap();
    (stream, lines, answer)
}

/// The connection of an orchestrator that made the link fail may be alive in the eyes of the stage.
#[test]
fn an_orchestrator_that_comes_back_takes_its_own_place() {
    let place = Place::new();
    let on = OnStage::new(&place);
    let (_first, mut lines, answer) = greet(on.address, "mine");
    assert!(answer.contains("welcome"), "{answer}");
    let (_other, _, answer) = greet(on.address, "another's");
    assert!(answer.contains("one experiment at a time"), "{answer}");
    let (_nameless, _, answer) = greet(on.address, "");
    assert!(answer.contains("one experiment at a time"), "{answer}");
    let (_again, _, answer) = greet(on.address, "mine");
    assert!(answer.contains("welcome"), "{answer}");
    assert_eq!(lines.read_line(&mut String::new()).unwrap(), 0, "the first connection has ended");
    on.ends_and_leaves_nothing(&place);
}

#[test]
fn versions_must_agree() {
    let place = Place::new();
    let other = Greeting { backdoor_stage: 7, program: "9.9".into(), ..Greeting::ours("") };
    let message = complaint(&place, somebody_who_says(vec![line(&other)]));
    assert!(message.contains("version 7") && message.contains("9.9"), "{message}");

    let on = OnStage::new(&place);
    let answer = conversation(on.address, line(&other).as_bytes());
    assert!(answer.contains("version 7") && answer.lines().count() == 2, "{answer}");
    on.ends_and_leaves_nothing(&place);
}

#[test]
fn who_is_no_stage_is_told_apart() {
    let place = Place::new();
    let message = complaint(&place, somebody_who_says(vec!["SSH-2.0-OpenSSH_9.9\r\n".into()]));
    assert!(message.contains("not a stage") && message.contains("SSH-2.0"), "{message}");
    let endless = "x".repeat(100_000);
    let message = complaint(&place, somebody_who_says(vec![endless]));
    assert!(message.contains("not a stage"), "{message}");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let message = complaint(&place, nobody);
    assert!(message.contains("can't reach a stage") && message.contains("refused"), "{message}");
    place.assert_nothing_is_left();
}

#[test]
fn shared_memory_is_not_looked_for_on_another_machine() {
    let place = Place::new();
    let elsewhere = Greeting { boot_id: "another machine's".into(), ..Greeting::ours("") };
    let socket = Answer::Said { part: 0, line: "{\"socket\":\"/run/node.sock\"}".into() };
    let started = line(&Answer::Started { process: 1 }) + &line(&socket);
    let message = complaint(
        &place,
        somebody_who_says(vec![line(&elsewhere), line(&Answer::Welcome), started, line(&Answer::Done)]),
    );
    assert!(message.contains("shared memory does not reach another machine"), "{message}");
    place.assert_nothing_is_left();
}

#[test]
fn a_stage_minds_nothing_that_comes_to_its_port() {
    let place = Place::new();
    let on = OnStage::new(&place);
    let greeting = line(&Greeting::ours("mine"));
    let say = |part| line(&Request::Say { part, line: "x".into() });
    for (says, lines) in [
        ("GET / HTTP/1.1\r\n\r\n".into(), 2),
        ("x".repeat(1 << 20), 1),
        ("[".repeat(1000) + "\n", 2),
        ("{\"backdoor_stage\":1".into(), 2),
        // Greeted and welcomed; a bad request ends it, an impossible one is answered.
        (greeting.clone() + "garbage\n", 2),
        (greeting.clone() + &"[".repeat(1 << 20), 1),
        (greeting.clone() + &say(9) + &line(&Request::End { part: 9 }) + &line(&Request::How { part: 9 }), 5),
        (greeting.clone() + "{\"request\":\"start\",\"part\":0,\"role\":{\"part\":\"load\",\"lifetime\":7}}\n", 2),
    ] {
        let heard = conversation(on.address, says.as_bytes());
        // The end of what was said may be lost where much was left unread.
        assert!(heard.lines().count() >= lines, "{} bytes: {heard}", says.len());
        assert!(heard.starts_with(&format!("{{\"backdoor_stage\":{VERSION},")), "{heard}");
    }
    // Many who say nothing, one who left at once.
    let silent: Vec<TcpStream> = (0..5).map(|_| TcpStream::connect(on.address).unwrap()).collect();
    drop(TcpStream::connect(on.address).unwrap());
    every_run_is_detected_and_recovered(&DetectConfig { runs: 1, ..on.config(FailureKind::Sigkill) }, 5);
    drop(silent);
    std::thread::sleep(Duration::from_millis(20));
    on.ends_and_leaves_nothing(&place);
}
