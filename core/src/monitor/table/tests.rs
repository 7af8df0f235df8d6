//! Trust and suspicion, a sample at a time.

use super::super::node_clock::SLOWEST;
use super::*;
use crate::detector::{DeadlineDetector, Duty, NfdS, Schedule};
use crate::progress_box::{FailureLevel, Pending};
use proptest::prelude::*;

/// Counts due at 10, 20, …, each good for 5 after the next one is due.
#[test]
fn progress_that_comes_too_late_acquits_nobody() {
    let record = EntityRecord::new("ticks", FailureLevel::Os, Nanos(15));
    let mut table = EntityTable::new(1);
    let mut events = Vec::new();
    let mut sample = |count: u64, at: u64, table: &mut EntityTable<NfdS>| {
        let (words, at) = ([Liveness::new(EntityState::Active, count).0], Nanos(at));
        table.observe(Sample { words: &words, gauges: &[], begin: at, end: at, now: at }, &mut events);
        std::mem::take(&mut events)
    };
    sample(1, 10, &mut table);
    let make = &mut |_: &EntityRecord, at| {
        let schedule = Schedule { period: Nanos(10), number: 0, at: Nanos(0) };
        NfdS::new(schedule, Nanos(5), Heartbeat { number: 1, at })
    };
    table.learn(Slot(0), record, Nanos(10), make, &mut Vec::new());
    assert_eq!(sample(1, 25, &mut table), []);
    assert!(matches!(sample(1, 26, &mut table)[..], [Event::Suspected(_)]));
    assert_eq!(sample(2, 36, &mut table), [], "2 was good up to 35");
    assert!(matches!(sample(3, 37, &mut table)[..], [Event::Trusted(_)]));
    assert!(matches!(sample(3, 46, &mut table)[..], [Event::Suspected(_)]));
}

proptest! {
    /// An agent keeps the operating system's counter and ends; a service goes on, and falls silent a while later, or at the
    /// same time. Told of the end within a poll, the monitor suspects it after its deadline, and what the counter's silence
    /// excused until then; never told, after no more deadlines than the slowest clock takes for one.
    #[test]
    fn a_service_is_watched_on_when_nobody_keeps_the_systems_counter(
        goes_on in 0u64..3_000,
        told_after in proptest::option::of(0u64..50),
    ) {
        const ENDS: u64 = 200;
        const DEADLINE: u64 = 20;
        const MS: Nanos = Nanos::from_millis(1);
        let mut table = EntityTable::new(2);
        let make = &mut |record: &EntityRecord, at| Duty::new(record.deadline, at);
        let (mut events, mut suspected) = (Vec::new(), None);
        let silent_at = ENDS + goes_on;
        for at in 1..=silent_at + (DEADLINE + 50) * 17 {
            let words = [at.min(ENDS), at.min(silent_at)].map(|count| Liveness::new(EntityState::Active, count).0);
            let now = MS * at;
            if told_after.is_some_and(|after| at == ENDS + after) {
                table.keeper_ended();
            }
            table.observe(Sample { words: &words, gauges: &[], begin: now, end: now, now }, &mut events);
            if at == 1 {
                let system = EntityRecord::new("os", FailureLevel::Os, MS * 100).every(MS);
                let service = EntityRecord::new("kv", FailureLevel::Application, MS * DEADLINE);
                table.learn(Slot(0), system, now, make, &mut Vec::new());
                table.learn(Slot(1), service, now, make, &mut Vec::new());
            }
            for event in events.drain(..) {
                if let Event::Suspected(verdict) = event && verdict.slot == Slot(1) {
                    prop_assert!(at > silent_at + DEADLINE, "it still owes nothing");
                    suspected.get_or_insert(at - silent_at);
                }
            }
        }
        let most = told_after.map_or((DEADLINE + 1) * SLOWEST, |after| DEADLINE + after.saturating_sub(goes_on));
        prop_assert!(suspected.is_some_and(|after| after <= most + 2), "{suspected:?}, at most {most}");
    }
}

