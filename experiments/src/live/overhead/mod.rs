//! What State Boxes cost while nothing fails.
//!
//! Two processes run the same service, counters that clients add to. One keeps its sessions in State Boxes and commits
//! before each answer; the other keeps nothing. Clients ask each in turn, as fast as they are answered, with one request
//! or several under way: so many are acted upon with one save. Turns are short and change places at random within each
//! pair, so that whatever else the machine does hits both alike.
//!
//! The agent runs beside both: it watches the machine, whatever its services keep.
//!
//! A client and the thread that serves it share a processor, unless they are [not to](OverheadConfig::pinned). A request is
//! then the work of one processor after the other's, and throughput says what that work is. Left to the scheduler, turns of
//! the same service differ by up to a quarter, for it matters more which of the threads are on one processor.
//!
//! The yardstick is hard: a request is eight bytes, and to act on it is one addition.

mod client;
mod placement;
mod report;
mod serve;

pub use report::{OverheadReport, OverheadRow};
pub use serve::{Counters, CountersReady};

pub(in crate::live) use serve::play;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backdoor_core::Nanos;
use backdoor_host::tcp::{self, TcpError};
use backdoor_sim::streams::{StreamKey, Streams};
use rand::RngExt;

use super::parts::{Part, PartError, Place, Ready, Role};
use crate::config::Span;
use crate::interrupt::Interrupt;
use client::{Client, Turn};
use serve::{MAX_UNDER_WAY, session_config};

/// How long a part may take for what takes milliseconds on a machine that has time.
const PATIENCE: Duration = Duration::from_secs(15);
/// Silence that nobody waits for: nothing fails here.
const DEADLINE: Nanos = Nanos::from_secs(1);
/// Largest state of a session.
pub const MAX_STATE_BYTES: usize = 1 << 20;
/// Most clients.
pub const MAX_CLIENTS: u32 = 256;

/// One configuration of the experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct OverheadConfig {
    /// The `backdoor` binary.
    pub program: PathBuf,
    /// Bytes of each session's state; all of them are saved each time.
    pub state_bytes: usize,
    /// Requests that each client has under way, which are acted upon with one save.
    pub requests_per_save: usize,
    /// Clients, each with a connection of its own.
    pub clients: u32,
    /// Pairs of turns.
    pub pairs: u32,
    /// How long a turn takes.
    pub turn: Nanos,
    /// Whether each client shares a processor with the thread that serves it, clients in turn; else the scheduler decides.
    pub pinned: bool,
    /// How often both services are started, each time for as many pairs: where a service's memory happens to lie makes a
    /// difference that all pairs of one start share, so starts are the sample.
    pub starts: u32,
    /// Seed of the order of turns.
    pub seed: u64,
}

impl OverheadConfig {
    /// Defaults: 1 KiB of state, a save per request, 4 clients that each share a processor with their service, 80 pairs of
    /// 100 ms in 8 starts. `program` is the `backdoor` binary.
    pub fn new(program: PathBuf) -> Self {
        OverheadConfig {
            program,
            state_bytes: 1024,
            requests_per_save: 1,
            clients: 4,
            pairs: 80,
            turn: Nanos::from_millis(100),
            pinned: true,
            starts: 8,
            seed: 1,
        }
    }

    /// Numbers of the pairs of this start.
    fn pairs_of(&self, start: u32) -> Range<u32> {
        let until = |start: u32| (u64::from(self.pairs) * u64::from(start) / u64::from(self.starts)) as u32;
        until(start)..until(start + 1)
    }

    /// Whether it can be run.
    ///
    /// # Errors
    /// A sentence about the first setting that can't be.
    pub fn check(&self) -> Result<(), OverheadError> {
        let error = |what: String| Err(OverheadError::Config(what));
        if !(8..=MAX_STATE_BYTES).contains(&self.state_bytes) || !self.state_bytes.is_multiple_of(8) {
            return error(format!(
                "{} bytes of state: must be from 8 to {MAX_STATE_BYTES}, in steps of 8",
                self.state_bytes
            ));
        }
        if !(1..=MAX_UNDER_WAY).contains(&self.requests_per_save) {
            return error(format!("{} requests per save: must be from 1 to {MAX_UNDER_WAY}", self.requests_per_save));
        }
        if !(1..=MAX_CLIENTS).contains(&self.clients) {
            return error(format!("{} clients: must be from 1 to {MAX_CLIENTS}", self.clients));
        }
        if !(2..=100_000).contains(&self.pairs) {
            return error(format!("{} pairs of turns: must be from 2 to 100000", self.pairs));
        }
        if !(1..=self.pairs).contains(&self.starts) {
            return error(format!("{} starts: must be from 1 to as many as pairs", self.starts));
        }
        let (least, most) = (Nanos::from_millis(10), Nanos::from_secs(60));
        if self.turn < least || self.turn > most {
            return error(format!("turns of {}: must be from {least} to {most}", self.turn));
        }
        Ok(())
    }
}

