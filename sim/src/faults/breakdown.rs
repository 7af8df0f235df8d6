//! One failure at a time, of every kind that a diagnosis should tell from the others.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What breaks down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Breakdown {
    /// The operating system: all processors stop, the network card goes on serving.
    System,
    /// One processor hangs, with whatever runs on it.
    Processor,
    /// An application stops, with its sessions.
    Application,
    /// The handler of a session gets stuck.
    Session,
    /// The first process of the chain stops: crashed or hung, its queue stays and nobody answers.
    First,
    /// A process in the middle of the chain stops.
    Middle,
    /// The last process of the chain stops.
    Last,
    /// The last process stops when it has nothing to do; processes mark themselves active, nobody counts what waits.
    LastIdle,
    /// The same, but the kernel counts what waits for each process.
    LastIdleCounted,
    /// The disk completes no request any more.
    DiskHangs,
    /// The disk takes a hundred times as long.
    DiskSlow,
    /// The disk answers every request with an error, as soon as ever.
    DiskErrors,
    /// The node's network card dies, the node lives.
    Card,
    /// The node's link is cut.
    Link,
    /// The way that the node shares with its neighbours is cut.
    Partition,
    /// The monitor's own link goes down.
    OwnLink,
    /// The node loses power, its cards with it.
    Power,
    /// The operating system crashes, and takes the card down that it drives; a second one goes on serving.
    SystemAndCard,
}

impl Breakdown {
    /// Those that show in counters, behind a channel that works.
    pub const COUNTERS: [Breakdown; 12] = [
        Breakdown::System,
        Breakdown::Processor,
        Breakdown::Application,
        Breakdown::Session,
        Breakdown::First,
        Breakdown::Middle,
        Breakdown::Last,
        Breakdown::LastIdle,
        Breakdown::LastIdleCounted,
        Breakdown::DiskHangs,
        Breakdown::DiskSlow,
        Breakdown::DiskErrors,
    ];

    /// Those that show in the channel.
    pub const CHANNELS: [Breakdown; 6] = [
        Breakdown::Card,
        Breakdown::Link,
        Breakdown::Partition,
        Breakdown::OwnLink,
        Breakdown::Power,
        Breakdown::SystemAndCard,
    ];

    /// Whether it shows in the channel.
    pub fn is_of_channel(self) -> bool {
        Self::CHANNELS.contains(&self)
    }

    /// The name used in files and configs.
    pub const fn name(self) -> &'static str {
        match self {
            Breakdown::System => "system",
            Breakdown::Processor => "processor",
            Breakdown::Application => "application",
            Breakdown::Session => "session",
            Breakdown::First => "first",
            Breakdown::Middle => "middle",
            Breakdown::Last => "last",
            Breakdown::LastIdle => "last-idle",
            Breakdown::LastIdleCounted => "last-idle-counted",
            Breakdown::DiskHangs => "disk-hangs",
            Breakdown::DiskSlow => "disk-slow",
            Breakdown::DiskErrors => "disk-errors",
            Breakdown::Card => "card",
            Breakdown::Link => "link",
            Breakdown::Partition => "partition",
            Breakdown::OwnLink => "own-link",
            Breakdown::Power => "power",
            Breakdown::SystemAndCard => "system-and-card",
        }
    }
}

impl fmt::Display for Breakdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
