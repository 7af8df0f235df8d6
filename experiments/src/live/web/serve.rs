//! The process that serves: an event loop that takes new clients, and a thread for each session. The same process on the
//! other node waits for sessions to be offered.

use std::error::Error;
use std::io::{self, BufRead};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_core::channels::SessionPayload;
use backdoor_core::takeover::{PartyId, TakeoverConfig};
use backdoor_host::app::{App, Node};
use backdoor_host::clock;
use backdoor_host::serve::{Retain, SessionConfig, TcpSession};
use serde::{Deserialize, Serialize};

use super::asks::Asks;
use super::conversation::{Conversation, INPUT_BYTES};
use super::readopt::{Readopted, readopt};
use super::standby::StandBy;
use super::state::{LEAST_STATE_BYTES, WebState};
use super::waiting::WaitingRoom;
use super::worker::Worker;
use crate::live::reach::NodeAddress;
use crate::live::two_locks::{TwoLocks, lock};

/// The application's name in the Progress Box.
pub const SERVICE_NAME: &str = "web";
/// That of the worker.
pub const SERVICE_WORKER_NAME: &str = "web worker";
/// Period of the event loop.
const TICK: Nanos = Nanos::from_millis(1);
/// Clients that may wait to be taken in, if the kernel's limit (`net.core.somaxconn`) is not lower.
const BACKLOG: i32 = 4096;
/// Pause between two looks at whether it has failed as it was told.
const LOOK_AGAIN: Duration = Duration::from_micros(100);

/// Which process of the service this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serve {
    /// The socket of its node's agent.
    pub agent: PathBuf,
    /// Deadline of the application and of each session, in ns.
    pub deadline_ns: u64,
    /// Largest state of a session, in bytes: [`LEAST_STATE_BYTES`] and its ballast, or more.
    pub state_bytes: usize,
    /// Bytes that each new session's state carries along for their size alone; `state_bytes` has room for them.
    pub ballast: usize,
    /// Where its clients find it: at one address, or at several whose sessions may go on at different nodes.
    pub addresses: Vec<SocketAddrV4>,
    /// What it does.
    pub duty: Duty,
    /// Which part of the service it is.
    pub service: ServicePart,
}

/// Which part of the service a process is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServicePart {
    /// All of it.
    Whole,
    /// It talks to clients, and has a worker count.
    Front {
        /// Where its node's worker listens.
        worker: PathBuf,
    },
    /// It counts for fronts.
    Worker {
        /// Where they find it.
        links: PathBuf,
    },
}

/// What a process of the service does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Duty {
    /// It serves.
    Serve,
    /// It serves in the place of a process that has died, and goes on with that one's sessions.
    ServeAgain,
    /// It carries on what others served.
    StandBy {
        /// Its number among the parties of a takeover.
        party: u32,
        /// Where offers come.
        offers: PathBuf,
        /// Where the node is whose sessions it may be offered.
        old_owner: NodeAddress,
        /// Its link to the clients.
        link: String,
        /// Whether it kills itself as soon as sessions are its own, and before they speak: for experiments.
        dies_after_taking: bool,
    },
}

/// How it is told to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WebOrder {
    /// The event loop and another thread each wait for a lock that the other holds.
    Deadlock,
    /// The session that acts next never ends what it does.
    Stick,
}

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WebReport {
    /// It goes on with the sessions that another process left; told before it is ready.
    Readopted {
        /// When, in monotonic ns.
        at_ns: u64,
        /// Sessions that go on.
        sessions: u64,
        /// Sessions that could not go on, and have ended.
        lost: u64,
        /// Sessions that are not its to go on with.
        withheld: u64,
    },
    /// Clients, or offers, may come.
    Ready,
    /// It has failed as it was told.
    Failed {
        /// When, in monotonic ns.
        at_ns: u64,
    },
}

