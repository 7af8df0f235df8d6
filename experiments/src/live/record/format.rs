//! The format of a recorded trace: one place that writes a line and reads one.
//!
//! A trace is a CSV file with a head line and a line for each progress that a monitor observed, in the order in which it
//! observed them; of one sample, in the order of slots. Each line tells all about itself:
//!
//! | column | |
//! |---|---|
//! | `watch` | number of the stretch of time in which one entity was watched: they are numbered as they begin, and a name that comes again (a service that was restarted, a monitor that attached anew) begins another |
//! | `entity`, `level`, `deadline_ns` | what the directory of the node says of it |
//! | `seen_ns` | when the monitor had taken the sample in: monotonic clock of the monitor's machine |
//! | `unmoved_ns` | earliest moment of the sample before, which found the word as it was |
//! | `earliest_ns`, `latest_ns` | earliest and latest moment at which the sample can have been taken |
//! | `state` | what the entity says of itself: `active`, `idle` (silence is expected), `departed`, `free` (the slot is nobody's) |
//! | `count` | its progress so far |
//!
//! The first line of a watch is where it begins, and no progress: detectors start there, at `latest_ns`.
//!
//! # Which evidence a detector had
//! `unmoved_ns`, `earliest_ns` and `latest_ns` are *evidence time* ([`backdoor_core::monitor`]): it begins with the
//! recording, advances while the monitor demonstrably watched, and a gap between samples that is too long to be evidence
//! counts as one poll interval. (`seen_ns` goes on in a gap.) A monitor takes progress for made at `latest_ns`, and had
//! suspected the entity before if its detector's freshness point was before `unmoved_ns`. So a deadline *d* erred at a
//! line if `unmoved_ns` − (`latest_ns` of the watch's line before) > *d* and that line's state was `active`. With pandas:
//!
//! ```text
//! t = pd.read_csv("trace.csv")
//! before = t.groupby("watch").shift()
//! silence_ns = (t.unmoved_ns - before.latest_ns).where(before.state == "active")
//! mistakes = (silence_ns > 20e6).groupby(t.entity).sum()           # of a deadline of 20 ms
//! ```
//!
//! Not in it: the work that waits for entities that say they are idle. A monitor of a node that counts it may suspect one
//! of those; a replay takes it for idle.
//!
//! `earliest_ns` never decreases from line to line, nor `latest_ns` within a watch. A last line without a line end is
//! torn, by whatever ended the recorder. How the trace came about stands in a file beside it, see
//! [`About`](super::about::About).

use backdoor_core::Nanos;
use backdoor_core::progress_box::{EntityState, FailureLevel};
use std::borrow::Cow;
use std::io::Write;

/// The columns, in the order in which they are written.
pub const COLUMNS: [&str; 10] =
    ["watch", "entity", "level", "deadline_ns", "seen_ns", "unmoved_ns", "earliest_ns", "latest_ns", "state", "count"];

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which watch.
    pub watch: u64,
    /// The entity's name.
    pub entity: String,
    /// Its failure level.
    pub level: FailureLevel,
    /// Its deadline.
    pub deadline: Nanos,
    /// When the sample was taken in.
    pub seen: Nanos,
    /// Earliest moment of the sample before.
    pub unmoved: Nanos,
    /// Earliest moment of the sample.
    pub earliest: Nanos,
    /// Latest moment of the sample.
    pub latest: Nanos,
    /// What the entity says of itself.
    pub state: EntityState,
    /// Its progress so far.
    pub count: u64,
}

/// The head line, with its end.
pub fn head() -> String {
    format!("{}\n", COLUMNS.join(","))
}

impl Row {
    /// Appends its line, with its end.
    pub fn write(&self, to: &mut Vec<u8>) {
        let Row { watch, level, deadline, seen, unmoved, earliest, latest, state, count, .. } = self;
        // Writing to a Vec can't fail.
        let _ = write!(to, "{watch},");
        if self.entity.contains(['"', ',']) {
            let _ = write!(to, "\"{}\"", self.entity.replace('"', "\"\""));
        } else {
            to.extend_from_slice(self.entity.as_bytes());
        }
        let _ = writeln!(
            to,
            ",{level},{},{},{},{},{},{},{count}",
            deadline.0,
            seen.0,
            unmoved.0,
            earliest.0,
            latest.0,
            state_name(*state)
        );
    }
}

/// Where the columns are in a file's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places([usize; COLUMNS.len()]);

impl Places {
    /// By the head line; `None` if that is not of a recorded trace. Other columns may be there, in any order.
    pub fn find(head: &str) -> Option<Self> {
        let names = cells(head)?;
        let mut places = [0; COLUMNS.len()];
        for (place, column) in places.iter_mut().zip(COLUMNS) {
            *place = names.iter().position(|name| name == column)?;
        }
        Some(Places(places))
    }