/// Why the experiment ended early. Everything that it made is gone.
#[derive(Debug, thiserror::Error)]
pub enum OverheadError {
    /// A setting that can't be.
    #[error("{0}")]
    Config(String),
    /// A State Box holds its connection's numbers, which not everybody may read.
    #[error(transparent)]
    Privilege(#[from] TcpError),
    /// A process did not play its part.
    #[error(transparent)]
    Part(#[from] PartError),
    /// A client was not served, or not right.
    #[error("a client: {}", crate::plain(.0))]
    Client(#[from] std::io::Error),
    /// Somebody asked to stop.
    #[error("stopped after {} of {pairs} pairs of turns", report.rows.len())]
    Interrupted {
        /// What was found until then.
        report: Box<OverheadReport>,
        /// All pairs.
        pairs: u32,
    },
}

/// A service, its agent if it has one, and its clients. Dropping it ends all of them.
struct Side {
    clients: Vec<Client>,
    _service: Part,
    _agent: Option<Part>,
}

impl Side {
    fn start(config: &OverheadConfig, saves: bool) -> Result<Self, OverheadError> {
        let place = Place::Here(config.program.clone());
        let clients = config.clients as usize;
        let mut agent = None;
        if saves {
            agent = Some(place.start(Role::Agent {
                capacity: 64 + clients,
                state_words: clients * session_config(DEADLINE, config.state_bytes).words(),
                os_deadline: Span(DEADLINE),
                queues: clients + 1,
                retain: Span(DEADLINE),
                offer: None,
            })?);
        }
        let ready = agent.as_mut().map(|agent| agent.expect::<Ready>(PATIENCE)).transpose()?;
        let mut service = place.start(Role::Counters(Counters {
            agent: ready.map(|ready| ready.socket.into()),
            state_bytes: config.state_bytes,
            deadline_ns: DEADLINE.0,
            pinned: config.pinned,
        }))?;
        let CountersReady { port } = service.expect(PATIENCE)?;
        let clients = (0..clients).map(|_| Client::connect(port, config.state_bytes)).collect::<Result<_, _>>()?;
        Ok(Side { clients, _service: service, _agent: agent })
    }

    /// All clients ask at once. Answers requests per second, and the latencies.
    fn turn(&mut self, config: &OverheadConfig) -> Result<(f64, Turn), OverheadError> {
        let (stop, start) = (AtomicBool::new(false), Instant::now());
        let turns = std::thread::scope(|scope| {
            let ask = |(number, client): (usize, _)| {
                let stop = &stop;
                scope.spawn(move || {
                    placement::place(number, config.pinned)?;
                    Client::ask(client, config.requests_per_save, stop)
                })
            };
            let asking: Vec<_> = self.clients.iter_mut().enumerate().map(ask).collect();
            std::thread::sleep(Duration::from_nanos(config.turn.0));
            stop.store(true, Ordering::Relaxed);
            let ended = |turn: std::thread::ScopedJoinHandle<'_, std::io::Result<Turn>>| {
                turn.join().unwrap_or_else(|_| Err(std::io::Error::other("its thread panicked")))
            };
            asking.into_iter().map(ended).collect::<Result<Vec<_>, _>>()
        })?;
        let took = start.elapsed().as_secs_f64();
        let requests: u64 = turns.iter().map(|turn| turn.requests).sum();
        let latencies = turns.into_iter().flat_map(|turn| turn.latencies).collect();
        Ok((requests as f64 / took, Turn { requests, latencies }))
    }
}

/// What this user lacks for it, in a sentence.
pub fn missing() -> Option<String> {
    has_means().err().map(|error| error.to_string())
}

/// Whether this user may do what the experiment takes.
///
/// # Errors
/// [`OverheadError::Privilege`].
pub fn has_means() -> Result<(), OverheadError> {
    Ok(tcp::may_read()?)
}

/// Runs one configuration. `finished` gets each row as soon as there is one. The calling thread starts the processes and
/// must live until this returns.
pub fn run(
    config: &OverheadConfig,
    interrupt: &Interrupt,
    finished: &mut dyn FnMut(&OverheadRow),
) -> Result<OverheadReport, OverheadError> {
    config.check()?;
    has_means()?;
    let mut report = OverheadReport { config: config.clone(), rows: Vec::new() };
    let streams = Streams::new(StreamKey { seed: config.seed, experiment: "live-overhead", point: "", replication: 0 });
    let mut order = streams.stream("order");
    for start in 0..config.starts {
        let (mut plain, mut saved) = (Side::start(config, false)?, Side::start(config, true)?);
        // Caches and processors' clocks warm up.
        plain.turn(config)?;
        saved.turn(config)?;
        for number in config.pairs_of(start) {
            if interrupt.requested() {
                return Err(OverheadError::Interrupted { report: Box::new(report), pairs: config.pairs });
            }
            let (without, with) = if order.random() {
                let without = plain.turn(config)?;
                (without, saved.turn(config)?)
            } else {
                let with = saved.turn(config)?;
                (plain.turn(config)?, with)
            };
            let row = OverheadRow::of((start, number), config, without, with);
            finished(&row);
            report.rows.push(row);
        }
    }
    Ok(report)
}
