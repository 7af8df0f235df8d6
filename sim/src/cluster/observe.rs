//! Runs whose outcome is everything that the monitors observed, from which any detector is [replayed](super::replay).
//!
//! A monitor passes on to detectors, and to nobody else, what it sees; and no detector changes what it sees next. So one
//! run, watched by a detector that trusts always and notes each progress, holds what every detector with every
//! parameter would have been told, to the nanosecond. An observation is small: 32 bytes a sample, 16 a seen change of a
//! counter.
//!
//! What an idle entity owes because work waits for it is a matter of words and gauges, and not of detectors; so it is
//! observed, too.

use backdoor_core::Nanos;
use backdoor_core::detector::{Detector, Heartbeat};
use backdoor_core::monitor::{Event as Noticed, Monitor, MonitorStats, Standing};
use backdoor_core::progress_box::{EntityRecord, EntityState, Liveness, Slot};

use super::scenario::{Scenario, ScenarioError};
use super::world::{Happening, Watch, World};
use crate::faults::Failure;
use crate::streams::Streams;

/// Between which times of some clock the words of a sample were read.
///
/// The monitor's own is evidence time. Silence counts up to `begin` and progress from `end`, whatever the clock: a
/// detector whose silences are measured on another clock is replayed on that one's spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Not before.
    pub begin: Nanos,
    /// Not after.
    pub end: Nanos,
}

/// When a sample was taken in, in time of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// By the monitor.
    pub at: Nanos,
    /// When what the monitor makes of it is known: the time of its verdicts. For a watchdog, when its report arrives.
    pub known: Nanos,
}

/// A sample showed a change of an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The sample's number.
    pub sample: u32,
    /// Whether the word had changed, which is progress; otherwise only what the entity owes did.
    pub moved: bool,
    /// Whether the entity says that it is idle, and owes progress all the same, for it has work.
    pub owes: bool,
    /// The word from there on.
    pub word: Liveness,
}

/// One entity, from when the monitor knew it until it was gone: what one detector watches.
#[derive(Clone, Debug)]
pub struct Life {
    /// Its place.
    pub slot: Slot,
    /// What the directory says of it.
    pub record: EntityRecord,
    /// The first sample under its detector's eyes, at least 1: watching starts at the end of the one before.
    pub first: u32,
    /// Its word when it came to be known. If it owes progress in spite of that, the first change says so.
    pub word: Liveness,
    /// What was seen to change, in order.
    pub changes: Vec<Change>,
    /// The first sample that its detector did not see any more.
    pub end: u32,
}

/// What the monitor of one node observed, and what was true.
#[derive(Clone, Debug)]
pub struct NodeObservation {
    /// Evidence time, by sample. Neither end ever decreases.
    pub evidence: Vec<Span>,
    /// The run's time, by sample.
    pub taken: Vec<Taken>,
    /// The entities, in slot order, and in order of time for each slot.
    pub lives: Vec<Life>,
    /// The failures that happened, in order of striking.
    pub failures: Vec<Failure>,
    /// What the monitor did.
    pub stats: MonitorStats,
    /// How often the monitor lost its channel.
    pub channel_losses: u64,
}

/// A run's observation.
#[derive(Clone, Debug)]
pub struct Observation {
    /// By node.
    pub nodes: Vec<NodeObservation>,
    /// Nothing before counts.
    pub warm_up: Nanos,
    /// When the run ended.
    pub duration: Nanos,
    /// Events simulated.
    pub events: u64,
}

/// Runs `scenario` with monitors that suspect nobody, and keeps what they observe.
///
/// An entity whose deadline is changed while it lives begins a new life; the simulated cluster changes none.
///
/// # Errors
/// The scenario is [impossible](Scenario::check).
pub fn observe(scenario: &Scenario, streams: &Streams) -> Result<Observation, ScenarioError> {
    let config = scenario.monitor;
    let mut world = World::new(scenario, streams, |hook_table| {
        let mut lives = 0;
        Monitor::new(config, hook_table, move |_, now| {
            lives += 1;
            Tape { life: lives, start: now, moves: 0, last: Heartbeat { number: 0, at: now } }
        })
    })?;
    let mut observers: Vec<Observer> = (0..scenario.nodes).map(|_| Observer::default()).collect();
    while let Some(happening) = world.next() {
        if let Happening::Stepped(node) = happening {
            observers[node].look(world.now(), &world.watches[node]);
        }
    }
    let (events, warm_up, duration) = (world.events, scenario.warm_up, scenario.duration);
    let ends = world.nodes.into_iter().zip(world.watches).zip(observers);
    let nodes = ends.map(|((node, watch), observer)| observer.end(watch.monitor.stats(), node.failures)).collect();
    Ok(Observation { nodes, warm_up, duration, events })
}

