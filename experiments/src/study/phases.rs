//! What each phase of a takeover takes: on this machine, with real clients, beside the simulation of the same.
//!
//! A point is one failure, number of sessions, and size of their state. Its table has a row per run; a second table sums each
//! point up. A phase ends when the last session has got through it, live as simulated:
//!
//! | phase | from | to |
//! |---|---|---|
//! | claim | the decision | every claim stands |
//! | fence | | the failed node is cut off |
//! | extract | | the last State Box is read |
//! | reinstate | | the last session serves at the other node |

mod figures;

use super::row::row;
use super::scenario::{ScenarioConfig, complain};
use super::{Context, Presentation, Profile, StudyError, failover, limits, replicate, summary_name};
use crate::config::{self, Axis as Values, ConfigError, OneOrMany, Span};
use crate::live::failover::{ClientKind, FailoverConfig, FailoverFailure, FailoverRow, median};
use crate::results::{ResultsDir, Table};
use crate::runner::{Task, TaskError};
use crate::stats;
use backdoor_core::Nanos;
use backdoor_core::monitor::MonitorConfig;
use backdoor_core::progress_box::FailureLevel;
use backdoor_sim::cluster::{
    Deadlines, RecoveryOptions, RecoveryOutcome, Scenario, SessionFate, Timeline, recovery_run,
};
use backdoor_sim::dist::Dist;
use backdoor_sim::streams::Streams;
use serde::{Deserialize, Serialize};

/// Fewest bytes that a client asks for: a dozen answers.
const LEAST_BYTES: u64 = 1000;

/// A study of phases.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// The kind; looked at before.
    #[serde(rename = "study")]
    _study: String,
    pub(super) title: String,
    pub(super) summary: String,
    failure: FailoverFailure,
    sessions: Values<u64>,
    /// Bytes of each session's state beyond what it needs.
    state_size: Values<u64>,
    /// That all clients together ask for, about; each asks for [`LEAST_BYTES`] at least.
    bytes: u64,
    deadline: Span,
    poll: Span,
    runs: u32,
    levels: Levels,
    simulation: Simulation,
    full: Option<Full>,
}

/// Other failures, with one number of sessions and one size of state.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Levels {
    failures: OneOrMany<FailoverFailure>,
    sessions: u64,
    state_size: u64,
}

/// The counterpart in simulation.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Simulation {
    replications: u64,
    /// From asking for the node to be cut off to its confirmation.
    fence: Dist,
    #[serde(default)]
    scenario: ScenarioConfig,
}

/// What `[full]` sets instead.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Full {
    /// As many values as the quick profile has.
    sessions: Option<Values<u64>>,
    runs: Option<u32>,
}

/// One failure of so many sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Swept {
    failure: FailoverFailure,
    sessions: u64,
    state_size: u64,
    /// Whether it stands for its level beside others.
    of_levels: bool,
}

row! {
    /// What one point came to: medians over its runs and replications, in milliseconds. It is compared by `sessions` or by
    /// `levels`. `state_bytes` is of a session, in the mean: what was read out of the failed node.
    struct Summary {
        compared_by: String,
        failure: String,
        level: String,
        sessions: u64,
        state_size: u64,
        state_bytes: u64,
        runs: u64,
        good: u64,
        replications: u64,
    }
    estimates {
        claim_ms,
        fence_ms,
        extract_ms,
        reinstate_ms,
        simulated_claim_ms,
        simulated_fence_ms,
        simulated_extract_ms,
        simulated_reinstate_ms,
    }
}

/// What the journal keeps of a point.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Measured {
    runs: Vec<FailoverRow>,
    summary: Summary,
}

/// What the phases of one simulated takeover took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Phases {
    claim: Nanos,
    fence: Nanos,
    extract: Nanos,
    reinstate: Nanos,
}

