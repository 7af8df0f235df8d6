//! What a recovery costs, in simulation: sessions saved and lost, their outage and its parts, bytes read.
//!
//! Each replication is one failure of one node, recovered onto another, or spread over several others. A row of the table is
//! one combination of level, number of sessions, state size, share of the State Boxes that the failure damages, and number of
//! nodes that take over.

use super::precision::{self, Precision, sample};
use super::row::{judged, row};
use super::scenario::{ScenarioConfig, complain};
use super::{Context, Full, Presentation, Profile, StudyError, limits};
use crate::config::{self, Axis as Values, ConfigError, Grid, OneOrMany, Span};
use crate::figures::{Axis, Figure, Panel, Series};
use crate::results::{ResultsDir, Table};
use crate::runner::{Task, TaskError};
use crate::stats::{self, Estimate};
use backdoor_core::Nanos;
use backdoor_core::progress_box::FailureLevel;
use backdoor_sim::cluster::{
    Deadlines, RecoveryOptions, RecoveryOutcome, Scenario, SessionFate, Timeline, recovery_run,
};
use backdoor_sim::dist::Dist;
use backdoor_sim::streams::Streams;
use serde::Deserialize;

/// Most nodes that sessions are spread over.
const MAX_TARGETS: u64 = 64;

/// A failure level in a config.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Os,
    Application,
    Session,
}

impl From<Level> for FailureLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Os => FailureLevel::Os,
            Level::Application => FailureLevel::Application,
            Level::Session => FailureLevel::Session,
        }
    }
}

/// A recovery study.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// The kind; looked at before.
    #[serde(rename = "study")]
    _study: String,
    pub(super) title: String,
    pub(super) summary: String,
    replications: u64,
    deadline: Span,
    levels: OneOrMany<Level>,
    sessions: Values<u64>,
    state_bytes: Values<u64>,
    /// Fraction of the affected State Boxes that the failure damages.
    corrupt_fraction: Option<Values<f64>>,
    /// Nodes that sessions are spread over; 1 unless given.
    targets: Option<Values<u64>>,
    /// From asking for the old owner to be cut off to its confirmation.
    fence: Option<Dist>,
    #[serde(default)]
    scenario: ScenarioConfig,
    precision: Option<Precision>,
    full: Option<Full>,
}

/// One combination of the swept values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Swept {
    level: FailureLevel,
    sessions: u64,
    state_bytes: u64,
    corrupt_fraction: f64,
    targets: u64,
}

row! {
    /// A row of the table. Times are in milliseconds: means over the saved sessions of a run, then over the runs.
    struct Row {
        level: String,
        sessions: u64,
        state_bytes: u64,
        corrupt_fraction: f64,
        targets: u64,
        deadline_ms: f64,
        replications: u64,
        precision_reached: String,
        failures: u64,
        diagnosed_right: u64,
        affected: u64,
        saved: u64,
        intact: u64,
        lost: u64,
        requests_lost: u64,
        requests_waiting: u64,
    }
    estimates {
        bytes_read,
        outage_ms,
        outage_max_ms,
        detection_ms,
        planning_ms,
        claiming_ms,
        fencing_ms,
        extraction_ms,
        reinstatement_ms,
        taking_ms,
        first_service_ms,
    }
}

judged!(Row, |_| None);

