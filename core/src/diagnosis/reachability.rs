//! Why a channel to a node is silent: the monitor's own side, the way, the node's card, or the node.
//!
//! A READ that nobody answers says that something between two processors is gone, and not what. Three other things say
//! more: how the READ failed, what became of the channels to *other* nodes at the same time, and what a second path to
//! the node says of it (another card in another network, or a management network). [`conclude`] puts them together.
//! It is a function of evidence alone, so that a conclusion can be repeated, tested, and argued with.
//!
//! # The table
//! Rows are tried from above; the first that applies is the conclusion. "Together" means that two silences overlap, so
//! that one event may have caused both (see [`Evidence::silent_together`]); "since" means by work that was begun after
//! this channel's failure had been noticed.
//!
//! | this channel | other channels | second path | [`Conclusion`] |
//! |---|---|---|---|
//! | answers | | | `Reachable` |
//! | refused, out of bounds | | | `Refused` |
//! | local fault | | | `OwnFault` |
//! | unreachable | one has a local fault, together | | `OwnFault` |
//! | unreachable | all silent together, on two paths or more | | `OwnFault` |
//! | unreachable | | answers, the system moves since | `Partition` if all on this path are silent together, else `CardOrPath` |
//! | unreachable | | answers, the system stands still | `NodeDown` |
//! | unreachable | | unreachable, together | `NodeDown` |
//! | unreachable | there are others on this path, all silent together | none, or says nothing | `Partition` |
//! | unreachable | otherwise | none, or says nothing | `SilentNode` |
//! | flushed | | | `SilentNode` |
//!
//! # What can't be known
//! *One failure at a time* is assumed, as in every diagnosis of what can't be looked into: a node whose two paths fell
//! silent together is taken to be down, because the paths share nothing but the node. That is for whoever builds the
//! network to see to. Without a second path no conclusion is about the node itself: a dead node, a dead card and a cut
//! cable look alike, and are all called [`SilentNode`](Conclusion::SilentNode); several nodes without power look like a
//! partition, and that conclusion is about what they share.
//!
//! A second path's own local fault is no evidence, and a second path that was silent before the node was is none.
//!
//! # When it is for good
//! What is not known yet may change a conclusion: a channel that answered shortly before the silence was noticed may be
//! silent as well. [`Reachability::settled`] tells; progress of the other channels, or their failing, settles it, so the
//! time that takes is bounded by how long a READ may take.

use crate::Nanos;
use crate::transport::TransportError;

/// What channels have in common besides the monitor: a switch, a cable, a power supply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathId(pub u32);

/// How a channel failed, and when that was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelFailure {
    /// The first error; those that follow from it say less.
    pub error: TransportError,
    /// When the monitor noticed.
    pub noticed: Nanos,
}

/// What a monitor knows of one of its channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The channel worked at this time or later: the last work that was answered had not been begun before. `None` if
    /// none ever was.
    pub answered: Option<Nanos>,
    /// How it failed; `None` as long as it works.
    pub failure: Option<ChannelFailure>,
}

/// A channel to a node, over the network card with which the monitor watches all nodes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// What it shares with other channels.
    pub path: PathId,
    /// What is known of it.
    pub evidence: Evidence,
}

/// What a second path says of the node's operating system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum System {
    /// Nothing: it only answers, as a management controller does.
    #[default]
    Unknown,
    /// A counter of the operating system was seen to advance, last at this time.
    Moved(Nanos),
    /// It is suspected: its counters stand still behind a channel that works.
    StandsStill,
}

/// A second path to the node, which shares nothing with the first but the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SecondPath {
    /// What is known of its channel.
    pub evidence: Evidence,
    /// What it says of the operating system.
    pub system: System,
}

/// What the silence of a channel means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Conclusion {
    /// The node's memory can be read. Whether the node is well, its counters tell.
    Reachable,
    /// The node's card answers, and refuses: the memory was taken back, or the node started anew.
    Refused,
    /// The monitor's own card, link or uplink. Nobody is accused.
    OwnFault,
    /// The way to the node, or its card; the node lives.
    CardOrPath,
    /// What several nodes share: all of them behind one path fell silent together. No node is accused.
    Partition,
    /// Nothing answers. Node, card or way: without a second path that can't be told.
    SilentNode,
    /// The node is down: no way leads to it any more, or its system stands still as well.
    NodeDown,
}

impl Conclusion {
    /// Every conclusion, in the order of the table.
    pub const ALL: [Conclusion; 7] = [
        Conclusion::Reachable,
        Conclusion::Refused,
        Conclusion::OwnFault,
        Conclusion::CardOrPath,
        Conclusion::Partition,
        Conclusion::SilentNode,
        Conclusion::NodeDown,
    ];

    /// The name used in files.
    pub const fn name(self) -> &'static str {
        match self {
            Conclusion::Reachable => "reachable",
            Conclusion::Refused => "refused",
            Conclusion::OwnFault => "own fault",
            Conclusion::CardOrPath => "card or path",
            Conclusion::Partition => "partition",
            Conclusion::SilentNode => "silent node",
            Conclusion::NodeDown => "node down",
        }
    }

    /// Whether the node itself is said to have failed, so that its sessions may be taken over.
    pub const fn accuses_node(self) -> bool {
        matches!(self, Conclusion::NodeDown)
    }
}

