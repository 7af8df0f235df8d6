//! A service that is killed and started again on the same node: its clients' connections go on, and every request is
//! answered exactly once. With real processes, sockets and kernels; root only, and then never skipped.

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_core::channels::{Channel, Output, SessionPayload, TcpState};
use backdoor_core::takeover::Claim;
use backdoor_host::app::{Left, Node};
use backdoor_host::serve::{CLIENT, Retain, ServeError, SessionConfig, TcpSession};
use common::{CLAIMED, Killed, RELAXED, TestNode, is_root, socket_of_parent, wait_for};

const CONFIG: SessionConfig = SessionConfig {
    deadline: RELAXED,
    patience: Nanos::from_secs(2),
    application_bytes: 8,
    input_bytes: 256,
    retain: Retain::Bytes(64 << 10),
};
/// Each answer is the sum, so many times: some of it waits in the kernel, some is not yet written.
const REPEATS: usize = 500;

fn answer_to(sum: u64) -> Vec<u8> {
    sum.to_le_bytes().repeat(REPEATS)
}

/// Answers each number with the sum of all so far: whatever is lost or done twice shows.
fn serve(mut session: TcpSession, mut sum: u64) -> Result<(), ServeError> {
    loop {
        let (mut number, mut have) = ([0; 8], 0);
        while have < 8 {
            match session.read(&mut number[have..]).map_err(ServeError::Client)? {
                0 => return Ok(()),
                more => have += more,
            }
        }
        sum += u64::from_le_bytes(number);
        let output = answer_to(sum);
        loop {
            match session.commit_and_send(&sum.to_le_bytes(), 8, &output) {
                Err(ServeError::NoRoom { .. }) => session.wait_until_acknowledged(u64::MAX)?,
                result => break result?,
            }
        }
        session.idle();
    }
}