impl Config {
    pub(super) fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let config: Self = config::parse(file, text)?;
        let invalid = |key: &str, message: String| ConfigError::invalid(file, text, key, message);
        limits::replications("replications", config.replications, 1, &invalid)?;
        limits::full(config.full.as_ref(), 1, &invalid)?;
        limits::points("sessions", config.grid().len(), 1, &invalid)?;
        config.scenario.check_single("scenario", &["sessions", "state_bytes"], &invalid)?;
        if config.deadline.0 == Nanos::ZERO {
            return Err(invalid("deadline", "must be more than zero".into()));
        }
        let own = ["sessions", "state_bytes", "corrupt_fraction"].map(|key| (key, key));
        for profile in [Profile::Quick, Profile::Full] {
            let taken: Vec<_> = own.into_iter().chain(limits::taken_by_full(config.full.as_ref(), profile)).collect();
            precision::check(
                &config.precision,
                config.full.as_ref(),
                profile,
                config.replications,
                &[Row::ESTIMATES],
                None,
                &invalid,
            )?;
            for swept in config.points() {
                if !(1..=MAX_TARGETS).contains(&swept.targets) {
                    return Err(invalid("targets", format!("must be from 1 to {MAX_TARGETS} nodes that take over")));
                }
                if swept.sessions == 0 {
                    return Err(invalid("sessions", "must be at least 1, or there is nothing to recover".into()));
                }
                let scenario = config.scenario(&swept, profile);
                scenario.check().map_err(|error| complain(&error, "scenario", &taken, &invalid))?;
            }
        }
        Ok(config)
    }

    fn corrupt(&self) -> Values<f64> {
        self.corrupt_fraction.clone().unwrap_or(Values::one(0.0))
    }

    fn targets(&self) -> Values<u64> {
        self.targets.clone().unwrap_or(Values::one(1))
    }

    fn grid(&self) -> Grid {
        Grid::new()
            .axis("targets", self.targets().len())
            .axis("corrupt", self.corrupt().len())
            .axis("level", self.levels.len())
            .axis("sessions", self.sessions.len())
            .axis("state", self.state_bytes.len())
    }

    pub(super) fn points(&self) -> Vec<Swept> {
        let (corrupt, targets) = (self.corrupt(), self.targets());
        self.grid()
            .points()
            .map(|point| Swept {
                level: self.levels[point.at("level")].into(),
                sessions: self.sessions[point.at("sessions")],
                state_bytes: self.state_bytes[point.at("state")],
                corrupt_fraction: corrupt[point.at("corrupt")],
                targets: targets[point.at("targets")],
            })
            .collect()
    }

    fn scenario(&self, swept: &Swept, profile: Profile) -> Scenario {
        // The first combination of what is no axis here; `sessions` and `state_bytes` are this study's own.
        let mut scenario = self.scenario.single(self.full.as_ref(), profile);
        scenario.workload.sessions = swept.sessions as usize;
        scenario.workload.state_bytes = Some(swept.state_bytes as usize);
        scenario.faults.corrupt_fraction = swept.corrupt_fraction;
        scenario.deadlines = Deadlines::all(self.deadline.0);
        scenario
    }

    /// Every scenario that it simulates.
    #[cfg(test)]
    pub(super) fn scenarios(&self) -> Vec<Scenario> {
        self.points().iter().map(|swept| self.scenario(swept, Profile::Quick)).collect()
    }

    pub(super) fn run(&self, name: &str, context: Context<'_>) -> Result<(), StudyError> {
        let replications = Full::replications(self.full.as_ref(), context.profile, self.replications);
        let seed = context.dir.manifest().seed;
        let rows = context
            .run_points(name, &self.points(), replications, |task| self.point(name, seed, context.profile, &task))?;
        context.dir.write_csv(name, &Row::table(&rows))?;
        Ok(())
    }

    fn point(&self, name: &str, seed: u64, profile: Profile, task: &Task<'_, Swept>) -> Result<Row, TaskError> {
        let swept = task.point;
        let scenario = self.scenario(swept, profile);
        let default = RecoveryOptions::default();
        let fence = self.fence.unwrap_or(default.fence);
        let options = RecoveryOptions { level: swept.level, fence, targets: swept.targets as usize, ..default };
        // State size and targets are left out of the key: others, same requests and same failures.
        let point = format!("level={} sessions={}", swept.level, swept.sessions);
        let precision = precision::of_profile(&self.precision, self.full.as_ref(), profile);
        let run = |streams: &Streams| Ok(recovery_run(&scenario, streams, &options)?);
        let rows = |outcomes: &[RecoveryOutcome]| row(swept, self.deadline.0, outcomes);
        let judge = |precision: &Precision, row: &mut Row| precision.judge(std::slice::from_mut(row));
        sample(task, (seed, name, &point), precision, run, rows, judge)
    }

    pub(super) fn present(&self, name: &str, dir: &ResultsDir) -> Result<Presentation, StudyError> {
        let table = dir.read_csv(name)?;
        let lacking = || StudyError::Table(name.to_owned(), "recovery");
        // Damage changes who is saved, not how long that takes: the figures are those of the first value.
        let undamaged =
            table.groups("corrupt_fraction").into_iter().next().map(|(_, rows)| rows).ok_or_else(lacking)?;
        let figures = if undamaged.groups("targets").len() > 1 {
            vec![spread(name, &undamaged)]
        } else {
            vec![cost(name, &undamaged), parts(name, &undamaged)]
        };
        let figures = figures.into_iter().collect::<Option<_>>().ok_or_else(lacking)?;
        Ok(Presentation { figures, tables: vec![(format!("{name}.csv"), table)] })
    }
}

