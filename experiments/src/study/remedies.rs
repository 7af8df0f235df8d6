//! Takeover with State Boxes beside what else can be done about a failure, in simulation: failover to a backup, restart,
//! reboot. Two sides: the outage of sessions when something fails, and what a request pays while nothing does.
//!
//! All remedies of a point see the same failures, and all protections the same requests: neither is part of a stream's key.
//! A row of the first table is one level, remedy and number of sessions; a row of the second, `NAME-cost`, one protection,
//! size of state, and frequency of saving.

pub(super) mod cost;
mod figures;

use self::cost::{Cost, CostRow, Protection};
use super::recovery::{Level, outages};
use super::row::row;
use super::scenario::{ScenarioConfig, complain};
use super::{Context, Full, Presentation, Profile, StudyError, limits, replicate};
use crate::config::{self, Axis as Values, ConfigError, OneOrMany, Span};
use crate::results::ResultsDir;
use crate::runner::{Task, TaskError};
use crate::stats::{self, Estimate};
use backdoor_core::Nanos;
use backdoor_core::progress_box::FailureLevel;
use backdoor_sim::cluster::{Deadlines, RecoveryOptions, RecoveryOutcome, Remedy, Scenario, recovery_run};
use backdoor_sim::dist::Dist;
use backdoor_sim::streams::Streams;
use serde::{Deserialize, Serialize};

/// A study of remedies.
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
    remedies: OneOrMany<Remedy>,
    sessions: Values<u64>,
    state_bytes: u64,
    #[serde(default)]
    assumed: Assumed,
    cost: Cost,
    #[serde(default)]
    scenario: ScenarioConfig,
    full: Option<Full>,
}

/// Times that no model gives; see [`RecoveryOptions`] for what is left out, and for sources.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Assumed {
    fence: Option<Dist>,
    promote_work: Option<Span>,
    service_start: Option<Span>,
    boot: Option<Span>,
}

/// What one point of the study simulates.
#[derive(Clone, Copy, Debug)]
pub(super) enum Point {
    /// Failures.
    Outage { level: FailureLevel, remedy: Remedy, sessions: u64 },
    /// None.
    Cost { protection: Protection, state_bytes: u64, commit_every: u64 },
}

row! {
    /// Times are in milliseconds: means over the sessions of a run that had failed and are served again, then over runs.
    struct Row {
        level: String,
        remedy: String,
        sessions: u64,
        state_bytes: u64,
        deadline_ms: f64,
        replications: u64,
        failures: u64,
        affected: u64,
        served_again: u64,
        saved: u64,
        lost: u64,
        interrupted: u64,
        requests_lost: u64,
    }
    estimates {
        outage_ms,
        outage_max_ms,
    }
}

/// A row of either table, for the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Either {
    Outage(Row),
    Cost(CostRow),
}

