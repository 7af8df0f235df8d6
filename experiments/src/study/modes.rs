//! What it costs, and what is seen, to watch a node in other ways than by reading its memory, in simulation.
//!
//! All modes of a point are run on the same workload, faults and random numbers, with faults for how well they detect,
//! and without for what they cost. A row of the first table is one combination of the swept values, one mode, one level
//! (or all together) and one deadline; a row of the second, `NAME-overhead`, one combination and one mode.

mod figures;

use super::detection::{ALL_LEVELS, of_level};
use super::precision::{self, Precision, sample};
use super::row::{judged, row};
use super::scenario::{FaultConfig, ScenarioConfig, Swept, complain};
use super::{Context, Full, Presentation, Profile, StudyError, limits, pooled};
use crate::config::{self, Axis as Values, ConfigError, OneOrMany, Span};
use crate::results::ResultsDir;
use crate::runner::{Task, TaskError};
use crate::stats::{self, Estimate};
use backdoor_core::Nanos;
use backdoor_core::progress_box::FailureLevel;
use backdoor_sim::cluster::mode::{Mode, Traffic};
use backdoor_sim::cluster::{Deadlines, Overhead, Scenario, overhead, record};
use backdoor_sim::faults::Arrivals;
use backdoor_sim::metrics::{Detection, LevelQos, detection};
use backdoor_sim::streams::Streams;
use serde::Deserialize;

/// A study of modes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// The kind; looked at before.
    #[serde(rename = "study")]
    _study: String,
    pub(super) title: String,
    pub(super) summary: String,
    replications: u64,
    modes: OneOrMany<Mode>,
    deadlines: Values<Span>,
    /// One of them: that of a watchdog's reports in the table of overheads, and of the figure of what is detected.
    deadline: Span,
    #[serde(default)]
    scenario: ScenarioConfig,
    #[serde(default)]
    faults: FaultConfig,
    precision: Option<Precision>,
    full: Option<Full>,
}

row! {
    /// How well a mode detects. Times are in milliseconds, rates per entity and hour of its up time.
    struct Row {
        mode: Mode,
        load: u64,
        failures_per_minute: f64,
        sessions: u64,
        poll_ms: f64,
        network_loss: f64,
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
        query_accuracy,
        precision,
        recall,
    }
}

row! {
    /// What a mode costs, per node. The added times are the differences from what the same requests take when the node
    /// is watched by READs, which take none of its processors' time.
    struct CostRow {
        mode: Mode,
        load: u64,
        sessions: u64,
        poll_ms: f64,
        network_loss: f64,
        replications: u64,
        precision_reached: String,
    }
    estimates {
        cpu_share,
        agent_wait_ms,
        agent_wait_p99_ms,
        request_ms,
        request_p99_ms,
        added_request_ms,
        added_request_p99_ms,
        messages_per_s,
        bytes_per_s,
    }
}

judged!(Row, |row| Some((&row.level, row.deadline_ms)));
judged!(CostRow, |_| None);

/// What one replication brings in one mode.
struct Outcome {
    detection: Vec<Detection>,
    cost: Cost,
}

/// The overhead of one replication in one mode, boiled down.
#[derive(Clone, Copy, Debug)]
struct Cost {
    cpu_share: f64,
    wait_ms: Option<(f64, f64)>,
    request_ms: Option<(f64, f64)>,
    messages_per_s: f64,
    bytes_per_s: f64,
}

