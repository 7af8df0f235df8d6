//! Which detector a monitor in real time judges by.
//!
//! [`DetectorKind::Duty`] is the default by measurement, on a busy virtual machine with two processors; `live detect
//! --failure none`, three times 10 s for each, by turns; false positives over all entities, at polls every 1 ms:
//!
//! | busy processes | deadline | by `deadline` | by `duty` |
//! |---|---|---|---|
//! | 4 | 5 ms | 97 (17, 3, 77) | 4 (2, 2, 0) |
//! | 4 | 20 ms | 63 (2, 0, 61) | 2 (1, 0, 1) |
//! | 12 | 5 ms | 92 (42, 42, 8) | 143 (38, 80, 25) |
//! | 12 | 20 ms | 136 (90, 34, 12) | 61 (12, 7, 42) |
//!
//! Where threads wait for a processor longer than the deadline one by one, as in the third row, neither is good: the
//! system's counters go on meanwhile. The price is a later detection on a node that hardly runs. Of a stopped worker it was
//! 5.5 ms in the median by `duty` against 5.9 ms without load, and 8.3 against 6.4 ms with 4 busy processes (deadline 5 ms,
//! 25 runs each).

use backdoor_core::Nanos;
use backdoor_core::detector::{Clock, DeadlineDetector, Detector, Duty, Heartbeat};
use backdoor_core::progress_box::EntityRecord;
use serde::{Deserialize, Serialize};

/// A detector, as it is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DetectorKind {
    /// The paper's: silence for longer than the deadline, on the monitor's clock.
    Deadline,
    /// Ours: the same on the node's clock, which stands still while the node's counters do.
    #[default]
    Duty,
}

impl DetectorKind {
    /// Both.
    pub const ALL: [DetectorKind; 2] = [DetectorKind::Deadline, DetectorKind::Duty];

    /// The name used on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            DetectorKind::Deadline => "deadline",
            DetectorKind::Duty => "duty",
        }
    }

    /// That of an entity that is watched from `now` on.
    pub fn make(self, record: &EntityRecord, now: Nanos) -> LiveDetector {
        match self {
            DetectorKind::Deadline => LiveDetector::Deadline(DeadlineDetector::new(record.deadline, now)),
            DetectorKind::Duty => LiveDetector::Duty(Duty::new(record.deadline, now)),
        }
    }
}

/// One of them at work.
#[derive(Clone, Copy, Debug)]
pub enum LiveDetector {
    /// [`DetectorKind::Deadline`].
    Deadline(DeadlineDetector),
    /// [`DetectorKind::Duty`].
    Duty(Duty),
}

impl Detector for LiveDetector {
    const STEADY: bool = DeadlineDetector::STEADY && Duty::STEADY;

    #[inline]
    fn progressed(&mut self, heartbeat: Heartbeat) {
        match self {
            LiveDetector::Deadline(detector) => detector.progressed(heartbeat),
            LiveDetector::Duty(detector) => detector.progressed(heartbeat),
        }
    }

    #[inline]
    fn last_progress(&self) -> Nanos {
        match self {
            LiveDetector::Deadline(detector) => detector.last_progress(),
            LiveDetector::Duty(detector) => detector.last_progress(),
        }
    }

    #[inline]
    fn fresh_until(&self) -> Nanos {
        match self {
            LiveDetector::Deadline(detector) => detector.fresh_until(),
            LiveDetector::Duty(detector) => detector.fresh_until(),
        }
    }

    #[inline]
    fn clock(&self) -> Clock {
        match self {
            LiveDetector::Deadline(detector) => detector.clock(),
            LiveDetector::Duty(detector) => detector.clock(),
        }
    }
}
