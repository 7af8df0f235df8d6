//! When heartbeats of a fixed period are due.

use super::Heartbeat;
use crate::Nanos;

/// Heartbeat `number` is due at `at`, and the others every `period` before and after it: sent then, or expected to
/// arrive, as whoever holds the schedule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Time between heartbeats: η.
    pub period: Nanos,
    /// One heartbeat's number.
    pub number: u64,
    /// When that one is due.
    pub at: Nanos,
}

impl Schedule {
    /// Due time, before the origin or after the end of time if need be.
    #[inline]
    fn due(&self, number: u64) -> i128 {
        let steps = i128::from(number) - i128::from(self.number);
        i128::from(self.at.0) + steps * self.step()
    }

    /// The period; at most 146 years, so that no number of steps overflows.
    #[inline]
    fn step(&self) -> i128 {
        i128::from(self.period.0.min(1 << 62))
    }

    /// Nanoseconds by which a heartbeat came after it was due, negative if before; at most 146 years either way.
    #[inline]
    pub(super) fn lateness(&self, heartbeat: Heartbeat) -> i64 {
        const MOST: i128 = 1 << 62;
        (i128::from(heartbeat.at.0) - self.due(heartbeat.number)).clamp(-MOST, MOST) as i64
    }

    /// `after` nanoseconds after heartbeat `number + 1` is due; not before the origin, not after [`Nanos::MAX`].
    #[inline]
    pub(super) fn after_next(&self, number: u64, after: i64) -> Nanos {
        let instant = self.due(number) + self.step() + i128::from(after);
        Nanos(instant.clamp(0, i128::from(u64::MAX)) as u64)
    }
}

/// A span as a signed number of nanoseconds, at most the largest there is.
pub(super) fn signed(span: Nanos) -> i64 {
    i64::try_from(span.0).unwrap_or(i64::MAX)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn is_the_same_whichever_heartbeat_it_is_told_by() {
        let schedule = Schedule { period: Nanos(10), number: 5, at: Nanos(100) };
        let other = Schedule { period: Nanos(10), number: 7, at: Nanos(120) };
        for number in 0..10 {
            let heartbeat = Heartbeat { number, at: Nanos(77) };
            assert_eq!(schedule.lateness(heartbeat), 77 - (50 + 10 * number as i64));
            assert_eq!(schedule.lateness(heartbeat), other.lateness(heartbeat));
            assert_eq!(schedule.after_next(number, -3), Nanos(57 + 10 * number));
        }
        assert_eq!(schedule.after_next(0, -1000), Nanos::ZERO);
        assert_eq!(schedule.after_next(u64::MAX, i64::MAX), Nanos::MAX);
    }
}
