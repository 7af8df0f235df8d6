//! What fails, and how.

use serde::{Deserialize, Serialize};

/// How node A fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum FailoverFailure {
    /// The service's process is frozen; its kernel goes on to acknowledge what clients send.
    Sigstop,
    /// The service's process is killed.
    Sigkill,
    /// Two of its threads wait for each other.
    Deadlock,
    /// One session's handler never ends what it does.
    SessionStuck,
    /// The process is frozen and the node's link gone at the same moment: nothing of the node can be asked any more.
    Cut,
    /// Frozen like `sigstop`, and let go on when its sessions are at node B.
    Zombie,
    /// Nobody fails: the suspicion is wrong.
    Wrong,
}

impl FailoverFailure {
    /// The name used on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            FailoverFailure::Sigstop => "sigstop",
            FailoverFailure::Sigkill => "sigkill",
            FailoverFailure::Deadlock => "deadlock",
            FailoverFailure::SessionStuck => "session-stuck",
            FailoverFailure::Cut => "cut",
            FailoverFailure::Zombie => "zombie",
            FailoverFailure::Wrong => "wrong",
        }
    }

    /// Whether anything fails at all.
    pub(super) const fn is_one(self) -> bool {
        !matches!(self, FailoverFailure::Wrong)
    }

    pub(super) const fn leaves_the_agent_in_reach(self) -> bool {
        !matches!(self, FailoverFailure::Cut)
    }
}

/// How many processes the service is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceKind {
    /// One.
    #[default]
    Web,
    /// Two: a front that talks to clients, and a worker that counts.
    Pair,
}

impl ServiceKind {
    /// The name used on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            ServiceKind::Web => "web",
            ServiceKind::Pair => "pair",
        }
    }
}

/// Which of a pair's processes fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Victim {
    /// The one that talks to clients.
    #[default]
    Front,
    /// The one that counts.
    Worker,
    /// One right after the other.
    Both,
}

impl Victim {
    /// The name used on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            Victim::Front => "front",
            Victim::Worker => "worker",
            Victim::Both => "both",
        }
    }
}
