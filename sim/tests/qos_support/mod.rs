//! Simulations of one detector, compared with what is known.
#![allow(dead_code, reason = "each test uses a part")]

use backdoor_core::Nanos;
use backdoor_sim::qos::closed::ClosedForm;
use backdoor_sim::qos::delay::Delay;
use backdoor_sim::qos::measures::Measures;
use backdoor_sim::qos::rare;
use backdoor_sim::qos::replication::{Goal, Totals, replicate};
use backdoor_sim::qos::setting::{DetectorKind, Setting};
use backdoor_sim::stats::Estimate;
use backdoor_sim::streams::{StreamKey, Streams};

pub(crate) const REPLICATIONS: u64 = 40;
/// Student's, 39 degrees of freedom, 97.5%.
const T: f64 = 2.022_691;

pub(crate) fn seconds(s: f64) -> Nanos {
    Nanos::from_secs_f64(s)
}

pub(crate) fn setting(detector: DetectorKind, period_s: f64, loss: f64, delay: &str) -> Setting {
    let delay = Delay::Law(delay.parse().unwrap());
    let setting = Setting { detector, period: seconds(period_s), loss, delay, poll: None };
    setting.check().unwrap();
    setting
}

fn streams(point: &str, replication: u64) -> Streams {
    Streams::new(StreamKey { seed: 1, experiment: "qos-validation", point, replication })
}

pub(crate) fn simulate(setting: &Setting, mistakes: u64, crashes: u32) -> Measures {
    let goal = Goal { mistakes: mistakes.div_ceil(REPLICATIONS), heartbeats: u64::MAX, crashes };
    let one = |replication| replicate(setting, goal, &streams("direct", replication), &|| false).unwrap();
    Measures::of(&(0..REPLICATIONS).map(one).collect::<Vec<_>>())
}

pub(crate) fn sample_rare(setting: &Setting, samples: u64) -> Measures {
    assert!(rare::applies(setting));
    let one = |replication| rare::replicate(setting, samples / REPLICATIONS, &streams("rare", replication), &|| false);
    let totals: Vec<Totals> = (0..REPLICATIONS).map(|replication| one(replication).unwrap()).collect();
    Measures::of_mistakes(&totals, false)
}

/// Distance of an estimate from a value, in standard errors of the estimate.
pub(crate) fn errors(estimate: Option<Estimate>, value: f64) -> f64 {
    let Some(Estimate { value: found, low: Some(low), high: Some(high) }) = estimate else { return f64::NAN };
    let error = (high - low) / 2.0 / T;
    if found == value { 0.0 } else { (found - value) / error }
}

/// The four measures of mistakes against the closed form: at most three standard errors.
#[track_caller]
pub(crate) fn agree(name: &str, measures: &Measures, form: &ClosedForm) {
    for (measure, estimate, value) in [
        ("T_MR", measures.t_mr_s, form.t_mr_s),
        ("T_M", measures.t_m_s, form.t_m_s.unwrap()),
        ("lambda_M", measures.lambda_m_per_s, form.lambda_m_per_s),
        ("P_A", measures.p_a, form.p_a),
    ] {
        let errors = errors(estimate, value);
        assert!(
            errors.abs() <= 3.0,
            "{name}: {measure} is {estimate:?}, expected {value}: {errors:.2} standard errors"
        );
    }
}

/// Detection times against the closed form.
#[track_caller]
pub(crate) fn detects(name: &str, measures: &Measures, form: &ClosedForm) {
    let errors = errors(measures.t_d_mean_s, form.t_d_mean_s);
    let mean = measures.t_d_mean_s;
    assert!(errors.abs() <= 3.0, "{name}: {mean:?}, expected {}: {errors:.2} standard errors", form.t_d_mean_s);
    if let Some(bound) = form.t_d_max_s {
        let longest = measures.t_d_max_s.unwrap();
        assert!(longest <= bound + 1e-9 && longest > 0.9 * bound, "{name}: {longest} within {bound}");
    }
}
