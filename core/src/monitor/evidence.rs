//! The evidence clock: time during which the monitor demonstrably watched, see [the monitor](super).

use super::MonitorConfig;
use crate::Nanos;

/// The evidence clock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Evidence {
    /// Of the last sample's posting.
    pub(super) time: Nanos,
    /// Of its completion: no later sample begins before.
    pub(super) end: Nanos,
    last_posted: Option<Nanos>,
}

impl Evidence {
    /// What comes next is no evidence of silence since what came last.
    pub(super) fn interrupt(&mut self) {
        self.last_posted = None;
    }

    /// Takes in a sample; answers the gap since the last one if it was too long to be evidence.
    pub(super) fn sample(&mut self, posted: Nanos, completed: Nanos, config: &MonitorConfig) -> Option<Nanos> {
        let gap = self.last_posted.map_or(Nanos::ZERO, |last| posted - last);
        let late = gap > config.max_gap;
        let counts = if late { gap.min(config.poll_interval) } else { gap };
        self.time = (self.time + counts).max(self.end);
        self.end = self.time + (completed - posted).min(config.max_gap);
        self.last_posted = Some(posted);
        late.then_some(gap)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever the samples' times, evidence never runs backwards, nor faster than time.
        #[test]
        fn evidence_time_is_monotonic_and_never_ahead(
            steps in proptest::collection::vec((0u64..20, 0u64..20), 1..50),
            max_gap in 0u64..8,
            poll_interval in 1u64..8,
        ) {
            let config = MonitorConfig { max_gap: Nanos(max_gap), ..MonitorConfig::polling_every(Nanos(poll_interval)) };
            let (mut evidence, mut now) = (Evidence::default(), Nanos::ZERO);
            let mut last_end = Nanos::ZERO;
            for (wait, takes) in steps {
                let (posted, completed) = (now + Nanos(wait), now + Nanos(wait + takes));
                evidence.sample(posted, completed, &config);
                prop_assert!(last_end <= evidence.time && evidence.time <= evidence.end);
                prop_assert!(evidence.time <= posted && evidence.end <= completed);
                (last_end, now) = (evidence.end, completed);
            }
        }
    }
}
