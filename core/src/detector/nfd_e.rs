//! NFD-E: NFD-U with expected arrivals estimated from the last *n* heartbeats.
//!
//! EA_{ℓ+1} is the mean of A_i − iη over the last *n* arrivals A_i, plus (ℓ+1)η: each arrival, less how long after
//! heartbeat 0 it was sent, tells the same constant. τ_{ℓ+1} = EA_{ℓ+1} + α. With 30 heartbeats or so it is about as good as
//! NFD-U (Chen, Toueg and Aguilera 2002, section 6.3 and figure 12).
//!
//! A pause of the network, or a heartbeat that comes very late, weighs 1/*n* until it leaves the window.

use super::schedule::{Schedule, signed};
use super::window::Window;
use super::{Detector, Heartbeat, Tuned};
use crate::Nanos;

/// Trusts up to α after the next heartbeat's estimated arrival.
#[derive(Clone, Debug)]
pub struct NfdE {
    /// Anchored at the start; what is estimated is the mean lateness in terms of it.
    schedule: Schedule,
    margin: Nanos,
    lateness: Window,
    newest: Heartbeat,
}

impl NfdE {
    /// With a heartbeat every `period`, `margin` (α), and estimates from the last `window` heartbeats (1 to
    /// [`MAX_WINDOW`](super::MAX_WINDOW)). Starts as if heartbeat `start.number` had come at `start.at`; that one is not
    /// in the window.
    pub fn new(period: Nanos, margin: Nanos, window: usize, start: Heartbeat) -> Self {
        let schedule = Schedule { period, number: start.number, at: start.at };
        NfdE { schedule, margin, lateness: Window::new(window), newest: start }
    }
}

impl Detector for NfdE {
    #[inline]
    fn progressed(&mut self, heartbeat: Heartbeat) {
        if heartbeat.number > self.newest.number {
            self.newest = heartbeat;
            self.lateness.push(self.schedule.lateness(heartbeat));
        }
    }

    #[inline]
    fn last_progress(&self) -> Nanos {
        self.newest.at
    }

    #[inline]
    fn fresh_until(&self) -> Nanos {
        self.fresh_until_with(self.margin)
    }
}

/// By the margin, α.
impl Tuned for NfdE {
    type Knob = Nanos;

    #[inline]
    fn fresh_until_with(&self, margin: Nanos) -> Nanos {
        self.schedule.after_next(self.newest.number, self.lateness.mean().saturating_add(signed(margin)))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// η = 10, n = 2, α = 3. Arrivals 112, 121, 145 of heartbeats 1, 2, 4: A_i − iη = 102, 101, 105.
    #[test]
    fn the_next_arrival_is_the_mean_of_the_last_ones() {
        let mut detector = NfdE::new(Nanos(10), Nanos(3), 2, Heartbeat { number: 0, at: Nanos(100) });
        assert_eq!(detector.fresh_until(), Nanos(100 + 10 + 3));
        detector.progressed(Heartbeat { number: 1, at: Nanos(112) });
        assert_eq!(detector.fresh_until(), Nanos(102 + 20 + 3));
        detector.progressed(Heartbeat { number: 2, at: Nanos(121) });
        assert_eq!(detector.fresh_until(), Nanos(101 + 30 + 3), "101.5, rounded down");
        detector.progressed(Heartbeat { number: 4, at: Nanos(145) });
        assert_eq!(detector.fresh_until(), Nanos(103 + 50 + 3));
        detector.progressed(Heartbeat { number: 3, at: Nanos(150) });
        assert_eq!((detector.fresh_until(), detector.last_progress()), (Nanos(156), Nanos(145)), "stale");
    }
}
