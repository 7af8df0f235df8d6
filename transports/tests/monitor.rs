//! Core's monitor, diagnosis and extraction over the simulated network card, fault by fault.

use std::sync::Arc;

use backdoor_core::Nanos;
use backdoor_core::detector::DeadlineDetector;
use backdoor_core::diagnosis::{Cause, diagnose, settles_by};
use backdoor_core::hook_table::{Hook, Purpose, hook_table_words, write_hook_table};
use backdoor_core::monitor::{Event, Monitor, MonitorConfig, Standing};
use backdoor_core::progress_box::{Counter, EntityRecord, FailureLevel, Geometry, ProgressBox, Slot, StateBoxLocation};
use backdoor_core::recovery::{Extraction, ExtractionConfig, NodeAction, RecoveryPlan, StateError, plan};
use backdoor_core::state_box::{StateBox, StateBoxError, words_needed};
use backdoor_core::transport::{RegionKey, Rights, TransportError};
use backdoor_core::words::{AtomicU64, Ordering, zeroed};
use backdoor_transports::sim_nic::{FixedPath, SimChannel, SimNicConfig, SimNode};

const MS: Nanos = Nanos::from_millis(1);
const DEADLINE: Nanos = Nanos::from_millis(20);
const SESSION_WORDS: usize = words_needed(3000);
const ALL: [u32; 5] = [0, 1, 2, 3, 4];

type Memory = Arc<[AtomicU64]>;
type ExtractedState = Result<Vec<u8>, StateError>;

/// A node of one operating system (slot 0), one application (1) and three sessions (2, 3, 4), its monitor, and the time.
struct World {
    node: SimNode,
    geometry: Geometry,
    box_memory: Memory,
    box_key: RegionKey,
    progress_box: ProgressBox<Memory>,
    boxes: Memory,
    claim: AtomicU64,
    channel: SimChannel<FixedPath>,
    monitor: Monitor<DeadlineDetector>,
    now: Nanos,
    events: Vec<Event>,
}

impl World {
    fn new() -> Self {
        let memory = |words| -> Memory { zeroed(words).into() };
        let geometry = Geometry::new(8, 2).unwrap();
        let (table, box_memory, boxes) =
            (memory(hook_table_words(2)), memory(geometry.total_words()), memory(4 * SESSION_WORDS));
        let node = SimNode::new();
        let register = |memory: &Memory| node.register(memory.clone(), Rights::READ).unwrap();
        let (table_key, box_key, boxes_key) = (register(&table), register(&box_memory), register(&boxes));
        let hooks = [
            Hook::whole_region(1, Purpose::Monitoring, Rights::READ, box_key, box_memory.len()),
            Hook::whole_region(2, Purpose::Recovery, Rights::READ, boxes_key, boxes.len()),
        ];
        write_hook_table(&table, 7, &hooks).unwrap();
        let path = FixedPath::new(Nanos::from_micros(2));
        let mut world = World {
            channel: SimChannel::connect(&node, path, SimNicConfig::default()).unwrap(),
            monitor: Monitor::by_deadline(MonitorConfig::polling_every(MS), table_key),
            progress_box: ProgressBox::format(box_memory.clone(), geometry, 7).unwrap(),
            node,
            geometry,
            box_memory,
            box_key,
            boxes,
            claim: AtomicU64::new(0),
            now: Nanos::ZERO,
            events: Vec::new(),
        };
        let os = world.add(EntityRecord::new("os", FailureLevel::Os, DEADLINE));
        let app = world.add(EntityRecord::new("app", FailureLevel::Application, DEADLINE).within(os));
        for session in 1..=3u64 {
            let mut record = EntityRecord::new("session", FailureLevel::Session, DEADLINE).within(app);
            record.session = session;
            let offset = session * SESSION_WORDS as u64;
            record.state_box = Some(StateBoxLocation { offset, words: SESSION_WORDS as u64, claim: 0 });
            world.add(record);
        }
        world
    }

    fn add(&mut self, record: EntityRecord) -> Slot {
        self.progress_box.add(record).unwrap()
    }

    fn state_box(&self, session: u64) -> StateBox<&[AtomicU64], &AtomicU64> {
        let start = session as usize * SESSION_WORDS;
        StateBox::format(&self.boxes[start..start + SESSION_WORDS], &self.claim, session, 1).unwrap()
    }

    fn counter(&self, slot: u32) -> Counter<&AtomicU64> {
        Counter::resume(self.progress_box.liveness_word(Slot(slot)))
    }

