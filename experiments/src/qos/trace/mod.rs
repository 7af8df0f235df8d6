//! Recorded arrivals and delays, read line by line: a recording of any length takes the memory of a line.
//!
//! A trace is a CSV file with a line for each arrival: its time in nanoseconds since any origin, or a sequence number and
//! the time. With a head line the columns are found by their names (`arrival…`; `sequence…` or `number…`), and others may
//! be there. Times never decrease. A heartbeat whose number is not above every earlier one is stale and counts for nothing.
//!
//! What `backdoor live record` writes is another kind of trace, with the progress of several entities: see [`progress`].
//!
//! A last line without a line end is torn: nobody can tell what is missing of its number.

mod lines;
pub mod progress;

use std::path::{Path, PathBuf};

use backdoor_core::Nanos;
use backdoor_core::detector::{Heartbeat, Newest};
use backdoor_sim::qos::delay::{Delay, MOST_RECORDED, Recorded};
use backdoor_sim::qos::replay::{Replay, ReplayConfig};

use super::report::Report;
use crate::interrupt::Interrupt;
use lines::Lines;

/// Lines between two looks at whether to stop.
const PATIENCE: u64 = 1 << 16;

/// Why a recording can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file can't be read.
    #[error("cannot read {}: {reason}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
    /// Something in it is not as it must be.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// One sentence.
        reason: String,
    },
    /// Somebody asked to stop.
    #[error("stopped before the end of the trace")]
    Interrupted,
}

/// Which columns are asked for; the first may be absent.
struct Columns {
    optional: &'static [&'static str],
    required: &'static [&'static str],
    what: &'static str,
}

const ARRIVALS: Columns = Columns { optional: &["seq", "number"], required: &["arrival"], what: "arrival" };
const DELAYS: Columns = Columns { optional: &[], required: &["delay"], what: "delay" };

/// The numbers in the lines of a file.
struct Numbers<'p> {
    lines: Lines<'p>,
    columns: Columns,
    /// Places of the optional and of the required column, once known.
    places: Option<(Option<usize>, usize)>,
}

impl<'p> Numbers<'p> {
    fn of(lines: Lines<'p>, columns: Columns) -> Self {
        Numbers { lines, columns, places: None }
    }

    fn wrong(&self, reason: impl std::fmt::Display) -> TraceError {
        self.lines.wrong(reason)
    }

    /// The next line's optional and required number; `None` at the end, also at a torn last line.
    fn next(&mut self) -> Result<Option<(Option<u64>, u64)>, TraceError> {
        loop {
            let Some(line) = self.lines.next()? else { return Ok(None) };
            let places = match self.places {
                Some(places) => places,
                None => {
                    let cells = line.split(',').any(|cell| cell.trim().parse::<u64>().is_err());
                    if self.lines.number == 1 && cells && named(&line) {
                        self.places = Some(self.places_by_name(&line)?);
                        continue;
                    }
                    *self.places.insert(self.places_by_count(&line)?)
                }
            };
            return self.numbers(&line, places).map(Some);
        }
    }

    fn numbers(
        &self,
        line: &str,
        (optional, required): (Option<usize>, usize),
    ) -> Result<(Option<u64>, u64), TraceError> {
        let cell = |place: usize| {
            let text = line.split(',').nth(place).ok_or_else(|| self.wrong("has too few columns"))?.trim();
            text.parse().map_err(|_| {
                let excerpt: String = text.chars().take(40).collect();
                self.wrong(format_args!("'{excerpt}' is no whole number of nanoseconds, nor a sequence number"))
            })
        };
        Ok((optional.map(cell).transpose()?, cell(required)?))
    }

    fn places_by_name(&self, line: &str) -> Result<(Option<usize>, usize), TraceError> {
        let place = |names: &[&str]| {
            line.split(',').position(|cell| {
                let cell = cell.trim().trim_matches('"').to_lowercase();
                names.iter().any(|name| cell.starts_with(name))
            })
        };
        match place(self.columns.required) {
            Some(required) => Ok((place(self.columns.optional), required)),
            None => Err(self.wrong(format_args!("names no column '{}'", self.columns.what))),
        }
    }

