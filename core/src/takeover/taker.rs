//! The taker's end: one session's takeover, from the suspicion until the session is served again.

use std::sync::Arc;

use super::claim::{Claim, Epoch, PartyId, Swap};
use super::config::TakeoverConfig;
use super::exchange::{Action, Answer, Input, Look, Offer, Outcome, Purpose, Reason};
use super::seen::{BoxError, Seen};
use crate::Nanos;
use crate::recovery::StateError;
use crate::state_box::StateBoxError;
use crate::transport::TransportError;

/// The takeover of one session by one taker.
///
/// Actions come out of [`start`](Self::start) and [`handle`](Self::handle), and their results go into `handle`, in any
/// order, late, twice, or never. After each call, [`deadline`](Self::deadline) says when to call with
/// [`Input::Tick`] at the latest.
///
/// ```
/// use backdoor_core::Nanos;
/// use backdoor_core::takeover::{Action, Claim, Epoch, Input, PartyId, Seen, Takeover, TakeoverConfig};
/// let [monitor, target] = [1, 2].map(|number| PartyId::new(number).unwrap());
/// let mut actions = Vec::new();
/// let mut takeover = Takeover::new(TakeoverConfig::default(), monitor, 7, [target], Epoch(0));
///
/// // It looks at the State Box, then tries to claim the session.
/// takeover.start(Nanos::ZERO, &mut actions);
/// let Some(Action::ReadBox(look)) = actions.pop() else { panic!() };
/// let result = Ok(Seen { session: 7, incarnation: 1, unclaimed: 0, sequence: 3 });
/// takeover.handle(Nanos(1), Input::BoxRead { look, result }, &mut actions);
/// let Some(Action::Swap(swap)) = actions.pop() else { panic!() };
/// assert_eq!(swap.expected, 0);
/// assert_eq!(Claim::of_word(swap.new, 0), Ok(Claim::Claimed { by: monitor, epoch: Epoch(1) }));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Takeover {
    config: TakeoverConfig,
    me: PartyId,
    session: u64,
    targets: Arc<[PartyId]>,
    seen: Option<Seen>,
    epoch: Epoch,
    trusted: bool,
    fenced: bool,
    /// How often the session was found in other hands.
    rivals: u32,
    /// Repetitions of this step.
    failures: u32,
    error: Option<TransportError>,
    step: Step,
    deadline: Option<Nanos>,
}

/// Where a takeover has got to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Reads which session the State Box holds, and which value of the claim word means that nobody has claimed it.
    Looking,
    /// Swaps the unclaimed value for its claim.
    Claiming,
    /// Reads the box again: a swap can hit a session that has come after.
    Verifying,
    /// Gives up the way back, by a swap.
    Committing,
    /// Swaps the claim for the unclaimed value; because of this, or because the owner is trusted again.
    GivingBack(Option<Reason>),
    /// Has the old owner cut off.
    Fencing,
    /// Reads the state.
    Extracting,
    /// A target has the state and is to take the session.
    Offering {
        /// Its place among the targets.
        target: usize,
        /// What is being waited for.
        stage: Offering,
    },
    /// The session is in other hands, or the claim was given back by others.
    Waiting {
        /// The claim word as it was found.
        word: u64,
    },
    /// The other taker has not moved for too long: its claim is swapped for one of ours.
    Superseding {
        /// The claim word as it was found.
        word: u64,
    },
    /// The end.
    Over(Outcome),
}

/// What a taker that has made an offer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Offering {
    /// The target's answer.
    Asked,
    /// The claim word: nobody is believed but it.
    Checking,
    /// A while, because every target has been asked.
    Resting,
}

impl Takeover {
    /// A takeover of `session` by `me`, onto one of `targets`, asked in that order. Its claims are above `after`, which
    /// is the [epoch](Self::epoch) of this taker's takeover of the session before, or nothing.
    pub fn new(
        config: TakeoverConfig,
        me: PartyId,
        session: u64,
        targets: impl Into<Arc<[PartyId]>>,
        after: Epoch,
    ) -> Self {
        Takeover {
            config,
            me,
            session,
            targets: targets.into(),
            seen: None,
            epoch: after,
            trusted: false,
            fenced: false,
            rivals: 0,
            failures: 0,
            error: None,
            step: Step::Looking,
            deadline: None,
        }
    }

