//! Sessions carried on elsewhere by [`Takeover`] and [`Reinstatement`], in virtual time.
//!
//! ```text
//!  taker ── READs (State Boxes) ──┐                    ┌── swap ── target: run queue
//!        ── swaps (claim words) ──┴─▶ node's card ◀────┘               ▲
//!        ── fence: confirmed after a delay of its own                   │
//!        ── question to the node's agent, for each session, before its state is read for good
//!        ── offers, with the state, over a connection ─────────────────┘
//! ```
//!
//! Three connections to the node's simulated card: the taker's for READs and for swaps, the targets' for swaps. What
//! taker and target say to each other goes over TCP; a state takes as long to send as the taker's card needs to move its
//! words. To the protocol this adds when things happen, and nothing else.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use backdoor_core::Nanos;
use backdoor_core::progress_box::FailureLevel;
use backdoor_core::recovery::policy::{Room, spread};
use backdoor_core::recovery::{Extraction, ExtractionStats, SessionState, SessionToRecover, StateError};
use backdoor_core::takeover::{
    Action, Answer, BoxError, Epoch, Input, Look, Offer, Outcome, PartyId, Purpose, Reason, Reinstatement, Seen, Stage,
    Takeover, TargetAction, TargetInput,
};
use backdoor_core::transport::{ChannelState, RemoteSlice, Transport};
use backdoor_transports::sim_nic::SimChannel;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::swaps::{Swapped, Swaps};
use super::target::Target;
use super::{RecoveryOptions, is_intact};
use crate::cluster::node::Node;
use crate::cluster::path::RandomPath;
use crate::cluster::wire::Wire;
use crate::dist::Dist;
use crate::streams::Streams;

/// Words of an offer besides the state, and of an answer.
const HEAD_WORDS: u64 = 16;
/// The parties of a takeover: the taker, and the first of the targets.
const TAKER: u32 = 1;
const TARGETS: u32 = 2;

/// When a session got how far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks {
    /// The claim can't be given back any more: the fence is asked for.
    pub(super) claimed: Option<Nanos>,
    pub(super) fenced: Option<Nanos>,
    /// Its state is with the taker.
    pub(super) extracted: Option<Nanos>,
    /// The target has everything ready.
    pub(super) prepared: Option<Nanos>,
    /// It is the target's.
    pub(super) restored: Option<Nanos>,
    /// Its first request there is answered.
    pub(super) served: Option<Nanos>,
}

/// A session that is taken over.
pub(super) struct Rescued {
    pub(super) session: SessionToRecover,
    takeover: Takeover,
    /// Of each target that it was offered to: one that was passed over, because it is slow, does not know that.
    reinstatements: BTreeMap<usize, Reinstatement>,
    /// The READ that is under way, and one that is to follow.
    looking: Option<Look>,
    next_look: Option<Look>,
    /// Whether the state that was extracted is what was committed last, and its bytes.
    pub(super) state: Option<(bool, u64)>,
    pub(super) marks: Marks,
}

impl Rescued {
    /// Why there is no state to carry on, if that is how it ended.
    pub(super) fn error(&self) -> Option<StateError> {
        match self.takeover.outcome() {
            Some(Outcome::Abandoned { why: Reason::NoState(BoxError::State(error)), .. }) => Some(error),
            _ => None,
        }
    }

    fn is_done(&self) -> bool {
        let serving = self.reinstatements.values().any(|reinstatement| reinstatement.stage() == Stage::Serving);
        self.takeover.outcome().is_some() && (!serving || self.marks.served.is_some())
    }
}

/// What arrives, or is confirmed, after a while.
#[derive(Clone, Copy, Debug)]
enum Delivery {
    Fenced,
    /// What the failed node's kernel holds of the session's connection.
    Told,
    /// To this target.
    Offer {
        target: usize,
        offer: Offer,
    },
    /// Of the target that was offered it.
    Answer {
        target: usize,
        epoch: Epoch,
        answer: Answer,
    },
}

/// Where the node's State Boxes and claim words are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hooks {
    pub(super) states: RemoteSlice,
    pub(super) claims: RemoteSlice,
}

/// What a takeover needs.
pub(super) struct Surroundings {
    pub(super) hooks: Hooks,
    /// Connections to the node: of the taker for READs and for swaps, of all targets for swaps.
    pub(super) channels: [SimChannel<RandomPath>; 3],
    /// From taker to targets: they share the taker's link.
    pub(super) offers: Wire,
    pub(super) targets: Vec<Target>,
    /// Of the first request.
    pub(super) service_work: Dist,
}