/// Goes on with whatever sessions were left, then takes new clients. Tells how many were left and withheld, then its port.
#[test]
#[ignore = "the process that dies, and the one in its place"]
fn a_service_that_is_started_again() {
    let Some(socket) = socket_of_parent() else { return };
    let app = Node::connect(socket).unwrap().register("sums", RELAXED).unwrap();
    let mut left = Vec::new();
    let withheld = loop {
        match app.adopt_orphan().unwrap() {
            Left::Session(orphan) => left.push(orphan),
            Left::Nothing { withheld } => break withheld,
        }
    };
    let found = left.len() as u64;
    for orphan in left {
        let application = SessionPayload::decode(orphan.payload()).unwrap().application().to_vec();
        let sum = application.try_into().map_or(0, u64::from_le_bytes);
        // Only the first answer is ever left to be made again.
        let replay = |range: Range<u64>| answer_to(sum)[range.start as usize..range.end as usize].to_vec();
        let readopted = TcpSession::readopt(*orphan, CONFIG, replay).unwrap();
        std::thread::spawn(move || serve(readopted.go_on().unwrap(), sum));
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = u64::from(listener.local_addr().unwrap().port());
    let told: Vec<u8> = [found, withheld, port].iter().flat_map(|number| number.to_le_bytes()).collect();
    std::io::stderr().write_all(&told).unwrap();
    for client in 0.. {
        let stream = listener.accept().unwrap().0;
        let session = TcpSession::accept(&app, stream, &format!("client {client}"), CONFIG).unwrap();
        std::thread::spawn(move || serve(session, 0));
    }
}

/// A process of the service: how many sessions it went on with, how many were withheld, and where it takes new clients.
struct Service {
    process: Killed,
    found: u64,
    withheld: u64,
    address: SocketAddr,
}

impl Service {
    fn start(test: &TestNode) -> Self {
        let mut process = test.spawn("a_service_that_is_started_again");
        let mut number = || {
            let mut number = [0; 8];
            process.0.stderr.as_mut().unwrap().read_exact(&mut number).unwrap();
            u64::from_le_bytes(number)
        };
        let (found, withheld, port) = (number(), number(), number() as u16);
        Service { process, found, withheld, address: (Ipv4Addr::LOCALHOST, port).into() }
    }

    fn client(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client
    }
}

fn ask(client: &mut TcpStream, number: u64) {
    client.write_all(&number.to_le_bytes()).unwrap();
}

fn expect_answer(client: &mut TcpStream, sum: u64) {
    let mut answer = vec![0; 8 * REPEATS];
    client.read_exact(&mut answer).unwrap();
    assert!(answer == answer_to(sum), "not the answer {sum}");
}

#[test]
fn a_service_killed_again_and_again_answers_every_request_exactly_once() {
    if !is_root() {
        return;
    }
    const CLIENTS: u64 = 3;
    const KILLS: u64 = 8;
    let test = TestNode::start(|config| config.state_words = 1 << 18);
    let service = Service::start(&test);
    assert_eq!((service.found, service.withheld), (0, 0));
    let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| service.client()).collect();
    let service = Arc::new(Mutex::new(service));
    let done = Arc::new(Mutex::new(vec![0u64; CLIENTS as usize]));
    let threads: Vec<_> = clients
        .into_iter()
        .enumerate()
        .map(|(which, mut client)| {
            let done = Arc::clone(&done);
            std::thread::spawn(move || {
                // Requests ahead of their answers, in varying number, so that the service dies with any of them in hand.
                let (mut asked, mut answered, mut sums) = (0u64, 0u64, (0u64, 0u64));
                while answered < 400 * KILLS {
                    let ahead = 1 + (answered / 50 + which as u64) % 7;
                    while asked < answered + ahead {
                        asked += 1;
                        sums.0 += asked;
                        ask(&mut client, asked);
                    }
                    answered += 1;
                    sums.1 += answered;
                    expect_answer(&mut client, sums.1);
                    done.lock().unwrap()[which] = answered;
                }
                assert!(sums.0 >= sums.1);
                client
            })
        })
        .collect();
    for kill in 1..KILLS {
        // Somewhere in the middle of a request, at a place that the machine chooses.
        wait_for("requests are answered", || done.lock().unwrap().iter().all(|done| *done >= 380 * kill));
        let mut service = service.lock().unwrap();
        service.process.kill();
        *service = Service::start(&test);
        assert_eq!((service.found, service.withheld), (CLIENTS, 0), "after {kill} kills");
    }
    let clients: Vec<TcpStream> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let asker = Node::connect(test.socket()).unwrap();
    wait_for("the dead are cleared away", || asker.status().unwrap().orphans == 0);
    assert_eq!(asker.status().unwrap().sessions, CLIENTS);
    drop(clients);
    wait_for("sessions end as ever", || asker.status().unwrap().sessions == 0);
}

/// Reads a request, commits what comes of it as `change` has it, and does nothing more.
fn commit_and_die(change: impl FnOnce(&mut TcpState<'_>)) {
    let Some(socket) = socket_of_parent() else { return };
    let app = Node::connect(socket).unwrap().register("sums", RELAXED).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    std::io::stderr().write_all(&listener.local_addr().unwrap().port().to_le_bytes()).unwrap();
    let mut session = TcpSession::accept(&app, listener.accept().unwrap().0, "client", CONFIG).unwrap();
    session.read(&mut [0; 8]).unwrap();
    let output = answer_to(5);
    let (intent, output) = (output.len() as u64, Output::Retained(&output));
    let mut state = TcpState { consumed: 8, intent, output, ..*session.state() };
    change(&mut state);
    let mut payload = Vec::new();
    SessionPayload::encode(&5u64.to_le_bytes(), &[(CLIENT, Channel::Tcp(state))], &mut payload).unwrap();
    session.session().commit(&payload).unwrap();
    std::io::stderr().write_all(b"!").unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
#[ignore = "the process that dies right after its commit"]
fn a_service_that_commits_and_dies() {
    commit_and_die(|_| {});
}

#[test]
#[ignore = "the same, if it had not retained what it sends"]
fn a_service_that_commits_and_dies_retaining_nothing() {
    commit_and_die(|state| state.output = Output::Regenerated);
}

#[test]
#[ignore = "the same, if it was an heir that had been told of the end of the input, which its socket was not"]
fn a_service_that_commits_and_dies_after_the_end() {
    commit_and_die(|state| state.input_ended = true);
}

/// A client that asked one thing of a process that committed the answer and died, and the process in its place.
fn after_a_commit(dies: &str, then: impl FnOnce(&mut TcpStream)) -> Option<(TestNode, TcpStream, Service)> {
    if !is_root() {
        return None;
    }
    let test = TestNode::start(|config| config.state_words = 1 << 18);
    let mut first = test.spawn(dies);
    let mut port = [0; 2];
    first.0.stderr.as_mut().unwrap().read_exact(&mut port).unwrap();
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, u16::from_le_bytes(port))).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    ask(&mut client, 5);
    first.0.stderr.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    first.kill();
    then(&mut client);
    let second = Service::start(&test);
    assert_eq!((second.found, second.withheld), (1, 0));
    Some((test, client, second))
}

