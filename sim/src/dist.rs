//! Distributions of delays and durations, as configurations write them.
//!
//! | text | value |
//! |---|---|
//! | `const:5us` | always 5 µs |
//! | `exp:20ms` | exponential with mean 20 ms |
//! | `uniform:1ms:2ms` | uniform from 1 ms to 2 ms |
//! | `normal:20ms:5ms` | normal with mean 20 ms, standard deviation 5 ms; a negative value becomes 0 |
//! | `lognormal:20ms:5ms` | lognormal with this mean and standard deviation *of the value*, not of its logarithm |
//! | `pareto:1ms:1.5` | Pareto with the smallest value 1 ms and shape 1.5: P(X > x) = (1 ms / x)^1.5 |
//!
//! ```
//! use backdoor_core::Nanos;
//! use backdoor_sim::dist::Dist;
//! let delay: Dist = "exp:20ms".parse().unwrap();
//! assert_eq!(delay.mean(), Nanos::from_millis(20));
//! assert!("exp:0ms".parse::<Dist>().is_err());
//! ```
//!
//! `mean` and `variance` are those of what [`Dist::sample`] gives, clamping at zero included, because closed forms of the
//! quality of failure detectors are computed from them and compared with the simulation.

mod tails;

use std::f64::consts::{PI, SQRT_2};
use std::fmt;
use std::str::FromStr;

use backdoor_core::{Nanos, ParseNanosError};
use rand::{Rng, RngExt};
use rand_distr::{Exp1, OpenClosed01, StandardNormal};
use statrs::function::erf::erfc;

/// A distribution of a span of time. Only possible ones can be made; see the [module](self) for their texts.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Dist(Kind);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Const(Nanos),
    Exp { mean: Nanos },
    Uniform { low: Nanos, high: Nanos },
    Normal { mean: Nanos, sd: Nanos },
    LogNormal { mean: Nanos, sd: Nanos },
    Pareto { scale: Nanos, shape: f64 },
}

/// Why a distribution can't be: each is one sentence to show to whoever wrote it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DistError {
    /// The name before the first colon is none of ours.
    #[error(
        "'{0}' is no distribution: write const:T, exp:MEAN, uniform:LOW:HIGH, normal:MEAN:SD, lognormal:MEAN:SD or pareto:SCALE:SHAPE"
    )]
    Unknown(String),
    /// Too few or too many parameters.
    #[error("the number of parameters of '{name}' must be {expected}, not {found}")]
    Arity {
        /// The distribution.
        name: &'static str,
        /// How many it takes.
        expected: usize,
        /// How many there were.
        found: usize,
    },
    /// A parameter is no span of time.
    #[error(transparent)]
    Duration(#[from] ParseNanosError),
    /// A shape is no positive finite number.
    #[error("the shape of a Pareto distribution must be a positive number such as 1.5, not '{0}'")]
    Shape(String),
    /// A parameter that must not be zero or endless is.
    #[error(
        "the {parameter} of '{name}' must be more than zero and less than 'never'; for a fixed value write const:T"
    )]
    Degenerate {
        /// The distribution.
        name: &'static str,
        /// The parameter.
        parameter: &'static str,
    },
    /// A uniform distribution's bounds are the wrong way round, or equal.
    #[error("the bounds of 'uniform' must be a low one and a higher one, not {low} and {high}")]
    Bounds {
        /// The first bound.
        low: Nanos,
        /// The second bound.
        high: Nanos,
    },
}

impl Dist {
    /// Always `value`.
    pub const fn constant(value: Nanos) -> Self {
        Dist(Kind::Const(value))
    }

    /// Exponential with the given mean.
    ///
    /// # Errors
    /// The mean is zero or [`Nanos::MAX`].
    pub fn exp(mean: Nanos) -> Result<Self, DistError> {
        positive("exp", "mean", mean)?;
        Ok(Dist(Kind::Exp { mean }))
    }

    /// Uniform on [low, high].
    ///
    /// # Errors
    /// `low` is not below `high`, or `high` is [`Nanos::MAX`].
    pub fn uniform(low: Nanos, high: Nanos) -> Result<Self, DistError> {
        if low >= high || high == Nanos::MAX {
            return Err(DistError::Bounds { low, high });
        }
        Ok(Dist(Kind::Uniform { low, high }))
    }

    /// Normal with mean and standard deviation, negative values replaced by zero. The mean may be zero.
    ///
    /// # Errors
    /// The standard deviation is zero, or either is [`Nanos::MAX`].
    pub fn normal(mean: Nanos, sd: Nanos) -> Result<Self, DistError> {
        if mean != Nanos::ZERO {
            positive("normal", "mean", mean)?;
        }
        positive("normal", "standard deviation", sd)?;
        Ok(Dist(Kind::Normal { mean, sd }))
    }

