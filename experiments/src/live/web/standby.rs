//! The process that stands by on the other node: it gets sessions ready that it is offered, takes those that it can, and
//! lets them speak. Several takers may make offers at once, of the same sessions, too: the claim word decides.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::io;
use std::net::SocketAddrV4;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_core::channels::SessionPayload;
use backdoor_core::takeover::{Answer, Offer, PartyId, Reinstatement, TakeoverConfig, TargetAction, TargetInput};
use backdoor_host::clock;
use backdoor_host::net::NetError;
use backdoor_host::serve::{SessionConfig, TcpSession};
use backdoor_host::tcp::Queues;

use super::aims::client_address;
use super::conversation::{Conversation, Silent};
use super::doors::{Doors, Visit};
use super::offers::{self, AnswerHead, OfferBody, OfferHead, PATIENCE};
use super::old_owner::OldOwner;
use super::places::Places;
use super::serve::Shared;
use super::state::WebState;
use super::swaps::OnWord;
use super::worker::Counting;
use crate::live::reach::NodeAddress;
use crate::live::two_locks::lock;

/// Most takers at once.
const MAX_TAKERS: usize = 16;
/// Sessions that are in memory as they were offered, at most, before they are got ready.
const PREPARED_AT_ONCE: usize = 64;
/// Pause after a taker could not be taken in.
const ACCEPT_AGAIN: Duration = Duration::from_millis(10);

/// Carries on what it is offered.
pub(super) struct StandBy {
    party: PartyId,
    doors: Doors,
    old_owner: OldOwner,
    shared: Arc<Shared>,
    /// Sessions that are this node's, by the old owner's agent and the session's number.
    served: Mutex<HashMap<(u64, u64), Served>>,
    dies_after_taking: bool,
}

/// What was said of a session that is this node's, and where its client is.
type Served = (AnswerHead, Option<SocketAddrV4>);

/// A session that is ready to be served here, and silent.
enum Prepared {
    /// With its client's connection; and whether all input is here.
    Client(Silent, bool),
    /// The worker's part of one.
    Counting(Box<Counting>),
}

/// An offer that is being taken up.
struct Taking {
    head: OfferHead,
    reinstatement: Reinstatement,
    actions: Vec<TargetAction>,
    /// What was made ready, as long as the address may be in use by somebody else.
    prepared: Option<Prepared>,
    /// Where its client finds it, if it has one.
    address: Option<SocketAddrV4>,
    /// It is this node's, and is to speak.
    serves: bool,
    is_over: bool,
    answer: AnswerHead,
}

impl Taking {
    fn new(party: PartyId, head: OfferHead, offer: Offer) -> Self {
        let mut reinstatement = Reinstatement::new(TakeoverConfig::default(), party, offer);
        let mut actions = Vec::new();
        reinstatement.start(&mut actions);
        let answer = AnswerHead { session: offer.seen.session, epoch: offer.epoch.0, ..AnswerHead::default() };
        Taking { head, reinstatement, actions, prepared: None, address: None, serves: false, is_over: false, answer }
    }

    /// Goes on with what is ready, unless its address is in use by somebody else.
    fn settle(&mut self, in_use: &HashMap<SocketAddrV4, String>) {
        if let Some(why) = self.address.and_then(|address| in_use.get(&address)) {
            self.prepared = None;
            self.answer.why.get_or_insert(why.clone());
        }
        self.handle(if self.prepared.is_some() { TargetInput::Prepared } else { TargetInput::CannotPrepare });
    }

    fn handle(&mut self, input: TargetInput) {
        self.reinstatement.handle(clock::now(), input, &mut self.actions);
    }
}

impl StandBy {
    /// For sessions of the node `old_owner`, with clients at `addresses`, behind `link`.
    pub(super) fn new(
        party: PartyId,
        addresses: &[SocketAddrV4],
        link: &str,
        old_owner: &NodeAddress,
        shared: &Arc<Shared>,
        dies_after_taking: bool,
    ) -> Result<Self, Box<dyn Error>> {
        let for_clients = Arc::clone(shared);
        Ok(StandBy {
            party,
            doors: Doors::new(addresses, link, move |listener| for_clients.take_clients(listener))?,
            old_owner: OldOwner::attach(old_owner)?,
            shared: Arc::clone(shared),
            served: Mutex::default(),
            dies_after_taking,
        })
    }

