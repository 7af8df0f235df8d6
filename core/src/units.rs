//! Units as types: time in integer nanoseconds.
//!
//! One type serves instants and spans alike. An instant is the time since an origin that the caller chooses once (the
//! start of a simulation, the machine's monotonic clock); nothing in this crate asks a clock for it.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, Sub};
use std::str::FromStr;

/// A span of time, or an instant since the caller's origin, in integer nanoseconds.
///
/// Addition and multiplication saturate, so that "never" ([`Nanos::MAX`]) plus anything stays "never"; subtraction
/// saturates at zero, so that an instant read from another machine can't make a span wrap around.
///
/// ```
/// use backdoor_core::Nanos;
/// let deadline: Nanos = "1.5ms".parse().unwrap();
/// assert_eq!(deadline, Nanos::from_micros(1500));
/// assert_eq!(deadline.to_string(), "1.5ms");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Nanos(pub u64);

impl Nanos {
    /// The origin, or an empty span.
    pub const ZERO: Nanos = Nanos(0);
    /// Later than every instant: "never".
    pub const MAX: Nanos = Nanos(u64::MAX);

    /// `n` microseconds.
    pub const fn from_micros(n: u64) -> Self {
        Nanos(n.saturating_mul(1_000))
    }
    /// `n` milliseconds.
    pub const fn from_millis(n: u64) -> Self {
        Nanos(n.saturating_mul(1_000_000))
    }
    /// `n` seconds.
    pub const fn from_secs(n: u64) -> Self {
        Nanos(n.saturating_mul(1_000_000_000))
    }
    /// `seconds` rounded to the nearest nanosecond; negative and NaN become zero, too large becomes [`Nanos::MAX`].
    pub fn from_secs_f64(seconds: f64) -> Self {
        // A float to integer cast saturates and maps NaN to zero.
        Nanos((seconds * 1e9).round() as u64)
    }
    /// The span in seconds.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }
    /// The span in milliseconds.
    pub fn as_millis_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }
    /// The span in microseconds.
    pub fn as_micros_f64(self) -> f64 {
        self.0 as f64 / 1e3
    }
}

impl Add for Nanos {
    type Output = Nanos;
    fn add(self, other: Nanos) -> Nanos {
        Nanos(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Nanos {
    fn add_assign(&mut self, other: Nanos) {
        *self = *self + other;
    }
}

impl Sub for Nanos {
    type Output = Nanos;
    fn sub(self, other: Nanos) -> Nanos {
        Nanos(self.0.saturating_sub(other.0))
    }
}

impl Mul<u64> for Nanos {
    type Output = Nanos;
    fn mul(self, factor: u64) -> Nanos {
        Nanos(self.0.saturating_mul(factor))
    }
}

impl Div<u64> for Nanos {
    type Output = Nanos;
    fn div(self, divisor: u64) -> Nanos {
        Nanos(self.0 / divisor)
    }
}

impl Sum for Nanos {
    fn sum<I: Iterator<Item = Nanos>>(spans: I) -> Nanos {
        spans.fold(Nanos::ZERO, Add::add)
    }
}

impl fmt::Display for Nanos {
    /// In the largest unit that leaves no less than one, exactly: `1.5ms`, `20us`, `3s`, `never`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Nanos::MAX {
            return f.pad("never");
        }
        let (unit, size) = match self.0 {
            0 => return f.pad("0s"),
            n if n >= 1_000_000_000 => ("s", 1_000_000_000),
            n if n >= 1_000_000 => ("ms", 1_000_000),
            n if n >= 1_000 => ("us", 1_000),
            _ => ("ns", 1),
        };
        let (whole, rest) = (self.0 / size, self.0 % size);
        let mut text = whole.to_string();
        if rest > 0 {
            let digits = size.ilog10() as usize;
            text.push('.');
            text.push_str(format!("{rest:0digits$}").trim_end_matches('0'));
        }
        text.push_str(unit);
        f.pad(&text)
    }
}

/// A text that is no span of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a duration: write a number and a unit, such as 250us, 20ms, 1.1s, 5min, 2h or 30d")]
pub struct ParseNanosError(String);

impl FromStr for Nanos {
    type Err = ParseNanosError;

    /// Reads a number and a unit: `ns`, `us` (or `µs`), `ms`, `s`, `min`, `h`, `d`. A bare `0` needs no unit.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseNanosError(text.chars().take(40).collect());
        let trimmed = text.trim();
        if trimmed == "0" {
            return Ok(Nanos::ZERO);
        }
        let split = trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(error)?;
        let (number, unit) = trimmed.split_at(split);
        let size: u64 = match unit.trim() {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "min" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            _ => return Err(error()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || fraction.len() > 12 {
            return Err(error());
        }
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| error())? };
        let mut nanos = u128::from(whole) * u128::from(size);
        if !fraction.is_empty() {
            let digits: u128 = fraction.parse().map_err(|_| error())?;
            nanos += digits * u128::from(size) / 10u128.pow(fraction.len() as u32);
        }
        u64::try_from(nanos).map(Nanos).map_err(|_| error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_every_unit() {
        for (text, nanos) in [
            ("7ns", 7),
            ("250us", 250_000),
            ("250 µs", 250_000),
            ("20ms", 20_000_000),
            ("1.1s", 1_100_000_000),
            (".5s", 500_000_000),
            ("2min", 120_000_000_000),
            ("1h", 3_600_000_000_000),
            ("30d", 2_592_000_000_000_000),
            ("0", 0),
        ] {
            assert_eq!(text.parse(), Ok(Nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for text in ["", "20", "ms", "-1s", "1e3s", "1.2.3s", ".s", "nan", "99999999999999999999s", "600000h0"] {
            assert!(text.parse::<Nanos>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn display_reads_back(nanos in 0..u64::MAX) {
            prop_assert_eq!(Nanos(nanos).to_string().parse(), Ok(Nanos(nanos)));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,30}") {
            let _ = text.parse::<Nanos>();
        }
    }
}
