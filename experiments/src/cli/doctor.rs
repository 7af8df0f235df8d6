//! `backdoor doctor`.

use super::Failure;
use super::monitor::colours;
use crate::doctor::Machine;
use crate::say;

/// Say what this machine can run: memory, RDMA devices, limits, privileges; and what to do about what is missing.
///
/// It changes nothing. Exit code 0 if the transport can run, 1 otherwise.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The transport that must be able to run.
    #[arg(long, value_enum, default_value_t = Transport::Shm)]
    transport: Transport,
    /// Lines for people, or one JSON object for machines.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Transport {
    /// Memory shared between processes of this machine.
    Shm,
    /// RDMA, as well as shared memory.
    Verbs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let report = Machine::this_one().examine();
    say::out(&match arguments.format {
        Format::Text => report.to_text(colours()),
        Format::Json => serde_json::to_string_pretty(&report)? + "\n",
    })?;
    if !report.can_run.shm {
        return Err(Failure::Message("shared memory can't run on this machine".into()));
    }
    if arguments.transport == Transport::Verbs && !report.can_run.verbs {
        return Err(Failure::Message("RDMA can't run on this machine".into()));
    }
    Ok(())
}
