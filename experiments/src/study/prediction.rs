//! False positives that a recording predicts, that a separate run shows, and that the simulation has.
//!
//! A point is one load. It is run in blocks: one is recorded, the next one measured, and so on, each with processes of its
//! own, so that what a machine does over minutes touches both alike. The prediction's intervals are [`predict`]'s. Beside
//! each recorder runs a monitor as a process of its own, which judges by the deadline that the parts declare: a second
//! table holds what both monitors said against what follows from the trace.

use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_core::monitor::MonitorConfig;
use backdoor_core::progress_box::FailureLevel;
use backdoor_host::clock;
use backdoor_sim::cluster::{Deadlines, record};
use backdoor_sim::metrics::{LevelQos, detection};
use serde::{Deserialize, Serialize};

use super::detection::drawn;
use super::live::{ELSEWHERE, Simulation, TAKEN, counterpart};
use super::pooled::mistakes_per_hour;
use super::row::row;
use super::scenario::complain;
use super::{Context, Presentation, Profile, StudyError, limits, replicate};
use crate::config::{self, Axis as Values, ConfigError, Span};
use crate::figures::{Axis, Figure, Panel, Point, Series};
use crate::live::detect::{DetectConfig, FailureKind};
use crate::live::detector::DetectorKind;
use crate::live::notice::{Notice, What};
use crate::live::parts::WORKER_NAME;
use crate::live::record::file::TraceFile;
use crate::live::record::{Session, start};
use crate::live::watch::WatchConfig;
use crate::qos::predict::{Block, predict, rate};
use crate::qos::trace::progress::{Mistakes, mistakes};
use crate::results::{ResultsDir, Table};
use crate::runner::{Task, TaskError};
use crate::stats::Estimate;

/// A study of predictions.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// The kind; looked at before.
    #[serde(rename = "study")]
    _study: String,
    pub(super) title: String,
    pub(super) summary: String,
    load: Values<u64>,
    deadlines: Values<Span>,
    /// What the worker and its sessions declare.
    deadline: Span,
    poll: Span,
    /// Of each kind.
    blocks: u32,
    block: Span,
    sessions: u64,
    state_bytes: usize,
    simulation: Simulation,
    full: Option<Full>,
}

/// What `[full]` sets instead.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Full {
    blocks: Option<u32>,
    block: Option<Span>,
}

/// Most blocks of each kind.
const MOST_BLOCKS: u32 = 10_000;

row! {
    /// What one deadline comes to at one level under one load. Rates are per entity and hour. The interval of
    /// `predicted_per_hour` is that of 95% of measurements, those of the others are of the mean.
    struct Row {
        load: u64,
        level: String,
        deadline_ms: f64,
        blocks: u64,
        recorded_entity_hours: f64,
        recorded_mistakes: u64,
        measured_entity_hours: f64,
        measured_mistakes: u64,
        measured_as_predicted: bool,
    }
    estimates {
        recorded_per_hour,
        predicted_per_hour,
        measured_per_hour,
        simulated_per_hour,
    }
}

row! {
    /// What monitors said by the deadlines that the entities declare, at one level under one load, in all blocks: the one
    /// that recorded, what follows from its trace, and another monitor of the same processes.
    struct Verdicts {
        load: u64,
        level: String,
        deadline_ms: f64,
        entity_hours: f64,
        by_recorder: u64,
        by_replay: u64,
        by_another_monitor: u64,
    }
    estimates {
        by_another_monitor_per_hour,
    }
}

/// What the journal keeps of a point.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Measured {
    rows: Vec<Row>,
    verdicts: Vec<Verdicts>,
}

/// What one block came to.
struct Run {
    found: Mistakes,
    by_recorder: [u64; LEVELS],
    by_another: [u64; LEVELS],
}

const LEVELS: usize = FailureLevel::ALL.len();

