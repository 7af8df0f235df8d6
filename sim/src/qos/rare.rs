//! Mistakes too rare to wait for: importance sampling of losses and delays.
//!
//! # Which detectors
//! Those whose freshness point depends on the last heartbeat alone and never moves back: NFD-S, NFD-U, SFD and the
//! deadline. With those, a mistake begins at the freshness point *f* of some heartbeat, and does so exactly if none of the
//! later heartbeats sent by *f* arrives by *f* (or if it does, is discarded as slow).
//!
//! # The change of measure
//! A sample follows one heartbeat, which arrives, with the delay that it happens to have. With *f* known, so are the *K*
//! later heartbeats sent by *f*, and the probability p_j that the *j*-th of them is late: lost, delayed beyond *f*, or
//! slow. Each is made late with the probability max(p_j, K/(K+1)) instead, independently; so about 1/e of all samples
//! end in a mistake, however rare it is. One that is late is lost, or has a delay from the tail, with the probabilities
//! that these have among late ones. What is sent after *f* has its fate by the law, and ends the mistake.
//!
//! A sample with a mistake has the weight (1 − p_L)·Π p_j / max(p_j, K/(K+1)), the ratio of its probabilities under the two
//! measures; one without counts for nothing. The mean weight is then the probability that a heartbeat is followed by a
//! mistake, without bias: every way to a mistake that the law knows, the changed measure takes with positive
//! probability. Heartbeats are η apart, which makes it the mistake rate; weighted durations give T_M and P_A.
//!
//! Source of the method: Asmussen and Glynn, *Stochastic Simulation*, 2007, chapters V.1 and VI. The detector that decides
//! what is a mistake, and when it ends, is the core's, as in direct simulation.

use backdoor_core::Nanos;
use backdoor_core::detector::{Detector, Heartbeat};
use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::process::Process;
use super::replication::Totals;
use super::setting::{AnyDetector, DetectorKind, Setting};
use crate::streams::Streams;

/// Samples between two looks at whether to stop.
const PATIENCE: u64 = 1 << 12;

/// Heartbeats within a freshness interval, at most: a weight is a product of as many factors.
const MOST_FACTORS: u64 = 100_000;

/// Whether this module's method is for a setting.
pub fn applies(setting: &Setting) -> bool {
    let (reach, memoryless) = match setting.detector {
        DetectorKind::NfdS { shift } => (shift, true),
        DetectorKind::NfdU { margin } => (margin + Nanos::from_secs_f64(setting.delay.mean_s()), true),
        DetectorKind::Sfd { timeout, .. } | DetectorKind::Deadline { timeout } | DetectorKind::Duty { timeout } => {
            (timeout, true)
        }
        _ => (Nanos::ZERO, false),
    };
    memoryless && setting.poll.is_none() && reach.0 / setting.period.0 < MOST_FACTORS
}

/// One replication of `samples` samples; `None` if `stop` said so. Its stream is "rare".
///
/// The setting must have passed its [check](Setting::check), and the method must [apply](applies) to it. The totals are
/// those of as many heartbeats, in expectation.
pub fn replicate(setting: &Setting, samples: u64, streams: &Streams, stop: &dyn Fn() -> bool) -> Option<Totals> {
    let mut rng = streams.stream("rare");
    let mut totals = Totals { time_s: samples as f64 * setting.period.as_secs_f64(), ..Totals::default() };
    let start = setting.detector();
    for count in 1..=samples {
        if let Some((weight, duration)) = sample(setting, start.clone(), &mut rng) {
            totals.mistakes += weight;
            totals.suspected_s += weight * duration.as_secs_f64();
        }
        if count % PATIENCE == 0 && stop() {
            return None;
        }
    }
    Some(totals)
}

/// A mistake's weight and duration, if there is one.
fn sample(setting: &Setting, mut detector: AnyDetector, rng: &mut Xoshiro256PlusPlus) -> Option<(f64, Nanos)> {
    let delay = setting.delay.sample(rng);
    let mut process = Process::new(setting);
    process.send_with(Some(delay));
    let sent = process.last_sent_at();
    let first = Heartbeat { number: process.sent(), at: sent + delay };
    let mut alone = detector.clone();
    alone.progressed(first);
    let fresh_until = alone.fresh_until();
    if fresh_until <= first.at {
        return None;
    }
    let cutoff = match setting.detector {
        DetectorKind::Sfd { cutoff, .. } if delay > cutoff => return None,
        DetectorKind::Sfd { cutoff, .. } => cutoff,
        _ => Nanos::MAX,
    };
    let later = (fresh_until - sent).0 / setting.period.0;
    let least = later as f64 / (later + 1) as f64;
    let mut weight = 1.0 - setting.loss;
    for j in 1..=later {
        let in_time = (fresh_until - sent - setting.period * j).min(cutoff);
        let beyond = setting.delay.above(in_time.0 as f64);
        let late = setting.loss + (1.0 - setting.loss) * beyond;
        let made_late = late.max(least);
        if late == 0.0 || rng.random::<f64>() >= made_late {
            return None;
        }
        weight *= late / made_late;
        let lost = rng.random::<f64>() * late < setting.loss;
        process.send_with(if lost { None } else { Some(setting.delay.sample_above(in_time, rng)) });
    }
    let end = trusts_again(&mut detector, &mut process, fresh_until, rng)?;
    Some((weight, end - fresh_until))
}

/// When the mistake that begins at `from` ends; `None` if none begins there after all: a slow heartbeat, though
/// discarded, may have made the first one stale.
fn trusts_again(
    detector: &mut AnyDetector,
    process: &mut Process<'_>,
    from: Nanos,
    rng: &mut Xoshiro256PlusPlus,
) -> Option<Nanos> {
    let mut begun = false;
    loop {
        while let Some(heartbeat) = process.arrival() {
            if heartbeat.at > from && !begun {
                if detector.fresh_until() != from {
                    return None;
                }
                begun = true;
            }
            detector.progressed(heartbeat);
            if begun && detector.fresh_until() > heartbeat.at {
                return Some(heartbeat.at);
            }
        }
        process.send(rng);
    }
}
