//! What a monitor is told, and what it counts.

use crate::Nanos;

/// How a monitor works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MonitorConfig {
    /// Time from one poll to the next.
    pub poll_interval: Nanos,
    /// Samples further apart than this are no evidence of silence in between.
    pub max_gap: Nanos,
    /// A READ without completion for this long has failed; the channel is opened anew.
    pub read_timeout: Nanos,
    /// Pause before a failed channel or unreadable memory is tried again.
    pub retry_interval: Nanos,
}

impl MonitorConfig {
    /// Polls every `poll_interval`; gaps of up to four intervals count; READs may take a second; retries every 100 ms.
    pub fn polling_every(poll_interval: Nanos) -> Self {
        MonitorConfig {
            poll_interval,
            max_gap: poll_interval * 4,
            read_timeout: Nanos::from_secs(1),
            retry_interval: Nanos::from_millis(100),
        }
    }
}

/// What a monitor has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MonitorStats {
    /// Samples of the liveness words taken.
    pub samples: u64,
    /// Samples that came too late to be evidence of the silence before them.
    pub late_samples: u64,
    /// READs of the directory.
    pub directory_reads: u64,
}
