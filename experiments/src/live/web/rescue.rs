//! Carries the sessions of one node on at others: what `core::takeover` decides, done. One thread drives any number of
//! sessions; what all of them want at the same moment is done together.
//!
//! The order after the fence matters: first the sockets' queues are read, then the State Boxes. The service leaves input
//! in its socket until what came of it is committed. So whatever a State Box does not know of yet was in the queue
//! before, even if the owner still runs, behind the fence.
//!
//! Processes that serve a session together run on behind it, too, and their State Boxes are read one after the other. The
//! boxes fit together if both sessions were claimed before the first of them is read ([`IpcEnd`](backdoor_core::channels::IpcEnd)
//! says why). So no state is read before all of the node's sessions are claimed; for a while, as one may be in the hands of
//! another taker. If two boxes do not fit after all, their heirs find out and do not serve.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_core::channels::{Channel, SessionPayload};
use backdoor_core::recovery::{Extraction, ExtractionConfig, SessionToRecover, StateError};
use backdoor_core::takeover::{
    Action, Answer, BoxError, Epoch, Input, Look, Offer, Outcome, PartyId, Purpose, Seen, Step, Swap, Takeover,
    TakeoverConfig,
};
use backdoor_core::transport::{Completion, Done, RemoteSlice, Transport, TransportError, WorkId};
use backdoor_host::clock;
use backdoor_host::tcp::Queues;

use super::offers::{AnswerHead, OfferHead};

/// How long READs and swaps are waited for.
const OPERATION_LIMIT: Nanos = Nanos::from_millis(500);
/// How often an agent is asked for a socket's queues before the session is carried on without.
const QUEUE_ATTEMPTS: u32 = 3;
/// How long states are not read because another session of the node is not claimed yet.
const HOLD_LIMIT: Nanos = Nanos::from_millis(200);
/// Swaps under way at once.
const SWAPS_AT_ONCE: usize = 64;

/// What a rescue needs of the world around it.
pub trait Surroundings {
    /// Cuts the old owner off, for good; returns when it is.
    fn fence(&mut self) -> Result<(), String>;
    /// The queues of a session's socket, if the old owner's agent holds it; why they can't be had, if they should.
    fn queues(&mut self, session: u64) -> Result<Option<Queues>, String>;
    /// The same from somebody who saw it pass, of the session whose State Box held `payload`; `None` if nobody looked.
    fn mirrored(&mut self, payload: &[u8]) -> Result<Option<Queues>, String>;
    /// Sends an offer to a target; its answer comes over the channel of answers.
    fn offer(&mut self, to: PartyId, head: OfferHead, payload: &[u8], queues: Option<&Queues>) -> Result<(), String>;
    /// Whether a payload holds channels whose states fit together.
    fn check(&self, payload: &[u8]) -> Result<(), &'static str>;
}

/// When a session got how far, in monotonic ns; 0 for never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Marks {
    /// The claim can't be given back any more.
    pub claimed_ns: u64,
    /// The old owner is cut off.
    pub fenced_ns: u64,
    /// Its state is here.
    pub extracted_ns: u64,
    /// The target has everything ready.
    pub prepared_ns: u64,
    /// The target serves.
    pub served_ns: u64,
}

/// A session and how far its takeover has got.
struct Rescued {
    session: SessionToRecover,
    takeover: Takeover,
    payload: Vec<u8>,
    /// Whether it has a connection to a client, as far as is known.
    has_client: bool,
    queues: Option<Queues>,
    marks: Marks,
    why: Option<String>,
    trouble: Option<String>,
}

impl Rescued {
    /// Whether its owner may still begin a commit, and won't soon.
    fn is_being_claimed(&self) -> bool {
        matches!(
            self.takeover.step(),
            Step::Looking
                | Step::Claiming
                | Step::Verifying
                | Step::Committing
                | Step::Superseding { .. }
                | Step::Fencing
        )
    }
}

/// What came of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Which.
    pub session: SessionToRecover,
    /// How it ended; `None` if time was up.
    pub outcome: Option<Outcome>,
    /// When it got how far.
    pub marks: Marks,
    /// What the last target to decline it said, or what else went wrong.
    pub why: Option<String>,
    /// Bytes of its State Box's payload, as they were extracted.
    pub state_bytes: u64,
}

/// Where the node's memory is.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// The State Boxes.
    pub states: RemoteSlice,
    /// The claim words.
    pub claims: RemoteSlice,
}