    /// Begins.
    pub fn start(&mut self, now: Nanos, actions: &mut Vec<Action>) {
        let step = if self.targets.is_empty() { self.abandoned(Reason::NoTarget) } else { Step::Looking };
        self.enter(now, step, actions);
    }

    /// Names other targets, for who is to be asked may depend on what only the State Box tells. An offer whose answer is
    /// awaited, or that was about to be repeated, is made to the first of them. Without any, all stays as it was.
    ///
    /// Whoever was offered the session before may still take it, and the claim word tells.
    pub fn aim(&mut self, now: Nanos, targets: impl Into<Arc<[PartyId]>>, actions: &mut Vec<Action>) {
        let targets = targets.into();
        if targets.is_empty() {
            return;
        }
        self.targets = targets;
        if let Step::Offering { stage: Offering::Asked | Offering::Resting, .. } = self.step {
            self.enter(now, Step::Offering { target: 0, stage: Offering::Asked }, actions);
        }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Nanos, input: Input, actions: &mut Vec<Action>) {
        match input {
            Input::Suspected => self.trusted = false,
            Input::Trusted => self.trust(now, actions),
            Input::Swapped { swap, result } if self.swap() == Some(swap) => match result {
                Ok(previous) => self.swapped(now, swap, previous, actions),
                Err(error) => self.operation_failed(now, error, actions),
            },
            Input::BoxRead { look, result } if self.look() == Some(look) => self.box_read(now, result, actions),
            Input::Fenced if self.step == Step::Fencing => {
                self.fenced = true;
                self.enter(now, Step::Extracting, actions);
            }
            Input::FenceFailed if self.step == Step::Fencing => self.retry_later(now),
            Input::Answered { by, epoch, answer } => self.answered(now, by, epoch, answer, actions),
            Input::Tick if self.deadline.is_some_and(|deadline| now >= deadline) => self.tick(now, actions),
            // Late, of a step that is over, or of none.
            Input::Swapped { .. } | Input::BoxRead { .. } | Input::Fenced | Input::FenceFailed | Input::Tick => {}
        }
    }

    /// When to call with [`Input::Tick`]; `None` once the takeover is over.
    pub fn deadline(&self) -> Option<Nanos> {
        self.deadline
    }

    /// Where it has got to.
    pub fn step(&self) -> Step {
        self.step
    }

    /// How it ended, if it has.
    pub fn outcome(&self) -> Option<Outcome> {
        if let Step::Over(outcome) = self.step { Some(outcome) } else { None }
    }

    /// Its last claim.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What it saw of the State Box last.
    pub fn seen(&self) -> Option<&Seen> {
        self.seen.as_ref()
    }

    /// The taker.
    pub fn taker(&self) -> PartyId {
        self.me
    }

    /// The session.
    pub fn session(&self) -> u64 {
        self.session
    }

    fn unclaimed(&self) -> u64 {
        self.seen.map_or(0, |seen| seen.unclaimed)
    }

    fn claimed_word(&self) -> u64 {
        Claim::Claimed { by: self.me, epoch: self.epoch }.word(self.unclaimed())
    }

    fn fencing_word(&self) -> u64 {
        Claim::Fencing { by: self.me, epoch: self.epoch }.word(self.unclaimed())
    }

    /// The swap that this step waits for.
    fn swap(&self) -> Option<Swap> {
        let (unclaimed, claimed, fencing) = (self.unclaimed(), self.claimed_word(), self.fencing_word());
        let (expected, new) = match self.step {
            Step::Claiming => (unclaimed, claimed),
            Step::Committing => (claimed, fencing),
            Step::GivingBack(_) => (claimed, unclaimed),
            Step::Superseding { word } => (word, if self.is_fencing(word) { fencing } else { claimed }),
            Step::Offering { stage: Offering::Checking, .. } => (fencing, fencing),
            _ => return None,
        };
        Some(Swap { expected, new })
    }

    fn is_fencing(&self, word: u64) -> bool {
        matches!(Claim::of_word(word, self.unclaimed()), Ok(Claim::Fencing { .. }))
    }

    /// The READ that this step waits for.
    fn look(&self) -> Option<Look> {
        let purpose = match self.step {
            Step::Looking => Purpose::Look,
            Step::Verifying => Purpose::Verify,
            Step::Extracting => Purpose::Extract,
            _ => return None,
        };
        Some(Look { purpose, epoch: self.epoch })
    }

    fn enter(&mut self, now: Nanos, step: Step, actions: &mut Vec<Action>) {
        self.step = step;
        self.failures = 0;
        self.error = None;
        self.act(now, actions);
    }