    /// Lognormal with mean and standard deviation of the value itself.
    ///
    /// # Errors
    /// Either is zero or [`Nanos::MAX`].
    pub fn lognormal(mean: Nanos, sd: Nanos) -> Result<Self, DistError> {
        positive("lognormal", "mean", mean)?;
        positive("lognormal", "standard deviation", sd)?;
        Ok(Dist(Kind::LogNormal { mean, sd }))
    }

    /// Pareto with smallest value `scale`: P(X > x) = (scale / x)^shape. The mean is infinite up to shape 1, the
    /// variance up to shape 2.
    ///
    /// # Errors
    /// The scale is zero or [`Nanos::MAX`], or the shape is not a positive finite number.
    pub fn pareto(scale: Nanos, shape: f64) -> Result<Self, DistError> {
        positive("pareto", "scale", scale)?;
        if !(shape > 0.0 && shape.is_finite()) {
            return Err(DistError::Shape(shape.to_string()));
        }
        Ok(Dist(Kind::Pareto { scale, shape }))
    }

    /// Draws a value, rounded to the nanosecond; never negative, at most [`Nanos::MAX`].
    pub fn sample<R: Rng + ?Sized>(&self, rng: &mut R) -> Nanos {
        let nanos = match self.0 {
            Kind::Const(value) => return value,
            Kind::Exp { mean } => mean.0 as f64 * rng.sample::<f64, _>(Exp1),
            Kind::Uniform { low, high } => return Nanos(rng.random_range(low.0..=high.0)),
            Kind::Normal { mean, sd } => mean.0 as f64 + sd.0 as f64 * rng.sample::<f64, _>(StandardNormal),
            Kind::LogNormal { mean, sd } => {
                let (mu, sigma) = log_parameters(mean, sd);
                (mu + sigma * rng.sample::<f64, _>(StandardNormal)).exp()
            }
            Kind::Pareto { scale, shape } => scale.0 as f64 * rng.sample::<f64, _>(OpenClosed01).powf(-1.0 / shape),
        };
        // The cast takes what is negative to zero and what is too large to the largest.
        Nanos(nanos.round() as u64)
    }

    /// Mean of what [`sample`](Self::sample) gives; [`Nanos::MAX`] where it is infinite.
    pub fn mean(&self) -> Nanos {
        match self.0 {
            Kind::Const(value) => value,
            Kind::Exp { mean } | Kind::LogNormal { mean, .. } => mean,
            _ => Nanos::from_secs_f64(self.mean_s()),
        }
    }

    /// The mean in seconds; infinite where it is.
    pub fn mean_s(&self) -> f64 {
        match self.0 {
            Kind::Const(mean) | Kind::Exp { mean } | Kind::LogNormal { mean, .. } => mean.as_secs_f64(),
            Kind::Uniform { low, high } => (low.as_secs_f64() + high.as_secs_f64()) / 2.0,
            Kind::Normal { mean, sd } => clamped_normal_moments(mean.as_secs_f64(), sd.as_secs_f64()).0,
            Kind::Pareto { shape, .. } if shape <= 1.0 => f64::INFINITY,
            Kind::Pareto { scale, shape } => scale.as_secs_f64() * shape / (shape - 1.0),
        }
    }

    /// Variance of what [`sample`](Self::sample) gives, in seconds squared; infinite where it is.
    pub fn variance_s2(&self) -> f64 {
        match self.0 {
            Kind::Const(_) => 0.0,
            Kind::Exp { mean } => mean.as_secs_f64().powi(2),
            Kind::Uniform { low, high } => (high - low).as_secs_f64().powi(2) / 12.0,
            Kind::Normal { mean, sd } => {
                let (first, second) = clamped_normal_moments(mean.as_secs_f64(), sd.as_secs_f64());
                second - first * first
            }
            Kind::LogNormal { sd, .. } => sd.as_secs_f64().powi(2),
            Kind::Pareto { shape, .. } if shape <= 2.0 => f64::INFINITY,
            Kind::Pareto { scale, shape } => {
                scale.as_secs_f64().powi(2) * shape / ((shape - 1.0).powi(2) * (shape - 2.0))
            }
        }
    }

    /// P(X ≤ x), of the distribution before rounding to nanoseconds.
    pub fn cdf(&self, x: Nanos) -> f64 {
        let t = x.0 as f64;
        match self.0 {
            Kind::Const(value) => f64::from(u8::from(x >= value)),
            Kind::Exp { mean } => -(-t / mean.0 as f64).exp_m1(),
            Kind::Uniform { low, high } => ((x - low).0 as f64 / (high - low).0 as f64).min(1.0),
            Kind::Normal { mean, sd } => normal_cdf((t - mean.0 as f64) / sd.0 as f64),
            Kind::LogNormal { mean, sd } => {
                let (mu, sigma) = log_parameters(mean, sd);
                normal_cdf((t.ln() - mu) / sigma)
            }
            Kind::Pareto { scale, .. } if x <= scale => 0.0,
            Kind::Pareto { scale, shape } => 1.0 - (scale.0 as f64 / t).powf(shape),
        }
    }
}

