//! Estimates with 95% intervals, honest at the edges.
//!
//! An interval is left out (`None`) where the data allow none: the mean of one sample, the median of three. Counting
//! *no* event is information, and gives a proper upper bound; that is what "no false positive seen in 10⁶ polls" is
//! worth. No function returns NaN.
//!
//! Replications are independent; what happens within one need not be. What is pooled over replications ([`ratio`],
//! [`quantile_of_replications`]) has its interval from how they differ.
//!
//! Sources: Wilson, *Probable inference, the law of succession, and statistical inference*, JASA 22 (1927); Garwood,
//! *Fiducial limits for the Poisson distribution*, Biometrika 28 (1936); David & Nagaraja, *Order Statistics*, §7.1.

mod warm_up;

pub use warm_up::mser5;

use serde::{Deserialize, Serialize};
use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, Gamma, StudentsT};

/// Probability left outside an interval, on each side.
const TAIL: f64 = 0.025;
/// The 97.5% quantile of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// A value with its 95% confidence interval, as far as the data determine one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The point estimate.
    pub value: f64,
    /// Lower bound of the interval; `None` when the data give none.
    pub low: Option<f64>,
    /// Upper bound of the interval; `None` when the data give none.
    pub high: Option<f64>,
}

impl Estimate {
    /// A value known exactly or without an interval.
    pub fn exact(value: f64) -> Self {
        Estimate { value, low: None, high: None }
    }

    fn between(value: f64, low: f64, high: f64) -> Self {
        let bound = |bound: f64| bound.is_finite().then_some(bound);
        Estimate { value, low: bound(low), high: bound(high) }
    }

    /// The same with its bounds kept within what is possible, such as 0 to 1 for a probability.
    pub fn within(self, least: f64, most: f64) -> Self {
        let clamp = |bound: f64| bound.clamp(least, most);
        Estimate { value: self.value, low: self.low.map(clamp), high: self.high.map(clamp) }
    }

    /// The same with bounds as far out as the further of the two, where both have one: for intervals under different
    /// assumptions, when neither is sure to hold.
    pub fn widened_by(self, other: Estimate) -> Self {
        let both = |a: Option<f64>, b: Option<f64>, pick: fn(f64, f64) -> f64| match (a, b) {
            (Some(a), Some(b)) => Some(pick(a, b)),
            (a, b) => a.or(b),
        };
        let (low, high) = (both(self.low, other.low, f64::min), both(self.high, other.high, f64::max));
        Estimate { value: self.value, low, high }
    }

    /// The same in another unit, for example from nanoseconds to seconds. `factor` must be positive.
    pub fn scaled(self, factor: f64) -> Self {
        let scale = |bound: f64| bound * factor;
        Estimate { value: scale(self.value), low: self.low.map(scale), high: self.high.map(scale) }
    }
}

