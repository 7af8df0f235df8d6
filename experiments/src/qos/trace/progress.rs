//! Traces of `backdoor live record`: any detector on the progress of one entity, any deadlines on that of all.
//!
//! The format is documented where it is written, in [`format`](crate::live::record::format).

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use backdoor_core::Nanos;
use backdoor_core::progress_box::{EntityState, FailureLevel};
use backdoor_sim::qos::observed::{Activity, Observation, Observed};
use backdoor_sim::qos::replay::ReplayConfig;
use backdoor_sim::qos::setting::DetectorKind;

use super::lines::Lines;
use super::{PATIENCE, TraceError};
use crate::interrupt::Interrupt;
use crate::live::record::format::{Places, Row};
use crate::qos::report::Report;

/// So many entities are named to whoever is to choose.
const NAMED: usize = 40;

/// The lines of a trace, in order.
pub struct Rows<'p> {
    path: &'p Path,
    lines: Lines<'p>,
    places: Places,
    earliest: Nanos,
}

impl<'p> Rows<'p> {
    /// Opens it; `None` if by its head line it is something else.
    ///
    /// # Errors
    /// It can't be read.
    pub fn open(path: &'p Path) -> Result<Option<Self>, TraceError> {
        let mut lines = Lines::open(path)?;
        let head = lines.next()?;
        let places = head.and_then(|head| Places::find(&head));
        Ok(places.map(|places| Rows { path, lines, places, earliest: Nanos::ZERO }))
    }

    /// The next line; `None` at the end, also at a torn last line.
    ///
    /// # Errors
    /// It can't be read, or makes no sense.
    pub fn next_row(&mut self) -> Result<Option<Row>, TraceError> {
        let Some(line) = self.lines.next()? else { return Ok(None) };
        let row = self.places.read(&line).map_err(|reason| self.lines.wrong(reason))?;
        if row.earliest < self.earliest {
            return Err(self.lines.wrong("is of an earlier sample than the one above it"));
        }
        self.earliest = row.earliest;
        Ok(Some(row))
    }

    /// Every line, with looks at whether to stop.
    fn each(
        &mut self,
        interrupt: &Interrupt,
        mut take: impl FnMut(&Self, Row) -> Result<(), TraceError>,
    ) -> Result<(), TraceError> {
        while let Some(row) = self.next_row()? {
            take(self, row)?;
            if self.lines.number.is_multiple_of(PATIENCE) && interrupt.requested() {
                return Err(TraceError::Interrupted);
            }
        }
        Ok(())
    }

    fn content(&self, reason: String) -> TraceError {
        TraceError::Content { path: self.path.into(), reason }
    }
}

/// Whether a file that begins with this line is a trace of progress.
pub(super) fn is_head(line: &str) -> bool {
    Places::find(line).is_some()
}

/// Whom to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Who {
    Named(String),
    Watch(u64),
}

impl Who {
    fn is(&self, row: &Row) -> bool {
        match self {
            Who::Named(name) => row.entity == *name,
            Who::Watch(watch) => row.watch == *watch,
        }
    }

    /// The entity that was asked for, by name or else by the number of a watch; without any, the only one there is.
    fn find(path: &Path, asked: Option<&str>, interrupt: &Interrupt) -> Result<Who, TraceError> {
        let content = |reason: String| TraceError::Content { path: path.into(), reason };
        let Some(mut rows) = Rows::open(path)? else { return Err(content("is no trace of progress".into())) };
        let mut names = BTreeSet::new();
        let watch = asked.and_then(|asked| asked.parse().ok());
        let mut has_watch = false;
        rows.each(interrupt, |_, row| {
            has_watch |= Some(row.watch) == watch;
            if !names.contains(&row.entity) {
                names.insert(row.entity);
            }
            Ok(())
        })?;
        let several = |names: &BTreeSet<String>| {
            let shown: Vec<&str> = names.iter().take(NAMED).map(String::as_str).collect();
            let more = if names.len() > NAMED { ", …" } else { "" };
            format!("'{}'{more}", shown.join("', '"))
        };
        match (asked, names.len()) {
            (_, 0) => Err(content("there is no progress in it".into())),
            (Some(name), _) if names.contains(name) => Ok(Who::Named(name.to_owned())),
            (Some(_), _) if has_watch => Ok(Who::Watch(watch.unwrap_or_default())),
            (Some(name), _) => Err(content(format!("has no entity '{name}'; --entity can name {}", several(&names)))),
            (None, 1) => Ok(Who::Named(names.pop_first().unwrap_or_default())),
            (None, count) => {
                Err(content(format!("holds {count} entities; choose one with --entity: {}", several(&names))))
            }
        }
    }
}

