//! What rate of mistakes a recording predicts for another run of the same.
//!
//! Mistakes come in bursts, and what a machine has to do besides changes from second to second. So a recording is taken in
//! blocks, apart in time, and the spread of their rates tells how far the rate of another block may be off; within a block
//! nothing is assumed. Two intervals are made, and the wider bound of each is taken, for with few blocks or few mistakes
//! either alone is too sure:
//!
//! * from the spread between blocks: Student's interval of a ratio of sums, widened by √(1 + T/T′) for a run of exposure
//!   T′ after a recording of T, whose own mean strays as well. Rates are skewed, and a few blocks may have missed the bad
//!   ones: the upper bound is that of the same interval on a logarithmic scale, which is higher;
//! * from the number of mistakes, as if each came alone (Poisson): the numbers that a second count may show after a first
//!   one, by the binomial law of the first given both (Nelson, *Applied Life Data Analysis*, 1982, section 6.2).

use backdoor_sim::stats::{self, Estimate};
use statrs::distribution::{Binomial, DiscreteCDF};

/// Probability left outside an interval, on each side.
const TAIL: f64 = 0.025;

/// One stretch of a recording.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Block {
    /// Mistakes in it.
    pub mistakes: u64,
    /// Time that entities were watched, summed over entities, in any unit.
    pub exposure: f64,
}

/// Rate of mistakes in the recording, per unit of exposure, with the 95% interval of its mean. `None` without exposure.
pub fn rate(blocks: &[Block]) -> Option<Estimate> {
    let (mistakes, exposure) = sum(blocks);
    let alone = stats::rate(mistakes, exposure)?;
    Some(spread(blocks).map_or(alone, |spread| spread.widened_by(alone)).within(0.0, f64::INFINITY))
}

/// The same rate, with the interval within which 95% of runs of this exposure are to show theirs. `None` if either has no
/// exposure.
pub fn predict(blocks: &[Block], exposure: f64) -> Option<Estimate> {
    let (mistakes, recorded) = sum(blocks);
    if !(recorded > 0.0 && exposure > 0.0 && exposure.is_finite()) {
        return None;
    }
    let value = mistakes as f64 / recorded;
    let (low, high) = second_count(mistakes, recorded / (recorded + exposure));
    let alone = Estimate { value, low: Some(low as f64 / exposure), high: Some(high as f64 / exposure) };
    let wider = (1.0 + recorded / exposure).sqrt();
    let spread = spread(blocks).map(|Estimate { value, low, high }| Estimate {
        value,
        low: low.map(|low| value - (value - low) * wider),
        high: high.map(|high| if value > 0.0 { value * ((high - value) * wider / value).exp() } else { high }),
    });
    Some(spread.map_or(alone, |spread| alone.widened_by(spread)).within(0.0, f64::INFINITY))
}

fn sum(blocks: &[Block]) -> (u64, f64) {
    blocks.iter().fold((0, 0.0), |(mistakes, exposure), block| (mistakes + block.mistakes, exposure + block.exposure))
}

fn spread(blocks: &[Block]) -> Option<Estimate> {
    let pairs: Vec<(f64, f64)> = blocks.iter().map(|block| (block.mistakes as f64, block.exposure)).collect();
    stats::ratio(&pairs)
}

/// The least and the largest second count that are no surprise after `first`, of which `share` of the exposure was.
fn second_count(first: u64, share: f64) -> (u64, u64) {
    // P(at most, at least `first` of all | first + second), which fall and rise with the second count.
    let at_most = |count: u64, second: u64| Binomial::new(share, count + second).map_or(1.0, |law| law.cdf(count));
    let at_least = |second: u64| match first.checked_sub(1) {
        None => 1.0,
        Some(below) => Binomial::new(share, first + second).map_or(1.0, |law| 1.0 - law.cdf(below)),
    };
    let low = first_that(|second| at_least(second) > TAIL);
    let high = first_that(|second| at_most(first, second) <= TAIL).saturating_sub(1);
    (low, high.max(low))
}

