//! From what a monitor notices to the evidence of its channel, which [`conclude`](super::reachability::conclude) asks for.

use super::reachability::{ChannelFailure, Evidence, SecondPath, System};
use super::{Cause, diagnose};
use crate::Nanos;
use crate::detector::Detector;
use crate::monitor::{Event, Monitor};

/// Keeps the evidence of one monitor's channel. Show it every step.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChannelLog {
    evidence: Evidence,
    samples: u64,
    /// When the last sample was taken in: the READ of the next one is begun no earlier.
    last_sample: Option<Nanos>,
}

impl ChannelLog {
    /// Takes in a step that `monitor` took at `now`, with what it noticed.
    pub fn look<D: Detector>(&mut self, now: Nanos, monitor: &Monitor<D>, noticed: &[Event]) {
        let samples = monitor.stats().samples;
        if std::mem::replace(&mut self.samples, samples) != samples {
            self.evidence.answered = self.last_sample.replace(now).or(self.evidence.answered);
        }
        for event in noticed {
            match *event {
                Event::ChannelLost { error, at } => self.evidence.failure = Some(ChannelFailure { error, noticed: at }),
                Event::ChannelRestored { .. } => self.evidence.failure = None,
                _ => {}
            }
        }
    }

    /// What is known of the channel.
    pub fn evidence(&self) -> Evidence {
        self.evidence
    }

    /// What is known of it, as a second path to a node that is also watched by another one.
    pub fn as_second_path<D: Detector>(&self, monitor: &Monitor<D>) -> SecondPath {
        let is_down = diagnose(monitor).iter().any(|failure| failure.cause == Cause::OperatingSystem);
        // Evidence time is never ahead of time, so this is no later than the progress was.
        let moved = monitor.entities().map(|entity| entity.last_progress).max();
        let system = match moved {
            _ if is_down => System::StandsStill,
            Some(at) => System::Moved(at),
            None => System::Unknown,
        };
        SecondPath { evidence: self.evidence, system }
    }
}
