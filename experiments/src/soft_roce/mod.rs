//! What real verbs measure between two virtual machines, as a part of `backdoor reproduce`.
//!
//! The measurements are cases of `transports/soft-roce/run`, a script of the project's checkout. Nothing here installs,
//! builds or fetches anything: where the script can't begin at once, one sentence says why, and what to do about it.
//!
//! ```text
//!  Source ──> Plan ──> carry_out ──> soft_roce.csv, live_verbs.csv ──> present: figures, section
//!  option    here?     script, or     the same form as what the
//!                      its results    script and `live` write
//! ```
//!
//! * [`here`] finds out whether the script can begin.
//! * [`script`] runs it, shows how far it is, and stops it.
//! * [`tables`] reads what it wrote, which is taken for hostile.
//! * [`present`] draws, from the tables in the results directory alone.

pub mod here;
pub mod present;
pub mod script;
pub mod tables;

use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::results::{ResultsDir, ResultsError, SoftRoce};
use crate::study::Profile;
use here::{Here, Ready, Unready};
use script::{End, ScriptError};
use std::path::PathBuf;
use std::str::FromStr;
use std::{fs, io};
use tables::Tables;

/// The cases of the quick profile; the full one runs all that there are.
pub const QUICK_CASES: [&str; 3] = ["13-speed", "20-detect", "40-detect-node"];

/// Below the results directory: where the script writes, and its own words.
const OUT: &str = "soft-roce";
const LOG: &str = "run.log";

/// Where measurements come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// They are made, if they can be made at once.
    #[default]
    Auto,
    /// From nowhere.
    Never,
    /// An earlier run's output directory.
    Dir(PathBuf),
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Source::Auto),
            "never" => Ok(Source::Never),
            "" => Err("must be auto, never or a directory".into()),
            dir => Ok(Source::Dir(dir.into())),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Auto => to.write_str("auto"),
            Source::Never => to.write_str("never"),
            Source::Dir(dir) => dir.display().fmt(to),
        }
    }
}

/// What is going to happen, found out before anything is run or written.
#[derive(Debug)]
pub enum Plan {
    /// The script can begin, with these cases.
    Run(Ready, Vec<String>),
    /// An earlier run's results, read and checked.
    Take(PathBuf, Tables),
    /// Nothing.
    Skip(Unready),
    /// What an interrupted run into the same directory has got already stays as it is.
    Keep,
}

/// Why there are no results.
#[derive(Debug, thiserror::Error)]
pub enum SoftRoceError {
    /// The directory that was named has none.
    #[error("--soft-roce {}: there is no results.csv; name a directory that `transports/soft-roce/run --out DIR` filled", .0.display())]
    NoResults(PathBuf),
    /// Files that can't be read, understood or written.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// Somebody asked to stop; the script has cleaned up.
    #[error("stopped; continue with --resume")]
    Interrupted,
}

impl Plan {
    /// What follows from the option, on this machine. An earlier run's results are read at once: a directory without is
    /// better refused now than after all studies.
    ///
    /// # Errors
    /// A directory was named whose results are missing or malformed.
    pub fn make(source: &Source, here: &Here, profile: Profile) -> Result<Self, SoftRoceError> {
        Ok(match source {
            Source::Never => Plan::Skip(Unready::new("by --soft-roce never", "leave that out")),
            Source::Auto => match here.ready() {
                Ok(ready) => {
                    let cases = match profile {
                        Profile::Quick => QUICK_CASES.map(str::to_owned).to_vec(),
                        Profile::Full => ready.cases.clone(),
                    };
                    Plan::Run(ready, cases)
                }
                Err(unready) => Plan::Skip(unready),
            },
            Source::Dir(dir) if !dir.join(tables::RESULTS).exists() => {
                return Err(SoftRoceError::NoResults(dir.clone()));
            }
            Source::Dir(dir) => Plan::Take(dir.clone(), Tables::of_run(dir)?),
        })
    }

    /// The same, unless the directory has results already and no others were named.
    pub fn unless_done(self, dir: &ResultsDir) -> Self {
        let done = matches!(dir.manifest().soft_roce, Some(SoftRoce::Ran { .. } | SoftRoce::TakenFrom { .. }));
        match self {
            Plan::Take(..) => self,
            _ if done => Plan::Keep,
            _ => self,
        }
    }

    /// Number of cases to be run, for progress.
    pub fn cases(&self) -> usize {
        match self {
            Plan::Run(_, cases) => cases.len(),
            _ => 0,
        }
    }

    /// Does it, writes the tables, and notes in the manifest what became of it.
    ///
    /// # Errors
    /// An interruption, and files of the results directory that can't be written. What is wrong with the script is no
    /// error: the manifest says so, and the studies' results stay good.
    pub fn carry_out(
        self,
        dir: &mut ResultsDir,
        interrupt: &Interrupt,
        progress: &Progress,
    ) -> Result<(), SoftRoceError> {
        let outcome = match self {
            Plan::Keep => return Ok(()),
            Plan::Skip(Unready { why, remedy }) => SoftRoce::Skipped { why, remedy },
            Plan::Take(from, tables) => {
                tables.write(dir)?;
                SoftRoce::TakenFrom { dir: from.display().to_string() }
            }
            Plan::Run(ready, cases) => run(&ready, cases, dir, interrupt, progress)?,
        };
        Ok(dir.note_soft_roce(outcome)?)
    }
}

fn run(
    ready: &Ready,
    cases: Vec<String>,
    dir: &ResultsDir,
    interrupt: &Interrupt,
    progress: &Progress,
) -> Result<SoftRoce, SoftRoceError> {
    let out = dir.path().join(OUT);
    // Whatever an interrupted run left must not be taken for a part of this one.
    match fs::remove_dir_all(&out) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(ResultsError::io("remove", &out)(error).into());
        }
        _ => {}
    }
    let log = dir.write(&format!("{OUT}/{LOG}"), b"")?;
    let bar = progress.experiment(OUT, cases.len());
    let end = script::run(ready, &cases, &out, &log, interrupt, &bar);
    bar.finish();
    let broken = |why: String| SoftRoce::Broken { why: format!("{why}; see {OUT}/{LOG} in the results directory") };
    let held = match end {
        Ok(End::Held) => true,
        Ok(End::Failed) => false,
        Ok(End::CouldNotBegin(why)) => return Ok(SoftRoce::Skipped { why, remedy: here::BY_HAND.into() }),
        Ok(End::Other(how)) => return Ok(broken(format!("transports/soft-roce/run ended with {how}"))),
        Err(ScriptError::Interrupted) => return Err(SoftRoceError::Interrupted),
        Err(ScriptError::Io(error)) => {
            let unready = Unready::cannot_run(&ready.script, &error);
            return Ok(SoftRoce::Skipped { why: unready.why, remedy: unready.remedy });
        }
    };
    let tables = match Tables::of_run(&out) {
        Ok(tables) => tables,
        Err(error) => return Ok(broken(error.to_string())),
    };
    if !held && tables.failures(&cases).is_empty() {
        return Ok(broken("transports/soft-roce/run says that a case failed, and not which one".into()));
    }
    tables.write(dir)?;
    Ok(SoftRoce::Ran { cases })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_may_be_called_like_a_word() {
        assert_eq!("auto".parse(), Ok(Source::Auto));
        assert_eq!("never".parse(), Ok(Source::Never));
        assert_eq!("./auto".parse(), Ok(Source::Dir("./auto".into())));
        assert!("".parse::<Source>().is_err());
        assert_eq!(Source::default().to_string(), "auto");
    }
}
