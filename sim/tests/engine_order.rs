//! The engine's order is (time, sequence of scheduling) and nothing else: whatever is done to its geometry, it must
//! agree with the plain heap. The schedules here are chosen to hurt a calendar queue.

use backdoor_core::Nanos;
use backdoor_sim::engine::reference::HeapEngine;
use backdoor_sim::engine::workload::Workload;
use backdoor_sim::engine::{Engine, EventQueue};
use proptest::prelude::*;

/// A step of a hostile caller.
#[derive(Clone, Debug)]
enum Step {
    /// Schedule this many events, each this far after now, and each this much later than the one before.
    Burst { count: u16, delay: u64, apart: u64 },
    /// Schedule at an absolute time that may lie near the end of the clock.
    At(u64),
    /// Take out this many events; before each, schedule one this far ahead (zero: into the bucket being drained).
    Drain { count: u16, feed: Option<u64> },
    /// Look at the first event's time.
    Peek,
}

/// Delays at every scale, ties and the ends of the clock included.
fn delay() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => Just(0),
        2 => 0..4u64,
        3 => (0u32..64, any::<u64>()).prop_map(|(bits, x)| x & ((1u64 << bits) - 1)),
        1 => Just(u64::MAX),
        1 => Just(u64::MAX - 1),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..300u16, delay(), prop_oneof![Just(0u64), Just(1), 0..5_000u64])
            .prop_map(|(count, delay, apart)| Step::Burst { count, delay, apart }),
        1 => delay().prop_map(Step::At),
        6 => (1..2_500u16, prop_oneof![Just(None), delay().prop_map(Some)])
            .prop_map(|(count, feed)| Step::Drain { count, feed }),
        2 => Just(Step::Peek),
    ]
}

/// The engine under test, and the model; events are numbered.
struct Both {
    engine: Engine<u32>,
    model: HeapEngine<u32>,
    scheduled: u32,
}

impl Both {
    fn new() -> Self {
        Both { engine: Engine::new(), model: HeapEngine::new(), scheduled: 0 }
    }

    fn schedule(&mut self, at: Nanos) {
        let at = at.max(self.model.now());
        self.engine.schedule(at, self.scheduled);
        self.model.schedule(at, self.scheduled);
        self.scheduled += 1;
    }

    fn next(&mut self) -> Result<bool, TestCaseError> {
        let (got, expected) = (self.engine.next(), self.model.next());
        prop_assert_eq!(got, expected);
        prop_assert_eq!(self.engine.now(), self.model.now());
        prop_assert_eq!(self.engine.len(), self.model.len());
        Ok(got.is_some())
    }

    fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Burst { count, delay, apart } => {
                for i in 0..u64::from(count) {
                    self.schedule(self.model.now() + Nanos(delay) + Nanos(apart) * i);
                }
            }
            Step::At(at) => self.schedule(Nanos(at)),
            Step::Drain { count, feed } => {
                for _ in 0..count {
                    if let Some(delay) = feed {
                        self.schedule(self.model.now() + Nanos(delay));
                    }
                    if !self.next()? {
                        break;
                    }
                }
            }
            Step::Peek => prop_assert_eq!(self.engine.peek_time(), self.model.peek_time()),
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_heap_on_hostile_schedules(steps in prop::collection::vec(step(), 1..40)) {
        let mut both = Both::new();
        for step in &steps {
            both.run(step)?;
        }
        while both.next()? {}
        prop_assert!(both.engine.is_empty());
    }

    /// Several retunings: the spacing changes by orders of magnitude under way.
    #[test]
    fn agrees_with_the_heap_when_the_spacing_changes(phases in prop::collection::vec((1..50_000_000u64, 1..2_000u64), 2..5)) {
        let mut both = Both::new();
        for (spread, pending) in phases {
            let mut x = spread | 1;
            for i in 0..9_000 {
                // Any sequence without a pattern will do.
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                if both.engine.len() < pending as usize || i % 2 == 0 {
                    both.schedule(both.engine.now() + Nanos((x >> 20) % spread));
                } else {
                    both.next()?;
                }
            }
        }
        while both.next()? {}
    }

    /// Cancelling is the same as skipping when it comes out.
    #[test]
    fn cancelled_events_do_not_come_out(
        delays in prop::collection::vec((delay(), any::<bool>()), 1..4_000),
        peek in any::<bool>(),
    ) {
        let (mut engine, mut model) = (Engine::new(), HeapEngine::new());
        let ids: Vec<_> = (0..).zip(&delays).map(|(number, &(delay, _))| {
            model.schedule(Nanos(delay), number);
            engine.schedule(Nanos(delay), number)
        }).collect();
        let kept = delays.iter().filter(|(_, cancel)| !cancel).count();
        for (number, (&id, &(_, cancel))) in ids.iter().zip(&delays).enumerate() {
            if cancel {
                prop_assert_eq!(engine.cancel(id), Some(number));
                prop_assert_eq!(engine.cancel(id), None);
            }
        }
        prop_assert_eq!(engine.len(), kept);
        while let Some((at, number)) = model.next() {
            if delays[number].1 {
                continue;
            }
            if peek {
                prop_assert_eq!(engine.peek_time(), Some(at));
            }
            prop_assert_eq!(engine.next(), Some((at, number)));
            prop_assert_eq!(engine.cancel(ids[number]), None);
        }
        prop_assert_eq!(engine.peek_time(), None);
        prop_assert_eq!(engine.next(), None);
    }
}

