//! A detector over the progress that a monitor observed: on the same evidence, to the same verdicts as in that monitor.
//!
//! A monitor sees progress only in its samples, and each says only that the word had its value at some moment between two
//! instants. It judges by the end that accuses least: progress was made at the *latest* moment of the sample that shows
//! it, and silence lasts to the *earliest* moment of a sample that shows none. So a detector errs where its freshness
//! point lies before the earliest moment of a sample that still found the entity unmoved, and an entity that says that it
//! is idle is suspected by nobody. Times are the monitor's evidence time.
//!
//! [`Observed`] follows `backdoor_core::monitor`; a test in `backdoor-experiments` holds both against each other. What is
//! measured is as in [`replay`](super::replay), but batches are of equal time, for a monitor sees least where mistakes are
//! most. A crash while the entity is idle would not be noticed, and is none. A freshness point is where a detection time
//! ends, though a monitor notices at its next poll.

use backdoor_core::Nanos;
use backdoor_core::detector::{Detector, Heartbeat};

use super::measures::Measures;
use super::replay::{Batches, ReplayConfig, detection};
use super::setting::{AnyDetector, DetectorKind};

/// Length of a batch, at first.
const BATCH: Nanos = Nanos::from_millis(100);

/// What a sample said of an entity whose word had moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The earliest moment of the sample before, which found the word unmoved.
    pub unmoved: Nanos,
    /// The earliest moment of this one.
    pub earliest: Nanos,
    /// The latest moment of this one.
    pub latest: Nanos,
    /// The count that it showed.
    pub count: u64,
    /// What the entity says of itself from here on.
    pub activity: Activity,
}

/// What an entity says of itself, as far as a detector minds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Its count is to advance.
    Active,
    /// Silence is expected.
    Idle,
    /// It has ended.
    Ended,
}

/// A running evaluation of one entity's progress.
#[derive(Clone, Debug)]
pub struct Observed {
    config: ReplayConfig,
    watch: Option<Watch>,
    measured_from: u64,
    mistakes: u64,
    batches: Batches,
}

/// From when an entity joins to when it leaves.
#[derive(Clone, Debug)]
struct Watch {
    detector: AnyDetector,
    activity: Activity,
    suspected_since: Option<Nanos>,
    /// Up to where time has been accounted for.
    last: Nanos,
    seen: u64,
}

impl Observed {
    /// Nothing is watched yet. `config.poll` is the monitor's poll interval, for detectors that ask.
    pub fn new(config: &ReplayConfig) -> Self {
        // A detector without a memory needs no time to fill one.
        let measured_from = match config.detector {
            DetectorKind::Deadline { .. } => 0,
            detector => (2 * detector.window() + 20) as u64,
        };
        Observed { config: *config, watch: None, measured_from, mistakes: 0, batches: Batches::of(BATCH.0, true) }
    }

    /// The entity is watched from here on, as if it had made progress at `first.latest`; what was known of it before is
    /// void.
    pub fn join(&mut self, first: Observation) {
        let start = Heartbeat { number: first.count, at: first.latest };
        let poll = self.config.poll.unwrap_or(Nanos(1));
        let detector = self.config.detector.make(self.config.period, start.at, Nanos::ZERO, poll, start);
        self.watch = Some(Watch { detector, activity: first.activity, suspected_since: None, last: start.at, seen: 1 });
    }

    /// A sample whose earliest moment was `earliest` found the entity unmoved.
    pub fn unmoved(&mut self, earliest: Nanos) {
        if let Some(watch) = &mut self.watch {
            let begun = watch.expire(earliest);
            self.mistakes += u64::from(begun);
            if begun && watch.seen >= self.measured_from {
                self.batches.last().totals.mistakes += 1.0;
            }
        }
    }

    /// A sample found it moved.
    pub fn progress(&mut self, observation: Observation) {
        self.unmoved(observation.unmoved);
        let Some(watch) = &mut self.watch else { return };
        let (from, to) = (watch.last, observation.latest);
        let (activity, suspected_since) = (watch.activity, watch.suspected_since);
        let fresh_until = watch.detector.fresh_until();
        let begun = watch.progress(observation);
        self.mistakes += u64::from(begun);
        if watch.seen <= self.measured_from {
            return;
        }
        let batch = self.batches.next((to - from).0);
        batch.totals.time_s += (to - from).as_secs_f64();
        batch.totals.mistakes += f64::from(u8::from(begun));
        batch.totals.suspected_s += suspected_since.map_or(0.0, |since| (to - since.max(from)).as_secs_f64());
        if activity == Activity::Active {
            // Who was suspected at the start of this stretch is noticed at once.
            let suspected_before = suspected_since.is_some_and(|since| since <= from);
            let fresh_until = if suspected_before { Nanos::ZERO } else { fresh_until };
            batch.detectable_s += (to - from).as_secs_f64();
            batch.detection_s2 += detection(from, to, fresh_until);
            if !suspected_before && fresh_until != Nanos::MAX && to > from {
                self.batches.t_d_max = self.batches.t_d_max.max(fresh_until - from);
            }
        }
    }

