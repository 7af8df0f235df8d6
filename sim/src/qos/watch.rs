//! A detector at work: when it trusted, and when it suspected.

use backdoor_core::Nanos;
use backdoor_core::detector::{Detector, Heartbeat};

/// What an arrival brought to light: a suspicion that began, a trust that came back, or the one before the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// When a suspicion began: at the freshness point before the arrival, or with the arrival.
    pub suspected: Option<Nanos>,
    /// When trust came back, after that.
    pub trusted: Option<Nanos>,
}

/// A detector, asked at every instant, or only at polls.
///
/// A freshness point belongs to the time of trust: a heartbeat that comes at that very instant is in time. One after
/// which the detector trusts for no time at all changes nothing.
///
/// With polls every *p*, at *p*, 2*p*, …, an arrival is seen at the first poll not before it, of several the last; and
/// a suspicion begins at the first poll after the freshness point that sees no progress.
#[derive(Clone, Debug)]
pub struct Watch<D> {
    detector: D,
    poll: Option<Nanos>,
    /// Came, and will be seen at the poll that is its time.
    unseen: Option<Heartbeat>,
    suspected_since: Option<Nanos>,
}

impl<D: Detector> Watch<D> {
    /// Watches from the detector's start, in trust.
    pub fn new(detector: D, poll: Option<Nanos>) -> Self {
        Watch { detector, poll: poll.map(|poll| poll.max(Nanos(1))), unseen: None, suspected_since: None }
    }

    /// A heartbeat came. What this brings to light may be about earlier ones.
    #[inline]
    pub fn arrival(&mut self, heartbeat: Heartbeat) -> Changes {
        let Some(poll) = self.poll else { return self.see(heartbeat) };
        let at = poll_after(heartbeat.at, poll);
        let last = self.unseen.replace(Heartbeat { number: heartbeat.number, at });
        last.filter(|last| last.at < at).map_or_else(Changes::default, |last| self.see(last))
    }

    /// No arrival will come before `end`.
    pub fn quiet_until(&mut self, end: Nanos) -> Changes {
        match self.unseen.filter(|unseen| unseen.at <= end) {
            Some(unseen) => {
                self.unseen = None;
                self.see(unseen)
            }
            None => Changes::default(),
        }
    }

    /// When the suspicion begins or began that lasts if no arrival comes any more; [`Nanos::MAX`] for never.
    pub fn lasting_suspicion(&mut self) -> Nanos {
        self.quiet_until(Nanos::MAX);
        self.suspected_since.unwrap_or_else(|| self.suspects_at())
    }

    /// Since when it suspects.
    pub fn suspected_since(&self) -> Option<Nanos> {
        self.suspected_since
    }

    /// When it will suspect if nothing comes.
    #[inline]
    pub fn suspects_at(&self) -> Nanos {
        let fresh_until = self.detector.fresh_until();
        match self.poll {
            Some(poll) if fresh_until != Nanos::MAX => Nanos((fresh_until.0 / poll.0 + 1).saturating_mul(poll.0)),
            _ => fresh_until,
        }
    }

    /// A heartbeat was seen, at a poll if there are polls.
    #[inline]
    pub(super) fn see(&mut self, heartbeat: Heartbeat) -> Changes {
        let mut changes = Changes::default();
        if self.suspected_since.is_none() {
            let at = self.suspects_at();
            if at < heartbeat.at {
                self.suspected_since = Some(at);
                changes.suspected = Some(at);
            }
        }
        self.detector.progressed(heartbeat);
        let fresh_until = self.detector.fresh_until();
        let lasts = if self.poll.is_some() { fresh_until >= heartbeat.at } else { fresh_until > heartbeat.at };
        match self.suspected_since {
            Some(_) if lasts => {
                self.suspected_since = None;
                changes.trusted = Some(heartbeat.at);
            }
            None if fresh_until < heartbeat.at => {
                self.suspected_since = Some(heartbeat.at);
                changes.suspected = Some(heartbeat.at);
            }
            _ => {}
        }
        changes
    }
}

