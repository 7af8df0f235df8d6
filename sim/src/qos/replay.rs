//! A detector over arrivals that were recorded, in one pass and bounded memory.
//!
//! The sender is taken to have been alive all the time, so every suspicion is a mistake. Nothing is known of when
//! heartbeats were sent; a detection time is therefore that of a crash at an instant that is uniform over the recording,
//! after which nothing arrives any more: what was under way then is taken for lost, which makes T_D shorter by no more
//! than a delay. All such crashes are taken, by integration, not a sample of them.
//!
//! Intervals are by batch means: up to 64 batches of equal numbers of arrivals, which double as the recording grows
//! (Asmussen and Glynn, *Stochastic Simulation*, 2007, section IV.5). They hold if batches are long against what makes
//! arrivals alike.

use backdoor_core::Nanos;
use backdoor_core::detector::Heartbeat;

use super::measures::Measures;
use super::replication::Totals;
use super::setting::{AnyDetector, DetectorKind};
use super::watch::{Changes, Watch, poll_after};

const MOST_BATCHES: usize = 64;

/// A running evaluation.
#[derive(Clone, Debug)]
pub struct Replay {
    watch: Watch<AnyDetector>,
    poll: Option<Nanos>,
    /// Came, and is seen at the poll that is its time.
    unseen: Option<Heartbeat>,
    warm_up: u64,
    arrivals: u64,
    last: Nanos,
    batches: Batches,
}

/// What was measured, in batches of about equal sizes: numbers of arrivals, or time.
#[derive(Clone, Debug)]
pub(super) struct Batches {
    batches: Vec<Batch>,
    per_batch: u64,
    in_batch: u64,
    /// Whether the last batch counts as it is.
    unfinished_counts: bool,
    pub(super) t_d_max: Nanos,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Batch {
    pub(super) totals: Totals,
    /// Sum over all crash instants of the detection time: seconds squared.
    pub(super) detection_s2: f64,
    /// Time of all crash instants that could be noticed, in seconds.
    pub(super) detectable_s: f64,
}

/// How a recording is to be watched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReplayConfig {
    /// The detector. Not NFD-S, NFD-U or SFD, of which nobody knows when heartbeats were sent or expected.
    pub detector: DetectorKind,
    /// Time between heartbeats; what is expected, for detectors that find out.
    pub period: Nanos,
    /// Time between looks at what came; `None`: seen at once.
    pub poll: Option<Nanos>,
}

impl Replay {
    /// Begins with the first arrival. Twice the detector's window and 20 more are not measured.
    pub fn new(config: &ReplayConfig, first: Heartbeat) -> Self {
        let poll = config.poll.unwrap_or(Nanos(1));
        let detector = config.detector.make(config.period, first.at, Nanos::ZERO, poll, first);
        Replay {
            watch: Watch::new(detector, config.poll),
            poll: config.poll,
            unseen: None,
            warm_up: (2 * config.detector.window() + 20) as u64,
            arrivals: 1,
            last: first.at,
            batches: Batches::of(1, false),
        }
    }

    /// The next arrival. Its number must be above, and its time not before, those of the last.
    pub fn arrival(&mut self, heartbeat: Heartbeat) {
        self.arrivals += 1;
        let Some(poll) = self.poll else { return self.seen(heartbeat) };
        let at = poll_after(heartbeat.at, poll);
        if let Some(last) = self.unseen.replace(Heartbeat { number: heartbeat.number, at })
            && last.at < at
        {
            self.seen(last);
        }
    }

    fn seen(&mut self, heartbeat: Heartbeat) {
        let from = self.last;
        self.last = heartbeat.at;
        if self.arrivals <= self.warm_up {
            self.watch.see(heartbeat);
            return;
        }
        let fresh_until = match self.watch.suspected_since() {
            Some(_) => Nanos::ZERO,
            None => self.watch.suspects_at(),
        };
        let was_suspected = self.watch.suspected_since();
        let changes = self.watch.see(heartbeat);
        let crash = detection(from, heartbeat.at, fresh_until);
        if was_suspected.is_none() && fresh_until != Nanos::MAX && heartbeat.at > from {
            self.batches.t_d_max = self.batches.t_d_max.max(fresh_until - from);
        }
        let batch = self.batches.next(1);
        batch.totals.time_s += (heartbeat.at - from).as_secs_f64();
        batch.detectable_s += (heartbeat.at - from).as_secs_f64();
        batch.detection_s2 += crash;
        batch.totals.mistakes += f64::from(u8::from(changes.suspected.is_some()));
        batch.totals.suspected_s += suspected(was_suspected, changes, from, heartbeat.at).as_secs_f64();
    }

    /// The measures so far; `None` as long as nothing was measured.
    pub fn measures(&self) -> Option<Measures> {
        self.batches.measures()
    }

    /// Arrivals so far, the first one included.
    pub fn arrivals(&self) -> u64 {
        self.arrivals
    }

