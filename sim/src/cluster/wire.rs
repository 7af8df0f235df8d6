//! Two nodes that talk to each other over TCP, one of which sends much.

use backdoor_core::Nanos;
use backdoor_transports::sim_nic::{Leg, SimNicConfig};

use super::mode::Stream;
use super::path::RandomPath;

/// A connection, as its first end sees it.
#[derive(Debug)]
pub(super) struct Wire {
    path: RandomPath,
    there: Stream,
    back: Stream,
    /// Until when the card here is busy with what was sent before.
    busy_until: Nanos,
    nic: SimNicConfig,
}

impl Wire {
    /// Over `path`, by cards of which `nic` says how fast they move words.
    pub(super) fn new(path: RandomPath, nic: SimNicConfig) -> Self {
        Wire { path, there: Stream::default(), back: Stream::default(), busy_until: Nanos::ZERO, nic }
    }

    /// Sends `words`, after what was sent before; when the last of them is there.
    pub(super) fn send(&mut self, now: Nanos, words: u64) -> Nanos {
        let takes = self.nic.chunk_interval * words / self.nic.chunk_words.max(1);
        self.busy_until = self.busy_until.max(now) + takes;
        self.there.send(&mut self.path, Leg::ToNode, self.busy_until, words, None)
    }

    /// Sends a short message back; when it is here.
    pub(super) fn answer(&mut self, now: Nanos, words: u64) -> Nanos {
        self.back.send(&mut self.path, Leg::FromNode, now, words, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::Dist;
    use crate::streams::{StreamKey, Streams};

    #[test]
    fn words_wait_for_those_before_them_and_answers_for_nobody() {
        let streams = Streams::new(StreamKey { seed: 1, experiment: "wire", point: "", replication: 0 });
        let path = RandomPath::new(Dist::constant(Nanos(2_000)), 0.0, streams.stream("network"));
        let nic = SimNicConfig { chunk_words: 512, chunk_interval: Nanos(300), ..SimNicConfig::default() };
        let mut wire = Wire::new(path, nic);
        let arrivals = [wire.send(Nanos(100), 5_120), wire.send(Nanos(200), 512), wire.answer(Nanos(300), 1)];
        assert_eq!(arrivals, [Nanos(100 + 3_000 + 2_000), Nanos(3_100 + 300 + 2_000), Nanos(2_300)]);
    }
}
