//! Everything around the takeover code: the old owner, its memory, the network, the fence, monitors' verdicts, and what
//! can go wrong with each.
//!
//! Takers and targets are the shipped `Takeover` and `Reinstatement`. Time is taken out by configuring every span as
//! zero: a deadline has then always passed, and *when* a timer fires is one more choice of the model's.

use backdoor_core::Nanos;
use backdoor_core::takeover::{
    Action, Answer, Claim, Epoch, Input, Look, Offer, Outcome, Ownership, PartyId, Purpose, Reinstatement, Seen, Stage,
    Step, Swap, Takeover, TakeoverConfig, TargetAction, TargetInput,
};

use crate::flaws::Flaw;

pub const UNCLAIMED: u64 = 0;
const SESSION: u64 = 7;
const NOW: Nanos = Nanos::ZERO;

/// What is explored.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Targets.
    pub targets: usize,
    /// Whether the owner is alive at first.
    pub owner_alive: bool,
    /// How often it is suspected wrongly.
    pub wrong_suspicions: u8,
    /// Whether the owner's memory may vanish.
    pub memory_may_vanish: bool,
    /// Things that go wrong in one run besides: an operation, a result, a message or a confirmation that is lost; a timer
    /// that fires although what it waits for is under way; a crash of owner, taker or target.
    pub faults: u8,
    /// What is wrong with the surroundings, or with the code between them and the takeover.
    pub flaw: Option<Flaw>,
}

/// Versions that the owner commits.
const VERSIONS: u8 = 2;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub word: u64,
    pub owner: Owner,
    /// The last version that anybody has heard of from the old owner.
    pub answered: u8,
    /// Whether the old owner's node is cut off.
    pub fenced: bool,
    pub memory_gone: bool,
    pub takers: Vec<Taker>,
    pub targets: Vec<Target>,
    /// What is under way, in order of value: any of it may arrive next.
    pub net: Vec<Message>,
    pub faults_left: u8,
    pub wrong_suspicions_left: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    pub alive: bool,
    pub at: OwnerAt,
    pub committed: u8,
}

/// Between which of its steps the owner is. It may stay there for any time: a frozen process that goes on later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OwnerAt {
    Idle,
    /// It has seen that the session is its own.
    Looked,
    /// It has committed and not answered; or, in one flawed world, the reverse.
    Halfway,
    /// It has seen that the session is lost.
    Stopped,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Taker {
    pub alive: bool,
    /// While it is taking over.
    pub machine: Option<Takeover>,
    pub trusts: bool,
    /// How its last takeover ended, and its last claim in it.
    pub ended: Option<(Outcome, Epoch)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    pub alive: bool,
    pub offers: Vec<Reinstatement>,
    /// The version it serves, or served when it died.
    pub serving: Option<u8>,
    /// Cut off by a fence that was meant for the old owner.
    pub cut: bool,
}

/// Who waits for what came of a swap; `Nobody` after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Poster {
    Nobody,
    Taker(usize),
    Target(usize, Epoch),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Message {
    Swap(Poster, Swap),
    /// The second half of a compare-and-swap that is none.
    Store(Poster, Swap, u64),
    Swapped(Poster, Swap, u64),
    /// It is executed when it arrives, and its data are back at once: what it brought can't be told from what it would
    /// have brought later, had its taker been slower from there on. Only in a flawed world it brings an old version.
    Read(usize, Look, Option<u64>),
    /// It is confirmed when it is up, unless it is a flawed one.
    Fence(Poster),
    Fenced(usize),
    Offer(usize, Offer),
    Answer(usize, PartyId, Epoch, Answer),
}

/// Something that can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    pub kind: Kind,
    /// Whether it may happen only so often, and never has to.
    pub fault: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    OwnerGoesOn,
    OwnerCrashes,
    MemoryGone,
    Suspected(usize),
    Trusted(usize),
    TakerTimer(usize),
    /// It comes back, if at all, without knowing what it did.
    TakerCrashes(usize, bool),
    TargetTimer(usize, Epoch),
    TargetCrashes(usize),
    Arrives(Message),
    Lost(Message),
}

fn party(number: usize) -> PartyId {
    PartyId::new(number as u32).expect("a small number")
}

pub fn taker_id(taker: usize) -> PartyId {
    party(1 + taker)
}

pub fn target_id(target: usize) -> PartyId {
    party(11 + target)
}

