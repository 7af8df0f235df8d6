//! `backdoor live record`.

use std::net::SocketAddr;
use std::path::PathBuf;

use backdoor_core::Nanos;

use crate::cli::Failure;
use crate::interrupt::Interrupt;
use crate::live::detect::{DetectConfig, FailureKind};
use crate::live::reach::ReachArguments;
use crate::live::record::{self, RecordConfig, Recorded, Stage, Subject};
use crate::progress::Progress;
use crate::say;

/// Record the progress of real processes, for 'backdoor qos --trace' to try detectors on.
///
/// Without --socket or --connect, the parts of 'backdoor live detect' are started for it: an agent, a worker that serves
/// sessions to clients over TCP, busy processes; nothing fails. With one of them, a node that runs anyhow is recorded.
///
/// The trace is a CSV file with a line for each progress that the monitor observed: which entity, its level and deadline,
/// its state and count, and when, with both ends of the sample. FILE.json beside it says how the trace came about. Ctrl-C
/// ends the recording early.
///
/// Example: backdoor live record --out trace.csv --load 4; backdoor qos --trace trace.csv --entity worker --detector
/// deadline --timeout 5ms
#[derive(Debug, clap::Args)]
#[command(mut_arg("socket", |socket| socket.help("The socket of an agent that runs on this machine: record its node")))]
pub(in crate::cli) struct Arguments {
    /// The trace.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Overwrite a trace that is there.
    #[arg(long)]
    force: bool,
    /// How long, from when the node is watched.
    #[arg(long, default_value = "10s", value_name = "DURATION")]
    duration: Nanos,
    /// Time between the monitor's polls.
    #[arg(long, default_value = "1ms", value_name = "DURATION")]
    poll: Nanos,
    /// Spin just before each poll: wakes up more exactly, and takes a processor.
    #[arg(long)]
    spin: bool,
    #[command(flatten)]
    node: ReachArguments,
    /// Number of busy processes.
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = PARTS)]
    load: u32,
    /// Sessions of the worker, each with a client of its own.
    #[arg(long, default_value_t = 8, value_name = "K", help_heading = PARTS)]
    sessions: u64,
    /// Bytes of each session's state.
    #[arg(long, default_value_t = 1024, value_name = "BYTES", help_heading = PARTS)]
    state_size: usize,
    /// The deadline that the worker and its sessions declare. It changes nothing in the trace but that column.
    #[arg(long, default_value = "20ms", value_name = "DURATION", help_heading = PARTS)]
    deadline: Nanos,
    /// The stage on another machine where the node's parts are to run, see 'backdoor live stage'.
    #[arg(long, value_name = "HOST:PORT", value_parser = super::address, help_heading = PARTS)]
    on: Option<SocketAddr>,
    /// Seed of the clients' pauses and the states.
    #[arg(long, default_value_t = 1, value_name = "N", help_heading = PARTS)]
    seed: u64,
    /// No progress on standard error.
    #[arg(long, short)]
    quiet: bool,
}

const PARTS: &str = "Where parts are started for it";

impl Arguments {
    fn subject(&self) -> Result<Subject, Failure> {
        if self.node.names_a_node() {
            return Ok(Subject::Node(self.node.address().map_err(Failure::Message)?));
        }
        let (transport, card, retry) = self.node.way();
        Ok(Subject::Parts(Box::new(DetectConfig {
            deadline: self.deadline,
            poll: self.poll,
            load: self.load,
            sessions: self.sessions,
            state_bytes: self.state_size,
            seed: self.seed,
            on: self.on,
            healthy: self.duration,
            transport,
            card,
            retry,
            ..DetectConfig::of(FailureKind::None)?
        })))
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = RecordConfig {
        subject: arguments.subject()?,
        poll: arguments.poll,
        spin: arguments.spin,
        duration: arguments.duration,
        out: arguments.out.clone(),
        force: arguments.force,
    };
    let interrupt = Interrupt::listen()?;
    let seconds = |span: Nanos| (span.0 / 1_000_000_000) as usize;
    let progress = if arguments.quiet { Progress::hidden() } else { Progress::new(seconds(config.duration)) };
    let bar = progress.experiment("record", seconds(config.duration)).counted_in("seconds");
    let mut shown = 0;
    let mut stage = |stage: &Stage| match stage {
        Stage::Waiting(why) => progress.note(&format!("waiting: {why}")),
        Stage::Recording(so_far) => {
            while shown < seconds(*so_far) {
                shown += 1;
                bar.point_finished();
            }
        }
    };
    let outcome = record::record(&config, &interrupt, &mut stage);
    progress.finish();
    let recorded = match outcome {
        Err(error) if interrupt.requested() => return Err(Failure::interrupted(error.to_string(), &interrupt)),
        outcome => outcome?,
    };
    say::out(&summary(&config, &recorded))?;
    if recorded.interrupted {
        let message = format!("interrupted; what was recorded is in {}", config.out.display());
        return Err(Failure::interrupted(message, &interrupt));
    }
    Ok(())
}

fn summary(config: &RecordConfig, recorded: &Recorded) -> String {
    let Recorded { lines, watches, samples, late_samples, ran, suspicions: [os, application, session], .. } = recorded;
    let ran = ran.as_secs_f64();
    let mut text = format!("{}: {lines} lines of {watches} entities in {ran:.1} s\n", config.out.display());
    text += &format!("{late_samples} of {samples} samples were late\n");
    text += &format!(
        "by their own deadlines, suspected {} times: os {os}, application {application}, session {session}\n",
        os + application + session
    );
    text
}