/// The saved sessions of a run.
fn timelines(outcome: &RecoveryOutcome) -> impl Iterator<Item = (Timeline, bool)> {
    outcome.sessions.iter().filter_map(|session| match session.fate {
        SessionFate::Saved { timeline, intact } => Some((timeline, intact)),
        _ => None,
    })
}

/// Milliseconds without service of each session that is served again, with its state or without.
pub(super) fn outages(outcome: &RecoveryOutcome) -> Vec<f64> {
    let timelines = outcome.sessions.iter().filter_map(|session| match session.fate {
        SessionFate::Saved { timeline, .. } | SessionFate::Renewed { timeline } => Some(timeline),
        _ => None,
    });
    timelines.map(|timeline| timeline.outage().as_millis_f64()).collect()
}

fn row(swept: &Swept, deadline: Nanos, outcomes: &[RecoveryOutcome]) -> Row {
    let failed: Vec<&RecoveryOutcome> = outcomes.iter().filter(|outcome| outcome.effective.is_some()).collect();
    let count = |of: &dyn Fn(&RecoveryOutcome) -> u64| failed.iter().map(|outcome| of(outcome)).sum::<u64>();
    // Sessions of one run share its failure, so the runs are the sample.
    let over_runs = |of: &dyn Fn(&RecoveryOutcome) -> Option<f64>| -> Option<Estimate> {
        stats::mean(&failed.iter().filter_map(|outcome| of(outcome)).collect::<Vec<f64>>())
    };
    let mean_ms = |part: fn(&Timeline) -> Nanos| {
        over_runs(&|outcome| {
            let times: Vec<f64> = timelines(outcome).map(|(timeline, _)| part(&timeline).as_millis_f64()).collect();
            stats::mean(&times).map(|mean| mean.value)
        })
    };
    Row {
        level: swept.level.name().to_owned(),
        sessions: swept.sessions,
        state_bytes: swept.state_bytes,
        corrupt_fraction: swept.corrupt_fraction,
        targets: swept.targets,
        deadline_ms: deadline.as_millis_f64(),
        replications: outcomes.len() as u64,
        precision_reached: String::new(),
        failures: failed.len() as u64,
        diagnosed_right: failed.iter().filter(|outcome| outcome.diagnosed_right(swept.level)).count() as u64,
        affected: count(&|outcome| outcome.sessions.len() as u64),
        saved: count(&|outcome| outcome.saved() as u64),
        intact: count(&|outcome| timelines(outcome).filter(|(_, intact)| *intact).count() as u64),
        lost: count(&|outcome| outcome.lost() as u64),
        requests_lost: count(&|outcome| outcome.sessions.iter().map(|s| s.requests_lost).sum()),
        requests_waiting: count(&|outcome| outcome.sessions.iter().map(|s| s.requests_waiting).sum()),
        bytes_read: over_runs(&|outcome| Some(outcome.extraction.bytes_read as f64)),
        outage_ms: mean_ms(Timeline::outage),
        outage_max_ms: over_runs(&|outcome| {
            timelines(outcome).map(|(timeline, _)| timeline.outage()).max().map(Nanos::as_millis_f64)
        }),
        detection_ms: mean_ms(|timeline| timeline.detection),
        planning_ms: mean_ms(|timeline| timeline.planning),
        claiming_ms: mean_ms(|timeline| timeline.claiming),
        fencing_ms: mean_ms(|timeline| timeline.fencing),
        extraction_ms: mean_ms(|timeline| timeline.extraction),
        reinstatement_ms: mean_ms(|timeline| timeline.reinstatement),
        taking_ms: mean_ms(|timeline| timeline.taking),
        first_service_ms: mean_ms(|timeline| timeline.first_service),
    }
}

