//! What a diagnosis answers, in which way it was asked, and how good the answer is.

use backdoor_core::Nanos;
use backdoor_core::diagnosis::reachability::Conclusion;

use crate::faults::Breakdown;

/// When the diagnosis is asked for, and with what knowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Way {
    /// Knowing who waits for whom, and who was late; or with a second path.
    pub informed: bool,
    /// When it is for good, instead of at the first sign.
    pub settled: bool,
}

impl Way {
    /// All four, the least informed first.
    pub const ALL: [Way; 4] = [
        Way { informed: false, settled: false },
        Way { informed: true, settled: false },
        Way { informed: false, settled: true },
        Way { informed: true, settled: true },
    ];

    pub(super) fn place(self) -> usize {
        usize::from(self.informed) + 2 * usize::from(self.settled)
    }
}

/// What was found to be the cause and the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Found {
    /// Nothing, until the run ended.
    Nothing,
    /// The operating system.
    System,
    /// One processor.
    Processor,
    /// Whoever keeps the system's counters.
    Reporter,
    /// An application.
    Application,
    /// A session.
    Session,
    /// The first process of the chain.
    First,
    /// A process in the middle of it.
    Middle,
    /// The last one.
    Last,
    /// The disk.
    Disk,
    /// Several roots, independent of each other.
    Several,
    /// Something of the channel, or the node behind it.
    Channel(Conclusion),
}

impl Found {
    /// The name used in files.
    pub const fn name(self) -> &'static str {
        match self {
            Found::Nothing => "nothing",
            Found::System => "system",
            Found::Processor => "processor",
            Found::Reporter => "reporter",
            Found::Application => "application",
            Found::Session => "session",
            Found::First => "first process",
            Found::Middle => "middle process",
            Found::Last => "last process",
            Found::Disk => "disk",
            Found::Several => "several",
            Found::Channel(conclusion) => conclusion.name(),
        }
    }

    /// What is to be found of a breakdown.
    pub const fn of(breakdown: Breakdown) -> Self {
        match breakdown {
            Breakdown::System => Found::System,
            Breakdown::Processor => Found::Processor,
            Breakdown::Application => Found::Application,
            Breakdown::Session => Found::Session,
            Breakdown::First => Found::First,
            Breakdown::Middle => Found::Middle,
            Breakdown::Last | Breakdown::LastIdle | Breakdown::LastIdleCounted => Found::Last,
            Breakdown::DiskHangs | Breakdown::DiskSlow | Breakdown::DiskErrors => Found::Disk,
            Breakdown::Card | Breakdown::Link => Found::Channel(Conclusion::CardOrPath),
            Breakdown::Partition => Found::Channel(Conclusion::Partition),
            Breakdown::OwnLink => Found::Channel(Conclusion::OwnFault),
            Breakdown::Power | Breakdown::SystemAndCard => Found::Channel(Conclusion::NodeDown),
        }
    }
}

/// How good an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Worth {
    /// Cause and root are the true ones, and no other is named.
    Right,
    /// The true one is not named, but is left open: as a doubt, or because the silence is said to be unexplained.
    Open,
    /// Something else is named, or nothing was found.
    Wrong,
}

/// An answer of the diagnosis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What was named.
    pub found: Found,
    /// How good that is.
    pub worth: Worth,
    /// How long after the breakdown took effect; `None` if there was no answer until the end.
    pub after: Option<Nanos>,
}

/// What came of one breakdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiagnosisOutcome {
    /// When it took effect; `None`: not before the run ended, so that there was nothing to find.
    pub effective: Option<Nanos>,
    /// The answers, as in [`Way::ALL`].
    pub answers: [Answer; 4],
    /// Of the answers for good that came later, as long as the run was watched on: how many were right, without and with
    /// what more there is to know.
    pub later: [Later; 2],
}

/// Later answers of one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Later {
    /// How many were right.
    pub right: u64,
    /// How many there were.
    pub all: u64,
}

impl DiagnosisOutcome {
    /// The answer of one way.
    pub fn answer(&self, way: Way) -> Answer {
        self.answers[way.place()]
    }
}
