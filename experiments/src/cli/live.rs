//! `backdoor live`.

mod failover;
mod measurement;
mod overhead;
mod record;
mod stage;

use std::net::{SocketAddr, ToSocketAddrs};

use backdoor_core::Nanos;

use measurement::Measurement;

use super::Failure;
use crate::interrupt::Interrupt;
use crate::live::detect::{self, DetectConfig, DetectError, DetectReport, DetectRow, FailureKind};
use crate::live::detector::DetectorKind;
use crate::live::parts;
use crate::live::reach::{Card, Retry, TransportKind};

/// Live experiments with real processes and real faults.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    experiment: Experiment,
}

#[derive(Debug, clap::Subcommand)]
enum Experiment {
    Detect(Box<Detect>),
    Failover(Box<failover::Arguments>),
    Overhead(overhead::Arguments),
    Record(Box<record::Arguments>),
    Stage(stage::Arguments),
    /// One process of an experiment.
    #[command(hide = true)]
    Part {
        task: String,
    },
}

/// Make a real process fail, and measure how long a monitor takes to notice that reads nothing but its memory.
///
/// Everything is started for the experiment and ended with it: an agent, a worker that serves sessions to clients over
/// TCP, busy processes, a monitor. After each detection the sessions' states are read out of the failed worker and
/// compared with what the clients know.
///
/// With --on, the node is another machine: the agent, the worker and the load run on its stage (see 'backdoor live
/// stage'), and the monitor and the clients here. The column clock_error_ms tells how far off a moment of failure may be
/// that was told by that machine's clock. Failures of a kernel or a link begin when they are ordered, so that detection
/// times are upper bounds; after each, the stage is waited for.
#[derive(Debug, clap::Args)]
#[command(after_long_help = measurement::columns::<DetectRow>())]
struct Detect {
    /// What fails, and how; several, separated by commas, run one after the other.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "sigstop", value_name = "KIND")]
    failure: Vec<FailureKind>,
    /// Silence longer than this is a failure.
    #[arg(long, default_value = "20ms", value_name = "DURATION")]
    deadline: Nanos,
    /// Time between the monitor's polls.
    #[arg(long, default_value = "1ms", value_name = "DURATION")]
    poll: Nanos,
    /// Number of busy processes; several, separated by commas, run one after the other.
    #[arg(long, value_delimiter = ',', default_value = "0", value_name = "N")]
    load: Vec<u32>,
    /// Runs of each combination, each with a fresh worker. [default: 50; 1 for --failure none, 3 for those of a whole
    /// machine or its link]
    #[arg(long, value_name = "N")]
    runs: Option<u32>,
    /// How long the worker is healthy before it fails. [default: 100ms; 5s for --failure none]
    #[arg(long, value_name = "DURATION")]
    duration: Option<Nanos>,
    /// Sessions of the worker, each with a client of its own.
    #[arg(long, default_value_t = 8, value_name = "K")]
    sessions: u64,
    /// Bytes of each session's state.
    #[arg(long, default_value_t = 1024, value_name = "BYTES")]
    state_size: usize,
    /// What the monitor reads through.
    #[arg(long, value_enum, default_value_t = TransportKind::Shm)]
    transport: TransportKind,
    #[command(flatten)]
    card: Card,
    #[command(flatten)]
    retry: Retry,
    /// The stage on the machine to be watched; link failures hit the interfaces between here and there, so name it by
    /// its address in the network that the monitor reads over. Without it, everything is on this machine.
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    on: Option<SocketAddr>,
    /// For --failure command: what makes the node fail, run on this machine by 'sh -c'.
    #[arg(long, value_name = "COMMAND")]
    inject: Option<String>,
    /// What undoes it, run after each run.
    #[arg(long, value_name = "COMMAND", requires = "inject")]
    repair: Option<String>,
    /// How long to wait for the stage after a failure of its machine.
    #[arg(long, default_value = "60s", value_name = "DURATION")]
    reboot_limit: Nanos,
    /// What a stuck session does instead of going on, and one that leaves a request where it is.
    #[arg(long, value_enum, default_value_t = Stuck::Block)]
    stuck: Stuck,
    /// What the monitor judges by.
    #[arg(long, value_enum, default_value_t = DetectorKind::default())]
    detector: DetectorKind,
    /// Don't let the agent watch what waits in the sessions' sockets: idle-lie and livelock are not found then.
    #[arg(long)]
    no_queues: bool,
    /// Let the monitor spin just before each poll: it wakes up more exactly, and takes a processor.
    #[arg(long)]
    spin: bool,
    /// Seed of the moments of failure, the clients' pauses, and the states.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// A row per run as CSV, or a summary for people.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// No progress on standard error.
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Stuck {
    /// Waits for what never comes.
    Block,
    /// Computes for ever.
    Spin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Csv,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.experiment {
        Experiment::Detect(arguments) => measurement::run(&arguments.configs()?, arguments.quiet, arguments.format),
        Experiment::Failover(arguments) => failover::run(&arguments),
        Experiment::Overhead(arguments) => overhead::run(&arguments),
        Experiment::Record(arguments) => record::run(&arguments),
        Experiment::Stage(arguments) => stage::run(&arguments),
        Experiment::Part { task } => parts::play(&task).map_err(Failure::Message),
    }
}

/// An address, by number or by name.
fn address(text: &str) -> Result<SocketAddr, String> {
    let found = text.to_socket_addrs().map_err(|error| crate::plain(&error))?.next();
    found.ok_or_else(|| "there is no such host".into())
}

impl Detect {
    fn configs(&self) -> Result<Vec<DetectConfig>, Failure> {
        let mut configs = Vec::new();
        for failure in &self.failure {
            for load in &self.load {
                let default = DetectConfig::of(*failure)?;
                let stage_comes_back = configs.iter().any(|earlier: &DetectConfig| earlier.failure.is_of_node());
                configs.push(DetectConfig {
                    deadline: self.deadline,
                    poll: self.poll,
                    load: *load,
                    runs: self.runs.unwrap_or(default.runs),
                    healthy: self.duration.unwrap_or(default.healthy),
                    sessions: self.sessions,
                    state_bytes: self.state_size,
                    seed: self.seed,
                    spin: self.spin,
                    stuck_spins: self.stuck == Stuck::Spin,
                    detector: self.detector,
                    queues: !self.no_queues,
                    transport: self.transport,
                    card: self.card.clone(),
                    retry: self.retry,
                    on: self.on,
                    stage_comes_back,
                    inject: self.inject.clone(),
                    repair: self.repair.clone(),
                    reboot_limit: self.reboot_limit,
                    ..default
                });
            }
        }
        Ok(configs)
    }
}

impl Measurement for DetectConfig {
    type Row = DetectRow;
    type Report = DetectReport;
    type Error = DetectError;

    fn check(&self) -> Result<(), DetectError> {
        self.check()
    }

    fn name(&self) -> String {
        self.failure.name().to_owned()
    }

    fn rows(&self) -> u32 {
        self.runs
    }

    fn run(&self, interrupt: &Interrupt, finished: &mut dyn FnMut(&DetectRow)) -> Result<DetectReport, DetectError> {
        detect::run(self, interrupt, finished)
    }

    fn partial(error: DetectError) -> Result<DetectReport, DetectError> {
        match error {
            DetectError::Interrupted { report, .. } => Ok(*report),
            error => Err(error),
        }
    }

    fn text(report: &DetectReport) -> String {
        report.to_text()
    }
}