    /// Lets time pass; the entities in `alive` advance every millisecond, the monitor works if it `runs`.
    fn pass(&mut self, span: Nanos, alive: &[u32], runs: bool) {
        let end = self.now + span;
        while self.now < end {
            alive.iter().for_each(|slot| self.counter(*slot).advance());
            for _ in 0..1000 {
                self.now += Nanos::from_micros(1);
                self.channel.advance_to(self.now);
                if runs {
                    self.monitor.step(self.now, &mut self.channel, &mut self.events);
                }
            }
        }
    }

    fn run(&mut self, span: Nanos, alive: &[u32]) {
        self.pass(span, alive, true);
    }

    fn suspected(&self) -> Vec<u32> {
        self.monitor.entities().filter(|e| e.standing == Standing::Suspected).map(|e| e.slot.0).collect()
    }

    fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| wanted(event)).count()
    }

    fn nobody_was_accused(&self) -> bool {
        self.count(|e| matches!(e, Event::Suspected(_))) == 0
    }

    /// The plan for the node's only failure.
    fn plan(&self) -> RecoveryPlan {
        let failures = diagnose(&self.monitor);
        assert_eq!(failures.len(), 1, "{failures:?}");
        plan(&self.monitor, &failures[0])
    }

    /// What became of each session, by its number, and the bytes read for it.
    fn extract(&mut self, config: ExtractionConfig) -> (Vec<(u64, ExtractedState)>, u64) {
        let sessions = self.plan().recoverable;
        let recovery = self.monitor.hooks().unwrap().find(Purpose::Recovery).unwrap().memory;
        let mut extraction = Extraction::new(config, recovery, sessions);
        let mut answers = Vec::new();
        while !extraction.is_done() {
            self.now += Nanos::from_micros(1);
            self.channel.advance_to(self.now);
            extraction.step(&mut self.channel, &mut |session, state| {
                answers.push((session.record.session, state.map(|s| s.committed.payload.to_vec())));
            });
        }
        answers.sort_by_key(|(session, _)| *session);
        (answers, extraction.stats().bytes_read)
    }
}

#[test]
fn a_healthy_node_is_trusted() {
    let mut world = World::new();
    world.run(MS * 200, &ALL);
    assert_eq!(world.monitor.entities().filter(|e| e.standing == Standing::Trusted).count(), 5);
    assert_eq!(world.count(|e| matches!(e, Event::Joined { .. })), 5);
    assert_eq!(world.count(|e| matches!(e, Event::Late { .. })), 0);
    assert!(world.nobody_was_accused());
    assert!(world.monitor.stats().samples >= 199);
    assert_eq!(world.monitor.stats().directory_reads, 1);
}

#[test]
fn a_silent_session_is_suspected_within_deadline_and_poll() {
    let mut world = World::new();
    world.run(MS * 50, &ALL);
    let failed_at = world.now;
    world.run(MS * 40, &[0, 1, 2, 4]);
    let verdicts: Vec<_> =
        world.events.iter().filter_map(|e| if let Event::Suspected(v) = e { Some(*v) } else { None }).collect();
    assert_eq!(verdicts.len(), 1);
    assert_eq!(verdicts[0].slot, Slot(3));
    assert!(verdicts[0].silence > DEADLINE);
    let detection = verdicts[0].at - failed_at;
    assert!(detection <= DEADLINE + MS + Nanos::from_micros(10), "{detection}");
    assert_eq!(diagnose(&world.monitor)[0].cause, Cause::Session);
}

#[test]
fn a_diagnosis_settles_with_the_widest_deadline_or_with_a_sign_of_life() {
    for (alive, cause) in [(&[][..], Cause::OperatingSystem), (&[0], Cause::Application)] {
        let mut world = World::new();
        world.progress_box.amend(Slot(0), |record| record.deadline = DEADLINE * 4);
        world.run(MS * 50, &ALL);
        // The system does not live longer than the others, but is trusted longer.
        world.run(MS * 25, &[]);
        assert_eq!(world.plan().cause, Cause::Application, "at the first suspicion");
        let settles_by_then = settles_by(&world.monitor).unwrap();
        assert!(settles_by_then <= MS * 50 + DEADLINE * 4, "{settles_by_then}");
        let start = world.now;
        while settles_by(&world.monitor).is_some() {
            world.run(MS, alive);
        }
        assert_eq!(world.plan().cause, cause);
        assert!(world.monitor.evidence_time() <= settles_by_then + MS * 2);
        assert!(alive.is_empty() || world.now - start <= MS * 2, "one sign of life is enough");
    }
}

