//! Recorded arrivals and delays, read line by line: a recording of any length takes the memory of a line.
//!
//! A trace is a CSV file with a line for each arrival: its time in nanoseconds since any origin, or a sequence number and
//! the time. With a head line the columns are found by their names (`arrival…`; `sequence…` or `number…`), and others may
//! be there. Times never decrease. A heartbeat whose number is not above every earlier one is stale and counts for nothing.
//!
//! A last line without a line end is torn: nobody can tell what is missing of its number.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use backdoor_core::Nanos;
use backdoor_core::detector::{Heartbeat, Newest};
use backdoor_sim::qos::delay::{Delay, MOST_RECORDED, Recorded};
use backdoor_sim::qos::replay::{Replay, ReplayConfig};

use super::report::Report;
use crate::interrupt::Interrupt;
use crate::plain;

/// No line of a trace is longer.
const LONGEST_LINE: u64 = 4096;
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

struct Lines<'p> {
    path: &'p Path,
    reader: BufReader<File>,
    line: String,
    number: u64,
    columns: Columns,
    /// Places of the optional and of the required column, once known.
    places: Option<(Option<usize>, usize)>,
    torn: bool,
}

impl<'p> Lines<'p> {
    fn open(path: &'p Path, columns: Columns) -> Result<Self, TraceError> {
        let io = |error: std::io::Error| TraceError::Io { path: path.into(), reason: plain(&error) };
        let file = File::open(path).map_err(io)?;
        if file.metadata().map_err(io)?.is_dir() {
            return Err(TraceError::Io { path: path.into(), reason: "it is a directory".into() });
        }
        let reader = BufReader::with_capacity(1 << 16, file);
        Ok(Lines { path, reader, line: String::new(), number: 0, columns, places: None, torn: false })
    }

    fn wrong(&self, reason: impl std::fmt::Display) -> TraceError {
        TraceError::Content { path: self.path.into(), reason: format!("line {}: {reason}", self.number) }
    }

    /// The next line's optional and required number; `None` at the end, also at a torn last line.
    fn next(&mut self) -> Result<Option<(Option<u64>, u64)>, TraceError> {
        loop {
            self.line.clear();
            self.number += 1;
            let mut bytes = std::mem::take(&mut self.line).into_bytes();
            let read = (&mut self.reader).take(LONGEST_LINE).read_until(b'\n', &mut bytes);
            read.map_err(|error| TraceError::Io { path: self.path.into(), reason: plain(&error) })?;
            self.line = String::from_utf8(bytes).map_err(|_| self.wrong("is no text"))?;
            if self.line.is_empty() {
                return Ok(None);
            }
            if !self.line.ends_with('\n') {
                if self.line.len() as u64 == LONGEST_LINE {
                    return Err(self.wrong(format_args!("is longer than {LONGEST_LINE} bytes")));
                }
                self.torn = true;
                return Ok(None);
            }
            let line = self.line.trim_end().trim_start_matches('\u{feff}');
            if line.is_empty() {
                continue;
            }
            let Some((optional, required)) = self.places else {
                if self.number == 1 && line.split(',').any(|cell| cell.trim().parse::<u64>().is_err()) && named(line) {
                    self.places = Some(self.places_by_name(line)?);
                    continue;
                }
                self.places = Some(self.places_by_count(line)?);
                return self.numbers(self.places.unwrap_or((None, 0))).map(Some);
            };
            return self.numbers((optional, required)).map(Some);
        }
    }

    fn numbers(&self, (optional, required): (Option<usize>, usize)) -> Result<(Option<u64>, u64), TraceError> {
        let line = self.line.trim_end().trim_start_matches('\u{feff}');
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

    /// What is to be said at the end.
    fn finish(&self, allow_torn: bool) -> Result<Option<String>, TraceError> {
        if !self.torn {
            return Ok(None);
        }
        let text = format!("line {} has no line end and may be torn", self.number);
        if allow_torn {
            return Ok(Some(format!("{text}; it was left out")));
        }
        Err(TraceError::Content { path: self.path.into(), reason: format!("{text}; --allow-torn uses the rest") })
    }
}

/// Whether a first line holds names: some cell begins with a letter.
fn named(line: &str) -> bool {
    line.split(',').any(|cell| cell.trim().trim_matches('"').starts_with(char::is_alphabetic))
}

/// Reads a trace through a detector.
///
/// # Errors
/// See [`TraceError`].
pub fn replay(
    path: &Path,
    allow_torn: bool,
    config: &ReplayConfig,
    interrupt: &Interrupt,
) -> Result<Report, TraceError> {
    let mut lines = Lines::open(path, ARRIVALS)?;
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
    let mut notes: Vec<String> = lines.finish(allow_torn)?.into_iter().collect();
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
    let mut lines = Lines::open(path, DELAYS)?;
    let mut delays = Vec::new();
    while let Some((_, delay)) = lines.next()? {
        if delays.len() == MOST_RECORDED {
            return Err(lines.wrong(format_args!("more than {MOST_RECORDED} delays are too many to draw from")));
        }
        delays.push(Nanos(delay));
    }
    let note = lines.finish(allow_torn)?;
    let none = || TraceError::Content { path: path.into(), reason: "there are no delays in it".into() };
    Ok((Delay::Recorded(Recorded::new(delays).ok_or_else(none)?), note))
}
