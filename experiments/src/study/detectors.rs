//! How well each detector tells slow from dead, in each way of watching, under each load, in simulation.
//!
//! Each replication is simulated once for each way of watching, on the same workload, faults and random numbers; all
//! detectors, with all settings of their knobs, are replayed on what the monitor observed in it. A row of the first
//! table is one combination of the swept values, one way of watching, one level, one detector and one setting; a row of
//! the second, `NAME-least`, says how fast that detector can be made there without erring more often than is tolerated.
//!
//! # The detectors
//! Every detector is of `backdoor_core::detector`; what is chosen is which of its parameters is swept, its knob, and what
//! it is told of the entity. The rest stands in the config.
//!
//! | detector | knob | at the start it is told | levels |
//! |---|---|---|---|
//! | `deadline` | the deadline | nothing | all |
//! | `duty` | the deadline, the same at all levels, on the node's clock | nothing | all |
//! | `nfd-e` | margin α | the period | OS, application |
//! | `2w-fd` | the margin | the period | OS, application |
//! | `bertier` | weight φ of the mean absolute error; γ and β as in the paper, no margin before | the period | OS, application |
//! | `phi-accrual` | threshold Φ | the period, as the first interval | all |
//! | `phi-exponential` | threshold Φ | the period, as the first interval | all |
//! | `satzger` | stretch | the period, as the first interval | all |
//! | `pull-score` | the score's poll interval | nothing | all |
//!
//! The *period* of an operating system's counter is the tick interval, that of an application the mean turn of its loop on
//! an idle node: sleep, jitter and work. A session has none: it answers requests and waits for more, and what it is told
//! where it must be told something is the mean interval between requests. Its intervals include those in which it waited,
//! for whoever becomes active has made progress.
//!
//! Left out, and where:
//! * `nfd-e`, `2w-fd` and `bertier` at the session level: they expect heartbeat *i* at *i* periods after the first.
//! * NFD-S, NFD-U, and SFD's cutoff at every level: they must know when heartbeat *i* was sent, or is expected. A counter
//!   counts the steps that were done. A tick that comes too late replaces the next one, and a loop sleeps after its work, so
//!   whatever is late once moves all later numbers, and no schedule that is fixed at the start holds. Without its cutoff
//!   SFD is the deadline detector.

mod candidates;
mod figures;

use super::pooled::mistakes_per_hour;
use super::row::row;
use super::scenario::{FaultConfig, ScenarioConfig, Swept, complain};
use super::{Context, Full, Presentation, Profile, StudyError, limits, replicate};
use crate::config::{self, ConfigError, OneOrMany, Span};
use crate::results::ResultsDir;
use crate::runner::{Task, TaskError};
use crate::stats::{self, Estimate};
use backdoor_core::Nanos;
use backdoor_core::progress_box::FailureLevel;
use backdoor_sim::cluster::mode::Mode;
use backdoor_sim::cluster::{Scenario, observe};
use backdoor_sim::metrics::LevelQos;
use candidates::{Candidate, Detectors};
use serde::Deserialize;

/// A study of detectors.
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
    /// Most false positives per entity and hour that the upper bound may allow for, in the second table.
    tolerance_per_hour: f64,
    /// Least share of their up time for which entities are trusted: who always suspects errs seldom.
    accuracy: f64,
    /// Least share of the failures that is detected: who overlooks those that are hard to find finds the rest quickly. Some
    /// are mended so soon after they took effect that nobody could.
    recall: f64,
    compared: Compared,
    detectors: Detectors,
    #[serde(default)]
    scenario: ScenarioConfig,
    #[serde(default)]
    faults: FaultConfig,
    full: Option<Full>,
}

/// How ways of watching are compared.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Compared {
    /// With this detector.
    detector: String,
    /// At most this mean detection time.
    detection_time: Span,
}