fn config(bounds: &Bounds) -> TakeoverConfig {
    let zero = Nanos::ZERO;
    TakeoverConfig {
        operation_timeout: zero,
        retry_after: zero,
        fence_timeout: zero,
        offer_timeout: zero,
        patience: zero,
        // More often than faults can make a step fail: with the memory in reach, nobody gives up.
        attempts: u32::from(bounds.faults) + 2,
    }
}

impl World {
    /// The owner is alive; or it has died before or after its last commit, or before the answer to it.
    pub fn initial(bounds: &Bounds) -> Vec<Self> {
        let target = Target { alive: true, offers: Vec::new(), serving: None, cut: false };
        let world = |alive, committed, answered| World {
            word: UNCLAIMED,
            owner: Owner { alive, at: OwnerAt::Idle, committed },
            answered,
            fenced: false,
            memory_gone: false,
            takers: vec![Taker { alive: true, machine: None, trusts: false, ended: None }; 2],
            targets: vec![target.clone(); bounds.targets],
            net: Vec::new(),
            faults_left: bounds.faults,
            wrong_suspicions_left: bounds.wrong_suspicions,
        };
        if bounds.owner_alive { vec![world(true, 1, 1)] } else { vec![world(false, 1, 1), world(false, 2, 1)] }
    }

    pub fn claim(&self) -> Claim {
        Claim::of_word(self.word, UNCLAIMED).expect("nobody writes a damaged word")
    }

    /// The session is served, or will be if nothing else happens; or its new owner has failed, which is the beginning of
    /// another takeover. With the memory gone: nobody goes on trying.
    pub fn is_well(&self) -> bool {
        let owner_serves = self.owner_can_serve() && self.word == UNCLAIMED && !self.fenced;
        let moved = match self.claim() {
            Claim::Moved { to, .. } => self.targets.iter().enumerate().any(|(index, target)| {
                target_id(index) == to && (!target.alive || target.serving.is_some() && !target.cut)
            }),
            _ => false,
        };
        let given_up = self.memory_gone && self.takers.iter().all(|taker| taker.machine.is_none());
        owner_serves || moved || given_up
    }

    fn owner_can_serve(&self) -> bool {
        self.owner.alive && self.owner.at != OwnerAt::Stopped
    }

    fn is_moved(&self) -> bool {
        matches!(self.claim(), Claim::Moved { .. })
    }

    /// What can happen, in a fixed order.
    pub fn events(&self, bounds: &Bounds, events: &mut Vec<Event>) {
        let mut add = |kind, fault: bool| {
            if !fault || self.faults_left > 0 || kind == Kind::MemoryGone {
                events.push(Event { kind, fault });
            }
        };
        // Once the session has moved, the old owner is cut off, as is checked; what it does concerns nobody.
        if !self.is_moved() {
            self.owner_events(&mut add);
        }
        if bounds.memory_may_vanish && !self.memory_gone {
            add(Kind::MemoryGone, true);
        }
        for index in 0..self.takers.len() {
            self.taker_events(index, &mut add);
        }
        for (index, target) in self.targets.iter().enumerate().filter(|(_, target)| target.alive) {
            for offer in &target.offers {
                if offer.deadline().is_some() {
                    let epoch = offer.offer().epoch;
                    let waits = self.net.iter().any(|message| message.poster() == Poster::Target(index, epoch));
                    add(Kind::TargetTimer(index, epoch), waits);
                }
            }
            if self.targets.iter().filter(|target| target.alive).count() > 1 {
                add(Kind::TargetCrashes(index), true);
            }
        }
        let mut last = None;
        for message in &self.net {
            if last.replace(message) != Some(message) {
                add(Kind::Arrives(*message), false);
                add(Kind::Lost(*message), true);
            }
        }
    }

    fn owner_events(&self, add: &mut impl FnMut(Kind, bool)) {
        if self.owner_can_serve() {
            let halfway = matches!(self.owner.at, OwnerAt::Looked | OwnerAt::Halfway);
            let looks = match Ownership::of(self.word, UNCLAIMED) {
                Ownership::Mine => self.owner.committed < VERSIONS,
                Ownership::InDoubt => false,
                Ownership::Lost => true,
            };
            if halfway || looks {
                add(Kind::OwnerGoesOn, false);
            }
        }
        if self.owner.alive {
            add(Kind::OwnerCrashes, true);
        }
    }