/// The takeover of some sessions of one node.
pub(super) struct Rescue {
    rescued: Vec<Rescued>,
    /// Session number to place in `rescued`.
    places: BTreeMap<u64, usize>,
    states: SimChannel<RandomPath>,
    extraction: Extraction,
    taker_swaps: Swaps,
    target_swaps: Swaps,
    targets: Vec<Target>,
    deliveries: BTreeMap<(Nanos, u64), (usize, Delivery)>,
    sent: u64,
    offers: Wire,
    fence: (Dist, Xoshiro256PlusPlus),
    service: (Dist, Streams),
    options: RecoveryOptions,
    /// The first of the machines' deadlines; forgotten when one of them may have moved.
    deadline: Option<Option<Nanos>>,
    /// When the failed node's agent has told all that it was asked for.
    told: Nanos,
}

fn party(number: u32) -> PartyId {
    PartyId::new(number).expect("a small number fits a claim word")
}

fn target_party(target: usize) -> PartyId {
    party(TARGETS + target as u32)
}

impl Rescue {
    /// Begins at `now` to take over `sessions`.
    pub(super) fn new(
        now: Nanos,
        options: &RecoveryOptions,
        sessions: Vec<SessionToRecover>,
        surroundings: Surroundings,
        streams: &Streams,
    ) -> Self {
        let Surroundings { hooks, channels: [states, taker_swaps, target_swaps], offers, targets, service_work } =
            surroundings;
        let numbers: Vec<u64> = sessions.iter().map(|session| session.record.session).collect();
        let room = |at| Room { party: target_party(at), free: numbers.len() as u64 };
        let orders = spread(&numbers, &(0..targets.len()).map(room).collect::<Vec<_>>());
        let places = sessions.iter().enumerate().map(|(at, session)| (session.record.session, at)).collect();
        let rescued = sessions.into_iter().zip(orders).map(|(session, order)| {
            let number = session.record.session;
            let takeover = Takeover::new(options.takeover, party(TAKER), number, order, Epoch(0));
            Rescued {
                session,
                takeover,
                reinstatements: BTreeMap::new(),
                looking: None,
                next_look: None,
                state: None,
                marks: Marks::default(),
            }
        });
        let mut rescue = Rescue {
            rescued: rescued.collect(),
            places,
            states,
            extraction: Extraction::new(options.extraction, hooks.states, []),
            taker_swaps: Swaps::new(taker_swaps, hooks.claims),
            target_swaps: Swaps::new(target_swaps, hooks.claims),
            targets,
            deliveries: BTreeMap::new(),
            sent: 0,
            offers,
            fence: (options.fence, streams.stream("fence")),
            service: (service_work, *streams),
            options: options.clone(),
            deadline: None,
            told: now,
        };
        let mut actions = Vec::new();
        for at in 0..rescue.rescued.len() {
            rescue.rescued[at].takeover.start(now, &mut actions);
            rescue.perform(now, at, &mut actions);
        }
        rescue
    }

    /// Lets everything happen that is due by `now`.
    pub(super) fn step(&mut self, now: Nanos, node: &Node) {
        loop {
            let mut busy = false;
            while let Some(first) = self.deliveries.first_entry().filter(|first| first.key().0 <= now) {
                let (at, delivery) = first.remove();
                self.deliver(now, at, delivery);
                busy = true;
            }
            busy |= self.read(now, node);
            let mut results = Vec::new();
            self.taker_swaps.step(now, &mut results);
            for (at, swap, result) in results.drain(..) {
                self.tell(now, at, Input::Swapped { swap, result });
                busy = true;
            }
            self.target_swaps.step(now, &mut results);
            for swapped in results {
                self.target_swapped(now, swapped);
                busy = true;
            }
            for target in 0..self.targets.len() {
                while let Some((at, done)) = self.targets[target].next_done(now) {
                    self.target_has_worked(done, at, target);
                    busy = true;
                }
            }
            if self.next_deadline().is_some_and(|deadline| deadline <= now) {
                self.tick(now);
                busy = true;
            }
            if !busy {
                return;
            }
        }
    }

    /// When to [`step`](Self::step) next.
    pub(super) fn next_event(&mut self) -> Option<Nanos> {
        let delivery = self.deliveries.first_key_value().map(|((at, _), _)| *at);
        let events = [
            delivery,
            self.states.next_event(),
            self.taker_swaps.next_event(),
            self.target_swaps.next_event(),
            self.next_deadline(),
        ];
        events.into_iter().chain(self.targets.iter().map(Target::next_event)).flatten().min()
    }

