//! `backdoor plot`: figures and report again, from the CSV alone.

use super::{Failure, reproduce, studies};
use crate::results::{ResultsDir, ResultsError};
use crate::say;
use crate::study::{Study, StudyError};
use std::path::PathBuf;

/// Draw the figures and write the report of a results directory again, from its CSV alone.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The results directory.
    dir: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let dir = ResultsDir::open(&arguments.dir)?;
    let manifest = dir.manifest().clone();
    if manifest.finished_unix_s.is_none() || manifest.experiments.is_empty() {
        return Err(ResultsError::Unfinished(arguments.dir.clone()).into());
    }
    let file = |name: &str| format!("{}, config of {name}", arguments.dir.join("manifest.json").display());
    let found = manifest
        .experiments
        .iter()
        .map(|experiment| Study::parse(&experiment.name, &file(&experiment.name), &experiment.config))
        .collect::<Result<Vec<Study>, StudyError>>()?;
    let title = match &found[..] {
        [only] => only.title().to_owned(),
        _ => reproduce::TITLE.to_owned(),
    };
    studies::present(&found, &title, &dir)?;
    say::out(&studies::summary(&arguments.dir))?;
    Ok(())
}
