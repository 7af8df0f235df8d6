//! Which detector, and its parameters: what may be left out follows from the detection time that is asked for.

use backdoor_core::Nanos;
use backdoor_core::detector::BertierGains;
use backdoor_sim::qos::setting::DetectorKind;

use super::super::Failure;

/// The detectors by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum DetectorName {
    /// Freshness points on the sender's clock (Chen et al.); the default.
    #[default]
    NfdS,
    /// The same with known expected arrivals.
    NfdU,
    /// The same with estimated ones.
    NfdE,
    /// A timeout, and slow heartbeats discarded.
    Sfd,
    /// A timeout.
    Deadline,
    /// A timeout on the node's clock; of a node of which nothing else is known, a timeout.
    Duty,
    /// The silence's improbability under a normal law.
    PhiAccrual,
    /// The silence's improbability under an exponential law.
    PhiExponential,
    /// NFD-E with a margin that follows its errors.
    Bertier,
    /// The fraction of recent intervals that were shorter.
    Satzger,
    /// NFD-E with the later of two estimates.
    #[value(name = "2w-fd")]
    TwoWindows,
    /// Mu's tally of polls; needs --poll.
    PullScore,
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct DetectorOptions {
    /// The detector.
    #[arg(long, value_enum, default_value_t)]
    detector: DetectorName,
    /// Time between heartbeats.
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    pub(super) eta: Option<Nanos>,
    /// Time within which a crash is to be found: sets --delta, --alpha or --timeout.
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    pub(super) detection_time: Option<Nanos>,
    /// For nfd-s: freshness points after sending times. [default: detection time less eta]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    delta: Option<Nanos>,
    /// For nfd-u, nfd-e and 2w-fd: freshness points after expected arrivals; for bertier, the margin at the start.
    /// [default: detection time less eta and mean delay; bertier: 0]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    alpha: Option<Nanos>,
    /// For sfd: slower heartbeats are discarded.
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    cutoff: Option<Nanos>,
    /// For deadline, duty and sfd: longest silence. [default: detection time less the cutoff]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    timeout: Option<Nanos>,
    /// Level of suspicion at which to suspect. [default: 8; satzger: 1]
    #[arg(long, value_name = "LEVEL", allow_negative_numbers = true)]
    threshold: Option<f64>,
    /// Heartbeats to estimate from. [default: 1000; nfd-e: 32]
    #[arg(long, value_name = "N")]
    window: Option<usize>,
    /// For 2w-fd: heartbeats of the short window.
    #[arg(long, default_value_t = 1, value_name = "N")]
    short_window: usize,
    /// For phi-accrual: least standard deviation.
    #[arg(long, default_value = "0", value_name = "DURATION")]
    min_sd: Nanos,
    /// For satzger: how many times as long as an interval a silence may be.
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR", allow_negative_numbers = true)]
    stretch: f64,
    /// Time between looks at what came. [default: seen at once]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    pub(super) poll: Option<Nanos>,
}

fn missing(text: &str) -> Failure {
    Failure::Message(text.into())
}

/// One of the two would go unheard.
fn contradiction(name: &str, given: Nanos, detection_time: Nanos) -> Failure {
    Failure::Message(format!(
        "{name} of {given} makes for another detection time than --detection-time, {detection_time}: give one of them"
    ))
}

