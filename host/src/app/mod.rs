//! What a service uses to be watched and to be recoverable.
//!
//! Progress is one store into shared memory, and a commit a few more; neither is a system call, and both go on when the
//! agent has died. Dropping a [`Session`] or an [`App`] is a clean departure. A *panic* is not: what is dropped while
//! its thread unwinds is left as it is, for a monitor to find.

mod claim;
mod orphan;

use std::fs::File;
use std::io::Read;
use std::ops::DerefMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_core::progress_box::{Counter, Slot};
use backdoor_core::state_box::{CommitError, StateBox, StateBoxError, StateBoxView};
use backdoor_core::takeover::{Doubt, Duty, Ownership};
use backdoor_core::transport::RegionKey;
use backdoor_core::words::copy_of;
use backdoor_transports::shm::{MapError, ReadOnlyWords, SharedWord, SharedWords};

use crate::clock;
use crate::input_ring::InputRing;
use crate::protocol::{Answer, CLAIMS, PROGRESS_BOX, QueuesOf, Request, STATE_BOXES, Status};
use crate::regions::Received;
use crate::tcp::{MAX_REFILL_BYTES, Queues};
use crate::wire::{Connection, ConnectionError};
use claim::ReadOnlyClaim;
pub use orphan::{Left, Orphan};

/// Time between two looks at the claim word of a session in doubt.
pub(crate) const LOOK_AGAIN: Nanos = Nanos::from_micros(500);