/// Reads the progress of one entity through a detector, which gets the evidence that the recording monitor had.
///
/// `entity` is its name, or the number of a watch where several at a time have that name; without it there must be but
/// one.
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
    if config.poll.is_some() && config.detector != DetectorKind::PullScore {
        let reason = "the trace holds the polls of the monitor that recorded it; --poll is for pull-score alone";
        return Err(TraceError::Content { path: path.into(), reason: reason.into() });
    }
    let who = Who::find(path, entity, interrupt)?;
    let Some(mut rows) = Rows::open(path)? else {
        return Err(TraceError::Content { path: path.into(), reason: "has changed meanwhile".into() });
    };
    let mut follow = Follow::new(&who, config);
    rows.each(interrupt, |rows, row| follow.take(row).map_err(|reason| rows.lines.wrong(reason)))?;
    follow.end();
    let mut notes: Vec<String> = rows.lines.finish(allow_torn)?.into_iter().collect();
    let Follow { observed, name, seen, watches, .. } = follow;
    let Some(measures) = observed.measures() else {
        return Err(rows.content(format!(
            "{seen} observations of '{name}' are too few: the first {} of each watch are not measured",
            observed.warm_up()
        )));
    };
    if watches > 1 {
        notes.push(format!("'{name}' was watched {watches} times, each time with a detector that knew nothing"));
    }
    let warm_up = match observed.warm_up() {
        0 => String::new(),
        count => format!(", the first {count} of each watch not measured"),
    };
    let method = format!(
        "{seen} observations of '{name}'{warm_up}; {} mistakes in all, by the evidence that the recording monitor had and \
         in its evidence time; intervals by batch means; detection times up to the freshness point, of crashes at any \
         instant at which it was active",
        observed.mistakes(),
    );
    Ok(Report { measures, form: None, method, notes })
}

/// One entity in a trace.
struct Follow<'w> {
    who: &'w Who,
    observed: Observed,
    name: String,
    watch: Option<u64>,
    latest: Nanos,
    /// Earliest moment of the sample that is being read, and whether it showed the entity moved.
    sample: Nanos,
    moved: bool,
    seen: u64,
    watches: u64,
}

impl<'w> Follow<'w> {
    fn new(who: &'w Who, config: &ReplayConfig) -> Self {
        Follow {
            who,
            observed: Observed::new(config),
            name: String::new(),
            watch: None,
            latest: Nanos::ZERO,
            sample: Nanos::ZERO,
            moved: false,
            seen: 0,
            watches: 0,
        }
    }

    fn take(&mut self, row: Row) -> Result<(), String> {
        if row.earliest > self.sample {
            self.end();
            (self.sample, self.moved) = (row.earliest, false);
        }
        if !self.who.is(&row) {
            return Ok(());
        }
        let observation = observation(&row);
        match self.watch {
            Some(watch) if watch == row.watch => {
                if row.latest < self.latest {
                    return Err(format!("is earlier than another one of watch {watch}"));
                }
                self.observed.progress(observation);
            }
            Some(watch) if watch > row.watch => {
                return Err(format!(
                    "is of watch {}, and watch {watch} has the same name '{}'; choose one with --entity NUMBER",
                    row.watch, row.entity
                ));
            }
            _ => {
                self.watch = Some(row.watch);
                self.watches += 1;
                self.observed.join(observation);
            }
        }
        (self.latest, self.moved) = (row.latest, true);
        self.seen += 1;
        self.name = row.entity;
        Ok(())
    }

    /// No more is said of the sample.
    fn end(&mut self) {
        if !self.moved {
            self.observed.unmoved(self.sample);
        }
    }
}