impl Phases {
    /// Each ends with the last of the sessions; `None` if none was saved.
    fn of(outcome: &RecoveryOutcome) -> Option<Self> {
        let saved = outcome.sessions.iter().filter_map(|session| match session.fate {
            SessionFate::Saved { timeline, .. } => Some(timeline),
            _ => None,
        });
        // From the decision on.
        let ends = |line: Timeline| {
            let claimed = line.claiming;
            let fenced = claimed + line.fencing;
            let extracted = fenced + line.extraction;
            [claimed, fenced, extracted, extracted + line.reinstatement + line.taking]
        };
        let last = |one: [Nanos; 4], other: [Nanos; 4]| std::array::from_fn(|at| one[at].max(other[at]));
        let [claimed, fenced, extracted, served] = saved.map(ends).reduce(last)?;
        Some(Phases {
            claim: claimed,
            fence: fenced - claimed,
            extract: extracted - fenced,
            reinstate: served - extracted,
        })
    }
}

impl Config {
    pub(super) fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let config: Self = config::parse(file, text)?;
        let invalid = |key: &str, message: String| ConfigError::invalid(file, text, key, message);
        limits::replications("simulation.replications", config.simulation.replications, 1, &invalid)?;
        let points = config.sessions.len().saturating_mul(config.state_size.len());
        limits::points("sessions", points.saturating_add(config.levels.failures.len()), 1, &invalid)?;
        if let Some(sessions) = config.full.as_ref().and_then(|full| full.sessions.as_ref())
            && sessions.len() != config.sessions.len()
        {
            return Err(invalid("full.sessions", "must be as many values as in sessions".into()));
        }
        let table = "simulation.scenario";
        config.simulation.scenario.check_single(table, &["sessions", "state_bytes", "poll_interval"], &invalid)?;
        config.simulation.scenario.check_no_length(table, &invalid)?;
        for profile in [Profile::Quick, Profile::Full] {
            for swept in config.points_of(profile) {
                let key = match (swept.of_levels, profile) {
                    (true, _) => "levels",
                    (false, Profile::Quick) => "sessions",
                    (false, Profile::Full) => "full",
                };
                let base = FailoverConfig::new(ClientKind::Many, swept.failure, std::path::PathBuf::new());
                config.experiment(&swept, profile, base).check().map_err(|error| invalid(key, error.to_string()))?;
                let taken = [("sessions", key), ("state_bytes", "state_size"), ("poll_interval", "poll")];
                let scenario = config.scenario(&swept, swept.state_size.max(1));
                scenario.check().map_err(|error| complain(&error, table, &taken, &invalid))?;
            }
        }
        Ok(config)
    }

    fn full(&self, profile: Profile) -> Option<&Full> {
        self.full.as_ref().filter(|_| profile == Profile::Full)
    }

    fn points_of(&self, profile: Profile) -> Vec<Swept> {
        let sessions = self.full(profile).and_then(|full| full.sessions.as_ref()).unwrap_or(&self.sessions);
        let by_sessions = self.state_size.iter().flat_map(|state_size| {
            let (failure, state_size) = (self.failure, *state_size);
            sessions.iter().map(move |sessions| Swept { failure, sessions: *sessions, state_size, of_levels: false })
        });
        let Levels { sessions, state_size, .. } = self.levels;
        let of_level = |failure: &FailoverFailure| Swept { failure: *failure, sessions, state_size, of_levels: true };
        by_sessions.chain(self.levels.failures.iter().map(of_level)).collect()
    }

    /// Those of the quick profile; the full one has as many.
    pub(super) fn points(&self) -> Vec<Swept> {
        self.points_of(Profile::Quick)
    }

    fn experiment(&self, swept: &Swept, profile: Profile, base: FailoverConfig) -> FailoverConfig {
        FailoverConfig {
            connections: swept.sessions,
            state_size: usize::try_from(swept.state_size).unwrap_or(usize::MAX),
            bytes: self.bytes.max(LEAST_BYTES.saturating_mul(swept.sessions)),
            deadline: self.deadline.0,
            poll: self.poll.0,
            runs: self.full(profile).and_then(|full| full.runs).unwrap_or(self.runs),
            // Of a node that can't be asked any more, the mirror knows what its sockets held.
            mirror: swept.failure == FailoverFailure::Cut,
            ..base
        }
    }

    /// The counterpart of a point whose sessions have `state_bytes` bytes of state.
    fn scenario(&self, swept: &Swept, state_bytes: u64) -> Scenario {
        let mut scenario = self.simulation.scenario.single(None, Profile::Quick);
        scenario.workload.sessions = swept.sessions as usize;
        scenario.workload.state_bytes = Some(usize::try_from(state_bytes).unwrap_or(usize::MAX));
        scenario.deadlines = Deadlines::all(self.deadline.0);
        scenario.monitor = MonitorConfig::polling_every(self.poll.0);
        scenario
    }

    /// What is live, too: a fence that cuts off a node.
    fn options(&self, swept: &Swept) -> RecoveryOptions {
        let (level, fence) = (level(swept.failure), self.simulation.fence);
        RecoveryOptions { level, fence, whole_node: true, ..RecoveryOptions::default() }
    }

    /// Every scenario that it simulates, as far as it is known before the measurement.
    #[cfg(test)]
    pub(super) fn scenarios(&self) -> Vec<Scenario> {
        self.points().iter().map(|swept| self.scenario(swept, swept.state_size)).collect()
    }

    /// Points run one at a time: they are measurements, and would disturb each other.
    pub(super) fn run(&self, name: &str, context: Context<'_>) -> Result<(), StudyError> {
        let one_at_a_time = Context { threads: 1, ..context };
        let points = self.points_of(context.profile);
        let measured = one_at_a_time.run_points(name, &points, 1, |task| self.point(name, &context, &task))?;
        let runs: Vec<&FailoverRow> = measured.iter().flat_map(|point| &point.runs).collect();
        context.dir.write_csv(name, &Table::from_rows(&runs)?)?;
        let summaries = Summary::table(measured.iter().map(|point| &point.summary));
        context.dir.write_csv(&summary_name(name), &summaries)?;
        Ok(())
    }

    fn point(&self, name: &str, context: &Context<'_>, task: &Task<'_, Swept>) -> Result<Measured, TaskError> {
        let swept = *task.point;
        let seed = context.dir.manifest().seed;
        let base = FailoverConfig { seed, ..FailoverConfig::of(ClientKind::Many, swept.failure)? };
        let experiment = self.experiment(&swept, context.profile, base);
        let report = failover::measure(&experiment, context, task)?;
        let state_bytes = state_bytes(&report.rows);
        let scenario = self.scenario(&swept, state_bytes.max(1));
        let options = self.options(&swept);
        // State size is left out of the key: other sizes, same requests.
        let key = format!("level={} sessions={}", options.level, swept.sessions);
        let run = |streams: &Streams| Ok(Phases::of(&recovery_run(&scenario, streams, &options)?));
        let simulated = replicate(task, (seed, name, &key), 0..self.simulation.replications, run)?;
        let simulated: Vec<Phases> = simulated.into_iter().flatten().collect();
        Ok(Measured { summary: summary(&swept, state_bytes, &report.rows, &simulated), runs: report.rows })
    }

    pub(super) fn present(&self, name: &str, dir: &ResultsDir) -> Result<Presentation, StudyError> {
        let (runs, summary) = (dir.read_csv(name)?, dir.read_csv(&summary_name(name))?);
        let lacking = || StudyError::Table(name.to_owned(), "phases");
        let figures = vec![
            figures::by_sessions(name, &summary).ok_or_else(lacking)?,
            figures::by_level(&format!("{name}-levels"), &summary).ok_or_else(lacking)?,
        ];
        let tables = vec![(format!("{}.csv", summary_name(name)), summary), (format!("{name}.csv"), runs)];
        Ok(Presentation { figures, tables })
    }
}