/// Whoever moves, changes its standing or is learnt of is shown, once; nobody else is.
#[test]
fn what_has_changed_is_shown_once() {
    const ENTITIES: usize = 70;
    let mut table = EntityTable::new(ENTITIES);
    let mut words = [Liveness::new(EntityState::Active, 1).0; ENTITIES];
    let shown = |words: &[u64], at: u64, table: &mut EntityTable<_>| {
        let at = Nanos(at);
        table.observe(Sample { words, gauges: &[], begin: at, end: at, now: at }, &mut Vec::new());
        let mut slots = Vec::new();
        table.show_changed(|view| slots.push(view.slot.0));
        slots
    };
    assert_eq!(shown(&words, 1, &mut table), [], "nobody is known");
    let make = &mut |record: &EntityRecord, at| DeadlineDetector::new(record.deadline, at);
    for slot in 0..ENTITIES as u32 {
        let deadline = if slot == 40 { Nanos(10) } else { Nanos(100) };
        let record = EntityRecord::new("one of many", FailureLevel::Application, deadline);
        table.learn(Slot(slot), record, Nanos(1), make, &mut Vec::new());
    }
    assert_eq!(shown(&words, 2, &mut table), (0..ENTITIES as u32).collect::<Vec<_>>());
    assert_eq!(shown(&words, 3, &mut table), []);
    words[33] = Liveness::new(EntityState::Active, 2).0;
    words[69] = Liveness::new(EntityState::Idle, 2).0;
    assert_eq!(shown(&words, 4, &mut table), [33, 69]);
    assert_eq!(shown(&words, 12, &mut table), [40], "suspected");
    words = words.map(|word| Liveness::new(EntityState::Active, Liveness(word).count() + 1).0);
    assert_eq!(shown(&words, 13, &mut table).len(), ENTITIES);
}

/// What a driver that copies byte by byte makes of a word that changes meanwhile.
fn torn(old: u64, new: u64, bytes: u8) -> u64 {
    let (old, new) = (old.to_le_bytes(), new.to_le_bytes());
    u64::from_le_bytes(std::array::from_fn(|byte| if bytes & 1 << byte == 0 { old[byte] } else { new[byte] }))
}

proptest! {
    /// A word may be torn: between two samples that are due, progress is still seen, and no state that never was.
    #[test]
    fn torn_words_accuse_nobody(start in 0..u64::MAX >> 4, steps in prop::collection::vec((1u64..300, any::<u8>()), 1..60)) {
        let deadline = Nanos::from_millis(2);
        let record = EntityRecord::new("torn", FailureLevel::Application, deadline);
        let mut table = EntityTable::new(1);
        let mut events = Vec::new();
        let word = |count| Liveness::new(EntityState::Active, count).0;
        let mut count = start;
        let sample = |words: &[u64], at: u64, table: &mut EntityTable<_>, events: &mut Vec<Event>| {
            let at = Nanos::from_millis(at);
            table.observe(Sample { words, gauges: &[], begin: at, end: at, now: at }, events);
        };
        sample(&[word(count)], 0, &mut table, &mut events);
        table.learn(Slot(0), record, Nanos::ZERO, &mut |record, at| DeadlineDetector::new(record.deadline, at), &mut events);
        events.clear();
        for (at, (progress, bytes)) in steps.iter().enumerate() {
            let before = count;
            count += progress;
            // Torn, and whole a millisecond later.
            let at = 2 * at as u64 + 1;
            sample(&[torn(word(before), word(count), *bytes)], at, &mut table, &mut events);
            sample(&[word(count)], at + 1, &mut table, &mut events);
            prop_assert!(events.is_empty(), "{events:?}");
        }
    }
}

const MS: Nanos = Nanos::from_millis(1);

/// A node whose slot 0 is the operating system with ticks every millisecond, and slot 1 a session with a deadline of 5 ms
/// whose pending work is in gauge 0; polled every millisecond.
struct Node<D> {
    table: EntityTable<D>,
    words: [u64; 2],
    gauges: [u64; 1],
    now: Nanos,
}