    fn taker_events(&self, index: usize, add: &mut impl FnMut(Kind, bool)) {
        let taker = &self.takers[index];
        if !taker.alive {
            return;
        }
        let owner_is_silent = !self.owner_can_serve() || self.fenced;
        let Some(machine) = &taker.machine else {
            // Whoever has found the memory gone has nothing more to try.
            let may_try = !self.memory_gone || taker.ended.is_none();
            let may_suspect = !self.wrongly_suspected(index) || self.wrong_suspicions_left > 0;
            if may_try && may_suspect && !self.is_moved() {
                add(Kind::Suspected(index), false);
            }
            return;
        };
        if matches!(self.claim(), Claim::Fencing { .. } | Claim::Moved { .. }) {
            // What monitors think of the old owner matters no more: takers ignore it, which `takeover_hostile` tests.
        } else if taker.trusts {
            if owner_is_silent {
                add(Kind::Suspected(index), false);
            }
        } else if self.owner_can_serve() {
            add(Kind::Trusted(index), false);
        }
        let others_move = self.takers.iter().enumerate().any(|(other, taker)| {
            let step = taker.machine.as_ref().map(Takeover::step);
            other != index && step.is_some_and(|step| !matches!(step, Step::Waiting { .. }))
        });
        let expected = self.net.iter().any(|message| message.taker() == Some(index));
        let preparing =
            self.targets.iter().filter(|target| target.alive).flat_map(|target| &target.offers).any(|offer| {
                offer.offer().by == machine.taker()
                    && offer.offer().epoch == machine.epoch()
                    && offer.stage() == Stage::Taking
            });
        let early = match machine.step() {
            Step::Waiting { .. } => others_move,
            _ => expected || preparing && !self.memory_gone,
        };
        add(Kind::TakerTimer(index), early);
        add(Kind::TakerCrashes(index, true), true);
        if self.takers.iter().filter(|taker| taker.alive).count() > 1 {
            add(Kind::TakerCrashes(index, false), true);
        }
    }

    /// Whether this taker's suspicion would be wrong: the owner can go on, or waits for a taker that is at work. One that
    /// waits for nobody falls silent after a while.
    fn wrongly_suspected(&self, taker: usize) -> bool {
        let nobody_at_work = self.takers.iter().all(|taker| taker.machine.is_none());
        let waits_in_vain = self.word != UNCLAIMED && nobody_at_work;
        self.takers[taker].machine.is_none() && self.owner_can_serve() && !self.fenced && !waits_in_vain
    }

    /// What then is; `None` if nothing has changed.
    pub fn after(&self, event: Event, bounds: &Bounds) -> Option<World> {
        let mut world = self.clone();
        // The memory may vanish once, besides the other faults.
        world.faults_left -= u8::from(event.fault && event.kind != Kind::MemoryGone);
        match event.kind {
            Kind::OwnerGoesOn => world.owner_goes_on(bounds),
            Kind::OwnerCrashes => world.owner.alive = false,
            Kind::MemoryGone => world.memory_gone = true,
            Kind::Suspected(taker) => {
                world.wrong_suspicions_left -= u8::from(self.wrongly_suspected(taker));
                world.suspect(taker, bounds);
            }
            Kind::Trusted(taker) => {
                world.takers[taker].trusts = true;
                world.tell(taker, Input::Trusted, bounds);
            }
            Kind::TakerTimer(taker) => world.tell(taker, Input::Tick, bounds),
            Kind::TakerCrashes(taker, comes_back) => world.crash_taker(taker, comes_back),
            Kind::TargetTimer(target, epoch) => world.tell_target(target, epoch, TargetInput::Tick, bounds),
            Kind::TargetCrashes(target) => {
                world.targets[target].alive = false;
                world.forget(|poster| matches!(poster, Poster::Target(index, _) if index == target));
            }
            Kind::Arrives(message) => {
                world.remove(message);
                world.arrive(message, bounds);
            }
            Kind::Lost(message) => world.remove(message),
        }
        world.net.sort_unstable();
        (world != *self).then_some(world)
    }

    fn remove(&mut self, message: Message) {
        let at = self.net.iter().position(|other| *other == message).expect("it is under way");
        self.net.remove(at);
    }

    fn owner_goes_on(&mut self, bounds: &Bounds) {
        let answers_first = bounds.flaw == Some(Flaw::AnswerBeforeCommit);
        let (commits, next) = match (self.owner.at, Ownership::of(self.word, UNCLAIMED)) {
            (OwnerAt::Looked, _) => (!answers_first, OwnerAt::Halfway),
            (OwnerAt::Halfway, _) => (answers_first, OwnerAt::Idle),
            (_, Ownership::Mine) => return self.owner.at = OwnerAt::Looked,
            (_, _) => return self.owner.at = OwnerAt::Stopped,
        };
        if commits {
            self.owner.committed += 1;
        } else if !self.fenced {
            self.answered = self.owner.committed + u8::from(answers_first);
        }
        self.owner.at = next;
    }

