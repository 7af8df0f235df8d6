//! NFD-U: NFD-S without synchronised clocks, where the expected arrival times are known.
//!
//! τ_i = EA_i + α, with EA_i the expected arrival of heartbeat *i* on the watcher's own clock. That is NFD-S with
//! δ = E(D) + α, whatever the clocks show (Chen, Toueg and Aguilera 2002, section 6.1), and so it is made of it here.

use super::schedule::Schedule;
use super::{Detector, Heartbeat, NfdS, Tuned};
use crate::Nanos;

/// Trusts up to α after the next heartbeat's expected arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NfdU(NfdS);

impl NfdU {
    /// With arrivals expected as `expected` says, and `margin` (α) for delays longer than the mean. Starts as if heartbeat
    /// `start.number` had come at `start.at`.
    pub fn new(expected: Schedule, margin: Nanos, start: Heartbeat) -> Self {
        NfdU(NfdS::new(expected, margin, start))
    }
}

impl Detector for NfdU {
    const STEADY: bool = true;

    #[inline]
    fn progressed(&mut self, heartbeat: Heartbeat) {
        self.0.progressed(heartbeat);
    }

    #[inline]
    fn last_progress(&self) -> Nanos {
        self.0.last_progress()
    }

    #[inline]
    fn fresh_until(&self) -> Nanos {
        self.0.fresh_until()
    }
}

/// By the margin, α.
impl Tuned for NfdU {
    type Knob = Nanos;

    #[inline]
    fn fresh_until_with(&self, margin: Nanos) -> Nanos {
        self.0.fresh_until_with(margin)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn is_nfd_s_shifted_by_the_mean_delay() {
        let start = Heartbeat { number: 0, at: Nanos(100) };
        let schedule = |at| Schedule { period: Nanos(10), number: 0, at };
        let mut by_sending = NfdS::new(schedule(Nanos(100)), Nanos(3 + 2), start);
        let mut by_arrival = NfdU::new(schedule(Nanos(103)), Nanos(2), start);
        for (number, at) in [(1, 111), (2, 124), (4, 143), (3, 150), (7, 171)] {
            let heartbeat = Heartbeat { number, at: Nanos(at) };
            by_sending.progressed(heartbeat);
            by_arrival.progressed(heartbeat);
            assert_eq!(by_arrival.fresh_until(), by_sending.fresh_until());
        }
    }
}
