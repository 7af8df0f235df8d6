//! `backdoor inspect`.

use super::Failure;

/// Show what a node's boxes hold now.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(_arguments: &Arguments) -> Result<(), Failure> {
    Ok(())
}
