//! The process that serves: an event loop that takes new clients, and a thread for each session. The same process on the
//! other node waits for sessions to be offered.
//!
//! What makes a session recoverable is the order of things. Input is looked at and left in the socket; what comes of it
//! is committed, with the place in both streams; only then is the input taken out of the socket, and the answer sent. So at
//! any instant whatever is not in the State Box is still in the socket, and whatever a client has seen is in the State Box.

use std::error::Error;
use std::io::{self, BufRead};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::ops::Range;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_core::channels::SessionPayload;
use backdoor_core::state_box::CommitError;
use backdoor_core::takeover::{
    Doubt, Duty as OwnersDuty, Offer, PartyId, Reinstatement, TakeoverConfig, TargetAction, TargetInput,
};
use backdoor_core::transport::{Completion, Done, Transport, TransportError, WorkId};
use backdoor_host::app::{App, Node};
use backdoor_host::attach::attach_local;
use backdoor_host::clock;
use backdoor_host::net::{Announcer, Cause, Links};
use backdoor_host::serve::{PreparedSession, Retain, ServeError, SessionConfig, TcpSession};
use backdoor_host::tcp::{MAX_REFILL_BYTES, Queues};
use backdoor_transports::shm::ShmTransport;
use serde::{Deserialize, Serialize};

use super::offers::{self, AnswerHead, OfferHead};
use super::state::WebState;
use crate::live::two_locks::{TwoLocks, lock};

/// The application's name in the Progress Box.
pub const SERVICE_NAME: &str = "web";
/// Period of the event loop.
const TICK: Nanos = Nanos::from_millis(1);
/// Most input that is looked at at once.
const INPUT_BYTES: usize = 64 << 10;
/// Pause between two looks at a claim, or at a request that is not whole.
const LOOK_AGAIN: Duration = Duration::from_micros(100);
/// Stack of a session's thread.
const STACK_BYTES: usize = 256 << 10;
/// How long a swap is waited for.
const SWAP_LIMIT: Nanos = Nanos::from_millis(500);

/// Which process of the service this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serve {
    /// The socket of its node's agent.
    pub agent: PathBuf,
    /// Deadline of the application and of each session, in ns.
    pub deadline_ns: u64,
    /// Largest state of a session, in bytes.
    pub state_bytes: usize,
    /// Where its clients find it.
    pub address: SocketAddrV4,
    /// What it does.
    pub duty: Duty,
}

/// What a process of the service does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Duty {
    /// It serves.
    Serve,
    /// It carries on what others served.
    StandBy {
        /// Its number among the parties of a takeover.
        party: u32,
        /// Where offers come.
        offers: PathBuf,
        /// The socket of the agent of the node whose sessions it may be offered.
        old_owner: PathBuf,
        /// Its link to the clients.
        link: String,
    },
}

/// How it is told to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WebOrder {
    /// The event loop and another thread each wait for a lock that the other holds.
    Deadlock,
    /// The session that acts next never ends what it does.
    Stick,
}

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WebReport {
    /// Clients, or offers, may come.
    Ready,
    /// It has failed as it was told.
    Failed {
        /// When, in monotonic ns.
        at_ns: u64,
    },
}

/// What the threads share.
struct Shared {
    app: Mutex<App>,
    /// Where new clients come; an heir has it from its first session on.
    listener: Mutex<Option<TcpListener>>,
    deadline: Nanos,
    state_bytes: usize,
    /// Every answer takes the first.
    locks: Arc<TwoLocks>,
    deadlock: AtomicBool,
    stick: AtomicBool,
    failed_at: AtomicU64,
    sessions: AtomicU64,
}

impl Shared {
    fn config(&self) -> SessionConfig {
        let Shared { deadline, state_bytes, .. } = *self;
        SessionConfig { deadline, application_bytes: state_bytes, retain: Retain::Regenerated }
    }

    /// Takes new clients at this address from now on.
    fn listen(&self, address: SocketAddrV4) -> io::Result<()> {
        let mut listener = lock(&self.listener);
        if listener.is_none() {
            let bound = TcpListener::bind(address)?;
            bound.set_nonblocking(true)?;
            *listener = Some(bound);
        }
        Ok(())
    }

