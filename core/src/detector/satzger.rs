//! Satzger's detector: the fraction of recent intervals that were not longer than the silence so far.
//!
//! No distribution is assumed: the window is the distribution. The entity is suspected when the fraction reaches a
//! threshold, so the freshness point is the last progress plus an order statistic of the window, which is kept current in
//! O(log n) a heartbeat.
//!
//! The longest interval of the window is the longest silence that is trusted, which a healthy entity exceeds about once
//! a window. So a silence may count for less than it is: with a `stretch` of 2, one twice as long as all intervals in the
//! window is still trusted.
//!
//! Source: Satzger, Pietzowski, Trumler and Ungerer, *A New Adaptive Accrual Failure Detector for Dependable Distributed
//! Systems*, SAC 2007.

use super::order::OrderWindow;
use super::{Detector, Heartbeat, Tuned};
use crate::Nanos;

/// Suspects when the silence is longer than most recent intervals.
#[derive(Clone, Debug)]
pub struct Satzger {
    intervals: OrderWindow,
    threshold: f64,
    stretch: f64,
    last_progress: Nanos,
}

impl Satzger {
    /// With `threshold` (above 0, at most 1: the fraction at which to suspect), the last `window` intervals (1 to
    /// [`MAX_WINDOW`](super::MAX_WINDOW)), and a `stretch` (1 for the source's rule). Starts at `now`, with `expected` as
    /// the only interval in the window.
    pub fn new(threshold: f64, window: usize, stretch: f64, expected: Nanos, now: Nanos) -> Self {
        let mut intervals = OrderWindow::new(window);
        intervals.push(expected.0, |_| 1);
        Satzger { intervals, threshold, stretch, last_progress: now }
    }
}

impl Detector for Satzger {
    #[inline]
    fn progressed(&mut self, heartbeat: Heartbeat) {
        let threshold = self.threshold;
        // The fraction k/n reaches the threshold with the first k at or above threshold · n.
        self.intervals.push((heartbeat.at - self.last_progress).0, |n| (threshold * n as f64).ceil() as usize);
        self.last_progress = heartbeat.at;
    }

    #[inline]
    fn last_progress(&self) -> Nanos {
        self.last_progress
    }

    #[inline]
    fn fresh_until(&self) -> Nanos {
        self.fresh_until_with(self.stretch)
    }
}

/// By the stretch.
impl Tuned for Satzger {
    type Knob = f64;

    #[inline]
    fn fresh_until_with(&self, stretch: f64) -> Nanos {
        let interval = self.intervals.at_rank().unwrap_or(0);
        let silence = if stretch == 1.0 { interval } else { (interval as f64 * stretch) as u64 };
        self.last_progress + Nanos(silence)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_freshness_point_is_an_order_statistic() {
        let mut detector = Satzger::new(0.75, 4, 1.0, Nanos(10), Nanos(0));
        assert_eq!(detector.fresh_until(), Nanos(10));
        let mut at = 0;
        // Windows: 10 12; 10 12 30; 10 12 30 11; 12 30 11 9.
        for (number, (interval, silence)) in [(12, 12), (30, 30), (11, 12), (9, 12)].into_iter().enumerate() {
            at += interval;
            detector.progressed(Heartbeat { number: number as u64, at: Nanos(at) });
            assert_eq!(detector.fresh_until(), Nanos(at + silence));
        }
    }

    #[test]
    fn a_stretched_silence() {
        let detector = Satzger::new(1.0, 4, 2.5, Nanos(10), Nanos(100));
        assert_eq!(detector.fresh_until(), Nanos(125));
    }
}