impl<D: Detector> Node<D> {
    fn new(mut make: impl FnMut(&EntityRecord, Nanos) -> D) -> Self {
        let words = [EntityState::Active, EntityState::Idle].map(|state| Liveness::new(state, 1).0);
        let mut node = Node { table: EntityTable::new(2), words, gauges: [0], now: Nanos::ZERO };
        node.poll();
        let os = EntityRecord::new("os", FailureLevel::Os, MS * 50).every(MS);
        let session = EntityRecord::new("session", FailureLevel::Session, MS * 5).owing(0);
        for (slot, record) in [(Slot(0), os), (Slot(1), session)] {
            node.table.learn(slot, record, node.now, &mut make, &mut Vec::new());
        }
        node
    }

    fn by_deadline() -> Node<DeadlineDetector> {
        Node::new(|record, now| DeadlineDetector::new(record.deadline, now))
    }

    fn step(&mut self, slot: usize, state: EntityState) {
        self.words[slot] = Liveness::new(state, Liveness(self.words[slot]).count() + 1).0;
    }

    /// A poll a millisecond later; what became of the session.
    fn poll(&mut self) -> Option<&'static str> {
        let mut events = Vec::new();
        self.now += MS;
        let (begin, end, now) = (self.now, self.now, self.now);
        self.table.observe(Sample { words: &self.words, gauges: &self.gauges, begin, end, now }, &mut events);
        events.iter().find_map(|event| match event {
            Event::Suspected(verdict) if verdict.slot == Slot(1) => Some("suspected"),
            Event::Trusted(verdict) if verdict.slot == Slot(1) => Some("trusted"),
            _ => None,
        })
    }

    /// Polls `polls` times while the system ticks; at which of them what became of the session.
    fn polls(&mut self, polls: usize) -> Vec<(usize, &'static str)> {
        let poll = |at| {
            self.step(0, EntityState::Active);
            self.poll().map(|what| (at, what))
        };
        (1..=polls).filter_map(poll).collect()
    }
}

#[test]
fn who_is_idle_and_has_no_work_may_be_silent_for_ever() {
    assert_eq!(Node::<DeadlineDetector>::by_deadline().polls(1000), []);
}

#[test]
fn an_idle_claim_does_not_hide_pending_work() {
    let mut node = Node::<DeadlineDetector>::by_deadline();
    assert_eq!(node.polls(100), []);
    node.gauges[0] = 1;
    assert_eq!(
        node.polls(20),
        [(7, "suspected")],
        "a deadline after the first sample that shows it, not after the last progress"
    );
    node.step(1, EntityState::Idle);
    assert_eq!(node.polls(3), [(1, "trusted")], "a step is progress");
    assert_eq!(node.polls(20), [(4, "suspected")], "and the rest is owed from then on");
    node.gauges[0] = 0;
    assert_eq!(node.polls(20), [(1, "trusted")], "somebody else took the work away");
    assert_eq!(node.polls(100), []);
}

#[test]
fn work_that_is_done_in_time_is_no_reason_for_suspicion() {
    let mut node = Node::<DeadlineDetector>::by_deadline();
    for round in 0..100 {
        node.gauges[0] = 1 + round % 3;
        assert_eq!(node.polls(4), []);
        node.step(1, EntityState::Idle);
        assert_eq!(node.polls(1), []);
        node.gauges[0] = 0;
        assert_eq!(node.polls(round as usize % 7), []);
    }
}

/// A counter of work done is always idle but for what waits: being awake is not enough.
#[test]
fn activity_without_progress_is_seen_where_work_is_counted() {
    let mut node = Node::<DeadlineDetector>::by_deadline();
    node.gauges[0] = 3;
    node.step(1, EntityState::Active);
    assert_eq!(node.polls(10), [(7, "suspected")], "it takes the work up, and never does any");
}

#[test]
fn a_gauge_that_is_not_there_accuses_nobody() {
    let mut node = Node::<DeadlineDetector>::by_deadline();
    let record = EntityRecord::new("session", FailureLevel::Session, MS * 5).owing(u16::MAX);
    let make = &mut |record: &EntityRecord, now| DeadlineDetector::new(record.deadline, now);
    node.table.learn(Slot(1), record, node.now, make, &mut Vec::new());
    node.gauges[0] = 5;
    assert_eq!(node.polls(50), []);
}

