//! How often the diagnosis names cause and root of a failure rightly, and how soon, in simulation.
//!
//! Each replication is one breakdown of one kind. A row of the table is one kind under one combination of the swept values,
//! asked in one of four ways: at the first sign or when the answer is for good, with or without what more there is to know
//! (who waits for whom, or a second path to the node). A row of the second table, `NAME-confusion`, is one thing that a kind
//! was taken for.

mod figures;

use super::row::row;
use super::scenario::{FaultConfig, ScenarioConfig, Swept, complain};
use super::{Context, Full, Presentation, Profile, StudyError, limits, replicate};
use crate::config::{self, ConfigError, OneOrMany, Span};
use crate::results::ResultsDir;
use crate::runner::{Task, TaskError};
use crate::stats;
use backdoor_core::Nanos;
use backdoor_sim::cluster::{
    Answer, Deadlines, DiagnosisOptions, DiagnosisOutcome, Scenario, Way, Worth, diagnosis_run,
};
use backdoor_sim::faults::Breakdown;
use backdoor_sim::workload::{Chain, Disk};
use serde::Deserialize;

/// A study of diagnoses.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// The kind; looked at before.
    #[serde(rename = "study")]
    _study: String,
    pub(super) title: String,
    pub(super) summary: String,
    replications: u64,
    breakdowns: OneOrMany<Breakdown>,
    /// Of every entity.
    deadline: Span,
    /// How long a network card waits for an answer, all retries together.
    card_gives_up_after: Option<Span>,
    #[serde(default)]
    scenario: ScenarioConfig,
    full: Option<Full>,
}

/// One kind of breakdown under one combination of the swept values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    breakdown: Breakdown,
    swept: Swept,
}

row! {
    /// How good the answers are. Of the failures that took effect, each answer is right (cause and root are named, and
    /// nothing else), open (the truth is left open, as a doubt or because the silence is said to be unexplained), or wrong.
    /// Times are in milliseconds from when the breakdown took effect, of those that were answered.
    struct Row {
        breakdown: String,
        load: u64,
        poll_ms: f64,
        network_loss: f64,
        deadline_ms: f64,
        known: String,
        when: String,
        replications: u64,
        failures: u64,
        right: u64,
        open: u64,
        wrong: u64,
        unanswered: u64,
    }
    estimates {
        right_share,
        open_share,
        wrong_share,
        answer_ms,
        answer_p90_ms,
    }
}

row! {
    /// What a breakdown was taken for, and how often the truth was left open with that.
    struct ConfusionRow {
        breakdown: String,
        load: u64,
        poll_ms: f64,
        network_loss: f64,
        known: String,
        when: String,
        found: String,
        count: u64,
        open: u64,
    }
    estimates {
        share,
    }
}

impl Config {
    pub(super) fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let config: Self = config::parse(file, text)?;
        let invalid = |key: &str, message: String| ConfigError::invalid(file, text, key, message);
        limits::replications("replications", config.replications, Way::ALL.len(), &invalid)?;
        limits::full(config.full.as_ref(), Way::ALL.len(), &invalid)?;
        let combinations = config.scenario.count(&FaultConfig::default()).saturating_mul(config.breakdowns.len());
        limits::points("scenario", combinations, Way::ALL.len(), &invalid)?;
        config.scenario.check_no_length("scenario", &invalid)?;
        if config.full.as_ref().is_some_and(|full| full.duration.is_some()) {
            return Err(invalid("full.duration", "each run ends when it has its answers".into()));
        }
        for (key, span) in [("deadline", Some(config.deadline)), ("card_gives_up_after", config.card_gives_up_after)] {
            if span.is_some_and(|span| span.0 == Nanos::ZERO) {
                return Err(invalid(key, "must be more than zero".into()));
            }
        }
        if (1..config.breakdowns.len()).any(|index| config.breakdowns[..index].contains(&config.breakdowns[index])) {
            return Err(invalid("breakdowns", "names one twice".into()));
        }
        for point in config.points() {
            if point.swept.monitor_shares_cpu {
                let message = "is not for this kind of study: a monitor with a machine of its own diagnoses";
                return Err(invalid("scenario.monitor_shares_cpu", message.into()));
            }
            let scenario = config.scenario(&point.swept);
            let checked = scenario.check().and_then(|()| DiagnosisOptions::of(point.breakdown).check(&scenario));
            checked.map_err(|error| complain(&error, "scenario", &[], &invalid))?;
        }
        Ok(config)
    }

    pub(super) fn points(&self) -> Vec<Point> {
        let swept = self.scenario.points(&FaultConfig::default());
        let of = |breakdown: &Breakdown| {
            let breakdown = *breakdown;
            swept.iter().map(move |swept| Point { breakdown, swept: *swept })
        };
        self.breakdowns.iter().flat_map(of).collect()
    }

    fn scenario(&self, swept: &Swept) -> Scenario {
        let mut scenario = self.scenario.scenario(&FaultConfig::default(), swept, None, Profile::Quick);
        scenario.workload.chain = Some(Chain::default());
        scenario.workload.disk = Some(Disk::default());
        scenario.deadlines = Deadlines::all(self.deadline.0);
        if let Some(Span(all)) = self.card_gives_up_after {
            scenario.nic.retransmit_after = (all / (u64::from(scenario.nic.retries) + 1)).max(Nanos(1));
        }
        scenario
    }

    #[cfg(test)]
    pub(super) fn scenarios(&self) -> Vec<Scenario> {
        self.points().iter().map(|point| self.scenario(&point.swept)).collect()
    }

    pub(super) fn run(&self, name: &str, context: Context<'_>) -> Result<(), StudyError> {
        let replications = Full::replications(self.full.as_ref(), context.profile, self.replications);
        let seed = context.dir.manifest().seed;
        let rows = context.run_points(name, &self.points(), replications, |task| self.point(name, seed, &task))?;
        let (rows, confusions): (Vec<Vec<Row>>, Vec<Vec<ConfusionRow>>) = rows.into_iter().unzip();
        context.dir.write_csv(name, &Row::table(rows.iter().flatten()))?;
        context.dir.write_csv(&confusion_name(name), &ConfusionRow::table(confusions.iter().flatten()))?;
        Ok(())
    }

    fn point(&self, name: &str, seed: u64, task: &Task<'_, Point>) -> Result<(Vec<Row>, Vec<ConfusionRow>), TaskError> {
        let Point { breakdown, swept } = task.point;
        let (scenario, options) = (self.scenario(swept), DiagnosisOptions::of(*breakdown));
        // The breakdown is no part of the key: all kinds strike the same work at the same moment.
        let outcomes = replicate(task, (seed, name, &swept.stream_point()), task.replications.clone(), |streams| {
            Ok(diagnosis_run(&scenario, streams, &options)?)
        })?;
        let rows = Way::ALL.map(|way| row(task.point, self.deadline.0, way, &outcomes));
        let confusions = Way::ALL.into_iter().flat_map(|way| confusion_rows(task.point, way, &outcomes));
        Ok((rows.into(), confusions.collect()))
    }

    pub(super) fn present(&self, name: &str, dir: &ResultsDir) -> Result<Presentation, StudyError> {
        let (table, confusion) = (dir.read_csv(name)?, dir.read_csv(&confusion_name(name))?);
        let figures =
            figures::all(name, &table, &confusion).ok_or_else(|| StudyError::Table(name.to_owned(), "diagnosis"))?;
        let tables = vec![(format!("{name}.csv"), table), (format!("{}.csv", confusion_name(name)), confusion)];
        Ok(Presentation { figures, tables })
    }
}

