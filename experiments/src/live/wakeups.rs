//! How late a program woke up: the part of a detection time that is the machine's, not the method's.
//!
//! A monitor polls when the operating system lets it. Its own lateness is measured at every poll, and beside it that
//! of a loop that never sleeps: what even the latter misses (interrupts, other processes on its processor) no monitor
//! on this machine can do better.

use backdoor_core::Nanos;
use backdoor_host::clock;
use serde::{Deserialize, Serialize};

/// Bits of a value that a bucket keeps, below the highest: 1/64 is 1.6%.
const PRECISION: u32 = 6;

/// A histogram of lateness; of fixed size, however long the program runs.
#[derive(Clone, Debug)]
pub struct Wakeups {
    counts: Vec<u64>,
    total: u64,
    largest: Nanos,
}

/// What is told of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WakeupError {
    /// Number of wake-ups.
    pub count: u64,
    /// Half of them were no later than this, in ms.
    pub median_ms: f64,
    /// 99% of them were no later than this, in ms.
    pub p99_ms: f64,
    /// The latest, in ms.
    pub max_ms: f64,
}

impl Default for Wakeups {
    fn default() -> Self {
        Wakeups { counts: vec![0; bucket(u64::MAX) + 1], total: 0, largest: Nanos::ZERO }
    }
}

impl Wakeups {
    /// Something that was due at `due` happened at `at`.
    pub fn record(&mut self, due: Nanos, at: Nanos) {
        let late = at - due;
        self.counts[bucket(late.0)] += 1;
        self.total += 1;
        self.largest = self.largest.max(late);
    }

    /// Quantile `q`, rounded up by at most 1.6%.
    fn quantile(&self, q: f64) -> Nanos {
        let rank = (q * self.total as f64).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank.max(1) {
                return Nanos(largest_in(index)).min(self.largest);
            }
        }
        self.largest
    }

    /// Its summary.
    pub fn summary(&self) -> WakeupError {
        WakeupError {
            count: self.total,
            median_ms: self.quantile(0.5).as_millis_f64(),
            p99_ms: self.quantile(0.99).as_millis_f64(),
            max_ms: self.largest.as_millis_f64(),
        }
    }
}

/// Wake-ups of a loop that never sleeps, due every `period` for the length of `span`.
pub fn spin(period: Nanos, span: Nanos) -> WakeupError {
    let mut wakeups = Wakeups::default();
    let start = clock::now();
    let mut due = start + period;
    while due < start + span {
        let mut now = clock::now();
        while now < due {
            std::hint::spin_loop();
            now = clock::now();
        }
        wakeups.record(due, now);
        due = (due + period).max(now);
    }
    wakeups.summary()
}

/// Small values have buckets of their own; larger ones share one with those of the same highest bits.
fn bucket(value: u64) -> usize {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(PRECISION + 1);
    ((shift << PRECISION) as u64 + (value >> shift)) as usize
}

fn largest_in(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket >> PRECISION).saturating_sub(1);
    let value = bucket - (shift << PRECISION);
    (value << shift) + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_and_narrow() {
        let mut last = 0;
        for value in (0..4096).chain((12..64).map(|bit| 1u64 << bit)).chain([u64::MAX]) {
            let index = bucket(value);
            assert!(index >= last, "{value}");
            assert!(largest_in(index) >= value && largest_in(index) - value <= value / 64, "{value}");
            last = index;
        }
    }

    #[test]
    fn quantiles_are_those_of_the_samples() {
        let mut wakeups = Wakeups::default();
        for late in 1..=100u64 {
            wakeups.record(Nanos::ZERO, Nanos::from_millis(late));
        }
        let summary = wakeups.summary();
        assert_eq!(summary.count, 100);
        assert!((summary.median_ms - 50.0).abs() < 1.0, "{summary:?}");
        assert!((summary.p99_ms - 99.0).abs() < 2.0, "{summary:?}");
        assert_eq!(summary.max_ms, 100.0);
        assert_eq!(Wakeups::default().summary(), WakeupError::default());
    }
}