#[test]
fn a_keeper_that_is_late_accuses_nobody() {
    let looked = |amount, look| Pending::seen(amount, look).to_word();
    let mut node = Node::<DeadlineDetector>::by_deadline();
    node.gauges[0] = looked(8, 1);
    node.step(1, EntityState::Idle);
    assert_eq!(node.polls(50), [], "it was done while the keeper waited for a processor");
    node.gauges[0] = looked(8, 2);
    assert_eq!(node.polls(50), [], "that look may have begun before");
    node.gauges[0] = looked(8, 3);
    assert_eq!(node.polls(50), [(7, "suspected")], "this one did not, and the keeper need look no more");
    node.step(1, EntityState::Idle);
    node.gauges[0] = looked(9, 4);
    assert_eq!(node.polls(50), [(1, "trusted")]);
}

#[test]
fn who_owed_and_is_not_counted_any_more_is_idle_by_its_word() {
    for owes_for in [3, 20] {
        let mut node = Node::<DeadlineDetector>::by_deadline();
        node.gauges[0] = 1;
        let before = node.polls(owes_for);
        let record = EntityRecord::new("session", FailureLevel::Session, MS * 5);
        let make = &mut |record: &EntityRecord, now| DeadlineDetector::new(record.deadline, now);
        node.table.learn(Slot(1), record, node.now, make, &mut Vec::new());
        let after = if before.is_empty() { vec![] } else { vec![(1, "trusted")] };
        assert_eq!(node.polls(50), after);
        assert_eq!(node.table.entities().nth(1).map(|entity| entity.standing), Some(Standing::Idle));
    }
}

/// The node slows down to a quarter; a session that is silent for 12 of its own polls was starved for 9 of them.
#[test]
fn a_starved_entity_is_not_accused_on_its_nodes_clock() {
    let starved = |node: &mut dyn FnMut(bool, bool) -> Option<&'static str>| {
        (0..40).filter_map(|poll| node(poll % 4 == 0, poll % 12 == 0).map(|what| (poll, what))).collect::<Vec<_>>()
    };
    fn overload<D: Detector>(node: &mut Node<D>) -> impl FnMut(bool, bool) -> Option<&'static str> + '_ {
        node.step(1, EntityState::Active);
        node.polls(1);
        |tick, progress| {
            for (slot, steps) in [(0, tick), (1, progress)] {
                if steps {
                    node.step(slot, EntityState::Active);
                }
            }
            node.poll()
        }
    }
    let mut by_deadline = Node::<DeadlineDetector>::by_deadline();
    assert_eq!(starved(&mut overload(&mut by_deadline))[0], (6, "suspected"));
    let mut by_duty = Node::new(|record: &EntityRecord, now| Duty::new(record.deadline, now));
    assert_eq!(starved(&mut overload(&mut by_duty)), []);
    // Dead, it is found all the same; later, because the node hardly runs.
    let mut dead = overload(&mut by_duty);
    let found = (0..60).find(|poll| dead(poll % 4 == 0, false) == Some("suspected"));
    assert!(matches!(found, Some(12..30)), "{found:?}");
}

#[test]
fn on_a_node_that_runs_duty_is_the_deadline() {
    let mut node = Node::new(|record: &EntityRecord, now| Duty::new(record.deadline, now));
    node.step(1, EntityState::Active);
    assert_eq!(node.polls(20), [(7, "suspected")]);
}

#[test]
fn a_node_that_stands_still_is_accused_itself() {
    let mut node = Node::new(|record: &EntityRecord, now| Duty::new(record.deadline, now));
    node.step(1, EntityState::Active);
    node.polls(1);
    for poll in 0..51 {
        assert_eq!(node.poll(), None, "{poll}");
    }
    let standings: Vec<Standing> = node.table.entities().map(|entity| entity.standing).collect();
    assert_eq!(standings, [Standing::Suspected, Standing::Trusted]);
}
