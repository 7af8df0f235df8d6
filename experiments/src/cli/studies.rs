//! Running studies into a results directory, for every command that does.

use super::Failure;
use crate::figures::WITH_PNG;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::report::Report;
use crate::results::{Manifest, ResultsDir};
use crate::runner::{RunError, check_threads};
use crate::say;
use crate::soft_roce::{self, Plan, SoftRoceError};
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
    /// Threads for simulated points, at most 1024; 0 for one per processor. Never changes the results.
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
    /// How much to run: minutes, or hours with narrow intervals.
    #[arg(long, value_enum, default_value_t)]
    profile: Profile,
}

impl Options {
    /// How much to run.
    pub(super) fn profile(&self) -> Profile {
        self.profile
    }
}

/// Runs `studies`, then what is planned over Soft-RoCE, and presents all under `title`.
pub(super) fn run(
    studies: &[Study],
    title: &str,
    default_out: &str,
    options: &Options,
    soft_roce: Option<Plan>,
) -> Result<(), Failure> {
    check_threads(options.threads)?;
    let out = options.out.clone().unwrap_or_else(|| default_out.into());
    let identities = studies.iter().map(|study| study.identity(options.profile));
    let manifest = Manifest::new(std::env::args(), options.seed, identities);
    let mut dir = match options.resume {
        true => ResultsDir::resume(&out, &manifest)?,
        false => ResultsDir::create(&out, &manifest)?,
    };
    let interrupt = Interrupt::listen()?;
    let soft_roce = soft_roce.map(|plan| plan.unless_done(&dir));
    let cases = soft_roce.as_ref().map_or(0, Plan::cases);
    let progress = Progress::new(studies.iter().map(Study::points).sum::<usize>() + cases);
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
    let carried_out = soft_roce.map_or(Ok(()), |plan| plan.carry_out(&mut dir, &interrupt, &progress));
    progress.finish();
    if let Err(error @ SoftRoceError::Interrupted) = carried_out {
        return Err(Failure::interrupted(format!("soft-roce: {error} --out {}", out.display()), &interrupt));
    }
    carried_out?;
    dir.finish()?;
    let soft_roce = present(studies, title, &dir)?;
    say::out(&summary(&out))?;
    // Last, and after everything else is there: it depends on the machine, which no study does.
    match soft_roce {
        Some((line, false)) => Err(Failure::Message(line)),
        Some((line, true)) => {
            say::out(&format!("{line}\n"))?;
            Ok(())
        }
        None => Ok(()),
    }
}

/// Draws all figures and writes the report, from the tables alone. Answers what is to be said of Soft-RoCE, and whether
/// all is well there.
pub(super) fn present(studies: &[Study], title: &str, dir: &ResultsDir) -> Result<Option<(String, bool)>, Failure> {
    let mut report = Report::new(title, dir.manifest());
    for study in studies {
        study.present(dir, report.section(study.title()))?;
    }
    let soft_roce = soft_roce::present::present(dir, &mut report)?;
    dir.write("report.html", report.to_html().as_bytes())?;
    Ok(soft_roce)
}

/// Where to look.
pub(super) fn summary(out: &Path) -> String {
    let report = out.join("report.html");
    let left_out = if WITH_PNG { "" } else { " (SVG only: this program was built without the feature png)" };
    let (report, out) = (report.display(), out.display());
    format!("Report: {report}\nTables: {out}/*.csv\nFigures: {out}/figures/{left_out}\n")
}