impl DetectorOptions {
    /// The detector for heartbeats of a known period and mean delay, in seconds; or for a recording.
    pub(super) fn kind(&self, process: Option<(Nanos, f64)>) -> Result<DetectorKind, Failure> {
        let window = self.window.unwrap_or(if self.detector == DetectorName::NfdE { 32 } else { 1000 });
        let threshold = self.threshold.unwrap_or(if self.detector == DetectorName::Satzger { 1.0 } else { 8.0 });
        let timeout_less = |less: Nanos| match (self.timeout, self.detection_time) {
            (Some(timeout), Some(time)) if timeout.0.checked_add(less.0) != Some(time.0) => {
                Err(contradiction("--timeout", timeout, time))
            }
            (Some(timeout), _) => Ok(timeout),
            (None, Some(time)) if time > less => Ok(time - less),
            (None, Some(time)) => {
                Err(Failure::Message(format!("the detection time of {time} must be more than the cutoff of {less}")))
            }
            (None, None) => Err(missing("say how long a silence may be with --timeout or --detection-time")),
        };
        Ok(match self.detector {
            DetectorName::NfdS => {
                DetectorKind::NfdS { shift: self.margin(self.delta, "--delta", process.map(|p| (p.0, 0.0)))? }
            }
            DetectorName::NfdU => DetectorKind::NfdU { margin: self.margin(self.alpha, "--alpha", process)? },
            DetectorName::NfdE => DetectorKind::NfdE { margin: self.margin(self.alpha, "--alpha", process)?, window },
            DetectorName::TwoWindows => {
                let margin = self.margin(self.alpha, "--alpha", process)?;
                DetectorKind::TwoWindows { margin, short: self.short_window, long: window }
            }
            DetectorName::Sfd => {
                let cutoff = self
                    .cutoff
                    .ok_or_else(|| missing("say with --cutoff from which delay on sfd discards heartbeats"))?;
                DetectorKind::Sfd { cutoff, timeout: timeout_less(cutoff)? }
            }
            DetectorName::Deadline => DetectorKind::Deadline { timeout: timeout_less(Nanos::ZERO)? },
            DetectorName::Duty => DetectorKind::Duty { timeout: timeout_less(Nanos::ZERO)? },
            DetectorName::PhiAccrual => DetectorKind::PhiNormal { threshold, window, min_deviation: self.min_sd },
            DetectorName::PhiExponential => DetectorKind::PhiExponential { threshold, window },
            DetectorName::Bertier => {
                DetectorKind::Bertier { margin: self.alpha.unwrap_or_default(), window, gains: BertierGains::default() }
            }
            DetectorName::Satzger => DetectorKind::Satzger { threshold, window, stretch: self.stretch },
            DetectorName::PullScore => DetectorKind::PullScore,
        })
    }

    /// What was given, or what the detection time leaves.
    fn margin(&self, given: Option<Nanos>, name: &str, process: Option<(Nanos, f64)>) -> Result<Nanos, Failure> {
        match (given, self.detection_time, process) {
            (Some(given), Some(time), Some((period, mean_delay_s)))
                if given.0.checked_add((period + Nanos::from_secs_f64(mean_delay_s)).0) != Some(time.0) =>
            {
                Err(contradiction(name, given, time))
            }
            (Some(given), _, _) => Ok(given),
            (None, Some(time), Some((period, mean_delay_s))) => {
                let least = period + Nanos::from_secs_f64(mean_delay_s);
                if time > least {
                    return Ok(time - least);
                }
                let mean = if mean_delay_s > 0.0 { " and the mean delay" } else { "" };
                Err(Failure::Message(format!("the detection time of {time} must be more than eta{mean}, {least}")))
            }
            (None, _, None) => {
                Err(Failure::Message(format!("give {name}: a recording doesn't tell how long heartbeats took")))
            }
            (None, None, _) => Err(Failure::Message(format!("give --detection-time or {name}"))),
        }
    }

    /// The detector for recorded arrivals, checked.
    pub(super) fn for_recording(&self) -> Result<DetectorKind, Failure> {
        let by_period = match self.detector {
            DetectorName::NfdS | DetectorName::NfdU | DetectorName::Sfd => {
                let message = "a recording of arrivals doesn't tell when heartbeats were sent, which nfd-s, nfd-u and sfd must know; nfd-e estimates it";
                return Err(missing(message));
            }
            DetectorName::NfdE | DetectorName::TwoWindows | DetectorName::Bertier => true,
            _ => false,
        };
        if by_period && self.eta.is_none() || self.eta == Some(Nanos::ZERO) {
            return Err(missing("say with --eta how often heartbeats were sent, more than zero"));
        }
        if self.poll == Some(Nanos::ZERO) {
            return Err(missing("the poll interval must be more than zero"));
        }
        if self.detector == DetectorName::PullScore && self.poll.is_none() {
            return Err(missing("the pull score counts polls: say how often with --poll"));
        }
        let kind = self.kind(None)?;
        kind.check()?;
        Ok(kind)
    }
}
