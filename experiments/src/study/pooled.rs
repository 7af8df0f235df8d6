//! Estimates over the replications of a point, for the tables that judge detection.
//!
//! The replications are the sample: they are independent, and what happens within one (failures that share a workload,
//! false positives that come in bursts) need not be. So every interval here is made from how replications differ.

use crate::stats::{self, Estimate};
use backdoor_core::Nanos;
use backdoor_sim::metrics::LevelQos;

/// False positives come in bursts, so their interval is that of the spread between replications, which are independent;
/// but no narrower than if each came alone, for a few bursts may all lie in few replications.
pub(super) fn mistakes_per_hour(runs: &[LevelQos]) -> Option<Estimate> {
    let hours = |run: &LevelQos| run.up_time.as_secs_f64() / 3600.0;
    let spread = stats::ratio(&pairs(runs, |run| run.false_positives as f64, hours))?;
    let alone = stats::rate(runs.iter().map(|run| run.false_positives).sum(), runs.iter().map(hours).sum())?;
    Some(spread.widened_by(alone).within(0.0, f64::INFINITY))
}

/// A share of alarms or failures, whose interval is found in the same way.
pub(super) fn share(runs: &[LevelQos], part: fn(&LevelQos) -> u64, whole: fn(&LevelQos) -> u64) -> Option<Estimate> {
    let spread = stats::ratio(&pairs(runs, |run| part(run) as f64, |run| whole(run) as f64))?;
    let alone = stats::proportion(runs.iter().map(part).sum(), runs.iter().map(whole).sum())?;
    Some(spread.widened_by(alone).within(0.0, 1.0))
}

/// Mean in milliseconds over all of some times, such as detection times: each counts the same, whichever replication it
/// is of.
pub(super) fn mean_ms(runs: &[LevelQos], times: fn(&LevelQos) -> &[Nanos]) -> Option<Estimate> {
    let sum = |run: &LevelQos| times(run).iter().map(|time| time.as_millis_f64()).sum();
    let mean = stats::ratio(&pairs(runs, sum, |run| times(run).len() as f64))?;
    Some(mean.within(0.0, f64::INFINITY))
}

/// Their quantile.
pub(super) fn quantile_ms(runs: &[LevelQos], times: fn(&LevelQos) -> &[Nanos], q: f64) -> Option<Estimate> {
    let samples = |run| times(run).iter().map(|time| time.as_millis_f64()).collect();
    stats::quantile_of_replications(&runs.iter().map(samples).collect::<Vec<Vec<f64>>>(), q)
}

/// P_A. Where no mistake was seen there is no interval: nobody knows how long one would have lasted.
pub(super) fn query_accuracy(runs: &[LevelQos]) -> Option<Estimate> {
    let wrong = stats::ratio(&pairs(runs, |run| run.mistake_time.as_secs_f64(), |run| run.up_time.as_secs_f64()))?;
    if wrong.value == 0.0 {
        return Some(Estimate::exact(1.0));
    }
    let right = |bound: Option<f64>| bound.map(|bound| 1.0 - bound);
    Some(Estimate { value: 1.0 - wrong.value, low: right(wrong.high), high: right(wrong.low) }.within(0.0, 1.0))
}

fn pairs(runs: &[LevelQos], x: impl Fn(&LevelQos) -> f64, y: impl Fn(&LevelQos) -> f64) -> Vec<(f64, f64)> {
    runs.iter().map(|run| (x(run), y(run))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Replications whose failures take about as long as each other, and another time in each replication.
    fn runs(count: u64) -> Vec<LevelQos> {
        let run = |number: u64| LevelQos {
            detection_times: (0..100).map(|n| Nanos::from_micros(1000 * number + n)).collect(),
            up_time: Nanos::from_secs(60),
            ..LevelQos::default()
        };
        (1..=count).map(run).collect()
    }

    fn times(run: &LevelQos) -> &[Nanos] {
        &run.detection_times
    }

    #[test]
    fn replications_are_the_sample_not_their_failures() {
        let runs = runs(8);
        let mean = mean_ms(&runs, times).unwrap();
        // As of the eight means: 4.5495 ± t(0.975, 7)·s/√8, with s = √6.
        assert!((mean.value - 4.5495).abs() < 1e-9, "{mean:?}");
        assert!((mean.high.unwrap() - mean.value - 2.364_624 * 6f64.sqrt() / 8f64.sqrt()).abs() < 1e-5, "{mean:?}");
        let median = quantile_ms(&runs, times, 0.5).unwrap();
        assert!(median.low.unwrap() < 3.0 && median.high.unwrap() > 6.0, "{median:?}");
        assert_eq!(mean_ms(&runs[..1], times).unwrap().low, None, "one replication tells nothing of others");
    }

    #[test]
    fn no_mistake_is_no_certainty() {
        let mut runs = runs(3);
        assert_eq!(query_accuracy(&runs), Some(Estimate::exact(1.0)));
        runs[1].mistake_time = Nanos::from_secs(3);
        let accuracy = query_accuracy(&runs).unwrap();
        assert!((accuracy.value - (1.0 - 3.0 / 180.0)).abs() < 1e-12 && accuracy.low.unwrap() < 0.95, "{accuracy:?}");
        assert_eq!((mean_ms(&[], times), quantile_ms(&[], times, 0.5)), (None, None));
    }
}
