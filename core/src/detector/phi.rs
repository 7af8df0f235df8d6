//! φ-accrual: the silence so far, as improbable as it is among the intervals between recent heartbeats.
//!
//! φ(t) = −log₁₀ P(an interval is longer than t − t_last), and the entity is suspected when φ exceeds a threshold Φ: a
//! mistake in 10^Φ heartbeats, if intervals were distributed as assumed. The assumption is the difference between the two
//! detectors here: normal, with mean and deviation of a window (Hayashibara, Défago, Yared and Katayama, *The φ Accrual
//! Failure Detector*, SRDS 2004), or exponential (Cassandra's `FailureDetector`), where only the mean counts and Φ = 8 is
//! 18.4 mean intervals of silence.
//!
//! φ exceeds Φ when the silence exceeds mean + z·deviation, or Φ·ln 10 · mean; z depends on Φ alone and is computed once.
//! So the freshness point costs no more than the sums of the window.
//!
//! One long pause widens the window's deviation until it leaves the window: it makes the detector slow, not hasty.

use std::f64::consts::LN_10;

use super::window::Spread;
use super::{Detector, Heartbeat, Tuned, normal_tail_quantile};
use crate::Nanos;

/// Suspects when the silence is improbable under a normal distribution of intervals.
#[derive(Clone, Debug)]
pub struct PhiNormal {
    intervals: Spread,
    z: f64,
    min_deviation_ns: f64,
    last_progress: Nanos,
}

impl PhiNormal {
    /// With `threshold` Φ (above 0; 8 is usual), the last `window` intervals (1 to
    /// [`MAX_WINDOW`](super::MAX_WINDOW); 1000 in the source), and deviations taken for at least `min_deviation`: without
    /// that, regular heartbeats make a detector that allows for nothing.
    ///
    /// Starts at `now`, as Akka's does: with a window of two intervals, a quarter shorter and a quarter longer than
    /// `expected`.
    pub fn new(threshold: f64, window: usize, min_deviation: Nanos, expected: Nanos, now: Nanos) -> Self {
        let mut intervals = Spread::new(window);
        intervals.push(expected.0 - expected.0 / 4);
        intervals.push(expected.0.saturating_add(expected.0 / 4));
        let z = normal_tail_quantile(threshold);
        PhiNormal { intervals, z, min_deviation_ns: min_deviation.0 as f64, last_progress: now }
    }
}

impl Detector for PhiNormal {
    #[inline]
    fn progressed(&mut self, heartbeat: Heartbeat) {
        self.intervals.push((heartbeat.at - self.last_progress).0);
        self.last_progress = heartbeat.at;
    }

    #[inline]
    fn last_progress(&self) -> Nanos {
        self.last_progress
    }

    #[inline]
    fn fresh_until(&self) -> Nanos {
        self.fresh_until_with(self.z)
    }
}

/// By the number of deviations that a silence may be longer than the mean: [`normal_tail_quantile`] of the threshold.
impl Tuned for PhiNormal {
    type Knob = f64;

    #[inline]
    fn fresh_until_with(&self, z: f64) -> Nanos {
        let deviation = self.intervals.deviation().max(self.min_deviation_ns);
        // The cast takes what is negative to zero.
        self.last_progress + Nanos((self.intervals.mean() + z * deviation) as u64)
    }
}

/// Suspects when the silence is improbable under an exponential distribution of intervals.
#[derive(Clone, Debug)]
pub struct PhiExponential {
    intervals: Spread,
    threshold: f64,
    last_progress: Nanos,
}

impl PhiExponential {
    /// With `threshold` Φ (above 0; Cassandra's is 8) and the last `window` intervals (1 to
    /// [`MAX_WINDOW`](super::MAX_WINDOW)). Starts at `now`, with `expected` as the only interval in the window.
    pub fn new(threshold: f64, window: usize, expected: Nanos, now: Nanos) -> Self {
        let mut intervals = Spread::new(window);
        intervals.push(expected.0);
        PhiExponential { intervals, threshold, last_progress: now }
    }
}

impl Detector for PhiExponential {
    #[inline]
    fn progressed(&mut self, heartbeat: Heartbeat) {
        self.intervals.push((heartbeat.at - self.last_progress).0);
        self.last_progress = heartbeat.at;
    }

    #[inline]
    fn last_progress(&self) -> Nanos {
        self.last_progress
    }

    #[inline]
    fn fresh_until(&self) -> Nanos {
        self.fresh_until_with(self.threshold)
    }
}

/// By the threshold, Φ.
impl Tuned for PhiExponential {
    type Knob = f64;

    #[inline]
    fn fresh_until_with(&self, threshold: f64) -> Nanos {
        // The cast takes what is negative, or no number, to zero.
        self.last_progress + Nanos((threshold * LN_10 * self.intervals.mean()) as u64)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn silence(detector: &impl Detector) -> u64 {
        (detector.fresh_until() - detector.last_progress()).0
    }

    /// Intervals 900, 1100: mean 1000, deviation 100. At Φ = 1 the silence is 1000 + 1.28155·100.
    #[test]
    fn normal_intervals_by_hand() {
        let mut detector = PhiNormal::new(1.0, 2, Nanos(10), Nanos(1000), Nanos(0));
        assert_eq!(silence(&detector), 1320, "750 and 1250 at the start");
        for (number, at) in [(1, 900), (2, 2000)] {
            detector.progressed(Heartbeat { number, at: Nanos(at) });
        }
        assert_eq!(silence(&detector), 1128);
        for (number, at) in [(3, 3000), (4, 4000)] {
            detector.progressed(Heartbeat { number, at: Nanos(at) });
        }
        assert_eq!(silence(&detector), 1012, "no deviation: the least, 10");
    }

    /// The reference's number: at Φ = 8, 18.42 mean intervals.
    #[test]
    fn exponential_intervals_by_hand() {
        let mut detector = PhiExponential::new(8.0, 3, Nanos(1000), Nanos(0));
        assert_eq!(silence(&detector), 18420);
        for (number, at) in [(1, 500), (2, 2000)] {
            detector.progressed(Heartbeat { number, at: Nanos(at) });
        }
        assert_eq!(silence(&detector), 18420, "1000, 500, 1500");
        detector.progressed(Heartbeat { number: 3, at: Nanos(6000) });
        assert_eq!(silence(&detector), 36841, "500, 1500, 4000");
    }
}
