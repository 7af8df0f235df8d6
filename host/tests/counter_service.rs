//! The example service, served, killed, and read by a monitor.

mod common;
#[allow(dead_code, reason = "its main is for the command line")]
#[path = "../examples/counter_service.rs"]
mod counter_service;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use backdoor_core::progress_box::EntityState;
use backdoor_host::app::Node;
use common::{Killed, Monitor, TestNode, socket_of_parent, wait_for};

#[test]
#[ignore = "the service's process"]
fn service() {
    let Some(socket) = socket_of_parent() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::io::stderr().write_all(&port.to_le_bytes()).unwrap();
    counter_service::serve(&Node::connect(socket).unwrap(), &listener).unwrap();
}

struct Client {
    stream: BufReader<TcpStream>,
    name: String,
}

impl Client {
    fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let name = format!("counter of {}", stream.local_addr().unwrap());
        Client { stream: BufReader::new(stream), name }
    }

    fn ask(&mut self, request: &str) -> String {
        writeln!(self.stream.get_mut(), "{request}").unwrap();
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn committed(&self, monitor: &mut Monitor) -> i64 {
        let entity = monitor.find(&self.name).expect("the client has a session");
        let (_, state) = monitor.state(&entity).unwrap();
        i64::from_le_bytes(state.try_into().unwrap())
    }
}

fn started(test: &TestNode) -> (Killed, u16) {
    let mut child = test.spawn("service");
    let mut port = [0; 2];
    child.0.stderr.as_mut().unwrap().read_exact(&mut port).unwrap();
    (child, u16::from_le_bytes(port))
}

#[test]
fn every_answer_is_in_the_state_box_when_the_service_is_killed() {
    let test = TestNode::start(|_| {});
    let mut monitor = test.attach();
    let (mut child, port) = started(&test);
    let (mut a, mut b) = (Client::connect(port), Client::connect(port));
    assert_eq!(a.ask("add 5"), "5");
    assert_eq!(b.ask("add -3"), "-3");
    assert_eq!(a.ask("add 2"), "7");
    assert_eq!(b.ask("get"), "-3");
    assert!(a.ask("multiply 3").starts_with("error"));
    assert!(a.ask("add seven").starts_with("error"));
    let (name_a, name_b) = (a.name.clone(), b.name.clone());
    for name in [&name_a, &name_b] {
        wait_for("a session waits", || monitor.find(name).unwrap().liveness.state() == EntityState::Idle);
    }
    child.kill();
    assert_eq!((a.committed(&mut monitor), b.committed(&mut monitor)), (7, -3));
}

#[test]
fn a_client_that_leaves_takes_its_session_along() {
    let test = TestNode::start(|_| {});
    let mut monitor = test.attach();
    let (_child, port) = started(&test);
    let mut client = Client::connect(port);
    assert_eq!(client.ask("add 1"), "1");
    assert!(monitor.find(&client.name).is_some());
    assert_eq!(client.ask("quit"), "");
    wait_for("the session departs", || monitor.find(&client.name).is_none());
    assert!(monitor.find("counter").is_some());
}
