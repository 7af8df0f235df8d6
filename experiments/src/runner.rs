//! Runs the points of a sweep on several threads, journalling each as it is finished.
//!
//! ```
//! use backdoor_experiments::interrupt::Interrupt;
//! use backdoor_experiments::progress::Progress;
//! use backdoor_experiments::results::{Manifest, ResultsDir, Table};
//! use backdoor_experiments::runner::{Run, run_points};
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Row { deadline_s: f64, mistakes: u64 }
//!
//! # let place = tempfile::tempdir().unwrap();
//! # let out = place.path().join("out");
//! let manifest = Manifest::new(std::env::args(), 7, [("qos", "deadlines = [0.1, 0.2]")]);
//! let dir = ResultsDir::create(&out, &manifest)?;
//! let points = [0.1, 0.2];
//! let journal = dir.journal("qos", points.len())?;
//! let bar = Progress::hidden().experiment("qos", points.len());
//! let run = Run { journal: &journal, bar: &bar, interrupt: &Interrupt::new(), threads: 2, replications: 10 };
//! let rows = run_points(&points, run, |task| {
//!     // One random stream per (seed, experiment, task.index, replication, component).
//!     let mistakes = task.replications.clone().map(|replication| replication % 3).sum();
//!     Ok(Row { deadline_s: *task.point, mistakes })
//! })?;
//! dir.write_csv("qos", &Table::from_rows(&rows)?)?;
//! assert_eq!(rows[1].mistakes, 9);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::interrupt::Interrupt;
use crate::progress::Bar;
use crate::results::{Journal, ResultsError};
use rayon::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::error::Error;
use std::ops::Range;

/// Most threads of a run: a slip asks for more.
pub const MOST_THREADS: usize = 1024;

/// More threads than [`MOST_THREADS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there may be at most {MOST_THREADS} threads, not {0}")]
pub struct TooManyThreads(usize);

/// Whether a run may have so many threads; 0 stands for one per processor.
///
/// # Errors
/// Too many.
pub fn check_threads(threads: usize) -> Result<(), TooManyThreads> {
    if threads > MOST_THREADS { Err(TooManyThreads(threads)) } else { Ok(()) }
}

/// What a run of points needs besides the points.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Where finished points are kept.
    pub journal: &'a Journal,
    /// Where progress is shown.
    pub bar: &'a Bar,
    /// Looked at before each point.
    pub interrupt: &'a Interrupt,
    /// Number of threads, see [`check_threads`]. Never changes the results.
    pub threads: usize,
    /// Replications of each point.
    pub replications: u64,
}

/// One point to compute.
#[derive(Clone, Debug)]
pub struct Task<'a, P> {
    /// Its index among the points: a part of its random streams.
    pub index: usize,
    /// The point.
    pub point: &'a P,
    /// The replications to run.
    pub replications: Range<u64>,
    interrupt: &'a Interrupt,
}

/// What a point's computation may fail with.
pub type TaskError = Box<dyn Error + Send + Sync>;

/// Why a run of points didn't come to its end. What was finished is in the journal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Somebody asked to stop.
    #[error("stopped after {finished} of {points} points; continue with --resume")]
    Interrupted {
        /// Points in the journal.
        finished: usize,
        /// Points of the experiment.
        points: usize,
    },
    /// A point failed.
    #[error("point {index} failed: {source}")]
    Point {
        /// The point's index.
        index: usize,
        /// Why.
        source: TaskError,
    },
    /// A row can't be kept: a NaN or infinite number in a field that is not optional, or a type that JSON can't hold.
    #[error("the row of point {index} can't be kept in the journal: {source}")]
    Row {
        /// The point's index.
        index: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// The journal can't be written.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// The threads can't be started.
    #[error(transparent)]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// A point gave up because [`Task::check`] told it that the run stops.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Stopped;

impl<P> Task<'_, P> {
    /// For long points, between replications: an error to return at once (with `?`) when the run is to stop.
    ///
    /// # Errors
    /// [`Stopped`], which the runner takes as an interruption, not as a failure of the point.
    pub fn check(&self) -> Result<(), Stopped> {
        if self.interrupt.requested() { Err(Stopped) } else { Ok(()) }
    }
}