    fn suspect(&mut self, index: usize, bounds: &Bounds) {
        let taker = &mut self.takers[index];
        taker.trusts = false;
        if taker.machine.is_some() {
            return self.tell(index, Input::Suspected, bounds);
        }
        let after = taker.ended.map_or(Epoch(0), |(_, epoch)| epoch);
        // Takers ask targets in different orders.
        let mut targets: Vec<_> = (0..self.targets.len()).map(target_id).collect();
        targets.rotate_left(index % self.targets.len());
        let mut machine = Takeover::new(config(bounds), taker_id(index), SESSION, targets, after);
        let mut actions = Vec::new();
        machine.start(NOW, &mut actions);
        (taker.machine, taker.ended) = (Some(machine), None);
        self.perform(index, actions, bounds);
    }

    fn crash_taker(&mut self, index: usize, comes_back: bool) {
        self.takers[index] = Taker { alive: comes_back, machine: None, trusts: false, ended: None };
        self.end_driver(index);
    }

    /// A takeover's driver ends with it: what is on its way to it arrives nowhere.
    fn end_driver(&mut self, index: usize) {
        self.forget(|poster| poster == Poster::Taker(index));
        self.net.retain(|message| match *message {
            Message::Read(taker, ..) | Message::Fenced(taker) | Message::Answer(taker, ..) => taker != index,
            _ => true,
        });
    }

    /// What was posted stays under way; its results are nobody's.
    fn forget(&mut self, whose: impl Fn(Poster) -> bool) {
        self.net.retain(|message| !matches!(message, Message::Swapped(poster, ..) if whose(*poster)));
        for message in &mut self.net {
            if let Message::Swap(poster, _) | Message::Store(poster, ..) | Message::Fence(poster) = message
                && whose(*poster)
            {
                *poster = Poster::Nobody;
            }
        }
    }

    fn tell(&mut self, index: usize, input: Input, bounds: &Bounds) {
        let Some(machine) = &mut self.takers[index].machine else { return };
        let mut actions = Vec::new();
        machine.handle(NOW, input, &mut actions);
        self.perform(index, actions, bounds);
    }

    fn perform(&mut self, index: usize, actions: Vec<Action>, bounds: &Bounds) {
        for action in actions {
            let message = match action {
                Action::ReadBox(look) => {
                    let early = bounds.flaw == Some(Flaw::EarlierRead) && look.purpose == Purpose::Extract;
                    let sequence =
                        self.takers[index].machine.as_ref().and_then(Takeover::seen).map(|seen| seen.sequence);
                    Message::Read(index, look, sequence.filter(|_| early))
                }
                Action::Swap(swap) => Message::Swap(Poster::Taker(index), swap),
                Action::Fence if bounds.flaw == Some(Flaw::FenceLies) => Message::Fenced(index),
                Action::Fence => {
                    if bounds.flaw == Some(Flaw::FenceAnswersFirst) {
                        self.net.push(Message::Fenced(index));
                    }
                    Message::Fence(Poster::Taker(index))
                }
                Action::Offer { to, offer } => Message::Offer((to.number() - target_id(0).number()) as usize, offer),
                Action::End(outcome) => {
                    let taker = &mut self.takers[index];
                    let epoch = taker.machine.take().map_or(Epoch(0), |machine| machine.epoch());
                    taker.ended = Some((outcome, epoch));
                    return self.end_driver(index);
                }
            };
            self.net.push(message);
        }
    }

    fn tell_target(&mut self, index: usize, epoch: Epoch, input: TargetInput, bounds: &Bounds) {
        let target = &mut self.targets[index];
        let Some(machine) = target.offers.iter_mut().find(|machine| machine.offer().epoch == epoch) else { return };
        let (mut actions, mut inputs) = (Vec::new(), vec![input]);
        if input == TargetInput::Prepared {
            machine.start(&mut actions);
        }
        let offer = machine.offer();
        while let Some(input) = inputs.pop() {
            machine.handle(NOW, input, &mut actions);
            for action in actions.drain(..) {
                match action {
                    // It is ready at once: only the swap meets anything outside.
                    TargetAction::Prepare | TargetAction::Discard => {}
                    TargetAction::Swap(swap) => {
                        self.net.push(Message::Swap(Poster::Target(index, epoch), swap));
                        if bounds.flaw == Some(Flaw::ServesUnasked) {
                            inputs.push(TargetInput::Swapped { swap, result: Ok(swap.expected) });
                        }
                    }
                    TargetAction::Serve => target.serving = Some(offer.seen.sequence as u8),
                    TargetAction::Answer(answer) => {
                        let taker = (offer.by.number() - taker_id(0).number()) as usize;
                        self.net.push(Message::Answer(taker, target_id(index), epoch, answer));
                    }
                }
            }
        }
    }

