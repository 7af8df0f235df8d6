//! Clients whose server dies, on this machine: real connections that go on at another node, and what each phase takes.
//!
//! A point is one client and one failure. Its table has a row per run; a second table sums each point up.

use super::row::row;
use super::{Context, Presentation, Profile, StudyError, interrupted, limits, summary_name};
use crate::config::{self, ConfigError, OneOrMany, Span};
use crate::figures::{Axis, Figure, Panel, Point, Series};
use crate::live::failover::{
    self, ClientKind, FailoverConfig, FailoverError, FailoverFailure, FailoverReport, FailoverRow,
};
use crate::results::{ResultsDir, Table};
use crate::runner::{Task, TaskError};
use serde::{Deserialize, Serialize};

/// A failover study.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// The kind; looked at before.
    #[serde(rename = "study")]
    _study: String,
    pub(super) title: String,
    pub(super) summary: String,
    clients: OneOrMany<ClientKind>,
    failures: OneOrMany<FailoverFailure>,
    /// Bytes that each client moves, about, in the order of the clients.
    bytes: OneOrMany<u64>,
    connections: u64,
    deadline: Span,
    poll: Span,
    runs: u32,
    full: Option<Full>,
}

/// What `[full]` sets instead.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Full {
    runs: u32,
}

/// One client and one failure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Swept {
    client: ClientKind,
    failure: FailoverFailure,
    bytes: u64,
}

row! {
    /// What one point came to: medians over its runs, in milliseconds.
    struct Summary {
        client: String,
        failure: String,
        runs: u64,
        sessions: u64,
        good: u64,
        resets: u64,
    }
    estimates {
        detection_ms,
        claim_ms,
        fence_ms,
        extract_ms,
        reinstate_ms,
        first_byte_ms,
        outage_ms,
    }
}

/// What the journal keeps of a point.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Measured {
    runs: Vec<FailoverRow>,
    summary: Summary,
}

