//! `backdoor live`.

use super::Failure;

/// Live experiments with real processes and real faults.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(_arguments: Arguments) -> Result<(), Failure> {
    Ok(())
}
