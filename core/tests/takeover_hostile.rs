//! Takers and targets under hostile inputs: forged claim words, results in any order, late, twice, of nothing that was
//! asked. Nothing of it panics, leads past a step's own evidence, or keeps a takeover from being driven on.

use backdoor_core::Nanos;
use backdoor_core::recovery::StateError;
use backdoor_core::state_box::StateBoxError;
use backdoor_core::takeover::{
    Action, Answer, BoxError, Claim, Epoch, Input, Look, Offer, Outcome, PartyId, Purpose, Reason, Reinstatement, Seen,
    Stage, Step, Swap, Takeover, TakeoverConfig, TargetAction, TargetInput,
};
use backdoor_core::transport::TransportError;
use proptest::prelude::*;

const SEEN: Seen = Seen { session: 7, incarnation: 1, unclaimed: 3, sequence: 5 };

fn party(number: u32) -> PartyId {
    PartyId::new(number).unwrap()
}

/// What the world answers: to the last thing asked, to something asked earlier, or unasked.
#[derive(Clone, Debug)]
enum Reply {
    /// To the n-th last request, as it should be.
    Right(usize),
    /// To the n-th last request, that the claim word held this.
    Word(usize, u64),
    /// To the n-th last request, a failure.
    Failed(usize, TransportError),
    /// To the n-th last READ, this.
    Box(usize, Result<Seen, BoxError>),
    Fenced,
    FenceFailed,
    Trusted,
    Suspected,
    Answered(u32, u32, bool),
    Later(u64),
}

fn any_word() -> impl Strategy<Value = u64> {
    let claim = (0u32..4, 0u32..4, prop_oneof![0u32..6, Just(u32::MAX)]).prop_map(|(phase, by, epoch)| {
        let (by, epoch) = (party(by), Epoch(epoch));
        match phase {
            0 => Claim::Unclaimed,
            1 => Claim::Claimed { by, epoch },
            2 => Claim::Fencing { by, epoch },
            _ => Claim::Moved { to: by, epoch },
        }
        .word(SEEN.unclaimed)
    });
    prop_oneof![4 => claim, 1 => any::<u64>()]
}

fn any_error() -> impl Strategy<Value = TransportError> {
    use TransportError::*;
    prop_oneof![Just(Flushed), Just(Unreachable), Just(LocalFault), Just(Refused), Just(OutOfBounds)]
}

fn any_box() -> impl Strategy<Value = Result<Seen, BoxError>> {
    let torn = StateError::StateBox(StateBoxError::NoWholeVersion { commit: 1 });
    let seen = (6u64..9, 1u64..3, any_word(), 4u64..7).prop_map(|(session, incarnation, unclaimed, sequence)| Seen {
        session,
        incarnation,
        unclaimed,
        sequence,
    });
    prop_oneof![
        seen.prop_map(Ok),
        any_error().prop_map(|error| Err(BoxError::State(StateError::Transport(error)))),
        Just(Err(BoxError::State(torn))),
        Just(Err(BoxError::Channels("gap"))),
    ]
}

fn any_reply() -> impl Strategy<Value = Reply> {
    let back = prop_oneof![4 => Just(0usize), 1 => 0usize..6];
    prop_oneof![
        12 => back.clone().prop_map(Reply::Right),
        3 => (back.clone(), any_word()).prop_map(|(back, word)| Reply::Word(back, word)),
        1 => (back.clone(), any_error()).prop_map(|(back, error)| Reply::Failed(back, error)),
        1 => (back, any_box()).prop_map(|(back, seen)| Reply::Box(back, seen)),
        4 => Just(Reply::Fenced),
        1 => Just(Reply::FenceFailed),
        1 => Just(Reply::Trusted),
        1 => Just(Reply::Suspected),
        1 => (0u32..4, 0u32..6, any::<bool>()).prop_map(|(by, epoch, serving)| Reply::Answered(by, epoch, serving)),
        3 => (0u64..5_000_000_000).prop_map(Reply::Later),
    ]
}

fn nth_last<T: Copy>(all: &[T], back: usize) -> Option<T> {
    all.len().checked_sub(back + 1).map(|at| all[at])
}

/// Everything that was asked for so far, and what it allows to say of the takeover.
#[derive(Default)]
struct Asked {
    swaps: Vec<Swap>,
    looks: Vec<Look>,
    fences: usize,
    confirmed: bool,
    offers: usize,
    ends: Vec<Outcome>,
}

