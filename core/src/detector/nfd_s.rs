//! NFD-S: freshness points on the sender's clock, so that the last heartbeat's delay doesn't matter to the next verdict.
//!
//! Heartbeat *i* is sent at σ_i. At any time from τ_i = σ_i + δ up to τ_{i+1} the entity is trusted if a heartbeat *i* or
//! later has come. A crash is found within δ + η, whatever the delays; of all detectors with heartbeats every η and that
//! bound it has the best query accuracy (theorem 7).
//!
//! Needs clocks that show the same time here and at the sender; [`NfdU`](super::NfdU) and [`NfdE`](super::NfdE) don't.
//!
//! Source: Chen, Toueg and Aguilera, *On the Quality of Service of Failure Detectors*, IEEE Transactions on Computers
//! 51(5), 2002, figure 6.

use super::schedule::{Schedule, signed};
use super::{Detector, Heartbeat, Tuned};
use crate::Nanos;

/// Trusts up to δ after the next heartbeat will have been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NfdS {
    sent: Schedule,
    shift: Nanos,
    newest: Heartbeat,
}

impl NfdS {
    /// With heartbeats sent as `sent` says, and freshness points `shift` (δ) after that. Starts as if heartbeat
    /// `start.number` had come at `start.at`.
    pub fn new(sent: Schedule, shift: Nanos, start: Heartbeat) -> Self {
        NfdS { sent, shift, newest: start }
    }
}

impl Detector for NfdS {
    const STEADY: bool = true;

    #[inline]
    fn progressed(&mut self, heartbeat: Heartbeat) {
        if heartbeat.number > self.newest.number {
            self.newest = heartbeat;
        }
    }

    #[inline]
    fn last_progress(&self) -> Nanos {
        self.newest.at
    }

    #[inline]
    fn fresh_until(&self) -> Nanos {
        self.fresh_until_with(self.shift)
    }
}

/// By the shift, δ.
impl Tuned for NfdS {
    type Knob = Nanos;

    #[inline]
    fn fresh_until_with(&self, shift: Nanos) -> Nanos {
        self.sent.after_next(self.newest.number, signed(shift))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Sent at 100, 110, 120, …; δ = 4: τ_1 = 114, τ_2 = 124, τ_3 = 134.
    #[test]
    fn freshness_points_follow_the_sender_and_not_the_arrivals() {
        let sent = Schedule { period: Nanos(10), number: 0, at: Nanos(100) };
        let mut detector = NfdS::new(sent, Nanos(4), Heartbeat { number: 0, at: Nanos(100) });
        assert_eq!(detector.fresh_until(), Nanos(114));
        detector.progressed(Heartbeat { number: 1, at: Nanos(119) });
        assert_eq!(detector.fresh_until(), Nanos(124), "late, and good only for what is left");
        detector.progressed(Heartbeat { number: 3, at: Nanos(131) });
        assert_eq!(detector.fresh_until(), Nanos(144), "2 was lost, or will come for nothing");
        detector.progressed(Heartbeat { number: 2, at: Nanos(132) });
        assert_eq!((detector.fresh_until(), detector.last_progress()), (Nanos(144), Nanos(131)));
        detector.progressed(Heartbeat { number: 4, at: Nanos(160) });
        assert_eq!(detector.fresh_until(), Nanos(154), "too late for any trust");
    }
}