    fn places_by_count(&self, line: &str) -> Result<(Option<usize>, usize), TraceError> {
        match (line.split(',').count(), self.columns.optional.is_empty()) {
            (1, _) => Ok((None, 0)),
            (2, false) => Ok((Some(0), 1)),
            (count, _) => Err(self.wrong(format_args!(
                "has {count} columns and no names above them; name the one with the {}s '{0}'",
                self.columns.what
            ))),
        }
    }
}

/// Whether a first line holds names: some cell begins with a letter.
fn named(line: &str) -> bool {
    line.split(',').any(|cell| cell.trim().trim_matches('"').starts_with(char::is_alphabetic))
}

/// Reads a trace of either kind through a detector; `entity` is for those with several entities.
///
/// # Errors
/// See [`TraceError`].
pub fn replay(
    path: &Path,
    allow_torn: bool,
    entity: Option<&str>,
    config: &ReplayConfig,
    interrupt: &Interrupt,
) -> Result<Report, TraceError> {
    let mut file = Lines::open(path)?;
    if file.peek()?.is_some_and(progress::is_head) {
        return progress::replay(path, allow_torn, entity, config, interrupt);
    }
    if entity.is_some() {
        let reason = "names no entities; --entity is for traces recorded by 'backdoor live record'";
        return Err(TraceError::Content { path: path.into(), reason: reason.into() });
    }
    let mut lines = Numbers::of(file, ARRIVALS);
    let mut replay: Option<Replay> = None;
    let (mut newest, mut stale, mut last) = (Newest::default(), 0u64, Nanos::ZERO);
    let mut count = 0;
    let mut numbered = false;
    while let Some((number, at)) = lines.next()? {
        let at = Nanos(at);
        if at < last {
            return Err(
                lines.wrong(format_args!("the arrival at {} ns is before the one above it, at {} ns", at.0, last.0))
            );
        }
        last = at;
        numbered = number.is_some();
        let heartbeat = Heartbeat { number: number.unwrap_or(count), at };
        count += 1;
        if !newest.is_news(heartbeat.number) {
            stale += 1;
            continue;
        }
        match &mut replay {
            None => replay = Some(Replay::new(config, heartbeat)),
            Some(replay) => replay.arrival(heartbeat),
        }
        if count % PATIENCE == 0 && interrupt.requested() {
            return Err(TraceError::Interrupted);
        }
    }
    let mut notes: Vec<String> = lines.lines.finish(allow_torn)?.into_iter().collect();
    let content = |reason: String| TraceError::Content { path: path.into(), reason };
    let Some(replay) = replay else { return Err(content("there are no arrivals in it".into())) };
    let Some(measures) = replay.measures() else {
        return Err(content(format!(
            "{count} arrivals are too few: the first {} fill the detector's window and are not measured",
            replay.warm_up()
        )));
    };
    if stale > 0 {
        notes.push(format!("{stale} heartbeats were overtaken by later ones and left out"));
    }
    if !numbered {
        notes.push("without sequence numbers, each arrival counts as the next heartbeat, and none as lost".into());
    }
    let method = format!(
        "{count} recorded arrivals, the first {} not measured; intervals by batch means; detection times of crashes at \
         any instant, what was under way then taken for lost",
        replay.warm_up()
    );
    Ok(Report { measures, form: None, method, notes })
}

/// Reads recorded delays, in nanoseconds, to draw from; and what is to be said of them.
///
/// # Errors
/// See [`TraceError`].
pub fn delays(path: &Path, allow_torn: bool) -> Result<(Delay, Option<String>), TraceError> {
    let mut lines = Numbers::of(Lines::open(path)?, DELAYS);
    let mut delays = Vec::new();
    while let Some((_, delay)) = lines.next()? {
        if delays.len() == MOST_RECORDED {
            return Err(lines.wrong(format_args!("more than {MOST_RECORDED} delays are too many to draw from")));
        }
        delays.push(Nanos(delay));
    }
    let note = lines.lines.finish(allow_torn)?;
    let none = || TraceError::Content { path: path.into(), reason: "there are no delays in it".into() };
    Ok((Delay::Recorded(Recorded::new(delays).ok_or_else(none)?), note))
}
