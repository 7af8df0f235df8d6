//! What takers and targets ask of the driver, tell one another, and are told.

use super::claim::{Epoch, PartyId, Swap};
use super::seen::{BoxError, Seen};
use crate::transport::TransportError;

/// What a [`Takeover`](super::Takeover) wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// READ the session's State Box, by an [`Extraction`](crate::recovery::Extraction), and answer with
    /// [`Input::BoxRead`]. The READ must be posted after this. The state that comes back for
    /// [`Purpose::Extract`] is the one to keep, for the offers.
    ReadBox(Look),
    /// Post this compare-and-swap on the session's claim word, and answer with [`Input::Swapped`].
    Swap(Swap),
    /// Have the old owner cut off, for good, and answer with [`Input::Fenced`] when it is. May come again.
    Fence,
    /// Send this to a target, with the state, and pass on its answers as [`Input::Answered`]. May come again.
    Offer {
        /// The target.
        to: PartyId,
        /// The offer.
        offer: Offer,
    },
    /// It is over.
    End(Outcome),
}

/// A READ of the State Box, named by what it is for: what one brought is never taken for what another was to bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Look {
    /// What for.
    pub purpose: Purpose,
    /// In which claim of the taker.
    pub epoch: Epoch,
}

/// What a State Box is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// To find out what to claim.
    Look,
    /// To be sure of what was claimed.
    Verify,
    /// To have the state, from the fenced owner.
    Extract,
}

/// What a [`Takeover`](super::Takeover) is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The monitor suspects the owner again, after it had trusted it.
    Suspected,
    /// The monitor trusts the owner again.
    Trusted,
    /// What came of a compare-and-swap: the word's value before; or that it failed, and may have happened all the same.
    Swapped {
        /// Which one.
        swap: Swap,
        /// The value before.
        result: Result<u64, TransportError>,
    },
    /// What came of reading the State Box.
    BoxRead {
        /// Which READ.
        look: Look,
        /// What it showed.
        result: Result<Seen, BoxError>,
    },
    /// From here on, nothing that the old owner does reaches anybody, and nothing reaches it.
    Fenced,
    /// Whoever was to fence could not; it will be asked again.
    FenceFailed,
    /// A target has answered.
    Answered {
        /// The target.
        by: PartyId,
        /// The offer's epoch.
        epoch: Epoch,
        /// What it said.
        answer: Answer,
    },
    /// Time has passed.
    Tick,
}

/// A session's state is offered to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offer {
    /// Who offers it.
    pub by: PartyId,
    /// The claim under which it was extracted.
    pub epoch: Epoch,
    /// Session, incarnation, version, and the unclaimed value of the claim word that the target is to swap.
    pub seen: Seen,
}

/// A target's answer to an offer. A courtesy: what counts is the claim word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    /// It took the session and serves it.
    Serving,
    /// It did not and will not take the session by this offer.
    Declined,
}

/// How a takeover ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The session is this node's now. If that node has failed since: a takeover of its own, from there.
    Moved {
        /// The new owner.
        to: PartyId,
        /// The offer that it took.
        epoch: Epoch,
    },
    /// The suspicion was wrong, and the old owner may serve on.
    GivenBack,
    /// The old owner is trusted, and nothing of ours is in its way.
    NotNeeded,
    /// The session could not be taken over.
    Abandoned {
        /// Why.
        why: Reason,
        /// Whether the old owner was cut off. If not, and the claim word lets it, it may serve on.
        fenced: bool,
    },
}

/// Why a takeover was abandoned. Another taker, with another way to the memory, may have more success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Reason {
    /// No target was named.
    #[error("there is no node to carry the session on")]
    NoTarget,
    /// The State Box or the claim word could not be reached. Without them there is no takeover.
    #[error("the node's memory is out of reach{}", .0.map_or(String::new(), |error| format!(": {error}")))]
    OutOfReach(Option<TransportError>),
    /// The State Box holds no state of this session that could be carried on.
    #[error(transparent)]
    NoState(BoxError),
    /// The old owner could not be cut off.
    #[error("the old owner could not be fenced")]
    NotFenced,
    /// The claim word says nothing that a taker would write. It may have said that the session has moved.
    #[error("claim word {word:#018x} is damaged")]
    DamagedClaim {
        /// The word.
        word: u64,
    },
    /// The claims on this word have used up their numbers.
    #[error("no epoch is left for another claim")]
    NoEpochLeft,
}

/// What a [`Reinstatement`](super::Reinstatement) wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetAction {
    /// Get everything ready except for being seen: the session's state in a State Box of this node, its connections
    /// rebuilt but silent. Answer with [`TargetInput::Prepared`] or
    /// [`TargetInput::CannotPrepare`].
    Prepare,
    /// Post this compare-and-swap on the claim word *at the old owner's node*, and answer with
    /// [`TargetInput::Swapped`].
    Swap(Swap),
    /// The session is this node's: serve. Take over the address, let the connections speak.
    Serve,
    /// Throw away what was prepared, without a word to the client.
    Discard,
    /// Tell the taker.
    Answer(Answer),
}

/// What a [`Reinstatement`](super::Reinstatement) is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetInput {
    /// Everything is ready.
    Prepared,
    /// The state can't be carried on here.
    CannotPrepare,
    /// What came of a compare-and-swap.
    Swapped {
        /// Which one.
        swap: Swap,
        /// The value before.
        result: Result<u64, TransportError>,
    },
    /// The offer came again.
    OfferedAgain,
    /// Time has passed.
    Tick,
}
