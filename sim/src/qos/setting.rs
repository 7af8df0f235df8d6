//! What is simulated: a detector with its parameters, and the heartbeats that it sees.

use backdoor_core::Nanos;
use backdoor_core::detector::{
    Bertier, BertierGains, Clock, DeadlineDetector, Detector, Duty, Heartbeat, MAX_WINDOW, NfdE, NfdS, NfdU,
    PhiExponential, PhiNormal, PullScore, Satzger, Schedule, Sfd, TwoWindows,
};

use super::delay::Delay;

/// Largest stretch of Satzger's detector: with more, a silence may outlast any experiment.
const MAX_STRETCH: f64 = 1e6;

/// A detector and its parameters; see the types in [`backdoor_core::detector`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DetectorKind {
    /// [`DeadlineDetector`].
    Deadline {
        /// Longest silence that is trusted.
        timeout: Nanos,
    },
    /// [`Duty`]: a deadline on the node's clock, which is the watcher's where nothing is known of the node.
    Duty {
        /// Longest silence that is trusted.
        timeout: Nanos,
    },
    /// [`Sfd`].
    Sfd {
        /// Slower heartbeats are discarded.
        cutoff: Nanos,
        /// Longest silence that is trusted, TO.
        timeout: Nanos,
    },
    /// [`NfdS`].
    NfdS {
        /// Freshness points after sending times, δ.
        shift: Nanos,
    },
    /// [`NfdU`], with the mean delay known.
    NfdU {
        /// Freshness points after expected arrivals, α.
        margin: Nanos,
    },
    /// [`NfdE`].
    NfdE {
        /// Freshness points after expected arrivals, α.
        margin: Nanos,
        /// Heartbeats in the estimate.
        window: usize,
    },
    /// [`TwoWindows`].
    TwoWindows {
        /// Freshness points after expected arrivals.
        margin: Nanos,
        /// Heartbeats in the quick estimate.
        short: usize,
        /// Heartbeats in the slow one.
        long: usize,
    },
    /// [`Bertier`].
    Bertier {
        /// Margin before errors are known.
        margin: Nanos,
        /// Heartbeats in the estimate.
        window: usize,
        /// How the margin follows the errors.
        gains: BertierGains,
    },
    /// [`PhiNormal`].
    PhiNormal {
        /// The φ at which to suspect.
        threshold: f64,
        /// Intervals in the estimate.
        window: usize,
        /// Least standard deviation.
        min_deviation: Nanos,
    },
    /// [`PhiExponential`].
    PhiExponential {
        /// The φ at which to suspect.
        threshold: f64,
        /// Intervals in the estimate.
        window: usize,
    },
    /// [`Satzger`].
    Satzger {
        /// The fraction at which to suspect.
        threshold: f64,
        /// Intervals in the window.
        window: usize,
        /// How many times as long as an interval a silence may be.
        stretch: f64,
    },
    /// [`PullScore`]; its poll interval is the setting's.
    PullScore,
}

/// A detector and the heartbeats that it sees.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// The detector.
    pub detector: DetectorKind,
    /// Time between heartbeats, η.
    pub period: Nanos,
    /// Probability that a heartbeat is lost, p_L.
    pub loss: f64,
    /// How long one takes that is not lost, D.
    pub delay: Delay,
    /// Time between looks at what came; `None`: seen at once.
    pub poll: Option<Nanos>,
}

/// Why a setting can't be: each is one sentence to show to whoever wrote it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct SettingError(pub(super) String);

impl DetectorKind {
    /// Heartbeats that its estimates reach back.
    pub fn window(&self) -> usize {
        match *self {
            DetectorKind::NfdE { window, .. }
            | DetectorKind::Bertier { window, .. }
            | DetectorKind::PhiNormal { window, .. }
            | DetectorKind::PhiExponential { window, .. }
            | DetectorKind::Satzger { window, .. } => window,
            DetectorKind::TwoWindows { short, long, .. } => short.max(long),
            DetectorKind::PullScore => 16,
            _ => 1,
        }
    }