    fn fails_now(&self) {
        let _ = self.failed_at.compare_exchange(0, clock::now().0, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// Serves, or stands by, until the process ends. Takes [`WebOrder`]s, makes [`WebReport`]s.
pub fn play(settings: &Serve, mut tell: impl FnMut(WebReport) -> io::Result<()>) -> Result<(), Box<dyn Error>> {
    let deadline = Nanos(settings.deadline_ns);
    let app = Node::connect(&settings.agent)?.register(SERVICE_NAME, deadline)?;
    let shared = Arc::new(Shared {
        app: Mutex::new(app),
        listener: Mutex::new(None),
        deadline,
        state_bytes: settings.state_bytes,
        locks: Arc::default(),
        deadlock: AtomicBool::new(false),
        stick: AtomicBool::new(false),
        failed_at: AtomicU64::new(0),
        sessions: AtomicU64::new(0),
    });
    match &settings.duty {
        Duty::Serve => shared.listen(settings.address)?,
        Duty::StandBy { party, offers, old_owner, link } => {
            let party = PartyId::new(*party).ok_or("no number of a party")?;
            let here = backdoor_host::net::NetworkNamespace::current()?;
            let standby = StandBy {
                party,
                address: settings.address,
                link: link.clone(),
                links: Links::of(&here)?,
                announcer: Announcer::open(&here, link)?,
                old_owner: attach_local(old_owner)?.into_parts().0,
                has_address: false,
                shared: Arc::clone(&shared),
            };
            let listener = UnixListener::bind(offers)?;
            std::thread::Builder::new().name("offers".into()).spawn(move || standby.listen(&listener))?;
        }
    }
    let for_loop = Arc::clone(&shared);
    std::thread::Builder::new().name("event-loop".into()).spawn(move || {
        if let Err(error) = event_loop(&for_loop) {
            crate::say::err(&format!("the service's event loop ended: {error}"));
            std::process::exit(1);
        }
    })?;
    tell(WebReport::Ready)?;
    for line in io::stdin().lock().lines() {
        match serde_json::from_str(&line?)? {
            WebOrder::Deadlock => shared.deadlock.store(true, Ordering::Release),
            WebOrder::Stick => shared.stick.store(true, Ordering::Release),
        }
        let at_ns = loop {
            match shared.failed_at.load(Ordering::Acquire) {
                0 => std::thread::sleep(LOOK_AGAIN),
                at_ns => break at_ns,
            }
        };
        tell(WebReport::Failed { at_ns })?;
    }
    // The parent closed the pipe. Threads that hang can't be joined; the end of the process ends them.
    std::process::exit(0);
}

fn event_loop(shared: &Arc<Shared>) -> Result<(), Box<dyn Error>> {
    clock::use_exact_timers();
    let (mut next, mut complained) = (clock::now(), false);
    loop {
        if shared.deadlock.load(Ordering::Acquire) {
            shared.locks.deadlock(|| shared.fails_now());
        }
        let came = lock(&shared.listener).as_ref().map(TcpListener::accept);
        match came {
            Some(Ok((stream, peer))) => {
                if let Err(error) = welcome(stream, shared) {
                    crate::say::err(&format!("the client at {peer} is not served: {error}"));
                }
                lock(&shared.app).progress().advance();
                continue;
            }
            // Too many open files, say: those who are served are not to suffer.
            Some(Err(error)) if error.kind() != io::ErrorKind::WouldBlock => {
                if !std::mem::replace(&mut complained, true) {
                    crate::say::err(&format!("a client can't be taken in: {error}"));
                }
            }
            Some(Err(_)) | None => {}
        }
        lock(&shared.app).progress().advance();
        // Ticks that were missed are gone; to make up for them would look like progress that did not happen.
        next = (next + TICK).max(clock::now());
        clock::sleep_until(next);
    }
}

fn welcome(stream: TcpStream, shared: &Arc<Shared>) -> Result<(), Box<dyn Error>> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    let number = shared.sessions.fetch_add(1, Ordering::Relaxed);
    let link = TcpSession::accept(&lock(&shared.app), stream, &format!("client {number}"), shared.config())?;
    Conversation::begin(link, WebState::default(), Arc::clone(shared))
}

/// A session at work.
struct Conversation {
    link: TcpSession,
    state: WebState,
    shared: Arc<Shared>,
    /// Input that was read and not yet acted upon.
    input: Vec<u8>,
    bytes: Vec<u8>,
}

/// The session is in other hands.
#[derive(Debug, thiserror::Error)]
#[error("the session is in other hands")]
struct Lost;

impl Conversation {
    fn begin(link: TcpSession, state: WebState, shared: Arc<Shared>) -> Result<(), Box<dyn Error>> {
        let mut conversation = Conversation { link, state, shared, input: Vec::new(), bytes: Vec::new() };
        let thread = std::thread::Builder::new().name("session".into()).stack_size(STACK_BYTES);
        // Until its client leaves, or can't be understood, or is another's. Dropping the session says the one, and nothing of
        // the other.
        thread.spawn(move || drop(conversation.serve()))?;
        Ok(())
    }

    fn serve(&mut self) -> Result<(), Box<dyn Error>> {
        let mut buffer = vec![0; INPUT_BYTES];
        loop {
            while self.state.has_more() {
                let promised = self.state.promised();
                self.state.promise_more();
                self.answer(0, promised)?;
            }
            // What was read together with an earlier request may hold another one.
            let promised = self.state.promised();
            let taken = self.state.take(&self.input)?;
            if taken > 0 {
                self.answer(taken, promised)?;
                self.input.drain(..taken);
                continue;
            }
            self.link.idle();
            let length = self.link.read(&mut buffer)?;
            if length == 0 {
                return Ok(());
            }
            self.link.session().progress();
            self.input.extend_from_slice(&buffer[..length]);
        }
    }

    /// Commits the state, `taken` bytes of input further, and then sends what was promised past `promised`.
    fn answer(&mut self, taken: usize, promised: u64) -> Result<(), Box<dyn Error>> {
        if self.shared.stick.load(Ordering::Acquire) {
            self.shared.fails_now();
            loop {
                std::thread::park();
            }
        }
        *lock(&self.shared.locks.requests) += 1;
        self.state.forget(self.link.state().acknowledged);
        let output = self.state.output(promised..self.state.promised())?;
        self.state.to_bytes(&mut self.bytes);
        let mut doubt = Doubt::new(TakeoverConfig::default().patience);
        loop {
            match self.link.commit_and_send(&self.bytes, taken, &output) {
                Err(ServeError::Commit(CommitError::InDoubt { .. })) => {
                    // Advances the counter as long as that is right.
                    if self.link.session().duty(&mut doubt) == OwnersDuty::Stop {
                        return Err(Lost.into());
                    }
                    std::thread::sleep(LOOK_AGAIN);
                }
                Err(ServeError::Commit(CommitError::Lost { .. })) => return Err(Lost.into()),
                result => return Ok(result?),
            }
        }
    }
}

/// Carries on what it is offered.
struct StandBy {
    party: PartyId,
    address: SocketAddrV4,
    link: String,
    links: Links,
    announcer: Announcer,
    old_owner: ShmTransport,
    has_address: bool,
    shared: Arc<Shared>,
}

/// A session that is ready to be served here, and silent.
struct Prepared {
    session: PreparedSession,
    state: WebState,
}

/// An offer that is being taken up.
struct Taking {
    head: OfferHead,
    reinstatement: Reinstatement,
    actions: Vec<TargetAction>,
    prepared: Option<Prepared>,
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
        let answer = AnswerHead {
            session: offer.seen.session,
            epoch: offer.epoch.0,
            serving: false,
            why: None,
            prepared_ns: 0,
            served_ns: 0,
        };
        Taking { head, reinstatement, actions, prepared: None, serves: false, is_over: false, answer }
    }

    fn handle(&mut self, input: TargetInput) {
        self.reinstatement.handle(clock::now(), input, &mut self.actions);
    }
}

impl StandBy {
    fn listen(mut self, listener: &UnixListener) {
        while let Ok((stream, _)) = listener.accept() {
            // A taker that dies leaves what it has not offered to another.
            let _ = self.talk(stream);
        }
    }