impl Config {
    pub(super) fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let config: Self = config::parse(file, text)?;
        let invalid = |key: &str, message: String| ConfigError::invalid(file, text, key, message);
        let deadlines = config.deadlines.len();
        limits::replications("simulation.replications", config.simulation.replications, deadlines, &invalid)?;
        limits::points("load", config.load.len(), deadlines * LEVELS, &invalid)?;
        if config.deadlines.iter().any(|deadline| deadline.0 == Nanos::ZERO) {
            return Err(invalid("deadlines", "must be more than zero".into()));
        }
        let full = config.full;
        let blocks = [("blocks", Some(config.blocks)), ("full.blocks", full.and_then(|full| full.blocks))];
        for (key, blocks) in blocks {
            if blocks.is_some_and(|blocks| !(2..=MOST_BLOCKS).contains(&blocks)) {
                return Err(invalid(key, format!("must be from 2 to {MOST_BLOCKS}, or there is no spread")));
            }
        }
        let (least, most) = (Nanos::from_millis(100), Nanos::from_secs(3600));
        for (key, block) in [("block", Some(config.block)), ("full.block", full.and_then(|full| full.block))] {
            if block.is_some_and(|block| block.0 < least || block.0 > most) {
                return Err(invalid(key, format!("must be from {least} to {most}")));
            }
        }
        let table = "simulation.scenario";
        config.simulation.scenario.check_single(table, &TAKEN, &invalid)?;
        for load in config.load.iter() {
            let parts = config.parts(*load, config.block.0, DetectConfig::default());
            parts.problem().map_err(|(key, message)| invalid(key, message))?;
            config.scenario(*load).check().map_err(|error| complain(&error, table, &ELSEWHERE, &invalid))?;
        }
        Ok(config)
    }

    pub(super) fn points(&self) -> Vec<u64> {
        self.load.iter().copied().collect()
    }

    fn scenario(&self, load: u64) -> backdoor_sim::cluster::Scenario {
        counterpart(&self.simulation.scenario, load, self.sessions, self.state_bytes, self.poll.0)
    }

    #[cfg(test)]
    pub(super) fn scenarios(&self) -> Vec<backdoor_sim::cluster::Scenario> {
        self.load.iter().map(|load| self.scenario(*load)).collect()
    }

    /// The parts of a block; what no config sets is as in `base`.
    fn parts(&self, load: u64, block: Nanos, base: DetectConfig) -> DetectConfig {
        DetectConfig {
            failure: FailureKind::None,
            deadline: self.deadline.0,
            poll: self.poll.0,
            load: u32::try_from(load).unwrap_or(u32::MAX),
            sessions: self.sessions,
            state_bytes: self.state_bytes,
            healthy: block,
            ..base
        }
    }

    fn deadlines(&self) -> Vec<Nanos> {
        self.deadlines.iter().map(|deadline| deadline.0).collect()
    }

    /// Points run one at a time: they are measurements, and would disturb each other.
    pub(super) fn run(&self, name: &str, context: Context<'_>) -> Result<(), StudyError> {
        let one_at_a_time = Context { threads: 1, ..context };
        let seed = context.dir.manifest().seed;
        let replications = self.simulation.replications;
        let measured = one_at_a_time
            .run_points(name, &self.points(), replications, |task| self.point(name, seed, &context, &task))?;
        let rows: Vec<&Row> = measured.iter().flat_map(|point| &point.rows).collect();
        context.dir.write_csv(name, &Row::table(rows))?;
        let verdicts: Vec<&Verdicts> = measured.iter().flat_map(|point| &point.verdicts).collect();
        context.dir.write_csv(&format!("{name}-verdicts"), &Verdicts::table(verdicts))?;
        Ok(())
    }

    fn point(&self, name: &str, seed: u64, context: &Context<'_>, task: &Task<'_, u64>) -> Result<Measured, TaskError> {
        let load = *task.point;
        let full = self.full.filter(|_| context.profile == Profile::Full);
        let blocks = full.and_then(|full| full.blocks).unwrap_or(self.blocks);
        let block = full.and_then(|full| full.block).unwrap_or(self.block).0;
        let (mut recorded, mut measured) = (Vec::new(), Vec::new());
        for number in 0..2 * blocks {
            let base = DetectConfig { seed: seed + u64::from(number), ..DetectConfig::of(FailureKind::None)? };
            let run = self.block(&self.parts(load, block, base), context)?;
            task.check()?;
            if number % 2 == 0 { recorded.push(run) } else { measured.push(run) }
        }
        let simulated = self.simulate(name, seed, load, task)?;
        let deadlines = self.deadlines();
        let mut rows = Vec::new();
        for level in FailureLevel::ALL {
            for (index, deadline) in deadlines.iter().enumerate() {
                let blocks_of = |runs: &[Run]| -> Vec<Block> {
                    let block = |run: &Run| Block {
                        mistakes: run.found.mistakes[level as usize][index],
                        exposure: run.found.entity_s[level as usize] / 3600.0,
                    };
                    runs.iter().map(block).collect()
                };
                let simulated: Vec<LevelQos> = simulated.iter().map(|run| run[index].of(level).clone()).collect();
                rows.push(row(load, level, *deadline, &blocks_of(&recorded), &blocks_of(&measured), &simulated));
            }
        }
        recorded.append(&mut measured);
        let verdicts = FailureLevel::ALL.map(|level| self.verdicts(load, level, &recorded)).into();
        Ok(Measured { rows, verdicts })
    }

    /// Starts everybody, records, and ends everybody.
    fn block(&self, parts: &DetectConfig, context: &Context<'_>) -> Result<Run, TaskError> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("trace.csv");
        let (running, address) = start(parts, context.interrupt)?;
        let mut another = running.monitor(parts)?;
        let monitor = MonitorConfig::polling_every(parts.poll);
        let watch =
            WatchConfig { node: address, monitor, detector: DetectorKind::Deadline, spin: parts.spin, recover: false };
        let mut session = Session::new(watch, TraceFile::create(&path, false)?);
        let began = clock::now();
        session.run(parts.healthy, context.interrupt, &mut |_| {})?;
        let (by_recorder, _) = session.end(false)?;
        let mut by_another = [0; LEVELS];
        while let Some(Notice { at_ns, what }) = another.receive(Duration::ZERO)? {
            let What::Suspected { entity, .. } = what else { continue };
            let level = FailureLevel::ALL.iter().position(|level| level.name() == entity.level);
            if let (true, Some(level)) = (at_ns >= began.0, level) {
                by_another[level] += 1;
            }
        }
        drop((another, running));
        let counts = |row: &crate::live::record::format::Row| {
            row.level != FailureLevel::Application || row.entity == WORKER_NAME
        };
        let found = mistakes(&path, &self.deadlines(), counts, context.interrupt)?;
        Ok(Run { found, by_recorder: by_recorder.suspicions, by_another })
    }

    /// By replication, what every deadline comes to.
    fn simulate(
        &self,
        name: &str,
        seed: u64,
        load: u64,
        task: &Task<'_, u64>,
    ) -> Result<Vec<Vec<backdoor_sim::metrics::Detection>>, TaskError> {
        let deadlines: Vec<Deadlines> = self.deadlines().into_iter().map(Deadlines::all).collect();
        let floor = self.deadlines().into_iter().min().unwrap_or(Nanos::ZERO);
        let scenario = self.scenario(load);
        replicate(task, (seed, name, &format!("load={load}")), task.replications.clone(), |streams| {
            Ok(detection(&record(&scenario, streams, floor)?, &deadlines))
        })
    }

    fn verdicts(&self, load: u64, level: FailureLevel, runs: &[Run]) -> Verdicts {
        let sum = |of: &dyn Fn(&Run) -> u64| runs.iter().map(of).sum();
        let exposure = |run: &Run| run.found.entity_s[level as usize] / 3600.0;
        let another: Vec<Block> = runs
            .iter()
            .map(|run| Block { mistakes: run.by_another[level as usize], exposure: exposure(run) })
            .collect();
        let declared = match level {
            FailureLevel::Os => crate::live::detect::os_deadline(self.deadline.0),
            _ => self.deadline.0,
        };
        Verdicts {
            load,
            level: level.name().into(),
            deadline_ms: declared.as_millis_f64(),
            entity_hours: runs.iter().map(exposure).sum(),
            by_recorder: sum(&|run| run.by_recorder[level as usize]),
            by_replay: sum(&|run| run.found.by_own[level as usize]),
            by_another_monitor: sum(&|run| run.by_another[level as usize]),
            by_another_monitor_per_hour: rate(&another),
        }
    }

    pub(super) fn present(&self, name: &str, dir: &ResultsDir) -> Result<Presentation, StudyError> {
        let verdicts_name = format!("{name}-verdicts");
        let (table, verdicts) = (dir.read_csv(name)?, dir.read_csv(&verdicts_name)?);
        let drawn = figure(name, &table, &verdicts).ok_or_else(|| StudyError::Table(name.to_owned(), "prediction"))?;
        let tables = vec![(format!("{verdicts_name}.csv"), verdicts), (format!("{name}.csv"), table)];
        Ok(Presentation { figures: vec![drawn], tables })
    }
}