/// What the threads share.
pub(super) struct Shared {
    pub(super) app: App,
    /// Where new clients come; an heir has one from an address's first session on.
    listeners: Mutex<Vec<TcpListener>>,
    /// Where a front's worker listens.
    asked: Option<PathBuf>,
    /// A worker's fronts.
    pub(super) worker: Option<Arc<Worker>>,
    /// An heir's sessions that do not speak yet.
    pub(super) waiting: WaitingRoom,
    pub(super) deadline: Nanos,
    state_bytes: usize,
    /// Bytes that a new session's state carries along.
    ballast: usize,
    /// Every answer takes the first.
    pub(super) locks: Arc<TwoLocks>,
    deadlock: AtomicBool,
    stick: AtomicBool,
    failed_at: AtomicU64,
    sessions: AtomicU64,
}

/// What a session is opened with whose own state has so many bytes.
pub(in crate::live) fn session_config(deadline: Nanos, state_bytes: usize) -> SessionConfig {
    SessionConfig {
        deadline,
        patience: TakeoverConfig::default().patience,
        application_bytes: state_bytes,
        input_bytes: INPUT_BYTES,
        retain: Retain::Regenerated,
    }
}

impl Shared {
    pub(super) fn new(app: App, deadline: Nanos, state_bytes: usize) -> Self {
        Shared {
            app,
            listeners: Mutex::default(),
            asked: None,
            worker: None,
            waiting: WaitingRoom::default(),
            deadline,
            state_bytes,
            ballast: 0,
            locks: Arc::default(),
            deadlock: AtomicBool::new(false),
            stick: AtomicBool::new(false),
            failed_at: AtomicU64::new(0),
            sessions: AtomicU64::new(0),
        }
    }

    pub(super) fn config(&self) -> SessionConfig {
        session_config(self.deadline, self.state_bytes)
    }

    /// Takes the new clients of this listener from now on.
    pub(super) fn take_clients(&self, listener: TcpListener) {
        // The library lets 128 wait, and who comes beyond that tries again a second later.
        let _ = rustix::net::listen(&listener, BACKLOG);
        // One that waits would keep the event loop waiting.
        if listener.set_nonblocking(true).is_ok() {
            lock(&self.listeners).push(listener);
        }
    }

    /// A new session's way to the worker, if there is one.
    pub(super) fn asks(&self) -> Option<Asks> {
        self.asked.clone().map(Asks::new)
    }

    /// That of a session that is carried on.
    pub(super) fn asks_again(&self, payload: &SessionPayload<'_>) -> Option<Asks> {
        self.asked.clone().map(|worker| Asks::resume(worker, payload))
    }

    /// Whether whoever acts next is to hang.
    pub(super) fn is_to_stick(&self) -> bool {
        self.stick.load(Ordering::Acquire)
    }

    /// Hangs, for good.
    pub(super) fn sticks(&self) -> ! {
        self.fails_now();
        loop {
            std::thread::park();
        }
    }