#[test]
fn who_comes_back_is_trusted_again() {
    let mut world = World::new();
    world.run(MS * 50, &ALL);
    world.run(MS * 40, &[0, 1, 2, 4]);
    world.run(MS * 5, &ALL);
    assert_eq!(world.count(|e| matches!(e, Event::Trusted(v) if v.slot == Slot(3))), 1);
    assert!(world.suspected().is_empty());
    assert!(diagnose(&world.monitor).is_empty());
}

#[test]
fn idle_is_not_hung_and_departed_is_not_dead() {
    let mut world = World::new();
    world.run(MS * 50, &ALL);
    world.counter(3).idle();
    world.counter(4).depart();
    world.run(MS * 60, &[0, 1, 2]);
    assert!(world.nobody_was_accused());
    assert_eq!(world.count(|e| matches!(e, Event::Left { slot: Slot(4), .. })), 1);
}

#[test]
fn a_slot_used_again_is_another_entity() {
    let mut world = World::new();
    world.run(MS * 50, &ALL);
    world.progress_box.remove(Slot(3));
    assert_eq!(world.add(EntityRecord::new("next", FailureLevel::Session, DEADLINE)), Slot(3));
    world.run(MS * 60, &ALL);
    assert_eq!(world.count(|e| matches!(e, Event::Left { slot: Slot(3), .. })), 1);
    let joined = |e: &Event| matches!(e, Event::Joined { slot: Slot(3), record } if record.name.as_str() == "next");
    assert_eq!(world.count(joined), 1);
    assert!(world.nobody_was_accused());
}

#[test]
fn a_monitor_that_was_away_accuses_nobody_on_that_evidence() {
    let mut world = World::new();
    world.run(MS * 50, &ALL);
    // Node and monitor stand still together, as when their host is paused.
    world.pass(MS * 500, &[], false);
    world.run(MS * 50, &ALL);
    assert!(world.nobody_was_accused());
    assert_eq!(world.count(|e| matches!(e, Event::Late { .. })), 1);
    assert_eq!(world.monitor.stats().late_samples, 1);
}

#[test]
fn a_broken_channel_accuses_nobody_and_is_opened_again() {
    let mut world = World::new();
    world.run(MS * 50, &ALL);
    world.node.cut_link();
    world.run(MS * 2000, &ALL);
    assert_eq!(world.count(|e| matches!(e, Event::ChannelLost { error: TransportError::Unreachable, .. })), 1);
    world.node.restore_link();
    world.run(MS * 2000, &ALL);
    assert_eq!(world.count(|e| matches!(e, Event::ChannelRestored { .. })), 1);
    assert!(world.nobody_was_accused());
    world.run(MS * 40, &[0, 1, 2, 3]);
    assert_eq!(world.suspected(), [4], "detection goes on over the new channel");
}

#[test]
fn a_failure_while_the_channel_was_broken_is_found_afterwards() {
    let mut world = World::new();
    world.run(MS * 50, &ALL);
    world.node.cut_link();
    world.run(MS * 500, &[0, 1]);
    world.node.restore_link();
    world.run(MS * 2000, &[0, 1]);
    assert_eq!(world.suspected(), [2, 3, 4]);
}

#[test]
fn the_own_link_is_no_evidence_against_the_node() {
    let mut world = World::new();
    world.run(MS * 50, &ALL);
    world.channel.cut_own_link();
    world.run(MS * 500, &ALL);
    assert_eq!(world.count(|e| matches!(e, Event::ChannelLost { error: TransportError::LocalFault, .. })), 1);
    world.channel.restore_own_link();
    world.run(MS * 1000, &ALL);
    assert!(world.nobody_was_accused());
    assert_eq!(world.count(|e| matches!(e, Event::ChannelRestored { .. })), 1);
}

#[test]
fn revoked_memory_is_reported_and_accuses_nobody() {
    let mut world = World::new();
    world.run(MS * 50, &ALL);
    world.node.deregister(world.box_key).unwrap();
    world.run(MS * 500, &ALL);
    // Once, though each attempt to attach reads the hook table before it is refused again.
    assert_eq!(world.count(|e| matches!(e, Event::ChannelLost { error: TransportError::Refused, .. })), 1);
    assert_eq!(world.count(|e| matches!(e, Event::ChannelRestored { .. })), 0);
    assert!(world.nobody_was_accused());
}