/// The level at which a failure is simulated.
const fn level(failure: FailoverFailure) -> FailureLevel {
    match failure {
        FailoverFailure::SessionStuck => FailureLevel::Session,
        FailoverFailure::Cut => FailureLevel::Os,
        _ => FailureLevel::Application,
    }
}

/// Bytes of a session's state, in the mean over all that were read.
fn state_bytes(rows: &[FailoverRow]) -> u64 {
    let moved: u64 = rows.iter().map(|row| row.moved).sum();
    let bytes: u64 = rows.iter().filter(|row| row.moved > 0).map(|row| row.state_bytes).sum();
    (bytes + moved / 2).checked_div(moved).unwrap_or(0)
}

fn summary(swept: &Swept, state_bytes: u64, rows: &[FailoverRow], simulated: &[Phases]) -> Summary {
    let live = |of| median(rows, of);
    let model = |of: fn(&Phases) -> Nanos| {
        let mut values: Vec<f64> = simulated.iter().map(|phases| of(phases).as_millis_f64()).collect();
        stats::quantile(&mut values, 0.5)
    };
    Summary {
        compared_by: if swept.of_levels { "levels" } else { "sessions" }.to_owned(),
        failure: swept.failure.name().to_owned(),
        level: level(swept.failure).name().to_owned(),
        sessions: swept.sessions,
        state_size: swept.state_size,
        state_bytes,
        runs: rows.len() as u64,
        good: rows.iter().filter(|row| row.is_good()).count() as u64,
        replications: simulated.len() as u64,
        claim_ms: live(|row| row.claim_ms),
        fence_ms: live(|row| row.fence_ms),
        extract_ms: live(|row| row.extract_ms),
        reinstate_ms: live(|row| row.reinstate_ms),
        simulated_claim_ms: model(|phases| phases.claim),
        simulated_fence_ms: model(|phases| phases.fence),
        simulated_extract_ms: model(|phases| phases.extract),
        simulated_reinstate_ms: model(|phases| phases.reinstate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::assert_refused;
    use backdoor_sim::streams::StreamKey;

    const SHIPPED: &str = include_str!("../../configs/takeover-phases.toml");

    #[test]
    fn full_has_other_sessions_and_as_many_points() {
        let config = Config::parse("c.toml", SHIPPED).unwrap();
        let [quick, full] = [Profile::Quick, Profile::Full].map(|profile| config.points_of(profile));
        assert_eq!((quick.len(), full.len()), (3 * 2 + 3, 3 * 2 + 3));
        assert_eq!((quick[2].sessions, full[2].sessions), (100, 1000));
        assert_eq!(quick[6..], full[6..], "the levels are the same");
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        for (line, by, what) in [
            ("sessions = [1, 10, 100]", "sessions = [0, 10, 100]", "sessions: 0 connections"),
            ("[10, 100, 1000]", "[10, 1000]", "full.sessions: must be as many values"),
            ("[10, 100, 1000]", "[10, 100, 100000]", "full: 100000 connections"),
            ("[154, 3739]", "[154, 10000000]", "sessions: 10000000 bytes of state"),
            ("\"cut\"]", "\"cutt\"]", "unknown value 'cutt'; did you mean 'cut'?"),
            ("replications = 10", "replications = 0", "simulation.replications: must be"),
            ("tick_interval =", "sessions = 5\ntick_interval =", "this kind of study sets it outside"),
            ("tick_interval =", "duration = '5s'\ntick_interval =", "each run ends when"),
        ] {
            assert_refused(SHIPPED, line, by, what);
        }
    }

    #[test]
    fn simulated_phases_depend_on_config_and_seed_alone_and_grow_with_the_sessions() {
        let config = Config::parse("c.toml", SHIPPED).unwrap();
        let points = config.points();
        let phases = |swept: &Swept| {
            let key = StreamKey { seed: 1, experiment: "phases", point: "", replication: 0 };
            let outcome =
                recovery_run(&config.scenario(swept, 512), &Streams::new(key), &config.options(swept)).unwrap();
            assert_eq!(outcome.saved() as u64, swept.sessions, "all of the node's, whichever failed");
            Phases::of(&outcome).unwrap()
        };
        let (one, ten) = (phases(&points[0]), phases(&points[1]));
        assert_eq!(one, phases(&points[0]));
        assert_eq!(one.fence, Nanos::from_micros(250));
        points.iter().filter(|swept| swept.of_levels).map(phases).for_each(drop);
        assert!(
            one.reinstate < ten.reinstate && one.claim > Nanos::ZERO && one.extract > Nanos::ZERO,
            "{one:?} {ten:?}"
        );
    }

    #[test]
    fn the_size_of_a_state_is_the_mean_of_those_that_were_read() {
        let row = |moved, state_bytes| FailoverRow { moved, state_bytes, ..FailoverRow::default() };
        assert_eq!(state_bytes(&[row(2, 1000), row(0, 0), row(2, 1004)]), 501);
        assert_eq!(state_bytes(&[row(0, 0)]), 0);
    }
}
