//! The way between a monitor and a node: how long a message takes, and whether it arrives.
//!
//! The simulator puts its own distributions behind [`Path`]. The card asks it once per message, in the order in which
//! messages leave, so a path with a random stream of its own gives the same answers for the same seed.

use backdoor_core::Nanos;

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leg {
    /// From the monitor to the node: a request.
    ToNode,
    /// From the node back to the monitor: data, an acknowledgement, or a refusal.
    FromNode,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transit {
    /// It arrives so long after it left.
    ArrivesAfter(Nanos),
    /// It never does.
    Lost,
}

/// A network between a monitor and a node.
pub trait Path {
    /// What becomes of a message with `words` words of data that leaves at `departs`.
    ///
    /// The card keeps messages of one connection in order: one that would overtake waits for those before it.
    fn one_way(&mut self, leg: Leg, departs: Nanos, words: u64) -> Transit;
}

impl<P: Path + ?Sized> Path for Box<P> {
    fn one_way(&mut self, leg: Leg, departs: Nanos, words: u64) -> Transit {
        (**self).one_way(leg, departs, words)
    }
}

/// A network that always takes the same time and loses nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedPath {
    /// Time of a message without data.
    pub latency: Nanos,
    /// Time that 1024 words (8 KiB) add. At 100 Gbit/s: 655 ns.
    pub per_kiloword: Nanos,
}

impl FixedPath {
    /// `latency` each way, whatever the size.
    pub const fn new(latency: Nanos) -> Self {
        FixedPath { latency, per_kiloword: Nanos::ZERO }
    }
}

impl Path for FixedPath {
    fn one_way(&mut self, _: Leg, _: Nanos, words: u64) -> Transit {
        Transit::ArrivesAfter(self.latency + self.per_kiloword * words / 1024)
    }
}