#[test]
fn a_node_started_anew_is_watched_anew() {
    let mut world = World::new();
    world.run(MS * 50, &ALL);
    world.progress_box = ProgressBox::format(world.box_memory.clone(), world.geometry, 8).unwrap();
    world.add(EntityRecord::new("os", FailureLevel::Os, DEADLINE));
    world.run(MS * 400, &[0]);
    assert_eq!(world.count(|e| matches!(e, Event::Restarted { old: 7, new: 8 })), 1);
    assert_eq!(world.count(|e| matches!(e, Event::Attached { incarnation: 8, .. })), 1);
    assert_eq!(world.monitor.entities().count(), 1);
    assert!(world.nobody_was_accused());
}

#[test]
fn a_corrupt_header_is_reported_and_accuses_nobody() {
    let mut world = World::new();
    world.run(MS * 50, &ALL);
    world.box_memory[2].store(u64::MAX, Ordering::Relaxed);
    world.run(MS * 300, &[]);
    assert!(world.count(|e| matches!(e, Event::BadMemory { .. })) >= 1);
    assert!(world.nobody_was_accused());
}

#[test]
fn sessions_of_a_dead_application_are_read_out_byte_for_byte() {
    let mut world = World::new();
    let state = |session: u64, version: u8| vec![version ^ session as u8; 100 * session as usize + 17];
    for session in 1..=2u64 {
        let mut state_box = world.state_box(session);
        for version in 1..=session as u8 + 4 {
            state_box.commit(&state(session, version)).unwrap();
        }
    }
    world.state_box(3); // opened, never committed
    world.run(MS * 50, &ALL);
    world.run(MS * 60, &[0]);
    let plan = world.plan();
    assert_eq!((plan.cause, plan.action), (Cause::Application, NodeAction::RestartApplication(Slot(1))));
    assert_eq!((plan.recoverable.len(), plan.lost.len()), (3, 0));
    let whole = (3 * SESSION_WORDS * 8) as u64;
    for (whole_up_to_words, at_most) in [(0, whole / 4), (1 << 20, whole)] {
        let config = ExtractionConfig { window: 2, whole_up_to_words, attempts: 3 };
        let (answers, bytes_read) = world.extract(config);
        let empty = StateError::StateBox(StateBoxError::Empty);
        assert_eq!(answers, [(1, Ok(state(1, 5))), (2, Ok(state(2, 6))), (3, Err(empty))]);
        assert!(bytes_read <= at_most, "{bytes_read} bytes");
    }
}

#[test]
fn a_forged_location_fails_that_session_alone() {
    let mut world = World::new();
    world.state_box(1).commit(b"good").unwrap();
    let forge = |record: &mut EntityRecord, offset, words| {
        record.state_box = Some(StateBoxLocation { offset, words, claim: 0 });
    };
    world.progress_box.amend(Slot(3), |record| forge(record, u64::MAX - 1, 100));
    world.progress_box.amend(Slot(4), |record| forge(record, 0, 5));
    world.run(MS * 50, &ALL);
    world.run(MS * 60, &[0]);
    let bad = StateError::BadLocation;
    let (answers, _) = world.extract(ExtractionConfig::default());
    assert_eq!(answers, [(1, Ok(b"good".to_vec())), (2, Err(bad)), (3, Err(bad))]);
}

#[test]
fn a_channel_that_breaks_amid_an_extraction_answers_for_every_session() {
    let mut world = World::new();
    for session in 1..=3 {
        world.state_box(session).commit(b"state").unwrap();
    }
    world.run(MS * 50, &ALL);
    world.run(MS * 60, &[0]);
    let sessions = world.plan().recoverable;
    let recovery = world.monitor.hooks().unwrap().find(Purpose::Recovery).unwrap().memory;
    let config = ExtractionConfig { window: 3, ..ExtractionConfig::default() };
    let mut extraction = Extraction::new(config, recovery, sessions);
    let mut answers = Vec::new();
    let mut answer = |result: Result<(), StateError>| answers.push(result);
    extraction.step(&mut world.channel, &mut |_, state| answer(state.map(|_| ())));
    world.node.cut_link();
    for _ in 0..2000 {
        world.now += MS;
        world.channel.advance_to(world.now);
        extraction.step(&mut world.channel, &mut |_, state| answer(state.map(|_| ())));
    }
    assert!(extraction.is_done());
    let unreachable = Err(StateError::Transport(TransportError::Unreachable));
    let flushed = Err(StateError::Transport(TransportError::Flushed));
    assert_eq!(answers, [unreachable, flushed, flushed]);
}