/// Bytes in the unit in which people think of a state's size.
fn size(bytes: &str) -> String {
    match bytes.parse::<u64>() {
        Ok(bytes) if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => format!("{} KiB of state", bytes >> 10),
        _ => format!("{bytes} B of state"),
    }
}

/// Outage by number of sessions, a curve for each state size, a panel for each level.
fn cost(name: &str, table: &Table) -> Option<Figure> {
    let mut figure = Figure::new(name)
        .title("Outage of a session by number of sessions")
        .caption(
            "Mean time without service of a saved session, from the failure to its being able to serve elsewhere, with \
             95% intervals. All sessions of the failed node, application or session are recovered at once.",
        )
        .columns(3);
    for (level, rows) in table.groups("level") {
        let mut panel = Panel::new(Axis::log("sessions"), Axis::log("outage").seconds());
        panel = panel.title(format!("{level} level"));
        for (bytes, rows) in rows.groups("state_bytes") {
            panel = panel.series(in_seconds(Series::line(size(&bytes), []), &rows, "outage_ms")?.bars());
        }
        figure = figure.panel(panel);
    }
    Some(figure)
}

/// The longest outage by number of sessions, a curve for each number of nodes that take over, for the largest state.
fn spread(name: &str, table: &Table) -> Option<Figure> {
    let sizes = table.groups("state_bytes");
    let (bytes, largest) = sizes.last()?;
    let mut figure = Figure::new(name)
        .title("Longest outage, by nodes that sessions are spread over")
        .caption(format!(
            "Longest time without service of any session of a run, with {} per session; means over runs with 95% intervals. \
             Every node that takes over is alike, and all are offered sessions by one monitor.",
            size(bytes)
        ))
        .columns(3);
    for (level, rows) in largest.groups("level") {
        let mut panel = Panel::new(Axis::log("sessions"), Axis::linear("outage").seconds());
        panel = panel.title(format!("{level} level"));
        for (targets, rows) in rows.groups("targets") {
            let nodes = if targets == "1" { "1 node".to_owned() } else { format!("{targets} nodes") };
            panel = panel.series(in_seconds(Series::line(nodes, []), &rows, "outage_max_ms")?.bars());
        }
        figure = figure.panel(panel);
    }
    Some(figure)
}

/// The parts of the outage, for the largest state.
fn parts(name: &str, table: &Table) -> Option<Figure> {
    let sizes = table.groups("state_bytes");
    let (bytes, largest) = sizes.last()?;
    let mut figure = Figure::new(format!("{name}-parts"))
        .title("Parts of the outage")
        .caption(format!(
            "What the outage of a session consists of, with {} per session; means with 95% intervals. The fence takes a set \
             time; everything else comes out of the model.",
            size(bytes)
        ))
        .columns(3);
    for (level, rows) in largest.groups("level") {
        let mut panel = Panel::new(Axis::log("sessions"), Axis::log("time").seconds());
        panel = panel.title(format!("{level} level"));
        for part in ["detection", "planning", "claiming", "fencing", "extraction", "reinstatement", "taking"] {
            panel = panel.series(in_seconds(Series::line(part, []), &rows, &format!("{part}_ms"))?.bars());
        }
        figure = figure.panel(panel);
    }
    Some(figure)
}

/// A column of milliseconds over `sessions`, as points in seconds.
pub(super) fn in_seconds(mut series: Series, rows: &Table, column: &str) -> Option<Series> {
    use crate::figures::Point;
    let sessions = rows.numbers("sessions")?;
    for (x, y) in sessions.into_iter().zip(rows.estimates(column)?) {
        let (Some(x), Some(y)) = (x, y.map(|y| y.scaled(1e-3))) else { continue };
        series.points.push(Point::of(x, y.within(0.0, f64::INFINITY)));
    }
    Some(series)
}