    /// Offers come in batches: all sessions of a node. Nobody may be told that the address is here before all of them are,
    /// for what comes for a connection that isn't there is answered by a reset.
    fn talk(&mut self, mut taker: UnixStream) -> io::Result<()> {
        let mut from = io::BufReader::with_capacity(256 << 10, taker.try_clone()?);
        let mut batch = Vec::new();
        while let Some(head) = offers::receive::<OfferHead>(&mut from)? {
            let (payload, queues) = offers::receive_offer(&mut from, &head)?;
            let more = head.more;
            if let Some(offer) = head.offer() {
                let mut taking = Taking::new(self.party, head, offer);
                self.prepare(&mut taking, &payload, queues.as_ref());
                batch.push(taking);
            }
            if more > 0 {
                continue;
            }
            batch.iter_mut().for_each(|taking| self.take(taking));
            self.serve(&mut batch);
            for taking in batch.drain(..) {
                offers::send(&mut taker, &taking.answer, &[])?;
            }
        }
        Ok(())
    }

    /// Gets the session ready; it is silent.
    fn prepare(&mut self, taking: &mut Taking, payload: &[u8], queues: Option<&Queues>) {
        // The first thing that a reinstatement asks for.
        taking.actions.clear();
        let input = match self.prepared(&taking.head, payload, queues) {
            Ok(ready) => {
                taking.answer.prepared_ns = clock::now().0;
                taking.prepared = Some(ready);
                TargetInput::Prepared
            }
            Err(error) => {
                taking.answer.why = Some(error.to_string());
                TargetInput::CannotPrepare
            }
        };
        taking.handle(input);
    }

