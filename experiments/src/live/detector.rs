//! Which detector a monitor in real time judges by.

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
