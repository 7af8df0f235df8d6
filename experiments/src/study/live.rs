//! Detection and extraction on this machine, with real processes and real faults, beside what the simulation says of it.
//!
//! A point is one failure under one load. Its table has a row per run; a second table has one row per point, with the
//! simulated counterpart: a node whose monitor shares its processors, under the same load, deadline and polls.

use super::detection::of_level;
use super::row::row;
use super::scenario::{ScenarioConfig, complain};
use super::{Context, Presentation, Profile, StudyError, interrupted, limits, pooled, summary_name};
use crate::config::{self, Axis as Values, ConfigError, OneOrMany, Span};
use crate::figures::{Axis, Figure, Panel, Series};
use crate::live::detect::{self, DetectConfig, DetectRow, FailureKind};
use crate::live::detector::DetectorKind;
use crate::results::{ResultsDir, Table};
use crate::runner::{Task, TaskError};
use crate::stats;
use backdoor_core::Nanos;
use backdoor_core::progress_box::FailureLevel;
use backdoor_sim::cluster::{Deadlines, Scenario, record};
use backdoor_sim::dist::Dist;
use backdoor_sim::faults::Arrivals;
use backdoor_sim::metrics::{LevelQos, detection};
use backdoor_sim::streams::{StreamKey, Streams};
use serde::{Deserialize, Serialize};

/// A live study.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// The kind; looked at before.
    #[serde(rename = "study")]
    _study: String,
    pub(super) title: String,
    pub(super) summary: String,
    failures: OneOrMany<FailureKind>,
    load: Values<u64>,
    deadline: Span,
    poll: Span,
    runs: u32,
    /// Length of the run in which nothing fails.
    healthy: Span,
    sessions: u64,
    state_bytes: usize,
    simulation: Simulation,
    full: Option<Full>,
}

/// What `[full]` sets instead.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Full {
    runs: Option<u32>,
    healthy: Option<Span>,
}

/// The simulated counterpart.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Simulation {
    pub(super) replications: u64,
    pub(super) scenario: ScenarioConfig,
}

/// One failure under one load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Swept {
    failure: FailureKind,
    load: u64,
}

row! {
    /// What one point came to. Times are in milliseconds; false positives per second of health, over all entities.
    struct Summary {
        failure: String,
        level: String,
        load: u64,
        deadline_ms: f64,
        poll_ms: f64,
        runs: u64,
        detected: u64,
        affected: u64,
        recovered: u64,
        recovered_ok: u64,
        false_positives: u64,
        bound_ms: f64,
        monitor_wakeup_p99_ms: f64,
        spin_wakeup_p99_ms: f64,
    }
    estimates {
        detection_median_ms,
        simulated_detection_median_ms,
        extraction_median_ms,
        false_positives_per_s,
        simulated_false_positives_per_s,
    }
}

/// What the journal keeps of a point.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Measured {
    runs: Vec<DetectRow>,
    summary: Summary,
    /// Detection times in the simulation, in milliseconds.
    simulated_ms: Vec<f64>,
}

row! {
    /// One simulated detection, for the distribution.
    struct Simulated {
        failure: String,
        load: u64,
        detection_ms: f64,
    }
    estimates {}
}

