//! Replications until an estimate is precise enough.
//!
//! ```toml
//! replications = 20            # first so many
//!
//! [precision]
//! of = "detection_ms"          # a column with an interval
//! relative = 0.1               # no further from its bounds than a tenth of its value
//! cap = 640                    # replications after which to stop, reached or not
//! level = "os"                 # of these rows only; left out: of all rows of a point
//! deadline = "20ms"
//! ```
//!
//! A point runs its first replications, and is looked at; as long as some row that is asked for is not precise enough, it
//! runs as many again, up to the cap. What is not there (nothing was detected) or zero has no relative precision, and the
//! point goes on to the cap. Every point decides for itself, on its own replications in their order: the number of
//! threads, and an interruption, change nothing. The column `precision_reached` says of each row that was asked for what
//! came of it.
//!
//! # What stopping by the data does to the intervals
//! Who stops as soon as an interval is short stops too often where it is short by chance. For ever smaller targets that
//! vanishes (Chow and Robbins, *On the asymptotic theory of fixed-width sequential confidence intervals*, Annals of
//! Mathematical Statistics 36, 1965); for real ones, the remedy is to look seldom, and not before there is a variance to
//! speak of (Law and Kelton, *Simulation Modeling and Analysis*, 2000, section 9.4.1, who advise against fewer than ten
//! replications). Batches double here, so that a point is looked at no more than log₂(cap / first) + 2 times, and the first
//! has [ten](LEAST) at least. A test holds what is left of the bias against a known mean.

use serde::Deserialize;

use super::limits::{self, Complaint};
use super::{Full, Profile, replicate};
use crate::config::{ConfigError, Span};
use crate::runner::{Task, TaskError};
use crate::stats::Estimate;
use backdoor_core::progress_box::FailureLevel;
use backdoor_sim::streams::Streams;

/// Fewest replications to judge precision by.
const LEAST: u64 = 10;

/// What is asked for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Precision {
    of: String,
    relative: f64,
    cap: u64,
    level: Option<String>,
    deadline: Option<Span>,
}

/// A row with estimates, of which one may be asked to be precise.
pub(super) trait Judged {
    /// The columns with intervals.
    const ESTIMATES: &'static [&'static str];
    /// One of them.
    fn estimate(&self, column: &str) -> Option<Estimate>;
    /// Level and deadline in milliseconds, of rows that have them.
    fn place(&self) -> Option<(&str, f64)>;
    /// Notes whether it is precise enough: `true`, `false`, or nothing if nobody asked.
    fn note(&mut self, reached: String);
}

impl Precision {
    /// Refuses what can't be. It stands in `table` and begins with `first` replications, which are set at a key of their own;
    /// it can be of `columns`; rows have `deadlines` and levels, or neither.
    fn check(
        &self,
        table: &str,
        (first_key, first): (&str, u64),
        columns: &[&[&str]],
        deadlines: Option<&[Span]>,
        invalid: &Complaint<'_>,
    ) -> Result<(), ConfigError> {
        let wrong = |key: &str, message: String| Err(invalid(&format!("{table}.{key}"), message));
        if !(self.relative > 0.0 && self.relative < 1.0) {
            return wrong(
                "relative",
                format!("must be a fraction between 0 and 1, such as 0.1, not {}", self.relative),
            );
        }
        if !columns.iter().any(|columns| columns.contains(&self.of.as_str())) {
            return wrong("of", format!("must be a column with an interval: {}", columns.concat().join(", ")));
        }
        limits::replications(&format!("{table}.cap"), self.cap, deadlines.map_or(1, <[Span]>::len), invalid)?;
        if first < LEAST {
            let message = format!("must be at least {LEAST} where a precision is asked for, not {first}");
            return Err(invalid(first_key, message));
        }
        if self.cap < first {
            return wrong("cap", format!("must be at least the first {first} replications, not {}", self.cap));
        }
        match (&self.level, self.deadline, deadlines) {
            (Some(_), _, None) => wrong("level", "this kind of study has no rows by level".into()),
            (_, Some(_), None) => wrong("deadline", "this kind of study has no rows by deadline".into()),
            (Some(level), ..) if !is_level(level) => wrong("level", "must be os, application, session or all".into()),
            (_, Some(deadline), Some(all)) if !all.contains(&deadline) => {
                wrong("deadline", "must be one of the deadlines".into())
            }
            _ => Ok(()),
        }
    }

    /// Whether this row is asked to be precise.
    fn concerns<R: Judged>(&self, row: &R) -> bool {
        R::ESTIMATES.contains(&self.of.as_str())
            && row.place().is_none_or(|(level, deadline_ms)| {
                self.level.as_ref().is_none_or(|asked| asked == level)
                    && self.deadline.is_none_or(|asked| asked.0.as_millis_f64() == deadline_ms)
            })
    }

    /// Whether every row that is asked for is precise enough; each notes it.
    pub(super) fn judge<R: Judged>(&self, rows: &mut [R]) -> bool {
        let mut all = true;
        for row in rows.iter_mut().filter(|row| self.concerns(&**row)) {
            let reached = row.estimate(&self.of).is_some_and(|estimate| self.is_precise(estimate));
            row.note(reached.to_string());
            all &= reached;
        }
        all
    }

    fn is_precise(&self, estimate: Estimate) -> bool {
        let Estimate { value, low: Some(low), high: Some(high) } = estimate else { return false };
        f64::max(high - value, value - low) <= self.relative * value.abs() && value != 0.0
    }
}

