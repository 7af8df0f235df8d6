//! Studies: what one config asks for, from points to tables, figures and a section of the report.
//!
//! ```text
//!  config (TOML) ──> Study ──> run: points × replications ──> CSV ──> figures, report section
//! ```
//!
//! Figures and report are made from the CSV alone, so that they can be redrawn without the run. A study is of one kind:
//!
//! | kind | measures | by |
//! |---|---|---|
//! | [`detection`] | false positives, detection times, accuracy, for any number of deadlines | simulation |
//! | [`modes`] | the same beside pull, heartbeats and a watchdog, and what each costs | simulation |
//! | [`detectors`] | the same for every detector, in each of these ways | simulation |
//! | [`diagnosis`] | how often cause and root of a failure are named rightly, and how soon | simulation |
//! | [`recovery`] | sessions saved and lost, outage and its parts, bytes read | simulation |
//! | [`remedies`] | takeover beside failover, restart and reboot: the outage, and the cost without failures | simulation |
//! | [`live`] | detection and extraction on this machine, beside what the simulation says of it | real processes |
//! | [`overhead`] | what State Boxes cost while nothing fails, beside what the model says of it | real processes |
//! | [`prediction`] | false positives on this machine, beside what a recording and the simulation say of them | real processes |
//! | [`failover`] | clients that go on at another node when theirs fails, and what each phase takes | real processes |
//! | [`phases`] | what each phase of a takeover takes, beside the simulation of it | real processes |
//! | [`cases`] | what people complain about: who is accused wrongly, who is not found | simulation |
//! | [`scale`] | how many nodes and entities one monitor can watch | real memory on this machine |

pub mod cases;
pub mod detection;
pub mod detectors;
pub mod diagnosis;
pub mod failover;
mod limits;
pub mod live;
pub mod modes;
pub mod overhead;
pub mod phases;
mod pooled;
mod precision;
pub mod prediction;
pub mod recovery;
pub mod remedies;
mod row;
pub mod scale;
mod scenario;
#[cfg(test)]
mod warm_up;

use crate::config::{self, ConfigError};
use crate::figures::Figure;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::report::Section;
use crate::results::{self, ResultsDir, ResultsError, Table};
use crate::runner::{Run, RunError, Task, TaskError, run_points};
use backdoor_sim::streams::{StreamKey, Streams};
use rayon::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// How much to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// Minutes: few replications, every effect visible.
    #[default]
    Quick,
    /// Hours: narrow intervals. Takes what a config's `[full]` table says instead.
    Full,
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Profile::Quick => "quick",
            Profile::Full => "full",
        }
    }
}

/// What a study runs in.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Where results go.
    pub dir: &'a ResultsDir,
    /// Where progress is shown.
    pub progress: &'a Progress,
    /// Whether to stop.
    pub interrupt: &'a Interrupt,
    /// Threads; 0 for one per processor.
    pub threads: usize,
    /// How much to run.
    pub profile: Profile,
}

impl Context<'_> {
    /// Computes every point of the study `name` that its journal does not hold yet; answers all, in order.
    fn run_points<P: Sync, R: Serialize + DeserializeOwned + Send>(
        &self,
        name: &str,
        points: &[P],
        replications: u64,
        compute: impl Fn(Task<'_, P>) -> Result<R, TaskError> + Sync,
    ) -> Result<Vec<R>, StudyError> {
        let journal = self.dir.journal(name, points.len())?;
        let bar = self.progress.experiment(name, points.len());
        let Context { interrupt, threads, .. } = *self;
        let rows = run_points(points, Run { journal: &journal, bar: &bar, interrupt, threads, replications }, compute)?;
        bar.finish();
        Ok(rows)
    }
}

/// Runs replications of a point, each with its own random streams, which are named by the seed, the study and the point.
/// Answers in order of replication, so that the number of threads changes nothing.
fn replicate<P: Sync, R: Send>(
    task: &Task<'_, P>,
    (seed, study, point): (u64, &str, &str),
    replications: Range<u64>,
    run: impl Fn(&Streams) -> Result<R, TaskError> + Sync,
) -> Result<Vec<R>, TaskError> {
    let one = |replication| {
        task.check()?;
        run(&Streams::new(StreamKey { seed, experiment: study, point, replication }))
    };
    replications.into_par_iter().map(one).collect()
}

/// What comes of a measurement that was interrupted.
fn interrupted<P>(task: &Task<'_, P>) -> TaskError {
    task.check().err().map_or_else(|| "interrupted".into(), TaskError::from)
}

/// The table beside that of all runs, with a row a point.
fn summary_name(name: &str) -> String {
    format!("{name}-summary")
}

/// Why a study failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StudyError {
    /// The config.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A point, the journal, or an interruption.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The results directory.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// A config whose file's name can't be that of a table.
    #[error(
        "{0}: results are named after this file, whose name must have only letters, digits, '-', '_' and '.', not '.' first"
    )]
    FileName(String),
    /// A table without rows.
    #[error("{0}.csv has no rows, so there is nothing to draw: run it again")]
    NoRows(String),
    /// A table that is not what this program writes.
    #[error("{0}.csv lacks the columns of a {1} study: run it again")]
    Table(String, &'static str),
}