impl Config {
    pub(super) fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let config: Self = config::parse(file, text)?;
        let invalid = |key: &str, message: String| ConfigError::invalid(file, text, key, message);
        limits::replications("simulation.replications", config.simulation.replications, 1, &invalid)?;
        limits::points("load", config.failures.len().saturating_mul(config.load.len()), 1, &invalid)?;
        let table = "simulation.scenario";
        config.simulation.scenario.check_single(table, &TAKEN, &invalid)?;
        for swept in config.points() {
            for profile in [Profile::Quick, Profile::Full] {
                if let Err((key, message)) = config.experiment(&swept, profile, DetectConfig::default()).problem() {
                    let in_full = config.full.is_some_and(|full| match key {
                        "runs" => full.runs.is_some(),
                        _ => key == "healthy" && full.healthy.is_some(),
                    });
                    let table = if profile == Profile::Full && in_full { "full." } else { "" };
                    return Err(invalid(&format!("{table}{key}"), message));
                }
            }
            config.scenario(&swept).check().map_err(|error| complain(&error, table, &ELSEWHERE, &invalid))?;
        }
        Ok(config)
    }

    pub(super) fn points(&self) -> Vec<Swept> {
        let loads = |failure: &FailureKind| {
            let failure = *failure;
            self.load.iter().map(move |load| Swept { failure, load: *load })
        };
        self.failures.iter().flat_map(loads).collect()
    }

    /// The live experiment of a point; what no config sets is as in `base`.
    fn experiment(&self, swept: &Swept, profile: Profile, base: DetectConfig) -> DetectConfig {
        let full = self.full.filter(|_| profile == Profile::Full);
        let healthy = swept.failure == FailureKind::None;
        DetectConfig {
            failure: swept.failure,
            deadline: self.deadline.0,
            poll: self.poll.0,
            load: u32::try_from(swept.load).unwrap_or(u32::MAX),
            sessions: self.sessions,
            state_bytes: self.state_bytes,
            runs: if healthy { 1 } else { full.and_then(|full| full.runs).unwrap_or(self.runs) },
            // The simulated counterpart's.
            detector: DetectorKind::Deadline,
            healthy: if healthy { full.and_then(|full| full.healthy).unwrap_or(self.healthy).0 } else { base.healthy },
            ..base
        }
    }

    /// The simulated counterpart of a point.
    fn scenario(&self, swept: &Swept) -> Scenario {
        let Config { sessions, state_bytes, poll, .. } = self;
        let mut scenario = counterpart(&self.simulation.scenario, swept.load, *sessions, *state_bytes, poll.0);
        if let Some(level) = level(swept.failure) {
            // As the live experiment: healthy for a while, then one failure, then the next run.
            scenario.faults = scenario.faults.at_level(level);
            let gap = Dist::uniform(Nanos::from_millis(100), Nanos::from_millis(150));
            let gap = gap.unwrap_or(Dist::constant(Nanos::from_millis(100)));
            scenario.faults.arrivals = Arrivals::OneAtATime { gap };
            scenario.faults.repair_after = Some(Dist::constant(self.deadline.0 * 5 + Nanos::from_millis(500)));
        }
        scenario
    }

    /// Every scenario that it simulates.
    #[cfg(test)]
    pub(super) fn scenarios(&self) -> Vec<Scenario> {
        self.points().iter().map(|swept| self.scenario(swept)).collect()
    }

    /// Points run one at a time: they are measurements, and would disturb each other.
    pub(super) fn run(&self, name: &str, context: Context<'_>) -> Result<(), StudyError> {
        let one_at_a_time = Context { threads: 1, ..context };
        let seed = context.dir.manifest().seed;
        let measured =
            one_at_a_time.run_points(name, &self.points(), 1, |task| self.point(name, seed, &context, &task))?;
        let runs: Vec<&DetectRow> = measured.iter().flat_map(|point| &point.runs).collect();
        context.dir.write_csv(name, &Table::from_rows(&runs)?)?;
        let summaries = Summary::table(measured.iter().map(|point| &point.summary));
        context.dir.write_csv(&summary_name(name), &summaries)?;
        let simulated: Vec<Simulated> = measured.iter().flat_map(Measured::simulated).collect();
        context.dir.write_csv(&format!("{name}-simulated"), &Simulated::table(&simulated))?;
        Ok(())
    }

    fn point(
        &self,
        name: &str,
        seed: u64,
        context: &Context<'_>,
        task: &Task<'_, Swept>,
    ) -> Result<Measured, TaskError> {
        let swept = *task.point;
        let config =
            self.experiment(&swept, context.profile, DetectConfig { seed, ..DetectConfig::of(swept.failure)? });
        let report = match detect::run(&config, context.interrupt, &mut |_| {}) {
            Err(detect::DetectError::Interrupted { .. }) => return Err(interrupted(task)),
            outcome => outcome?,
        };
        let simulated = self.simulate(name, seed, &swept, task)?;
        let times = simulated.iter().flat_map(|run| &run.detection_times);
        let simulated_ms: Vec<f64> = times.map(|time| time.as_millis_f64()).collect();
        let sum = |of: fn(&DetectRow) -> u64| report.rows.iter().map(of).sum::<u64>();
        let mut extraction: Vec<f64> = report.rows.iter().filter_map(|row| row.extraction_ms).collect();
        // Over all entities of a node, as in the live runs.
        let entities = simulated.iter().map(|run| run.entities).max().unwrap_or_default() as f64;
        let summary = Summary {
            failure: swept.failure.name().to_owned(),
            level: swept.failure.level().to_owned(),
            load: swept.load,
            deadline_ms: config.deadline.as_millis_f64(),
            poll_ms: config.poll.as_millis_f64(),
            runs: report.rows.len() as u64,
            detected: report.rows.iter().filter(|row| row.detected).count() as u64,
            affected: sum(|row| row.affected),
            recovered: sum(|row| row.recovered),
            recovered_ok: sum(|row| row.recovered_ok),
            false_positives: sum(|row| row.false_positives),
            bound_ms: config.bound().as_millis_f64(),
            monitor_wakeup_p99_ms: report.monitor.wakeups.p99_ms,
            spin_wakeup_p99_ms: report.spin.p99_ms,
            detection_median_ms: report.median_ms(),
            simulated_detection_median_ms: pooled::quantile_ms(&simulated, |run| &run.detection_times, 0.5),
            extraction_median_ms: stats::quantile(&mut extraction, 0.5),
            false_positives_per_s: report.false_positive_rate(),
            simulated_false_positives_per_s: pooled::mistakes_per_hour(&simulated)
                .map(|rate| rate.scaled(entities.max(1.0) / 3600.0)),
        };
        Ok(Measured { runs: report.rows, summary, simulated_ms })
    }

    /// The simulated counterpart at the study's deadline: all failure levels together, of each replication.
    fn simulate(
        &self,
        name: &str,
        seed: u64,
        swept: &Swept,
        task: &Task<'_, Swept>,
    ) -> Result<Vec<LevelQos>, TaskError> {
        let scenario = self.scenario(swept);
        let point = format!("failure={} load={}", swept.failure.name(), swept.load);
        let deadlines = [Deadlines::all(self.deadline.0)];
        let one = |replication| {
            task.check()?;
            let streams = Streams::new(StreamKey { seed, experiment: name, point: &point, replication });
            let judged = detection(&record(&scenario, &streams, self.deadline.0)?, &deadlines);
            Ok(judged.iter().fold(LevelQos::default(), |mut all, judged| {
                all.merge(&of_level(judged, None));
                all
            }))
        };
        (0..self.simulation.replications).map(one).collect()
    }

    pub(super) fn present(&self, name: &str, dir: &ResultsDir) -> Result<Presentation, StudyError> {
        let (runs, summary) = (dir.read_csv(name)?, dir.read_csv(&summary_name(name))?);
        let simulated = dir.read_csv(&format!("{name}-simulated"))?;
        let figure = distributions(name, &runs, &simulated, self.deadline.0 + self.poll.0)
            .ok_or_else(|| StudyError::Table(name.to_owned(), "live"))?;
        let tables = vec![(format!("{}.csv", summary_name(name)), summary), (format!("{name}.csv"), runs)];
        Ok(Presentation { figures: vec![figure], tables })
    }
}

