//! Running studies into a results directory, for every command that does.

use super::Failure;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::report::Report;
use crate::results::{Manifest, ResultsDir};
use crate::runner::RunError;
use crate::say;
use crate::study::{Context, Profile, Study, StudyError};
use std::path::{Path, PathBuf};

/// Where results go, and how.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Options {
    /// Results directory. Must be new or empty, unless --resume.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on where an interrupted run into the same directory stopped.
    #[arg(long)]
    resume: bool,
    /// Seed of all random numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads for simulated points; 0 for one per processor. Never changes the results.
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
    /// How much to run: minutes, or hours with narrow intervals.
    #[arg(long, value_enum, default_value_t)]
    profile: Profile,
}

/// Runs `studies` and presents them under `title`.
pub(super) fn run(studies: &[Study], title: &str, default_out: &str, options: &Options) -> Result<(), Failure> {
    let out = options.out.clone().unwrap_or_else(|| default_out.into());
    let identities = studies.iter().map(|study| study.identity(options.profile));
    let manifest = Manifest::new(std::env::args(), options.seed, identities);
    let mut dir = match options.resume {
        true => ResultsDir::resume(&out, &manifest)?,
        false => ResultsDir::create(&out, &manifest)?,
    };
    let interrupt = Interrupt::listen()?;
    let progress = Progress::new(studies.iter().map(Study::points).sum());
    for study in studies {
        let context = Context {
            dir: &dir,
            progress: &progress,
            interrupt: &interrupt,
            threads: options.threads,
            profile: options.profile,
        };
        match study.run(context) {
            Err(StudyError::Run(error @ RunError::Interrupted { .. })) => {
                progress.finish();
                let message = format!("{}: {error} --out {}", study.name(), out.display());
                return Err(Failure::interrupted(message, &interrupt));
            }
            outcome => outcome?,
        }
    }
    progress.finish();
    dir.finish()?;
    present(studies, title, &dir)?;
    say::out(&summary(&out))?;
    Ok(())
}

/// Draws all figures and writes the report, from the tables alone.
pub(super) fn present(studies: &[Study], title: &str, dir: &ResultsDir) -> Result<(), Failure> {
    let mut report = Report::new(title, dir.manifest());
    for study in studies {
        study.present(dir, report.section(study.title()))?;
    }
    dir.write("report.html", report.to_html().as_bytes())?;
    Ok(())
}

/// Where to look.
pub(super) fn summary(out: &Path) -> String {
    let report = out.join("report.html");
    format!("Report: {}\nTables: {}/*.csv\nFigures: {}/figures/\n", report.display(), out.display(), out.display())
}
