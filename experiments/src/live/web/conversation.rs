//! A session at work: requests in, answers out, in an order that makes it recoverable.
//!
//! Input is read; what comes of it is committed, with the place in both streams; only then is the answer sent. So at any
//! instant whatever is not in the State Box is kept by the node, and whatever a client has seen is in the State Box. Before
//! it waits for input, it has taken in all that it had: part of a request is committed as that.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use backdoor_core::takeover::Ownership;
use backdoor_host::serve::{PreparedSession, ReadoptedSession, ServeError, TcpSession};

use super::asks::{AskError, Asks};
use super::serve::Shared;
use super::state::WebState;
use crate::live::two_locks::lock;

/// Most input that is read at once.
pub(super) const INPUT_BYTES: usize = 16 << 10;
/// Stack of a session's thread.
const STACK_BYTES: usize = 256 << 10;

/// A session that was carried on to here, and everything that it needs to be served, its thread too. Dropped, it never
/// speaks.
pub(super) struct Silent {
    go: Sender<()>,
    spoke: Receiver<Result<(), ServeError>>,
}

impl Silent {
    /// The session is this node's: it speaks, and is served. What comes is whether it could; if not, its client was told.
    pub(super) fn speak(self) -> Receiver<Result<(), ServeError>> {
        // If its thread has ended, nothing comes.
        let _ = self.go.send(());
        self.spoke
    }
}

/// A session at work.
pub(super) struct Conversation {
    link: TcpSession,
    state: WebState,
    /// The way to the worker that counts, if one does.
    asks: Option<Asks>,
    shared: Arc<Shared>,
    /// Input that was read and not yet acted upon.
    input: Vec<u8>,
    bytes: Vec<u8>,
}

impl Conversation {
    /// Serves the session in a thread of its own, from `state` on, until its client leaves, or can't be understood, or is
    /// another's. Dropping the session says the one, and nothing of the other.
    pub(super) fn begin(link: TcpSession, state: WebState, asks: Option<Asks>, shared: Arc<Shared>) -> io::Result<()> {
        thread(move || Conversation::hold(link, state, asks, shared))
    }

    /// The same for a session that was carried on to here, as soon as it may speak.
    pub(super) fn prepare(
        session: PreparedSession,
        state: WebState,
        asks: Option<Asks>,
        shared: Arc<Shared>,
    ) -> io::Result<Silent> {
        let ready = shared.waiting.enter(session);
        let (go, may_speak) = mpsc::channel();
        let (tell, spoke) = mpsc::channel();
        thread(move || {
            let Ok(Some(session)) = may_speak.recv().map(|()| lock(&ready).take()) else { return };
            // Whoever asked may be gone; the client is not.
            match session.speak() {
                Ok(link) => {
                    let _ = tell.send(Ok(()));
                    Conversation::hold(link, state, asks, shared);
                }
                Err(error) => {
                    let _ = tell.send(Err(error));
                }
            }
        })?;
        Ok(Silent { go, spoke })
    }

    /// The same for a session that a dead process of this node left.
    pub(super) fn go_on(session: ReadoptedSession, state: WebState, shared: Arc<Shared>) -> io::Result<()> {
        thread(move || {
            // If not, its client is gone, or it is another's now.
            if let Ok(link) = session.go_on() {
                Conversation::hold(link, state, None, shared);
            }
        })
    }

    fn hold(link: TcpSession, mut state: WebState, asks: Option<Asks>, shared: Arc<Shared>) {
        if asks.is_some() {
            state.ask_a_worker();
        }
        let mut conversation = Conversation { link, state, asks, shared, input: Vec::new(), bytes: Vec::new() };
        match conversation.serve().map_err(|error| error.downcast::<AskError>()) {
            Err(Ok(error)) if !matches!(*error, AskError::Lost) => {
                crate::say::err(&format!("a session ends: {error}"));
            }
            // There is nobody to tell why it ended.
            _ => {}
        }
        conversation.leave();
    }

    fn serve(&mut self) -> Result<(), Box<dyn Error>> {
        let mut buffer = vec![0; INPUT_BYTES];
        let box_bytes = self.link.config().application_bytes - self.asks.as_ref().map_or(0, |_| Asks::state_bytes());
        loop {
            let promised = self.state.promised();
            if !self.state.has_room(box_bytes) {
                let until = self.state.oldest_end().ok_or("the State Box is too small for a session")?;
                self.link.wait_until_acknowledged(until)?;
                self.state.forget(until);
                continue;
            }
            if self.state.has_more() {
                self.state.promise_more();
                self.answer(0, promised)?;
                continue;
            }
            // What was read together with an earlier request may hold another one.
            let taken = self.state.take(&self.input, box_bytes)?;
            if taken > 0 {
                if let Some(asks) = self.asks.as_mut().filter(|_| self.state.is_asking()) {
                    asks.ask(self.link.session())?;
                }
                self.answer(taken, promised)?;
                self.input.drain(..taken);
                continue;
            }
            if self.state.is_asking() {
                let asks = self.asks.as_mut().ok_or("a worker was asked, and there is none here")?;
                self.state.counted(asks.answer(self.link.session())?);
                self.answer(0, promised)?;
                continue;
            }
            self.link.idle();
            let length = self.link.read(&mut buffer)?;
            if length == 0 {
                return Ok(());
            }
            self.link.session().progress();
            self.input.extend_from_slice(&buffer[..length]);
        }
    }

