//! `backdoor monitor`.

use super::Failure;

/// Watch a node and report failures.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(_arguments: &Arguments) -> Result<(), Failure> {
    Ok(())
}