    /// Whether nothing is left to do.
    pub(super) fn is_done(&self) -> bool {
        self.rescued.iter().all(Rescued::is_done)
    }

    /// What the READs have cost.
    pub(super) fn stats(&self) -> ExtractionStats {
        self.extraction.stats()
    }

    /// The session of that number, if it is taken over.
    pub(super) fn get(&self, session: u64) -> Option<&Rescued> {
        self.places.get(&session).and_then(|at| self.rescued.get(*at))
    }

    fn tell(&mut self, now: Nanos, at: usize, input: Input) {
        let mut actions = Vec::new();
        self.rescued[at].takeover.handle(now, input, &mut actions);
        self.perform(now, at, &mut actions);
    }

    fn perform(&mut self, now: Nanos, at: usize, actions: &mut Vec<Action>) {
        self.deadline = None;
        for action in actions.drain(..) {
            let rescued = &mut self.rescued[at];
            match action {
                Action::ReadBox(look) if rescued.looking.is_none() => {
                    rescued.looking = Some(look);
                    self.look(now, at, look.purpose);
                }
                // Asked for again, it is still under way: a READ always ends.
                Action::ReadBox(look) => rescued.next_look = rescued.looking.filter(|l| *l != look).map(|_| look),
                Action::Swap(swap) => self.taker_swaps.ask(at, rescued.session.record.claim_word(), swap),
                Action::Fence => {
                    rescued.marks.claimed.get_or_insert(now);
                    let delay = self.fence.0.sample(&mut self.fence.1);
                    self.deliver_at(now + delay, at, Delivery::Fenced);
                }
                Action::Offer { to, offer } => {
                    let target = to.number().saturating_sub(TARGETS) as usize;
                    let bytes = rescued.state.map_or(0, |(_, bytes)| bytes);
                    let arrives = self.offers.send(now, HEAD_WORDS + bytes.div_ceil(8));
                    self.deliver_at(arrives, at, Delivery::Offer { target, offer });
                }
                Action::End(_) => {}
            }
        }
    }

    /// Begins to read a State Box; after it was asked for what lies in the kernel, if it is read for good.
    fn look(&mut self, now: Nanos, at: usize, purpose: Purpose) {
        if purpose != Purpose::Extract || self.options.level == FailureLevel::Os {
            self.extraction.add(self.rescued[at].session);
            return;
        }
        self.told = self.told.max(now) + self.options.telling;
        self.deliver_at(self.told, at, Delivery::Told);
    }

    fn deliver_at(&mut self, when: Nanos, at: usize, delivery: Delivery) {
        self.sent += 1;
        self.deliveries.insert((when, self.sent), (at, delivery));
    }

    fn deliver(&mut self, now: Nanos, at: usize, delivery: Delivery) {
        match delivery {
            Delivery::Told => self.extraction.add(self.rescued[at].session),
            Delivery::Fenced => {
                self.rescued[at].marks.fenced.get_or_insert(now);
                self.tell(now, at, Input::Fenced);
            }
            Delivery::Answer { target, epoch, answer } => {
                self.tell(now, at, Input::Answered { by: target_party(target), epoch, answer });
            }
            Delivery::Offer { target, offer } => {
                let mut actions = Vec::new();
                match self.rescued[at].reinstatements.get_mut(&target) {
                    Some(under_way) if under_way.offer() == offer => {
                        under_way.handle(now, TargetInput::OfferedAgain, &mut actions);
                    }
                    _ => {
                        let mut new = Reinstatement::new(self.options.takeover, target_party(target), offer);
                        new.start(&mut actions);
                        self.rescued[at].reinstatements.insert(target, new);
                    }
                }
                self.perform_at_target(now, at, target, actions);
            }
        }
    }

    /// READs that are over; whether any was.
    fn read(&mut self, now: Nanos, node: &Node) -> bool {
        self.states.advance_to(now);
        let mut read = Vec::new();
        self.extraction.step(&mut self.states, &mut |session, state| {
            let bytes = state.as_ref().map_or(0, |state| state.committed.payload.len() as u64);
            let intact = state.as_ref().is_ok_and(|state| is_intact(node, state));
            read.push((session.record.session, seen(state), (intact, bytes)));
        });
        if !self.extraction.is_done() && self.states.channel() == ChannelState::Broken {
            self.states.reopen();
        }
        let any = !read.is_empty();
        for (session, result, state) in read {
            let Some(at) = self.places.get(&session).copied() else { continue };
            let rescued = &mut self.rescued[at];
            let Some(look) = rescued.looking.take() else { continue };
            if look.purpose == Purpose::Extract && result.is_ok() {
                rescued.state = Some(state);
                rescued.marks.extracted.get_or_insert(now);
            }
            if let Some(next) = rescued.next_look.take() {
                rescued.looking = Some(next);
                self.look(now, at, next.purpose);
            }
            self.tell(now, at, Input::BoxRead { look, result });
        }
        any
    }