fn observation(row: &Row) -> Observation {
    let activity = match row.state {
        EntityState::Active => Activity::Active,
        EntityState::Idle => Activity::Idle,
        EntityState::Departed | EntityState::Free => Activity::Ended,
    };
    let Row { unmoved, earliest, latest, count, .. } = *row;
    Observation { unmoved, earliest, latest, count, activity }
}

/// What deadlines make of a trace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mistakes {
    /// By level: for each deadline, how often a healthy entity would have been suspected.
    pub mistakes: [Vec<u64>; FailureLevel::ALL.len()],
    /// By level: the same for the entities' own deadlines, of all entities.
    pub by_own: [u64; FailureLevel::ALL.len()],
    /// By level: how long entities were watched by the clock, summed over entities, in seconds.
    pub entity_s: [f64; FailureLevel::ALL.len()],
}

/// Counts them, for several deadlines at once, over the entities that are `wanted`. Everybody is taken to be well until
/// the trace ends or they do.
///
/// # Errors
/// See [`TraceError`].
pub fn mistakes(
    path: &Path,
    deadlines: &[Nanos],
    wanted: impl Fn(&Row) -> bool,
    interrupt: &Interrupt,
) -> Result<Mistakes, TraceError> {
    let Some(mut rows) = Rows::open(path)? else {
        return Err(TraceError::Content { path: path.into(), reason: "is no trace of progress".into() });
    };
    let mut found = Mistakes { mistakes: std::array::from_fn(|_| vec![0; deadlines.len()]), ..Mistakes::default() };
    let mut watches: HashMap<u64, (Nanos, Row)> = HashMap::new();
    let mut end = (Nanos::ZERO, Nanos::ZERO);
    rows.each(interrupt, |_, row| {
        end = (row.earliest, row.seen);
        let ended = matches!(row.state, EntityState::Free | EntityState::Departed);
        let (since, before) = match watches.remove(&row.watch) {
            Some((since, before)) => (since, Some(before)),
            None => (row.seen, None),
        };
        if let Some(before) = &before {
            found.silence(before, row.unmoved, deadlines, wanted(before));
        }
        if !ended {
            watches.insert(row.watch, (since, row));
        } else if wanted(&row) {
            found.entity_s[row.level as usize] += (row.seen - since).as_secs_f64();
        }
        Ok(())
    })?;
    let (earliest, seen) = end;
    for (since, before) in watches.values() {
        let wanted = wanted(before);
        found.silence(before, earliest, deadlines, wanted);
        if wanted {
            found.entity_s[before.level as usize] += (seen - *since).as_secs_f64();
        }
    }
    Ok(found)
}