/// What a config of one kind can do.
trait Kind: std::fmt::Debug + Send + Sync {
    fn title(&self) -> &str;
    fn summary(&self) -> &str;
    fn points(&self) -> usize;
    fn run(&self, name: &str, context: Context<'_>) -> Result<(), StudyError>;
    fn present(&self, name: &str, dir: &ResultsDir) -> Result<Presentation, StudyError>;
    #[cfg(test)]
    fn scenarios(&self) -> Vec<backdoor_sim::cluster::Scenario>;
}

/// The kinds: the name that configs give each, and the module whose `Config` it is.
macro_rules! kinds {
    ($($name:ident: $module:ident,)*) => {
        #[derive(Clone, Copy, Debug, Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum KindName {
            $($name,)*
        }

        impl KindName {
            fn read(self, file: &str, text: &str) -> Result<Arc<dyn Kind>, ConfigError> {
                Ok(match self {
                    $(KindName::$name => Arc::new($module::Config::parse(file, text)?),)*
                })
            }
        }

        $(impl Kind for $module::Config {
            fn title(&self) -> &str {
                &self.title
            }
            fn summary(&self) -> &str {
                &self.summary
            }
            fn points(&self) -> usize {
                Self::points(self).len()
            }
            fn run(&self, name: &str, context: Context<'_>) -> Result<(), StudyError> {
                Self::run(self, name, context)
            }
            fn present(&self, name: &str, dir: &ResultsDir) -> Result<Presentation, StudyError> {
                Self::present(self, name, dir)
            }
            #[cfg(test)]
            fn scenarios(&self) -> Vec<backdoor_sim::cluster::Scenario> {
                Self::scenarios(self)
            }
        })*
    };
}

kinds! {
    Detection: detection,
    Recovery: recovery,
    Remedies: remedies,
    Live: live,
    Prediction: prediction,
    Modes: modes,
    Scale: scale,
    Detectors: detectors,
    Cases: cases,
    Diagnosis: diagnosis,
    Failover: failover,
    Overhead: overhead,
    Phases: phases,
}

/// A study, read and checked.
#[derive(Clone, Debug)]
pub struct Study {
    name: String,
    text: String,
    kind: Arc<dyn Kind>,
}

/// The first look at a config: which kind it is. Unknown keys are the second look's business.
#[derive(Debug, Deserialize)]
struct Header {
    study: KindName,
}

impl Study {
    /// Reads the config at `path`; the study is named after the file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, StudyError> {
        let path = path.as_ref();
        let header = config::load_with_text::<Header>(path)?;
        let name = path.file_stem().map_or("sweep".into(), |stem| stem.to_string_lossy().into_owned());
        let shown = path.display().to_string();
        if !results::is_name(&name) {
            return Err(StudyError::FileName(shown));
        }
        Self::of_kind(header.value.study, name, &shown, header.text)
    }

    /// Reads a config given as text; `file` is what complaints call it.
    pub fn parse(name: &str, file: &str, text: &str) -> Result<Self, StudyError> {
        let header = config::parse::<Header>(file, text)?;
        Self::of_kind(header.study, name.to_owned(), file, text.to_owned())
    }

    fn of_kind(kind: KindName, name: String, file: &str, text: String) -> Result<Self, StudyError> {
        let kind = kind.read(file, &text)?;
        Ok(Study { name, text, kind })
    }

    /// Its name: that of its CSV.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Name and config text for the manifest; another profile is another config.
    pub fn identity(&self, profile: Profile) -> (String, String) {
        (self.name.clone(), format!("# profile: {}\n{}", profile.name(), self.text))
    }

    /// Number of points, for progress.
    pub fn points(&self) -> usize {
        self.kind.points()
    }

    /// Runs every point that is not in the journal yet, and writes the tables.
    pub fn run(&self, context: Context<'_>) -> Result<(), StudyError> {
        self.kind.run(&self.name, context)
    }

    /// Draws its figures from its tables, writes them, and fills its section of the report.
    pub fn present(&self, dir: &ResultsDir, section: &mut Section) -> Result<(), StudyError> {
        let tables = self.kind.present(&self.name, dir)?;
        // Before anything is overwritten: what was drawn from a whole table is better than what half of one gives.
        if let Some((caption, _)) = tables.tables.iter().find(|(_, table)| table.is_empty()) {
            return Err(StudyError::NoRows(caption.trim_end_matches(".csv").to_owned()));
        }
        section.paragraph(self.summary());
        for figure in &tables.figures {
            figure.write(dir)?;
            section.figure(figure);
        }
        for (caption, table) in &tables.tables {
            section.table(caption, table);
        }
        Ok(())
    }

    /// Every scenario that it simulates.
    #[cfg(test)]
    fn scenarios(&self) -> Vec<backdoor_sim::cluster::Scenario> {
        self.kind.scenarios()
    }

    /// Its title.
    pub fn title(&self) -> &str {
        self.kind.title()
    }

    /// What it asks, in a sentence or two.
    pub fn summary(&self) -> &str {
        self.kind.summary()
    }
}

/// What a study shows.
#[derive(Debug, Default)]
struct Presentation {
    figures: Vec<Figure>,
    tables: Vec<(String, Table)>,
}

/// What `[full]` sets instead, where a study has replications of a given length.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Full {
    replications: Option<u64>,
    duration: Option<config::Span>,
    precision: Option<precision::Precision>,
}

impl Full {
    /// Replications under `profile`, if the quick one has `quick`.
    fn replications(full: Option<&Full>, profile: Profile, quick: u64) -> u64 {
        match (profile, full) {
            (Profile::Full, Some(Full { replications: Some(replications), .. })) => *replications,
            _ => quick,
        }
    }
}

/// Asserts that a config is refused in which `line` is replaced by `by`, and that the complaint says `what`.
#[cfg(test)]
#[track_caller]
fn assert_refused(config: &str, line: &str, by: &str, what: &str) {
    assert!(config.contains(line), "{line}");
    let text = config.replacen(line, by, 1);
    let message = Study::parse("c", "c.toml", &text).expect_err(by).to_string();
    assert!(message.contains(what), "{by}: {message}");
}