    /// Takes it, or learns that it can't.
    fn take(&mut self, taking: &mut Taking) {
        while !taking.is_over {
            for action in std::mem::take(&mut taking.actions) {
                match action {
                    TargetAction::Prepare => {}
                    TargetAction::Swap(swap) => {
                        let request = swap.request(WorkId(0), taking.head.claims(), taking.head.claim);
                        let result = request.map_or(Err(TransportError::OutOfBounds), |request| self.swap(request));
                        taking.handle(TargetInput::Swapped { swap, result });
                    }
                    TargetAction::Serve => taking.serves = true,
                    TargetAction::Discard => taking.prepared = None,
                    TargetAction::Answer(said) => {
                        taking.answer.serving = said == backdoor_core::takeover::Answer::Serving;
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
    fn serve(&self, batch: &mut [Taking]) {
        if !batch.iter().any(|taking| taking.serves) {
            return;
        }
        let announced = self.announcer.announce(*self.address.ip()).map_err(|error| error.to_string());
        for taking in batch.iter_mut().filter(|taking| taking.serves) {
            let Some(Prepared { session, state }) = taking.prepared.take() else { continue };
            taking.answer.served_ns = clock::now().0;
            let begin = || {
                let link = session.speak()?;
                link.stream().set_nodelay(true)?;
                Conversation::begin(link, state, Arc::clone(&self.shared))
            };
            let begun = begin().map_err(|error| error.to_string());
            // The session is this node's, and lost: nobody else can have it any more.
            taking.answer.why = announced.clone().and(begun).err();
        }
    }

    fn prepared(
        &mut self,
        head: &OfferHead,
        payload: &[u8],
        queues: Option<&Queues>,
    ) -> Result<Prepared, Box<dyn Error>> {
        if !self.has_address {
            match self.links.add_address(&self.link, *self.address.ip(), 32) {
                Err(error) if !matches!(error.cause(), Cause::AddressExists { .. }) => return Err(error.into()),
                _ => self.shared.listen(self.address)?,
            }
            self.has_address = true;
        }
        let state = WebState::from_bytes(SessionPayload::decode(payload)?.application())?;
        // What can't be made again is missed by whoever counts its bytes.
        let replay = |range: Range<u64>| match range.end.checked_sub(range.start) {
            Some(bytes) if bytes <= MAX_REFILL_BYTES as u64 => state.output(range).unwrap_or_default(),
            _ => Vec::new(),
        };
        let config = SessionConfig { deadline: Nanos(head.deadline_ns), ..self.shared.config() };
        let session = TcpSession::adopt(&lock(&self.shared.app), payload, queues, &head.name, config, replay)?;
        Ok(Prepared { session, state })
    }

    fn swap(&mut self, request: backdoor_core::transport::WorkRequest) -> Result<u64, TransportError> {
        self.old_owner.post(&[request]).map_err(|_| TransportError::LocalFault)?;
        let (mut completions, start): (Vec<Completion>, _) = (Vec::new(), clock::now());
        while clock::now() < start + SWAP_LIMIT {
            self.old_owner.poll(&mut completions);
            if let Some(completion) = completions.pop() {
                return match completion.result? {
                    Done::CompareSwapped { previous } => Ok(previous),
                    Done::Read | Done::Written => Err(TransportError::LocalFault),
                };
            }
        }
        Err(TransportError::Unreachable)
    }
}
