//! Carries the sessions of one node on at others: what `core::takeover` decides, done. One thread drives any number of
//! sessions; what all of them want at the same moment is done together.
//!
//! The order after the fence matters: first the sockets' queues are read, then the State Boxes. The service leaves input
//! in its socket until what came of it is committed. So whatever a State Box does not know of yet was in the queue
//! before, even if the owner still runs, behind the fence.
//!
//! Processes that serve a session together run on behind it, too, and their State Boxes are read one after the other. The
//! boxes fit together if both sessions were claimed before the first of them is read
//! ([`IpcEnd`](backdoor_core::channels::IpcEnd) says why). So no state is read before all of the node's sessions are
//! claimed; for a while, as one may be in the hands of another taker. If two boxes do not fit after all, their heirs find
//! out and do not serve.
//!
//! Between claim and fence the owner is looked at once more: whoever is trusted again gets all of its sessions back.
//!
//! Sessions that were opened between the decision and the fence are found in the directory, which is read again after the
//! fence: whatever a client was answered by then is there. Nothing is offered before everything of the node that this
//! taker has in hand can be, for whoever carries on the first session of an address announces that address.

mod offering;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_core::channels::{Channel, SessionPayload};
use backdoor_core::recovery::{Extraction, ExtractionConfig, SessionToRecover, StateError};
use backdoor_core::takeover::{
    Action, Answer, BoxError, Epoch, Input, Look, Offer, PartyId, Purpose, Seen, Swap, Takeover, TakeoverConfig,
};
use backdoor_core::transport::{RemoteSlice, Transport, TransportError};
use backdoor_host::clock;
use backdoor_host::tcp::Queues;

use super::aims::{Aims, client_address};
use super::milestone::Milestone;
use super::offers::{AnswerHead, Offered};
use super::party;
use super::rescued::{Ending, Rescued};
use super::swaps::{OnWord, Swaps, mend};
use super::targets::{FromTarget, Heard};
use crate::live::snapshot::sessions_in;

/// How long READs are waited for.
const OPERATION_LIMIT: Nanos = Nanos::from_millis(500);

/// How long states are not read because another session of the node is not claimed yet.
const HOLD_LIMIT: Nanos = Nanos::from_millis(200);

/// What a rescue needs of the world around it.
pub trait Surroundings {
    /// Cuts the old owner off, for good; returns when it is.
    fn fence(&mut self) -> Result<(), String>;
    /// The queues of each session's socket, if the old owner's agent holds it; why they can't be had, if they should.
    fn queues(&mut self, sessions: &[u64]) -> Vec<Result<Option<Queues>, String>>;
    /// The same from somebody who saw it pass, of the session whose State Box held `payload`; `None` if nobody looked.
    fn mirrored(&mut self, _payload: &[u8]) -> Result<Option<Queues>, String> {
        Ok(None)
    }
    /// Sends offers that belong together to targets, to each its own, and waits for none because of another; what they answer
    /// comes over the channel of what is heard.
    fn offer(&mut self, batches: &[Batch<'_>]) -> Vec<Result<(), String>>;
    /// Whether a payload holds channels whose states fit together.
    fn check(&self, payload: &[u8]) -> Result<(), &'static str>;
    /// Whether the suspicion was wrong, or has passed: asked as long as claims can be given back.
    fn is_trusted_again(&mut self) -> bool {
        false
    }
    /// It is about to take a step. May come again.
    fn reached(&mut self, _: Milestone) {}
}

/// What is offered to one target at once.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// The target.
    pub to: PartyId,
    /// The sessions; at least one.
    pub offered: Vec<Offered<'a>>,
}

/// Where the node's memory is.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Which start of its agent it belongs to.
    pub agent: u64,
    /// The Progress Box.
    pub progress: RemoteSlice,
    /// The State Boxes.
    pub states: RemoteSlice,
    /// The claim words.
    pub claims: RemoteSlice,
}

