//! The discrete-event engine: a clock, and a queue of what will happen.
//!
//! # What it promises
//! Events come out in the order **(time, sequence of scheduling)**, and nothing else decides: two events at the same
//! nanosecond come out in the order in which they were scheduled, on every machine and with every history of the queue.
//! That is half of the determinism of a simulation; the other half is [`crate::streams`].
//!
//! ```
//! use backdoor_core::Nanos;
//! use backdoor_sim::engine::Engine;
//!
//! let mut engine = Engine::new();
//! engine.schedule(Nanos::from_millis(2), "poll");
//! engine.schedule(Nanos::from_millis(1), "tick");
//! engine.schedule(Nanos::from_millis(2), "response"); // a tie: after "poll", which was scheduled before
//! let timeout = engine.schedule_in(Nanos::from_secs(1), "timeout");
//! engine.cancel(timeout);
//!
//! let order: Vec<_> = std::iter::from_fn(|| engine.next().map(|(at, event)| (at.as_millis_f64(), event))).collect();
//! assert_eq!(order, [(1.0, "tick"), (2.0, "poll"), (2.0, "response")]);
//! assert_eq!(engine.now(), Nanos::from_millis(2));
//! ```
//!
//! # How it is fast
//! A calendar queue (Brown, "Calendar Queues", CACM 31(10), 1988) in which no step costs more for being big:
//!
//! ```text
//!   now        cursor                              cursor + N buckets
//!    |           |  .  :  .     :   .  .      .          |
//!    +-----------+-----------------------------------------+------------------------->  time
//!      late heap   front   wheel: a list per bucket,          far heap
//!                (sorted)  bits say which are not empty       (whatever lies beyond)
//! ```
//!
//! * A bucket is `2^shift` ns wide and is an intrusive list through a slab: to schedule is to write one node and one
//!   head. The next bucket that holds anything is found with a bitmap, not by walking.
//! * Only the bucket under the cursor is sorted, into the `front`. What is scheduled at or before that bucket after it
//!   has been drained goes there too if only a few events come before it, and else to a small heap, `late`, so that a
//!   flood of events at one instant stays O(log n) each.
//! * What lies beyond the wheel waits in a heap, `far`, and moves into the wheel as the cursor comes near. An event at
//!   [`Nanos::MAX`] ("never") simply stays there.
//! * Now and then the width and the number of buckets are chosen again from the spacing of the events that came out.
//!   The worst choice costs time, never order.
//!
//! [`reference::HeapEngine`] is the plain binary heap, for tests and as the yardstick of `cargo bench`.

mod calendar;
mod occupancy;
pub mod reference;
mod tuning;
pub mod workload;

use backdoor_core::Nanos;

pub use calendar::{Engine, EventId};

/// What a simulation needs of an event queue, so that two of them can be driven by the same code.
pub trait EventQueue<E> {
    /// Virtual time: the time of the last event taken out, zero before.
    fn now(&self) -> Nanos;
    /// Adds an event at the instant `at`.
    fn schedule(&mut self, at: Nanos, event: E);
    /// Takes out the first event and sets the clock to its time.
    fn next(&mut self) -> Option<(Nanos, E)>;
    /// Adds an event `delay` after now.
    fn schedule_in(&mut self, delay: Nanos, event: E) {
        self.schedule(self.now() + delay, event);
    }
}