    /// What the step asks for, for the first time or again.
    fn act(&mut self, now: Nanos, actions: &mut Vec<Action>) {
        let config = &self.config;
        let (action, time) = match self.step {
            Step::Looking | Step::Verifying | Step::Extracting => {
                (self.look().map(Action::ReadBox), config.operation_timeout)
            }
            Step::Claiming
            | Step::Committing
            | Step::GivingBack(_)
            | Step::Superseding { .. }
            | Step::Offering { stage: Offering::Checking, .. } => {
                (self.swap().map(Action::Swap), config.operation_timeout)
            }
            Step::Fencing => (Some(Action::Fence), config.fence_timeout),
            Step::Offering { target, stage: Offering::Asked } => (self.offer(target), config.offer_timeout),
            Step::Offering { stage: Offering::Resting, .. } => (None, config.retry_after),
            Step::Waiting { .. } => (None, config.patience * (1 << self.rivals.min(MAX_DOUBLINGS))),
            Step::Over(outcome) => {
                actions.push(Action::End(outcome));
                self.deadline = None;
                return;
            }
        };
        actions.extend(action);
        self.deadline = Some(now + time);
    }

    fn offer(&self, target: usize) -> Option<Action> {
        let to = *self.targets.get(target)?;
        Some(Action::Offer { to, offer: Offer { by: self.me, epoch: self.epoch, seen: self.seen? } })
    }

    fn tick(&mut self, now: Nanos, actions: &mut Vec<Action>) {
        match self.step {
            Step::Waiting { word } if word != self.unclaimed() => match Claim::epoch_of(word).max(self.epoch).next() {
                Some(epoch) => {
                    self.epoch = epoch;
                    self.enter(now, Step::Superseding { word }, actions);
                }
                None => self.enter(now, self.abandoned(Reason::NoEpochLeft), actions),
            },
            Step::Waiting { .. } if self.trusted => self.enter(now, Step::Over(Outcome::NotNeeded), actions),
            Step::Waiting { .. } => self.enter(now, Step::Looking, actions),
            Step::Offering { target, stage: Offering::Asked } => {
                self.enter(now, Step::Offering { target, stage: Offering::Checking }, actions);
            }
            Step::Offering { target, stage: Offering::Resting } => {
                self.enter(now, Step::Offering { target, stage: Offering::Asked }, actions);
            }
            _ => self.try_again(now, actions),
        }
    }

    fn try_again(&mut self, now: Nanos, actions: &mut Vec<Action>) {
        self.failures += 1;
        if self.failures < self.config.attempts.max(1) {
            return self.act(now, actions);
        }
        let why = match self.step {
            Step::Fencing => Reason::NotFenced,
            _ => Reason::OutOfReach(self.error),
        };
        self.enter(now, self.abandoned(why), actions);
    }

    fn retry_later(&mut self, now: Nanos) {
        self.deadline = Some(now + self.config.retry_after);
    }

    fn operation_failed(&mut self, now: Nanos, error: TransportError, actions: &mut Vec<Action>) {
        self.error = Some(error);
        match error {
            // What has no right now won't have it in a moment.
            TransportError::Refused | TransportError::OutOfBounds => {
                self.enter(now, self.abandoned(Reason::OutOfReach(Some(error))), actions);
            }
            // It may have happened, or happen yet: the same again finds out.
            TransportError::Unreachable | TransportError::Flushed | TransportError::LocalFault => {
                self.retry_later(now);
            }
        }
    }

    fn trust(&mut self, now: Nanos, actions: &mut Vec<Action>) {
        self.trusted = true;
        match self.step {
            Step::Looking => self.enter(now, Step::Over(Outcome::NotNeeded), actions),
            Step::Verifying => self.enter(now, Step::GivingBack(None), actions),
            // A swap is under way, or nothing is: to be seen when its result, or patience's end, is there. From the
            // fencing on there is no way back.
            _ => {}
        }
    }

