//! What people who run failure detectors complain about, case by case, in simulation: our detector beside the others as
//! they are used.
//!
//! Cases are in `trouble.rs`, contenders in `contenders.rs`. A row of the table is one case and one contender. All watch the
//! same node, workload, faults and random numbers.

mod contenders;
mod trouble;

use super::pooled::{mean_ms, mistakes_per_hour, share};
use super::row::row;
use super::{Context, Full, Presentation, Profile, StudyError, limits, replicate};
use crate::config::{self, ConfigError, Span};
use crate::figures::{Figure, Heatmap, Panel};
use crate::results::{ResultsDir, Table};
use crate::runner::{Task, TaskError};
use crate::stats;
use backdoor_core::Nanos;
use backdoor_core::detector::{DeadlineDetector, Duty, MAX_WINDOW};
use backdoor_core::progress_box::{EntityRecord, FailureLevel};
use backdoor_sim::cluster::mode::Mode;
use backdoor_sim::cluster::{NodeObservation, NodeSuspicions, Scenario, observe, suspicions};
use backdoor_sim::metrics::{LevelQos, judged};
use backdoor_sim::streams::Streams;
use contenders::Contender;
use serde::Deserialize;
use trouble::Case;

/// A study of cases.
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
    poll: Span,
    window: usize,
    duration: Span,
    full: Option<Full>,
}

row! {
    /// A row of the table. Times are in milliseconds, rates per entity and hour of its up time, at the case's level.
    struct Row {
        case: String,
        contender: String,
        mode: Mode,
        level: String,
        deadline_ms: f64,
        replications: u64,
        entity_hours: f64,
        failures: u64,
        detected: u64,
        false_positives: u64,
    }
    estimates {
        false_positives_per_hour,
        recall,
        detection_ms,
    }
}