impl Mistakes {
    /// After `before`, the entity was found unmoved until `unmoved`.
    fn silence(&mut self, before: &Row, unmoved: Nanos, deadlines: &[Nanos], wanted: bool) {
        if before.state != EntityState::Active {
            return;
        }
        let (level, silence) = (before.level as usize, unmoved - before.latest);
        self.by_own[level] += u64::from(silence > before.deadline);
        if wanted {
            let counts = self.mistakes[level].iter_mut().zip(deadlines);
            counts.for_each(|(count, deadline)| *count += u64::from(silence > *deadline));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::record::format::head;
    use std::io::Write;

    const MS: u64 = 1_000_000;

    /// A trace of milliseconds: watch, name, when it was seen unmoved, and moved, and its state from there on.
    fn trace(lines: &[(u64, &str, u64, u64, EntityState)]) -> tempfile::NamedTempFile {
        let mut text = head().into_bytes();
        for (count, (watch, entity, unmoved, moved, state)) in lines.iter().enumerate() {
            let at = Nanos(moved * MS);
            let row = Row {
                watch: *watch,
                entity: (*entity).into(),
                level: FailureLevel::Session,
                deadline: Nanos(20 * MS),
                seen: at + Nanos::from_secs(1),
                unmoved: Nanos(unmoved * MS),
                earliest: at,
                latest: at,
                state: *state,
                count: count as u64,
            };
            row.write(&mut text);
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&text).unwrap();
        file
    }

    fn by_deadline(file: &Path, entity: Option<&str>, ms: u64) -> Result<Report, String> {
        let detector = DetectorKind::Deadline { timeout: Nanos(ms * MS) };
        let config = ReplayConfig { detector, period: Nanos(MS), poll: None };
        replay(file, false, entity, &config, &Interrupt::new()).map_err(|error| error.to_string())
    }

    use EntityState::{Active, Free, Idle};

    const TWO: [(u64, &str, u64, u64, EntityState); 9] = [
        (0, "a", 0, 0, Active),
        (1, "b", 0, 0, Active),
        (0, "a", 5, 6, Active),
        (1, "b", 6, 7, Idle),
        (0, "a", 9, 10, Active),
        (0, "a", 14, 30, Active),
        (1, "b", 39, 40, Active),
        (1, "b", 50, 51, Free),
        (0, "a", 50, 51, Active),
    ];

    #[test]
    fn all_deadlines_of_all_entities() {
        let file = trace(&TWO);
        let deadlines = [3, 4, 5, 6, 9, 10, 19, 20, 21].map(|ms| Nanos(ms * MS));
        let found = mistakes(file.path(), &deadlines, |_| true, &Interrupt::new()).unwrap();
        // Silences of a: 5, 3, 4 and 20, for from 14 to 30 nobody looked; of b, while it was active: 6 and 10.
        assert_eq!(found.mistakes[FailureLevel::Session as usize], [5, 4, 3, 2, 2, 1, 1, 0, 0]);
        assert!((found.entity_s[FailureLevel::Session as usize] - 0.102).abs() < 1e-9, "{found:?}");
        assert_eq!(found.mistakes[FailureLevel::Os as usize], [0; 9]);
        assert_eq!(found.by_own, [0; 3], "their deadline is 20 ms");
        let of_b = mistakes(file.path(), &deadlines, |row| row.entity == "b", &Interrupt::new()).unwrap();
        assert_eq!(of_b.mistakes[FailureLevel::Session as usize], [2, 2, 2, 1, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn a_replay_makes_the_mistakes_that_are_counted() {
        let file = trace(&TWO);
        for (ms, of_a, of_b) in [(3, 3, 2), (4, 2, 2), (5, 1, 2), (9, 1, 1), (19, 1, 0), (20, 0, 0)] {
            for (name, expected) in [("a", of_a), ("b", of_b), ("1", of_b)] {
                let report = by_deadline(file.path(), Some(name), ms).unwrap();
                assert!(report.method.contains(&format!("; {expected} mistakes")), "{name} {ms}: {}", report.method);
            }
        }
    }

    #[test]
    fn silence_at_the_end_counts_as_far_as_others_were_seen() {
        let file = trace(&[(0, "a", 0, 0, Active), (1, "b", 0, 0, Active), (1, "b", 29, 30, Active)]);
        let found = mistakes(file.path(), &[29, 30].map(|ms| Nanos(ms * MS)), |_| true, &Interrupt::new()).unwrap();
        assert_eq!(found.mistakes[FailureLevel::Session as usize], [1, 0], "b at 29 ms was not silent for longer");
    }

    #[test]
    fn who_is_meant_must_be_clear() {
        let two = by_deadline(trace(&TWO).path(), None, 5).unwrap_err();
        assert!(two.ends_with("holds 2 entities; choose one with --entity: 'a', 'b'"), "{two}");
        let none = by_deadline(trace(&TWO).path(), Some("c"), 5).unwrap_err();
        assert!(none.contains("has no entity 'c'"), "{none}");
        let one: Vec<_> = TWO.into_iter().filter(|line| line.1 == "a").collect();
        assert!(by_deadline(trace(&one).path(), None, 5).unwrap().method.contains("5 observations of 'a'"));
        let same: Vec<_> = TWO.into_iter().map(|(watch, _, u, m, s)| (watch, "a", u, m, s)).collect();
        let error = by_deadline(trace(&same).path(), None, 5).unwrap_err();
        assert!(error.contains("--entity NUMBER"), "{error}");
        assert!(by_deadline(trace(&same).path(), Some("1"), 5).is_ok());
    }
}