    /// The answer to this step's swap: what the word held before.
    fn swapped(&mut self, now: Nanos, swap: Swap, previous: u64, actions: &mut Vec<Action>) {
        // What it holds now, as far as this swap tells: ours by this swap, or by one posted earlier for this step.
        let done = previous == swap.expected || previous == swap.new;
        let next = match self.step {
            Step::Claiming if done => self.claimed(),
            Step::Superseding { word } if done => {
                if self.is_fencing(word) {
                    Step::Fencing
                } else {
                    self.claimed()
                }
            }
            Step::Committing if done => Step::Fencing,
            Step::GivingBack(None) if done && self.trusted => Step::Over(Outcome::GivenBack),
            // Suspected again meanwhile.
            Step::GivingBack(None) if done => Step::Looking,
            Step::GivingBack(Some(why)) if done => self.abandoned(why),
            Step::Offering { target, stage: Offering::Checking } if done => self.next_target(target),
            _ => self.found(previous),
        };
        self.enter(now, next, actions);
    }

    /// The session is claimed, and can be given back.
    fn claimed(&self) -> Step {
        if self.trusted { Step::GivingBack(None) } else { Step::Verifying }
    }

    fn next_target(&self, target: usize) -> Step {
        match target + 1 {
            next if next < self.targets.len() => Step::Offering { target: next, stage: Offering::Asked },
            _ => Step::Offering { target: 0, stage: Offering::Resting },
        }
    }

    /// What to do about a claim word that is not as it was left.
    fn found(&mut self, word: u64) -> Step {
        match Claim::of_word(word, self.unclaimed()) {
            Ok(Claim::Moved { to, epoch }) => Step::Over(Outcome::Moved { to, epoch }),
            // A swap of ours that had been given up has landed.
            Ok(Claim::Claimed { by, epoch }) if (by, epoch) == (self.me, self.epoch) => self.claimed(),
            Ok(Claim::Fencing { by, epoch }) if (by, epoch) == (self.me, self.epoch) => Step::Fencing,
            Ok(Claim::Unclaimed | Claim::Claimed { .. } | Claim::Fencing { .. }) => {
                self.rivals = self.rivals.saturating_add(1).min(MAX_DOUBLINGS);
                Step::Waiting { word }
            }
            Err(_) => self.abandoned(Reason::DamagedClaim { word }),
        }
    }

    fn box_read(&mut self, now: Nanos, result: Result<Seen, BoxError>, actions: &mut Vec<Action>) {
        let result = result.and_then(|found| {
            let before = self.seen.filter(|_| self.step != Step::Looking);
            before.map_or(Ok(()), |before| before.goes_on_as(&found))?;
            if found.session == self.session { Ok(found) } else { Err(BoxError::Ended) }
        });
        let next = match (self.step, result) {
            (_, Err(BoxError::State(StateError::Transport(error)))) => {
                return self.operation_failed(now, error, actions);
            }
            // Its writer may still be at it.
            (_, Err(BoxError::State(StateError::StateBox(StateBoxError::NoWholeVersion { .. }))))
                if self.failures + 1 < self.config.attempts =>
            {
                return self.retry_later(now);
            }
            (Step::Looking, Ok(seen)) => match Claim::epoch_of(seen.unclaimed).max(self.epoch).next() {
                Some(epoch) => {
                    (self.seen, self.epoch) = (Some(seen), epoch);
                    Step::Claiming
                }
                None => self.abandoned(Reason::NoEpochLeft),
            },
            (Step::Verifying, Ok(seen)) => {
                self.seen = Some(seen);
                Step::Committing
            }
            (_, Ok(seen)) => {
                self.seen = Some(seen);
                Step::Offering { target: 0, stage: Offering::Asked }
            }
            // Nothing that could be carried on is there: the owner, if it lives, is better off without us.
            (Step::Verifying, Err(error)) => Step::GivingBack(Some(Reason::NoState(error))),
            (_, Err(error)) => self.abandoned(Reason::NoState(error)),
        };
        self.enter(now, next, actions);
    }

    fn answered(&mut self, now: Nanos, by: PartyId, epoch: Epoch, answer: Answer, actions: &mut Vec<Action>) {
        let Step::Offering { target, stage } = self.step else { return };
        let asked = self.targets.get(target) == Some(&by) && stage == Offering::Asked;
        // Whoever serves is asked about at the claim word, were it one asked earlier; a refusal counts while it is awaited.
        let relevant = answer == Answer::Serving && stage != Offering::Checking || asked;
        if relevant && epoch == self.epoch {
            self.enter(now, Step::Offering { target, stage: Offering::Checking }, actions);
        }
    }

    fn abandoned(&self, why: Reason) -> Step {
        Step::Over(Outcome::Abandoned { why, fenced: self.fenced })
    }
}

/// Patience doubles this often at most.
const MAX_DOUBLINGS: u32 = 5;
