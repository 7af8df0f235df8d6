//! How long until a real failure of a real process is noticed, and what can still be read out of it?
//!
//! One run: start a fresh worker, let clients work with it for a while, make it fail at a random moment, and wait until
//! the monitor (a process that has nothing but the worker's memory to look at) says so. What it then reads out of the
//! failed worker must be what the clients know: no state older than the last answer a client got, none newer than its
//! last request, and each byte as derived from the seed.
//!
//! # The moment of failure
//! *SIGSTOP, SIGKILL:* the clock right after `kill` has returned; from then on the kernel runs no more of the process's
//! own code, but for the microseconds that a thread on another processor needs to see the signal. How long the call
//! itself took is in the column `injection_ms`: a starved experiment shows there. *Deadlock, stuck session:* the thread
//! that fails stores the clock just before its last step. All processes read one monotonic clock. The
//! counter of an application moved last up to a tick (1 ms) before it failed, so a detection may take a little less than
//! the deadline; a deadlock, which begins at a tick, mostly does.
//!
//! *Idle lie, livelock:* when a request lies in the socket that will not be taken out, seen by the thread that leaves it
//! there; of a livelock, the first such request. Before it, nothing had been lost.
//!
//! *On two machines* ([`super::stage`]) the moment is told by the node's clock and translated; the column
//! `clock_error_ms` says how far off that may be ([`super::stage::offset`]). *Kernel crash, link down:* nobody can tell
//! afterwards when it happened, so it is when the order was sent, and the detection time is an upper bound. *Command:*
//! when it was started; it failed within `injection_ms`. *Own link down:* as with signals.
//!
//! # What counts as detected
//! Of a worker or a session: that it is suspected. Of a worker in a livelock, which goes on itself: that the first of its
//! sessions is. Of a node: that its operating system is suspected, or that the node
//! is unreachable. Of a link: that the channel is broken; nobody has failed then, so every suspicion is wrong.
//!
//! # What is counted against the monitor
//! Every suspicion of an entity that had not failed is a false positive. It may turn true before it is withdrawn; then
//! the detection time is 0, and the states were read out of a worker that still worked: nothing here fences it, so they
//! may be older than what its clients were answered meanwhile. They count as read out, and as not right.
//!
//! Whatever else runs on the machine is part of the measurement. Run nothing beside it that is not meant as load.
//!
//! ```no_run
//! use backdoor_experiments::interrupt::Interrupt;
//! use backdoor_experiments::live::detect::{DetectConfig, FailureKind, run};
//!
//! // In the `backdoor` binary; elsewhere, set `program` to that binary.
//! let config = DetectConfig { runs: 10, ..DetectConfig::of(FailureKind::Sigstop)? };
//! let report = run(&config, &Interrupt::new(), &mut |row| eprintln!("{:?}", row.detection_ms))?;
//! assert!(report.keeps_bound() == Some(true));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cast;
mod clients;
mod failure;
mod faults;
mod judge;
mod one_run;
mod report;
mod service;
mod verify;

pub use failure::FailureKind;
pub use report::{DetectReport, DetectRow};

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_sim::streams::{StreamKey, Streams};

use super::detector::DetectorKind;
use super::notice::Summary;
use super::parts::{MIN_STATE_BYTES, PartError, Place, QUEUE_PERIOD};
use super::reach::{Card, Retry, TransportKind};
use super::stage::connection::StageError;
use super::wakeups;
use crate::interrupt::Interrupt;
use cast::Cast;
use one_run::OneRun;

pub(in crate::live) use cast::NodeParts;
#[cfg(feature = "studies")]
pub(crate) use cast::os_deadline;
pub(in crate::live) use service::Service;

/// Largest state of a session; the monitor sends each whole through a pipe.
pub const MAX_STATE_BYTES: usize = 1 << 20;
/// Most sessions; each has a thread here and one in the worker.
pub const MAX_SESSIONS: u64 = 512;
/// Most runs.
pub const MAX_RUNS: u32 = 100_000;
/// Most busy processes.
pub const MAX_LOAD: u32 = 1024;
/// How long the loop that never sleeps is measured.
const SPIN_FOR: Nanos = Nanos::from_millis(200);