    /// Takes offers up, of each taker in a thread of its own, until the process ends.
    pub(super) fn listen(self, listener: &UnixListener) {
        let (this, takers) = (Arc::new(self), Places::new(MAX_TAKERS));
        loop {
            let Ok((stream, _)) = listener.accept() else {
                std::thread::sleep(ACCEPT_AGAIN);
                continue;
            };
            // One too many finds the connection closed, and tries again.
            let Some(place) = takers.take() else { continue };
            let host = Arc::clone(&this);
            // A taker that dies leaves what it has not offered to another.
            let _ = std::thread::Builder::new().name("taker".into()).spawn(move || {
                let _taken = place;
                host.talk(stream)
            });
        }
    }

    /// Offers come in batches: all sessions of a node that the taker has for this one. Nobody is told that an address is here
    /// before all of them are, for a client whose connection isn't there has to send again.
    fn talk(&self, mut taker: UnixStream) -> io::Result<()> {
        taker.set_write_timeout(Some(PATIENCE))?;
        let mut from = io::BufReader::with_capacity(256 << 10, taker.try_clone()?);
        let mut visit = self.doors.visit();
        let (mut batch, mut bodies) = (Vec::new(), Vec::new());
        loop {
            // What is prepared is in the way of other takers' offers, so it is not kept for one that is stuck.
            taker.set_read_timeout((!batch.is_empty()).then_some(PATIENCE))?;
            let Some(head) = offers::receive::<OfferHead>(&mut from)? else { return Ok(()) };
            let body = offers::receive_offer(&mut from, &head)?;
            let more = head.more;
            if let Some(offer) = head.offer() {
                let mut taking = Taking::new(self.party, head, offer);
                if let Some(answer) = self.said_before(&taking) {
                    (taking.answer, taking.is_over) = (answer, true);
                }
                batch.push(taking);
                bodies.push(body);
            }
            if more == 0 || bodies.len() >= PREPARED_AT_ONCE {
                let from = batch.len() - bodies.len();
                self.prepare_all(&mut batch[from..], std::mem::take(&mut bodies), &visit);
            }
            if more > 0 {
                continue;
            }
            let in_use = visit.obstacles();
            for taking in batch.iter_mut().filter(|taking| !taking.is_over) {
                taking.settle(&in_use);
                self.take(taking);
            }
            self.serve(&mut batch, &visit);
            visit = self.doors.visit();
            for taking in batch.drain(..) {
                offers::send(&mut taker, &taking.answer, &[])?;
            }
        }
    }

    /// The answer to an offer of a session that is this node's already.
    fn said_before(&self, taking: &Taking) -> Option<AnswerHead> {
        let Taking { head, answer, .. } = taking;
        let (said, _) = lock(&self.served).get(&(head.agent, answer.session)).cloned()?;
        (said.epoch == answer.epoch).then_some(said)
    }

    /// Gets sessions ready, unless it is over with them, by twice as many threads as there are processors: most of the time
    /// that it takes goes to the kernel, and to waiting for the agent.
    fn prepare_all(&self, batch: &mut [Taking], bodies: Vec<OfferBody>, visit: &Visit<'_>) {
        let threads =
            std::thread::available_parallelism().map_or(2, |processors| 2 * processors.get()).min(bodies.len());
        let offered = Mutex::new(batch.iter_mut().zip(bodies).filter(|(taking, _)| !taking.is_over));
        let prepare = || {
            while let Some((taking, body)) = { lock(&offered).next() } {
                self.prepare(taking, body, visit);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads {
                // Without it, it takes longer.
                let _ = std::thread::Builder::new().name("prepare".into()).spawn_scoped(scope, prepare);
            }
            prepare();
        });
    }

    /// Gets the session ready; it is silent.
    fn prepare(&self, taking: &mut Taking, body: OfferBody, visit: &Visit<'_>) {
        // The first thing that a reinstatement asks for.
        taking.actions.clear();
        let prepared = match body {
            OfferBody::Here(payload, queues) => {
                SessionPayload::decode(&payload).map_err(Box::from).and_then(|payload| {
                    taking.address = client_address(&payload);
                    self.prepared(taking, &payload, queues.as_ref(), visit)
                })
            }
            OfferBody::TooLarge(why) => Err(why.into()),
        };
        match prepared {
            Ok(ready) => {
                taking.answer.input_known = match &ready {
                    Prepared::Client(_, input_known) => *input_known,
                    // What its front sent comes again.
                    Prepared::Counting(_) => true,
                };
                taking.prepared = Some(ready);
            }
            Err(why) => taking.answer.why = Some(why.to_string()),
        }
    }

