//! SFD: the detector that everybody writes first, with a cutoff that bounds its detection time.
//!
//! Each heartbeat restarts a timer of length TO. A crash just after a heartbeat that took long is then found late, after
//! its delay plus TO; so heartbeats that took longer than a cutoff *c* are discarded, and a crash is found within *c* + TO.
//!
//! Source: Chen, Toueg and Aguilera 2002, section 1.2.1 and 7.3, where it is compared with NFD-S (TO = T_D^U − *c*, with
//! *c* = 160 ms and 80 ms for delays of 20 ms on average). Needs synchronised clocks, to know a heartbeat's delay.

use super::schedule::{Schedule, signed};
use super::{Detector, Heartbeat, Tuned};
use crate::Nanos;

/// Trusts for a fixed time after each heartbeat that was not slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sfd {
    sent: Schedule,
    cutoff: i64,
    timeout: Nanos,
    newest: u64,
    accepted: Nanos,
}

impl Sfd {
    /// With heartbeats sent as `sent` says; those that took longer than `cutoff` are discarded, each other is good for
    /// `timeout`. Starts as if heartbeat `start.number` had come at `start.at`, in time.
    pub fn new(sent: Schedule, cutoff: Nanos, timeout: Nanos, start: Heartbeat) -> Self {
        Sfd { sent, cutoff: signed(cutoff), timeout, newest: start.number, accepted: start.at }
    }
}

impl Detector for Sfd {
    const STEADY: bool = true;

    #[inline]
    fn progressed(&mut self, heartbeat: Heartbeat) {
        if heartbeat.number > self.newest {
            self.newest = heartbeat.number;
            if self.sent.lateness(heartbeat) <= self.cutoff {
                self.accepted = heartbeat.at;
            }
        }
    }

    /// Of a heartbeat that was not discarded.
    #[inline]
    fn last_progress(&self) -> Nanos {
        self.accepted
    }

    #[inline]
    fn fresh_until(&self) -> Nanos {
        self.fresh_until_with(self.timeout)
    }
}

/// By the timeout.
impl Tuned for Sfd {
    type Knob = Nanos;

    #[inline]
    fn fresh_until_with(&self, timeout: Nanos) -> Nanos {
        self.accepted + timeout
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn slow_heartbeats_count_for_nothing() {
        let sent = Schedule { period: Nanos(10), number: 0, at: Nanos(100) };
        let mut detector = Sfd::new(sent, Nanos(4), Nanos(12), Heartbeat { number: 0, at: Nanos(101) });
        assert_eq!(detector.fresh_until(), Nanos(113));
        detector.progressed(Heartbeat { number: 1, at: Nanos(115) });
        assert_eq!(detector.fresh_until(), Nanos(113), "a delay of 5");
        detector.progressed(Heartbeat { number: 2, at: Nanos(124) });
        assert_eq!(detector.fresh_until(), Nanos(136), "a delay of 4");
        detector.progressed(Heartbeat { number: 1, at: Nanos(125) });
        assert_eq!((detector.fresh_until(), detector.last_progress()), (Nanos(136), Nanos(124)), "stale");
    }
}