fn confusion_name(name: &str) -> String {
    format!("{name}-confusion")
}

/// What is known in a way, as it is called in files.
fn known(way: Way, breakdown: Breakdown) -> &'static str {
    match (way.informed, breakdown.is_of_channel()) {
        (false, _) => "nothing",
        (true, false) => "dependencies",
        (true, true) => "second-path",
    }
}

/// When it is asked, as it is called in files.
fn when(way: Way) -> &'static str {
    if way.settled { "for-good" } else { "first-sign" }
}

/// The answers of one way to the breakdowns that took effect.
fn answers(way: Way, outcomes: &[DiagnosisOutcome]) -> Vec<Answer> {
    outcomes.iter().filter(|outcome| outcome.effective.is_some()).map(|outcome| outcome.answer(way)).collect()
}

fn row(point: &Point, deadline: Nanos, way: Way, outcomes: &[DiagnosisOutcome]) -> Row {
    let answers = answers(way, outcomes);
    let count = |worth| answers.iter().filter(|answer| answer.worth == worth).count() as u64;
    let failures = answers.len() as u64;
    let share = |worth| stats::proportion(count(worth), failures);
    let mut times: Vec<f64> = answers.iter().filter_map(|answer| Some(answer.after?.as_millis_f64())).collect();
    Row {
        breakdown: point.breakdown.name().to_owned(),
        load: point.swept.load,
        poll_ms: point.swept.poll_interval.as_millis_f64(),
        network_loss: point.swept.network_loss,
        deadline_ms: deadline.as_millis_f64(),
        known: known(way, point.breakdown).to_owned(),
        when: when(way).to_owned(),
        replications: outcomes.len() as u64,
        failures,
        right: count(Worth::Right),
        open: count(Worth::Open),
        wrong: count(Worth::Wrong),
        unanswered: answers.iter().filter(|answer| answer.after.is_none()).count() as u64,
        right_share: share(Worth::Right),
        open_share: share(Worth::Open),
        wrong_share: share(Worth::Wrong),
        answer_ms: stats::mean(&times),
        answer_p90_ms: stats::quantile(&mut times, 0.9),
    }
}

/// In order of first appearance.
fn confusion_rows(point: &Point, way: Way, outcomes: &[DiagnosisOutcome]) -> Vec<ConfusionRow> {
    let answers = answers(way, outcomes);
    let mut found: Vec<&str> = Vec::new();
    for answer in &answers {
        if !found.contains(&answer.found.name()) {
            found.push(answer.found.name());
        }
    }
    let row = |name: &str| {
        let such = || answers.iter().filter(|answer| answer.found.name() == name);
        let count = such().count() as u64;
        ConfusionRow {
            breakdown: point.breakdown.name().to_owned(),
            load: point.swept.load,
            poll_ms: point.swept.poll_interval.as_millis_f64(),
            network_loss: point.swept.network_loss,
            known: known(way, point.breakdown).to_owned(),
            when: when(way).to_owned(),
            found: name.to_owned(),
            count,
            open: such().filter(|answer| answer.worth == Worth::Open).count() as u64,
            share: stats::proportion(count, answers.len() as u64),
        }
    };
    found.into_iter().map(row).collect()
}