row! {
    /// How well a detector does. Times are in milliseconds, rates per entity and hour of its up time; the query accuracy
    /// counts all time in which an entity was up and suspected.
    struct Row {
        mode: Mode,
        load: u64,
        failures_per_minute: f64,
        sessions: u64,
        poll_ms: f64,
        network_loss: f64,
        level: String,
        detector: String,
        knob: String,
        setting: f64,
        replications: u64,
        entity_hours: f64,
        failures: u64,
        detected: u64,
        missed: u64,
        false_positives: u64,
    }
    estimates {
        false_positives_per_hour,
        detection_ms,
        detection_p99_ms,
        mistake_duration_ms,
        query_accuracy,
    }
}

row! {
    /// The setting with the shortest mean detection time whose false positives are tolerated. Without any, the estimates
    /// are empty, and so is the setting.
    struct LeastRow {
        mode: Mode,
        load: u64,
        failures_per_minute: f64,
        sessions: u64,
        poll_ms: f64,
        network_loss: f64,
        level: String,
        detector: String,
        tolerance_per_hour: f64,
        knob: String,
        setting: String,
    }
    estimates {
        detection_ms,
        detection_p99_ms,
        false_positives_per_hour,
        query_accuracy,
    }
}

/// What one replication brings for one setting at one level.
#[derive(Clone, Debug)]
struct Outcome {
    /// Without the times of its false positives, which can be very many.
    quality: LevelQos,
    mistakes_ended: u64,
    mistakes_took: Nanos,
}

impl Config {
    pub(super) fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let config: Self = config::parse(file, text)?;
        let invalid = |key: &str, message: String| ConfigError::invalid(file, text, key, message);
        config.detectors.check().map_err(|(key, reason)| invalid(&key, reason))?;
        let settings: usize = config.detectors.candidates().iter().map(Candidate::rungs).sum();
        if settings == 0 {
            return Err(invalid("detectors", "has no detector in it".into()));
        }
        let results = settings.saturating_mul(config.modes.len()).saturating_mul(FailureLevel::ALL.len());
        limits::replications("replications", config.replications, results, &invalid)?;
        limits::full(config.full.as_ref(), results, &invalid)?;
        limits::points("scenario", config.scenario.count(&config.faults), results, &invalid)?;
        if (1..config.modes.len()).any(|index| config.modes[..index].contains(&config.modes[index])) {
            return Err(invalid("modes", "names one twice".into()));
        }
        if !(config.tolerance_per_hour.is_finite() && config.tolerance_per_hour > 0.0) {
            return Err(invalid("tolerance_per_hour", "must be more than zero".into()));
        }
        for (key, share) in [("accuracy", config.accuracy), ("recall", config.recall)] {
            if !(0.0..1.0).contains(&share) {
                return Err(invalid(key, "must lie from 0 to less than 1".into()));
            }
        }
        if !config.detectors.candidates().iter().any(|candidate| candidate.name == config.compared.detector) {
            return Err(invalid("compared.detector", "must be one of the detectors".into()));
        }
        for profile in [Profile::Quick, Profile::Full] {
            let taken: Vec<_> = limits::taken_by_full(config.full.as_ref(), profile).into_iter().collect();
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
        let scenario = self.scenario.scenario(&self.faults, swept, self.full.as_ref(), profile);
        Scenario { mode, ..scenario }
    }

    #[cfg(test)]
    pub(super) fn scenarios(&self) -> Vec<Scenario> {
        let of = |swept| self.modes.iter().map(move |mode| self.scenario(&swept, *mode, Profile::Quick));
        self.points().into_iter().flat_map(of).collect()
    }

    pub(super) fn run(&self, name: &str, context: Context<'_>) -> Result<(), StudyError> {
        let replications = Full::replications(self.full.as_ref(), context.profile, self.replications);
        let seed = context.dir.manifest().seed;
        let rows = context
            .run_points(name, &self.points(), replications, |task| self.point(name, seed, context.profile, &task))?;
        let rows: Vec<Row> = rows.into_iter().flatten().collect();
        context.dir.write_csv(name, &Row::table(&rows))?;
        context.dir.write_csv(&least_name(name), &LeastRow::table(&self.least(&rows)))?;
        Ok(())
    }

