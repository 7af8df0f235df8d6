//! How well failures are detected, for every deadline at once, in simulation.
//!
//! Each replication is simulated once; all deadlines are judged on its record. A row of the table is one combination of
//! the swept values, one failure level (or all together), and one deadline.

use super::precision::{self, Precision, sample};
use super::row::{judged, row};
use super::scenario::{FaultConfig, ScenarioConfig, Swept, complain};
use super::{Context, Full, Presentation, Profile, StudyError, limits, pooled};
use crate::config::{self, Axis as Values, ConfigError, Span};
use crate::figures::{Axis, Figure, Heatmap, Panel, Point, Series};
use crate::results::{ResultsDir, Table};
use crate::runner::{Task, TaskError};
use backdoor_core::Nanos;
use backdoor_core::progress_box::FailureLevel;
use backdoor_sim::cluster::{Deadlines, Scenario, record};
use backdoor_sim::metrics::{Detection, LevelQos, detection};
use backdoor_sim::streams::Streams;
use serde::Deserialize;

/// What the figure shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FigureKind {
    /// False positives against detection time, a curve over the deadlines for each load.
    TradeOff,
    /// Precision and recall over failure rate and deadline.
    Accuracy,
}

/// A detection study.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// The kind; looked at before.
    #[serde(rename = "study")]
    _study: String,
    pub(super) title: String,
    pub(super) summary: String,
    figure: FigureKind,
    replications: u64,
    deadlines: Values<Span>,
    #[serde(default)]
    scenario: ScenarioConfig,
    #[serde(default)]
    faults: FaultConfig,
    precision: Option<Precision>,
    full: Option<Full>,
}

row! {
    /// A row of the table. Times are in milliseconds, rates per entity and hour of its up time.
    struct Row {
        load: u64,
        failures_per_minute: f64,
        sessions: u64,
        poll_ms: f64,
        network_loss: f64,
        monitor_shares_cpu: bool,
        level: String,
        deadline_ms: f64,
        replications: u64,
        precision_reached: String,
        entity_hours: f64,
        failures: u64,
        detected: u64,
        missed: u64,
        diagnosed_right: u64,
        false_positives: u64,
    }
    estimates {
        false_positives_per_hour,
        detection_ms,
        detection_p99_ms,
        mistake_duration_ms,
        query_accuracy,
        precision,
        recall,
    }
}

judged!(Row, |row| Some((&row.level, row.deadline_ms)));

pub(super) const ALL_LEVELS: &str = "all";

impl Config {
    pub(super) fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let config: Self = config::parse(file, text)?;
        let invalid = |key: &str, message: String| ConfigError::invalid(file, text, key, message);
        let deadlines = config.deadlines.len();
        limits::replications("replications", config.replications, deadlines, &invalid)?;
        limits::full(config.full.as_ref(), deadlines, &invalid)?;
        limits::points("scenario", config.scenario.count(&config.faults), deadlines, &invalid)?;
        if config.deadlines.iter().any(|deadline| deadline.0 == Nanos::ZERO) {
            return Err(invalid("deadlines", "must be more than zero".into()));
        }
        for profile in [Profile::Quick, Profile::Full] {
            let taken: Vec<_> = limits::taken_by_full(config.full.as_ref(), profile).into_iter().collect();
            precision::check(
                &config.precision,
                config.full.as_ref(),
                profile,
                config.replications,
                &[Row::ESTIMATES],
                Some(&config.deadlines),
                &invalid,
            )?;
            for swept in config.points() {
                let scenario = config.scenario.scenario(&config.faults, &swept, config.full.as_ref(), profile);
                scenario.check().map_err(|error| complain(&error, "scenario", &taken, &invalid))?;
            }
        }
        Ok(config)
    }

    pub(super) fn points(&self) -> Vec<Swept> {
        self.scenario.points(&self.faults)
    }

    /// Every scenario that it simulates.
    #[cfg(test)]
    pub(super) fn scenarios(&self) -> Vec<Scenario> {
        let scenario = |swept| self.scenario.scenario(&self.faults, &swept, None, Profile::Quick);
        self.points().into_iter().map(scenario).collect()
    }

    pub(super) fn run(&self, name: &str, context: Context<'_>) -> Result<(), StudyError> {
        let replications = Full::replications(self.full.as_ref(), context.profile, self.replications);
        let seed = context.dir.manifest().seed;
        let rows = context.run_points(name, &self.points(), replications, |task| {
            let scenario = self.scenario.scenario(&self.faults, task.point, self.full.as_ref(), context.profile);
            self.point(name, seed, context.profile, &scenario, &task)
        })?;
        let rows: Vec<Row> = rows.into_iter().flatten().collect();
        context.dir.write_csv(name, &Row::table(&rows))?;
        Ok(())
    }

    fn point(
        &self,
        name: &str,
        seed: u64,
        profile: Profile,
        scenario: &Scenario,
        task: &Task<'_, Swept>,
    ) -> Result<Vec<Row>, TaskError> {
        let deadlines: Vec<Deadlines> = self.deadlines.iter().map(|d| Deadlines::all(d.0)).collect();
        let floor = self.deadlines.iter().map(|d| d.0).min().unwrap_or(Nanos::ZERO);
        let point = task.point.stream_point();
        let run = |streams: &Streams| Ok(detection(&record(scenario, streams, floor)?, &deadlines));
        let rows = |runs: &[Vec<Detection>]| {
            let mut rows = Vec::new();
            for level in FailureLevel::ALL.map(Some).into_iter().chain([None]) {
                for (index, deadline) in self.deadlines.iter().enumerate() {
                    let of_runs: Vec<LevelQos> = runs.iter().map(|run| of_level(&run[index], level)).collect();
                    rows.push(row(task.point, level.map_or(ALL_LEVELS, FailureLevel::name), deadline.0, &of_runs));
                }
            }
            rows
        };
        let precision = precision::of_profile(&self.precision, self.full.as_ref(), profile);
        sample(task, (seed, name, &point), precision, run, rows, |precision, rows: &mut Vec<Row>| precision.judge(rows))
    }

    pub(super) fn present(&self, name: &str, dir: &ResultsDir) -> Result<Presentation, StudyError> {
        let table = dir.read_csv(name)?;
        let figure = match self.figure {
            FigureKind::TradeOff => trade_off(name, &table),
            FigureKind::Accuracy => accuracy(name, &table),
        };
        let figure = figure.ok_or_else(|| StudyError::Table(name.to_owned(), "detection"))?;
        Ok(Presentation { figures: vec![figure], tables: vec![(format!("{name}.csv"), table)] })
    }
}

