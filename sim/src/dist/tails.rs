//! Tails of distributions: how likely a value is to be longer than something, and values drawn from beyond it.
//!
//! Closed forms of failure detectors are products of tail probabilities, and rare events live in them; so they are
//! computed as such, not as one minus the distribution function, and are right where they are 10⁻³⁰.

use super::{Dist, Kind, log_parameters, normal_cdf};
use backdoor_core::Nanos;
use rand::{Rng, RngExt};
use rand_distr::OpenClosed01;

impl Dist {
    /// P(X > `x_ns`), of the distribution before rounding to nanoseconds; 1 for a negative `x_ns`.
    pub fn above(&self, x_ns: f64) -> f64 {
        if x_ns < 0.0 {
            return 1.0;
        }
        match self.0 {
            Kind::Const(value) => f64::from(u8::from(value.0 as f64 > x_ns)),
            Kind::Exp { mean } => (-x_ns / mean.0 as f64).exp(),
            Kind::Uniform { low, high } => {
                let (low, high) = (low.0 as f64, high.0 as f64);
                ((high - x_ns) / (high - low)).clamp(0.0, 1.0)
            }
            Kind::Normal { mean, sd } => normal_cdf((mean.0 as f64 - x_ns) / sd.0 as f64),
            Kind::LogNormal { mean, sd } => {
                let (mu, sigma) = log_parameters(mean, sd);
                normal_cdf((mu - x_ns.ln()) / sigma)
            }
            Kind::Pareto { scale, shape } => (scale.0 as f64 / x_ns).powf(shape).min(1.0),
        }
    }

    /// P(X < `x_ns`); differs from 1 − [`above`](Self::above) where the value may be exactly that: at a constant, and at
    /// the zero that negative normal values become.
    pub fn below(&self, x_ns: f64) -> f64 {
        if x_ns <= 0.0 {
            return 0.0;
        }
        match self.0 {
            Kind::Const(value) => f64::from(u8::from((value.0 as f64) < x_ns)),
            Kind::Exp { mean } => -(-x_ns / mean.0 as f64).exp_m1(),
            _ => 1.0 - self.above(x_ns),
        }
    }

    /// The x with P(X > x) = `probability` (0 < `probability` < 1), in nanoseconds; 0 for every probability of more than
    /// P(X > 0).
    pub fn quantile_above(&self, probability: f64) -> f64 {
        match self.0 {
            Kind::Const(value) => value.0 as f64,
            Kind::Exp { mean } => -probability.ln() * mean.0 as f64,
            Kind::Uniform { low, high } => {
                let (low, high) = (low.0 as f64, high.0 as f64);
                high - probability * (high - low)
            }
            Kind::Pareto { scale, shape } => scale.0 as f64 * probability.powf(-1.0 / shape),
            Kind::Normal { .. } | Kind::LogNormal { .. } => self.search_above(probability),
        }
    }

    /// Bisection, to the last digits.
    fn search_above(&self, probability: f64) -> f64 {
        let (mut low, mut high) = (0.0f64, 1.0f64);
        while self.above(high) > probability && high < 1e300 {
            (low, high) = (high, high * 2.0);
        }
        for _ in 0..200 {
            let middle = low + (high - low) / 2.0;
            if middle <= low || middle >= high {
                break;
            }
            if self.above(middle) > probability {
                low = middle;
            } else {
                high = middle;
            }
        }
        high
    }

    /// Draws a value under the condition that it is more than `x`, rounded to the nanosecond.
    ///
    /// # Panics
    /// Never; where no value is more than `x`, gives one nanosecond more.
    pub fn sample_above<R: Rng + ?Sized>(&self, x: Nanos, rng: &mut R) -> Nanos {
        let tail = self.above(x.0 as f64);
        let nanos = match self.0 {
            Kind::Const(value) => value.0 as f64,
            _ if tail <= 0.0 => 0.0,
            _ => self.quantile_above(tail * rng.sample::<f64, _>(OpenClosed01)),
        };
        Nanos(nanos.round() as u64).max(x + Nanos(1))
    }

    /// Where the distribution function has a step or a corner, in nanoseconds.
    pub fn corners(&self) -> Vec<f64> {
        match self.0 {
            Kind::Const(value) => vec![value.0 as f64],
            Kind::Uniform { low, high } => vec![low.0 as f64, high.0 as f64],
            Kind::Pareto { scale, .. } => vec![scale.0 as f64],
            _ => vec![0.0],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    const CONTINUOUS: [&str; 6] =
        ["exp:20ms", "uniform:1ms:20ms", "normal:20ms:5ms", "normal:1ms:5ms", "lognormal:20ms:30ms", "pareto:1ms:1.5"];

    #[test]
    fn tails_are_the_complement_of_the_distribution_function_and_quantiles_their_inverse() {
        for text in CONTINUOUS {
            let dist: Dist = text.parse().unwrap();
            for us in [100, 1_000, 3_333, 10_000, 25_000, 60_000] {
                let x = Nanos::from_micros(us);
                let (above, below) = (dist.above(x.0 as f64), dist.below(x.0 as f64));
                assert!((above + dist.cdf(x) - 1.0).abs() < 1e-12, "{text} at {x}");
                assert!((above + below - 1.0).abs() < 1e-12, "{text} at {x}");
                if (1e-12..1.0 - 1e-9).contains(&above) && x.0 > 0 {
                    let back = dist.quantile_above(above);
                    assert!((back / x.0 as f64 - 1.0).abs() < 1e-6, "{text}: {back} for {x}");
                }
            }
        }
    }

    #[test]
    fn far_tails_keep_their_digits() {
        let at = |text: &str, x: f64| text.parse::<Dist>().unwrap().above(x);
        assert!((at("exp:20ms", 2e9).ln() + 100.0).abs() < 1e-9);
        // Q(10) = 7.6199e-24.
        assert!((at("normal:20ms:5ms", 70e6) / 7.619_853e-24 - 1.0).abs() < 1e-5);
    }

    #[test]
    fn values_from_beyond_have_the_conditional_distribution() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(3);
        for text in CONTINUOUS {
            let dist: Dist = text.parse().unwrap();
            let from = Nanos(dist.quantile_above(0.1) as u64);
            let middle = dist.quantile_above(0.05);
            let n = 20_000;
            let draws: Vec<Nanos> = (0..n).map(|_| dist.sample_above(from, &mut rng)).collect();
            assert!(draws.iter().all(|value| *value > from), "{text}");
            let beyond = draws.iter().filter(|value| value.0 as f64 > middle).count() as f64 / n as f64;
            assert!((beyond - 0.5).abs() < 4.0 * 0.5 / (n as f64).sqrt(), "{text}: {beyond}");
        }
    }
}
