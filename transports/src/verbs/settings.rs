//! How long a queue pair tries before it gives up on its peer.

use backdoor_core::Nanos;

/// Retry timeout and retry count of a reliable connection, restricted to values that neither hang nor lie.
///
/// After a request is sent, the card waits for an answer at least T = 4.096 µs · 2^timeout, and sends again, `retries`
/// times; an unanswered request fails between `retries`·T and (`retries` + 1)·T (InfiniBand Architecture Specification
/// volume 1, section 9.7.6.1.3; a card may take up to four times as long). Not allowed are
/// - `timeout` 0, which means for ever, and values below [`MIN_TIMEOUT`](Self::MIN_TIMEOUT), within which a healthy peer
///   does not always answer;
/// - `retries` 0: one lost packet would be reported as a dead peer;
/// - `retries` 7: with Soft-RoCE a request to a dead peer then never completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetrySettings {
    timeout: u8,
    retries: u8,
}

/// A timeout or a number of retries that can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// See [`RetrySettings`].
    #[error("a retry timeout of {0}: must be from {min} ({shortest}) to {max} ({longest})",
        min = RetrySettings::MIN_TIMEOUT, max = RetrySettings::MAX_TIMEOUT,
        shortest = wait(RetrySettings::MIN_TIMEOUT), longest = wait(RetrySettings::MAX_TIMEOUT))]
    Timeout(u8),
    /// See [`RetrySettings`].
    #[error("{0} retries: must be from 1 (0 takes one lost packet for a dead peer) to 6 (7 may wait for ever)")]
    Retries(u8),
}

const fn wait(timeout: u8) -> Nanos {
    Nanos(4096 << timeout)
}

impl RetrySettings {
    /// Least timeout: 2.1 ms.
    pub const MIN_TIMEOUT: u8 = 9;
    /// Greatest timeout: 4.3 s.
    pub const MAX_TIMEOUT: u8 = 20;

    /// Checks both.
    pub const fn new(timeout: u8, retries: u8) -> Result<Self, SettingsError> {
        if timeout < Self::MIN_TIMEOUT || timeout > Self::MAX_TIMEOUT {
            return Err(SettingsError::Timeout(timeout));
        }
        if retries < 1 || retries > 6 {
            return Err(SettingsError::Retries(retries));
        }
        Ok(RetrySettings { timeout, retries })
    }

    /// The exponent of the retry timeout.
    pub const fn timeout(self) -> u8 {
        self.timeout
    }

    /// How often a request is sent again.
    pub const fn retries(self) -> u8 {
        self.retries
    }

    /// When an unanswered request fails: not before the first, and by the specification's nominal timer not after the
    /// second.
    pub const fn gives_up(self) -> (Nanos, Nanos) {
        let wait = wait(self.timeout).0;
        (Nanos(wait * self.retries as u64), Nanos(wait * (self.retries as u64 + 1)))
    }

    /// When we stop waiting for a card that does not report a failure itself: its timer may run four times as long as
    /// the nominal one; and a second for a machine that has no time for us.
    pub const fn patience(self) -> Nanos {
        Nanos(self.gives_up().1.0 * 4 + 1_000_000_000)
    }
}

impl Default for RetrySettings {
    /// Timeout 14 (67 ms), 3 retries: an unanswered request fails after 0.2 to 0.27 s.
    fn default() -> Self {
        RetrySettings { timeout: 14, retries: 3 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_hang_or_lie_are_refused() {
        for (timeout, retries) in [(0, 3), (8, 3), (21, 3), (31, 3), (255, 3)] {
            assert_eq!(RetrySettings::new(timeout, retries), Err(SettingsError::Timeout(timeout)));
        }
        for retries in [0, 7, 8, 255] {
            assert_eq!(RetrySettings::new(14, retries), Err(SettingsError::Retries(retries)));
        }
        let text = SettingsError::Timeout(0).to_string();
        assert_eq!(text, "a retry timeout of 0: must be from 9 (2.097152ms) to 20 (4.294967296s)");
    }

    #[test]
    fn the_default_gives_up_as_measured() {
        let (first, last) = RetrySettings::default().gives_up();
        assert_eq!((first, last), (Nanos(201_326_592), Nanos(268_435_456)));
        assert!(RetrySettings::default().patience() > last);
        let longest = RetrySettings::new(20, 6).unwrap();
        assert!(longest.patience() < Nanos::from_secs(130));
    }
}
