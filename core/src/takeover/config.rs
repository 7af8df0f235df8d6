//! How patient a takeover is.

use crate::Nanos;

/// How long a taker waits, and how often it tries. None of this is needed for safety: with any values there is at most
/// one owner, and nothing committed is lost. Values that are too short cost work done twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TakeoverConfig {
    /// How long a READ or compare-and-swap may take before it is posted again.
    pub operation_timeout: Nanos,
    /// How long to wait after something was refused before it is tried again.
    pub retry_after: Nanos,
    /// How long a fence may take to be confirmed before it is asked for again.
    pub fence_timeout: Nanos,
    /// How long a target may take to begin to serve before the next one is asked.
    pub offer_timeout: Nanos,
    /// How long a foreign claim must stand unchanged before its taker counts as dead. Longer than any single step of a
    /// takeover takes, or takers that live disturb one another; each time that one finds the session in other hands, its
    /// patience doubles, up to 32 times this value.
    pub patience: Nanos,
    /// How often a step is repeated without an answer before the takeover is abandoned.
    pub attempts: u32,
}

impl Default for TakeoverConfig {
    /// 100 ms for an operation, 10 ms between attempts, 500 ms for a fence, 1 s for a target, 2 s of patience, 16
    /// attempts.
    fn default() -> Self {
        TakeoverConfig {
            operation_timeout: Nanos::from_millis(100),
            retry_after: Nanos::from_millis(10),
            fence_timeout: Nanos::from_millis(500),
            offer_timeout: Nanos::from_secs(1),
            patience: Nanos::from_secs(2),
            attempts: 16,
        }
    }
}