/// A conclusion, and whether it is to be had already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reachability {
    /// What the evidence says as it stands.
    pub conclusion: Conclusion,
    /// Whether nothing that is still to come of what happened can change it.
    pub settled: bool,
}

impl Evidence {
    /// Whether two channels fell silent so that one event may have caused both: each answered when the other's failure
    /// was not noticed yet.
    pub fn silent_together(&self, other: &Evidence) -> bool {
        let before = |one: &Evidence, another: &Evidence| match (one.answered, another.failure) {
            (Some(answered), Some(failure)) => answered <= failure.noticed,
            _ => false,
        };
        before(self, other) && before(other, self)
    }

    /// What this channel says of the silence of `silent`, which was noticed at `noticed`.
    fn says_of(&self, silent: &Evidence, noticed: Nanos) -> Other {
        match (self.answered, self.failure) {
            (Some(answered), _) if answered > noticed => Other::Works,
            (_, None) => Other::NotKnown,
            (_, Some(failure)) if self.silent_together(silent) => match failure.error {
                TransportError::Unreachable => Other::Silent,
                TransportError::LocalFault => Other::OwnFault,
                // A reason of its own, or none that is known.
                TransportError::Refused | TransportError::OutOfBounds | TransportError::Flushed => Other::Nothing,
            },
            _ => Other::Nothing,
        }
    }
}

/// What is to be thought of the node behind channel `node` of `channels`, which are all of the monitor's channels over
/// one of its network cards; by a second path, if there is one. A channel that is not there counts as
/// [`Conclusion::SilentNode`], not settled.
pub fn conclude(node: usize, channels: &[Channel], second: Option<&SecondPath>) -> Reachability {
    let settled = |conclusion| Reachability { conclusion, settled: true };
    let open = |conclusion| Reachability { conclusion, settled: false };
    let Some(own) = channels.get(node) else { return open(Conclusion::SilentNode) };
    let Some(ChannelFailure { error, noticed }) = own.evidence.failure else {
        return settled(Conclusion::Reachable);
    };
    match error {
        TransportError::Refused | TransportError::OutOfBounds => return settled(Conclusion::Refused),
        TransportError::LocalFault => return settled(Conclusion::OwnFault),
        // The consequence of an error that nobody told of.
        TransportError::Flushed => return open(Conclusion::SilentNode),
        TransportError::Unreachable => {}
    }
    let (mut here, mut elsewhere) = (Group::default(), Group::default());
    for (index, channel) in channels.iter().enumerate() {
        if index != node {
            let group = if channel.path == own.path { &mut here } else { &mut elsewhere };
            group.count(channel.evidence.says_of(&own.evidence, noticed));
        }
    }
    if here.own_fault || elsewhere.own_fault {
        return settled(Conclusion::OwnFault);
    }
    let everybody = elsewhere.is_silent() && !here.works && !here.not_known;
    let by_second = second.map_or(Second::SaysNothing, |second| second.says_of(&own.evidence, noticed));
    let conclusion = match by_second {
        _ if everybody => Conclusion::OwnFault,
        Second::NodeIsDown => Conclusion::NodeDown,
        _ if here.is_silent() => Conclusion::Partition,
        Second::NodeLives => Conclusion::CardOrPath,
        Second::SaysNothing | Second::NotYet => Conclusion::SilentNode,
    };
    let is_open = here.not_known || elsewhere.not_known || by_second == Second::NotYet;
    Reachability { conclusion, settled: !is_open }
}

/// What the other channels say of a silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Other {
    /// It answers work that was begun since.
    Works,
    /// It fell silent together with it.
    Silent,
    /// It failed together with it, on the monitor's own side.
    OwnFault,
    /// It has not failed, and did not answer since: the next answer, or its absence, will tell.
    NotKnown,
    /// It had failed before, or failed for a reason of its own.
    Nothing,
}

/// What several channels say together.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    works: bool,
    silent: bool,
    own_fault: bool,
    not_known: bool,
}

impl Group {
    fn count(&mut self, other: Other) {
        match other {
            Other::Works => self.works = true,
            Other::Silent => self.silent = true,
            Other::OwnFault => self.own_fault = true,
            Other::NotKnown => self.not_known = true,
            Other::Nothing => {}
        }
    }

    /// Whether all who say anything are silent. Who may be is not yet.
    fn is_silent(self) -> bool {
        self.silent && !self.works && !self.not_known
    }
}

/// What a second path says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Second {
    NodeLives,
    NodeIsDown,
    /// It will, one or the other.
    NotYet,
    SaysNothing,
}

impl SecondPath {
    fn says_of(&self, silent: &Evidence, noticed: Nanos) -> Second {
        match (self.evidence.says_of(silent, noticed), self.system) {
            (Other::Silent, _) => Second::NodeIsDown,
            (Other::Works, System::Moved(at)) if at > noticed => Second::NodeLives,
            (Other::Works, System::StandsStill) => Second::NodeIsDown,
            (Other::Works, System::Moved(_)) if self.evidence.failure.is_none() => Second::NotYet,
            (Other::NotKnown, _) => Second::NotYet,
            (Other::Works | Other::OwnFault | Other::Nothing, _) => Second::SaysNothing,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