    /// Takes it, or learns that it can't.
    fn take(&self, taking: &mut Taking) {
        while !taking.is_over {
            for action in std::mem::take(&mut taking.actions) {
                match action {
                    TargetAction::Prepare => {}
                    TargetAction::Swap(swap) => {
                        let OfferHead { agent, claim, .. } = taking.head;
                        let on_word = OnWord { swap, claims: taking.head.claims(), word: claim };
                        let result = self.old_owner.swap(agent, on_word);
                        taking.handle(TargetInput::Swapped { swap, result });
                    }
                    TargetAction::Serve => taking.serves = true,
                    TargetAction::Discard => {
                        taking.prepared = None;
                        taking.answer.why.get_or_insert("another offer of it was taken".into());
                    }
                    TargetAction::Answer(said) => {
                        taking.answer.serving = said == Answer::Serving;
                        taking.is_over = true;
                    }
                }
            }
            if !taking.is_over && taking.actions.is_empty() {
                clock::sleep_until(taking.reinstatement.deadline().unwrap_or(clock::now()));
                taking.handle(TargetInput::Tick);
            }
        }
    }

    /// Lets those that are this node's speak.
    fn serve(&self, batch: &mut [Taking], visit: &Visit<'_>) {
        let here: HashSet<_> = batch.iter().filter(|taking| taking.serves).map(|taking| taking.address).collect();
        if !here.is_empty() {
            if self.dies_after_taking {
                let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            }
            self.speak(batch, visit.announce(|address| here.contains(&Some(address))));
        }
        // Of each address: whose sessions they were, and how many there are to be.
        let expected: HashMap<_, _> =
            batch.iter().map(|taking| (taking.address, (taking.head.agent, taking.head.all))).collect();
        let served = lock(&self.served);
        visit.came(|address| {
            let of = Some(address);
            let Some((agent, all)) = expected.get(&of) else { return false };
            served.iter().filter(|((owner, _), (_, at))| owner == agent && *at == of).count() as u64 >= *all
        });
    }

    fn speak(&self, batch: &mut [Taking], announced: Result<(), NetError>) {
        let announced = announced.map_err(|error| error.to_string());
        let mut speaking = Vec::new();
        for taking in batch.iter_mut().filter(|taking| taking.serves) {
            let Some(prepared) = taking.prepared.take() else { continue };
            taking.answer.served_ns = clock::now().0;
            let (agent, at) = (taking.head.agent, taking.address);
            match (prepared, &self.shared.worker) {
                (Prepared::Client(silent, _), _) => speaking.push((&mut taking.answer, agent, at, silent.speak())),
                (Prepared::Counting(counting), worker) => {
                    let held = match worker {
                        Some(worker) => worker.hold(*counting).map_err(|error| error.to_string()),
                        None => Err("there is no worker here".into()),
                    };
                    taking.answer.why = held.err();
                    lock(&self.served).insert((agent, taking.answer.session), (taking.answer.clone(), at));
                }
            }
        }
        for (answer, agent, at, spoke) in speaking {
            let spoke = spoke.recv().map_err(|_| "its thread has ended".to_owned());
            let spoke = spoke.and_then(|spoke| spoke.map_err(|error| error.to_string()));
            // The session is this node's, and lost: nobody else can have it any more. Its client was told.
            answer.why = announced.clone().and(spoke).err();
            lock(&self.served).insert((agent, answer.session), (answer.clone(), at));
        }
    }

    fn prepared(
        &self,
        taking: &Taking,
        payload: &SessionPayload<'_>,
        queues: Option<&Queues>,
        visit: &Visit<'_>,
    ) -> Result<Prepared, Box<dyn Error>> {
        let Taking { head, address, .. } = taking;
        if !self.old_owner.is(head.agent) {
            return Err("the memory of the node whose session it is can't be reached from here".into());
        }
        let deadline = Nanos(head.deadline_ns);
        if self.shared.worker.is_some() {
            let counting = Counting::adopt(&self.shared, payload, &head.name, deadline)?;
            return Ok(Prepared::Counting(Box::new(counting)));
        }
        // A session of another kind is for another target, and does not bring the address here.
        let state = WebState::from_bytes(payload.application())?;
        let asks = self.shared.asks_again(payload);
        visit.enter(address.ok_or("it has no connection to a client")?)?;
        let replay = |range| state.replay(range);
        let config = SessionConfig { deadline, ..self.shared.config() };
        let session = TcpSession::adopt(&self.shared.app, payload, queues, &head.name, config, replay)?;
        let input_known = session.input_known();
        let silent = Conversation::prepare(session, state, asks, Arc::clone(&self.shared))?;
        Ok(Prepared::Client(silent, input_known))
    }
}