impl Config {
    pub(super) fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let config: Self = config::parse(file, text)?;
        let invalid = |key: &str, message: String| ConfigError::invalid(file, text, key, message);
        let results = config.deadlines.len().saturating_mul(config.modes.len());
        limits::replications("replications", config.replications, results, &invalid)?;
        limits::full(config.full.as_ref(), results, &invalid)?;
        limits::points("scenario", config.scenario.count(&config.faults), results, &invalid)?;
        if config.deadlines.iter().any(|deadline| deadline.0 == Nanos::ZERO) {
            return Err(invalid("deadlines", "must be more than zero".into()));
        }
        if !config.deadlines.contains(&config.deadline) {
            return Err(invalid("deadline", "must be one of the deadlines".into()));
        }
        if (1..config.modes.len()).any(|index| config.modes[..index].contains(&config.modes[index])) {
            return Err(invalid("modes", "names one twice".into()));
        }
        for profile in [Profile::Quick, Profile::Full] {
            let taken: Vec<_> = limits::taken_by_full(config.full.as_ref(), profile).into_iter().collect();
            precision::check(
                &config.precision,
                config.full.as_ref(),
                profile,
                config.replications,
                &[Row::ESTIMATES, CostRow::ESTIMATES],
                Some(&config.deadlines),
                &invalid,
            )?;
            for swept in config.points() {
                if swept.monitor_shares_cpu {
                    let message = "is no mode of this kind of study: a monitor on the node is its watchdog";
                    return Err(invalid("scenario.monitor_shares_cpu", message.into()));
                }
                for mode in config.modes.iter() {
                    let scenario = config.scenario(&swept, *mode, profile);
                    scenario.check().map_err(|error| complain(&error, "scenario", &taken, &invalid))?;
                }
            }
        }
        Ok(config)
    }

    pub(super) fn points(&self) -> Vec<Swept> {
        self.scenario.points(&self.faults)
    }

    fn scenario(&self, swept: &Swept, mode: Mode, profile: Profile) -> Scenario {
        let deadlines = Deadlines::all(self.deadline.0);
        let scenario = self.scenario.scenario(&self.faults, swept, self.full.as_ref(), profile);
        Scenario { mode, deadlines, ..scenario }
    }

    /// Every scenario that it simulates, of its first mode.
    #[cfg(test)]
    pub(super) fn scenarios(&self) -> Vec<Scenario> {
        self.points().iter().map(|swept| self.scenario(swept, self.modes[0], Profile::Quick)).collect()
    }

    pub(super) fn run(&self, name: &str, context: Context<'_>) -> Result<(), StudyError> {
        let replications = Full::replications(self.full.as_ref(), context.profile, self.replications);
        let seed = context.dir.manifest().seed;
        let rows = context
            .run_points(name, &self.points(), replications, |task| self.point(name, seed, context.profile, &task))?;
        let (rows, costs): (Vec<Vec<Row>>, Vec<Vec<CostRow>>) = rows.into_iter().unzip();
        context.dir.write_csv(name, &Row::table(rows.iter().flatten()))?;
        context.dir.write_csv(&overhead_name(name), &CostRow::table(costs.iter().flatten()))?;
        Ok(())
    }

    fn point(
        &self,
        name: &str,
        seed: u64,
        profile: Profile,
        task: &Task<'_, Swept>,
    ) -> Result<(Vec<Row>, Vec<CostRow>), TaskError> {
        let swept = task.point;
        // The mode is no part of the key: that is what makes their random numbers common.
        let point = swept.stream_point();
        let run = |streams: &Streams| {
            let run = |mode: &Mode| {
                task.check()?;
                self.outcome(&self.scenario(swept, *mode, profile), streams)
            };
            let outcomes = self.modes.iter().map(run).collect::<Result<_, TaskError>>()?;
            let unwatched = without_faults(&self.scenario(swept, Mode::Read, profile));
            Ok((outcomes, cost(&unwatched, &overhead(&unwatched, streams)?, Traffic::default())))
        };
        let precision = precision::of_profile(&self.precision, self.full.as_ref(), profile);
        let rows = |runs: &[(Vec<Outcome>, Cost)]| self.rows(swept, runs);
        sample(task, (seed, name, &point), precision, run, rows, |precision, (rows, costs)| {
            // A column of one table is none of the other's, whose rows then don't mind.
            precision.judge(rows) & precision.judge(costs)
        })
    }

    /// The rows of both tables of one point.
    fn rows(&self, swept: &Swept, runs: &[(Vec<Outcome>, Cost)]) -> (Vec<Row>, Vec<CostRow>) {
        let (mut rows, mut costs) = (Vec::new(), Vec::new());
        for (place, mode) in self.modes.iter().enumerate() {
            for level in FailureLevel::ALL.map(Some).into_iter().chain([None]) {
                for (index, deadline) in self.deadlines.iter().enumerate() {
                    let of_run = |(run, _): &(Vec<Outcome>, Cost)| of_level(&run[place].detection[index], level);
                    let of_runs: Vec<LevelQos> = runs.iter().map(of_run).collect();
                    let level = level.map_or(ALL_LEVELS, FailureLevel::name);
                    rows.push(row(swept, *mode, level, deadline.0, &of_runs));
                }
            }
            let of_runs: Vec<(Cost, Cost)> =
                runs.iter().map(|(run, unwatched)| (run[place].cost, *unwatched)).collect();
            costs.push(cost_row(swept, *mode, &of_runs));
        }
        (rows, costs)
    }

    fn outcome(&self, scenario: &Scenario, streams: &Streams) -> Result<Outcome, TaskError> {
        let deadlines: Vec<Deadlines> = self.deadlines.iter().map(|d| Deadlines::all(d.0)).collect();
        let floor = self.deadlines.iter().map(|d| d.0).min().unwrap_or(Nanos::ZERO);
        let run = record(scenario, streams, floor)?;
        let marks = |mode| if mode == Mode::Watchdog { run.nodes.iter() } else { [].iter() };
        let marks = marks(scenario.mode).flat_map(|node| node.marks(&scenario.deadlines));
        let reports = marks.filter(|mark| mark.at >= scenario.warm_up).count() as u64;
        let healthy = without_faults(scenario);
        let measured = overhead(&healthy, streams)?;
        Ok(Outcome {
            detection: detection(&run, &deadlines),
            cost: cost(&healthy, &measured, Traffic::of_reports(reports)),
        })
    }

    pub(super) fn present(&self, name: &str, dir: &ResultsDir) -> Result<Presentation, StudyError> {
        let (table, costs) = (dir.read_csv(name)?, dir.read_csv(&overhead_name(name))?);
        let figures = figures::all(name, &table, &costs, self.deadline.0)
            .ok_or_else(|| StudyError::Table(name.to_owned(), "modes"))?;
        let tables = vec![(format!("{name}.csv"), table), (format!("{}.csv", overhead_name(name)), costs)];
        Ok(Presentation { figures, tables })
    }
}

