//! Clients: each a thread with a connection of its own, which remembers what it asked for and what it was answered.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use backdoor_sim::streams::Streams;
use rand::{Rng, RngExt};

/// How long a connection waits before the client looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the worker may take to greet a client.
const GREETING: Duration = Duration::from_secs(10);
/// Mean pause between two requests of a client that keeps its session busy, and of one that mostly leaves it idle.
const PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(30)];

/// What a client knows of its session.
#[derive(Debug, Default)]
pub(super) struct Knowledge {
    /// Last request sent.
    pub(super) sent: AtomicU64,
    /// Last request answered.
    pub(super) acknowledged: AtomicU64,
    /// An answer was not the one to the last request.
    pub(super) wrong_answer: AtomicBool,
}

/// All clients of one worker. Dropping them ends them.
#[derive(Debug)]
pub(super) struct Clients {
    known: Vec<Arc<Knowledge>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Connects `count` clients to the worker and lets them work.
    pub(super) fn connect(worker: SocketAddr, count: u64, streams: &Streams) -> io::Result<Self> {
        let mut clients = Clients { known: Vec::new(), stop: Arc::default(), threads: Vec::new() };
        for number in 0..count {
            let mut stream = TcpStream::connect_timeout(&worker, GREETING)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(GREETING))?;
            let mut greeting = [0; 8];
            stream.read_exact(&mut greeting)?;
            if u64::from_le_bytes(greeting) != number {
                return Err(io::Error::other("the worker took the client for another"));
            }
            stream.set_read_timeout(Some(LOOK_EVERY))?;
            let known = Arc::new(Knowledge::default());
            clients.known.push(Arc::clone(&known));
            let stop = Arc::clone(&clients.stop);
            let random = streams.indexed("client", number);
            let pause = PAUSES[number as usize % PAUSES.len()];
            let work = move || {
                // A connection that breaks is what happens to the clients of a worker that dies.
                let _ = work(stream, &known, &stop, random, pause);
            };
            clients.threads.push(std::thread::Builder::new().name(format!("client-{number}")).spawn(work)?);
        }
        Ok(clients)
    }

    /// What each client knows.
    pub(super) fn known(&self) -> &[Arc<Knowledge>] {
        &self.known
    }

    /// Whether every client has been answered once.
    pub(super) fn all_served(&self) -> bool {
        self.known.iter().all(|known| known.acknowledged.load(Ordering::Acquire) > 0)
    }

    /// Ends them. To be called when the worker has ended, or they wait for it a little.
    pub(super) fn end(&mut self) {
        self.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.end();
    }
}

fn work(
    mut stream: TcpStream,
    known: &Knowledge,
    stop: &AtomicBool,
    mut random: impl Rng,
    pause: Duration,
) -> io::Result<()> {
    for request in 1u64.. {
        // Exponential pauses: requests come independently of everything.
        let uniform: f64 = random.random();
        std::thread::park_timeout(pause.mul_f64(-(1.0 - uniform).ln()));
        if stop.load(Ordering::Acquire) {
            return Ok(());
        }
        known.sent.store(request, Ordering::Release);
        stream.write_all(&request.to_le_bytes())?;
        let mut answer = [0; 8];
        let mut got = 0;
        while got < answer.len() {
            match stream.read(&mut answer[got..]) {
                Ok(0) => return Ok(()),
                Ok(bytes) => got += bytes,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if stop.load(Ordering::Acquire) {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if u64::from_le_bytes(answer) != request {
            known.wrong_answer.store(true, Ordering::Release);
            return Ok(());
        }
        known.acknowledged.store(request, Ordering::Release);
    }
    Ok(())
}
