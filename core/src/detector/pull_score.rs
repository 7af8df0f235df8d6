//! Mu's pull score: a reader's tally of polls that found a counter moved and of polls that didn't.
//!
//! Each read that finds the counter moved adds one to the score, each that doesn't subtracts one, and it stays within 0 to
//! 15. Below 2 the entity has failed; above 6 it has recovered. Between them the last verdict stands, so that an entity
//! that stutters is not accused and acquitted by turns.
//!
//! Source: Aguilera, Ben-David, Guerraoui, Marathe, Xygkis, Zablotchi, *Microsecond Consensus for Microsecond
//! Applications*, OSDI 2020, section 5.1.
//!
//! As a freshness point: polls come at a known interval, so the polls that found nothing follow from the time between
//! two that found something, rounded to whole intervals; and the poll that will bring the score below 2 is known in
//! advance. The freshness point is half an interval before it, so that polls may be early or late by less than that.

use super::{Detector, Heartbeat};
use crate::Nanos;

const MOST: u64 = 15;
const FAILED_BELOW: u64 = 2;
const RECOVERED_ABOVE: u64 = 6;

/// Trusts while polls that find progress outnumber, of late, those that don't.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PullScore {
    poll: Nanos,
    score: u64,
    last_progress: Nanos,
    /// The freshness point at which it failed, until it recovers.
    failed_at: Option<Nanos>,
}

impl PullScore {
    /// With polls every `poll` (zero counts as one nanosecond). Starts with a full score at `now`.
    pub fn new(poll: Nanos, now: Nanos) -> Self {
        PullScore { poll: poll.max(Nanos(1)), score: MOST, last_progress: now, failed_at: None }
    }

    /// The score after the last progress, from 0 to 15.
    pub fn score(&self) -> u64 {
        self.score
    }

    fn runs_out_at(&self) -> Nanos {
        let polls = self.score.saturating_sub(FAILED_BELOW);
        self.last_progress + self.poll * polls + self.poll / 2
    }
}

impl Detector for PullScore {
    const STEADY: bool = true;

    #[inline]
    fn progressed(&mut self, heartbeat: Heartbeat) {
        let intervals = (heartbeat.at - self.last_progress + self.poll / 2).0 / self.poll.0;
        let left = self.score.saturating_sub(intervals.saturating_sub(1));
        if self.failed_at.is_none() && left < FAILED_BELOW {
            self.failed_at = Some(self.runs_out_at());
        }
        self.score = (left + 1).min(MOST);
        self.last_progress = heartbeat.at;
        if self.score > RECOVERED_ABOVE {
            self.failed_at = None;
        }
    }

    #[inline]
    fn last_progress(&self) -> Nanos {
        self.last_progress
    }

    #[inline]
    fn fresh_until(&self) -> Nanos {
        self.failed_at.unwrap_or_else(|| self.runs_out_at())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// The source's rule, a poll at a time.
    struct Tally {
        score: u64,
        failed: bool,
    }

    impl Tally {
        fn poll(&mut self, moved: bool) {
            self.score = if moved { (self.score + 1).min(MOST) } else { self.score.saturating_sub(1) };
            match self.score {
                ..FAILED_BELOW => self.failed = true,
                score if score > RECOVERED_ABOVE => self.failed = false,
                _ => {}
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn is_the_tally_of_the_polls(moved in proptest::collection::vec(proptest::bool::weighted(0.4), 1..300)) {
            let mut tally = Tally { score: MOST, failed: false };
            let mut detector = PullScore::new(Nanos(10), Nanos(0));
            for (count, moved) in moved.into_iter().enumerate() {
                let at = Nanos(10 * (count as u64 + 1));
                tally.poll(moved);
                if moved {
                    detector.progressed(Heartbeat { number: count as u64 + 1, at });
                    proptest::prop_assert_eq!(detector.score(), tally.score);
                }
                proptest::prop_assert_eq!(at > detector.fresh_until(), tally.failed, "at {:?}: {:?}", at, detector);
            }
        }
    }
}
