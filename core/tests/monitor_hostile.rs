//! A monitor over memory that anything may happen to: no panic, no unbounded work or memory, and events that tell a
//! consistent story.
#![cfg(not(loom))]

mod support;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use backdoor_core::Nanos;
use backdoor_core::detector::DeadlineDetector;
use backdoor_core::diagnosis::diagnose;
use backdoor_core::hook_table::{Hook, Purpose, hook_table_words, write_hook_table};
use backdoor_core::monitor::{Event, Monitor, MonitorConfig, Standing};
use backdoor_core::progress_box::{
    Counter, EntityRecord, EntityState, FailureLevel, Geometry, Liveness, ProgressBox, Slot,
};
use backdoor_core::transport::{RegionKey, Rights, TransportError};
use backdoor_core::words::Ordering;
use proptest::prelude::*;
use support::{InMemory, Words, words};

const TABLE: RegionKey = RegionKey(1);
const BOX: RegionKey = RegionKey(2);
const MS: Nanos = Nanos::from_millis(1);
const CAPACITY: usize = 40;

/// Header words that no checksum covers.
const DIRECTORY_VERSION: usize = 5;
const DIRECTORY_USED: usize = 6;

/// The node's own side, honest or not.
struct Node {
    table: Words,
    memory: Words,
    owner: ProgressBox<Words>,
    incarnation: u64,
}

impl Node {
    fn new() -> Self {
        let (table, memory) = (words(hook_table_words(1)), words(2048));
        let owner = ProgressBox::format(memory.clone(), Geometry::new(CAPACITY, 1).unwrap(), 1).unwrap();
        let node = Node { table, memory, owner, incarnation: 1 };
        node.write_table();
        node
    }

    fn write_table(&self) {
        let hook = Hook::whole_region(1, Purpose::Monitoring, Rights::READ, BOX, self.memory.len());
        write_hook_table(&self.table, self.incarnation, &[hook]).unwrap();
    }

    fn word(&self, index: usize, value: u64) {
        self.memory[index].store(value, Ordering::Relaxed);
    }

    fn liveness(&self, slot: usize, value: u64) {
        let liveness = self.owner.geometry().liveness();
        self.word(liveness.start + slot % liveness.len(), value);
    }