impl Config {
    pub(super) fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let config: Self = config::parse(file, text)?;
        let invalid = |key: &str, message: String| ConfigError::invalid(file, text, key, message);
        limits::replications("replications", config.replications, 1, &invalid)?;
        limits::full(config.full.as_ref(), 1, &invalid)?;
        let outages = config.levels.len().saturating_mul(config.remedies.len()).saturating_mul(config.sessions.len());
        limits::points("sessions", outages, 1, &invalid)?;
        limits::points("cost", config.cost.count(), 1, &invalid)?;
        config.scenario.check_single("scenario", &["sessions", "state_bytes"], &invalid)?;
        config.scenario.check_no_length("scenario", &invalid)?;
        if config.full.as_ref().is_some_and(|full| full.duration.is_some() || full.precision.is_some()) {
            return Err(invalid("full", "may set replications only in this kind of study".into()));
        }
        if config.deadline.0 == Nanos::ZERO {
            return Err(invalid("deadline", "must be more than zero".into()));
        }
        if config.sessions.contains(&0) {
            return Err(invalid("sessions", "must be at least 1, or there is nothing to recover".into()));
        }
        config.cost.check(&invalid)?;
        for point in config.points() {
            let (scenario, taken): (_, &[(&str, &str)]) = match point {
                Point::Outage { sessions, .. } => {
                    (config.failing(sessions), &[("sessions", "sessions"), ("state_bytes", "state_bytes")])
                }
                Point::Cost { .. } => (
                    config.healthy(&point),
                    &[
                        ("sessions", "cost.sessions"),
                        ("state_bytes", "cost.state_bytes"),
                        ("commit_every", "cost.commit_every"),
                        ("duration", "cost.duration"),
                    ],
                ),
            };
            scenario.check().map_err(|error| complain(&error, "scenario", taken, &invalid))?;
        }
        Ok(config)
    }

    pub(super) fn points(&self) -> Vec<Point> {
        let mut points = Vec::new();
        for level in self.levels.iter().map(|level| FailureLevel::from(*level)) {
            for remedy in self.remedies.iter().copied() {
                points.extend(self.sessions.iter().map(|sessions| Point::Outage {
                    level,
                    remedy,
                    sessions: *sessions,
                }));
            }
        }
        points.extend(self.cost.points());
        points
    }

    fn base(&self) -> Scenario {
        // The first combination of what is no axis here.
        self.scenario.single(None, Profile::Quick)
    }

    fn failing(&self, sessions: u64) -> Scenario {
        let mut scenario = self.base();
        scenario.workload.sessions = sessions as usize;
        scenario.workload.state_bytes = Some(self.state_bytes as usize);
        scenario.deadlines = Deadlines::all(self.deadline.0);
        scenario
    }

    fn healthy(&self, point: &Point) -> Scenario {
        self.cost.scenario(self.base(), point)
    }

    /// Every scenario that it simulates.
    #[cfg(test)]
    pub(super) fn scenarios(&self) -> Vec<Scenario> {
        let scenario = |point: &Point| match point {
            Point::Outage { sessions, .. } => self.failing(*sessions),
            Point::Cost { .. } => self.healthy(point),
        };
        self.points().iter().map(scenario).collect()
    }

    pub(super) fn run(&self, name: &str, context: Context<'_>) -> Result<(), StudyError> {
        let replications = Full::replications(self.full.as_ref(), context.profile, self.replications);
        let seed = context.dir.manifest().seed;
        let rows = context.run_points(name, &self.points(), replications, |task| self.point(name, seed, &task))?;
        let (mut outages, mut costs) = (Vec::new(), Vec::new());
        for row in rows {
            match row {
                Either::Outage(row) => outages.push(row),
                Either::Cost(row) => costs.push(row),
            }
        }
        context.dir.write_csv(name, &Row::table(&outages))?;
        context.dir.write_csv(&cost_name(name), &CostRow::table(&costs))?;
        Ok(())
    }

    fn point(&self, name: &str, seed: u64, task: &Task<'_, Point>) -> Result<Either, TaskError> {
        let all = task.replications.clone();
        match *task.point {
            Point::Outage { level, remedy, sessions } => {
                let (scenario, options) = (self.failing(sessions), self.options(level, remedy));
                let key = format!("level={level} sessions={sessions}");
                let run = |streams: &Streams| Ok(recovery_run(&scenario, streams, &options)?);
                let outcomes = replicate(task, (seed, name, &key), all, run)?;
                Ok(Either::Outage(self.row(level, remedy, sessions, &outcomes)))
            }
            Point::Cost { protection, state_bytes, commit_every } => {
                let scenario = self.healthy(task.point);
                let run = |streams: &Streams| cost::measure(&scenario, streams);
                let runs = replicate(task, (seed, name, "cost"), all, run)?;
                Ok(Either::Cost(cost::row(protection, state_bytes, commit_every, &runs)))
            }
        }
    }

    fn options(&self, level: FailureLevel, remedy: Remedy) -> RecoveryOptions {
        let default = RecoveryOptions::default();
        let or = |span: Option<Span>, default: Nanos| span.map_or(default, |span| span.0);
        let boot = or(self.assumed.boot, default.boot);
        RecoveryOptions {
            level,
            remedy,
            fence: self.assumed.fence.unwrap_or(default.fence),
            promote_work: or(self.assumed.promote_work, default.promote_work),
            service_start: or(self.assumed.service_start, default.service_start),
            boot,
            give_up_after: default.give_up_after + boot,
            ..default
        }
    }

    fn row(&self, level: FailureLevel, remedy: Remedy, sessions: u64, outcomes: &[RecoveryOutcome]) -> Row {
        let failed: Vec<&RecoveryOutcome> = outcomes.iter().filter(|outcome| outcome.effective.is_some()).collect();
        let count = |of: &dyn Fn(&RecoveryOutcome) -> u64| failed.iter().map(|outcome| of(outcome)).sum::<u64>();
        // Sessions of one run share its failure, so the runs are the sample.
        let over_runs = |of: &dyn Fn(&[f64]) -> Option<f64>| -> Option<Estimate> {
            stats::mean(&failed.iter().filter_map(|outcome| of(&outages(outcome))).collect::<Vec<f64>>())
        };
        Row {
            level: level.name().to_owned(),
            remedy: remedy.name().to_owned(),
            sessions,
            state_bytes: self.state_bytes,
            deadline_ms: self.deadline.0.as_millis_f64(),
            replications: outcomes.len() as u64,
            failures: failed.len() as u64,
            affected: count(&|outcome| outcome.sessions.len() as u64),
            served_again: count(&|outcome| outages(outcome).len() as u64),
            saved: count(&|outcome| outcome.saved() as u64),
            lost: count(&|outcome| outcome.lost() as u64),
            interrupted: count(&|outcome| outcome.interrupted),
            requests_lost: count(&|outcome| outcome.sessions.iter().map(|session| session.requests_lost).sum()),
            outage_ms: over_runs(&|outages| stats::mean(outages).map(|mean| mean.value)),
            outage_max_ms: over_runs(&|outages| outages.iter().copied().reduce(f64::max)),
        }
    }

    pub(super) fn present(&self, name: &str, dir: &ResultsDir) -> Result<Presentation, StudyError> {
        let (table, costs) = (dir.read_csv(name)?, dir.read_csv(&cost_name(name))?);
        let lacking = || StudyError::Table(name.to_owned(), "remedies");
        let figures = vec![
            figures::outages(name, &table).ok_or_else(lacking)?,
            figures::costs(&cost_name(name), &costs, self.cost.update_bytes).ok_or_else(lacking)?,
        ];
        let tables = vec![(format!("{name}.csv"), table), (format!("{}.csv", cost_name(name)), costs)];
        Ok(Presentation { figures, tables })
    }
}

fn cost_name(name: &str) -> String {
    format!("{name}-cost")
}