impl Config {
    pub(super) fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let config: Self = config::parse(file, text)?;
        let invalid = |key: &str, message: String| ConfigError::invalid(file, text, key, message);
        limits::replications("replications", config.replications, Contender::ALL.len(), &invalid)?;
        limits::full(config.full.as_ref(), Contender::ALL.len(), &invalid)?;
        if !(1..=MAX_WINDOW).contains(&config.window) {
            return Err(invalid("window", format!("must be from 1 to {MAX_WINDOW}")));
        }
        for profile in [Profile::Quick, Profile::Full] {
            let taken: Vec<_> = limits::taken_by_full(config.full.as_ref(), profile).into_iter().collect();
            let named = [("duration", "duration"), ("poll_interval", "poll")];
            let elsewhere: Vec<_> = taken.iter().copied().chain(named).collect();
            for case in Case::ALL {
                for contender in Contender::ALL {
                    let scenario = config.scenario(case, contender, profile);
                    scenario.check().map_err(|error| super::scenario::complain(&error, "", &elsewhere, &invalid))?;
                }
            }
        }
        let period = Case::Calm.scenario(Contender::Deadline, config.times(), config.duration.0).workload.loop_interval;
        if config.deadline.0 <= period * 2 {
            return Err(invalid("deadline", format!("must be more than two turns of a loop, {}", period * 2)));
        }
        if config.poll.0 >= config.deadline.0 {
            return Err(invalid("poll", format!("must be less than the deadline, {}", config.deadline.0)));
        }
        Ok(config)
    }

    pub(super) fn points(&self) -> Vec<Case> {
        Case::ALL.to_vec()
    }

    fn times(&self) -> (Nanos, Nanos) {
        (self.deadline.0, self.poll.0)
    }

    fn scenario(&self, case: Case, contender: Contender, profile: Profile) -> Scenario {
        let duration = match (profile, &self.full) {
            (Profile::Full, Some(Full { duration: Some(duration), .. })) => *duration,
            _ => self.duration,
        };
        case.scenario(contender, self.times(), duration.0)
    }

    #[cfg(test)]
    pub(super) fn scenarios(&self) -> Vec<Scenario> {
        let of = |case: Case| Contender::ALL.map(|contender| self.scenario(case, contender, Profile::Quick));
        Case::ALL.into_iter().flat_map(of).collect()
    }

    pub(super) fn run(&self, name: &str, context: Context<'_>) -> Result<(), StudyError> {
        let replications = Full::replications(self.full.as_ref(), context.profile, self.replications);
        let seed = context.dir.manifest().seed;
        let rows = context.run_points(name, &self.points(), replications, |task| {
            let case = *task.point;
            let runs = replicate(&task, (seed, name, case.name()), task.replications.clone(), |streams| {
                self.outcomes(case, context.profile, &task, streams)
            })?;
            let of = |(place, contender): (usize, &Contender)| {
                let runs: Vec<LevelQos> = runs.iter().map(|run| run[place].clone()).collect();
                self.row(case, *contender, &runs)
            };
            Ok(Contender::ALL.iter().enumerate().map(of).collect::<Vec<Row>>())
        })?;
        let rows: Vec<Row> = rows.into_iter().flatten().collect();
        context.dir.write_csv(name, &Row::table(&rows))?;
        Ok(())
    }

    /// One replication: by contender, at the case's level.
    fn outcomes(
        &self,
        case: Case,
        profile: Profile,
        task: &Task<'_, Case>,
        streams: &Streams,
    ) -> Result<Vec<LevelQos>, TaskError> {
        // Those who are told by timers share a run for each way of watching.
        let mut observed: Vec<(Mode, Vec<NodeObservation>)> = Vec::new();
        let mut outcomes = Vec::new();
        for contender in Contender::ALL {
            task.check()?;
            let scenario = self.scenario(case, contender, profile);
            let nodes = match contender {
                Contender::Ours => suspicions(&scenario, streams, |record, now| Duty::new(record.deadline, now))?,
                Contender::Watchdog => {
                    suspicions(&scenario, streams, |record, now| DeadlineDetector::new(record.deadline, now))?
                }
                _ => {
                    if !observed.iter().any(|(mode, _)| *mode == scenario.mode) {
                        observed.push((scenario.mode, observe(&scenario, streams)?.nodes));
                    }
                    let nodes = observed.iter().find(|(mode, _)| *mode == scenario.mode).map(|(_, nodes)| nodes);
                    nodes.into_iter().flatten().map(|node| self.by_timers(contender, &scenario, node)).collect()
                }
            };
            let told: Vec<NodeSuspicions> =
                nodes.into_iter().map(|node| only_told(case, contender, &scenario, node)).collect();
            outcomes.push(judged(&scenario, &told)[case.level() as usize].clone());
        }
        Ok(outcomes)
    }

    fn by_timers(&self, contender: Contender, scenario: &Scenario, node: &NodeObservation) -> NodeSuspicions {
        let make = |record: &EntityRecord, now: Nanos| {
            let work = &scenario.workload;
            let period = match record.level {
                FailureLevel::Os => work.tick_interval,
                FailureLevel::Application => work.loop_interval + work.loop_jitter.mean() + work.loop_work,
                FailureLevel::Session if contender.needs_period() => return None,
                FailureLevel::Session => work.request_interval.mean(),
            };
            // What is less regular than the deadline allows can't be watched any tighter.
            let deadline = self.deadline.0.max(period * 2);
            contender.detector((deadline, self.window), period, record, now)
        };
        NodeSuspicions {
            entities: node.lives.iter().map(|life| (life.slot, life.record.level)).collect(),
            suspicions: node.by_timers(make),
            failures: node.failures.clone(),
        }
    }

    fn row(&self, case: Case, contender: Contender, runs: &[LevelQos]) -> Row {
        let mut all = LevelQos::default();
        runs.iter().for_each(|run| all.merge(run));
        let watches = !(contender.needs_period() && case.level() == FailureLevel::Session);
        let if_watched = |estimate: Option<stats::Estimate>| estimate.filter(|_| watches);
        Row {
            case: case.name().to_owned(),
            contender: contender.name().to_owned(),
            mode: contender.mode(),
            level: case.level().name().to_owned(),
            deadline_ms: self.deadline.0.as_millis_f64(),
            replications: runs.len() as u64,
            entity_hours: all.up_time.as_secs_f64() / 3600.0,
            failures: all.failures,
            detected: all.detected,
            false_positives: all.false_positives,
            false_positives_per_hour: if_watched(mistakes_per_hour(runs)),
            recall: if_watched(share(runs, |run| run.detected, |run| run.detected + run.missed)),
            detection_ms: if_watched(mean_ms(runs, |run| &run.detection_times)),
        }
    }

    pub(super) fn present(&self, name: &str, dir: &ResultsDir) -> Result<Presentation, StudyError> {
        let table = dir.read_csv(name)?;
        let figure = self.figure(name, &table).ok_or_else(|| StudyError::Table(name.to_owned(), "cases"))?;
        Ok(Presentation { figures: vec![figure], tables: vec![(format!("{name}.csv"), table)] })
    }

    fn figure(&self, name: &str, table: &Table) -> Option<Figure> {
        let mut figure = Figure::new(name)
            .title("What goes wrong, and who is fooled by it")
            .caption(format!(
                "Rows: what troubles the node or its observer, besides a failure every second or so that lasts half a second. \
                 Columns: duty over READs; then, over heartbeats, a plain timeout and the detectors that learn; Mu's pull score over \
                 READs, and a watchdog on the node. All but Bertier's, whose parameters are published, are set to find a crash on \
                 an untroubled node after about {}. Above: false positives per entity and hour, at the level of the row's failures. Middle: share of \
                 the failures that were found before they were over. Below: mean time to find them, in milliseconds; who is suspected already is found at once. \
                 Intervals are in the table. Empty: the detector expects a fixed period, and sessions have none.",
                self.deadline.0,
            ))
            .columns(1);
        type Show = fn(f64) -> String;
        let parts: [(&str, &str, bool, Show); 3] = [
            ("false_positives_per_hour", "false positives per entity and hour", true, rate),
            ("recall", "failures that were found", false, |share| format!("{:.0}%", share * 100.0)),
            ("detection_ms", "time to find them, ms", true, |ms| format!("{ms:.0}")),
        ];
        for (column, title, log, show) in parts {
            let mut map = Heatmap::new("", "").columns(Contender::ALL.map(Contender::short));
            if log {
                map = map.log();
            }
            for case in Case::ALL {
                let rows = table.filter("case", case.name());
                let cells = rows.numbers(column)?;
                map = map.row(case.title(), cells.iter().map(|cell| cell.map(|value| (value, show(value)))));
            }
            figure = figure.panel(Panel::heatmap(map).title(title));
        }
        Some(figure)
    }
}

/// Short enough for a cell.
fn rate(per_hour: f64) -> String {
    match per_hour {
        0.0 => "0".into(),
        rate if rate >= 10_000.0 => format!("{:.0}k", rate / 1e3),
        rate if rate >= 1_000.0 => format!("{:.1}k", rate / 1e3),
        rate => format!("{rate:.0}"),
    }
}

/// Without the entities that the contender is not told of.
fn only_told(case: Case, contender: Contender, scenario: &Scenario, node: NodeSuspicions) -> NodeSuspicions {
    let told = |index: usize, level| case.is_told(contender, level, index < scenario.cpu.cores);
    let kept = node.entities.into_iter().zip(node.suspicions).filter(|((slot, level), _)| told(slot.index(), *level));
    let (entities, suspicions) = kept.unzip();
    NodeSuspicions { entities, suspicions, failures: node.failures }
}
