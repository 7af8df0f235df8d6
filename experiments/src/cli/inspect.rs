//! `backdoor inspect`.

use super::Failure;
use crate::live::reach::ReachArguments;
use crate::live::snapshot::Snapshot;
use crate::say;

/// Show what a node's boxes hold now: hooks, gauges, entities, and the State Boxes of sessions.
///
/// It reads the node's memory and disturbs nobody; services that hang or have died are shown like the others.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    node: ReachArguments,
    /// A tree for people, or one JSON object for machines.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let snapshot = Snapshot::take(&arguments.node.address().map_err(Failure::Message)?)?;
    let text = match arguments.format {
        Format::Text => snapshot.to_text(),
        Format::Json => serde_json::to_string_pretty(&snapshot)? + "\n",
    };
    say::out(&text)?;
    Ok(())
}