    /// Arrivals that are not measured.
    pub fn warm_up(&self) -> u64 {
        self.warm_up
    }
}

impl Batches {
    /// The first of them have this size.
    pub(super) fn of(size: u64, unfinished_counts: bool) -> Self {
        let batches = vec![Batch::default()];
        Batches { batches, per_batch: size, in_batch: 0, unfinished_counts, t_d_max: Nanos::ZERO }
    }

    /// The batch that the next arrival, of this size, belongs to.
    pub(super) fn next(&mut self, size: u64) -> &mut Batch {
        if self.in_batch >= self.per_batch {
            if self.batches.len() == MOST_BATCHES {
                self.batches = self.batches.chunks(2).map(|pair| pair[0].and(&pair[1])).collect();
                self.per_batch *= 2;
            }
            self.batches.push(Batch::default());
            self.in_batch = 0;
        }
        self.in_batch += size;
        self.last()
    }

    /// The batch of the last arrival.
    pub(super) fn last(&mut self) -> &mut Batch {
        self.batches.last_mut().expect("there is always one")
    }

    /// The measures so far; `None` as long as nothing was measured.
    pub(super) fn measures(&self) -> Option<Measures> {
        let unfinished = self.in_batch < self.per_batch && !self.unfinished_counts;
        let whole = if unfinished && self.batches.len() > 2 {
            // An unfinished batch is not like the others.
            &self.batches[..self.batches.len() - 1]
        } else {
            &self.batches[..]
        };
        let totals: Vec<Totals> = whole.iter().map(|batch| batch.totals).collect();
        if totals.iter().all(|totals| totals.time_s <= 0.0) {
            return None;
        }
        let mut measures = Measures::of_mistakes(&totals, true);
        measures.t_d_max_s = Some(self.t_d_max.as_secs_f64());
        let pairs: Vec<(f64, f64)> = whole.iter().map(|batch| (batch.detection_s2, batch.detectable_s)).collect();
        measures.t_d_mean_s = crate::stats::ratio(&pairs).map(|mean| mean.within(0.0, f64::INFINITY));
        Some(measures)
    }
}

impl Batch {
    fn and(&self, other: &Batch) -> Batch {
        let (a, b) = (self.totals, other.totals);
        Batch {
            totals: Totals {
                time_s: a.time_s + b.time_s,
                mistakes: a.mistakes + b.mistakes,
                suspected_s: a.suspected_s + b.suspected_s,
            },
            detection_s2: self.detection_s2 + other.detection_s2,
            detectable_s: self.detectable_s + other.detectable_s,
        }
    }
}

/// Time of suspicion between two arrivals.
fn suspected(before: Option<Nanos>, changes: Changes, from: Nanos, to: Nanos) -> Nanos {
    let end = changes.trusted.unwrap_or(to).clamp(from, to);
    match (before, changes.suspected) {
        (Some(_), _) => end - from,
        (None, Some(since)) => end - since.clamp(from, to),
        (None, None) => Nanos::ZERO,
    }
}

/// ∫ (`fresh_until` − t)⁺ dt over t from `from` to `to`, in seconds squared.
pub(super) fn detection(from: Nanos, to: Nanos, fresh_until: Nanos) -> f64 {
    let last = to.min(fresh_until);
    if last <= from || fresh_until == Nanos::MAX {
        return 0.0;
    }
    let (longest, shortest) = ((fresh_until - from).as_secs_f64(), (fresh_until - last).as_secs_f64());
    (longest * longest - shortest * shortest) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A deadline of 15 over arrivals every 10, with one silence of 30 in a hundred.
    #[test]
    fn a_recording_by_hand() {
        let detector = DetectorKind::Deadline { timeout: Nanos::from_millis(15) };
        let period = Nanos::from_millis(10);
        let config = ReplayConfig { detector, period, poll: None };
        let mut replay = Replay::new(&config, Heartbeat { number: 0, at: Nanos::ZERO });
        let mut at = Nanos::ZERO;
        let cycles = 640;
        for number in 1..22 + 100 * cycles {
            at += if number >= 22 && (number - 22) % 100 == 50 { period * 3 } else { period };
            replay.arrival(Heartbeat { number, at });
        }
        let measures = replay.measures().unwrap();
        let close =
            |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 1e-2, "{found} for {expected}");
        close(measures.t_mr_s.unwrap().value, 1.02);
        close(measures.t_m_s.unwrap().value, 0.015);
        close(1.0 - measures.p_a.unwrap().value, 0.015 / 1.02);
        assert_eq!(measures.t_d_max_s, Some(0.015));
        // 99 times uniform from 5 to 15 ms, in 10 ms each, and once (15 ms)²/2 in 30 ms.
        close(measures.t_d_mean_s.unwrap().value, (99.0 * 0.01 * 0.01 + 0.015f64.powi(2) / 2.0) / 1.02);
    }
}
