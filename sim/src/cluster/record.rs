//! Runs whose outcome is a record: of silences, for all deadlines at once, or of one monitor's verdicts.
//!
//! A deadline detector decides by three things: when progress was last seen, when samples were taken, and whether the
//! entity was active meanwhile. None depends on the deadline, so a run whose detectors are core's
//! [`SilenceRecorder`] holds what every deadline would have said, to the nanosecond: an entity is suspected at the
//! first sample whose evidence begins after `start + deadline`, and trusted at the sample that ends the silence.

use backdoor_core::Nanos;
use backdoor_core::detector::{DeadlineDetector, Detector, SilenceRecorder};
use backdoor_core::monitor::{Event as Noticed, Monitor, MonitorStats, Standing};
use backdoor_core::progress_box::{EntityRecord, Slot};

use super::scenario::{Deadlines, Scenario, ScenarioError};
use super::world::{Happening, Watch, World};
use crate::faults::Failure;
use crate::streams::Streams;

/// When the monitor took a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Evidence time before which the words can't have been sampled.
    pub begin: Nanos,
    /// Time of the run at which the monitor took the sample in: that of its verdicts. For a watchdog, when its report of
    /// them arrives.
    pub at: Nanos,
}

/// A stretch in which the monitor saw no progress of an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordedSilence {
    /// When progress was last seen, in evidence time.
    pub start: Nanos,
    /// The same in time of the run.
    pub since: Nanos,
    /// Evidence time until progress was seen again, or until the record ends.
    pub length: Nanos,
    /// Number of the sample that ended it; the number of samples if none did.
    pub ended: usize,
    /// Whether the entity said that it was active, so that its silence counts.
    pub active: bool,
}

/// What was seen of one entity.
#[derive(Clone, Debug)]
pub struct EntityRecording {
    /// Its place.
    pub slot: Slot,
    /// What the directory says of it.
    pub record: EntityRecord,
    /// Its silences from the record's floor on, in order of time.
    pub silences: Vec<RecordedSilence>,
}

/// What the monitor of one node saw, and what was true.
#[derive(Clone, Debug)]
pub struct NodeRecord {
    /// Its samples, in order.
    pub samples: Vec<Sample>,
    /// Its entities, in slot order.
    pub entities: Vec<EntityRecording>,
    /// The failures that happened, in order of striking.
    pub failures: Vec<Failure>,
    /// What the monitor did.
    pub stats: MonitorStats,
    /// How often the monitor lost its channel.
    pub channel_losses: u64,
}

/// A run's record, for [`metrics`](crate::metrics).
#[derive(Clone, Debug)]
pub struct Record {
    /// By node.
    pub nodes: Vec<NodeRecord>,
    /// Nothing before counts.
    pub warm_up: Nanos,
    /// When the run ended.
    pub duration: Nanos,
    /// Shortest silence in it: deadlines below can't be judged.
    pub floor: Nanos,
    /// Events simulated.
    pub events: u64,
}

/// A monitor's change of mind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// When.
    pub at: Nanos,
    /// Suspected from here on, or trusted again.
    pub suspected: bool,
    /// The entity.
    pub slot: Slot,
}

/// What the monitor of one node said.
#[derive(Clone, Debug)]
pub struct VerdictLog {
    /// Its verdicts, in order of (time, trust before suspicion, slot).
    pub marks: Vec<Mark>,
    /// The failures that happened.
    pub failures: Vec<Failure>,
    /// What the monitor did.
    pub stats: MonitorStats,
    /// How often the monitor lost its channel.
    pub channel_losses: u64,
}

impl NodeRecord {
    /// When an entity would have been suspected and trusted again under `deadline`, for a silence of it; the end is
    /// `None` if the run ended first.
    pub fn suspicion(&self, silence: &RecordedSilence, deadline: Nanos) -> Option<(Nanos, Option<Nanos>)> {
        if !silence.active || silence.length <= deadline {
            return None;
        }
        let fresh_until = silence.start + deadline;
        let first = self.samples.partition_point(|sample| sample.begin <= fresh_until);
        let at = |sample: usize| self.samples.get(sample).map(|sample| sample.at);
        if first < silence.ended { at(first).map(|from| (from, at(silence.ended))) } else { None }
    }