    pub(super) fn fails_now(&self) {
        let _ = self.failed_at.compare_exchange(0, clock::now().0, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// Serves, or stands by, until the process ends. Takes [`WebOrder`]s, makes [`WebReport`]s.
pub fn play(settings: &Serve, mut tell: impl FnMut(WebReport) -> io::Result<()>) -> Result<(), Box<dyn Error>> {
    let least = LEAST_STATE_BYTES.saturating_add(settings.ballast);
    if settings.state_bytes < least {
        return Err(format!("a State Box of {} bytes: a session needs {least}", settings.state_bytes).into());
    }
    let deadline = Nanos(settings.deadline_ns);
    let (name, asked, worker) = match &settings.service {
        ServicePart::Whole => (SERVICE_NAME, None, None),
        ServicePart::Front { worker } => (SERVICE_NAME, Some(worker.clone()), None),
        ServicePart::Worker { links } => (SERVICE_WORKER_NAME, None, Some(Arc::new(Worker::listen(links)?))),
    };
    let app = Node::connect(&settings.agent)?.register(name, deadline)?;
    let ballast = settings.ballast;
    let shared = Shared { asked, worker, ballast, ..Shared::new(app, deadline, settings.state_bytes) };
    let shared = Arc::new(shared);
    match &settings.duty {
        Duty::Serve if shared.worker.is_some() => {}
        Duty::Serve => listen(&settings.addresses, &shared)?,
        Duty::ServeAgain => {
            // Who comes anew meanwhile waits.
            listen(&settings.addresses, &shared)?;
            let Readopted { sessions, lost, withheld } = readopt(&shared)?;
            tell(WebReport::Readopted { at_ns: clock::now().0, sessions, lost, withheld })?;
        }
        Duty::StandBy { party, offers, old_owner, link, dies_after_taking } => {
            let party = PartyId::new(*party).ok_or("no number of a party")?;
            let standby = StandBy::new(party, &settings.addresses, link, old_owner, &shared, *dies_after_taking)?;
            // Whoever stood by here before has left it.
            let _ = std::fs::remove_file(offers);
            let listener = UnixListener::bind(offers)?;
            std::thread::Builder::new().name("offers".into()).spawn(move || standby.listen(&listener))?;
        }
    }
    let for_loop = Arc::clone(&shared);
    std::thread::Builder::new().name("event-loop".into()).spawn(move || {
        if let Err(error) = event_loop(&for_loop) {
            crate::say::err(&format!("the service's event loop ended: {error}"));
            std::process::exit(1);
        }
    })?;
    tell(WebReport::Ready)?;
    for line in io::stdin().lock().lines() {
        match serde_json::from_str(&line?)? {
            WebOrder::Deadlock => shared.deadlock.store(true, Ordering::Release),
            WebOrder::Stick => shared.stick.store(true, Ordering::Release),
        }
        let at_ns = loop {
            match shared.failed_at.load(Ordering::Acquire) {
                0 => std::thread::sleep(LOOK_AGAIN),
                at_ns => break at_ns,
            }
        };
        tell(WebReport::Failed { at_ns })?;
    }
    // The parent closed the pipe. Threads that hang can't be joined; the end of the process ends them.
    std::process::exit(0);
}

fn listen(addresses: &[SocketAddrV4], shared: &Shared) -> io::Result<()> {
    addresses.iter().try_for_each(|address| TcpListener::bind(address).map(|listener| shared.take_clients(listener)))
}

fn event_loop(shared: &Arc<Shared>) -> Result<(), Box<dyn Error>> {
    clock::use_exact_timers();
    let (mut next, mut complained) = (clock::now(), false);
    loop {
        if shared.deadlock.load(Ordering::Acquire) {
            shared.locks.deadlock(|| shared.fails_now());
        }
        if let Some(worker) = &shared.worker {
            match worker.welcome(shared) {
                Ok(false) => {}
                Ok(true) => {
                    shared.app.progress().advance();
                    continue;
                }
                Err(error) => complain(&mut complained, &*error),
            }
        }
        let came: Vec<_> = lock(&shared.listeners).iter().map(TcpListener::accept).collect();
        let mut somebody_came = false;
        for came in came {
            match came {
                Ok((stream, peer)) => {
                    somebody_came = true;
                    if let Err(error) = welcome(stream, shared) {
                        crate::say::err(&format!("the client at {peer} is not served: {error}"));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Too many open files, say: those who are served are not to suffer.
                Err(error) => complain(&mut complained, &error),
            }
        }
        shared.waiting.say(clock::now());
        shared.app.progress().advance();
        if somebody_came {
            continue;
        }
        // Ticks that were missed are gone; to make up for them would look like progress that did not happen.
        next = (next + TICK).max(clock::now());
        clock::sleep_until(next);
    }
}

/// Once.
fn complain(complained: &mut bool, error: &dyn Error) {
    if !std::mem::replace(complained, true) {
        crate::say::err(&format!("a client can't be taken in: {error}"));
    }
}

pub(super) fn welcome(stream: TcpStream, shared: &Arc<Shared>) -> Result<(), Box<dyn Error>> {
    stream.set_nonblocking(false)?;
    let number = shared.sessions.fetch_add(1, Ordering::Relaxed);
    let link = TcpSession::accept(&shared.app, stream, &format!("client {number}"), shared.config())?;
    let state = WebState::with_ballast(shared.ballast);
    Ok(Conversation::begin(link, state, shared.asks(), Arc::clone(shared))?)
}
