//! 2W-FD: NFD-E with the later of two estimates, from a short window and from a long one.
//!
//! The short window follows a burst of slow heartbeats at once, the long one remembers slow ones when the short has
//! forgotten them: fewer mistakes when delays change, for a freshness point that is a little later.
//!
//! Source: Tomsic, Sens, Garcia, Arantes and Sopena, *2W-FD: A Failure Detector Algorithm with QoS*, IPDPS 2015, with
//! windows of 1 and 1000 heartbeats.

use super::schedule::{Schedule, signed};
use super::window::Window;
use super::{Detector, Heartbeat, Tuned};
use crate::Nanos;

/// Trusts up to a margin after the later of two estimates of the next arrival.
#[derive(Clone, Debug)]
pub struct TwoWindows {
    schedule: Schedule,
    margin: Nanos,
    short: Window,
    long: Window,
    newest: Heartbeat,
}

impl TwoWindows {
    /// With a heartbeat every `period`, a `margin`, and the two windows' lengths (1 to
    /// [`MAX_WINDOW`](super::MAX_WINDOW)). Starts as if heartbeat `start.number` had come at `start.at`; that one is in
    /// neither window.
    pub fn new(period: Nanos, margin: Nanos, (short, long): (usize, usize), start: Heartbeat) -> Self {
        let schedule = Schedule { period, number: start.number, at: start.at };
        let (short, long) = (Window::new(short), Window::new(long));
        TwoWindows { schedule, margin, short, long, newest: start }
    }
}

impl Detector for TwoWindows {
    #[inline]
    fn progressed(&mut self, heartbeat: Heartbeat) {
        if heartbeat.number > self.newest.number {
            self.newest = heartbeat;
            let lateness = self.schedule.lateness(heartbeat);
            self.short.push(lateness);
            self.long.push(lateness);
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

/// By the margin.
impl Tuned for TwoWindows {
    type Knob = Nanos;

    #[inline]
    fn fresh_until_with(&self, margin: Nanos) -> Nanos {
        let lateness = self.short.mean().max(self.long.mean());
        self.schedule.after_next(self.newest.number, lateness.saturating_add(signed(margin)))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::NfdE;
    use super::*;

    #[test]
    fn is_the_later_of_two_nfd_e() {
        let start = Heartbeat { number: 0, at: Nanos(1000) };
        let (period, margin) = (Nanos(100), Nanos(20));
        let mut both = TwoWindows::new(period, margin, (1, 4), start);
        let (mut short, mut long) = (NfdE::new(period, margin, 1, start), NfdE::new(period, margin, 4, start));
        let mut later = [0, 0];
        for (number, late) in [(1, 5), (2, 40), (3, 2), (4, 3), (6, 90), (7, 1)] {
            let heartbeat = Heartbeat { number, at: Nanos(1000 + 100 * number + late) };
            both.progressed(heartbeat);
            short.progressed(heartbeat);
            long.progressed(heartbeat);
            assert_eq!(both.fresh_until(), short.fresh_until().max(long.fresh_until()));
            later[usize::from(long.fresh_until() > short.fresh_until())] += 1;
        }
        assert_eq!(later, [3, 3], "each had its turn");
    }
}
