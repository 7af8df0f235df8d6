//! What State Boxes cost while nothing fails, on this machine, beside what the model says of it.
//!
//! A point is one size of state and one frequency of saving. Its table has a row per pair of turns; a second table sums each
//! point up. The model is that of [`remedies`](super::remedies): a request's processor time, and a save's. Here the
//! first is taken from the turns without State Boxes, so that what is compared is the cost of saving alone.

use super::remedies::cost::{self, Run};
use super::row::row;
use super::scenario::{ScenarioConfig, complain};
use super::{Context, Presentation, Profile, StudyError, interrupted, limits, replicate, summary_name};
use crate::config::{self, Axis as Values, ConfigError, Span};
use crate::figures::{Axis, Figure, Panel, Series};
use crate::live::overhead::{self, OverheadConfig, OverheadError, OverheadReport, OverheadRow};
use crate::results::{ResultsDir, Table};
use crate::runner::{Task, TaskError};
use crate::stats::{self, Estimate};
use backdoor_core::Nanos;
use backdoor_sim::cluster::Scenario;
use backdoor_sim::dist::Dist;
use backdoor_sim::faults::Arrivals;
use backdoor_sim::streams::Streams;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Most starts of the services of a point.
const STARTS: u32 = 8;

/// A study of overhead.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// The kind; looked at before.
    #[serde(rename = "study")]
    _study: String,
    pub(super) title: String,
    pub(super) summary: String,
    state_bytes: Values<u64>,
    /// Requests that each client has under way, which are acted upon with one save.
    requests_per_save: Values<u64>,
    clients: u32,
    pairs: u32,
    turn: Span,
    simulation: Simulation,
    full: Option<Full>,
}

/// The counterpart in the model.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Simulation {
    replications: u64,
    duration: Span,
    #[serde(default)]
    scenario: ScenarioConfig,
}

/// What `[full]` sets instead.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Full {
    pairs: Option<u32>,
    turn: Option<Span>,
}

/// One size of state and one frequency of saving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Swept {
    state_bytes: u64,
    requests_per_save: u64,
}

row! {
    /// What one point came to. Ratios are with State Boxes by without; medians are over the turns, latencies in
    /// microseconds.
    struct Summary {
        state_bytes: u64,
        requests_per_save: u64,
        clients: u64,
        pairs: u64,
    }
    estimates {
        plain_per_s,
        saved_per_s,
        throughput_ratio,
        simulated_throughput_ratio,
        plain_p50_us,
        saved_p50_us,
        latency_ratio,
        simulated_latency_ratio,
    }
}

/// What the journal keeps of a point.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Measured {
    pairs: Vec<OverheadRow>,
    summary: Summary,
}

