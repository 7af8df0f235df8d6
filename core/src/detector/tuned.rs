//! Detectors with one knob that nothing they learn depends on: what one of them has seen answers for every setting of it.

use super::Detector;
use crate::Nanos;

/// A detector whose freshness point has a parameter (a deadline, a margin, a threshold) that changes nothing else.
///
/// So one detector, told once of all progress, answers for any number of settings: a sweep over a hundred margins costs
/// one pass over the heartbeats.
///
/// ```
/// use backdoor_core::Nanos;
/// use backdoor_core::detector::{Detector, Heartbeat, NfdE, Tuned};
/// let start = Heartbeat { number: 0, at: Nanos(100) };
/// let mut detector = NfdE::new(Nanos(10), Nanos(3), 32, start);
/// detector.progressed(Heartbeat { number: 1, at: Nanos(112) });
/// assert_eq!(detector.fresh_until(), detector.fresh_until_with(Nanos(3)));
/// assert_eq!(detector.fresh_until_with(Nanos(8)), Nanos(130));
/// ```
pub trait Tuned: Detector {
    /// The parameter.
    type Knob: Copy;

    /// What [`fresh_until`](Detector::fresh_until) of the same detector with another `knob` would be. No earlier for a
    /// larger one.
    fn fresh_until_with(&self, knob: Self::Knob) -> Nanos;
}