    /// A line, without its end. Fails with what is wrong with it, for a sentence that begins with where it is.
    pub fn read(&self, line: &str) -> Result<Row, String> {
        let cells = cells(line).ok_or("is no line of CSV")?;
        let cell = |column: usize| {
            cells.get(self.0[column]).map(AsRef::as_ref).ok_or_else(|| format!("lacks '{}'", COLUMNS[column]))
        };
        let wrong = |column: usize, text: &str| {
            let excerpt: String = text.chars().take(40).collect();
            format!("has '{excerpt}' for '{}'", COLUMNS[column])
        };
        let number = |column: usize| {
            let text = cell(column)?;
            text.parse::<u64>().map_err(|_| wrong(column, text))
        };
        let nanos = |column: usize| number(column).map(Nanos);
        let level = cell(2)?;
        let state = cell(8)?;
        Ok(Row {
            watch: number(0)?,
            entity: cell(1)?.to_owned(),
            level: FailureLevel::ALL.into_iter().find(|known| known.name() == level).ok_or_else(|| wrong(2, level))?,
            deadline: nanos(3)?,
            seen: nanos(4)?,
            unmoved: nanos(5)?,
            earliest: nanos(6)?,
            latest: nanos(7)?,
            state: STATES.into_iter().find(|known| state_name(*known) == state).ok_or_else(|| wrong(8, state))?,
            count: number(9)?,
        })
    }
}

const STATES: [EntityState; 4] = [EntityState::Free, EntityState::Active, EntityState::Idle, EntityState::Departed];

const fn state_name(state: EntityState) -> &'static str {
    match state {
        EntityState::Free => "free",
        EntityState::Active => "active",
        EntityState::Idle => "idle",
        EntityState::Departed => "departed",
    }
}

/// The cells of a line.
fn cells(line: &str) -> Option<Vec<Cow<'_, str>>> {
    if !line.contains('"') {
        return Some(line.split(',').map(Cow::Borrowed).collect());
    }
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_bytes());
    let record = reader.records().next()?.ok()?;
    Some(record.iter().map(|cell| Cow::Owned(cell.to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(row: &Row) -> String {
        let mut line = Vec::new();
        row.write(&mut line);
        String::from_utf8(line).unwrap()
    }

    fn row(entity: &str, level: usize, state: usize, numbers: [u64; 7]) -> Row {
        let [watch, deadline, seen, unmoved, earliest, latest, count] = numbers;
        Row {
            watch,
            entity: entity.into(),
            level: FailureLevel::ALL[level],
            deadline: Nanos(deadline),
            seen: Nanos(seen),
            unmoved: Nanos(unmoved),
            earliest: Nanos(earliest),
            latest: Nanos(latest),
            state: STATES[state],
            count,
        }
    }

    #[test]
    fn a_line_as_documented() {
        let row = row("client 7", 2, 2, [3, 20, 9, 5, 6, 7, 4]);
        assert_eq!(line(&row), "3,client 7,session,20,9,5,6,7,idle,4\n");
        let head = head();
        assert_eq!(head.split(',').count(), line(&row).split(',').count());
        let places = Places::find(head.trim_end()).unwrap();
        assert_eq!(places.read("3,client 7,session,20,9,5,6,7,idle,4"), Ok(row));
        assert_eq!(places.read("3,x,session,20,9,5,6,7,asleep,4").unwrap_err(), "has 'asleep' for 'state'");
        assert_eq!(places.read("3,x,session,20,9,5,6,-7,idle,4").unwrap_err(), "has '-7' for 'latest_ns'");
        assert_eq!(places.read("3,x,session,20").unwrap_err(), "lacks 'state'");
    }

    #[test]
    fn columns_are_found_by_name() {
        let mixed = "count,state,latest_ns,earliest_ns,unmoved_ns,seen_ns,deadline_ns,level,entity,watch,more";
        let read = Places::find(mixed).unwrap().read("4,idle,7,6,5,9,20,session,\"a, \"\"b\"\"\",3,?").unwrap();
        assert_eq!(read, row("a, \"b\"", 2, 2, [3, 20, 9, 5, 6, 7, 4]));
        assert_eq!(Places::find("sequence,arrival_ns"), None);
    }

    proptest! {
        /// Whatever a node calls its entities.
        #[test]
        fn what_was_written_is_read(
            name in ".{0,20}", level in 0usize..3, state in 0usize..4, numbers: [u64; 7],
        ) {
            let name = backdoor_core::progress_box::Name::new(&name);
            let row = row(name.as_str(), level, state, numbers);
            let line = line(&row);
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert_eq!(Places::find(head().trim_end()).unwrap().read(line.trim_end_matches('\n')), Ok(row));
        }
    }
}