fn is_level(name: &str) -> bool {
    name == super::detection::ALL_LEVELS || FailureLevel::ALL.iter().any(|level| level.name() == name)
}

/// Refuses what can't be under a profile.
pub(super) fn check(
    quick: &Option<Precision>,
    full: Option<&Full>,
    profile: Profile,
    replications: u64,
    columns: &[&[&str]],
    deadlines: Option<&[Span]>,
    invalid: &Complaint<'_>,
) -> Result<(), ConfigError> {
    let Some(precision) = of_profile(quick, full, profile) else { return Ok(()) };
    let full = full.filter(|_| profile == Profile::Full);
    let table = if full.is_some_and(|full| full.precision.is_some()) { "full.precision" } else { "precision" };
    let of_full = full.is_some_and(|full| full.replications.is_some());
    let key = if of_full { "full.replications" } else { "replications" };
    let first = (key, Full::replications(full, profile, replications));
    precision.check(table, first, columns, deadlines, invalid)
}

/// What holds under a profile: its own, or the quick one's.
pub(super) fn of_profile<'a>(
    quick: &'a Option<Precision>,
    full: Option<&'a Full>,
    profile: Profile,
) -> Option<&'a Precision> {
    let own = full.filter(|_| profile == Profile::Full).and_then(|full| full.precision.as_ref());
    own.or(quick.as_ref())
}

/// Runs the replications of a point and makes its rows: once, or until `judge` says that they are precise enough.
pub(super) fn sample<P: Sync, T: Send, R>(
    task: &Task<'_, P>,
    key: (u64, &str, &str),
    precision: Option<&Precision>,
    run: impl Fn(&Streams) -> Result<T, TaskError> + Sync,
    rows: impl Fn(&[T]) -> R,
    judge: impl Fn(&Precision, &mut R) -> bool,
) -> Result<R, TaskError> {
    let mut results = replicate(task, key, task.replications.clone(), &run)?;
    loop {
        let mut rows = rows(&results);
        let done = results.len() as u64;
        match precision {
            Some(precision) if !judge(precision, &mut rows) && done < precision.cap => {
                let more = done..precision.cap.min(2 * done);
                results.extend(replicate(task, key, more, &run)?);
            }
            _ => return Ok(rows),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats;
    use backdoor_sim::streams::StreamKey;
    use rand::RngExt;

    struct Made {
        x: Option<Estimate>,
        level: &'static str,
        noted: String,
    }

    impl Judged for Made {
        const ESTIMATES: &'static [&'static str] = &["x"];
        fn estimate(&self, _: &str) -> Option<Estimate> {
            self.x
        }
        fn place(&self) -> Option<(&str, f64)> {
            Some((self.level, 20.0))
        }
        fn note(&mut self, reached: String) {
            self.noted = reached;
        }
    }

    fn precision(relative: f64, level: Option<&str>) -> Precision {
        Precision { of: "x".into(), relative, cap: 100, level: level.map(String::from), deadline: None }
    }

    #[test]
    fn only_what_is_asked_for_is_judged_and_nothing_is_never_precise() {
        let row = |level, x| Made { x, level, noted: String::new() };
        let between = |value: f64, low, high| Some(Estimate { value, low: Some(low), high: Some(high) });
        let mut rows = [
            row("os", between(10.0, 9.0, 11.0)),
            row("os", between(-10.0, -11.0, -9.5)),
            row("session", between(10.0, 9.0, 11.1)),
            row("session", between(0.0, 0.0, 0.0)),
            row("session", Some(Estimate::exact(10.0))),
            row("session", None),
        ];
        assert!(precision(0.1, Some("os")).judge(&mut rows));
        assert_eq!(rows.each_ref().map(|row| row.noted.as_str()), ["true", "true", "", "", "", ""]);
        assert!(!precision(0.1, None).judge(&mut rows));
        assert_eq!(rows.each_ref().map(|row| row.noted.as_str()), ["true", "true", "false", "false", "false", "false"]);
    }

    /// Means of exponential values, whose variance is found small where the mean is: the intervals at which the rule stops
    /// should still hold the true mean about 95 times in a hundred.
    #[test]
    fn intervals_still_cover_when_their_length_decides() {
        let studies = 1000;
        for relative in [0.5, 0.2, 0.1] {
            let asked = precision(relative, None);
            let one = |study: u64| {
                let key = StreamKey { seed: 1, experiment: "stop", point: "", replication: study };
                let mut rng = Streams::new(key).stream("values");
                let mut values: Vec<f64> = Vec::new();
                loop {
                    let until = if values.is_empty() { LEAST as usize } else { 2 * values.len() };
                    values.extend((values.len()..until).map(|_| -(1.0 - rng.random::<f64>()).ln()));
                    let mean = stats::mean(&values).unwrap();
                    if asked.is_precise(mean) {
                        return (mean.low.unwrap() <= 1.0 && mean.high.unwrap() >= 1.0, values.len());
                    }
                }
            };
            let outcomes: Vec<(bool, usize)> = (0..studies).map(one).collect();
            let covered = outcomes.iter().filter(|(covered, _)| *covered).count() as f64 / studies as f64;
            assert!(covered > 0.91, "{relative}: {covered}");
            assert!(outcomes.iter().any(|(_, values)| *values > LEAST as usize), "{relative}: nobody had to go on");
        }
    }
}