impl Asked {
    fn input(&self, reply: &Reply, now: &mut Nanos) -> Option<Input> {
        let swapped = |back, result: fn(Swap) -> u64| {
            nth_last(&self.swaps, back).map(|swap| Input::Swapped { swap, result: Ok(result(swap)) })
        };
        match *reply {
            Reply::Right(back) if self.looks.len() > self.swaps.len() + usize::from(back > 0) => {
                nth_last(&self.looks, back).map(|look| Input::BoxRead { look, result: Ok(SEEN) })
            }
            Reply::Right(back) => swapped(back, |swap| swap.expected),
            Reply::Word(back, word) => {
                nth_last(&self.swaps, back).map(|swap| Input::Swapped { swap, result: Ok(word) })
            }
            Reply::Failed(back, error) => {
                nth_last(&self.swaps, back).map(|swap| Input::Swapped { swap, result: Err(error) })
            }
            Reply::Box(back, result) => nth_last(&self.looks, back).map(|look| Input::BoxRead { look, result }),
            Reply::Fenced => Some(Input::Fenced),
            Reply::FenceFailed => Some(Input::FenceFailed),
            Reply::Trusted => Some(Input::Trusted),
            Reply::Suspected => Some(Input::Suspected),
            Reply::Answered(by, epoch, serving) => {
                let answer = if serving { Answer::Serving } else { Answer::Declined };
                Some(Input::Answered { by: party(by), epoch: Epoch(epoch), answer })
            }
            Reply::Later(span) => {
                *now += Nanos(span);
                Some(Input::Tick)
            }
        }
    }