/// Carries `sessions` on. Returns when every takeover is over, or `until` has passed.
#[expect(clippy::too_many_arguments, reason = "called once")]
pub fn rescue<T: Transport>(
    config: TakeoverConfig,
    me: PartyId,
    targets: &[PartyId],
    sessions: &[SessionToRecover],
    memory: Memory,
    transport: &mut T,
    surroundings: &mut impl Surroundings,
    answers: &Receiver<Answered>,
    until: Nanos,
) -> Vec<Ending> {
    let rescued = sessions.iter().map(|session| Rescued {
        session: *session,
        takeover: Takeover::new(config, me, session.record.session, targets, Epoch(0)),
        payload: Vec::new(),
        has_client: true,
        queues: None,
        marks: Marks::default(),
        why: None,
        trouble: None,
    });
    let mut rescue = Rescue {
        rescued: rescued.collect(),
        memory,
        transport,
        surroundings,
        to_do: Vec::new(),
        held: Vec::new(),
        held_until: None,
    };
    rescue.run(answers, until);
    rescue.endings()
}

struct Rescue<'a, T, S> {
    rescued: Vec<Rescued>,
    memory: Memory,
    transport: &'a mut T,
    surroundings: &'a mut S,
    to_do: Vec<(usize, Action)>,
    /// States to be read as soon as all sessions are claimed, and when it has waited long enough for that.
    held: Vec<(usize, Look)>,
    held_until: Option<Nanos>,
}