/// Who takes over, and onto whom.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How patient it is.
    pub config: TakeoverConfig,
    /// The taker.
    pub me: PartyId,
    /// Whom sessions are offered to: those that talk to no client in this order, the others address by address.
    pub targets: Vec<PartyId>,
    /// Where the node's memory is.
    pub memory: Memory,
    /// When to give up.
    pub until: Nanos,
}

/// Carries `sessions` on, and those of the same node that were opened since. Returns when every takeover is over, or time
/// is up.
pub fn rescue<T: Transport>(
    plan: Plan,
    sessions: &[SessionToRecover],
    transport: &mut T,
    surroundings: &mut impl Surroundings,
    heard: &Receiver<Heard>,
) -> Vec<Ending> {
    let mut rescue = Rescue {
        plan,
        rescued: Vec::new(),
        by_number: HashMap::new(),
        transport,
        surroundings,
        swaps: Swaps::new(),
        to_do: Vec::new(),
        to_offer: Vec::new(),
        aims: Aims::default(),
        held: Vec::new(),
        held_until: None,
        is_fenced: false,
    };
    sessions.iter().for_each(|session| rescue.begin(*session));
    rescue.run(heard);
    rescue.rescued.into_iter().map(Rescued::ending).collect()
}

struct Rescue<'a, T, S> {
    plan: Plan,
    rescued: Vec<Rescued>,
    by_number: HashMap<u64, usize>,
    transport: &'a mut T,
    surroundings: &'a mut S,
    swaps: Swaps,
    to_do: Vec<(usize, Action)>,
    /// What can be offered, and waits for the others.
    to_offer: Vec<(usize, PartyId, Offer)>,
    /// To whom first.
    aims: Aims,
    /// States to be read as soon as all sessions are claimed, and when that has taken long enough.
    held: Vec<(usize, Look)>,
    held_until: Option<Nanos>,
    /// Whether there is no way back for the node.
    is_fenced: bool,
}