pub(super) fn of_level(run: &Detection, level: Option<FailureLevel>) -> LevelQos {
    match level {
        Some(level) => run.of(level).clone(),
        None => run.levels.iter().fold(LevelQos::default(), |mut all, level| {
            all.merge(level);
            all
        }),
    }
}

/// The replications of one point, level and deadline together.
fn row(swept: &Swept, level: &str, deadline: Nanos, runs: &[LevelQos]) -> Row {
    let mut all = LevelQos::default();
    runs.iter().for_each(|run| all.merge(run));
    Row {
        load: swept.load,
        failures_per_minute: swept.failures_per_minute,
        sessions: swept.sessions,
        poll_ms: swept.poll_interval.as_millis_f64(),
        network_loss: swept.network_loss,
        monitor_shares_cpu: swept.monitor_shares_cpu,
        level: level.to_owned(),
        deadline_ms: deadline.as_millis_f64(),
        replications: runs.len() as u64,
        precision_reached: String::new(),
        entity_hours: all.up_time.as_secs_f64() / 3600.0,
        failures: all.failures,
        detected: all.detected,
        missed: all.missed,
        diagnosed_right: all.diagnosed_right,
        false_positives: all.false_positives,
        false_positives_per_hour: pooled::mistakes_per_hour(runs),
        detection_ms: pooled::mean_ms(runs, |run| &run.detection_times),
        detection_p99_ms: pooled::quantile_ms(runs, |run| &run.detection_times, 0.99),
        mistake_duration_ms: pooled::mean_ms(runs, |run| &run.mistake_durations),
        query_accuracy: pooled::query_accuracy(runs),
        precision: pooled::share(runs, |run| run.right_alarms, |run| run.right_alarms + run.false_positives),
        recall: pooled::share(runs, |run| run.detected, |run| run.detected + run.missed),
    }
}

fn trade_off(name: &str, table: &Table) -> Option<Figure> {
    let mut figure = Figure::new(name)
        .title("False positives against detection time")
        .caption(
            "Each curve runs over the deadlines, from short (left) to long. Vertical: false positives per entity and \
             hour; horizontal: mean time from failure to verdict. Load: always-busy processes beside the workload. Bars: 95% intervals. An open marker stands at the \
             shortest deadline from which on none was seen; its bar ends below what the rate may still be.",
        )
        .columns(3);
    for level in FailureLevel::ALL {
        let rows = table.filter("level", level.name());
        let x = Axis::log("detection time").seconds();
        let y = Axis::log("false positives").unit("1/h");
        let mut panel = Panel::new(x, y).title(format!("{level} level"));
        for (load, rows) in rows.groups("load") {
            let points = trade_off_points(&rows)?;
            panel = panel.series(Series::line(format!("load {load}"), points).bars());
        }
        figure = figure.panel(panel);
    }
    Some(figure)
}

/// How many of a curve's points to draw, the deadlines rising: up to the first from which on no false positive was seen.
pub(super) fn drawn(mistakes: &[Option<crate::stats::Estimate>]) -> usize {
    let last_seen = mistakes.iter().rposition(|rate| rate.is_some_and(|rate| rate.value > 0.0));
    last_seen.map_or(1, |last| last + 2)
}

/// A load's curve, up to the first deadline from which on no false positive was seen.
fn trade_off_points(rows: &Table) -> Option<Vec<Point>> {
    let detection = rows.numbers("detection_ms")?;
    let mistakes = rows.estimates("false_positives_per_hour")?;
    let drawn = drawn(&mistakes);
    let points = detection.iter().zip(mistakes).take(drawn).filter_map(|(x, y)| Some(Point::of((*x)? / 1e3, y?)));
    Some(points.collect())
}

fn accuracy(name: &str, table: &Table) -> Option<Figure> {
    let rows = table.filter("level", ALL_LEVELS);
    let mut figure = Figure::new(name)
        .title("Accuracy over failure rate and deadline")
        .caption(
            "All failure levels together. Left: share of the alarms that were right; right: share of the failures that \
             were noticed before they were over. Rows: failures per node and minute; columns: deadline. Load: always-busy \
             processes beside the workload.",
        )
        .columns(2);
    for (column, title) in [("precision", "alarms that were right"), ("recall", "failures that were detected")] {
        for (load, rows) in rows.groups("load") {
            let deadlines: Vec<String> =
                rows.groups("deadline_ms").into_iter().map(|(deadline, _)| format!("{deadline} ms")).collect();
            let mut map = Heatmap::new("deadline", "failures per minute").columns(deadlines);
            for (rate, rows) in rows.groups("failures_per_minute") {
                let cells = rows.numbers(column)?;
                map =
                    map.row(rate, cells.iter().map(|cell| cell.map(|share| (share, format!("{:.0}%", share * 100.0)))));
            }
            figure = figure.panel(Panel::heatmap(map).title(format!("{title}, load {load}")));
        }
    }
    Some(figure)
}
