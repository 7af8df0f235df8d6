//! The last so many values, with their sums: no value is looked at twice.
//!
//! Sums are kept in integers, so that a window that has turned over a billion times still has exactly the sums of what
//! is in it. That bounds what a window can hold; the bounds are beyond what heartbeats need.

/// Most values that a window holds.
pub const MAX_WINDOW: usize = 1 << 16;

/// A ring of the last `capacity` values, at least one and at most [`MAX_WINDOW`].
#[derive(Clone, Debug)]
pub(super) struct Window {
    values: Box<[i64]>,
    len: usize,
    oldest: usize,
    sum: i128,
}

impl Window {
    pub(super) fn new(capacity: usize) -> Self {
        let values = vec![0; capacity.clamp(1, MAX_WINDOW)].into_boxed_slice();
        Window { values, len: 0, oldest: 0, sum: 0 }
    }

    /// Takes a value in; answers the one that falls out for it.
    #[inline]
    pub(super) fn push(&mut self, value: i64) -> Option<i64> {
        self.sum += i128::from(value);
        if self.len < self.values.len() {
            self.values[self.len] = value;
            self.len += 1;
            return None;
        }
        let old = std::mem::replace(&mut self.values[self.oldest], value);
        self.oldest = if self.oldest + 1 == self.values.len() { 0 } else { self.oldest + 1 };
        self.sum -= i128::from(old);
        Some(old)
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn sum(&self) -> i128 {
        self.sum
    }

    /// The mean, rounded towards zero; 0 for no values.
    #[inline]
    pub(super) fn mean(&self) -> i64 {
        let n = self.len.max(1) as i64;
        // Division of 128 bits is slow, and hardly ever needed.
        match i64::try_from(self.sum) {
            Ok(sum) => sum / n,
            Err(_) => (self.sum / i128::from(n)) as i64,
        }
    }
}

/// A window of spans with mean and standard deviation.
#[derive(Clone, Debug)]
pub(super) struct Spread {
    window: Window,
    squares: u128,
}

/// A span counts for no more than this, 2⁴⁵ ns or 9.7 hours: so n·Σx² fits 128 bits in the largest window.
const LONGEST: u64 = 1 << 45;

impl Spread {
    pub(super) fn new(capacity: usize) -> Self {
        Spread { window: Window::new(capacity), squares: 0 }
    }

    #[inline]
    pub(super) fn push(&mut self, span_ns: u64) {
        let square = |value: u64| u128::from(value) * u128::from(value);
        let span = span_ns.min(LONGEST);
        self.squares += square(span);
        if let Some(old) = self.window.push(span as i64) {
            self.squares -= square(old as u64);
        }
    }

    #[inline]
    pub(super) fn mean(&self) -> f64 {
        self.window.sum() as f64 / self.window.len().max(1) as f64
    }

    /// Of the values as a whole population: the root of the mean square deviation.
    #[inline]
    pub(super) fn deviation(&self) -> f64 {
        let n = self.window.len().max(1) as u128;
        let sum = self.window.sum() as u128;
        ((n * self.squares - sum * sum) as f64).sqrt() / n as f64
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sums_are_those_of_the_last_values(values in prop::collection::vec(any::<i64>(), 1..80), capacity in 1usize..20) {
            let mut window = Window::new(capacity);
            for (count, value) in values.iter().enumerate() {
                let old = window.push(*value);
                prop_assert_eq!(old, count.checked_sub(capacity).map(|index| values[index]));
                let last = &values[(count + 1).saturating_sub(capacity)..=count];
                let sum: i128 = last.iter().map(|value| i128::from(*value)).sum();
                prop_assert_eq!((window.len(), window.sum()), (last.len(), sum));
                prop_assert_eq!(i128::from(window.mean()), sum / last.len() as i128);
            }
        }

        #[test]
        fn deviations_are_those_of_the_last_spans(spans in prop::collection::vec(0u64..1 << 50, 1..60), capacity in 1usize..20) {
            let mut spread = Spread::new(capacity);
            for (count, span) in spans.iter().enumerate() {
                spread.push(*span);
                let last = &spans[(count + 1).saturating_sub(capacity)..=count];
                let values: Vec<f64> = last.iter().map(|span| (*span).min(LONGEST) as f64).collect();
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                let sd = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt();
                prop_assert!((spread.mean() - mean).abs() <= 1e-9 * mean);
                prop_assert!((spread.deviation() - sd).abs() <= 1e-6 * mean.max(1.0), "{} {}", spread.deviation(), sd);
            }
        }
    }

    #[test]
    fn the_largest_window_of_the_longest_spans() {
        let mut spread = Spread::new(usize::MAX);
        for _ in 0..MAX_WINDOW {
            spread.push(u64::MAX);
        }
        assert_eq!((spread.mean(), spread.deviation()), (LONGEST as f64, 0.0));
    }
}
