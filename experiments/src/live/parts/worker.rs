//! The service that fails: one event loop, and a thread for each client's session.
//!
//! What makes its sessions recoverable is the order of things: change the state, commit it, and only then answer. The
//! event loop ticks every millisecond and takes new clients; its counter speaks for the application. Every request
//! passes through a lock that the event loop takes, too, so when the loop hangs in a deadlock, the sessions hang soon
//! after, each at its next request.

use std::error::Error;
use std::io::{self, BufRead, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_core::takeover::TakeoverConfig;
use backdoor_host::app::{App, Node, Session};
use backdoor_host::clock;
use serde::{Deserialize, Serialize};

use super::state::content;
use crate::live::two_locks::{TwoLocks, lock};

/// The application's name in the Progress Box.
pub const WORKER_NAME: &str = "worker";
/// Period of the event loop.
const TICK: Nanos = Nanos::from_millis(1);
/// No session is to get stuck.
const NOBODY: u64 = u64::MAX;

/// The name of a client's session.
pub fn session_name(client: u64) -> String {
    format!("client {client}")
}

/// How it is told to fail. (By signals it fails untold.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// The event loop and another thread each wait for a lock that the other holds.
    Deadlock,
    /// The handler of a client's next request never ends.
    Stick {
        /// The client.
        client: u64,
    },
    /// The next request of a client is in the socket, and whoever is to serve it waits for something else.
    MissWakeup {
        /// The client.
        client: u64,
    },
    /// The event loop goes on, and no request is taken out of its socket any more.
    Livelock,
}

/// What it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum Report {
    /// Clients may come.
    Ready {
        /// TCP port, at the address that it was told to listen at.
        port: u16,
    },
    /// It has failed as it was told.
    Failed {
        /// When the thread in question made its last step, in monotonic nanoseconds.
        at_ns: u64,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) deadline: Nanos,
    pub(super) state_bytes: usize,
    pub(super) seed: u64,
    pub(super) stuck_spins: bool,
    pub(super) queues: bool,
    pub(super) listen: IpAddr,
}

/// What the threads share.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    locks: Arc<TwoLocks>,
    deadlock: AtomicBool,
    stuck_client: AtomicU64,
    missing_client: AtomicU64,
    livelocked: AtomicBool,
    /// When the failure began; 0 before it.
    failed_at: AtomicU64,
}

impl Shared {
    /// The failure begins, unless it has begun in another thread.
    fn fails_now(&self) {
        let _ = self.failed_at.compare_exchange(0, clock::now().0, Ordering::AcqRel, Ordering::Relaxed);
    }
}

pub(super) fn play(socket: &str, settings: Settings) -> Result<(), Box<dyn Error>> {
    let shared = Arc::new(Shared {
        settings,
        locks: Arc::default(),
        deadlock: AtomicBool::new(false),
        stuck_client: AtomicU64::new(NOBODY),
        missing_client: AtomicU64::new(NOBODY),
        livelocked: AtomicBool::new(false),
        failed_at: AtomicU64::new(0),
    });
    let listener = TcpListener::bind((settings.listen, 0))?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let app = Node::connect(socket)?.register(WORKER_NAME, settings.deadline)?;
    let for_loop = Arc::clone(&shared);
    std::thread::Builder::new().name("event-loop".into()).spawn(move || {
        if let Err(error) = event_loop(app, &listener, &for_loop) {
            crate::say::err(&format!("the worker's event loop ended: {error}"));
            std::process::exit(1);
        }
    })?;
    super::tell(&Report::Ready { port })?;
    for line in io::stdin().lock().lines() {
        match serde_json::from_str(&line?)? {
            Order::Deadlock => shared.deadlock.store(true, Ordering::Release),
            Order::Stick { client } => shared.stuck_client.store(client, Ordering::Release),
            Order::MissWakeup { client } => shared.missing_client.store(client, Ordering::Release),
            Order::Livelock => shared.livelocked.store(true, Ordering::Release),
        }
        // The failing thread only stores the time; to tell it is left to this one, which goes on.
        let at_ns = loop {
            match shared.failed_at.load(Ordering::Acquire) {
                0 => std::thread::sleep(Duration::from_micros(200)),
                at_ns => break at_ns,
            }
        };
        super::tell(&Report::Failed { at_ns })?;
    }
    // The parent closed the pipe. Threads that hang can't be joined; the end of the process ends them.
    std::process::exit(0);
}

fn event_loop(app: App, listener: &TcpListener, shared: &Arc<Shared>) -> Result<(), Box<dyn Error>> {
    clock::use_exact_timers();
    let mut clients = 0;
    let mut next = clock::now();
    loop {
        if shared.deadlock.load(Ordering::Acquire) {
            shared.locks.deadlock(|| shared.fails_now());
        }
        match listener.accept() {
            Ok((stream, _)) => {
                welcome(&app, clients, stream, shared)?;
                clients += 1;
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        {
            let requests = lock(&shared.locks.requests);
            *lock(&shared.locks.journal) = *requests;
        }
        app.progress().advance();
        // Ticks that were missed are gone; to make up for them would look like progress that did not happen.
        next = (next + TICK).max(clock::now());
        clock::sleep_until(next);
    }
}

fn welcome(app: &App, client: u64, stream: TcpStream, shared: &Arc<Shared>) -> Result<(), Box<dyn Error>> {
    let Settings { deadline, state_bytes, .. } = shared.settings;
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    let session = app.open_session(&session_name(client), deadline, state_bytes)?;
    if shared.settings.queues {
        session.watch_queue(&stream)?;
    }
    let shared = Arc::clone(shared);
    std::thread::Builder::new().name(session_name(client)).spawn(move || {
        // A client that leaves ends its session, and the session's end is told by dropping it.
        let _ = serve(session, client, stream, &shared);
    })?;
    Ok(())
}

/// Request and answer are the number of the request, 8 bytes; the first answer, unasked for, is the client's number.
fn serve(mut session: Session, client: u64, mut stream: TcpStream, shared: &Shared) -> Result<(), Box<dyn Error>> {
    let Settings { state_bytes, seed, stuck_spins, .. } = shared.settings;
    let patience = TakeoverConfig::default().patience;
    session.commit(&content(seed, client, 0, state_bytes))?;
    stream.write_all(&client.to_le_bytes())?;
    let mut done = 0;
    loop {
        session.idle();
        // To be woken up is one thing, to take the request out of the socket another; some failures lie in between.
        if stream.peek(&mut [0])? == 0 {
            return Ok(());
        }
        let leaves_it =
            shared.livelocked.load(Ordering::Acquire) || shared.missing_client.load(Ordering::Acquire) == client;
        if leaves_it {
            shared.fails_now();
            stick(stuck_spins);
        }
        let mut request = [0; 8];
        stream.read_exact(&mut request)?;
        session.progress();
        if shared.stuck_client.load(Ordering::Acquire) == client {
            shared.fails_now();
            stick(stuck_spins);
        }
        let request = u64::from_le_bytes(request);
        if request != done + 1 {
            return Err("the requests are not in order".into());
        }
        *lock(&shared.locks.requests) += 1;
        session.commit_or_wait(&content(seed, client, request, state_bytes), patience)?;
        stream.write_all(&request.to_le_bytes())?;
        done = request;
    }
}

fn stick(spins: bool) -> ! {
    loop {
        if spins {
            std::hint::spin_loop();
        } else {
            std::thread::park();
        }
    }
}