#[test]
fn both_queues_run_the_benchmark_load_alike() {
    let workload = Workload { events: 200_000, ..Workload::default() };
    let outcome = workload.run(&mut Engine::new());
    assert_eq!(outcome, workload.run(&mut HeapEngine::new()));
    assert_eq!(outcome.events, 200_000);
    assert!(outcome.progress_seen > 100_000, "monitors see progress: {outcome:?}");
    assert_ne!(outcome.digest, Workload { seed: 2, ..workload }.run(&mut Engine::new()).digest);
}

#[test]
fn a_tie_is_a_queue() {
    let mut engine = Engine::new();
    for number in 0..10_000 {
        engine.schedule(Nanos::from_millis(1), number);
    }
    for number in 0..10_000 {
        assert_eq!(engine.next(), Some((Nanos::from_millis(1), number)));
        // What is added to the instant under way comes after what was there.
        engine.schedule_in(Nanos::ZERO, number + 10_000);
    }
    for number in 10_000..20_000 {
        assert_eq!(engine.next(), Some((Nanos::from_millis(1), number)));
    }
    assert_eq!(engine.next(), None);
}

#[test]
fn never_comes_last_and_in_order() {
    let mut engine = Engine::new();
    engine.schedule(Nanos::MAX, "never");
    engine.schedule_in(Nanos::MAX, "never again");
    for second in 0..5_000 {
        engine.schedule(Nanos::from_secs(second), "soon");
        assert_eq!(engine.next(), Some((Nanos::from_secs(second), "soon")));
    }
    assert_eq!(engine.next(), Some((Nanos::MAX, "never")));
    engine.schedule_in(Nanos::from_secs(1), "after the end");
    assert_eq!(engine.next(), Some((Nanos::MAX, "never again")));
    assert_eq!(engine.next(), Some((Nanos::MAX, "after the end")));
    assert_eq!(engine.next(), None);
}

/// Found by the property test: the last bucket of the clock has no successor.
#[test]
fn the_clock_may_end_in_a_bucket_of_a_nanosecond() {
    let mut engine = Engine::new();
    for number in 0..5_000 {
        engine.schedule_in(Nanos(3), number);
        assert_eq!(engine.next().map(|(_, event)| event), Some(number));
    }
    engine.schedule(Nanos::MAX, 0);
    for number in 1..5_000 {
        engine.schedule(Nanos::MAX, number);
        assert_eq!(engine.next(), Some((Nanos::MAX, number - 1)));
    }
}

#[test]
fn an_early_event_after_a_peek_far_ahead_is_still_first() {
    let mut engine = Engine::new();
    engine.schedule(Nanos::from_secs(3600), "late");
    assert_eq!(engine.peek_time(), Some(Nanos::from_secs(3600)));
    engine.schedule(Nanos(5), "early");
    assert_eq!(engine.peek_time(), Some(Nanos(5)));
    assert_eq!(engine.next(), Some((Nanos(5), "early")));
    assert_eq!(engine.next(), Some((Nanos::from_secs(3600), "late")));
}

#[test]
fn an_old_id_does_not_cancel_the_event_that_took_its_place() {
    let mut engine = Engine::new();
    let first = engine.schedule(Nanos(1), "first");
    engine.next();
    let second = engine.schedule(Nanos(2), "second");
    assert_ne!(first, second);
    assert_eq!(engine.slots(), 1, "the test is about an event in the same place");
    assert_eq!(engine.cancel(first), None);
    assert_eq!(engine.cancel(second), Some("second"));
}

#[test]
fn timeouts_that_are_always_cancelled_take_no_room() {
    let mut engine = Engine::new();
    for _ in 0..100_000 {
        let timeout = engine.schedule_in(Nanos::from_secs(3600), ());
        engine.schedule_in(Nanos::from_micros(1), ());
        assert_eq!(engine.cancel(timeout), Some(()));
        engine.next();
    }
    assert_eq!((engine.len(), engine.peek_time()), (0, None));
    assert!(engine.slots() < 5_000, "{} slots for no event", engine.slots());
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "release builds move the event to now")]
#[should_panic(expected = "before now")]
fn the_past_is_refused_in_debug_builds() {
    let mut engine = Engine::new();
    engine.schedule(Nanos(10), ());
    engine.next();
    engine.schedule(Nanos(9), ());
}
