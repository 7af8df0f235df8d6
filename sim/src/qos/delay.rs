//! Laws of message delay: a distribution, or delays that were recorded, drawn independently.

use std::fmt;
use std::sync::Arc;

use backdoor_core::Nanos;
use rand::{Rng, RngExt};

use crate::dist::Dist;

/// Most recorded delays that a law may be made of.
pub const MOST_RECORDED: usize = 4_000_000;

/// How long a heartbeat takes. Each takes its own time, independently of all others.
#[derive(Clone, Debug, PartialEq)]
pub enum Delay {
    /// By a distribution.
    Law(Dist),
    /// Like a recorded one, each equally likely.
    Recorded(Recorded),
}

/// Recorded delays, sorted. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    sorted: Arc<[Nanos]>,
}

impl Recorded {
    /// `None` for no delays.
    pub fn new(mut delays: Vec<Nanos>) -> Option<Self> {
        delays.sort_unstable();
        (!delays.is_empty()).then(|| Recorded { sorted: delays.into() })
    }

    fn fraction(&self, holds: impl Fn(&Nanos) -> bool) -> f64 {
        self.sorted.partition_point(holds) as f64 / self.sorted.len() as f64
    }
}

impl Delay {
    /// Draws a delay.
    #[inline]
    pub fn sample<R: Rng + ?Sized>(&self, rng: &mut R) -> Nanos {
        match self {
            Delay::Law(dist) => dist.sample(rng),
            Delay::Recorded(Recorded { sorted }) => sorted[rng.random_range(0..sorted.len())],
        }
    }

    /// Draws a delay under the condition that it is longer than `x`; one nanosecond longer where none is.
    pub fn sample_above<R: Rng + ?Sized>(&self, x: Nanos, rng: &mut R) -> Nanos {
        match self {
            Delay::Law(dist) => dist.sample_above(x, rng),
            Delay::Recorded(Recorded { sorted }) => {
                let from = sorted.partition_point(|delay| *delay <= x);
                if from == sorted.len() { x + Nanos(1) } else { sorted[rng.random_range(from..sorted.len())] }
            }
        }
    }

    /// P(D > `x_ns`); 1 for a negative one.
    pub fn above(&self, x_ns: f64) -> f64 {
        match self {
            Delay::Law(dist) => dist.above(x_ns),
            Delay::Recorded(recorded) => 1.0 - recorded.fraction(|delay| delay.0 as f64 <= x_ns),
        }
    }

    /// P(D < `x_ns`).
    pub fn below(&self, x_ns: f64) -> f64 {
        match self {
            Delay::Law(dist) => dist.below(x_ns),
            Delay::Recorded(recorded) => recorded.fraction(|delay| (delay.0 as f64) < x_ns),
        }
    }

    /// The x with P(D > x) = `probability` (0 < `probability` < 1), in nanoseconds.
    pub fn quantile_above(&self, probability: f64) -> f64 {
        match self {
            Delay::Law(dist) => dist.quantile_above(probability),
            Delay::Recorded(Recorded { sorted }) => {
                let rank = ((1.0 - probability) * sorted.len() as f64).ceil() as usize;
                sorted[rank.clamp(1, sorted.len()) - 1].0 as f64
            }
        }
    }

    /// Mean, in seconds; infinite where it is.
    pub fn mean_s(&self) -> f64 {
        match self {
            Delay::Law(dist) => dist.mean_s(),
            Delay::Recorded(Recorded { sorted }) => {
                sorted.iter().map(|delay| delay.as_secs_f64()).sum::<f64>() / sorted.len() as f64
            }
        }
    }

    /// Whether P(D > x) is a step function: then so is everything that is made of it.
    pub fn is_discrete(&self) -> bool {
        match self {
            Delay::Law(dist) => dist.variance_s2() == 0.0,
            Delay::Recorded(_) => true,
        }
    }

    /// Steps and corners of the distribution function, in nanoseconds, without repetition.
    pub fn corners(&self) -> Vec<f64> {
        match self {
            Delay::Law(dist) => dist.corners(),
            Delay::Recorded(Recorded { sorted }) => {
                let mut corners: Vec<f64> = sorted.iter().map(|delay| delay.0 as f64).collect();
                corners.dedup();
                corners
            }
        }
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Delay::Law(dist) => dist.fmt(f),
            Delay::Recorded(Recorded { sorted }) => write!(f, "one of {} recorded", sorted.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    #[test]
    fn recorded_delays_are_their_own_law() {
        let delay = Delay::Recorded(Recorded::new([3, 1, 3, 7].map(Nanos).to_vec()).unwrap());
        assert_eq!([0.0, 1.0, 3.0, 7.0].map(|x| delay.above(x)), [1.0, 0.75, 0.25, 0.0]);
        assert_eq!([1.0, 3.0, 8.0].map(|x| delay.below(x)), [0.0, 0.25, 1.0]);
        assert_eq!([0.9, 0.5, 0.2].map(|p| delay.quantile_above(p)), [1.0, 3.0, 7.0]);
        assert_eq!(delay.corners(), [1.0, 3.0, 7.0]);
        assert!((delay.mean_s() - 3.5e-9).abs() < 1e-20);
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        assert!((0..100).all(|_| delay.sample_above(Nanos(3), &mut rng) == Nanos(7)));
        assert_eq!(delay.sample_above(Nanos(7), &mut rng), Nanos(8));
        assert_eq!(Recorded::new(Vec::new()), None);
    }
}
