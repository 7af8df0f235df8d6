//! By how much another machine's clock is ahead of this one's.
//!
//! Ask it for its time. Its answer was true at some instant between the question and the answer's arrival, so the
//! middle of the two is wrong by at most half the round trip, however unequal the two ways are. Of several exchanges the
//! fastest says most. (F. Cristian, "Probabilistic clock synchronization", Distributed Computing 3, 1989.)
//!
//! An offset is estimated right before and right after the moment that is to be translated. Between the two the clocks
//! drift by nanoseconds; [`ClockOffset::spanning`] covers that, too.

use backdoor_core::Nanos;

/// One question and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// When it was asked, by this machine's clock.
    pub sent: Nanos,
    /// What the other machine's clock showed.
    pub there: Nanos,
    /// When the answer was here, by this machine's clock.
    pub received: Nanos,
}

/// How far another machine's clock is ahead of this one's, and how sure that is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockOffset {
    /// Their time minus ours, in nanoseconds.
    ahead_ns: i128,
    error: Nanos,
}

impl ClockOffset {
    /// That of a clock to itself.
    pub const NONE: ClockOffset = ClockOffset { ahead_ns: 0, error: Nanos::ZERO };

    /// The estimate of the exchange with the shortest round trip; `None` without exchanges.
    pub fn estimate(exchanges: impl IntoIterator<Item = Exchange>) -> Option<Self> {
        let best = exchanges.into_iter().min_by_key(|exchange| exchange.received - exchange.sent)?;
        let round_trip = best.received - best.sent;
        let middle = i128::from(best.sent.0) + i128::from(round_trip.0 / 2);
        // Half of an odd number was rounded down above, and is rounded up here.
        let error = Nanos(round_trip.0.div_ceil(2));
        Some(ClockOffset { ahead_ns: i128::from(best.there.0) - middle, error })
    }

    /// The least that holds both estimates with their errors, and so every offset on the way from one to the other.
    pub fn spanning(self, other: Self) -> Self {
        let low = |of: Self| of.ahead_ns - i128::from(of.error.0);
        let high = |of: Self| of.ahead_ns + i128::from(of.error.0);
        let (low, high) = (low(self).min(low(other)), high(self).max(high(other)));
        let ahead_ns = low + (high - low) / 2;
        ClockOffset { ahead_ns, error: Nanos(u64::try_from(high - ahead_ns).unwrap_or(u64::MAX)) }
    }

    /// An instant of their clock by ours. Instants before our clock began are its beginning.
    pub fn to_ours(self, theirs: Nanos) -> Nanos {
        let ours = i128::from(theirs.0) - self.ahead_ns;
        Nanos(u64::try_from(ours.max(0)).unwrap_or(u64::MAX))
    }

    /// How far off an instant translated with it may be, at most.
    pub fn error(self) -> Nanos {
        self.error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn exchange(sent: u64, there: u64, received: u64) -> Exchange {
        Exchange { sent: Nanos(sent), there: Nanos(there), received: Nanos(received) }
    }

    #[test]
    fn the_fastest_exchange_wins() {
        let offset = ClockOffset::estimate([exchange(0, 9_000, 4_000), exchange(10_000, 15_100, 10_201)]).unwrap();
        assert_eq!((offset.ahead_ns, offset.error()), (5_000, Nanos(101)));
        assert_eq!(offset.to_ours(Nanos(15_100)), Nanos(10_100));
        assert_eq!(ClockOffset::estimate([]), None);
    }

    #[test]
    fn two_estimates_are_covered_together() {
        let (before, after) =
            (ClockOffset { ahead_ns: 100, error: Nanos(10) }, ClockOffset { ahead_ns: 130, error: Nanos(6) });
        assert_eq!(before.spanning(after), ClockOffset { ahead_ns: 113, error: Nanos(23) });
        assert_eq!(before.spanning(before), before);
        assert_eq!(ClockOffset::NONE.spanning(ClockOffset::NONE), ClockOffset::NONE);
    }

    proptest! {
        /// Whatever the two ways take, the truth is within the error.
        #[test]
        fn the_truth_is_within_the_error(
            ahead in -1_000_000_000i64..1_000_000_000,
            ways in prop::collection::vec((0u64..1_000_000, 0u64..1_000_000), 1..20),
        ) {
            let start = 2_000_000_000u64;
            let exchanges = ways.iter().enumerate().map(|(n, (there, back))| {
                let sent = start + n as u64 * 2_000_000;
                exchange(sent, (sent + there).saturating_add_signed(ahead), sent + there + back)
            });
            let offset = ClockOffset::estimate(exchanges).unwrap();
            prop_assert!((offset.ahead_ns - i128::from(ahead)).unsigned_abs() <= u128::from(offset.error().0));
        }

        /// A stage may say what it likes.
        #[test]
        fn nothing_panics(sent: u64, there: u64, received: u64, instant: u64) {
            let offset = ClockOffset::estimate([exchange(sent, there, received)]).unwrap();
            let wider = offset.spanning(ClockOffset::NONE);
            prop_assert!(wider.error() >= offset.error());
            wider.to_ours(Nanos(instant));
        }
    }
}