/// The first number for which something is so that is so for all larger ones.
fn first_that(holds: impl Fn(u64) -> bool) -> u64 {
    let mut high = 1;
    while !holds(high) && high < 1 << 40 {
        high *= 2;
    }
    let mut low = 0;
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use backdoor_sim::dist::Dist;
    use backdoor_sim::streams::{StreamKey, Streams};
    use rand::RngExt;

    fn blocks(mistakes: &[u64]) -> Vec<Block> {
        mistakes.iter().map(|mistakes| Block { mistakes: *mistakes, exposure: 2.0 }).collect()
    }

    #[test]
    fn second_counts_by_hand() {
        // After none, with equal exposures: y of y coins all on one side, P = 2⁻ʸ > 0.025 up to 5.
        assert_eq!(second_count(0, 0.5), (0, 5));
        // After 3: P(B(3 + y, ½) ≤ 3) is (1 + 14 + 91 + 364)/2¹⁴ = 0.0287 at y = 11 and 0.0176 at y = 12.
        assert_eq!(second_count(3, 0.5), (0, 11));
        // Twice the exposure, about twice the count.
        let (low, high) = second_count(1000, 1.0 / 3.0);
        assert!(low < 2000 && high > 2000, "{low} {high}");
        let expected = 1.96 * (2000.0f64 + 4000.0).sqrt();
        assert!((high as f64 - 2000.0 - expected).abs() < 12.0 && (2000.0 - low as f64 - expected).abs() < 12.0);
    }

    #[test]
    fn a_rate_and_what_it_predicts() {
        let even = blocks(&[10, 10, 10, 10]);
        let (mean, next) = (rate(&even).unwrap(), predict(&even, 8.0).unwrap());
        assert_eq!((mean.value, next.value), (5.0, 5.0));
        assert!(next.low < mean.low && next.high > mean.high, "{mean:?} {next:?}");
        // The spread of bursts is seen.
        let bursts = predict(&blocks(&[0, 40, 0, 0]), 8.0).unwrap();
        assert!(bursts.high.unwrap() > 2.0 * next.high.unwrap(), "{bursts:?}");
        // Of what was never seen, there is a bound, and a longer run may show no higher a rate.
        let none = predict(&blocks(&[0; 4]), 8.0).unwrap();
        assert_eq!((none.low, none.high), (Some(0.0), Some(5.0 / 8.0)));
        assert_eq!(predict(&[], 1.0), None);
        assert_eq!(predict(&even, 0.0), None);
    }

    /// Bursts of mistakes at a rate that differs from block to block: of two runs of it, the one predicts the other.
    #[test]
    fn predictions_hold_as_often_as_they_say() {
        let streams = Streams::new(StreamKey { seed: 1, experiment: "predict", point: "", replication: 0 });
        let mut random = streams.stream("blocks");
        let burst: Dist = "exp:1s".parse().unwrap();
        let mut block = || {
            // Exponential with mean 1: a block's rate; bursts of up to 5.
            let rate = burst.sample(&mut random).as_secs_f64();
            let begun = (0..20).filter(|_| random.random::<f64>() < rate / 8.0).count() as u64;
            Block { mistakes: (0..begun).map(|n| 1 + n % 5).sum(), exposure: 1.0 }
        };
        let mut run = || -> Vec<Block> { (0..6).map(|_| block()).collect() };
        let (mut held, all) = (0, 2000);
        for _ in 0..all {
            let (recorded, measured) = (run(), run());
            let (mistakes, exposure) = sum(&measured);
            let predicted = predict(&recorded, exposure).unwrap();
            let rate = mistakes as f64 / exposure;
            held += u32::from(predicted.low.unwrap() <= rate && rate <= predicted.high.unwrap());
        }
        let share = f64::from(held) / f64::from(all);
        // Student's interval alone holds in 88% of the cases here, Poisson's in 45%.
        assert!((0.93..0.99).contains(&share), "{share}");
    }
}
