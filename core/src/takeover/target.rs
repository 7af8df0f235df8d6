//! The target's end: one offer, from its arrival until the session is served here or thrown away.

use super::claim::{Claim, PartyId, Swap};
use super::config::TakeoverConfig;
use super::exchange::{Answer, Offer, TargetAction, TargetInput};
use crate::Nanos;
use crate::transport::TransportError;

/// One offer of a session to this node.
///
/// The target itself swaps the claim word, from the claim under which it was offered the session to its own name. So
/// whether a target ever began to serve can be told from the claim word alone, whoever has died meanwhile; a target that
/// died before can be passed over, and one that is only slow learns that it was.
///
/// Once it has posted the swap, it keeps what it has prepared until it knows what came of it, however long that takes:
/// the session may be its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reinstatement {
    config: TakeoverConfig,
    me: PartyId,
    offer: Offer,
    stage: Stage,
    /// Whether a swap was posted of which it is not known that it did not happen.
    in_doubt: bool,
    deadline: Option<Nanos>,
}

/// Where a reinstatement has got to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// What the session needs is got ready.
    Preparing,
    /// The claim word is being swapped.
    Taking,
    /// The session is this node's.
    Serving,
    /// It is not, and won't be by this offer.
    Discarded,
}

impl Reinstatement {
    /// Takes up `offer` at node `me`. To be given [`start`](Self::start) next.
    pub fn new(config: TakeoverConfig, me: PartyId, offer: Offer) -> Self {
        Reinstatement { config, me, offer, stage: Stage::Preparing, in_doubt: false, deadline: None }
    }

    /// Begins.
    pub fn start(&mut self, actions: &mut Vec<TargetAction>) {
        actions.push(TargetAction::Prepare);
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Nanos, input: TargetInput, actions: &mut Vec<TargetAction>) {
        match (self.stage, input) {
            (Stage::Preparing, TargetInput::Prepared) => {
                self.stage = Stage::Taking;
                self.take(now, actions);
            }
            (Stage::Preparing, TargetInput::CannotPrepare) => self.discard(actions),
            (Stage::Taking, TargetInput::Swapped { swap, result }) if swap == self.swap() => match result {
                Ok(previous) if previous == swap.expected || previous == swap.new => self.serve(actions),
                // The claim it was offered under is gone, and never comes back: no swap of ours can land any more.
                Ok(_) => self.discard(actions),
                Err(TransportError::Refused | TransportError::OutOfBounds) if !self.in_doubt => self.discard(actions),
                Err(_) => {
                    self.in_doubt = true;
                    self.deadline = Some(now + self.config.retry_after);
                }
            },
            (Stage::Taking, TargetInput::Tick) if self.deadline.is_some_and(|deadline| now >= deadline) => {
                self.in_doubt = true;
                self.take(now, actions);
            }
            (Stage::Serving, TargetInput::OfferedAgain) => actions.push(TargetAction::Answer(Answer::Serving)),
            (Stage::Discarded, TargetInput::OfferedAgain) => actions.push(TargetAction::Answer(Answer::Declined)),
            _ => {}
        }
    }

    /// When to call with [`TargetInput::Tick`]; `None` if there is nothing to wait for.
    pub fn deadline(&self) -> Option<Nanos> {
        self.deadline
    }

    /// Where it has got to.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// What is offered.
    pub fn offer(&self) -> Offer {
        self.offer
    }

    fn swap(&self) -> Swap {
        let Offer { by, epoch, seen } = self.offer;
        let [expected, new] =
            [Claim::Fencing { by, epoch }, Claim::Moved { to: self.me, epoch }].map(|claim| claim.word(seen.unclaimed));
        Swap { expected, new }
    }

    fn take(&mut self, now: Nanos, actions: &mut Vec<TargetAction>) {
        actions.push(TargetAction::Swap(self.swap()));
        self.deadline = Some(now + self.config.operation_timeout);
    }

    fn serve(&mut self, actions: &mut Vec<TargetAction>) {
        (self.stage, self.deadline) = (Stage::Serving, None);
        actions.extend([TargetAction::Serve, TargetAction::Answer(Answer::Serving)]);
    }

    fn discard(&mut self, actions: &mut Vec<TargetAction>) {
        (self.stage, self.deadline) = (Stage::Discarded, None);
        actions.extend([TargetAction::Discard, TargetAction::Answer(Answer::Declined)]);
    }
}