    /// Suspicions that began, those of the time that is not measured included.
    pub fn mistakes(&self) -> u64 {
        self.mistakes
    }

    /// The measures so far; `None` as long as nothing was measured.
    pub fn measures(&self) -> Option<Measures> {
        self.batches.measures()
    }

    /// Observations of each watch that are not measured.
    pub fn warm_up(&self) -> u64 {
        self.measured_from
    }
}

impl Watch {
    /// Suspects the entity if it is silent for too long at `earliest`; answers whether a suspicion began.
    fn expire(&mut self, earliest: Nanos) -> bool {
        let begins = self.activity == Activity::Active
            && self.suspected_since.is_none()
            && earliest > self.detector.fresh_until();
        if begins {
            self.suspected_since = Some(earliest);
        }
        begins
    }

    /// Takes progress in; answers whether a suspicion began in spite of it.
    fn progress(&mut self, observation: Observation) -> bool {
        self.seen += 1;
        self.last = observation.latest;
        self.detector.progressed(Heartbeat { number: observation.count, at: observation.latest });
        let too_late = observation.earliest > self.detector.fresh_until();
        if self.suspected_since.is_some() && observation.activity == Activity::Active && too_late {
            // Progress, and not enough of it for this detector.
            return false;
        }
        self.activity = observation.activity;
        self.suspected_since = None;
        self.expire(observation.earliest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Nanos {
        Nanos::from_millis(ms)
    }

    fn observed(timeout: u64) -> Observed {
        let detector = DetectorKind::Deadline { timeout: ms(timeout) };
        Observed::new(&ReplayConfig { detector, period: ms(1), poll: None })
    }

    /// Polls every millisecond that take half of one; progress at the sample of `at`, the one before found none.
    fn seen(count: u64, at: u64, activity: Activity) -> Observation {
        let half = Nanos::from_micros(500);
        Observation { unmoved: ms(at - 1), earliest: ms(at), latest: ms(at) + half, count, activity }
    }

    #[test]
    fn a_sample_must_have_found_it_unmoved_past_the_deadline() {
        for (moved, mistakes) in [(16, 0), (17, 1)] {
            let mut observed = observed(5);
            observed.join(seen(1, 10, Activity::Active));
            // Fresh until 15.5: of the samples, that of 16 is the first one after it.
            observed.progress(seen(2, moved, Activity::Active));
            assert_eq!(observed.mistakes(), mistakes, "moved at {moved}");
        }
    }

    #[test]
    fn silence_counts_while_active_only() {
        let mut observed = observed(5);
        observed.join(seen(1, 10, Activity::Idle));
        observed.progress(seen(2, 50, Activity::Active));
        assert_eq!(observed.mistakes(), 0);
        observed.progress(seen(3, 90, Activity::Ended));
        assert_eq!(observed.mistakes(), 1);
        observed.unmoved(ms(200));
        assert_eq!(observed.mistakes(), 1, "who has ended is silent");
    }

    #[test]
    fn a_suspicion_begins_at_the_first_sample_that_is_known() {
        let mut observed = observed(5);
        observed.join(seen(1, 10, Activity::Active));
        observed.unmoved(ms(15));
        observed.unmoved(ms(16));
        observed.unmoved(ms(18));
        observed.progress(seen(2, 21, Activity::Active));
        assert_eq!(observed.mistakes(), 1);
        let measures = observed.measures().unwrap();
        // From 16 to 21.5, in the time from 10.5 on.
        assert!((measures.p_a.unwrap().value - (1.0 - 5.5 / 11.0)).abs() < 1e-12, "{measures:?}");
        assert_eq!(measures.t_d_max_s, Some(0.005));
        // Crashes up to 15.5, uniform: (5 ms)²/2 in 11 ms.
        assert!((measures.t_d_mean_s.unwrap().value - 0.005f64.powi(2) / 2.0 / 0.011).abs() < 1e-12);
    }

    #[test]
    fn a_new_watch_knows_nothing_of_the_old_one() {
        let mut observed = observed(5);
        observed.join(seen(9, 10, Activity::Active));
        observed.join(seen(1, 90, Activity::Active));
        observed.progress(seen(2, 94, Activity::Active));
        assert_eq!(observed.mistakes(), 0);
        assert!((observed.measures().unwrap().time_s - 0.004).abs() < 1e-12);
    }
}