impl Config {
    pub(super) fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let config: Self = config::parse(file, text)?;
        let invalid = |key: &str, message: String| ConfigError::invalid(file, text, key, message);
        limits::points("failures", config.failures.len().saturating_mul(config.clients.len()), 1, &invalid)?;
        if config.bytes.len() != config.clients.len() {
            return Err(invalid("bytes", "must name as many sizes as there are clients".into()));
        }
        for swept in config.points() {
            for profile in [Profile::Quick, Profile::Full] {
                let base = FailoverConfig::new(swept.client, swept.failure, std::path::PathBuf::new());
                config
                    .experiment(&swept, profile, base)
                    .check()
                    .map_err(|error| invalid("clients", error.to_string()))?;
            }
        }
        Ok(config)
    }

    pub(super) fn points(&self) -> Vec<Swept> {
        let clients = self.clients.iter().zip(self.bytes.iter());
        let failures = |(client, bytes): (&ClientKind, &u64)| {
            let (client, bytes) = (*client, *bytes);
            self.failures.iter().map(move |failure| Swept { client, failure: *failure, bytes })
        };
        clients.flat_map(failures).collect()
    }

    fn experiment(&self, swept: &Swept, profile: Profile, base: FailoverConfig) -> FailoverConfig {
        let full = self.full.filter(|_| profile == Profile::Full);
        FailoverConfig {
            bytes: swept.bytes,
            connections: self.connections,
            deadline: self.deadline.0,
            poll: self.poll.0,
            runs: full.map_or(self.runs, |full| full.runs),
            ..base
        }
    }

    /// It simulates none.
    #[cfg(test)]
    pub(super) fn scenarios(&self) -> Vec<backdoor_sim::cluster::Scenario> {
        Vec::new()
    }

    /// Points run one at a time: they are measurements, and would disturb each other.
    pub(super) fn run(&self, name: &str, context: Context<'_>) -> Result<(), StudyError> {
        let one_at_a_time = Context { threads: 1, ..context };
        let seed = context.dir.manifest().seed;
        let measured = one_at_a_time.run_points(name, &self.points(), 1, |task| self.point(seed, &context, &task))?;
        let runs: Vec<&FailoverRow> = measured.iter().flat_map(|point| &point.runs).collect();
        context.dir.write_csv(name, &Table::from_rows(&runs)?)?;
        let summaries = Summary::table(measured.iter().map(|point| &point.summary));
        context.dir.write_csv(&summary_name(name), &summaries)?;
        Ok(())
    }

    fn point(&self, seed: u64, context: &Context<'_>, task: &Task<'_, Swept>) -> Result<Measured, TaskError> {
        let swept = *task.point;
        let base = FailoverConfig { seed, ..FailoverConfig::of(swept.client, swept.failure)? };
        let config = self.experiment(&swept, context.profile, base);
        let report = measure(&config, context, task)?;
        let median = |of| failover::median(&report.rows, of);
        let summary = Summary {
            client: swept.client.name().to_owned(),
            failure: swept.failure.name().to_owned(),
            runs: report.rows.len() as u64,
            sessions: report.rows.first().map_or(0, |row| row.sessions),
            good: report.rows.iter().filter(|row| row.is_good()).count() as u64,
            resets: report.rows.iter().map(|row| row.client_resets).sum(),
            detection_ms: median(|row| row.detection_ms),
            claim_ms: median(|row| row.claim_ms),
            fence_ms: median(|row| row.fence_ms),
            extract_ms: median(|row| row.extract_ms),
            reinstate_ms: median(|row| row.reinstate_ms),
            first_byte_ms: median(|row| row.first_byte_ms),
            outage_ms: median(|row| row.outage_ms),
        };
        Ok(Measured { runs: report.rows, summary })
    }

    pub(super) fn present(&self, name: &str, dir: &ResultsDir) -> Result<Presentation, StudyError> {
        let (runs, summary) = (dir.read_csv(name)?, dir.read_csv(&summary_name(name))?);
        let figure = phases(name, &summary).ok_or_else(|| StudyError::Table(name.to_owned(), "failover"))?;
        let tables = vec![(format!("{}.csv", summary_name(name)), summary), (format!("{name}.csv"), runs)];
        Ok(Presentation { figures: vec![figure], tables })
    }
}

/// The runs of a point.
pub(super) fn measure<P>(
    config: &FailoverConfig,
    context: &Context<'_>,
    task: &Task<'_, P>,
) -> Result<FailoverReport, TaskError> {
    match failover::run(config, context.interrupt, &mut |_| {}) {
        Err(FailoverError::Interrupted { .. }) => Err(interrupted(task)),
        outcome => Ok(outcome?),
    }
}

/// What a client waits for: a panel for each client, over the failures.
fn phases(name: &str, summary: &Table) -> Option<Figure> {
    let mut figure = Figure::new(name)
        .title("A client's server dies: how long until it goes on")
        .caption(
            "Medians over the runs that finished, with 95% intervals. Detection: from the failure to the first suspicion. First byte: from \
             the decision to the first new byte at the client. Outage: the longest silence of any one of the client's \
             connections over the whole transfer. Of a wrong suspicion there is no detection.",
        )
        .columns(3);
    for (client, rows) in summary.groups("client") {
        let failures: Vec<String> = rows.texts("failure")?.into_iter().map(str::to_owned).collect();
        let x = Axis::categories("failure", failures);
        let mut panel = Panel::new(x, Axis::log("time").seconds()).title(client);
        for (column, name) in [("detection_ms", "detection"), ("first_byte_ms", "first byte"), ("outage_ms", "outage")]
        {
            let mut series = Series::points(name, []);
            for (at, estimate) in rows.estimates(column)?.into_iter().enumerate() {
                let Some(estimate) = estimate.map(|estimate| estimate.scaled(1e-3)) else { continue };
                series.points.push(Point::of(at as f64, estimate));
            }
            panel = panel.series(series.bars());
        }
        figure = figure.panel(panel);
    }
    Some(figure)
}