    /// Says in a sentence what is wrong with the parameters.
    ///
    /// # Errors
    /// A span that must be positive is zero; a window, threshold or gain is out of range.
    pub fn check(&self) -> Result<(), SettingError> {
        let positive = |name: &str, span: Nanos| match span {
            Nanos::ZERO => Err(SettingError(format!("{name} must be more than zero"))),
            Nanos::MAX => Err(SettingError(format!("{name} must be less than 'never'"))),
            _ => Ok(()),
        };
        let threshold_at_most = |most: f64, threshold: f64| match threshold {
            t if t > 0.0 && t <= most => Ok(()),
            t => Err(SettingError(format!("the threshold must be more than 0 and at most {most}, not {t}"))),
        };
        for window in [self.window(), if let DetectorKind::TwoWindows { short, .. } = self { *short } else { 1 }] {
            if !(1..=MAX_WINDOW).contains(&window) {
                return Err(SettingError(format!("a window must hold 1 to {MAX_WINDOW} heartbeats, not {window}")));
            }
        }
        match *self {
            DetectorKind::Deadline { timeout } | DetectorKind::Duty { timeout } => positive("the timeout", timeout),
            DetectorKind::Sfd { cutoff, timeout } => {
                positive("the cutoff", cutoff).and_then(|()| positive("the timeout", timeout))
            }
            DetectorKind::NfdS { shift } => positive("the shift of freshness points (delta)", shift),
            DetectorKind::NfdU { margin }
            | DetectorKind::NfdE { margin, .. }
            | DetectorKind::TwoWindows { margin, .. } => positive("the margin (alpha)", margin),
            DetectorKind::Bertier { gains: BertierGains { gamma, beta, phi }, .. } => {
                if (0.0..=1.0).contains(&gamma) && beta >= 0.0 && phi >= 0.0 && beta.is_finite() && phi.is_finite() {
                    return Ok(());
                }
                Err(SettingError("Bertier's gamma must be from 0 to 1, beta and phi not negative".into()))
            }
            DetectorKind::PhiNormal { threshold, .. } | DetectorKind::PhiExponential { threshold, .. } => {
                threshold_at_most(300.0, threshold)
            }
            DetectorKind::Satzger { threshold, stretch, .. } => {
                threshold_at_most(1.0, threshold)?;
                if stretch > 0.0 && stretch <= MAX_STRETCH {
                    return Ok(());
                }
                Err(SettingError(format!(
                    "the stretch must be a positive number of at most {MAX_STRETCH}, not {stretch}"
                )))
            }
            DetectorKind::PullScore => Ok(()),
        }
    }

    /// The detector, as if heartbeat `start.number` had come at `start.at`, which is expected to take `mean_delay` (for
    /// detectors that know it) and was sent at `sent`; with heartbeats every `period`.
    pub fn make(&self, period: Nanos, sent: Nanos, mean_delay: Nanos, poll: Nanos, start: Heartbeat) -> AnyDetector {
        let schedule = Schedule { period, number: start.number, at: sent };
        let now = start.at;
        match *self {
            DetectorKind::Deadline { timeout } => AnyDetector::Deadline(DeadlineDetector::new(timeout, now)),
            DetectorKind::Duty { timeout } => AnyDetector::Duty(Duty::new(timeout, now)),
            DetectorKind::Sfd { cutoff, timeout } => AnyDetector::Sfd(Sfd::new(schedule, cutoff, timeout, start)),
            DetectorKind::NfdS { shift } => AnyDetector::NfdS(NfdS::new(schedule, shift, start)),
            DetectorKind::NfdU { margin } => {
                let expected = Schedule { at: sent + mean_delay, ..schedule };
                AnyDetector::NfdU(NfdU::new(expected, margin, start))
            }
            DetectorKind::NfdE { margin, window } => AnyDetector::NfdE(NfdE::new(period, margin, window, start)),
            DetectorKind::TwoWindows { margin, short, long } => {
                AnyDetector::TwoWindows(TwoWindows::new(period, margin, (short, long), start))
            }
            DetectorKind::Bertier { margin, window, gains } => {
                AnyDetector::Bertier(Bertier::new(period, margin, window, gains, start))
            }
            DetectorKind::PhiNormal { threshold, window, min_deviation } => {
                AnyDetector::PhiNormal(PhiNormal::new(threshold, window, min_deviation, period, now))
            }
            DetectorKind::PhiExponential { threshold, window } => {
                AnyDetector::PhiExponential(PhiExponential::new(threshold, window, period, now))
            }
            DetectorKind::Satzger { threshold, window, stretch } => {
                AnyDetector::Satzger(Satzger::new(threshold, window, stretch, period, now))
            }
            DetectorKind::PullScore => AnyDetector::PullScore(PullScore::new(poll, now)),
        }
    }
}