/// One configuration of the experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct DetectConfig {
    /// The `backdoor` binary.
    pub program: PathBuf,
    /// How the worker fails.
    pub failure: FailureKind,
    /// Deadline of the worker and of its sessions. That of the operating system's counters is at least 100 ms.
    pub deadline: Nanos,
    /// Time between the monitor's polls.
    pub poll: Nanos,
    /// Busy processes beside everything.
    pub load: u32,
    /// Runs, each with a fresh worker.
    pub runs: u32,
    /// Sessions of the worker.
    pub sessions: u64,
    /// Bytes of each session's state.
    pub state_bytes: usize,
    /// Length of the healthy part of a run. A failure comes up to 50 ms later, at random.
    pub healthy: Nanos,
    /// Seed of the moments of failure, of the clients' pauses and of the states.
    pub seed: u64,
    /// Whether the monitor spins just before each poll.
    pub spin: bool,
    /// Whether a stuck session spins instead of blocking.
    pub stuck_spins: bool,
    /// What the monitor judges by.
    pub detector: DetectorKind,
    /// Whether the agent watches what waits in the sessions' sockets.
    pub queues: bool,
    /// What the monitor reads through.
    pub transport: TransportKind,
    /// Which network card of this machine, if that is one.
    pub card: Card,
    /// How long that card tries.
    pub retry: Retry,
    /// The [stage](super::stage) where the node's parts are; none if they are on this machine.
    pub on: Option<SocketAddr>,
    /// Whether the stage may be away at first, after what an earlier configuration did to its machine.
    pub stage_comes_back: bool,
    /// The command that makes [`FailureKind::Command`], on this machine.
    pub inject: Option<String>,
    /// The command that undoes it.
    pub repair: Option<String>,
    /// How long a stage is waited for after a failure of its machine, and each of those commands.
    pub reboot_limit: Nanos,
}

impl Default for DetectConfig {
    /// As [`DetectConfig::of`] for [`FailureKind::Sigstop`], with no program.
    fn default() -> Self {
        DetectConfig {
            program: PathBuf::new(),
            failure: FailureKind::Sigstop,
            deadline: Nanos::from_millis(20),
            poll: Nanos::from_millis(1),
            load: 0,
            runs: 50,
            sessions: 8,
            state_bytes: 1024,
            healthy: Nanos::from_millis(100),
            seed: 1,
            spin: false,
            stuck_spins: false,
            detector: DetectorKind::default(),
            queues: true,
            transport: TransportKind::Shm,
            card: Card::default(),
            retry: Retry::default(),
            on: None,
            stage_comes_back: false,
            inject: None,
            repair: None,
            reboot_limit: Nanos::from_secs(60),
        }
    }
}

impl DetectConfig {
    /// Defaults: 20 ms deadline, 1 ms polls, no load, 50 runs (one of 5 s for [`FailureKind::None`], three where a
    /// machine must recover from each), 8 sessions of 1 KiB, all on this machine. Fails if this program can't tell where
    /// its binary is.
    pub fn of(failure: FailureKind) -> Result<Self, std::io::Error> {
        let healthy = failure == FailureKind::None;
        Ok(DetectConfig {
            program: std::env::current_exe()?,
            failure,
            runs: match failure {
                FailureKind::None => 1,
                failure if failure.is_of_node() => 3,
                _ => 50,
            },
            healthy: if healthy { Nanos::from_secs(5) } else { Nanos::from_millis(100) },
            ..Self::default()
        })
    }

    /// What the method promises without load: a deadline of silence, a poll to see it, 1 ms for the machine. Where only
    /// waiting work shows the failure, the agent looks twice before.
    pub fn bound(&self) -> Nanos {
        let looks = if self.failure.shows_in_queues() { QUEUE_PERIOD * 2 } else { Nanos::ZERO };
        self.deadline + self.poll + Nanos::from_millis(1) + looks
    }