fn overhead_name(name: &str) -> String {
    format!("{name}-overhead")
}

fn without_faults(scenario: &Scenario) -> Scenario {
    let mut healthy = scenario.clone();
    healthy.faults.arrivals = Arrivals::Never;
    healthy
}

/// `reports` were sent in the run with faults, which is as long as the one without.
fn cost(scenario: &Scenario, measured: &Overhead, reports: Traffic) -> Cost {
    let seconds = measured.time.as_secs_f64();
    let traffic = measured.traffic.and(reports);
    Cost {
        cpu_share: measured.cpu_share(),
        wait_ms: mean_and_p99(&measured.waits),
        request_ms: mean_and_p99(&measured.served_in),
        messages_per_s: traffic.messages() as f64 / seconds,
        bytes_per_s: traffic.bytes(scenario.mode) as f64 / seconds,
    }
}

/// Of one run, in milliseconds; `None` of nothing.
fn mean_and_p99(times: &[Nanos]) -> Option<(f64, f64)> {
    let mut times: Vec<f64> = times.iter().map(|time| time.as_millis_f64()).collect();
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    stats::quantile(&mut times, 0.99).map(|p99| (mean, p99.value))
}

/// The replications of one point, mode, level and deadline together.
fn row(swept: &Swept, mode: Mode, level: &str, deadline: Nanos, runs: &[LevelQos]) -> Row {
    let mut all = LevelQos::default();
    runs.iter().for_each(|run| all.merge(run));
    Row {
        mode,
        load: swept.load,
        failures_per_minute: swept.failures_per_minute,
        sessions: swept.sessions,
        poll_ms: swept.poll_interval.as_millis_f64(),
        network_loss: swept.network_loss,
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
        query_accuracy: pooled::query_accuracy(runs),
        precision: pooled::share(runs, |run| run.right_alarms, |run| run.right_alarms + run.false_positives),
        recall: pooled::share(runs, |run| run.detected, |run| run.detected + run.missed),
    }
}

/// The replications of one point and mode, each beside the same run unwatched.
fn cost_row(swept: &Swept, mode: Mode, runs: &[(Cost, Cost)]) -> CostRow {
    let over_runs = |of: &dyn Fn(&(Cost, Cost)) -> Option<f64>| -> Option<Estimate> {
        stats::mean(&runs.iter().filter_map(of).collect::<Vec<f64>>())
    };
    let added = |part: fn((f64, f64)) -> f64| {
        over_runs(&|(watched, unwatched)| Some(part(watched.request_ms?) - part(unwatched.request_ms?)))
    };
    CostRow {
        mode,
        load: swept.load,
        sessions: swept.sessions,
        poll_ms: swept.poll_interval.as_millis_f64(),
        network_loss: swept.network_loss,
        replications: runs.len() as u64,
        precision_reached: String::new(),
        cpu_share: over_runs(&|(run, _)| Some(run.cpu_share)),
        agent_wait_ms: over_runs(&|(run, _)| run.wait_ms.map(|(mean, _)| mean)),
        agent_wait_p99_ms: over_runs(&|(run, _)| run.wait_ms.map(|(_, p99)| p99)),
        request_ms: over_runs(&|(run, _)| run.request_ms.map(|(mean, _)| mean)),
        request_p99_ms: over_runs(&|(run, _)| run.request_ms.map(|(_, p99)| p99)),
        added_request_ms: added(|(mean, _)| mean),
        added_request_p99_ms: added(|(_, p99)| p99),
        messages_per_s: over_runs(&|(run, _)| Some(run.messages_per_s)),
        bytes_per_s: over_runs(&|(run, _)| Some(run.bytes_per_s)),
    }
}
