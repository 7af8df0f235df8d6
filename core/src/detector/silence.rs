//! A detector that suspects nobody and writes down every silence, so that one run answers for all deadlines.
//!
//! A deadline detector makes a mistake exactly when a silence that it observes is longer than the deadline. So a run
//! watched by this recorder tells what a deadline detector of *any* deadline would have done in the same run, and a
//! sweep over a hundred deadlines costs one simulation. Silence while idle is no mistake at any deadline; whoever
//! evaluates a record has to leave it out, as a monitor does.

use super::{Detector, Heartbeat};
use crate::Nanos;

/// A stretch without progress, in evidence time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// When progress was last seen before it.
    pub start: Nanos,
    /// When progress was seen again.
    pub end: Nanos,
}

/// Records every silence of at least `floor`.
#[derive(Clone, Debug)]
pub struct SilenceRecorder {
    floor: Nanos,
    last_progress: Nanos,
    silences: Vec<Silence>,
}

impl SilenceRecorder {
    /// Starts watching at `now`. Silences shorter than `floor` are not kept: choose the smallest deadline of interest.
    pub fn new(floor: Nanos, now: Nanos) -> Self {
        SilenceRecorder { floor, last_progress: now, silences: Vec::new() }
    }

    /// The silences that have ended, in order of time.
    pub fn silences(&self) -> &[Silence] {
        &self.silences
    }
}

impl Detector for SilenceRecorder {
    const STEADY: bool = true;

    fn progressed(&mut self, Heartbeat { at, .. }: Heartbeat) {
        let silence = Silence { start: self.last_progress, end: at };
        if silence.end - silence.start >= self.floor {
            self.silences.push(silence);
        }
        self.last_progress = at;
    }

    fn last_progress(&self) -> Nanos {
        self.last_progress
    }

    fn fresh_until(&self) -> Nanos {
        Nanos::MAX
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn keeps_silences_from_the_floor_up() {
        let mut recorder = SilenceRecorder::new(Nanos(10), Nanos(0));
        for (number, at) in [5, 15, 17, 40].into_iter().enumerate() {
            recorder.progressed(Heartbeat { number: number as u64, at: Nanos(at) });
        }
        let kept = [Silence { start: Nanos(5), end: Nanos(15) }, Silence { start: Nanos(17), end: Nanos(40) }];
        assert_eq!(recorder.silences(), kept);
        assert_eq!(recorder.last_progress(), Nanos(40));
    }
}
