//! `backdoor sweep`.

use super::Failure;

/// Run one sweep: every combination of a config's lists.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(_arguments: &Arguments) -> Result<(), Failure> {
    Ok(())
}