    /// What a monitor with these deadlines would have said.
    pub fn marks(&self, deadlines: &Deadlines) -> Vec<Mark> {
        let mut marks = Vec::new();
        for entity in &self.entities {
            let (slot, deadline) = (entity.slot, deadlines.of(entity.record.level));
            for (from, to) in entity.silences.iter().filter_map(|silence| self.suspicion(silence, deadline)) {
                marks.push(Mark { at: from, suspected: true, slot });
                marks.extend(to.map(|at| Mark { at, suspected: false, slot }));
            }
        }
        marks.sort_unstable();
        marks
    }
}

/// Runs `scenario` with monitors that suspect nobody, and keeps every silence of at least `floor`: the smallest
/// deadline of interest.
///
/// # Errors
/// The scenario is [impossible](Scenario::check).
pub fn record(scenario: &Scenario, streams: &Streams, floor: Nanos) -> Result<Record, ScenarioError> {
    scenario.check()?;
    let (warm_up, duration) = (scenario.warm_up, scenario.duration);
    let mut whole = Record { nodes: Vec::new(), warm_up, duration, floor, events: 0 };
    for part in record_by_node(scenario, streams, floor) {
        let part = part?;
        whole.nodes.extend(part.nodes);
        whole.events += part.events;
    }
    Ok(whole)
}

/// What [`record`] gives, a record for each node: whoever has judged one can drop it before the next is made, and needs
/// no more memory for ten thousand nodes than for one.
///
/// # Errors
/// The scenario is [impossible](Scenario::check).
pub fn record_by_node(
    scenario: &Scenario,
    streams: &Streams,
    floor: Nanos,
) -> impl Iterator<Item = Result<Record, ScenarioError>> {
    (0..scenario.nodes).map(move |node| record_node(scenario, node, streams, floor))
}

fn record_node(scenario: &Scenario, node: usize, streams: &Streams, floor: Nanos) -> Result<Record, ScenarioError> {
    let config = scenario.monitor;
    let mut world = World::of_nodes(scenario, node..node + 1, streams, |hook_table| {
        Monitor::new(config, hook_table, move |_, now| SilenceRecorder::new(floor, now))
    })?;
    let mut observer = Observer::default();
    while let Some(happening) = world.next() {
        if let Happening::Stepped(node) = happening {
            observer.look(world.now(), &mut world.watches[node]);
        }
    }
    let (events, warm_up, duration) = (world.events, scenario.warm_up, scenario.duration);
    let end = world.nodes.pop().zip(world.watches.pop());
    let nodes = end.map(|(node, watch)| observer.end(&watch.monitor, node.failures)).into_iter().collect();
    Ok(Record { nodes, warm_up, duration, floor, events })
}

/// Runs `scenario` with monitors that suspect by its deadlines; their verdicts by node.
///
/// # Errors
/// The scenario is [impossible](Scenario::check).
pub fn verdicts(scenario: &Scenario, streams: &Streams) -> Result<Vec<VerdictLog>, ScenarioError> {
    verdicts_by(scenario, streams, |record, now| DeadlineDetector::new(record.deadline, now))
}

