//! Settings to compare, run on all processors, once more where chance may have been at work.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use backdoor_sim::streams::{StreamKey, Streams};

use crate::table::{Comparison, REPLICATIONS, REPLICATIONS_AGAIN, Section};

/// Which random numbers, and how many replications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    First,
    /// Other numbers, and more of them.
    Again,
}

impl Round {
    pub(crate) fn replications(self) -> u64 {
        match self {
            Round::First => REPLICATIONS,
            Round::Again => REPLICATIONS_AGAIN,
        }
    }

    /// The streams of each replication.
    pub(crate) fn streams(self, point: &str) -> impl Iterator<Item = Streams> {
        let experiment = match self {
            Round::First => "validation",
            Round::Again => "validation again",
        };
        (0..self.replications())
            .map(move |replication| Streams::new(StreamKey { seed: 1, experiment, point, replication }))
    }
}

type Run = dyn Fn(&str, Round) -> Vec<Comparison> + Send + Sync;

/// One setting: all its comparisons come from one run.
pub(crate) struct Case {
    name: String,
    run: Box<Run>,
}

impl Case {
    pub(crate) fn new(name: String, run: impl Fn(&str, Round) -> Vec<Comparison> + Send + Sync + 'static) -> Self {
        Case { name, run: Box::new(run) }
    }

    /// The comparisons; and those of a second round, if one was beyond its bound.
    fn compare(&self) -> (Vec<Comparison>, Vec<Comparison>) {
        let rows = (self.run)(&self.name, Round::First);
        let beyond = |row: &Comparison| row.errors().is_some() && !row.holds();
        let again = if rows.iter().any(beyond) { (self.run)(&self.name, Round::Again) } else { Vec::new() };
        let named = |row: Comparison| Comparison { setting: format!("again: {}", row.setting), ..row };
        (rows, again.into_iter().map(named).collect())
    }
}

/// Runs the cases of all sections. The number of processors changes nothing.
pub(crate) fn run(sections: Vec<(&'static str, Vec<Case>)>) -> Vec<Section> {
    let cases: Vec<&Case> = sections.iter().flat_map(|(_, cases)| cases).collect();
    let (next, done) = (AtomicUsize::new(0), Mutex::new(vec![None; cases.len()]));
    let work = || {
        while let Some((place, case)) = Some(next.fetch_add(1, Ordering::SeqCst)).and_then(|i| Some((i, cases.get(i)?)))
        {
            let rows = case.compare();
            done.lock().expect("no other thread panicked")[place] = Some(rows);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let mut done = done.into_inner().expect("no thread panicked").into_iter().map(|rows| rows.expect("every case ran"));
    let mut section = |(title, cases): (&'static str, Vec<Case>)| {
        let (rows, again): (Vec<_>, Vec<_>) = done.by_ref().take(cases.len()).unzip();
        Section { title, rows: rows.concat(), again: again.concat() }
    };
    sections.into_iter().map(&mut section).collect()
}
