//! Failure detectors: from observed progress to trust or suspicion.
//!
//! A detector watches one progress counter. It is told when the counter was seen to have moved, and answers up to when
//! the entity is to be trusted without further progress: the *freshness point* of Chen, Toueg and Aguilera (2002). All
//! detectors that take silence for failure have one, and a monitor of thousands of counters then compares one number
//! per poll instead of asking each of them.
//!
//! Times are the monitor's *evidence time*: it advances only while the monitor demonstrably watched, see
//! [`monitor`](crate::monitor).

mod deadline;
mod silence;

pub use deadline::DeadlineDetector;
pub use silence::{Silence, SilenceRecorder};

use crate::Nanos;

/// Decides, from the progress of one entity, whether to trust it.
pub trait Detector {
    /// Whether progress never moves the freshness point to an earlier time. Then a monitor that knows the earliest
    /// freshness point of many entities need not look again when they make progress.
    const STEADY: bool = false;

    /// The counter was seen to have moved. `at` never decreases.
    fn progressed(&mut self, at: Nanos);

    /// When progress was last seen.
    fn last_progress(&self) -> Nanos;

    /// The last instant at which the entity is still trusted if its counter does not move again.
    fn fresh_until(&self) -> Nanos;
}