impl Setting {
    /// Says in a sentence what can't be.
    ///
    /// # Errors
    /// No period, a loss that is no probability below 1, delays of which nothing would be seen in time, no polls for a
    /// detector that counts them, or what [`DetectorKind::check`] refuses.
    pub fn check(&self) -> Result<(), SettingError> {
        let error = |text: String| Err(SettingError(text));
        if self.period == Nanos::ZERO || self.period > Nanos::from_secs(86_400 * 365) {
            return error(format!(
                "the heartbeat period (eta) must be more than zero and at most a year, not {}",
                self.period
            ));
        }
        if !(0.0..1.0).contains(&self.loss) {
            return error(format!("the loss must be a probability from 0 to less than 1, not {}", self.loss));
        }
        if 1.0 / (1.0 - self.loss) > 1e6 {
            return error(format!("with a loss of {} hardly any heartbeat arrives", self.loss));
        }
        self.detector.check()?;
        match (self.poll, self.detector) {
            (Some(Nanos::ZERO), _) => return error("the poll interval must be more than zero".into()),
            (None, DetectorKind::PullScore) => {
                return error("the pull score counts polls: say how often with --poll".into());
            }
            _ => {}
        }
        if matches!(self.detector, DetectorKind::NfdU { .. }) && !self.delay.mean_s().is_finite() {
            return error(format!("NFD-U knows the mean delay, and that of {} is infinite", self.delay));
        }
        // What is under way is kept; a delay of years would be a memory of as many heartbeats.
        if self.delay.above(self.period.0 as f64 * 1e5) > 0.5 {
            return error(format!("most delays of {} are longer than 100000 heartbeat periods", self.delay));
        }
        Ok(())
    }

    /// The detector at time zero, as if heartbeat 0 had been sent and had come then.
    pub fn detector(&self) -> AnyDetector {
        let mean_delay = Nanos::from_secs_f64(self.delay.mean_s());
        let start = Heartbeat { number: 0, at: Nanos::ZERO };
        self.detector.make(self.period, Nanos::ZERO, mean_delay, self.poll.unwrap_or(Nanos(1)), start)
    }

    /// Heartbeats of a replication that are not measured: as many as fill the window twice, losses included, and 20; and
    /// those sent during a delay that one heartbeat in a thousand exceeds.
    pub fn warm_up(&self) -> u64 {
        let arrivals = (2 * self.detector.window() + 20) as f64 / (1.0 - self.loss);
        let delay = self.delay.quantile_above(1e-3) / self.period.0 as f64;
        (arrivals.min(1e9) + delay.min(1e6)).ceil() as u64
    }
}

macro_rules! any_detector {
    ($($name:ident($type:ty),)*) => {
        /// One of core's detectors.
        #[derive(Clone, Debug)]
        #[expect(missing_docs, reason = "they are the detectors of core by their own names")]
        pub enum AnyDetector {
            $($name($type),)*
        }

        impl Detector for AnyDetector {
            #[inline]
            fn progressed(&mut self, heartbeat: Heartbeat) {
                match self {
                    $(AnyDetector::$name(detector) => detector.progressed(heartbeat),)*
                }
            }
            #[inline]
            fn last_progress(&self) -> Nanos {
                match self {
                    $(AnyDetector::$name(detector) => detector.last_progress(),)*
                }
            }
            #[inline]
            fn fresh_until(&self) -> Nanos {
                match self {
                    $(AnyDetector::$name(detector) => detector.fresh_until(),)*
                }
            }
            fn clock(&self) -> Clock {
                match self {
                    $(AnyDetector::$name(detector) => detector.clock(),)*
                }
            }
        }
    };
}

any_detector! {
    Deadline(DeadlineDetector),
    Duty(Duty),
    Sfd(Sfd),
    NfdS(NfdS),
    NfdU(NfdU),
    NfdE(NfdE),
    TwoWindows(TwoWindows),
    Bertier(Bertier),
    PhiNormal(PhiNormal),
    PhiExponential(PhiExponential),
    Satzger(Satzger),
    PullScore(PullScore),
}