    fn point(&self, name: &str, seed: u64, profile: Profile, task: &Task<'_, Swept>) -> Result<Vec<Row>, TaskError> {
        let swept = task.point;
        let candidates = self.detectors.candidates();
        // The mode is no part of the key: that is what makes their random numbers common.
        let point = swept.stream_point();
        // By replication, mode, detector and setting.
        let runs: Vec<Vec<Vec<Vec<[Outcome; 3]>>>> =
            replicate(task, (seed, name, &point), task.replications.clone(), |streams| {
                let run = |mode: &Mode| {
                    task.check()?;
                    let scenario = self.scenario(swept, *mode, profile);
                    let run = observe(&scenario, streams)?;
                    let outcomes = |candidate: &Candidate| -> Vec<_> {
                        candidate.qualities(&scenario, &run).into_iter().map(|levels| levels.map(Outcome::of)).collect()
                    };
                    Ok(candidates.iter().map(outcomes).collect())
                };
                self.modes.iter().map(run).collect()
            })?;
        let mut rows = Vec::new();
        for (place, mode) in self.modes.iter().enumerate() {
            for level in FailureLevel::ALL {
                for (which, candidate) in candidates.iter().enumerate().filter(|(_, c)| c.watches(level)) {
                    for (rung, setting) in candidate.settings().into_iter().enumerate() {
                        let of_run =
                            |run: &Vec<Vec<Vec<[Outcome; 3]>>>| run[place][which][rung][level as usize].clone();
                        let of_runs: Vec<Outcome> = runs.iter().map(of_run).collect();
                        rows.push(row(swept, *mode, level, (candidate, setting), &of_runs));
                    }
                }
            }
        }
        Ok(rows)
    }

    /// Whether a setting with this query accuracy, and so many failures detected and missed, is one to compare.
    fn is_fit(&self, accuracy: Option<f64>, detected: f64, missed: f64) -> bool {
        accuracy.is_some_and(|accuracy| accuracy >= self.accuracy) && detected / (detected + missed) >= self.recall
    }

    /// Of each run of rows that differ in the setting alone, the one to choose.
    fn least(&self, rows: &[Row]) -> Vec<LeastRow> {
        let of = |settings: &[Row]| {
            let tolerated = |row: &&Row| {
                let most = row.false_positives_per_hour.and_then(|rate| rate.high);
                let accuracy = row.query_accuracy.map(|accuracy| accuracy.value);
                most.is_some_and(|most| most <= self.tolerance_per_hour)
                    && self.is_fit(accuracy, row.detected as f64, row.missed as f64)
            };
            let time = |row: &&Row| row.detection_ms.map_or(f64::INFINITY, |time| time.value);
            let best = settings.iter().filter(tolerated).min_by(|a, b| time(a).total_cmp(&time(b)));
            let best = best.filter(|row| row.detection_ms.is_some());
            let any = &settings[0];
            LeastRow {
                mode: any.mode,
                load: any.load,
                failures_per_minute: any.failures_per_minute,
                sessions: any.sessions,
                poll_ms: any.poll_ms,
                network_loss: any.network_loss,
                level: any.level.clone(),
                detector: any.detector.clone(),
                tolerance_per_hour: self.tolerance_per_hour,
                knob: any.knob.clone(),
                setting: best.map_or(String::new(), |row| row.setting.to_string()),
                detection_ms: best.and_then(|row| row.detection_ms),
                detection_p99_ms: best.and_then(|row| row.detection_p99_ms),
                false_positives_per_hour: best.and_then(|row| row.false_positives_per_hour),
                query_accuracy: best.and_then(|row| row.query_accuracy),
            }
        };
        let same = |a: &Row, b: &Row| a.setting < b.setting && a.detector == b.detector && a.level == b.level;
        rows.chunk_by(same).map(of).collect()
    }

