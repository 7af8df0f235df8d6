//! The paper's detector: an entity whose counter has not moved within its deadline has failed (section 5).
//!
//! The deadline is a promise of the entity, not a guess of the monitor, so nothing is estimated and nothing can be
//! poisoned by a pause. The price is that somebody must choose it: with a deadline of *d* and polls every *p*, a failure
//! is found within *d* + *p* of the last progress, and every healthy silence longer than *d* is a false positive.

use std::num::NonZeroU64;

use super::{Detector, Heartbeat, Tuned};
use crate::Nanos;

/// Suspects an entity after more than `deadline` of silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadlineDetector {
    // Never zero, so that a table of detectors that may be absent takes no more room than one of detectors.
    deadline_ns: NonZeroU64,
    last_progress: Nanos,
}

impl DeadlineDetector {
    /// Starts watching at `now`, as if progress had been made then. A deadline of zero counts as one nanosecond.
    pub fn new(deadline: Nanos, now: Nanos) -> Self {
        let deadline_ns = NonZeroU64::new(deadline.0).unwrap_or(NonZeroU64::MIN);
        DeadlineDetector { deadline_ns, last_progress: now }
    }

    /// Longest silence that is trusted.
    pub fn deadline(&self) -> Nanos {
        Nanos(self.deadline_ns.get())
    }
}

const _: () = assert!(size_of::<Option<DeadlineDetector>>() == 16);

impl Detector for DeadlineDetector {
    const STEADY: bool = true;

    #[inline]
    fn progressed(&mut self, heartbeat: Heartbeat) {
        self.last_progress = heartbeat.at;
    }

    #[inline]
    fn last_progress(&self) -> Nanos {
        self.last_progress
    }

    #[inline]
    fn fresh_until(&self) -> Nanos {
        self.fresh_until_with(self.deadline())
    }
}

/// By the deadline.
impl Tuned for DeadlineDetector {
    type Knob = Nanos;

    #[inline]
    fn fresh_until_with(&self, deadline: Nanos) -> Nanos {
        self.last_progress + deadline
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn trusts_for_the_deadline_after_each_progress() {
        let mut detector = DeadlineDetector::new(Nanos(20), Nanos(100));
        assert_eq!(detector.fresh_until(), Nanos(120));
        detector.progressed(Heartbeat { number: 1, at: Nanos(115) });
        assert_eq!(detector.fresh_until(), Nanos(135));
    }

    #[test]
    fn a_deadline_of_never_never_expires() {
        assert_eq!(DeadlineDetector::new(Nanos::MAX, Nanos(5)).fresh_until(), Nanos::MAX);
    }
}