    fn arrive(&mut self, message: Message, bounds: &Bounds) {
        match message {
            // Out of reach: no answer, like a loss.
            Message::Swap(..) | Message::Store(..) | Message::Read(..) if self.memory_gone => {}
            Message::Swap(poster, swap) => {
                let previous = self.word;
                if bounds.flaw == Some(Flaw::SwapInTwoSteps) && previous == swap.expected {
                    return self.net.push(Message::Store(poster, swap, previous));
                }
                if previous == swap.expected {
                    self.word = swap.new;
                }
                self.swapped(poster, swap, previous);
            }
            Message::Store(poster, swap, previous) => {
                self.word = swap.new;
                self.swapped(poster, swap, previous);
            }
            Message::Swapped(Poster::Taker(taker), swap, previous) => {
                self.tell(taker, Input::Swapped { swap, result: Ok(previous) }, bounds);
            }
            Message::Swapped(Poster::Target(target, epoch), swap, previous) => {
                self.tell_target(target, epoch, TargetInput::Swapped { swap, result: Ok(previous) }, bounds);
            }
            Message::Swapped(Poster::Nobody, ..) => {}
            Message::Read(taker, look, old) => {
                let sequence = old.unwrap_or(u64::from(self.owner.committed));
                let seen = Seen { session: SESSION, incarnation: 1, unclaimed: UNCLAIMED, sequence };
                self.tell(taker, Input::BoxRead { look, result: Ok(seen) }, bounds);
            }
            Message::Fence(poster) => {
                match self.targets.iter_mut().find(|target| target.serving.is_some()) {
                    Some(target) if bounds.flaw == Some(Flaw::FenceByAddress) => target.cut = true,
                    _ => self.fenced = true,
                }
                if let Poster::Taker(taker) = poster {
                    self.tell(taker, Input::Fenced, bounds);
                }
            }
            Message::Fenced(taker) => self.tell(taker, Input::Fenced, bounds),
            Message::Offer(target, offer) if self.targets[target].alive => {
                let known = |machine: &Reinstatement| machine.offer().epoch == offer.epoch;
                let input = if self.targets[target].offers.iter().any(known) {
                    TargetInput::OfferedAgain
                } else {
                    self.targets[target].offers.push(Reinstatement::new(config(bounds), target_id(target), offer));
                    TargetInput::Prepared
                };
                self.tell_target(target, offer.epoch, input, bounds);
            }
            Message::Offer(..) => {}
            Message::Answer(taker, by, epoch, answer) => {
                if self.takers[taker].alive {
                    self.tell(taker, Input::Answered { by, epoch, answer }, bounds);
                }
            }
        }
    }

    fn swapped(&mut self, poster: Poster, swap: Swap, previous: u64) {
        if poster != Poster::Nobody {
            self.net.push(Message::Swapped(poster, swap, previous));
        }
    }

    /// Whether some taker's last takeover ended like that.
    pub fn ended(&self, how: impl Fn(Outcome) -> bool) -> bool {
        self.takers.iter().filter_map(|taker| taker.ended).any(|(outcome, _)| how(outcome))
    }
}

impl Message {
    fn poster(&self) -> Poster {
        match *self {
            Message::Swap(poster, _) | Message::Store(poster, ..) | Message::Swapped(poster, ..) => poster,
            Message::Fence(poster) => poster,
            _ => Poster::Nobody,
        }
    }

    /// The taker that this comes from or goes to.
    fn taker(&self) -> Option<usize> {
        match *self {
            Message::Read(taker, ..) | Message::Fenced(taker) => Some(taker),
            Message::Answer(taker, ..) => Some(taker),
            Message::Offer(_, offer) => Some((offer.by.number() - taker_id(0).number()) as usize),
            _ => {
                if let Poster::Taker(taker) = self.poster() {
                    Some(taker)
                } else {
                    None
                }
            }
        }
    }
}
