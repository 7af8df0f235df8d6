//! How many nodes, and entities on each, one monitor can watch: a measurement of this machine.
//!
//! A point is a number of nodes and of entities on each. All nodes are made in this process, with the memory that an agent
//! would make, and watched by one thread through shared memory. Before each round every counter is moved on; the round, a
//! poll of every node with all that follows from it, is timed. A row has the median of the rounds with its interval between
//! order statistics, which needs no assumption about how the rounds are distributed.
//!
//! Over shared memory the READ itself is a copy by the processor that polls. With a network card the card does that, and
//! posting a READ takes its place; the difference is small against taking in the words of more than a few entities.

use std::os::fd::AsFd;
use std::time::Instant;

use super::row::row;
use super::{Context, Presentation, Profile, StudyError};
use crate::config::{self, Axis as Values, ConfigError, OneOrMany, Span};
use crate::figures::{Axis, Figure, Panel, Point, Series};
use crate::results::{ResultsDir, Table};
use crate::runner::{Task, TaskError};
use crate::stats::{self, Estimate};
use backdoor_core::Nanos;
use backdoor_core::detector::Duty;
use backdoor_core::hook_table::{Hook, Purpose, hook_table_words, write_hook_table};
use backdoor_core::monitor::{Monitor, MonitorConfig};
use backdoor_core::progress_box::{Counter, EntityRecord, FailureLevel, Geometry, MAX_ENTITIES, ProgressBox};
use backdoor_core::transport::{RegionKey, Rights};
use backdoor_core::words::Ordering;
use backdoor_transports::shm::{ReadOnlyWords, SealedMemory, SharedWords, ShmTransport};
use serde::Deserialize;

/// Entities of all nodes together, at most: some 600 bytes each.
const MOST_ENTITIES: u64 = 1 << 21;
/// Most nodes: each has mappings of its own, of which a process may have some 65,000.
const MOST_NODES: u64 = 20_000;
const MOST_ROUNDS: u64 = 1_000_000;
/// What the monitors take the time from one round to the next for.
const POLL: Nanos = Nanos::from_millis(1);
/// Rounds before anything is timed: attaching, the directory, and memory that is touched for the first time.
const WARM_UP: u64 = 8;
/// Of a READ over RoCE v2, in bytes: request and response with Ethernet (preamble and gap included), IP, UDP, BTH, RETH or
/// AETH and ICRC. InfiniBand Architecture Specification, volume 1, sections 9.2 and 9.3, and annex A17.
const REQUEST_BYTES: f64 = 20.0 + 18.0 + 20.0 + 8.0 + 12.0 + 16.0 + 4.0;
const RESPONSE_BYTES: f64 = 20.0 + 18.0 + 20.0 + 8.0 + 12.0 + 4.0 + 4.0;
/// Payload of a packet, at a path MTU of 4096.
const MTU_BYTES: f64 = 4096.0;

/// A study of scale.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// The kind; looked at before.
    #[serde(rename = "study")]
    _study: String,
    pub(super) title: String,
    pub(super) summary: String,
    nodes: Values<u64>,
    entities: Values<u64>,
    most_entities: u64,
    rounds: u64,
    /// Poll intervals for which the nodes per core are shown.
    poll: OneOrMany<Span>,
    /// Of the monitor's link.
    link_gbit_per_s: f64,
    full: Option<Full>,
}

/// What `[full]` sets instead.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Full {
    rounds: Option<u64>,
}

/// A number of nodes, and of entities on each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Swept {
    nodes: u64,
    entities: u64,
}

row! {
    /// A row of the table.
    struct Row {
        nodes: u64,
        entities_per_node: u64,
        rounds: u64,
        words_per_poll: u64,
    }
    estimates {
        round_us,
        entity_ns,
        node_us,
    }
}

