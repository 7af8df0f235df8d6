//! How far a taker has got with the sessions of a node: where it can be halted, to see what becomes of them if it goes no
//! further, or if somebody else fails just then.

use serde::{Deserialize, Serialize};

/// A step that a taker is about to take, with all sessions together; it halts there only if it was told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Milestone {
    /// It watches; nobody has failed yet.
    Watching,
    /// It takes over, and knows which sessions.
    Decided,
    /// Claims stand that can still be given back.
    Claimed,
    /// Claims stand for good, and the node is not cut off.
    Fencing,
    /// The node is cut off, and nothing of it was read.
    Fenced,
    /// All states are here, and none was offered.
    Offering,
    /// They were offered, and nobody has answered.
    Offered,
    /// Whoever they were offered to has said that it serves them, and nothing is left to be done with them.
    Served,
}

impl Milestone {
    /// The name used on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Milestone::Watching => "watching",
            Milestone::Decided => "decided",
            Milestone::Claimed => "claimed",
            Milestone::Fencing => "fencing",
            Milestone::Fenced => "fenced",
            Milestone::Offering => "offering",
            Milestone::Offered => "offered",
            Milestone::Served => "served",
        }
    }
}