/// Runs `scenario` with monitors that suspect by the detectors that `make` makes when an entity's watch begins; their
/// verdicts by node.
///
/// # Errors
/// The scenario is [impossible](Scenario::check).
pub fn verdicts_by<D: Detector>(
    scenario: &Scenario,
    streams: &Streams,
    make: impl Fn(&EntityRecord, Nanos) -> D + Clone + Send + 'static,
) -> Result<Vec<VerdictLog>, ScenarioError> {
    let config = scenario.monitor;
    let mut world = World::new(scenario, streams, |hook_table| Monitor::new(config, hook_table, make.clone()))?;
    let mut logs = vec![(Vec::new(), 0); scenario.nodes];
    while let Some(happening) = world.next() {
        let Happening::Stepped(node) = happening else { continue };
        let (marks, channel_losses) = &mut logs[node];
        let at = world.watches[node].link.known_at(world.now());
        for noticed in &world.watches[node].noticed {
            match noticed {
                Noticed::Suspected(v) => marks.push(Mark { at, suspected: true, slot: v.slot }),
                Noticed::Trusted(v) => marks.push(Mark { at, suspected: false, slot: v.slot }),
                Noticed::ChannelLost { .. } => *channel_losses += 1,
                _ => {}
            }
        }
    }
    let ends = world.nodes.into_iter().zip(world.watches).zip(logs);
    Ok(ends
        .map(|((node, watch), (mut marks, channel_losses))| {
            marks.sort_unstable();
            VerdictLog { marks, failures: node.failures, stats: watch.monitor.stats(), channel_losses }
        })
        .collect())
}

/// An entity as it was after the last step.
#[derive(Clone, Copy, Debug)]
struct Known {
    generation: u32,
    standing: Standing,
    last_progress: Nanos,
    since: Nanos,
    silences: usize,
}

/// Looks at a monitor after each of its steps.
#[derive(Debug, Default)]
struct Observer {
    samples: Vec<Sample>,
    known: Vec<Option<Known>>,
    entities: Vec<EntityRecording>,
    /// Slot to place in `entities`.
    places: Vec<usize>,
    channel_losses: u64,
}

impl Observer {
    fn look(&mut self, now: Nanos, watch: &mut Watch<SilenceRecorder>) {
        let monitor = &mut watch.monitor;
        for noticed in &watch.noticed {
            self.channel_losses += u64::from(matches!(noticed, Noticed::ChannelLost { .. }));
        }
        let new_sample = monitor.stats().samples > self.samples.len() as u64;
        if new_sample {
            self.samples.push(Sample { begin: monitor.evidence_time(), at: watch.link.known_at(now) });
        } else if watch.noticed.is_empty() {
            return;
        }
        monitor.show_changed(|view| {
            let index = view.slot.index();
            if self.known.len() <= index {
                self.known.resize(index + 1, None);
                self.places.resize(index + 1, usize::MAX);
            }
            let silences = view.detector.silences();
            let before = self.known[index].filter(|known| known.generation == view.record.generation);
            let after = Known {
                generation: view.record.generation,
                standing: view.standing,
                last_progress: view.last_progress,
                since: now,
                silences: silences.len(),
            };
            if let Some(before) = before {
                if before.last_progress == after.last_progress && before.standing == after.standing {
                    return;
                }
                let ended = self.samples.len() - 1;
                for silence in silences.iter().skip(before.silences) {
                    let (start, length) = (silence.start, silence.end - silence.start);
                    let active = before.standing == Standing::Trusted;
                    let recorded = RecordedSilence { start, since: before.since, length, ended, active };
                    self.entities[self.places[index]].silences.push(recorded);
                }
            } else {
                self.places[index] = self.entities.len();
                let (slot, record) = (view.slot, *view.record);
                self.entities.push(EntityRecording { slot, record, silences: Vec::new() });
            }
            self.known[index] = Some(after);
        });
    }

    /// The record, with the silences that have not ended.
    fn end(mut self, monitor: &Monitor<SilenceRecorder>, failures: Vec<Failure>) -> NodeRecord {
        for (index, known) in self.known.iter().enumerate() {
            let Some(known) = known else { continue };
            self.entities[self.places[index]].silences.push(RecordedSilence {
                start: known.last_progress,
                since: known.since,
                length: monitor.evidence_time() - known.last_progress,
                ended: self.samples.len(),
                active: known.standing == Standing::Trusted,
            });
        }
        self.entities.sort_by_key(|entity| entity.slot);
        NodeRecord {
            samples: self.samples,
            entities: self.entities,
            failures,
            stats: monitor.stats(),
            channel_losses: self.channel_losses,
        }
    }
}
