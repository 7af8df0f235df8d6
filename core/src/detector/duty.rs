//! Our own detector, made for progress counters: who owes progress, and does not make it while the node runs, has failed.
//!
//! A heartbeat says "I am awake" and is lost or late on its way; a detector of heartbeats has to guess from intervals what
//! silence means. A counter in memory that can be read is different in three ways, and this detector is made of them:
//!
//! * Nothing is lost. A READ brings the count as it is, so there is no delay to estimate, and no window of past intervals
//!   that a pause could poison. What remains is the entity's own promise: its deadline.
//! * Other counters come with it, in the same READ. Silence is measured on the [node's clock](crate::monitor::NodeClock):
//!   it counts only while the node's operating system demonstrably gave others their turns. An overloaded node slows its
//!   clock at once, without learning, and takes up speed at once when the load is gone.
//! * So do gauges, kept by somebody else. The monitor holds an idle claim against the work that waits for the entity (see
//!   [`EntityRecord::owing`](crate::progress_box::EntityRecord::owing)): who waits for nothing may be silent for ever, who
//!   has work may not, whatever it says. A counter that counts work done, and says it is idle in between, so catches
//!   activity without progress.
//!
//! Together with the monitor's [evidence time](crate::monitor), that answers what people who run detectors complain about:
//!
//! | complaint | answer |
//! |---|---|
//! | an overloaded observer accuses the healthy | evidence time: silence that nobody watched doesn't count |
//! | idle is taken for hung | idle is a state, and is checked against pending work |
//! | activity without progress | the count is of work done, owed while work is pending |
//! | a pause poisons the window | there is no window |
//! | probes share the loaded path of the service | READs don't take the node's processors; their two ends are used so that they accuse least |
//! | a node is "ready" while its kernel is dead | a counter per processor and one that migrates, each with a deadline of its own |
//!
//! # What it assumes, and where it loses
//! That the operating system's counters wait for processors as the entity does. If they don't (a counter ticked by a
//! real-time thread, an entity confined to a share of one processor), then a starved entity is accused as by a plain
//! deadline. If they wait *longer* than the entity would, a failure is found later than by a plain deadline: at most
//! [`SLOWEST`](crate::monitor::SLOWEST) deadlines. And it knows no more than the promise: of an entity that could have promised
//! less, a detector that learns its habits is quicker.

use super::{Clock, DeadlineDetector, Detector, Heartbeat};
use crate::Nanos;

/// Suspects an entity that owes progress after more than `deadline` of the node's time without any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duty(DeadlineDetector);

impl Duty {
    /// Starts watching at `now`, as if progress had been made then. A deadline of zero counts as one nanosecond.
    pub fn new(deadline: Nanos, now: Nanos) -> Self {
        Duty(DeadlineDetector::new(deadline, now))
    }

    /// Longest silence of the node's time that is trusted.
    pub fn deadline(&self) -> Nanos {
        self.0.deadline()
    }
}

impl Detector for Duty {
    const STEADY: bool = true;

    #[inline]
    fn progressed(&mut self, heartbeat: Heartbeat) {
        self.0.progressed(heartbeat);
    }

    #[inline]
    fn last_progress(&self) -> Nanos {
        self.0.last_progress()
    }

    /// If the node ran all the time.
    #[inline]
    fn fresh_until(&self) -> Nanos {
        self.0.fresh_until()
    }

    #[inline]
    fn clock(&self) -> Clock {
        Clock::Node
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn is_a_deadline_on_the_nodes_clock() {
        let mut detector = Duty::new(Nanos(20), Nanos(100));
        detector.progressed(Heartbeat { number: 1, at: Nanos(115) });
        assert_eq!((detector.fresh_until(), detector.last_progress()), (Nanos(135), Nanos(115)));
        assert_eq!(
            (detector.clock(), DeadlineDetector::new(Nanos(20), Nanos(0)).clock()),
            (Clock::Node, Clock::Monitor)
        );
    }
}
