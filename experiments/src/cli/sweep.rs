//! `backdoor sweep`: one study from a config file.

use super::{Failure, studies};
use crate::study::Study;
use std::path::PathBuf;

/// Run one study: every combination of a config's lists.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The config, such as experiments/configs/false-positives.toml.
    config: PathBuf,
    #[command(flatten)]
    options: studies::Options,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let study = Study::load(&arguments.config)?;
    let title = study.title().to_owned();
    let default_out = format!("results-{}", study.name());
    studies::run(&[study], &title, &default_out, &arguments.options, None)
}