    fn target_swapped(&mut self, now: Nanos, (at, swap, result): Swapped) {
        // A swap names its target, and no other heeds what came of it.
        let asked: Vec<usize> = self.rescued[at].reinstatements.keys().copied().collect();
        asked.into_iter().for_each(|target| self.tell_target(now, at, target, TargetInput::Swapped { swap, result }));
    }

    fn tell_target(&mut self, now: Nanos, at: usize, target: usize, input: TargetInput) {
        let mut actions = Vec::new();
        if let Some(reinstatement) = self.rescued[at].reinstatements.get_mut(&target) {
            reinstatement.handle(now, input, &mut actions);
        }
        self.perform_at_target(now, at, target, actions);
    }

    fn perform_at_target(&mut self, now: Nanos, at: usize, target: usize, actions: Vec<TargetAction>) {
        self.deadline = None;
        for action in actions {
            let rescued = &mut self.rescued[at];
            match action {
                TargetAction::Prepare => {
                    let bytes = rescued.state.map_or(0, |(_, bytes)| bytes);
                    let work = self.options.reinstatement(bytes);
                    if let Some(target) = self.targets.get_mut(target) {
                        target.work(now, at, work);
                    }
                }
                TargetAction::Swap(swap) => self.target_swaps.ask(at, rescued.session.record.claim_word(), swap),
                TargetAction::Serve => {
                    rescued.marks.restored = Some(now);
                    let (work, streams) = &self.service;
                    let mut stream = streams.indexed("service after recovery", rescued.session.record.session);
                    let work = work.sample(&mut stream);
                    if let Some(target) = self.targets.get_mut(target) {
                        target.work(now, at, work);
                    }
                }
                TargetAction::Answer(answer) => {
                    let epoch = rescued.reinstatements.get(&target).map_or(Epoch(0), |it| it.offer().epoch);
                    let arrives = self.offers.answer(now, HEAD_WORDS);
                    self.deliver_at(arrives, at, Delivery::Answer { target, epoch, answer });
                }
                TargetAction::Discard => {}
            }
        }
    }

    fn target_has_worked(&mut self, now: Nanos, at: usize, target: usize) {
        let rescued = &mut self.rescued[at];
        match rescued.reinstatements.get(&target).map(Reinstatement::stage) {
            Some(Stage::Preparing) => {
                if rescued.marks.restored.is_none() {
                    rescued.marks.prepared = Some(now);
                }
                self.tell_target(now, at, target, TargetInput::Prepared);
            }
            Some(Stage::Serving) => self.rescued[at].marks.served = Some(now),
            Some(Stage::Taking | Stage::Discarded) | None => {}
        }
    }

    fn tick(&mut self, now: Nanos) {
        let due = |deadline: Option<Nanos>| deadline.is_some_and(|deadline| deadline <= now);
        for at in 0..self.rescued.len() {
            if due(self.rescued[at].takeover.deadline()) {
                self.tell(now, at, Input::Tick);
            }
            let late = self.rescued[at].reinstatements.iter().filter(|(_, it)| due(it.deadline()));
            let late: Vec<usize> = late.map(|(target, _)| *target).collect();
            late.into_iter().for_each(|target| self.tell_target(now, at, target, TargetInput::Tick));
        }
    }

    fn next_deadline(&mut self) -> Option<Nanos> {
        let rescued = &self.rescued;
        *self.deadline.get_or_insert_with(|| {
            let targets = |rescued: &Rescued| rescued.reinstatements.values().filter_map(Reinstatement::deadline).min();
            rescued.iter().flat_map(|rescued| [rescued.takeover.deadline(), targets(rescued)]).flatten().min()
        })
    }
}

/// What a READ shows; the simulated service has no channels whose states could contradict each other.
fn seen(state: Result<SessionState<'_>, StateError>) -> Result<Seen, BoxError> {
    Seen::of(&state?, |_| Ok(()))
}