/// Why a service could not do what it asked for.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The agent could not be asked, or refused.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The memory that the agent sent could not be mapped.
    #[error(transparent)]
    Memory(#[from] MapError),
    /// The State Box that the agent gave is none.
    #[error(transparent)]
    StateBox(#[from] StateBoxError),
}

/// A connection to this machine's agent.
#[derive(Clone, Debug)]
pub struct Node {
    link: Arc<Connection>,
}

impl Node {
    /// Connects to the agent whose socket is at `path`.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, ConnectionError> {
        Ok(Node { link: Arc::new(Connection::connect(path.as_ref())?) })
    }

    /// The same, and waits no longer than `patience` for each answer: for whoever can do without.
    pub fn connect_within(path: impl AsRef<Path>, patience: Duration) -> Result<Self, ConnectionError> {
        Ok(Node { link: Arc::new(Connection::connect_within(path.as_ref(), patience)?) })
    }

    /// Puts this service on the node: silence longer than `deadline` while active is a failure.
    pub fn register(&self, name: &str, deadline: Nanos) -> Result<App, AppError> {
        let request = Request::Register { name: name.into(), deadline_ns: deadline.0 };
        let (answer, descriptors) = self.link.request(&request)?;
        let Answer::Registered { application, liveness_word, regions, .. } = answer else {
            return Err(self.link.no_agent(format!("answered {answer:?} to a registration")).into());
        };
        let missing = |why| self.link.no_agent(why);
        let received = Received::new(&regions, descriptors).map_err(missing)?;
        let (progress, progress_words) = received.get(PROGRESS_BOX).map_err(missing)?;
        let (states, states_words) = received.get(STATE_BOXES).map_err(missing)?;
        let (claims, claims_words) = received.get(CLAIMS).map_err(missing)?;
        let shared = Shared {
            application: Slot(application),
            progress: SharedWords::open(progress, progress_words)?,
            states: SharedWords::open(states, states_words)?,
            claims: ReadOnlyWords::open(claims, claims_words)?,
            link: Arc::clone(&self.link),
        };
        let counter = shared.counter(liveness_word)?;
        Ok(App { shared: Arc::new(shared), counter: Mutex::new(counter) })
    }

    /// Whether the agent still lives. Without it, everything goes on that exists already; nothing new can be opened,
    /// and no monitor can attach that has not done so yet.
    pub fn agent_alive(&self) -> bool {
        self.link.is_alive()
    }

    /// How full the node is.
    pub fn status(&self) -> Result<Status, ConnectionError> {
        match self.link.request(&Request::Status {})?.0 {
            Answer::Status(status) => Ok(status),
            other => Err(self.link.no_agent(format!("answered {other:?} to a question for its status"))),
        }
    }

    /// Takes a region back from monitors on other machines; see [`Agent::revoke`](crate::agent::Agent::revoke).
    pub fn revoke(&self, region: RegionKey) -> Result<(), ConnectionError> {
        self.ask(&Request::Revoke { region: region.0 })
    }

    /// Offers a revoked region again; see [`Agent::restore`](crate::agent::Agent::restore).
    pub fn restore(&self, region: RegionKey) -> Result<(), ConnectionError> {
        self.ask(&Request::Restore { region: region.0 })
    }

    /// What the kept connection of a session holds that its owner has lost: for a taker, after its fence. See
    /// [`tcp::queues`](crate::tcp::queues).
    ///
    /// # Errors
    /// [`Reason::NotClaimed`](crate::protocol::Reason::NotClaimed) while the session may be given back to its owner.
    pub fn queues(&self, session: u64) -> Result<Queues, ConnectionError> {
        self.queues_in(self.link.request(&Request::Queues { session })?)
    }

    /// The same of several sessions, in their order; quicker than one after the other.
    pub fn queues_of_all(&self, sessions: &[u64]) -> Vec<Result<Queues, ConnectionError>> {
        let answers = self.link.request_all(sessions.iter().map(|session| Request::Queues { session: *session }));
        answers.into_iter().map(|answer| self.queues_in(answer?)).collect()
    }

    fn queues_in(&self, (answer, descriptors): (Answer, Vec<OwnedFd>)) -> Result<Queues, ConnectionError> {
        let Answer::Queues(queues) = answer else {
            return Err(self.link.no_agent(format!("answered {answer:?} to a question for queues")));
        };
        let nonsense = || self.link.no_agent("it sent no file with the queues".into());
        let [file] = <[_; 1]>::try_from(descriptors).map_err(|_| nonsense())?;
        let mut bytes = Vec::new();
        let most = (2 * MAX_REFILL_BYTES) as u64;
        File::from(file).take(most).read_to_end(&mut bytes)?;
        let QueuesOf { unread, unacknowledged, .. } = queues;
        let (unread, unacknowledged) = usize::try_from(unread)
            .ok()
            .and_then(|unread| bytes.split_at_checked(unread))
            .filter(|(_, rest)| rest.len() as u64 == unacknowledged)
            .ok_or_else(nonsense)?;
        Ok(queues.with(unread.to_vec(), unacknowledged.to_vec()))
    }

    /// Makes the agent close what it keeps of the connection of a session that its owner has lost, without a word to the
    /// client: for a taker whose session has moved. An agent that sees the session's claim word does so by itself.
    ///
    /// # Errors
    /// As [`queues`](Self::queues).
    pub fn let_go(&self, session: u64) -> Result<(), ConnectionError> {
        self.ask(&Request::LetGo { session })
    }

    fn ask(&self, request: &Request) -> Result<(), ConnectionError> {
        ask(&self.link, request, &[])
    }
}

/// Asks for what is answered by no more than that it is done.
fn ask(link: &Connection, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<(), ConnectionError> {
    match link.request_with(request, descriptors)?.0 {
        Answer::Done {} => Ok(()),
        other => Err(link.no_agent(format!("answered {other:?} to {request:?}"))),
    }
}

/// What an application and its sessions have in common. The application departs with the last of them.
#[derive(Debug)]
struct Shared {
    application: Slot,
    progress: SharedWords,
    states: SharedWords,
    claims: ReadOnlyWords,
    link: Arc<Connection>,
}

impl Shared {
    fn counter(&self, liveness_word: u64) -> Result<Counter<SharedWord>, ConnectionError> {
        let index = usize::try_from(liveness_word).ok().filter(|index| *index < self.progress.len());
        let index = index.ok_or_else(|| self.link.no_agent(format!("there is no liveness word {liveness_word}")))?;
        Ok(Counter::resume(self.progress.word(index)))
    }

    fn watch_queue(&self, slot: Slot, socket: BorrowedFd<'_>, keep: bool) -> Result<(), ConnectionError> {
        ask(&self.link, &Request::WatchQueue { slot: slot.0, keep }, &[socket])
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = self.link.notify(&Request::Depart { application: self.application.0 });
        }
    }
}

