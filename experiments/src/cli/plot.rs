//! `backdoor plot`.

use super::Failure;

/// Draw the figures of a results directory again, from its CSV alone.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(_arguments: &Arguments) -> Result<(), Failure> {
    Ok(())
}