    fn apply(&mut self, change: &Change) {
        let state = |number: u8| {
            [EntityState::Free, EntityState::Active, EntityState::Idle, EntityState::Departed][number as usize % 4]
        };
        match *change {
            Change::Nothing => {}
            Change::Advance { first, count } => {
                let slots: Vec<Slot> = self.owner.slots().collect();
                for slot in slots.into_iter().skip(first as usize).take(count as usize) {
                    Counter::resume(self.owner.liveness_word(slot)).advance();
                }
            }
            Change::Idle(slot) => {
                if let Some(slot) = self.owner.slots().nth(slot as usize) {
                    Counter::resume(self.owner.liveness_word(slot)).idle();
                }
            }
            Change::Flip { slot, state: number, count } => {
                self.liveness(slot as usize, Liveness::new(state(number), count).0);
            }
            Change::Garbage { slot, value } => self.liveness(slot as usize, value),
            Change::Version(version) => self.word(DIRECTORY_VERSION, version),
            Change::Used(used) => self.word(DIRECTORY_USED, used),
            Change::Header { index, value } => self.word(index as usize % 8, value),
            Change::Table { index, value } => {
                self.table[index as usize % self.table.len()].store(value, Ordering::Relaxed);
            }
            Change::Add { level, deadline_ms } => {
                let level = FailureLevel::ALL[level as usize % 3];
                let _ = self.owner.add(EntityRecord::new("x", level, MS * u64::from(deadline_ms)));
            }
            Change::Remove(slot) => self.owner.remove(Slot(u32::from(slot))),
            Change::Deadline { slot, ms } => {
                self.owner.amend(Slot(u32::from(slot)), |record| record.deadline = MS * u64::from(ms));
            }
            Change::Restart { capacity } => {
                self.incarnation += 1;
                let geometry = Geometry::new(1 + capacity as usize % CAPACITY, 1).unwrap();
                self.owner = ProgressBox::format(self.memory.clone(), geometry, self.incarnation).unwrap();
                self.write_table();
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Change {
    Nothing,
    Advance { first: u8, count: u8 },
    Idle(u8),
    Flip { slot: u8, state: u8, count: u64 },
    Garbage { slot: u8, value: u64 },
    Version(u64),
    Used(u64),
    Header { index: u8, value: u64 },
    Table { index: u8, value: u64 },
    Add { level: u8, deadline_ms: u8 },
    Remove(u8),
    Deadline { slot: u8, ms: u8 },
    Restart { capacity: u8 },
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        2 => Just(Change::Nothing),
        6 => (0u8..4, 1u8..).prop_map(|(first, count)| Change::Advance { first, count }),
        2 => (0u8..6).prop_map(Change::Idle),
        3 => (0u8..6, any::<u8>(), 0u64..9).prop_map(|(slot, state, count)| Change::Flip { slot, state, count }),
        1 => (any::<u8>(), any::<u64>()).prop_map(|(slot, value)| Change::Garbage { slot, value }),
        2 => any::<u64>().prop_map(Change::Version),
        2 => prop_oneof![0u64..50, any::<u64>()].prop_map(Change::Used),
        1 => (any::<u8>(), any::<u64>()).prop_map(|(index, value)| Change::Header { index, value }),
        1 => (any::<u8>(), any::<u64>()).prop_map(|(index, value)| Change::Table { index, value }),
        5 => (any::<u8>(), 1u8..8).prop_map(|(level, deadline_ms)| Change::Add { level, deadline_ms }),
        3 => (0u8..6).prop_map(Change::Remove),
        2 => (0u8..6, 1u8..20).prop_map(|(slot, ms)| Change::Deadline { slot, ms }),
        1 => any::<u8>().prop_map(|capacity| Change::Restart { capacity }),
    ]
}

/// What happens to the way to the node.
#[derive(Clone, Debug)]
enum Way {
    Clear,
    HoldBack,
    Fault(u8),
}

fn way() -> impl Strategy<Value = Way> {
    prop_oneof![12 => Just(Way::Clear), 2 => Just(Way::HoldBack), 1 => (0u8..4).prop_map(Way::Fault)]
}

/// Holds events against each other.
#[derive(Default)]
struct Story {
    /// Generation of who is there, and whether suspected.
    there: BTreeMap<Slot, (u32, bool)>,
    channel_lost: bool,
}

impl Story {
    fn take_in(&mut self, event: &Event) {
        match event {
            Event::Attached { .. } => self.there.clear(),
            Event::Joined { slot, record } => {
                let before = self.there.insert(*slot, (record.generation, false));
                assert_eq!(before, None, "{event:?}: joined, and was there");
            }
            Event::Left { slot, record } => {
                let before = self.there.remove(slot);
                assert_eq!(before.map(|(generation, _)| generation), Some(record.generation), "{event:?}: left");
            }
            Event::Suspected(verdict) => {
                let before = self.there.insert(verdict.slot, (verdict.record.generation, true));
                assert_eq!(before, Some((verdict.record.generation, false)), "{event:?}");
            }
            Event::Trusted(verdict) => {
                let before = self.there.insert(verdict.slot, (verdict.record.generation, false));
                assert_eq!(before, Some((verdict.record.generation, true)), "{event:?}");
            }
            Event::ChannelLost { .. } => assert!(!std::mem::replace(&mut self.channel_lost, true)),
            Event::ChannelRestored { .. } => assert!(std::mem::replace(&mut self.channel_lost, false)),
            Event::Restarted { .. } | Event::BadMemory { .. } | Event::NoProgressBox { .. } | Event::Late { .. } => {}
        }
    }

    fn compare(&self, monitor: &Monitor<DeadlineDetector>) {
        for entity in monitor.entities() {
            let told = self.there.get(&entity.slot).copied();
            match entity.standing {
                Standing::Departed => assert_eq!(told, None, "{entity:?}"),
                Standing::Suspected => assert_eq!(told, Some((entity.record.generation, true)), "{entity:?}"),
                _ => assert_eq!(told, Some((entity.record.generation, false)), "{entity:?}"),
            }
        }
    }
}

fn world() -> (Rc<RefCell<Node>>, InMemory) {
    let node = Node::new();
    let mut transport = InMemory::default();
    transport.regions.insert(TABLE, node.table.clone());
    transport.regions.insert(BOX, node.memory.clone());
    (Rc::new(RefCell::new(node)), transport)
}

fn config() -> MonitorConfig {
    MonitorConfig { read_timeout: MS * 10, retry_interval: MS * 3, ..MonitorConfig::polling_every(MS) }
}

/// Lets the monitor work at each millisecond of `span`, after what the node does.
fn run(
    monitor: &mut Monitor<DeadlineDetector>,
    transport: &mut InMemory,
    now: &mut Nanos,
    span: Nanos,
    mut node: impl FnMut(),
) -> Vec<Event> {
    let (end, mut events) = (*now + span, Vec::new());
    while *now < end {
        node();
        monitor.step(*now, transport, &mut events);
        *now += MS;
    }
    events
}

fn session(name: &str, deadline: Nanos) -> EntityRecord {
    EntityRecord::new(name, FailureLevel::Session, deadline)
}

fn advance(node: &Rc<RefCell<Node>>, slot: Slot) {
    Counter::resume(node.borrow().owner.liveness_word(slot)).advance();
}

#[test]
fn a_slot_that_was_seen_free_belongs_to_nobody_until_its_next_user_is_known() {
    let (node, mut transport) = world();
    let slot = node.borrow_mut().owner.add(session("old", MS)).unwrap();
    let (mut monitor, mut now) = (Monitor::by_deadline(config(), TABLE), Nanos::ZERO);
    run(&mut monitor, &mut transport, &mut now, MS * 5, || ());
    node.borrow_mut().owner.remove(slot);
    let events = run(&mut monitor, &mut transport, &mut now, MS * 5, || ());
    assert!(matches!(events[..], [Event::Left { record, .. }] if record.name.as_str() == "old"), "{events:?}");
    node.borrow_mut().owner.add(session("new", MS * 100)).unwrap();
    advance(&node, slot);
    let events = run(&mut monitor, &mut transport, &mut now, MS * 5, || ());
    assert!(matches!(events[..], [Event::Joined { record, .. }] if record.name.as_str() == "new"), "{events:?}");
    assert_eq!(monitor.stats().directory_reads, 3);
}

#[test]
fn whoever_uses_a_slot_again_under_the_same_entry_is_watched_again() {
    let (node, mut transport) = world();
    let slot = node.borrow_mut().owner.add(session("a", MS)).unwrap();
    let (mut monitor, mut now) = (Monitor::by_deadline(config(), TABLE), Nanos::ZERO);
    run(&mut monitor, &mut transport, &mut now, MS * 5, || ());
    // Damage, undone by the entity's next step.
    node.borrow().liveness(slot.index(), 0);
    run(&mut monitor, &mut transport, &mut now, MS * 5, || ());
    node.borrow().liveness(slot.index(), Liveness::new(EntityState::Active, 9).0);
    let events = run(&mut monitor, &mut transport, &mut now, MS * 9, || ());
    assert!(matches!(events[..], [Event::Joined { .. }, Event::Suspected(_)]), "{events:?}");
}

#[test]
fn an_extent_that_was_older_than_its_version_hides_nobody() {
    let (node, mut transport) = world();
    node.borrow_mut().owner.add(session("a", MS)).unwrap();
    node.borrow_mut().owner.add(session("b", MS)).unwrap();
    // A torn READ: the version after b came, the extent before.
    node.borrow().word(DIRECTORY_USED, 1);
    let (mut monitor, mut now) = (Monitor::by_deadline(config(), TABLE), Nanos::ZERO);
    run(&mut monitor, &mut transport, &mut now, MS * 3, || ());
    assert_eq!(monitor.entities().count(), 1);
    node.borrow().word(DIRECTORY_USED, 2);
    run(&mut monitor, &mut transport, &mut now, MS * 3, || ());
    assert_eq!(monitor.entities().count(), 2);
}

#[test]
fn a_deadline_changed_while_suspected_is_no_progress() {
    let (node, mut transport) = world();
    let slot = node.borrow_mut().owner.add(session("a", MS * 5)).unwrap();
    advance(&node, slot);
    let (mut monitor, mut now) = (Monitor::by_deadline(config(), TABLE), Nanos::ZERO);
    run(&mut monitor, &mut transport, &mut now, MS * 10, || ());
    let silent_since = monitor.entities().next().unwrap().last_progress;
    node.borrow_mut().owner.amend(slot, |record| record.deadline = MS * 50);
    run(&mut monitor, &mut transport, &mut now, MS * 10, || ());
    let entity = monitor.entities().next().unwrap();
    assert_eq!((entity.standing, entity.last_progress), (Standing::Suspected, silent_since));
    advance(&node, slot);
    let events = run(&mut monitor, &mut transport, &mut now, MS, || ());
    assert!(matches!(events[..], [Event::Trusted(verdict)] if verdict.silence >= MS * 18), "{events:?}");
}

#[test]
fn a_newcomer_is_watched_from_the_end_of_the_sample_that_showed_it() {
    let (node, mut transport) = world();
    let (mut monitor, mut now) = (Monitor::by_deadline(config(), TABLE), Nanos::ZERO);
    run(&mut monitor, &mut transport, &mut now, MS * 3, || ());
    // The sample is posted here and completes 3 ms later; meanwhile somebody comes.
    transport.held_back = true;
    run(&mut monitor, &mut transport, &mut now, MS * 3, || ());
    let slot = node.borrow_mut().owner.add(session("a", MS * 2)).unwrap();
    advance(&node, slot);
    transport.held_back = false;
    let events = run(&mut monitor, &mut transport, &mut now, MS * 2, || ());
    assert!(matches!(events[..], [Event::Joined { .. }]), "{events:?}");
}

#[test]
fn a_step_ends_without_any_pause_between_reads() {
    let (node, mut transport) = world();
    let no_pause = MonitorConfig {
        poll_interval: Nanos::ZERO,
        max_gap: Nanos::ZERO,
        read_timeout: MS,
        retry_interval: Nanos::ZERO,
    };
    let mut monitor = Monitor::by_deadline(no_pause, TABLE);
    monitor.step(MS, &mut transport, &mut Vec::new());
    node.borrow().table[0].store(0, Ordering::Relaxed);
    node.borrow().word(0, 0);
    monitor.step(MS * 2, &mut transport, &mut Vec::new());
    assert!(transport.reads < 12, "{} READs", transport.reads);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_node_does_the_events_tell_one_story(
        rounds in proptest::collection::vec((change(), way(), 0u64..3), 1..120),
        between in proptest::collection::vec(change(), 1..6),
    ) {
        let (node, mut transport) = world();
        let mut monitor = Monitor::by_deadline(config(), TABLE);
        let (mut now, mut story, mut events) = (Nanos::ZERO, Story::default(), Vec::new());
        // The node goes on between any two READs, as often as there are any.
        transport.before_read = Some(Box::new({
            let node = node.clone();
            let mut next = 0;
            move || {
                node.borrow_mut().apply(&between[next % between.len()]);
                next += 1;
                assert!(next < 100_000, "a step that never ends");
            }
        }));
        for (change, way, ms) in &rounds {
            node.borrow_mut().apply(change);
            transport.held_back = matches!(way, Way::HoldBack);
            if let Way::Fault(number) = way {
                use TransportError::{LocalFault, OutOfBounds, Refused, Unreachable};
                transport.fault = Some([Refused, OutOfBounds, Unreachable, LocalFault][*number as usize % 4]);
            }
            now += MS * *ms;
            let reads = transport.reads;
            monitor.step(now, &mut transport, &mut events);
            prop_assert!(transport.reads - reads <= 12, "a step must end, whatever the node does meanwhile");
            prop_assert!(transport.buffers() <= 6, "{} buffers", transport.buffers());
            prop_assert!(events.len() <= 4 * CAPACITY + 12, "{} events", events.len());
            events.drain(..).for_each(|event| story.take_in(&event));
            story.compare(&monitor);
            let suspected = monitor.entities().any(|entity| entity.standing == Standing::Suspected);
            prop_assert_eq!(suspected, !diagnose(&monitor).is_empty());
        }
    }
}