/// A registered service.
#[derive(Debug)]
pub struct App {
    shared: Arc<Shared>,
    counter: Mutex<Counter<SharedWord>>,
}

impl App {
    /// The service's own progress counter. Whoever holds it keeps other threads from it.
    pub fn progress(&self) -> impl DerefMut<Target = Counter<SharedWord>> + '_ {
        self.counter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its place in the Progress Box.
    pub fn slot(&self) -> Slot {
        self.shared.application
    }

    /// Lets the agent see whether connections wait at `listener`, a stream socket that listens already: then the service
    /// can't be idle for longer than its deadline without being suspected. See [`Session::watch_queue`].
    ///
    /// The agent keeps a duplicate until the application and its sessions are dropped, or its process ends; until then,
    /// and for the moment that it takes the agent to notice, nobody else can listen at that address.
    pub fn watch_queue(&self, listener: impl AsFd) -> Result<(), ConnectionError> {
        self.shared.watch_queue(self.shared.application, listener.as_fd(), false)
    }

    /// Opens a session whose state never exceeds `state_bytes` bytes. It counts as idle until it first makes progress.
    pub fn open_session(&self, name: &str, deadline: Nanos, state_bytes: usize) -> Result<Session, AppError> {
        self.open(name, deadline, (state_bytes, 0), &[])
    }

    /// The same, and the agent [keeps](Session::keep_connection) a duplicate of the session's socket from the start: with one
    /// question instead of two. If the process dies before anything is committed, there is nothing to carry on, and the
    /// client is told as ever. The session has memory for `input_bytes` bytes of input, if not for 0, which
    /// [`TcpSession`](crate::serve::TcpSession) uses.
    pub fn open_session_with(
        &self,
        socket: impl AsFd,
        name: &str,
        deadline: Nanos,
        state_bytes: usize,
        input_bytes: usize,
    ) -> Result<Session, AppError> {
        self.open(name, deadline, (state_bytes, input_bytes), &[socket.as_fd()])
    }

    fn open(
        &self,
        name: &str,
        deadline: Nanos,
        (state_bytes, input_bytes): (usize, usize),
        socket: &[BorrowedFd<'_>],
    ) -> Result<Session, AppError> {
        let request = Request::OpenSession {
            application: self.shared.application.0,
            name: name.into(),
            deadline_ns: deadline.0,
            state_bytes: state_bytes as u64,
            input_bytes: input_bytes as u64,
        };
        let (answer, _) = self.shared.link.request_with(&request, socket)?;
        self.session(&answer)
    }

    /// The session that the agent has given.
    fn session(&self, answer: &Answer) -> Result<Session, AppError> {
        let link = &self.shared.link;
        let Answer::SessionOpened { slot, liveness_word, session, offset, words, input_words, claim } = *answer else {
            return Err(link.no_agent(format!("answered {answer:?} to a request for a session")).into());
        };
        let nonsense = || link.no_agent("the State Box that it gave lies outside its memory".into());
        let ends = offset.checked_add(words).and_then(|end| Some((end, end.checked_add(input_words)?)));
        let ends = ends.filter(|(_, end)| *end <= self.shared.states.len() as u64);
        let (end, input_end) = ends.ok_or_else(nonsense)?;
        let memory = self.shared.states.slice(offset as usize..end as usize);
        let input = InputRing::new(self.shared.states.slice(end as usize..input_end as usize));
        let claim = ReadOnlyClaim::new(self.shared.claims.clone(), claim as usize).ok_or_else(nonsense)?;
        let state = StateBox::resume(memory, claim).inspect_err(|_| {
            // It is this application's, and nobody will serve it.
            let _ = link.notify(&Request::CloseSession { session });
        })?;
        let counter = self.shared.counter(liveness_word)?;
        Ok(Session { number: session, slot: Slot(slot), counter, state, input, shared: Arc::clone(&self.shared) })
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.progress().depart();
        }
    }
}

/// One client of the service. Can be moved to the thread that serves it, and may outlive its [`App`].
#[derive(Debug)]
pub struct Session {
    number: u64,
    slot: Slot,
    counter: Counter<SharedWord>,
    state: StateBox<SharedWords, ReadOnlyClaim>,
    input: Option<InputRing>,
    shared: Arc<Shared>,
}