/// The first poll not before `at`.
#[inline]
pub(super) fn poll_after(at: Nanos, poll: Nanos) -> Nanos {
    Nanos(at.0.div_ceil(poll.0.max(1)).saturating_mul(poll.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use backdoor_core::detector::{DeadlineDetector, NfdS, Schedule};

    fn tell<D: Detector>(watch: &mut Watch<D>, number: u64, at: u64) -> (Option<u64>, Option<u64>) {
        let changes = watch.arrival(Heartbeat { number, at: Nanos(at) });
        (changes.suspected.map(|at| at.0), changes.trusted.map(|at| at.0))
    }

    #[test]
    fn mistakes_of_a_deadline() {
        let mut watch = Watch::new(DeadlineDetector::new(Nanos(20), Nanos(0)), None);
        assert_eq!(tell(&mut watch, 1, 20), (None, None), "just in time");
        assert_eq!(tell(&mut watch, 2, 41), (Some(40), Some(41)));
        assert_eq!(watch.lasting_suspicion(), Nanos(61));
    }

    #[test]
    fn late_heartbeats_bring_no_trust() {
        let start = Heartbeat { number: 0, at: Nanos(0) };
        let sent = Schedule { period: Nanos(10), number: 0, at: Nanos(0) };
        let mut watch = Watch::new(NfdS::new(sent, Nanos(5), start), None);
        assert_eq!(tell(&mut watch, 1, 26), (Some(15), None), "1 was good up to 25");
        assert_eq!(tell(&mut watch, 2, 35), (None, None), "2 was good up to 35, and not beyond");
        assert_eq!(watch.clone().lasting_suspicion(), Nanos(15));
        assert_eq!(tell(&mut watch, 3, 36), (None, Some(36)));
    }

    /// Takes each heartbeat's number for its freshness point.
    struct Told(Heartbeat);

    impl Detector for Told {
        fn progressed(&mut self, heartbeat: Heartbeat) {
            self.0 = heartbeat;
        }
        fn last_progress(&self) -> Nanos {
            self.0.at
        }
        fn fresh_until(&self) -> Nanos {
            Nanos(self.0.number)
        }
    }

    #[test]
    fn an_arrival_may_bring_suspicion() {
        let mut watch = Watch::new(Told(Heartbeat { number: 10, at: Nanos(0) }), None);
        assert_eq!(tell(&mut watch, 9, 9), (None, None), "no trust beyond this instant");
        assert_eq!(watch.suspects_at(), Nanos(9));
        let mut watch = Watch::new(Told(Heartbeat { number: 10, at: Nanos(0) }), None);
        assert_eq!(tell(&mut watch, 5, 9), (Some(9), None));
        assert_eq!(tell(&mut watch, 11, 12), (None, None));
        assert_eq!(tell(&mut watch, 20, 13), (None, Some(13)));
        assert_eq!(tell(&mut watch, 22, 21), (Some(20), Some(21)));
    }

    #[test]
    fn polls_see_the_last_of_several_and_suspect_at_polls() {
        let mut watch = Watch::new(DeadlineDetector::new(Nanos(15), Nanos(0)), Some(Nanos(10)));
        assert_eq!(tell(&mut watch, 1, 3), (None, None), "seen at 10");
        assert_eq!(tell(&mut watch, 2, 9), (None, None), "seen at 10, too");
        assert_eq!(tell(&mut watch, 3, 41), (None, None), "10 is seen; fresh until 25");
        assert_eq!(tell(&mut watch, 4, 55), (Some(30), Some(50)));
        assert_eq!(watch.suspects_at(), Nanos(70), "50 + 15, at the next poll");
        assert_eq!(watch.lasting_suspicion(), Nanos(80), "60 + 15");
    }
}
