//! The agent of a node: it owns all memory that others may reach, and outlives those who write into it.
//!
//! An application's own memory ends with its process. What a monitor shall find after a crash must therefore belong to
//! somebody else: the agent makes it, hands it out, and keeps it. See the [crate's guide](crate) for the whole picture.

mod arena;
mod config;
mod elsewhere;
mod event_loop;
mod gauges;
mod memory;
mod process;
mod queues;
mod registry;
#[cfg(feature = "verbs")]
mod remote;
mod socket;
mod ticker;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use backdoor_core::progress_box::{Counter, EntityRecord, FailureLevel, ProgressBoxError};
use backdoor_core::transport::RegionKey;
use backdoor_transports::shm::MapError;
use rustix::event::EventfdFlags;

pub use config::AgentConfig;
pub use elsewhere::OfferError;
pub use gauges::Gauge;
#[cfg(feature = "verbs")]
pub use remote::RemoteConfig;

#[cfg(all(test, feature = "verbs"))]
pub(crate) use remote::fake;

use elsewhere::{Elsewhere, Served};
use event_loop::EventLoop;
use memory::NodeMemory;
use registry::Registry;
use socket::Listener;

/// Why an agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A setting that can't be.
    #[error("configuration: {0}")]
    Config(String),
    /// There is one already.
    #[error("an agent is running at {path} already")]
    AlreadyRunning {
        /// The socket.
        path: String,
    },
    /// The path is in use by something that is no socket; it is left alone.
    #[error("{path} exists and is no socket: remove it, or choose another path")]
    InTheWay {
        /// The path.
        path: String,
    },
    /// A path that no socket can have.
    #[error("{path} is too long for a socket, whose path has at most 107 bytes")]
    TooLong {
        /// The path.
        path: String,
    },
    /// The socket could not be made.
    #[error("can't listen at {path}: {source}")]
    Socket {
        /// The socket.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The port for other machines can't be had.
    #[cfg(feature = "verbs")]
    #[error("can't listen at {address} for monitors on other machines: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The network card can't serve the node's memory.
    #[cfg(feature = "verbs")]
    #[error(transparent)]
    Card(#[from] backdoor_transports::verbs::VerbsError),
    /// The memory could not be made.
    #[error(transparent)]
    Memory(#[from] MapError),
    /// The node's own entities did not fit.
    #[error(transparent)]
    Full(#[from] ProgressBoxError),
    /// A thread could not be started, or not pinned to its CPU.
    #[error("can't start the thread '{name}': {source}")]
    Thread {
        /// The thread's entity.
        name: String,
        /// Why.
        source: io::Error,
    },
}

/// A running agent. Dropping it stops it and removes its socket; its entities depart, those of others stay as they are.
#[derive(Debug)]
pub struct Agent {
    incarnation: u64,
    stop: Arc<AtomicBool>,
    wake: Arc<OwnedFd>,
    server: Option<JoinHandle<()>>,
    tickers: Vec<JoinHandle<()>>,
    guests: Option<JoinHandle<()>>,
    elsewhere: Option<Arc<dyn Elsewhere>>,
}

/// What ends a thread of the agent: the flag, and a descriptor that becomes readable when the flag is set.
type Stop = (Arc<AtomicBool>, Arc<OwnedFd>);

impl Agent {
    /// Makes the node's memory, starts the operating system's counters, and listens.
    pub fn start(config: AgentConfig) -> Result<Self, AgentError> {
        Agent::start_with(config, serve_elsewhere)
    }

    /// The same, with another way to serve other machines.
    fn start_with(
        config: AgentConfig,
        serve_elsewhere: impl FnOnce(&AgentConfig, &NodeMemory, u64, Stop) -> Result<Option<Served>, AgentError>,
    ) -> Result<Self, AgentError> {
        let thread_error = |name: &str| {
            let name = name.to_owned();
            move |source| AgentError::Thread { name, source }
        };
        let cpus = ticker::cpus().map_err(thread_error("os"))?;
        config.check(cpus.len()).map_err(AgentError::Config)?;
        let listener = Listener::bind(&config.socket)?;
        let incarnation = new_incarnation();
        let (memory, mapped) = NodeMemory::create(&config, incarnation)?;
        let mut registry = Registry::new(mapped, &config, incarnation);
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let wake = Arc::new(wake.map_err(|errno| thread_error("agent")(errno.into()))?);
        let stop = Arc::new(AtomicBool::new(false));
        // From here on, an early return drops the agent, which stops the threads that run already.
        let (server, tickers, guests, elsewhere) = Default::default();
        let mut agent =
            Agent { incarnation, stop: Arc::clone(&stop), wake: Arc::clone(&wake), server, tickers, guests, elsewhere };
        let pinned = cpus.into_iter().map(|cpu| (format!("os/cpu{cpu}"), Some(cpu)));
        let mut own_counter = None;
        for (name, cpu) in std::iter::once(("os".into(), None)).chain(pinned) {
            let word =
                registry.add_own(EntityRecord::new(&name, FailureLevel::Os, config.os_deadline).every(config.tick))?;
            let ticker = ticker::start(Counter::resume(word), cpu, config.tick, Arc::clone(&stop));
            agent.tickers.push(ticker.map_err(thread_error(&name))?);
            if own_counter.is_none() {
                let agent = EntityRecord::new("agent", FailureLevel::Application, config.agent_deadline);
                let word = registry.add_own(agent)?;
                own_counter = Some(Counter::resume(word));
            }
        }
        let own_counter = own_counter.ok_or_else(|| AgentError::Config("there is no CPU".into()))?;
        if let Some(served) = serve_elsewhere(&config, &memory, incarnation, (Arc::clone(&stop), Arc::clone(&wake)))? {
            agent.guests = Some(served.thread);
            agent.elsewhere = Some(served.elsewhere);
        }
        let elsewhere = agent.elsewhere.clone();
        let event_loop = EventLoop { config, listener, memory, registry, elsewhere, own_counter, stop, wake };
        let thread = std::thread::Builder::new().name("agent".into()).spawn(|| event_loop.run());
        agent.server = Some(thread.map_err(thread_error("agent"))?);
        Ok(agent)
    }

    /// Which start of an agent this is; differs from that of any other.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Whether it still serves.
    pub fn is_running(&self) -> bool {
        let runs = |thread: &JoinHandle<()>| !thread.is_finished();
        self.server.as_ref().is_some_and(runs) && self.guests.as_ref().is_none_or(runs)
    }

    /// Where it listens for monitors on other machines; `None` if it does not.
    pub fn remote_address(&self) -> Option<SocketAddr> {
        self.elsewhere.as_ref().map(|elsewhere| elsewhere.address())
    }

    /// Who of other machines was turned away since the last call of this, and why; the latest only, for people.
    pub fn take_turned_away(&self) -> Vec<String> {
        self.elsewhere.as_ref().map(|elsewhere| elsewhere.take_turned_away()).unwrap_or_default()
    }

    /// Takes a region back from the network card: when this returns, no monitor on another machine can reach it any
    /// more. Memory that processes of this machine have mapped stays with them.
    pub fn revoke(&self, region: RegionKey) -> Result<(), OfferError> {
        self.elsewhere.as_ref().ok_or(OfferError::LocalOnly)?.revoke(region)
    }

    /// Offers a revoked region again. Monitors reach it when they connect anew, for it has another key of the card now.
    pub fn restore(&self, region: RegionKey) -> Result<(), OfferError> {
        self.elsewhere.as_ref().ok_or(OfferError::LocalOnly)?.restore(region)
    }

    /// Serves until `flag` is set (by a signal handler, say), or until the agent fails.
    pub fn run_until(self, flag: &AtomicBool) {
        while !flag.load(Ordering::Acquire) && self.is_running() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops it and waits for its threads.
    pub fn stop(self) {}
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // If the wake-up fails, the tick wakes the thread.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        for thread in self.server.take().into_iter().chain(self.guests.take()).chain(self.tickers.drain(..)) {
            let _ = thread.join();
        }
    }
}

#[cfg(not(feature = "verbs"))]
fn serve_elsewhere(_: &AgentConfig, _: &NodeMemory, _: u64, _: Stop) -> Result<Option<Served>, AgentError> {
    Ok(None)
}

#[cfg(feature = "verbs")]
fn serve_elsewhere(
    config: &AgentConfig,
    memory: &NodeMemory,
    incarnation: u64,
    stop: Stop,
) -> Result<Option<Served>, AgentError> {
    let Some(remote) = &config.remote else { return Ok(None) };
    let card = remote::Card::open(&remote.device)?;
    remote::serve(card, remote, config.greeting_timeout, memory, incarnation, stop).map(Some)
}

/// The default place of a node's socket: the user's run-time directory, or the one for temporary files.
pub fn default_socket() -> std::path::PathBuf {
    let directory = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, Into::into);
    Path::new(&directory).join("backdoor.sock")
}

/// Nanoseconds since 1970: later starts have larger ones as long as nobody sets the clock back, and even then no two
/// starts are likely to share one.
fn new_incarnation() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64)
}