impl Session {
    /// Progress was made: silence from here on counts against the deadline.
    pub fn progress(&mut self) {
        self.counter.advance();
    }

    /// It waits for its client: silence from here on is expected.
    pub fn idle(&mut self) {
        self.counter.idle();
    }

    /// Lets the agent see how many bytes wait in `socket`, the connection to the client (TCP, or a Unix stream) or to
    /// another process (packets in order, too): whoever
    /// [is idle](Self::idle) while they do is suspected after the deadline. Without it, a session that loses a wake-up
    /// passes for one that has nothing to do.
    ///
    /// The agent keeps a duplicate, which it never reads, until the session is dropped, its process ends, or another
    /// socket is given to it. *So the connection stays open until then:* drop the session with the socket, or
    /// [shut the socket down](std::net::TcpStream::shutdown).
    ///
    /// # Errors
    /// The agent refuses what is no such socket, and one more than it [can watch](crate::agent::AgentConfig::queues).
    pub fn watch_queue(&self, socket: impl AsFd) -> Result<(), ConnectionError> {
        self.shared.watch_queue(self.slot, socket.as_fd(), false)
    }

    /// The same, and the agent keeps the duplicate for [a while](crate::agent::AgentConfig::keep) when this process dies,
    /// so that somebody can carry the connection on. The client is not told meanwhile.
    pub fn keep_connection(&self, socket: impl AsFd) -> Result<(), ConnectionError> {
        self.shared.watch_queue(self.slot, socket.as_fd(), true)
    }

    /// Makes `state` what a heir will find. Answers how many commits there were.
    ///
    /// # Errors
    /// [`InDoubt`](CommitError::InDoubt): somebody claims the session; answer nobody, and wait as [`duty`](Self::duty)
    /// says. [`Lost`](CommitError::Lost): it is another's; close the connection without a word. Or the state is too large.
    pub fn commit(&mut self, state: &[u8]) -> Result<u64, CommitError> {
        self.state.commit(state)
    }

    /// The same, but waits while the session is in doubt: for services with a thread for each session. `patience` is
    /// that of the cluster's takers.
    ///
    /// # Errors
    /// As [`commit`](Self::commit), without `InDoubt`.
    pub fn commit_or_wait(&mut self, state: &[u8], patience: Nanos) -> Result<u64, CommitError> {
        let mut doubt = Doubt::new(patience);
        loop {
            match self.state.commit(state) {
                Err(CommitError::InDoubt { .. }) => {
                    self.duty(&mut doubt);
                    clock::sleep_until(clock::now() + LOOK_AGAIN);
                }
                result => return result,
            }
        }
    }

    /// What was committed last; empty if nothing was.
    pub(crate) fn committed(&self) -> Result<Vec<u8>, StateBoxError> {
        let copy = copy_of(self.state.memory());
        match StateBoxView::read(&copy)?.committed() {
            Ok(committed) => Ok(committed.payload.to_vec()),
            Err(StateBoxError::Empty) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Its memory for input.
    pub(crate) fn input(&self) -> Option<&InputRing> {
        self.input.as_ref()
    }

    /// Whose it is. To be asked before every step that others can see and no commit comes before.
    pub fn ownership(&self) -> Ownership {
        self.state.ownership()
    }

    /// What is to be done now; advances the progress counter if that is to [show life](Duty::ShowLife). To be called
    /// while the session is in doubt, at intervals shorter than its deadline, with the same `doubt`.
    #[inline]
    pub fn duty(&mut self, doubt: &mut Doubt) -> Duty {
        let duty = self.state.duty(doubt, clock::now);
        if duty == Duty::ShowLife {
            self.counter.advance();
        }
        duty
    }

    /// Its number, unique on the node.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Its place in the Progress Box.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Largest state in bytes; at least what was asked for.
    pub fn capacity(&self) -> usize {
        self.state.capacity()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.counter.depart();
            let _ = self.shared.link.notify(&Request::CloseSession { session: self.number });
        }
    }
}
