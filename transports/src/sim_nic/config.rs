//! Everything that can be set about a simulated network card, in one place.

use backdoor_core::Nanos;

/// How a simulated network card behaves. Where a number has a real model, it is that of RDMA over Ethernet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimNicConfig {
    /// Operations that fit between posting and polling.
    pub queue_depth: usize,
    /// Words that the node's card moves at one instant. A READ of more takes several instants, with the node's
    /// processor running in between: that is where torn reads come from. `u64::MAX` makes every READ atomic.
    pub chunk_words: u64,
    /// Time between two chunks.
    pub chunk_interval: Nanos,
    /// How long the card waits for an answer before it sends again.
    pub retransmit_after: Nanos,
    /// How often it sends again before it reports that nobody answers.
    pub retries: u32,
    /// What it takes to set up a connection, besides the way there and back.
    pub connect_time: Nanos,
}

/// Largest number of retries. In verbs the field has three bits, and 7 there means "for ever": no completion, ever.
pub const MAX_RETRIES: u32 = 6;

impl Default for SimNicConfig {
    /// 64 operations; 4 KiB at a time at 100 Gbit/s; verbs' `timeout` 14 (67 ms) and `retry_cnt` 3; 1 ms to connect.
    fn default() -> Self {
        SimNicConfig {
            queue_depth: 64,
            chunk_words: 512,
            chunk_interval: Nanos(328),
            retransmit_after: Nanos(4_096 << 14),
            retries: 3,
            connect_time: Nanos::from_millis(1),
        }
    }
}

/// A setting with which a network card would lie or hang.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SimNicConfigError {
    /// No room for any operation.
    #[error("queue_depth is 0: no operation could ever be posted")]
    NoQueue,
    /// A READ would never get anywhere.
    #[error("chunk_words is 0: no word would ever be moved")]
    NoChunk,
    /// In verbs, timeout 0 means "wait for ever".
    #[error("retransmit_after is 0: on real cards that means to wait for ever, and no error is ever reported")]
    NoTimeout,
    /// Too few or too many retries.
    #[error(
        "retries is {retries}, must be 1 to {MAX_RETRIES}: without any, a single lost packet accuses a healthy node; \
         7 means for ever on real cards, and no error is ever reported"
    )]
    Retries {
        /// The value.
        retries: u32,
    },
}

impl SimNicConfig {
    /// Refuses settings with which the card would lie or hang.
    pub fn validate(&self) -> Result<(), SimNicConfigError> {
        if self.queue_depth == 0 {
            Err(SimNicConfigError::NoQueue)
        } else if self.chunk_words == 0 {
            Err(SimNicConfigError::NoChunk)
        } else if self.retransmit_after == Nanos::ZERO {
            Err(SimNicConfigError::NoTimeout)
        } else if !(1..=MAX_RETRIES).contains(&self.retries) {
            Err(SimNicConfigError::Retries { retries: self.retries })
        } else {
            Ok(())
        }
    }

    /// Time from sending work nobody answers to [`Unreachable`](backdoor_core::transport::TransportError::Unreachable).
    pub fn gives_up_after(&self) -> Nanos {
        self.retransmit_after * (u64::from(self.retries) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_would_hang_or_lie_are_refused() {
        let good = SimNicConfig::default();
        assert_eq!(good.validate(), Ok(()));
        for retries in [0, 7, 8, u32::MAX] {
            let config = SimNicConfig { retries, ..good.clone() };
            assert_eq!(config.validate(), Err(SimNicConfigError::Retries { retries }));
        }
        let config = SimNicConfig { retransmit_after: Nanos::ZERO, ..good.clone() };
        assert_eq!(config.validate(), Err(SimNicConfigError::NoTimeout));
        assert_eq!(SimNicConfig { chunk_words: 0, ..good.clone() }.validate(), Err(SimNicConfigError::NoChunk));
        assert_eq!(SimNicConfig { queue_depth: 0, ..good }.validate(), Err(SimNicConfigError::NoQueue));
    }

    #[test]
    fn the_default_gives_up_when_real_cards_do() {
        assert_eq!(SimNicConfig::default().gives_up_after().as_millis_f64().round(), 268.0);
    }
}