    pub(super) fn present(&self, name: &str, dir: &ResultsDir) -> Result<Presentation, StudyError> {
        let (table, least) = (dir.read_csv(name)?, dir.read_csv(&least_name(name))?);
        if table.is_empty() {
            return Err(StudyError::NoRows(name.to_owned()));
        }
        let figures =
            figures::all(name, self, &table, &least).ok_or_else(|| StudyError::Table(name.to_owned(), "detectors"))?;
        // The whole table has thousands of rows: it is for programs.
        Ok(Presentation { figures, tables: vec![(format!("{}.csv", least_name(name)), least)] })
    }
}

fn least_name(name: &str) -> String {
    format!("{name}-least")
}

impl Outcome {
    fn of(mut quality: LevelQos) -> Self {
        let durations = std::mem::take(&mut quality.mistake_durations);
        quality.mistake_recurrences = Vec::new();
        let mistakes_took = durations.iter().copied().sum();
        Outcome { quality, mistakes_ended: durations.len() as u64, mistakes_took }
    }
}

/// Pools the replications of one setting; intervals are those of the spread between replications, where there is one.
fn row(
    swept: &Swept,
    mode: Mode,
    level: FailureLevel,
    (candidate, setting): (&Candidate, f64),
    runs: &[Outcome],
) -> Row {
    let mut all = LevelQos::default();
    runs.iter().for_each(|run| all.merge(&run.quality));
    let qualities: Vec<LevelQos> = runs.iter().map(|run| run.quality.clone()).collect();
    let mut detection: Vec<f64> = all.detection_times.iter().map(|time| time.as_millis_f64()).collect();
    let over_runs = |of: &dyn Fn(&Outcome) -> (f64, f64)| {
        let mean = stats::ratio(&runs.iter().map(of).collect::<Vec<_>>())?;
        Some(mean.within(0.0, f64::INFINITY))
    };
    let took = |times: &[Nanos]| times.iter().map(|time| time.as_millis_f64()).sum::<f64>();
    Row {
        mode,
        load: swept.load,
        failures_per_minute: swept.failures_per_minute,
        sessions: swept.sessions,
        poll_ms: swept.poll_interval.as_millis_f64(),
        network_loss: swept.network_loss,
        level: level.name().to_owned(),
        detector: candidate.name.to_owned(),
        knob: candidate.knob.to_owned(),
        setting,
        replications: runs.len() as u64,
        entity_hours: all.up_time.as_secs_f64() / 3600.0,
        failures: all.failures,
        detected: all.detected,
        missed: all.missed,
        false_positives: all.false_positives,
        false_positives_per_hour: mistakes_per_hour(&qualities),
        detection_ms: over_runs(&|run| (took(&run.quality.detection_times), run.quality.detected as f64)),
        detection_p99_ms: stats::quantile(&mut detection, 0.99),
        mistake_duration_ms: over_runs(&|run| (run.mistakes_took.as_millis_f64(), run.mistakes_ended as f64)),
        query_accuracy: accuracy(runs),
    }
}

/// Probability that an entity which is up is trusted, whatever it would be suspected for.
fn accuracy(runs: &[Outcome]) -> Option<Estimate> {
    let suspected = |run: &Outcome| (run.quality.mistake_time + run.quality.lingering).as_secs_f64();
    let pairs: Vec<(f64, f64)> = runs.iter().map(|run| (suspected(run), run.quality.up_time.as_secs_f64())).collect();
    let wrong = stats::ratio(&pairs)?;
    let right = |bound: Option<f64>| bound.map(|bound| 1.0 - bound);
    let accuracy = Estimate { value: 1.0 - wrong.value, low: right(wrong.high), high: right(wrong.low) };
    Some(accuracy.within(0.0, 1.0))
}