    /// How long a failure is waited for.
    fn limit(&self) -> Nanos {
        // A card tries again for a while before it calls a node unreachable.
        let channel = if self.failure.is_of_node() { self.retry.patience() } else { Nanos::ZERO };
        self.deadline * 5 + self.poll * 10 + Nanos::from_millis(500) + channel
    }

    /// This machine, as a place for parts.
    pub(in crate::live) fn here(&self) -> Place {
        Place::Here(self.program.clone())
    }

    /// Whether it can be run.
    ///
    /// # Errors
    /// A sentence about the first setting that can't be.
    pub fn check(&self) -> Result<(), DetectError> {
        self.problem().map_err(|(_, message)| DetectError::Config(message))
    }

    /// The same, with the name that configs give the setting.
    pub(crate) fn problem(&self) -> Result<(), (&'static str, String)> {
        let error = |setting: &'static str, what: String| Err((setting, what));
        let (least, most) = (Nanos::from_millis(2), Nanos::from_secs(600));
        if self.deadline < least || self.deadline > most {
            return error(
                "deadline",
                format!(
                    "the deadline is {}, must be from {least} (the worker ticks every 1ms) to {most}",
                    self.deadline
                ),
            );
        }
        if self.poll < Nanos::from_micros(10) || self.poll > self.deadline {
            return error("poll", format!("the poll interval is {}, must be from 10us to the deadline", self.poll));
        }
        if self.sessions == 0 || self.sessions > MAX_SESSIONS {
            return error("sessions", format!("{} sessions: must be from 1 to {MAX_SESSIONS}", self.sessions));
        }
        if !(MIN_STATE_BYTES..=MAX_STATE_BYTES).contains(&self.state_bytes) {
            return error(
                "state_bytes",
                format!("states of {} bytes: must be from {MIN_STATE_BYTES} to {MAX_STATE_BYTES}", self.state_bytes),
            );
        }
        if !(1..=MAX_RUNS).contains(&self.runs) {
            return error("runs", format!("{} runs: must be from 1 to {MAX_RUNS}", self.runs));
        }
        if self.load > MAX_LOAD {
            return error("load", format!("a load of {} busy processes: at most {MAX_LOAD}", self.load));
        }
        if self.healthy > Nanos::from_secs(24 * 3600) {
            return error("healthy", format!("a healthy part of {}: at most a day", self.healthy));
        }
        if self.failure.is_of_node() && self.on.is_none() {
            let name = self.failure.name();
            return error("failures", format!("{name} needs a node that is another machine: name its stage (--on)"));
        }
        if self.failure == FailureKind::Command && self.inject.is_none() {
            return error("failures", "the failure 'command' needs a command that makes it (--inject)".into());
        }
        if self.reboot_limit > Nanos::from_secs(24 * 3600) {
            return error("reboot_limit", format!("a wait of {} for the stage: at most a day", self.reboot_limit));
        }
        Ok(())
    }
}