/// Computes all points that are not yet in the journal; gives all rows in point order.
///
/// `compute` must depend on nothing but its task and captured constants; it may itself use rayon, and shares this
/// run's threads then. Every row is made from its JSON text, freshly computed or not, so a resumed run gives the same
/// bytes as an uninterrupted one.
///
/// # Errors
/// The first of: threads that can't be started, an interruption, a failed point, a journal that can't be written. Points under way are finished and
/// kept before it returns.
///
/// # Panics
/// When the journal was opened for another number of points.
pub fn run_points<P, R, F>(points: &[P], run: Run<'_>, compute: F) -> Result<Vec<R>, RunError>
where
    P: Sync,
    R: Serialize + DeserializeOwned + Send,
    F: Fn(Task<'_, P>) -> Result<R, TaskError> + Sync,
{
    assert_eq!(points.len(), run.journal.points(), "a journal of another number of points");
    let missing: Vec<usize> = (0..points.len()).filter(|index| run.journal.row(*index).is_none()).collect();
    run.bar.resumed(points.len() - missing.len());
    let one = |index: usize| {
        if run.interrupt.requested() {
            return Err(interrupted(run.journal));
        }
        let replications = 0..run.replications;
        let task = Task { index, point: &points[index], replications, interrupt: run.interrupt };
        let row = compute(task).map_err(|source| match source.downcast::<Stopped>() {
            Ok(_) => interrupted(run.journal),
            Err(source) => RunError::Point { index, source },
        })?;
        let text = serde_json::to_string(&row).map_err(|source| RunError::Row { index, source })?;
        // Refuse now what could not be read back at a resumption.
        serde_json::from_str::<R>(&text).map_err(|source| RunError::Row { index, source })?;
        run.journal.append(index, text)?;
        run.bar.point_finished();
        Ok(())
    };
    let threads = rayon::ThreadPoolBuilder::new().num_threads(run.threads).build()?;
    let result = threads.install(|| missing.into_par_iter().with_max_len(1).try_for_each(one));
    run.bar.finish();
    run.journal.sync()?;
    result?;
    let read = |index| {
        let text = run.journal.row(index).expect("every point is finished");
        serde_json::from_str(&text).map_err(|source| RunError::Row { index, source })
    };
    (0..points.len()).map(read).collect()
}

fn interrupted(journal: &Journal) -> RunError {
    RunError::Interrupted { finished: journal.finished(), points: journal.points() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Row {
        x: f64,
        rare: Option<f64>,
    }

    fn journal(place: &tempfile::TempDir) -> Journal {
        Journal::open(&place.path().join("e.jsonl"), "e", "", 1, 40).unwrap()
    }

    /// Sums that need the last digit of every float.
    fn compute(task: Task<'_, u64>) -> Result<Row, TaskError> {
        let x = task.replications.map(|r| 1.0 / (1.0 + (task.point * 31 + r) as f64)).sum();
        Ok(Row { x, rare: task.index.is_multiple_of(2).then_some(0.1 + 0.2) })
    }

    fn run<'a>(journal: &'a Journal, bar: &'a Bar, interrupt: &'a Interrupt, threads: usize) -> Run<'a> {
        Run { journal, bar, interrupt, threads, replications: 5 }
    }

    #[test]
    fn same_rows_for_any_threads_and_any_interruption() {
        let points: Vec<u64> = (0..40).collect();
        let bar = Bar::hidden();
        let whole = |threads| {
            let place = tempfile::tempdir().unwrap();
            run_points(&points, run(&journal(&place), &bar, &Interrupt::new(), threads), compute).unwrap()
        };
        let expected = whole(1);
        let interrupt = Interrupt::new();
        for (index, row) in expected.iter().enumerate() {
            let task = Task { index, point: &points[index], replications: 0..5, interrupt: &interrupt };
            assert_eq!(*row, compute(task).unwrap(), "rows are in point order");
        }
        assert_eq!(expected, whole(4));

        let place = tempfile::tempdir().unwrap();
        let (computed, mut interruptions) = (AtomicUsize::new(0), 0);
        let rows = loop {
            let (journal, interrupt) = (journal(&place), Interrupt::new());
            let found = run_points(&points, run(&journal, &bar, &interrupt, 3), |task| {
                task.check()?;
                if computed.fetch_add(1, Ordering::SeqCst) % 7 == 6 {
                    interrupt.request();
                }
                compute(task)
            });
            match found {
                Ok(rows) => break rows,
                Err(RunError::Interrupted { .. }) => interruptions += 1,
                Err(other) => panic!("{other}"),
            }
        };
        assert_eq!(rows, expected);
        assert!(interruptions >= 2);
        assert_eq!(computed.into_inner(), 40, "no point is computed twice");
    }

    #[test]
    fn failures_name_their_point() {
        let (bar, interrupt) = (Bar::hidden(), Interrupt::new());
        let points: Vec<u64> = (0..40).collect();
        let place = tempfile::tempdir().unwrap();
        let fail = |task: Task<'_, u64>| if task.index == 17 { Err("no such node".into()) } else { compute(task) };
        let error = run_points(&points, run(&journal(&place), &bar, &interrupt, 2), fail).unwrap_err();
        assert_eq!(error.to_string(), "point 17 failed: no such node");
        let nan = |task: Task<'_, u64>| compute(task).map(|row| Row { x: f64::NAN, ..row });
        let place = tempfile::tempdir().unwrap();
        let error = run_points(&points, run(&journal(&place), &bar, &interrupt, 1), nan).unwrap_err();
        assert!(matches!(error, RunError::Row { .. }), "{error}");
    }
}