/// A detector that trusts always, and notes what it was told last.
#[derive(Clone, Copy, Debug)]
struct Tape {
    /// Number of this detector: one for each life.
    life: u64,
    start: Nanos,
    moves: u64,
    last: Heartbeat,
}

impl Detector for Tape {
    const STEADY: bool = true;

    fn progressed(&mut self, heartbeat: Heartbeat) {
        self.moves += 1;
        self.last = heartbeat;
    }

    fn last_progress(&self) -> Nanos {
        self.last.at
    }

    fn fresh_until(&self) -> Nanos {
        Nanos::MAX
    }
}

/// What was seen of the entity in a slot so far.
#[derive(Clone, Copy, Debug)]
struct Known {
    life: u64,
    moves: u64,
    owes: bool,
    /// In the observer's lives.
    place: usize,
    /// The step in which it was last there.
    step: u64,
}

/// Looks at a monitor after each of its steps.
#[derive(Debug, Default)]
struct Observer {
    step: u64,
    evidence: Vec<Span>,
    taken: Vec<Taken>,
    /// By slot.
    known: Vec<Option<Known>>,
    lives: Vec<Life>,
    channel_losses: u64,
}

impl Observer {
    fn look(&mut self, now: Nanos, watch: &Watch<Tape>) {
        let monitor = &watch.monitor;
        for noticed in &watch.noticed {
            self.channel_losses += u64::from(matches!(noticed, Noticed::ChannelLost { .. }));
        }
        let is_new = monitor.stats().samples > self.evidence.len() as u64;
        if is_new {
            self.evidence.push(Span { begin: monitor.evidence_time(), end: monitor.evidence_end() });
            self.taken.push(Taken { at: now, known: watch.link.known_at(now) });
        } else if watch.noticed.is_empty() {
            return;
        }
        self.step += 1;
        let samples = self.evidence.len() as u32;
        for view in monitor.entities() {
            let index = view.slot.index();
            if self.known.len() <= index {
                self.known.resize(index + 1, None);
            }
            let (tape, word) = (view.detector, view.word);
            let before = self.known[index].filter(|known| known.life == tape.life);
            let place = match before {
                Some(known) => known.place,
                None => {
                    self.end_life(index, samples - u32::from(is_new));
                    // A directory may be read just before or just after a sample of the same step.
                    let after = !is_new || tape.moves == 0 && tape.start == monitor.evidence_end();
                    let first = if after { samples } else { samples - 1 };
                    let (slot, record) = (view.slot, *view.record);
                    self.lives.push(Life { slot, record, first, word, changes: Vec::new(), end: u32::MAX });
                    self.lives.len() - 1
                }
            };
            let moved = before.map_or(0, |known| known.moves) < tape.moves;
            // Nobody is suspected here, so who is trusted in spite of its word owes progress.
            let owes = word.state() == EntityState::Idle && view.standing == Standing::Trusted;
            if moved || owes != before.is_some_and(|known| known.owes) {
                self.lives[place].changes.push(Change { sample: samples - 1, moved, owes, word });
            }
            self.known[index] = Some(Known { life: tape.life, moves: tape.moves, owes, place, step: self.step });
        }
        for index in 0..self.known.len() {
            let Some(known) = self.known[index].filter(|known| known.step < self.step) else { continue };
            // With a sample, its slot was freed; without, the monitor forgot the node.
            if is_new {
                let word = Liveness::new(EntityState::Free, 0);
                self.lives[known.place].changes.push(Change { sample: samples - 1, moved: true, owes: false, word });
            }
            self.end_life(index, samples);
        }
    }

    fn end_life(&mut self, index: usize, end: u32) {
        if let Some(known) = self.known[index].take() {
            self.lives[known.place].end = end;
        }
    }

    fn end(mut self, stats: MonitorStats, failures: Vec<Failure>) -> NodeObservation {
        for index in 0..self.known.len() {
            self.end_life(index, self.evidence.len() as u32);
        }
        self.lives.sort_by_key(|life| life.slot);
        let Observer { evidence, taken, lives, channel_losses, .. } = self;
        NodeObservation { evidence, taken, lives, failures, stats, channel_losses }
    }
}