fn row(
    load: u64,
    level: FailureLevel,
    deadline: Nanos,
    recorded: &[Block],
    measured: &[Block],
    simulated: &[LevelQos],
) -> Row {
    let hours = |blocks: &[Block]| blocks.iter().map(|block| block.exposure).sum::<f64>();
    let count = |blocks: &[Block]| blocks.iter().map(|block| block.mistakes).sum::<u64>();
    let predicted = predict(recorded, hours(measured));
    let shown = rate(measured);
    Row {
        load,
        level: level.name().into(),
        deadline_ms: deadline.as_millis_f64(),
        blocks: recorded.len() as u64,
        recorded_entity_hours: hours(recorded),
        recorded_mistakes: count(recorded),
        measured_entity_hours: hours(measured),
        measured_mistakes: count(measured),
        measured_as_predicted: predicted.zip(shown).is_some_and(|(predicted, shown)| contains(&predicted, shown.value)),
        recorded_per_hour: rate(recorded),
        predicted_per_hour: predicted,
        measured_per_hour: shown,
        simulated_per_hour: mistakes_per_hour(simulated),
    }
}

fn contains(interval: &Estimate, value: f64) -> bool {
    interval.low.is_none_or(|low| low <= value) && interval.high.is_none_or(|high| value <= high)
}

