//! `backdoor reproduce`.

use super::Failure;

/// Run every experiment: figures, tables, report.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(_arguments: &Arguments) -> Result<(), Failure> {
    Ok(())
}
