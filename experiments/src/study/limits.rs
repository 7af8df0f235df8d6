//! How large a study may be. A slip such as a zero too many is refused before anything is written; what is left fits the
//! memory of an ordinary machine, shows its progress and can be interrupted between replications.

use super::{Full, Profile};
use crate::config::ConfigError;

/// Most combinations of a config's lists.
const MOST_POINTS: usize = 100_000;
/// Most replications of a point.
const MOST_REPLICATIONS: u64 = 1_000_000;
/// Most points × deadlines: rows of a table.
const MOST_ROWS: usize = 250_000;
/// Most replications × deadlines: what a point keeps until all its replications are done.
const MOST_JUDGED: u64 = 1_000_000;

/// Makes a complaint about a key of the config that is being read.
pub(super) type Complaint<'a> = dyn Fn(&str, String) -> ConfigError + 'a;

/// The number of points of a config, which isn't listed before this has said that it can be.
pub(super) fn points(table: &str, points: usize, deadlines: usize, invalid: &Complaint<'_>) -> Result<(), ConfigError> {
    if points > MOST_POINTS {
        let message = format!("its lists have more than {MOST_POINTS} combinations");
        return Err(invalid(table, message));
    }
    if points.saturating_mul(deadlines) > MOST_ROWS {
        let message = format!("{points} combinations with {deadlines} deadlines are more than {MOST_ROWS} rows");
        return Err(invalid("deadlines", message));
    }
    Ok(())
}

/// Replications at `key`, each with `deadlines` results.
pub(super) fn replications(
    key: &str,
    replications: u64,
    deadlines: usize,
    invalid: &Complaint<'_>,
) -> Result<(), ConfigError> {
    let most = MOST_REPLICATIONS.min(MOST_JUDGED / deadlines.max(1) as u64);
    if (1..=most).contains(&replications) {
        return Ok(());
    }
    let of = if most < MOST_REPLICATIONS { format!(" with {deadlines} deadlines") } else { String::new() };
    Err(invalid(key, format!("must be from 1 to {most}{of}, not {replications}")))
}

/// The settings that `[full]` has taken over, and where they stand, for [`complain`](super::scenario::complain).
pub(super) fn taken_by_full(full: Option<&Full>, profile: Profile) -> Option<(&'static str, &'static str)> {
    (profile == Profile::Full && full.is_some_and(|full| full.duration.is_some())).then_some(DURATION_OF_FULL)
}

/// Where a duration stands that is not the scenario's own.
pub(super) const DURATION_OF_FULL: (&str, &str) = ("duration", "full.duration");

/// The same as [`replications`] for what `[full]` sets instead.
pub(super) fn full(full: Option<&Full>, deadlines: usize, invalid: &Complaint<'_>) -> Result<(), ConfigError> {
    match full.and_then(|full| full.replications) {
        Some(count) => replications("full.replications", count, deadlines, invalid),
        None => Ok(()),
    }
}