impl fmt::Display for Dist {
    /// The text that [`FromStr`] reads back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::Const(value) => write!(f, "const:{value}"),
            Kind::Exp { mean } => write!(f, "exp:{mean}"),
            Kind::Uniform { low, high } => write!(f, "uniform:{low}:{high}"),
            Kind::Normal { mean, sd } => write!(f, "normal:{mean}:{sd}"),
            Kind::LogNormal { mean, sd } => write!(f, "lognormal:{mean}:{sd}"),
            Kind::Pareto { scale, shape } => write!(f, "pareto:{scale}:{shape}"),
        }
    }
}

impl FromStr for Dist {
    type Err = DistError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.trim().split(':').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let parameters: Vec<&str> = parts.collect();
        let one = |name| match parameters[..] {
            [a] => Ok(a),
            _ => Err(DistError::Arity { name, expected: 1, found: parameters.len() }),
        };
        let two = |name| match parameters[..] {
            [a, b] => Ok((a, b)),
            _ => Err(DistError::Arity { name, expected: 2, found: parameters.len() }),
        };
        let spans = |name| two(name).and_then(|(a, b)| Ok((a.parse()?, b.parse()?)));
        match name {
            "const" => Ok(Dist::constant(one("const")?.parse()?)),
            "exp" => Dist::exp(one("exp")?.parse()?),
            "uniform" => spans("uniform").and_then(|(low, high)| Dist::uniform(low, high)),
            "normal" => spans("normal").and_then(|(mean, sd)| Dist::normal(mean, sd)),
            "lognormal" => spans("lognormal").and_then(|(mean, sd)| Dist::lognormal(mean, sd)),
            "pareto" => {
                let (scale, shape) = two("pareto")?;
                let number = shape.parse().map_err(|_| DistError::Shape(excerpt(shape)))?;
                Dist::pareto(scale.parse()?, number)
            }
            _ => Err(DistError::Unknown(excerpt(name))),
        }
    }
}

impl From<Dist> for String {
    fn from(dist: Dist) -> String {
        dist.to_string()
    }
}

impl TryFrom<String> for Dist {
    type Error = DistError;
    fn try_from(text: String) -> Result<Self, DistError> {
        text.parse()
    }
}

/// Enough of a wrong text to recognise it by.
fn excerpt(text: &str) -> String {
    text.chars().take(40).collect()
}

fn positive(name: &'static str, parameter: &'static str, value: Nanos) -> Result<(), DistError> {
    if value == Nanos::ZERO || value == Nanos::MAX {
        return Err(DistError::Degenerate { name, parameter });
    }
    Ok(())
}

/// Mean and standard deviation of the logarithm (of nanoseconds), from those of the value.
fn log_parameters(mean: Nanos, sd: Nanos) -> (f64, f64) {
    let (mean, sd) = (mean.0 as f64, sd.0 as f64);
    let variance = (sd / mean).powi(2).ln_1p();
    (mean.ln() - variance / 2.0, variance.sqrt())
}

fn normal_cdf(z: f64) -> f64 {
    erfc(-z / SQRT_2) / 2.0
}