#[test]
fn what_was_committed_and_not_done_yet_is_done_once() {
    for dies in ["a_service_that_commits_and_dies", "a_service_that_commits_and_dies_retaining_nothing"] {
        // The request lies in the socket still, and another one after it.
        let Some((_test, mut client, _second)) = after_a_commit(dies, |client| ask(client, 6)) else { return };
        expect_answer(&mut client, 5);
        expect_answer(&mut client, 11);
    }
}

#[test]
fn an_end_of_the_input_that_the_socket_was_not_told_of_is_remembered() {
    let dies = "a_service_that_commits_and_dies_after_the_end";
    let Some((_test, mut client, _second)) = after_a_commit(dies, |_| {}) else { return };
    expect_answer(&mut client, 5);
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "the service ends, too");
}

#[test]
fn only_what_is_left_kept_and_unclaimed_is_handed_on() {
    if !is_root() {
        return;
    }
    let test = TestNode::start(|config| config.state_words = 1 << 18);
    let mut monitor = test.attach();
    let mut first = Service::start(&test);
    let mut clients = [first.client(), first.client()];
    for client in &mut clients {
        ask(client, 5);
        expect_answer(client, 5);
    }
    // Its process lives.
    let second = Service::start(&test);
    assert_eq!((second.found, second.withheld), (0, 0));
    // Somebody claims one of them before its process dies.
    let claimed = monitor.find("client 0").unwrap();
    let claim = |monitor: &mut common::Monitor, from: Claim, to: Claim| {
        let [from, to] = [from, to].map(|claim| claim.word(0));
        monitor.claim(claimed.record.state_box.unwrap().claim, from, to).unwrap();
    };
    claim(&mut monitor, Claim::Unclaimed, CLAIMED);
    first.process.kill();
    let third = Service::start(&test);
    assert_eq!((third.found, third.withheld), (1, 1));
    let process = u64::from(third.process.0.id());
    let handed_on = monitor.find("client 1").unwrap();
    assert_eq!(handed_on.record.process, process, "the directory tells whose it is");
    assert_ne!(handed_on.record.parent, claimed.record.parent);
    ask(&mut clients[1], 6);
    expect_answer(&mut clients[1], 11);
    ask(&mut clients[0], 6);
    // It is given back, and nobody served it meanwhile.
    claim(&mut monitor, CLAIMED, Claim::Unclaimed);
    let fourth = Service::start(&test);
    assert_eq!((fourth.found, fourth.withheld), (1, 0));
    expect_answer(&mut clients[0], 11);
}

#[test]
fn a_claim_on_a_session_that_was_taken_up_wins() {
    if !is_root() {
        return;
    }
    let test = TestNode::start(|config| config.state_words = 1 << 18);
    let mut monitor = test.attach();
    let mut first = Service::start(&test);
    let mut client = first.client();
    ask(&mut client, 5);
    expect_answer(&mut client, 5);
    first.process.kill();
    let _second = Service::start(&test);
    let session = monitor.find("client 0").unwrap();
    let word = session.record.state_box.unwrap().claim;
    let before = monitor.state(&session).unwrap();
    for (from, to) in [(Claim::Unclaimed, CLAIMED), (CLAIMED, common::FENCING)] {
        monitor.claim(word, from.word(0), to.word(0)).unwrap();
    }
    ask(&mut client, 6);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(monitor.state(&session).unwrap(), before, "nothing is committed by whoever has lost it");
}