impl Config {
    pub(super) fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let config: Self = config::parse(file, text)?;
        let invalid = |key: &str, message: String| ConfigError::invalid(file, text, key, message);
        limits::replications("simulation.replications", config.simulation.replications, 1, &invalid)?;
        let table = "simulation.scenario";
        config.simulation.scenario.check_single(table, &["sessions", "state_bytes"], &invalid)?;
        config.simulation.scenario.check_no_length(table, &invalid)?;
        let points = config.state_bytes.len().saturating_mul(config.requests_per_save.len());
        limits::points("state_bytes", points, 1, &invalid)?;
        for swept in config.points() {
            for (profile, key) in [(Profile::Quick, "state_bytes"), (Profile::Full, "full")] {
                let experiment = config.experiment(&swept, profile, PathBuf::new());
                experiment.check().map_err(|error| invalid(key, error.to_string()))?;
            }
            let taken = [
                ("sessions", "clients"),
                ("state_bytes", "state_bytes"),
                ("commit_every", "requests_per_save"),
                ("duration", "simulation.duration"),
            ];
            config.scenario(&swept, None).check().map_err(|error| complain(&error, table, &taken, &invalid))?;
        }
        Ok(config)
    }

    pub(super) fn points(&self) -> Vec<Swept> {
        let sizes = |requests_per_save: &u64| {
            let requests_per_save = *requests_per_save;
            self.state_bytes.iter().map(move |state_bytes| Swept { state_bytes: *state_bytes, requests_per_save })
        };
        self.requests_per_save.iter().flat_map(sizes).collect()
    }

    fn experiment(&self, swept: &Swept, profile: Profile, program: PathBuf) -> OverheadConfig {
        let full = self.full.filter(|_| profile == Profile::Full);
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let pairs = full.and_then(|full| full.pairs).unwrap_or(self.pairs);
        OverheadConfig {
            state_bytes: size(swept.state_bytes),
            requests_per_save: size(swept.requests_per_save),
            clients: self.clients,
            pairs,
            starts: pairs.clamp(1, STARTS),
            turn: full.and_then(|full| full.turn).unwrap_or(self.turn).0,
            ..OverheadConfig::new(program)
        }
    }

    /// The model of a point, with requests that cost `service_work`.
    fn scenario(&self, swept: &Swept, service_work: Option<Nanos>) -> Scenario {
        let mut scenario = self.simulation.scenario.single(None, Profile::Quick);
        scenario.duration = scenario.warm_up + self.simulation.duration.0;
        scenario.faults.arrivals = Arrivals::Never;
        let work = &mut scenario.workload;
        work.sessions = self.clients as usize;
        work.state_bytes = Some(usize::try_from(swept.state_bytes).unwrap_or(usize::MAX));
        work.commit_every = swept.requests_per_save;
        if let Some(service_work) = service_work {
            work.service_work = Dist::constant(service_work);
        }
        scenario
    }

    /// Every scenario that it simulates, as far as it is known before the measurement.
    #[cfg(test)]
    pub(super) fn scenarios(&self) -> Vec<Scenario> {
        self.points().iter().map(|swept| self.scenario(swept, None)).collect()
    }

    /// Points run one at a time: they are measurements, and would disturb each other.
    pub(super) fn run(&self, name: &str, context: Context<'_>) -> Result<(), StudyError> {
        let one_at_a_time = Context { threads: 1, ..context };
        let measured = one_at_a_time.run_points(name, &self.points(), 1, |task| self.point(name, &context, &task))?;
        let pairs: Vec<&OverheadRow> = measured.iter().flat_map(|point| &point.pairs).collect();
        context.dir.write_csv(name, &Table::from_rows(&pairs)?)?;
        let summaries = Summary::table(measured.iter().map(|point| &point.summary));
        context.dir.write_csv(&summary_name(name), &summaries)?;
        Ok(())
    }

    fn point(&self, name: &str, context: &Context<'_>, task: &Task<'_, Swept>) -> Result<Measured, TaskError> {
        let swept = *task.point;
        let seed = context.dir.manifest().seed;
        let experiment = self.experiment(&swept, context.profile, std::env::current_exe()?);
        let report = match overhead::run(&OverheadConfig { seed, ..experiment }, context.interrupt, &mut |_| {}) {
            Err(OverheadError::Interrupted { .. }) => return Err(interrupted(task)),
            outcome => outcome?,
        };
        let scenario = self.scenario(&swept, service_work(&report, processors()));
        let run = |streams: &Streams| cost::measure(&scenario, streams);
        let simulated = replicate(task, (seed, name, "cost"), 0..self.simulation.replications, run)?;
        Ok(Measured { summary: summary(&swept, &report, &simulated), pairs: report.rows })
    }

    pub(super) fn present(&self, name: &str, dir: &ResultsDir) -> Result<Presentation, StudyError> {
        let (pairs, summary) = (dir.read_csv(name)?, dir.read_csv(&summary_name(name))?);
        let figure = ratios(name, &summary).ok_or_else(|| StudyError::Table(name.to_owned(), "overhead"))?;
        let tables = vec![(format!("{}.csv", summary_name(name)), summary), (format!("{name}.csv"), pairs)];
        Ok(Presentation { figures: vec![figure], tables })
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Processor time of a request without State Boxes: clients that ask as fast as they are answered keep a processor busy
/// each, as far as there are so many.
fn service_work(report: &OverheadReport, processors: usize) -> Option<Nanos> {
    let busy = processors.min(report.config.clients as usize) as f64;
    let per_s = stats::mean(&report.rows.iter().map(|row| row.plain_per_s).collect::<Vec<f64>>())?.value;
    (per_s > 0.0).then(|| Nanos::from_secs_f64(busy / per_s))
}

fn summary(swept: &Swept, report: &OverheadReport, simulated: &[Run]) -> Summary {
    let median = |of: fn(&OverheadRow) -> f64| {
        let mut values: Vec<f64> = report.rows.iter().map(of).collect();
        stats::quantile(&mut values, 0.5)
    };
    let model = |of: fn(&Run) -> (f64, f64)| -> Option<Estimate> {
        stats::ratio(&simulated.iter().map(of).collect::<Vec<(f64, f64)>>())
    };
    Summary {
        state_bytes: swept.state_bytes,
        requests_per_save: swept.requests_per_save,
        clients: report.config.clients.into(),
        pairs: report.rows.len() as u64,
        plain_per_s: median(|row| row.plain_per_s),
        saved_per_s: median(|row| row.saved_per_s),
        throughput_ratio: report.throughput_ratio(),
        // As many requests as the processors' time is enough for.
        simulated_throughput_ratio: model(|run| (run.cpu_us - run.added_cpu_us, run.cpu_us)),
        plain_p50_us: median(|row| row.plain_p50_us),
        saved_p50_us: median(|row| row.saved_p50_us),
        latency_ratio: report.latency_ratio(),
        simulated_latency_ratio: model(|run| (run.request_us, run.request_us - run.added_request_us)),
    }
}

/// Throughput and latency, by size of the state, a curve for each frequency of saving, live and in the model.
fn ratios(name: &str, summary: &Table) -> Option<Figure> {
    let mut figure = Figure::new(name)
        .title("A service with State Boxes beside the same without, while nothing fails")
        .caption(
            "Throughput and median latency with State Boxes, by those without, with 95% intervals over starts of both services. \
             Live: clients on this machine ask as fast as they are answered, and each shares a processor with the thread \
             that serves it. Model: a request costs as much processor time as it did live without State Boxes, and a save \
             a fixed time and one for each KiB. These two are no prediction: unless they are set, they were fitted to \
             such a measurement on another machine. So where the curves differ, saves cost more or less here than there, \
             or the cost is not proportional to the state.",
        )
        .columns(2);
    let throughput = Axis::linear("throughput, of that without").percent();
    let latency = Axis::log("latency, by that without");
    for (column, y) in [("throughput_ratio", throughput), ("latency_ratio", latency)] {
        let mut panel = Panel::new(Axis::log("state").unit("B"), y).horizontal_rule(1.0, "no cost");
        for (index, (every, rows)) in summary.groups("requests_per_save").into_iter().enumerate() {
            let often = if every == "1" { "every request".to_owned() } else { format!("every {every} requests") };
            for (offset, (kind, column)) in
                [("live", column.to_owned()), ("model", format!("simulated_{column}"))].into_iter().enumerate()
            {
                rows.estimates(&column)?;
                let series = Series::from_table(format!("{kind}, saved with {often}"), &rows, "state_bytes", &column);
                panel = panel.series(series.style(2 * index + offset).bars());
            }
        }
        figure = figure.panel(panel);
    }
    Some(figure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::assert_refused;

    const SHIPPED: &str = include_str!("../../configs/overhead.toml");

    fn report(plain_per_s: f64, clients: u32) -> OverheadReport {
        let config = OverheadConfig { clients, ..OverheadConfig::new(PathBuf::new()) };
        OverheadReport { config, rows: vec![OverheadRow { plain_per_s, ..OverheadRow::default() }; 2] }
    }

    #[test]
    fn full_takes_longer_turns_and_more_of_them() {
        let config = Config::parse("overhead.toml", SHIPPED).unwrap();
        let [quick, full] = [Profile::Quick, Profile::Full]
            .map(|profile| config.experiment(&config.points()[1], profile, PathBuf::new()));
        assert_eq!((quick.state_bytes, quick.requests_per_save), (1024, 1));
        assert!(full.pairs > quick.pairs && full.turn > quick.turn, "{full:?}");
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        for (line, by, what) in [
            ("clients = 4", "clients = 0", "state_bytes: 0 clients: must be"),
            ("state_bytes = [64, 1024, 16384, 131072]", "state_bytes = [65]", "state_bytes: 65 bytes of state"),
            ("requests_per_save = [1, 8] ", "requests_per_save = [0] ", "state_bytes: 0 requests per save"),
            ("pairs = 60", "pairs = 1", "full: 1 pairs"),
            ("duration = \"2s\"", "duration = \"0s\"", "simulation.duration: "),
            ("replications = 3", "replications = 0", "simulation.replications: must be"),
            ("request_interval =", "state_bytes = 5\nrequest_interval =", "this kind of study sets it outside"),
        ] {
            assert_refused(SHIPPED, line, by, what);
        }
    }

    #[test]
    fn a_request_costs_the_time_of_the_processors_that_its_clients_keep_busy() {
        for (clients, processors, expected) in [(4, 2, 20_000), (4, 64, 40_000), (1, 2, 10_000)] {
            assert_eq!(
                service_work(&report(1e5, clients), processors),
                Some(Nanos(expected)),
                "{clients} {processors}"
            );
        }
        assert_eq!(service_work(&report(0.0, 4), 2), None, "nobody was answered");
    }

    #[test]
    fn the_model_is_the_cheaper_the_rarer_it_saves_and_the_same_each_time() {
        let config = Config::parse("overhead.toml", SHIPPED).unwrap();
        let ratio = |requests_per_save| {
            let swept = Swept { state_bytes: 16384, requests_per_save };
            let scenario = config.scenario(&swept, Some(Nanos::from_micros(20)));
            let key = backdoor_sim::streams::StreamKey { seed: 1, experiment: "e", point: "p", replication: 0 };
            let run = cost::measure(&scenario, &Streams::new(key)).unwrap();
            (run.cpu_us - run.added_cpu_us) / run.cpu_us
        };
        let (often, rarely) = (ratio(1), ratio(8));
        assert!(often < rarely && rarely < 1.0, "{often} {rarely}");
        assert_eq!(often, ratio(1));
    }
}