impl Config {
    pub(super) fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let config: Self = config::parse(file, text)?;
        let invalid = |key: &str, message: String| ConfigError::invalid(file, text, key, message);
        let between = |key: &str, value: u64, most: u64| match value {
            value if (1..=most).contains(&value) => Ok(()),
            value => Err(invalid(key, format!("must be from 1 to {most}, not {value}"))),
        };
        config.nodes.iter().try_for_each(|nodes| between("nodes", *nodes, MOST_NODES))?;
        config.entities.iter().try_for_each(|entities| between("entities", *entities, MAX_ENTITIES as u64))?;
        between("most_entities", config.most_entities, MOST_ENTITIES)?;
        between("rounds", config.rounds, MOST_ROUNDS)?;
        if let Some(rounds) = config.full.and_then(|full| full.rounds) {
            between("full.rounds", rounds, MOST_ROUNDS)?;
        }
        if config.poll.iter().any(|poll| poll.0 == Nanos::ZERO) {
            return Err(invalid("poll", "must be more than zero".into()));
        }
        if !(config.link_gbit_per_s.is_finite() && config.link_gbit_per_s > 0.0) {
            return Err(invalid("link_gbit_per_s", "must be a positive number".into()));
        }
        if config.points().is_empty() {
            return Err(invalid("most_entities", "leaves no combination of nodes and entities".into()));
        }
        Ok(config)
    }

    pub(super) fn points(&self) -> Vec<Swept> {
        let all = self
            .entities
            .iter()
            .flat_map(|entities| self.nodes.iter().map(|nodes| Swept { nodes: *nodes, entities: *entities }));
        all.filter(|swept| swept.nodes * swept.entities <= self.most_entities).collect()
    }

    /// None: it measures.
    #[cfg(test)]
    pub(super) fn scenarios(&self) -> Vec<backdoor_sim::cluster::Scenario> {
        Vec::new()
    }

    /// Points run one at a time: they are measurements, and would disturb each other.
    pub(super) fn run(&self, name: &str, context: Context<'_>) -> Result<(), StudyError> {
        let rounds = match (context.profile, self.full) {
            (Profile::Full, Some(Full { rounds: Some(rounds) })) => rounds,
            _ => self.rounds,
        };
        let one_at_a_time = Context { threads: 1, ..context };
        let rows = one_at_a_time.run_points(name, &self.points(), rounds, |task| measure(&task))?;
        context.dir.write_csv(name, &Row::table(&rows))?;
        Ok(())
    }

    pub(super) fn present(&self, name: &str, dir: &ResultsDir) -> Result<Presentation, StudyError> {
        let table = dir.read_csv(name)?;
        let figures = self.figures(name, &table).ok_or_else(|| StudyError::Table(name.to_owned(), "scale"))?;
        Ok(Presentation { figures, tables: vec![(format!("{name}.csv"), table)] })
    }

    fn figures(&self, name: &str, table: &Table) -> Option<Vec<Figure>> {
        let title = |poll: &Span| format!("polls every {poll}");
        let mut per_core = Figure::new(name)
            .title("Nodes that one core can watch")
            .caption(format!(
                "Nodes that one monitoring thread can poll in an interval, over the entities of each, from the measured time \
                 per node when it watches as many nodes as the curve says: more nodes than the caches hold cost more each. \
                 Every counter moves between two polls. Bars: 95% intervals of the median round. Dashed: where a link of {} \
                 Gbit/s is full of READs.",
                self.link_gbit_per_s,
            ))
            .columns(self.poll.len());
        for poll in &self.poll {
            let (x, y) = (Axis::log("entities per node"), Axis::log("nodes per core"));
            let mut panel = Panel::new(x, y).title(title(poll));
            for (nodes, rows) in table.groups("nodes") {
                let mut points = Vec::new();
                let entities = rows.numbers("entities_per_node")?;
                for (entities, time) in entities.iter().zip(rows.estimates("node_us")?) {
                    let (entities, time) = ((*entities)?, time?);
                    let per_core = |us: f64| poll.0.as_micros_f64() / us;
                    let (low, high) = (time.high.map(per_core), time.low.map(per_core));
                    points.push(Point::of(entities, Estimate { value: per_core(time.value), low, high }));
                }
                panel = panel.series(Series::line(format!("{nodes} watched"), points).bars());
            }
            let mut link = Vec::new();
            for (entities, rows) in table.groups("entities_per_node") {
                let words = rows.numbers("words_per_poll")?.into_iter().flatten().next()?;
                link.push(Point::new(entities.parse().ok()?, self.nodes_per_link(words, poll.0)));
            }
            per_core = per_core.panel(panel.series(Series::line("link is full", link).style(4)));
        }
        Some(vec![per_core])
    }

    /// Nodes whose polls of `words` words fill the link, in the direction that carries more.
    fn nodes_per_link(&self, words: f64, poll: Nanos) -> f64 {
        let payload = words * 8.0;
        let bytes = (payload + RESPONSE_BYTES * (payload / MTU_BYTES).ceil()).max(REQUEST_BYTES);
        self.link_gbit_per_s * 1e9 / 8.0 * poll.as_secs_f64() / bytes
    }
}

fn measure(task: &Task<'_, Swept>) -> Result<Row, TaskError> {
    let Swept { nodes, entities } = *task.point;
    let mut watched = Vec::new();
    for _ in 0..nodes {
        task.check()?;
        watched.push(Watched::new(entities as usize)?);
    }
    let rounds = task.replications.end;
    let mut times = Vec::new();
    let mut now = Nanos::ZERO;
    for round in 0..WARM_UP + rounds {
        task.check()?;
        now += POLL;
        watched.iter().for_each(Watched::progress);
        let start = Instant::now();
        for node in &mut watched {
            node.poll(now);
        }
        let took = start.elapsed();
        if round >= WARM_UP {
            times.push(took.as_secs_f64() * 1e6);
        }
    }
    let polled = watched.iter().map(|node| node.monitor.entities().count() as u64).sum::<u64>();
    if polled != nodes * entities {
        return Err(format!("{polled} of {} entities were watched", nodes * entities).into());
    }
    let round_us = stats::quantile(&mut times, 0.5);
    Ok(Row {
        nodes,
        entities_per_node: entities,
        rounds,
        words_per_poll: geometry(entities as usize)?.poll_words() as u64,
        round_us,
        entity_ns: round_us.map(|round| round.scaled(1e3 / (nodes * entities) as f64)),
        node_us: round_us.map(|round| round.scaled(1.0 / nodes as f64)),
    })
}