impl<T: Transport, S: Surroundings> Rescue<'_, T, S> {
    fn begin(&mut self, session: SessionToRecover) {
        let (number, at) = (session.record.session, self.rescued.len());
        if self.by_number.contains_key(&number) {
            return;
        }
        self.by_number.insert(number, at);
        let Plan { config, me, targets, .. } = &self.plan;
        let mut takeover = Takeover::new(*config, *me, number, targets.as_slice(), Epoch(0));
        let mut actions = Vec::new();
        takeover.start(clock::now(), &mut actions);
        self.to_do.extend(actions.into_iter().map(|action| (at, action)));
        self.rescued.push(Rescued::new(session, takeover));
    }

    fn run(&mut self, heard: &Receiver<Heard>) {
        let until = self.plan.until;
        loop {
            while !self.to_do.is_empty() {
                self.act();
                if self.to_do.is_empty() {
                    self.extract();
                }
                if self.to_do.is_empty() && !self.rescued.iter().any(Rescued::is_on_its_way) {
                    self.offer_all();
                }
            }
            let due = self.rescued.iter().filter_map(|rescued| rescued.takeover.deadline()).min();
            let (Some(due), now) = (due, clock::now()) else { return };
            if now >= until {
                return;
            }
            match heard.recv_timeout(Duration::from_nanos((due.min(until) - now).0)) {
                Ok(first) => {
                    for (by, what) in std::iter::once(first).chain(std::iter::from_fn(|| heard.try_recv().ok())) {
                        match what {
                            FromTarget::Answer(answer) => self.answered(by, answer),
                            FromTarget::Gone => self.target_gone(by),
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                // Nobody is left who could answer: the takeovers' own deadlines see to the rest.
                Err(RecvTimeoutError::Disconnected) => clock::sleep_until(due.min(until)),
            }
            let now = clock::now();
            for at in 0..self.rescued.len() {
                if self.rescued[at].takeover.deadline().is_some_and(|due| due <= now) {
                    self.tell(at, Input::Tick);
                }
            }
        }
    }

    fn tell(&mut self, at: usize, input: Input) {
        let mut actions = Vec::new();
        self.rescued[at].takeover.handle(clock::now(), input, &mut actions);
        self.to_do.extend(actions.into_iter().map(|action| (at, action)));
    }

    fn answered(&mut self, by: PartyId, answer: AnswerHead) {
        let Some(&at) = self.by_number.get(&answer.session) else { return };
        if let Some(input) = self.rescued[at].answered(by, answer) {
            self.tell(at, input);
        }
    }

    /// It won't answer any more. Whether it took anything, the claim words tell.
    fn target_gone(&mut self, by: PartyId) {
        for at in 0..self.rescued.len() {
            self.rescued[at].is_gone(by);
            if self.rescued[at].asked == Some(by) {
                self.decline(at, by, format!("{} closed the connection", party::name(by.number())));
            }
        }
    }

    fn decline(&mut self, at: usize, by: PartyId, why: String) {
        let rescued = &mut self.rescued[at];
        rescued.asked = None;
        rescued.failed(Some(by), Some(why));
        let epoch = rescued.takeover.epoch();
        self.tell(at, Input::Answered { by, epoch, answer: Answer::Declined });
    }

    /// Does what is to be done now, all of a kind together.
    fn act(&mut self) {
        let (mut swaps, mut reads, mut fences) = (Vec::new(), Vec::new(), Vec::new());
        for (at, action) in std::mem::take(&mut self.to_do) {
            match action {
                Action::Swap(swap) => swaps.push((at, swap)),
                Action::ReadBox(look) if look.purpose == Purpose::Extract => {
                    self.held.retain(|(held, _)| *held != at);
                    self.held.push((at, look));
                }
                Action::ReadBox(look) => reads.push((at, look)),
                Action::Fence => fences.push(at),
                Action::Offer { to, offer } => {
                    // The last word of a session that waited for the others is its only one.
                    self.to_offer.retain(|(other, ..)| *other != at);
                    self.to_offer.push((at, to, offer));
                }
                Action::End(_) => {}
            }
        }
        self.swap(&swaps);
        if !fences.is_empty() {
            self.surroundings.reached(Milestone::Fencing);
            self.fence(&fences);
        }
        if !reads.is_empty() {
            self.read(&reads);
        }
    }

    /// Reads the states, once all sessions are claimed. Whoever is held asks again before long.
    fn extract(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let until = *self.held_until.get_or_insert(clock::now() + HOLD_LIMIT);
        if clock::now() >= until || !self.rescued.iter().any(Rescued::is_being_claimed) {
            let held = std::mem::take(&mut self.held);
            self.read(&held);
        }
    }

    fn swap(&mut self, swaps: &[(usize, Swap)]) {
        let on_words = swaps.iter().map(|(at, swap)| {
            let word = self.rescued[*at].session.record.claim_word();
            OnWord { swap: *swap, claims: self.plan.memory.claims, word }
        });
        let on_words: Vec<_> = on_words.collect();
        let results = self.swaps.run(self.transport, &on_words);
        for ((at, swap), result) in swaps.iter().zip(results) {
            self.tell(*at, Input::Swapped { swap: *swap, result });
        }
    }

    /// One fence cuts off the node, and so all of its sessions.
    fn fence(&mut self, sessions: &[usize]) {
        self.is_fenced = true;
        let claimed = clock::now().0;
        let result = self.surroundings.fence();
        let fenced = clock::now().0;
        if result.is_ok() {
            self.surroundings.reached(Milestone::Fenced);
        }
        for at in sessions {
            let rescued = &mut self.rescued[*at];
            rescued.marks.claimed_ns = claimed;
            match &result {
                Ok(()) => {
                    rescued.marks.fenced_ns = fenced;
                    self.tell(*at, Input::Fenced);
                }
                Err(why) => {
                    rescued.failed(None, Some(why.clone()));
                    self.tell(*at, Input::FenceFailed);
                }
            }
        }
        if result.is_ok() {
            self.find_more();
        }
    }

    /// Takes in sessions that were opened since this was last looked at.
    fn find_more(&mut self) {
        // If it can't be read, neither can the State Boxes, which is told.
        let Ok(found) = sessions_in(self.transport, self.plan.memory.progress) else { return };
        found.into_iter().for_each(|session| self.begin(session));
    }

    fn read(&mut self, looks: &[(usize, Look)]) {
        if looks.iter().any(|(_, look)| look.purpose == Purpose::Verify) {
            self.surroundings.reached(Milestone::Claimed);
            if !self.is_fenced && self.surroundings.is_trusted_again() {
                return (0..self.rescued.len()).for_each(|at| self.tell(at, Input::Trusted));
            }
        }
        self.ask_agent(looks);
        let (mut wanted, mut sessions) = (HashMap::new(), Vec::new());
        for (at, look) in looks {
            let session = self.rescued[*at].session;
            wanted.insert(session.record.session, (*at, *look));
            sessions.push(session);
        }
        let mut results = Vec::with_capacity(looks.len());
        let mut extraction = Extraction::new(ExtractionConfig::default(), self.plan.memory.states, sessions);
        let surroundings = &*self.surroundings;
        let rescued = &mut self.rescued;
        let until = clock::now() + OPERATION_LIMIT;
        while !extraction.is_done() && clock::now() < until {
            mend(self.transport);
            extraction.step(self.transport, &mut |session, state| {
                let Some((at, look)) = wanted.remove(&session.record.session) else { return };
                let result = state.map_err(BoxError::from).and_then(|state| {
                    let seen = Seen::of(&state, |payload| surroundings.check(payload))?;
                    let payload = SessionPayload::decode(state.committed.payload).ok();
                    rescued[at].has_client = payload.as_ref().is_none_or(has_client);
                    rescued[at].address = payload.as_ref().and_then(client_address);
                    if look.purpose == Purpose::Extract {
                        rescued[at].payload.clear();
                        rescued[at].payload.extend_from_slice(state.committed.payload);
                    }
                    Ok(seen)
                });
                results.push((at, look, result));
            });
        }
        let late = wanted
            .into_values()
            .map(|(at, look)| (at, look, Err(BoxError::State(StateError::Transport(TransportError::Unreachable)))));
        results.extend(late);
        for (at, ..) in results.iter().filter(|(_, look, result)| look.purpose == Purpose::Extract && result.is_ok()) {
            self.ask_mirror(*at);
        }
        let now = clock::now().0;
        for (at, look, result) in results {
            if look.purpose == Purpose::Extract && result.is_ok() {
                self.rescued[at].marks.extracted_ns = now;
            }
            self.tell(at, Input::BoxRead { look, result });
        }
    }

    /// Asks for the queues of those sessions whose states are to be read.
    fn ask_agent(&mut self, looks: &[(usize, Look)]) {
        let extracted = looks.iter().filter(|(_, look)| look.purpose == Purpose::Extract).map(|(at, _)| *at);
        let asked: Vec<usize> = extracted.filter(|at| self.rescued[*at].has_client).collect();
        if asked.is_empty() {
            return;
        }
        let numbers: Vec<u64> = asked.iter().map(|at| self.rescued[*at].session.record.session).collect();
        for (at, queues) in asked.into_iter().zip(self.surroundings.queues(&numbers)) {
            match queues {
                Ok(queues) => self.rescued[at].queues = queues,
                Err(why) => self.rescued[at].trouble = Some(format!("its queues can't be had: {why}")),
            }
        }
    }

    /// Of a session whose owner's agent could not tell its queues. The order is another one than the agent's: what passed
    /// does not change when the owner takes it out of its socket, so the State Box tells where it begins.
    fn ask_mirror(&mut self, at: usize) {
        let rescued = &mut self.rescued[at];
        if rescued.queues.is_some() {
            return;
        }
        match self.surroundings.mirrored(&rescued.payload) {
            Ok(None) => {}
            Ok(queues) => (rescued.queues, rescued.trouble) = (queues, None),
            Err(why) => rescued.trouble = Some(format!("its queues can't be had from the mirror: {why}")),
        }
    }
}

/// Whether a session may talk to a client, and not only to another process.
fn has_client(payload: &SessionPayload<'_>) -> bool {
    let is_client = |(_, channel)| matches!(channel, Channel::Tcp(_));
    payload.channels().next().is_none() || payload.channels().any(is_client)
}