/// Why the experiment ended early. All its processes have ended.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// A setting that can't be.
    #[error("{0}")]
    Config(String),
    /// Somebody asked to stop.
    #[error("stopped after {} of {runs} runs", report.rows.len())]
    Interrupted {
        /// What was found until then.
        report: Box<DetectReport>,
        /// All runs.
        runs: u32,
    },
    /// The worker was sent a signal and did not mind.
    #[error("the worker goes on after {signal}")]
    Unharmed {
        /// The signal.
        signal: &'static str,
    },
    /// The node, or the way there, could not be made to fail.
    #[error("the failure can't be made: {0}")]
    Saboteur(String),
    /// A command of the user's failed.
    #[error("the command of {option}, '{command}', {how}")]
    Command {
        /// The option that gives it.
        option: &'static str,
        /// The command.
        command: String,
        /// How it failed.
        how: String,
    },
    /// A machine that was made to fail does not come back.
    #[error("the stage did not answer again within {waited} (--reboot-limit); lastly: {last}")]
    StageStaysAway {
        /// How long it was waited for.
        waited: Nanos,
        /// What happened at the last attempt.
        last: StageError,
    },
    /// A process did not play its part.
    #[error(transparent)]
    Part(#[from] PartError),
    /// The worker could not be talked to.
    #[error("can't talk to the worker: {0}")]
    Client(#[source] std::io::Error),
    /// The monitor did not see what it should have seen at the start of a run.
    #[error("the monitor did not {what} within {} s", waited.as_secs_f64())]
    Blind {
        /// What it did not do.
        what: &'static str,
        /// How long it was waited for.
        waited: Duration,
    },
}

/// Runs one configuration. `finished` gets each row as soon as there is one.
///
/// The calling thread starts the processes and must live until this returns; it does so within the time that the runs
/// take: at most a few deadlines and about a second each, besides the healthy part.
pub fn run(
    config: &DetectConfig,
    interrupt: &Interrupt,
    finished: &mut dyn FnMut(&DetectRow),
) -> Result<DetectReport, DetectError> {
    config.check()?;
    config.transport.try_here(&config.card).map_err(DetectError::Config)?;
    let mut cast = None;
    let mut monitor = Summary::default();
    let mut spin = None;
    let mut rows = Vec::new();
    for number in 0..config.runs {
        let streams = streams(config.seed, u64::from(number));
        if interrupt.requested() {
            break;
        }
        let assembled = match cast.take() {
            Some(cast) => Some(cast),
            None => Cast::assemble(config, number > 0 || config.stage_comes_back, interrupt)?,
        };
        let Some(mut now) = assembled else { break };
        if spin.is_none() {
            spin = Some(wakeups::spin(config.poll, SPIN_FOR));
        }
        let outcome = OneRun::start(config, number, streams, &mut now).and_then(|run| run.play(interrupt));
        let row = outcome.map_err(|error| root_of(error, config, &now))?;
        // A node that failed has nothing left to go on with.
        if config.failure.is_of_node() {
            monitor.add(&now.end()?);
        } else {
            cast = Some(now);
        }
        let Some(row) = row else { break };
        finished(&row);
        rows.push(row);
    }
    if let Some(cast) = cast {
        monitor.add(&cast.end()?);
    }
    let report = DetectReport { config: config.clone(), rows, monitor, spin: spin.unwrap_or_default() };
    match report.rows.len() == config.runs as usize {
        true => Ok(report),
        false => Err(DetectError::Interrupted { report: Box::new(report), runs: config.runs }),
    }
}

/// An error may be no more than what the end of the stage, and of all that was on it, looks like from here.
fn root_of(error: DetectError, config: &DetectConfig, cast: &Cast) -> DetectError {
    if config.on.is_none() || config.failure.is_of_node() {
        return error;
    }
    // Its connection may be found closed a little later than those of its parts.
    std::thread::sleep(Duration::from_millis(100));
    cast.node.place.check().map_or_else(DetectError::from, |()| error)
}

fn streams(seed: u64, run: u64) -> Streams {
    // Neither failure nor load are in the key: alternatives are compared under the same random numbers.
    Streams::new(StreamKey { seed, experiment: "live-detect", point: "", replication: run })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_be_are_named() {
        let good = DetectConfig::of(FailureKind::Sigstop).unwrap();
        assert!(good.check().is_ok());
        for (bad, word) in [
            (DetectConfig { deadline: Nanos::from_millis(1), ..good.clone() }, "deadline"),
            (DetectConfig { poll: Nanos::from_millis(21), ..good.clone() }, "poll"),
            (DetectConfig { sessions: 0, ..good.clone() }, "sessions"),
            (DetectConfig { state_bytes: 15, ..good.clone() }, "states"),
            (DetectConfig { runs: 0, ..good.clone() }, "runs"),
            (DetectConfig { runs: u32::MAX, ..good.clone() }, "100000"),
            (DetectConfig { load: 100_000, ..good.clone() }, "at most 1024"),
            (DetectConfig { failure: FailureKind::KernelCrash, ..good.clone() }, "--on"),
            (
                DetectConfig { failure: FailureKind::Command, on: Some(([10, 0, 0, 1], 1).into()), ..good.clone() },
                "--inject",
            ),
        ] {
            let message = bad.check().unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}
