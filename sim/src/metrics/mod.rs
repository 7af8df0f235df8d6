//! How good a monitor was: a run's record against what was true.
//!
//! The measures are those of Chen, Toueg and Aguilera, "On the Quality of Service of Failure Detectors" (2002), per
//! failure level: detection time T_D, mistake duration T_M, mistake recurrence T_MR, mistake rate λ_M, query accuracy
//! P_A; and precision and recall of the alarms. Any number of deadlines is judged on one record ([`detection`]), and any
//! detector on one observation ([`replayed`]), by the same judge.
//!
//! # What counts as what
//! An *alarm* is the begin of a suspicion. With the truth at that moment, and the silence that it came from:
//!
//! | alarm begins | it is |
//! |---|---|
//! | while the entity is down | **right** |
//! | after a repair that fell into the same silence | **stale**: right about the past and of no use; the failure is missed. Neither right nor a false positive |
//! | otherwise | a **false positive** |
//!
//! A false positive that is *overtaken* (the entity really fails before it is trusted again) stays a false positive; its
//! mistake ends where the failure begins, and the failure counts as detected after T_D = 0, as Chen et al. define it
//! for a process that is suspected already when it crashes. How many were is reported.
//!
//! A failure is *detected* when all its roots are suspected: one application, one session, or all counters of the
//! operating system, as diagnosis demands for that level. It is *missed* if it was mended before, *undecided* if the run
//! ended before. Time runs from when service became impossible ([`Failure::effective`](crate::faults::Failure)).
//!
//! Rates refer to the time that entities are up, whether they work or wait. Silences that began during the warm-up raise
//! no alarms. Of one record, a longer deadline never has more false positives: each silence raises at most one alarm,
//! and waiting longer can only turn a false one into a right or a stale one, or into none.

pub mod cost;
mod detection;
mod judge;
mod replayed;
mod truth;

pub use detection::{Detection, LevelQos, detection};
pub use replayed::{judged, replayed};