impl<T: Transport, S: Surroundings> Rescue<'_, T, S> {
    fn run(&mut self, answers: &Receiver<Answered>, until: Nanos) {
        let by_number: HashMap<u64, usize> =
            self.rescued.iter().enumerate().map(|(at, rescued)| (rescued.session.record.session, at)).collect();
        let mut actions = Vec::new();
        for at in 0..self.rescued.len() {
            self.rescued[at].takeover.start(clock::now(), &mut actions);
            self.to_do.extend(actions.drain(..).map(|action| (at, action)));
        }
        loop {
            while !self.to_do.is_empty() {
                self.act();
                if self.to_do.is_empty() {
                    self.extract();
                }
            }
            let due = self.rescued.iter().filter_map(|rescued| rescued.takeover.deadline()).min();
            let (Some(due), now) = (due, clock::now()) else { return };
            if now >= until {
                return;
            }
            match answers.recv_timeout(Duration::from_nanos((due.min(until) - now).0)) {
                Ok(answer) => {
                    for (by, answer) in std::iter::once(answer).chain(std::iter::from_fn(|| answers.try_recv().ok())) {
                        if let Some(at) = by_number.get(&answer.session) {
                            self.answered(*at, by, answer);
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

    fn answered(&mut self, at: usize, by: PartyId, answer: AnswerHead) {
        let AnswerHead { epoch, serving, why, prepared_ns, served_ns, .. } = answer;
        let rescued = &mut self.rescued[at];
        (rescued.marks.prepared_ns, rescued.marks.served_ns) = (prepared_ns, served_ns);
        rescued.why = why;
        let answer = if serving { Answer::Serving } else { Answer::Declined };
        self.tell(at, Input::Answered { by, epoch: Epoch(epoch), answer });
    }

    /// Does what is to be done now, all of a kind together.
    fn act(&mut self) {
        let (mut swaps, mut reads, mut fences, mut offers) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (at, action) in std::mem::take(&mut self.to_do) {
            match action {
                Action::Swap(swap) => swaps.push((at, swap)),
                Action::ReadBox(look) if look.purpose == Purpose::Extract => {
                    self.held.retain(|(held, _)| *held != at);
                    self.held.push((at, look));
                }
                Action::ReadBox(look) => reads.push((at, look)),
                Action::Fence => fences.push(at),
                Action::Offer { to, offer } => offers.push((at, to, offer)),
                Action::End(_) => {}
            }
        }
        for batch in swaps.chunks(SWAPS_AT_ONCE) {
            self.swap(batch);
        }
        while let Some((at, to, offer)) = offers.pop() {
            let more = offers.iter().filter(|(_, other, _)| *other == to).count();
            self.offer(at, to, offer, more as u32);
        }
        if !fences.is_empty() {
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

    fn swap(&mut self, batch: &[(usize, Swap)]) {
        let mut results: Vec<Result<u64, TransportError>> = vec![Err(TransportError::Unreachable); batch.len()];
        let requests = batch.iter().enumerate().filter_map(|(place, (at, swap))| {
            let location = self.rescued[*at].session.record.state_box?;
            swap.request(WorkId(place as u64), self.memory.claims, location.claim)
        });
        let requests: Vec<_> = requests.collect();
        let mut under_way = requests.len();
        if self.transport.post(&requests).is_err() {
            under_way = 0;
        }
        let (mut completions, start): (Vec<Completion>, _) = (Vec::new(), clock::now());
        while under_way > 0 && clock::now() < start + OPERATION_LIMIT {
            self.transport.poll(&mut completions);
            for completion in completions.drain(..) {
                let Some(result) = results.get_mut(completion.id.0 as usize) else { continue };
                under_way -= 1;
                *result = completion.result.and_then(|done| match done {
                    Done::CompareSwapped { previous } => Ok(previous),
                    Done::Read | Done::Written => Err(TransportError::LocalFault),
                });
            }
        }
        for ((at, swap), result) in batch.iter().zip(results) {
            self.tell(*at, Input::Swapped { swap: *swap, result });
        }
    }

    /// One fence cuts off the node, and so all of its sessions.
    fn fence(&mut self, sessions: &[usize]) {
        let claimed = clock::now().0;
        let result = self.surroundings.fence();
        let fenced = clock::now().0;
        for at in sessions {
            let rescued = &mut self.rescued[*at];
            rescued.marks.claimed_ns = claimed;
            match &result {
                Ok(()) => {
                    rescued.marks.fenced_ns = fenced;
                    self.tell(*at, Input::Fenced);
                }
                Err(why) => {
                    rescued.why = Some(why.clone());
                    self.tell(*at, Input::FenceFailed);
                }
            }
        }
    }

    fn read(&mut self, looks: &[(usize, Look)]) {
        let (mut wanted, mut sessions) = (HashMap::new(), Vec::new());
        for (at, look) in looks {
            let rescued = &mut self.rescued[*at];
            if look.purpose == Purpose::Extract && rescued.has_client {
                let number = rescued.session.record.session;
                let queues = (0..QUEUE_ATTEMPTS).find_map(|attempt| match self.surroundings.queues(number) {
                    Err(_) if attempt + 1 < QUEUE_ATTEMPTS => None,
                    last => Some(last),
                });
                match queues.unwrap_or(Ok(None)) {
                    Ok(queues) => rescued.queues = queues,
                    Err(why) => rescued.trouble = Some(format!("its queues can't be had: {why}")),
                }
            }
            wanted.insert(rescued.session.slot, (*at, *look));
            sessions.push(rescued.session);
        }
        let mut results = Vec::with_capacity(looks.len());
        let mut extraction = Extraction::new(ExtractionConfig::default(), self.memory.states, sessions);
        let surroundings = &*self.surroundings;
        let rescued = &mut self.rescued;
        let start = clock::now();
        while !extraction.is_done() && clock::now() < start + OPERATION_LIMIT {
            extraction.step(self.transport, &mut |session, state| {
                let Some((at, look)) = wanted.remove(&session.slot) else { return };
                let result = state.map_err(BoxError::from).and_then(|state| {
                    let seen = Seen::of(&state, |payload| surroundings.check(payload))?;
                    rescued[at].has_client = has_client(state.committed.payload);
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

    fn offer(&mut self, at: usize, to: PartyId, offer: Offer, more: u32) {
        let rescued = &mut self.rescued[at];
        let record = &rescued.session.record;
        let claim = record.state_box.map_or(u32::MAX, |location| location.claim);
        let mut head = OfferHead::new(&offer, self.memory.claims, claim, &record.name.to_string(), record.deadline.0);
        head.more = more;
        if let Err(why) = self.surroundings.offer(to, head, &rescued.payload, rescued.queues.as_ref()) {
            rescued.why = Some(why);
            self.tell(at, Input::Answered { by: to, epoch: offer.epoch, answer: Answer::Declined });
        }
    }

    fn endings(self) -> Vec<Ending> {
        let ended = self.rescued.into_iter().map(|rescued| {
            let Rescued { session, takeover, marks, why, trouble, payload, .. } = rescued;
            let why = why.or(trouble);
            let state_bytes = payload.len() as u64;
            Ending { session, outcome: takeover.outcome(), marks, why, state_bytes }
        });
        ended.collect()
    }
}

/// Whether a session may talk to a client, and not only to another process.
fn has_client(payload: &[u8]) -> bool {
    let Ok(payload) = SessionPayload::decode(payload) else { return true };
    let is_client = |(_, channel)| matches!(channel, Channel::Tcp(_));
    payload.channels().next().is_none() || payload.channels().any(is_client)
}

/// A target's answer, and whose it is.
pub type Answered = (PartyId, AnswerHead);