fn geometry(entities: usize) -> Result<Geometry, TaskError> {
    Ok(Geometry::new(entities, 0)?)
}

/// A node's memory, and its monitor.
struct Watched {
    liveness: SharedWords,
    transport: ShmTransport,
    monitor: Monitor<Duty>,
}

impl Watched {
    /// Two in a hundred entities are counters of the operating system, at least one; the others are sessions.
    fn new(entities: usize) -> Result<Self, TaskError> {
        let geometry = geometry(entities)?;
        let table = SealedMemory::create("scale-hooks", hook_table_words(1))?;
        let memory = SealedMemory::create("scale-box", geometry.total_words())?;
        let hook = Hook::whole_region(1, Purpose::Monitoring, Rights::READ, RegionKey(2), geometry.total_words());
        write_hook_table(&table.map()?, 1, &[hook])?;
        let words = memory.map()?;
        let mut progress_box = ProgressBox::format(words.clone(), geometry, 1)?;
        for entity in 0..entities {
            let is_system = entity.is_multiple_of(50);
            let level = if is_system { FailureLevel::Os } else { FailureLevel::Session };
            let mut record = EntityRecord::new(&format!("entity {entity}"), level, Nanos::from_millis(50));
            if is_system {
                record = record.every(POLL);
            }
            progress_box.add(record)?;
        }
        let liveness = words.slice(geometry.liveness());
        for word in liveness.iter() {
            Counter::resume(word).advance();
        }
        let mut transport = ShmTransport::new(4);
        for (key, memory) in [(1, &table), (2, &memory)] {
            let words = ReadOnlyWords::open(memory.read_only_fd()?.as_fd(), memory.words())?;
            transport.add_read_only(RegionKey(key), words, Rights::READ)?;
        }
        let config = MonitorConfig { retry_interval: POLL, ..MonitorConfig::polling_every(POLL) };
        let monitor = Monitor::new(config, RegionKey(1), |record, now| Duty::new(record.deadline, now));
        Ok(Watched { liveness, transport, monitor })
    }

    /// Every entity makes a step.
    fn progress(&self) {
        const STEP: u64 = 1 << 2;
        for word in self.liveness.iter() {
            word.store(word.load(Ordering::Relaxed).wrapping_add(STEP), Ordering::Relaxed);
        }
    }

    fn poll(&mut self, now: Nanos) {
        let mut events = Vec::new();
        self.monitor.step(now, &mut self.transport, &mut events);
        std::hint::black_box(&events);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(lines: &str) -> Result<Config, ConfigError> {
        let rest = "study = 'scale'\ntitle = ''\nsummary = ''\nrounds = 20\npoll = '1ms'\nlink_gbit_per_s = 10.0\n";
        Config::parse("s.toml", &format!("{rest}{lines}"))
    }

    #[test]
    fn combinations_that_are_too_many_are_left_out() {
        let config = config("nodes = [1, 10]\nentities = [5, 50]\nmost_entities = 100\n").unwrap();
        let points: Vec<_> = config.points().iter().map(|p| (p.nodes, p.entities)).collect();
        assert_eq!(points, [(1, 5), (10, 5), (1, 50)]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (lines, complaint) in [
            ("nodes = 0\nentities = 5\nmost_entities = 100\n", "nodes: must be from 1 to 20000, not 0"),
            ("nodes = 1\nentities = 70000\nmost_entities = 100\n", "entities: must be from 1 to 65536, not 70000"),
            ("nodes = 9\nentities = 50\nmost_entities = 100\n", "leaves no combination"),
        ] {
            let found = config(lines).unwrap_err().to_string();
            assert!(found.contains(complaint), "{found}");
        }
    }

    /// 17 words: a packet of 136 + 86 bytes.
    #[test]
    fn a_link_is_full_of_responses() {
        let config = config("nodes = 1\nentities = 9\nmost_entities = 100\n").unwrap();
        let nodes = config.nodes_per_link(17.0, Nanos::from_millis(1));
        assert!((nodes - 1.25e6 / 222.0).abs() < 1e-6, "{nodes}");
    }

    #[test]
    fn every_entity_is_watched_and_moves() {
        let mut node = Watched::new(120).unwrap();
        let mut now = Nanos::ZERO;
        for _ in 0..WARM_UP {
            now += POLL;
            node.progress();
            node.poll(now);
        }
        assert_eq!(node.monitor.entities().count(), 120);
        let last = |node: &Watched| node.monitor.entities().map(|entity| entity.last_progress).min().unwrap();
        let before = last(&node);
        node.progress();
        node.poll(now + POLL);
        assert_eq!(last(&node), before + POLL);
    }
}