    /// Commits the state, `taken` bytes of input further, and then sends what was promised past `promised`.
    fn answer(&mut self, taken: usize, promised: u64) -> Result<(), Box<dyn Error>> {
        if self.shared.is_to_stick() {
            self.shared.sticks();
        }
        *lock(&self.shared.locks.requests) += 1;
        self.state.forget(self.link.state().acknowledged);
        let output = self.state.output(promised..self.state.promised())?;
        self.state.to_bytes(&mut self.bytes);
        let others = self.asks.as_ref().map(Asks::state).unwrap_or_default();
        self.link.commit_and_send_with(&self.bytes, &others, taken, &output)?;
        if let Some(asks) = &mut self.asks {
            asks.committed();
        }
        Ok(())
    }

    /// Its client is gone, or it is another's.
    fn leave(&mut self) {
        if self.link.session().ownership() == Ownership::Mine
            && let Some(asks) = &mut self.asks
        {
            asks.bye();
        }
    }
}

/// A session's thread.
fn thread(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name("session".into()).stack_size(STACK_BYTES).spawn(work).map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use backdoor_core::Nanos;
    use backdoor_core::channels::{Channel, SessionPayload};
    use backdoor_core::detector::DeadlineDetector;
    use backdoor_core::monitor::{Monitor, MonitorConfig, Standing};
    use backdoor_host::agent::{Agent, AgentConfig};
    use backdoor_host::app::Node;
    use backdoor_host::attach::{Attachment, attach_local};
    use backdoor_host::clock;
    use backdoor_host::protocol::HOOK_TABLE;
    use backdoor_host::serve::CLIENT;
    use backdoor_host::tcp::{self, TcpError};
    use backdoor_transports::shm::ShmTransport;

    use super::super::content;
    use super::super::serve::welcome;
    use super::super::state::STATE_BYTES;
    use super::*;

    const COUNT: &[u8] = b"POST /count HTTP/1.1\r\nHost: service\r\n\r\n";

    /// A node that serves, and a monitor of it.
    struct Served {
        shared: Arc<Shared>,
        monitor: Monitor<DeadlineDetector>,
        attachment: Attachment<ShmTransport>,
        _agent: Agent,
        _directory: tempfile::TempDir,
    }

    impl Served {
        /// `None` for whoever is not root, who can't serve so.
        fn with_deadline(deadline: Nanos) -> Option<Self> {
            if !rustix::process::geteuid().is_root() {
                eprintln!("not tested: repair mode needs root");
                return None;
            }
            let directory = tempfile::tempdir().unwrap();
            let config = AgentConfig { state_words: 1 << 16, ..AgentConfig::at(directory.path().join("node.sock")) };
            let agent = Agent::start(config.clone()).unwrap();
            let app = Node::connect(&config.socket).unwrap().register("web", Nanos::from_secs(60)).unwrap();
            let attachment = attach_local(&config.socket).unwrap();
            let monitor = Monitor::by_deadline(MonitorConfig::polling_every(Nanos::from_millis(1)), HOOK_TABLE);
            let shared = Arc::new(Shared::new(app, deadline, STATE_BYTES));
            Some(Served { shared, monitor, attachment, _agent: agent, _directory: directory })
        }

        /// A client whose session is served.
        fn client(&self) -> TcpStream {
            let (client, connection) = connected();
            welcome(connection, &self.shared).unwrap();
            client
        }

        /// A client whose requests, so far, wait for an heir; and that heir, which has not spoken yet.
        fn client_of_silent(&self, requests: &[u8]) -> (TcpStream, Silent) {
            let (mut client, connection) = connected();
            let (app, config) = (&self.shared.app, self.shared.config());
            let old = TcpSession::accept(app, connection, "old", config).unwrap();
            client.write_all(requests).unwrap();
            let queues = tcp::queues(old.stream()).unwrap();
            assert_eq!(queues.unread, requests);
            let mut payload = Vec::new();
            SessionPayload::encode(b"", &[(CLIENT, Channel::Tcp(*old.state()))], &mut payload).unwrap();
            tcp::silence(old.stream()).unwrap();
            drop(old);
            let payload = SessionPayload::decode(&payload).unwrap();
            let prepared = loop {
                match TcpSession::adopt(app, &payload, Some(&queues), "client 0", config, |_| Vec::new()) {
                    // Until the agent has let go of the old one.
                    Err(ServeError::Tcp(TcpError::InUse { .. })) => std::thread::sleep(Duration::from_millis(1)),
                    prepared => break prepared.unwrap(),
                }
            };
            (client, Conversation::prepare(prepared, WebState::default(), None, Arc::clone(&self.shared)).unwrap())
        }

        /// How the first client's session is seen now.
        fn standing(&mut self) -> Option<Standing> {
            self.monitor.step(clock::now(), self.attachment.transport(), &mut Vec::new());
            let mut entities = self.monitor.entities();
            entities.find(|entity| entity.record.name.as_str() == "client 0").map(|entity| entity.standing)
        }

        /// Whether that session is watched and not suspected within so many polls.
        fn is_never_suspected(&mut self, polls: usize) -> bool {
            let seen: Vec<_> = std::iter::repeat_with(|| {
                std::thread::sleep(Duration::from_millis(1));
                self.shared.waiting.say(clock::now());
                self.standing()
            })
            .take(polls)
            .collect();
            seen.last().is_some_and(Option::is_some) && !seen.contains(&Some(Standing::Suspected))
        }
    }

    fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        (client, listener.accept().unwrap().0)
    }

    /// Reads answers to counts, which must be these.
    fn expect_counts(client: &mut TcpStream, counts: std::ops::RangeInclusive<u64>) {
        for count in counts {
            let body = format!("{count}\n");
            let text =
                format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            let mut answer = vec![0; text.len()];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(String::from_utf8_lossy(&answer), text);
        }
    }

    #[test]
    fn half_a_request_and_a_pause_of_many_deadlines_lead_to_no_suspicion() {
        let Some(mut served) = Served::with_deadline(Nanos::from_millis(50)) else { return };
        let mut client = served.client();
        for (nth, half) in [(1, 20), (2, 1), (3, COUNT.len() - 1)] {
            client.write_all(&COUNT[..half]).unwrap();
            assert!(served.is_never_suspected(400), "after {half} bytes");
            client.write_all(&COUNT[half..]).unwrap();
            expect_counts(&mut client, nth..=nth);
        }
    }

    #[test]
    fn fifty_requests_whose_answers_nobody_reads_lead_to_no_suspicion_and_are_answered_in_the_end() {
        const BYTES: u64 = 2_000_000;
        // Longer than this machine ever keeps a thread waiting for a processor.
        let Some(mut served) = Served::with_deadline(Nanos::from_secs(1)) else { return };
        let mut client = served.client();
        let requests: String = (0..50).map(|seed| format!("GET /bytes/{BYTES}?seed={seed} HTTP/1.1\r\n\r\n")).collect();
        client.write_all(requests.as_bytes()).unwrap();
        assert!(served.is_never_suspected(3_000));
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {BYTES}\r\n\r\n");
        for seed in 0..50 {
            let (mut answer, mut expected) = (vec![0; head.len() + BYTES as usize], head.clone().into_bytes());
            expected.resize(answer.len(), 0);
            content::fill(seed, 0, &mut expected[head.len()..]);
            client.read_exact(&mut answer).unwrap();
            assert!(answer == expected, "answer {seed}");
        }
    }

    #[test]
    fn a_session_that_waits_to_speak_is_not_suspected_for_the_requests_that_wait_with_it() {
        let Some(mut served) = Served::with_deadline(Nanos::from_secs(1)) else { return };
        let (mut client, silent) = served.client_of_silent(&COUNT.repeat(2));
        assert!(served.is_never_suspected(3_000));
        silent.speak().recv().unwrap().unwrap();
        expect_counts(&mut client, 1..=2);
        client.write_all(COUNT).unwrap();
        expect_counts(&mut client, 3..=3);
    }

    #[test]
    fn a_session_that_may_not_speak_never_does() {
        let Some(served) = Served::with_deadline(Nanos::from_secs(60)) else { return };
        let (mut client, silent) = served.client_of_silent(COUNT);
        drop(silent);
        client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn as_many_requests_at_once_as_anybody_likes_are_all_answered() {
        const REQUESTS: u64 = 20_000;
        let Some(served) = Served::with_deadline(Nanos::from_secs(60)) else { return };
        let mut client = served.client();
        let mut sender = client.try_clone().unwrap();
        let sent = std::thread::spawn(move || (0..REQUESTS).try_for_each(|_| sender.write_all(COUNT)));
        expect_counts(&mut client, 1..=REQUESTS);
        sent.join().unwrap().unwrap();
    }
}