    fn note(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Swap(swap) => self.swaps.push(swap),
                Action::ReadBox(look) => self.looks.push(look),
                Action::Fence => self.fences += 1,
                Action::Offer { offer, .. } => {
                    assert!(self.confirmed, "a state was offered before the fence was confirmed");
                    assert_eq!((offer.seen.session, offer.by), (7, party(1)));
                    self.offers += 1;
                }
                Action::End(outcome) => self.ends.push(outcome),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_a_taker_is_told_it_keeps_its_order(replies in proptest::collection::vec(any_reply(), 1..80)) {
        let targets = vec![party(2), party(3)];
        let mut takeover = Takeover::new(TakeoverConfig::default(), party(1), 7, targets, Epoch(0));
        let (mut now, mut asked, mut actions) = (Nanos::ZERO, Asked::default(), Vec::new());
        takeover.start(now, &mut actions);
        asked.note(std::mem::take(&mut actions));
        for reply in &replies {
            let Some(input) = asked.input(reply, &mut now) else { continue };
            let (step, epoch) = (takeover.step(), takeover.epoch());
            takeover.handle(now, input, &mut actions);
            asked.confirmed |= step == Step::Fencing && input == Input::Fenced;
            prop_assert!(actions.len() <= 1, "{actions:?}");
            prop_assert!(takeover.epoch() >= epoch, "an epoch came again");
            // Only the claim is given back, never a fence.
            for action in &actions {
                let Action::Swap(swap) = action else { continue };
                let unclaimed = takeover.seen().unwrap().unclaimed;
                if swap.new == unclaimed && swap.expected != unclaimed {
                    let claimed = Claim::Claimed { by: party(1), epoch: takeover.epoch() };
                    prop_assert_eq!(Claim::of_word(swap.expected, unclaimed), Ok(claimed));
                }
            }
            prop_assert_eq!(takeover.outcome().is_none(), takeover.deadline().is_some());
            asked.note(std::mem::take(&mut actions));
            prop_assert!(asked.offers == 0 || asked.fences > 0);
            prop_assert_eq!(asked.ends.len(), usize::from(takeover.outcome().is_some()), "it ends once");
        }
    }

    /// Any prefix of chaos, then silence: time alone brings it to an end, or to where it waits for targets or a rival.
    #[test]
    fn left_alone_it_gives_up_or_goes_on_asking(replies in proptest::collection::vec(any_reply(), 1..40)) {
        let mut takeover = Takeover::new(TakeoverConfig::default(), party(1), 7, vec![party(2)], Epoch(0));
        let (mut now, mut asked, mut actions) = (Nanos::ZERO, Asked::default(), Vec::new());
        takeover.start(now, &mut actions);
        asked.note(std::mem::take(&mut actions));
        for reply in &replies {
            let Some(input) = asked.input(reply, &mut now) else { continue };
            takeover.handle(now, input, &mut actions);
            asked.confirmed |= asked.fences > 0 && input == Input::Fenced;
            asked.note(std::mem::take(&mut actions));
        }
        for _ in 0..1000 {
            let Some(deadline) = takeover.deadline() else { break };
            prop_assert!(deadline > now || now == deadline);
            now = deadline;
            takeover.handle(now, Input::Tick, &mut actions);
            asked.note(std::mem::take(&mut actions));
        }
        prop_assert!(takeover.outcome().is_some(), "{:?}", takeover.step());
    }

    #[test]
    fn a_target_serves_by_its_own_swap_only(
        words in proptest::collection::vec((0u8..6, any_word(), any_error()), 1..40),
    ) {
        let offer = Offer { by: party(1), epoch: Epoch(4), seen: SEEN };
        let expected = Claim::Fencing { by: party(1), epoch: Epoch(4) }.word(SEEN.unclaimed);
        let mine = Claim::Moved { to: party(2), epoch: Epoch(4) }.word(SEEN.unclaimed);
        let mut target = Reinstatement::new(TakeoverConfig::default(), party(2), offer);
        let (mut now, mut actions, mut serves, mut evidence) = (Nanos::ZERO, Vec::new(), 0, false);
        target.start(&mut actions);
        for (kind, word, error) in words {
            let swap = Swap { expected, new: mine };
            let other = Swap { expected: word, new: mine };
            let input = match kind {
                0 => TargetInput::Prepared,
                1 => TargetInput::Swapped { swap, result: Ok(word) },
                2 => TargetInput::Swapped { swap, result: Err(error) },
                3 => TargetInput::Swapped { swap: other, result: Ok(word) },
                4 => TargetInput::OfferedAgain,
                _ => TargetInput::Tick,
            };
            now = target.deadline().unwrap_or(now);
            let taking = target.stage() == Stage::Taking;
            evidence |= taking && kind == 1 && (word == expected || word == mine)
                || taking && kind == 3 && other == swap;
            target.handle(now, input, &mut actions);
            serves += actions.drain(..).filter(|action| *action == TargetAction::Serve).count();
            prop_assert_eq!(target.stage() == Stage::Serving, evidence);
        }
        prop_assert_eq!(serves, usize::from(evidence), "it begins to serve once");
    }
}

/// Drives a takeover by the answers that a healthy world gives, up to `until`.
fn drive(until: impl Fn(Step) -> bool) -> (Takeover, Vec<Action>) {
    let mut takeover = Takeover::new(TakeoverConfig::default(), party(1), 7, vec![party(2)], Epoch(0));
    let mut actions = Vec::new();
    takeover.start(Nanos::ZERO, &mut actions);
    while !until(takeover.step()) {
        let input = match actions.pop().expect("it asks for something in each step") {
            Action::ReadBox(look) => Input::BoxRead { look, result: Ok(SEEN) },
            Action::Swap(swap) => Input::Swapped { swap, result: Ok(swap.expected) },
            Action::Fence => Input::Fenced,
            other => panic!("{other:?} before the step was reached"),
        };
        takeover.handle(Nanos::ZERO, input, &mut actions);
    }
    (takeover, actions)
}

fn told(mut takeover: Takeover, inputs: &[Input]) -> (Takeover, Vec<Action>) {
    let mut actions = Vec::new();
    for input in inputs {
        takeover.handle(Nanos::ZERO, *input, &mut actions);
    }
    (takeover, actions)
}

#[test]
fn a_claim_that_hit_another_session_is_given_back() {
    let (takeover, actions) = drive(|step| step == Step::Verifying);
    let Some(Action::ReadBox(look)) = actions.last() else { panic!("{actions:?}") };
    let result = Ok(Seen { incarnation: 2, ..SEEN });
    let (takeover, actions) = told(takeover, &[Input::BoxRead { look: *look, result }]);
    let Some(Action::Swap(swap)) = actions.last() else { panic!("{actions:?}") };
    assert_eq!(swap.new, SEEN.unclaimed);
    let (takeover, _) = told(takeover, &[Input::Swapped { swap: *swap, result: Ok(swap.expected) }]);
    let why = Reason::NoState(BoxError::Ended);
    assert_eq!(takeover.outcome(), Some(Outcome::Abandoned { why, fenced: false }));
}

#[test]
fn trust_before_the_fence_gives_back_and_after_it_changes_nothing() {
    let (takeover, _) = told(drive(|step| step == Step::Verifying).0, &[Input::Trusted]);
    assert_eq!(takeover.step(), Step::GivingBack(None));
    let (takeover, actions) = told(drive(|step| step == Step::Fencing).0, &[Input::Trusted, Input::Fenced]);
    assert_eq!(takeover.step(), Step::Extracting);
    assert!(matches!(actions[..], [Action::ReadBox(Look { purpose: Purpose::Extract, .. })]), "{actions:?}");
}

#[test]
fn an_older_version_or_no_state_after_the_fence_ends_it_and_says_so() {
    let older = BoxError::OlderThanBefore { before: 5, found: 4 };
    for (result, why) in
        [(Ok(Seen { sequence: 4, ..SEEN }), older), (Err(BoxError::Channels("gap")), BoxError::Channels("gap"))]
    {
        let (takeover, actions) = drive(|step| step == Step::Extracting);
        let Some(Action::ReadBox(look)) = actions.last() else { panic!("{actions:?}") };
        let (takeover, _) = told(takeover, &[Input::BoxRead { look: *look, result }]);
        let expected = Outcome::Abandoned { why: Reason::NoState(why), fenced: true };
        assert_eq!(takeover.outcome(), Some(expected));
    }
}

#[test]
fn without_targets_nothing_is_touched() {
    let mut takeover = Takeover::new(TakeoverConfig::default(), party(1), 7, Vec::new(), Epoch(0));
    let mut actions = Vec::new();
    takeover.start(Nanos::ZERO, &mut actions);
    assert_eq!(actions, [Action::End(Outcome::Abandoned { why: Reason::NoTarget, fenced: false })]);
}

#[test]
fn a_target_that_cannot_says_so_and_the_next_is_asked() {
    let mut takeover = Takeover::new(TakeoverConfig::default(), party(1), 7, vec![party(2), party(3)], Epoch(0));
    let mut actions = Vec::new();
    takeover.start(Nanos::ZERO, &mut actions);
    let mut asked = Vec::new();
    while asked.len() < 3 {
        let input = match actions.pop() {
            Some(Action::ReadBox(look)) => Input::BoxRead { look, result: Ok(SEEN) },
            Some(Action::Swap(swap)) => Input::Swapped { swap, result: Ok(swap.expected) },
            Some(Action::Fence) => Input::Fenced,
            Some(Action::Offer { to, offer }) => {
                asked.push(to);
                Input::Answered { by: to, epoch: offer.epoch, answer: Answer::Declined }
            }
            Some(Action::End(outcome)) => panic!("{outcome:?}"),
            None => Input::Tick,
        };
        takeover.handle(takeover.deadline().unwrap(), input, &mut actions);
    }
    assert_eq!(asked, [party(2), party(3), party(2)]);
}

#[test]
fn whom_it_is_aimed_at_is_asked_next_and_nobody_else_is_believed() {
    let (mut takeover, mut actions) = drive(|step| matches!(step, Step::Offering { .. }));
    let Some(Action::Offer { to, offer }) = actions.pop() else { panic!("{actions:?}") };
    assert_eq!(to, party(2));
    takeover.aim(Nanos(5), [], &mut actions);
    assert_eq!(actions, []);
    takeover.aim(Nanos(5), [party(4), party(5)], &mut actions);
    assert_eq!(actions, [Action::Offer { to: party(4), offer }]);
    assert_eq!(takeover.deadline(), Some(Nanos(5) + TakeoverConfig::default().offer_timeout));
    // It is not asked any more; whoever serves is asked about all the same.
    let answered = |by, answer| Input::Answered { by, epoch: offer.epoch, answer };
    let (takeover, asked) = told(takeover, &[answered(party(2), Answer::Declined)]);
    assert_eq!(asked, []);
    let (takeover, asked) = told(takeover, &[answered(party(4), Answer::Declined)]);
    let [Action::Swap(swap)] = asked[..] else { panic!("{asked:?}") };
    let (mut takeover, asked) = told(takeover, &[Input::Swapped { swap, result: Ok(swap.expected) }]);
    assert_eq!(asked, [Action::Offer { to: party(5), offer }]);
    // One that is aimed elsewhere while it looks at the claim word looks first.
    takeover.handle(takeover.deadline().unwrap(), Input::Tick, &mut actions);
    let before = takeover.step();
    actions.clear();
    takeover.aim(Nanos(9), [party(6)], &mut actions);
    assert_eq!((takeover.step(), actions), (before, vec![]));
}