/// Mean with Student's t interval. `None` for no samples; one sample has a mean without an interval.
///
/// The interval assumes that the mean is about normally distributed: fine for the means of many replications, not for
/// a handful of samples with a heavy tail. Samples that are not finite make the result `None`.
pub fn mean(samples: &[f64]) -> Option<Estimate> {
    let n = samples.len() as f64;
    if samples.is_empty() || samples.iter().any(|sample| !sample.is_finite()) {
        return None;
    }
    let mean = samples.iter().sum::<f64>() / n;
    if samples.len() == 1 {
        return Some(Estimate::exact(mean));
    }
    let variance = samples.iter().map(|sample| (sample - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let t = StudentsT::new(0.0, 1.0, n - 1.0).expect("at least one degree of freedom").inverse_cdf(1.0 - TAIL);
    let half = t * (variance / n).sqrt();
    mean.is_finite().then(|| Estimate::between(mean, mean - half, mean + half))
}

/// Ratio of two sums over independent replications, such as events per exposure, with Student's t interval of the
/// linearised ratio (Cochran, *Sampling Techniques*, 1977, section 6.4). It holds also where events come in bursts, which
/// pooled counts don't show. `None` when the denominators sum to nothing; one replication has no interval.
pub fn ratio(replications: &[(f64, f64)]) -> Option<Estimate> {
    let (x, y) = replications.iter().fold((0.0, 0.0), |(x, y), (a, b)| (x + a, y + b));
    let value = x / y;
    if !value.is_finite() {
        return None;
    }
    let n = replications.len() as f64;
    if n < 2.0 {
        return Some(Estimate::exact(value));
    }
    let squares: f64 = replications.iter().map(|(a, b)| (a - value * b).powi(2)).sum();
    let error = (n / (n - 1.0) * squares).sqrt() / y;
    let t = StudentsT::new(0.0, 1.0, n - 1.0).ok()?.inverse_cdf(1.0 - TAIL);
    Some(Estimate::between(value, value - t * error, value + t * error))
}

/// Proportion `successes / trials` with Wilson's score interval. `None` for no trials.
///
/// Wilson's, because it stays inside [0, 1] and is meaningful with no success or nothing but successes.
pub fn proportion(successes: u64, trials: u64) -> Option<Estimate> {
    if trials == 0 || successes > trials {
        return None;
    }
    let (n, p) = (trials as f64, successes as f64 / trials as f64);
    let scale = 1.0 / (1.0 + Z * Z / n);
    let center = scale * (p + Z * Z / (2.0 * n));
    let half = scale * Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    // At the ends the bound is exactly 0 or 1, but for rounding.
    let low = if successes == 0 { 0.0 } else { (center - half).max(0.0) };
    let high = if successes == trials { 1.0 } else { (center + half).min(1.0) };
    Some(Estimate::between(p, low, high))
}

/// Rate of `events` in `exposure` (seconds, say: then per second) with the exact (Garwood) Poisson interval.
///
/// No event gives 0 with the upper bound 3.69 / exposure. `None` unless the exposure is positive and finite.
pub fn rate(events: u64, exposure: f64) -> Option<Estimate> {
    if !(exposure.is_finite() && exposure > 0.0) {
        return None;
    }
    let gamma = |shape: f64| Gamma::new(shape, 1.0).expect("the shape is positive");
    let low = if events == 0 { 0.0 } else { solve(TAIL, events as f64, |x| gamma(events as f64).cdf(x)) };
    let high = solve(1.0 - TAIL, events as f64 + 1.0, |x| gamma(events as f64 + 1.0).cdf(x));
    Some(Estimate::between(events as f64 / exposure, low / exposure, high / exposure))
}

/// Inverts a rising distribution function by bisection, to the last digits.
///
/// The library's own inversion stops at about six digits, which differs between versions; bisection on the
/// distribution function is slower and steadier, and is called once per row.
fn solve(probability: f64, guess: f64, cdf: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (0.0, guess + 10.0 * guess.sqrt() + 10.0);
    for _ in 0..200 {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            break;
        }
        if cdf(middle) < probability {
            low = middle;
        } else {
            high = middle;
        }
    }
    low + (high - low) / 2.0
}

/// Quantile `q` in (0, 1) with a distribution-free interval between two order statistics.
///
/// The value is the usual interpolation between neighbours (R's type 7). The interval covers with at least 95%
/// whatever the distribution; with too few samples on one side, that bound is `None`: ten samples say nothing about
/// how high the 99th percentile may be. `None` for no samples or samples that are not finite. The slice gets sorted.
pub fn quantile(samples: &mut [f64], q: f64) -> Option<Estimate> {
    if samples.is_empty() || !(0.0..=1.0).contains(&q) || samples.iter().any(|sample| !sample.is_finite()) {
        return None;
    }
    samples.sort_by(f64::total_cmp);
    let n = samples.len();
    let position = q * (n - 1) as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(n - 1);
    let value = samples[below] + (samples[above] - samples[below]) * (position - below as f64);
    if q == 0.0 || q == 1.0 {
        return Some(Estimate::exact(value));
    }
    let below_q = Binomial::new(q, n as u64).expect("q is a probability");
    // Number of samples under the true quantile: binomial. The r-th smallest is above it when fewer than r are below.
    // Lower bound: the largest r with P(B < r) ≤ tail; upper: the smallest r with P(B ≥ r) ≤ tail.
    let at_least = |r: usize| if r == 0 { 1.0 } else { 1.0 - below_q.cdf(r as u64 - 1) };
    let fewer = |r: usize| if r == 0 { 0.0 } else { below_q.cdf(r as u64 - 1) };
    let low = partition(n + 1, |r| fewer(r) <= TAIL).checked_sub(1).filter(|r| *r >= 1);
    let high = Some(partition(n + 1, |r| at_least(r) > TAIL)).filter(|r| *r <= n);
    // Interpolation can step over the order statistic of an extreme quantile; widening keeps the coverage.
    let (low, high) = (low.map(|r| samples[r - 1].min(value)), high.map(|r| samples[r - 1].max(value)));
    Some(Estimate { value, low, high })
}

/// Quantile `q` in (0, 1) of the samples of several replications together, with an interval that takes the replications to be
/// independent, not the samples of one.
///
/// The interval is Woodruff's (*Confidence intervals for medians and other position measures*, JASA 47, 1952): the share of the
/// samples up to the value is a [`ratio`], and the quantiles at the ends of its interval are those of the value's. It is
/// at least as wide as [`quantile`]'s. A bound that lies beyond the samples is `None`, and so are both for one replication.
/// `None` for no samples or samples that are not finite.
pub fn quantile_of_replications(replications: &[Vec<f64>], q: f64) -> Option<Estimate> {
    let mut all = replications.concat();
    let independent = quantile(&mut all, q)?;
    let value = independent.value;
    let shares: Vec<(f64, f64)> = replications
        .iter()
        .map(|samples| (samples.iter().filter(|sample| **sample <= value).count() as f64, samples.len() as f64))
        .collect();
    let share = ratio(&shares)?;
    let (Some(low), Some(high)) = (share.low, share.high) else { return Some(Estimate::exact(value)) };
    let (below, above) = (q - (share.value - low), q + (high - share.value));
    let n = all.len() as f64;
    // Outwards, to the next samples: all is sorted now.
    let low = (below > 0.0).then(|| (below * n).floor() as usize).filter(|rank| *rank >= 1).map(|rank| all[rank - 1]);
    let high = Some((above * n).ceil() as usize + 1).filter(|rank| *rank <= all.len()).map(|rank| all[rank - 1]);
    let further = |a: Option<f64>, b: Option<f64>, pick: fn(f64, f64) -> f64| Some(pick(a?, b?));
    Some(Estimate {
        value,
        low: further(independent.low, low, f64::min),
        high: further(independent.high, high, f64::max),
    })
}

/// The first of 0..end for which `holds` is false, if it is true up to some point and false from there on.
fn partition(end: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, end);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(estimate: Option<Estimate>, value: f64, low: f64, high: f64, tolerance: f64) {
        let e = estimate.unwrap();
        for (found, expected) in [(e.value, value), (e.low.unwrap(), low), (e.high.unwrap(), high)] {
            assert!((found - expected).abs() <= tolerance, "{e:?}, expected {value} [{low}, {high}]");
        }
    }

    #[test]
    fn student_interval_as_in_tables() {
        // t(0.975, 4) = 2.776445; s = 1.5811388, n = 5: half width 1.963243.
        close(mean(&[1.0, 2.0, 3.0, 4.0, 5.0]), 3.0, 1.036757, 4.963243, 1e-5);
        // t(0.975, 1) = 12.7062, the widest there is.
        close(mean(&[0.0, 2.0]), 1.0, 1.0 - 12.7062, 1.0 + 12.7062, 1e-3);
        close(mean(&[4.0; 9]), 4.0, 4.0, 4.0, 0.0);
    }

    #[test]
    fn wilson_interval_as_in_textbooks() {
        // Newcombe, Statistics in Medicine 17 (1998), table I: 81/263, 15/148, 0/20, 1/29.
        close(proportion(81, 263), 0.307985, 0.2553, 0.3662, 5e-5);
        close(proportion(15, 148), 0.101351, 0.0624, 0.1605, 5e-5);
        close(proportion(0, 20), 0.0, 0.0, 0.1611, 5e-5);
        close(proportion(1, 29), 0.034483, 0.0061, 0.1718, 5e-5);
        close(proportion(7, 7), 1.0, 0.6457, 1.0, 5e-5);
    }

    #[test]
    fn poisson_interval_as_in_tables() {
        // Garwood's table: 0: 0–3.689, 1: 0.0253–5.572, 5: 1.623–11.668, 10: 4.795–18.390, 100: 81.36–121.63.
        for (events, low, high) in
            [(0, 0.0, 3.689), (1, 0.0253, 5.572), (5, 1.623, 11.668), (10, 4.795, 18.390), (100, 81.36, 121.63)]
        {
            close(rate(events, 1.0), events as f64, low, high, 5e-3);
        }
        close(rate(5, 10.0), 0.5, 0.1623, 1.1668, 1e-3);
        let many = rate(1_000_000, 1.0).unwrap();
        assert!((many.high.unwrap() - 1_001_961.9).abs() < 3.0, "{many:?}");
    }

    #[test]
    fn order_statistics_as_in_tables() {
        // Sign-test intervals for the median: n = 10 gives ranks 2 and 9, n = 20 ranks 6 and 15, n = 6 ranks 1 and 6.
        let ranks = |n: u32| {
            let e = quantile(&mut (1..=n).map(f64::from).collect::<Vec<_>>(), 0.5).unwrap();
            (e.low, e.high)
        };
        assert_eq!(ranks(10), (Some(2.0), Some(9.0)));
        assert_eq!(ranks(20), (Some(6.0), Some(15.0)));
        assert_eq!(ranks(6), (Some(1.0), Some(6.0)));
        assert_eq!(ranks(5), (None, None));
        let tail = quantile(&mut (1..=10).map(f64::from).collect::<Vec<_>>(), 0.99).unwrap();
        assert!(tail.high.is_none() && tail.low.is_some(), "{tail:?}");
    }

    #[test]
    fn nothing_comes_from_nothing() {
        assert_eq!(mean(&[]), None);
        assert_eq!(mean(&[2.0]), Some(Estimate::exact(2.0)));
        assert_eq!(mean(&[1.0, f64::NAN]), None);
        assert_eq!(proportion(0, 0), None);
        assert_eq!(proportion(3, 2), None);
        assert_eq!(rate(0, 0.0), None);
        assert_eq!(rate(1, f64::NAN), None);
        assert_eq!(quantile(&mut [], 0.5), None);
        assert_eq!(quantile(&mut [1.0], 0.5), Some(Estimate::exact(1.0)));
        assert_eq!(quantile(&mut [1.0, f64::INFINITY], 0.5), None);
    }

    #[test]
    fn a_ratio_of_equal_exposures_is_the_mean() {
        let counts = [3.0, 5.0, 4.0, 8.0];
        let pairs = counts.map(|count| (count, 2.0));
        let (ratio, mean) = (ratio(&pairs).unwrap(), mean(&counts.map(|count| count / 2.0)).unwrap());
        for (a, b) in [(Some(ratio.value), Some(mean.value)), (ratio.low, mean.low), (ratio.high, mean.high)] {
            assert!((a.unwrap() - b.unwrap()).abs() < 1e-12, "{a:?} {b:?}");
        }
        assert_eq!(super::ratio(&[(0.0, 0.0); 3]), None);
        assert_eq!(super::ratio(&[(1.0, 2.0)]), Some(Estimate::exact(0.5)));
    }

    #[test]
    fn quantiles_of_replications_know_which_samples_belong_together() {
        // Ten replications, in each of which all samples are alike: as good as ten samples, not a thousand.
        let alike: Vec<Vec<f64>> = (0..10).map(|run| vec![f64::from(run); 100]).collect();
        let median = quantile_of_replications(&alike, 0.5).unwrap();
        assert!(median.low.unwrap() <= 2.0 && median.high.unwrap() >= 7.0, "{median:?}");
        // As many samples that are independent of each other.
        let apart: Vec<Vec<f64>> =
            (0..10).map(|run| (0..100).map(|i| f64::from((i * 10 + run * 37) % 1000) / 100.0).collect()).collect();
        let (median, plain) =
            (quantile_of_replications(&apart, 0.5).unwrap(), quantile(&mut apart.concat(), 0.5).unwrap());
        assert_eq!(median.value, plain.value);
        assert!(median.low <= plain.low && median.high >= plain.high, "{median:?} {plain:?}");
        assert!(median.high.unwrap() - median.low.unwrap() < 1.0, "{median:?}");
        assert_eq!(quantile_of_replications(&[vec![], vec![]], 0.5), None);
        assert_eq!(quantile_of_replications(&[vec![1.0, 2.0, 3.0]], 0.5), Some(Estimate::exact(2.0)));
        let tail = quantile_of_replications(&[vec![1.0; 4], vec![2.0; 5]], 0.99).unwrap();
        assert!(tail.high.is_none(), "{tail:?}");
    }

    /// Of many studies whose replications differ, 95 in a hundred intervals should hold the true median.
    #[test]
    fn quantiles_of_replications_cover() {
        let mut state = 1u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        let (studies, mut covered, mut covered_if_independent) = (400, 0, 0);
        for _ in 0..studies {
            // A level of the replication's own, and as much again of each sample's; symmetric about 0.
            let runs: Vec<Vec<f64>> = (0..20)
                .map(|_| {
                    let level = uniform() - 0.5;
                    (0..30).map(|_| level + uniform() - 0.5).collect()
                })
                .collect();
            let holds = |e: Estimate| e.low.unwrap() <= 0.0 && e.high.unwrap() >= 0.0;
            covered += u32::from(holds(quantile_of_replications(&runs, 0.5).unwrap()));
            covered_if_independent += u32::from(holds(quantile(&mut runs.concat(), 0.5).unwrap()));
        }
        assert!(covered >= studies * 92 / 100, "{covered} of {studies}");
        assert!(covered_if_independent < studies * 70 / 100, "{covered_if_independent} of {studies}");
    }

    #[test]
    fn the_wider_bound_wins() {
        let narrow = Estimate { value: 1.0, low: Some(0.5), high: Some(2.0) };
        let other = Estimate { value: 1.0, low: Some(0.7), high: None };
        assert_eq!(narrow.widened_by(other), narrow);
        assert_eq!(other.widened_by(narrow), Estimate { value: 1.0, low: Some(0.5), high: Some(2.0) });
    }

    proptest! {
        #[test]
        fn intervals_contain_their_value(
            samples in proptest::collection::vec(-1e12f64..1e12, 1..60),
            q in 0.0f64..=1.0,
            events in 0u64..100_000,
            more in 0u64..100_000,
        ) {
            let found = [
                mean(&samples),
                quantile(&mut samples.clone(), q),
                proportion(events, events + more),
                rate(events, 7.5),
            ];
            for e in found.into_iter().flatten() {
                prop_assert!(e.value.is_finite(), "{:?}", e);
                prop_assert!(e.low.is_none_or(|low| low <= e.value && low.is_finite()), "{:?}", e);
                prop_assert!(e.high.is_none_or(|high| high >= e.value && high.is_finite()), "{:?}", e);
            }
        }
    }
}