impl Measured {
    fn simulated(&self) -> impl Iterator<Item = Simulated> {
        self.simulated_ms.iter().map(|detection_ms| Simulated {
            failure: self.summary.failure.clone(),
            load: self.summary.load,
            detection_ms: *detection_ms,
        })
    }
}

/// The simulated counterpart of parts on this machine that are well, the monitor sharing their processors.
pub(super) fn counterpart(
    config: &ScenarioConfig,
    load: u64,
    sessions: u64,
    state_bytes: usize,
    poll: Nanos,
) -> Scenario {
    let mut scenario = config.single(None, Profile::Quick);
    scenario.load = load as usize;
    scenario.monitor = backdoor_core::monitor::MonitorConfig::polling_every(poll);
    scenario.monitor_shares_cpu = true;
    scenario.workload.sessions = sessions as usize;
    scenario.workload.state_bytes = Some(state_bytes);
    scenario
}

/// Settings of a scenario that a study of real processes takes from elsewhere.
pub(super) const TAKEN: [&str; 5] = ["load", "sessions", "poll_interval", "monitor_shares_cpu", "state_bytes"];
/// Where they stand.
pub(super) const ELSEWHERE: [(&str, &str); 4] =
    [("load", "load"), ("sessions", "sessions"), ("state_bytes", "state_bytes"), ("poll_interval", "poll")];

fn level(failure: FailureKind) -> Option<FailureLevel> {
    FailureLevel::ALL.into_iter().find(|level| level.name() == failure.level())
}

/// Live against simulated detection times: their distributions, a panel for each failure, curves for each load.
fn distributions(name: &str, runs: &Table, simulated: &Table, earliest: Nanos) -> Option<Figure> {
    let mut figure = Figure::new(name)
        .title("Detection times: this machine against the simulation")
        .caption(
            "Share of the failures detected within a time from the real moment of failure. Live: real processes, one \
             failure a run; simulated: the same deadline, polls and load, the monitor sharing the node's processors.",
        )
        .columns(2);
    for (failure, runs) in runs.groups("failure") {
        if failure == FailureKind::None.name() {
            continue;
        }
        let mut panel = Panel::new(Axis::linear("detection time").seconds(), Axis::linear("share detected").percent())
            .title(failure.clone())
            .vertical_rule(earliest.as_secs_f64(), "deadline + poll");
        for (style, (load, runs)) in runs.groups("load").into_iter().enumerate() {
            let simulated = simulated.filter("failure", &failure).filter("load", &load);
            for (kind, table, style) in [("live", &runs, 2 * style), ("simulated", &simulated, 2 * style + 1)] {
                let seconds: Vec<f64> =
                    table.numbers("detection_ms")?.into_iter().flatten().map(|ms| ms / 1e3).collect();
                panel = panel.series(Series::ecdf(format!("{kind}, load {load}"), &seconds).style(style));
            }
        }
        figure = figure.panel(panel);
    }
    Some(figure)
}