/// E[Y] and E[Y²] of Y = max(0, X), X normal.
fn clamped_normal_moments(mean: f64, sd: f64) -> (f64, f64) {
    let z = mean / sd;
    let density = (-z * z / 2.0).exp() / (2.0 * PI).sqrt();
    let above = normal_cdf(z);
    (mean * above + sd * density, (mean * mean + sd * sd) * above + mean * sd * density)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    const ALL: [&str; 9] = [
        "const:5us",
        "exp:20ms",
        "uniform:1ms:2ms",
        "normal:20ms:5ms",
        "normal:1ms:5ms",
        "normal:0s:5ms",
        "lognormal:20ms:30ms",
        "pareto:1ms:3.5",
        "pareto:250us:5",
    ];

    fn dist(text: &str) -> Dist {
        text.parse().unwrap()
    }

    fn samples(text: &str, n: usize) -> Vec<Nanos> {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(7);
        (0..n).map(|_| dist(text).sample(&mut rng)).collect()
    }

    #[test]
    fn texts_read_back() {
        for text in ALL {
            assert_eq!(dist(text).to_string(), text);
            let json = serde_json::to_string(&dist(text)).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<Dist>(&json).unwrap(), dist(text));
        }
    }

    #[test]
    fn samples_have_the_mean_and_the_variance() {
        let n = 200_000;
        for text in ALL {
            let values: Vec<f64> = samples(text, n).iter().map(|x| x.as_secs_f64()).collect();
            let mean = values.iter().sum::<f64>() / n as f64;
            let sd = dist(text).variance_s2().sqrt();
            assert!((mean - dist(text).mean_s()).abs() <= 4.0 * sd / (n as f64).sqrt() + 1e-9, "{text}: mean {mean}");
            assert!((dist(text).mean_s() - dist(text).mean().as_secs_f64()).abs() <= 1e-9, "{text}");
            let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
            // Heavy tails converge slowly; the form of the variance is what is tested.
            assert!((variance.sqrt() - sd).abs() <= 0.05 * sd + 1e-12, "{text}: sd {} for {sd}", variance.sqrt());
        }
    }

    #[test]
    fn samples_follow_the_distribution_function() {
        let n = 50_000;
        for text in ALL.iter().filter(|text| !text.starts_with("const")) {
            let mut values = samples(text, n);
            values.sort();
            // Kolmogorov and Smirnov, one sample: 1.95/√n is exceeded once in a thousand. Below the smallest positive
            // value there may be an atom at zero, so the empirical function is taken at the last of equal values.
            let last_of_ties = (0..n).filter(|&i| values.get(i + 1) != Some(&values[i]));
            let distance =
                last_of_ties.map(|i| ((i + 1) as f64 / n as f64 - dist(text).cdf(values[i])).abs()).fold(0.0, f64::max);
            assert!(distance < 1.95 / (n as f64).sqrt(), "{text}: {distance}");
        }
    }

    #[test]
    fn distribution_functions_at_known_points() {
        let at = |text: &str, x: Nanos| dist(text).cdf(x);
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} for {b}");
        near(at("const:5us", Nanos(4_999)), 0.0);
        near(at("const:5us", Nanos(5_000)), 1.0);
        near(at("exp:20ms", Nanos::from_millis(20)), 1.0 - (-1.0f64).exp());
        near(at("uniform:1ms:2ms", Nanos::from_micros(1_250)), 0.25);
        near(at("uniform:1ms:2ms", Nanos::from_millis(3)), 1.0);
        near(at("normal:20ms:5ms", Nanos::from_millis(20)), 0.5);
        near(at("lognormal:20ms:30ms", Nanos::ZERO), 0.0);
        near(at("pareto:1ms:2", Nanos::from_millis(2)), 0.75);
        near(at("pareto:1ms:2", Nanos::from_micros(999)), 0.0);
    }

    #[test]
    fn heavy_tails_have_infinite_moments() {
        assert_eq!(dist("pareto:1ms:1").mean(), Nanos::MAX);
        assert_eq!(dist("pareto:1ms:2").variance_s2(), f64::INFINITY);
        assert_eq!(samples("pareto:1ms:0.0001", 100).iter().max(), Some(&Nanos::MAX));
    }

    #[test]
    fn impossible_ones_are_refused_in_one_sentence() {
        for (text, message) in [
            ("gauss:1ms:1ms", "'gauss' is no distribution"),
            ("", "'' is no distribution"),
            ("exp", "the number of parameters of 'exp' must be 1, not 0"),
            ("exp:1ms:2ms", "the number of parameters of 'exp' must be 1, not 2"),
            ("exp:-1ms", "'-1ms' is not a duration"),
            ("exp:nan", "'nan' is not a duration"),
            ("exp:0ms", "the mean of 'exp' must be more than zero"),
            ("uniform:2ms:1ms", "the bounds of 'uniform' must be a low one and a higher one, not 2ms and 1ms"),
            ("normal:1ms:0s", "the standard deviation of 'normal' must be more than zero"),
            ("lognormal:0s:1ms", "the mean of 'lognormal'"),
            ("pareto:0s:1", "the scale of 'pareto'"),
            ("pareto:1ms:nan", "the shape of a Pareto distribution must be a positive number such as 1.5, not 'NaN'"),
            ("pareto:1ms:-1", "not '-1'"),
            ("pareto:1ms:inf", "not 'inf'"),
            ("pareto:1ms:x", "not 'x'"),
        ] {
            let error = text.parse::<Dist>().unwrap_err().to_string();
            assert!(error.contains(message) && !error.contains('\n'), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(const|exp|uniform|normal|lognormal|pareto|)[:0-9a-z.]{0,20}") {
            if let Ok(dist) = text.parse::<Dist>() {
                prop_assert_eq!(dist.to_string().parse(), Ok(dist));
                let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
                let value = dist.sample(&mut rng);
                prop_assert!((0.0..=1.0).contains(&dist.cdf(value)));
                prop_assert!(dist.mean_s() >= 0.0 && dist.variance_s2() >= 0.0);
            }
        }
    }
}