/// A row of panels for each load, a panel for each level.
fn figure(name: &str, table: &Table, verdicts: &Table) -> Option<Figure> {
    let held = table.texts("measured_as_predicted")?;
    let as_predicted = held.iter().filter(|held| **held == "true").count();
    let mut figure = Figure::new(name)
        .title("False positives: predicted, measured, simulated")
        .caption(format!(
            "False positives per entity and hour, for every deadline, with 95% intervals. The band of the prediction is to \
             hold 95% of such measurements; {as_predicted} of the {} measured rates lie in theirs (neighbouring deadlines \
             are judged on the same silences, so they err together). Another monitor: a process of its own, by the \
             declared deadline, in the same runs. An open marker stands at the shortest deadline from which on \
             none was seen; its bar ends below what the rate may still be.",
            held.len()
        ))
        .columns(LEVELS);
    for (load, rows) in table.groups("load") {
        let verdicts = verdicts.filter("load", &load);
        for level in FailureLevel::ALL {
            let (rows, verdicts) = (rows.filter("level", level.name()), verdicts.filter("level", level.name()));
            let points = |table: &Table, column: &str| -> Option<Vec<Point>> {
                let deadlines = table.numbers("deadline_ms")?;
                let rates = table.estimates(column)?;
                let drawn = drawn(&rates);
                let points = deadlines.into_iter().zip(rates).take(drawn);
                Some(points.filter_map(|(x, y)| Some(Point::of(x? / 1e3, y?))).collect())
            };
            let panel = Panel::new(Axis::log("deadline").seconds(), Axis::log("false positives").unit("1/h"))
                .title(format!("{level} level, load {load}"))
                .series(Series::line("predicted from a recording", points(&rows, "predicted_per_hour")?).band())
                .series(Series::line("measured in a separate run", points(&rows, "measured_per_hour")?).bars())
                .series(Series::line("simulated", points(&rows, "simulated_per_hour")?).bars())
                .series(Series::points("another monitor", points(&verdicts, "by_another_monitor_per_hour")?).bars());
            figure = figure.panel(panel);
        }
    }
    Some(figure)
}
