//! `backdoor node`.

use super::Failure;

/// Run a node's agent.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(_arguments: &Arguments) -> Result<(), Failure> {
    Ok(())
}
