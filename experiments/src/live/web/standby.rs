//! The process that stands by on the other node: it gets sessions ready that it is offered, takes those that it can, and
//! lets them speak.

use std::error::Error;
use std::io;
use std::net::SocketAddrV4;
use std::ops::Range;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use backdoor_core::Nanos;
use backdoor_core::channels::SessionPayload;
use backdoor_core::takeover::{Offer, PartyId, Reinstatement, TakeoverConfig, TargetAction, TargetInput};
use backdoor_core::transport::{Completion, Done, Transport, TransportError, WorkId};
use backdoor_host::attach::Attachment;
use backdoor_host::clock;
use backdoor_host::net::{Announcer, Cause, Links};
use backdoor_host::serve::{SessionConfig, TcpSession};
use backdoor_host::tcp::{MAX_REFILL_BYTES, Queues};

use super::conversation::{Conversation, Silent};
use super::offers::{self, AnswerHead, OfferHead};
use super::serve::Shared;
use super::state::WebState;
use super::worker::Counting;
use crate::live::two_locks::lock;

/// How long a swap is waited for.
const SWAP_LIMIT: Nanos = Nanos::from_millis(500);

/// Carries on what it is offered.
pub(super) struct StandBy {
    pub(super) party: PartyId,
    pub(super) address: SocketAddrV4,
    pub(super) link: String,
    pub(super) links: Links,
    pub(super) announcer: Announcer,
    pub(super) old_owner: Attachment,
    pub(super) has_address: bool,
    pub(super) shared: Arc<Shared>,
}

/// A session that is ready to be served here, and silent.
enum Prepared {
    /// With its client's connection.
    Client(Silent),
    /// The worker's part of one.
    Counting(Box<Counting>),
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
    /// Takes offers up, one taker after the other, until the process ends.
    pub(super) fn listen(mut self, listener: &UnixListener) {
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
        // A worker has no clients to tell.
        let announced = match self.shared.worker {
            Some(_) => Ok(()),
            None => self.announcer.announce(*self.address.ip()).map_err(|error| error.to_string()),
        };
        let mut speaking = Vec::new();
        for taking in batch.iter_mut().filter(|taking| taking.serves) {
            let Some(prepared) = taking.prepared.take() else { continue };
            taking.answer.served_ns = clock::now().0;
            match (prepared, &self.shared.worker) {
                (Prepared::Client(silent), _) => speaking.push((&mut taking.answer, silent.speak())),
                (Prepared::Counting(counting), Some(worker)) => {
                    taking.answer.why = worker.hold(*counting).err().map(|error| error.to_string());
                }
                (Prepared::Counting(_), None) => taking.answer.why = Some("there is no worker here".into()),
            }
        }
        for (answer, spoke) in speaking {
            let spoke = spoke.recv().map_err(|_| "its thread has ended".to_owned());
            let spoke = spoke.and_then(|spoke| spoke.map_err(|error| error.to_string()));
            // The session is this node's, and lost: nobody else can have it any more. Its client was told.
            answer.why = announced.clone().and(spoke).err();
        }
    }

    fn prepared(
        &mut self,
        head: &OfferHead,
        payload: &[u8],
        queues: Option<&Queues>,
    ) -> Result<Prepared, Box<dyn Error>> {
        let deadline = Nanos(head.deadline_ns);
        if self.shared.worker.is_some() {
            let counting = Counting::adopt(&self.shared, payload, &head.name, deadline)?;
            return Ok(Prepared::Counting(Box::new(counting)));
        }
        if !self.has_address {
            match self.links.add_address(&self.link, *self.address.ip(), 32) {
                Err(error) if !matches!(error.cause(), Cause::AddressExists { .. }) => return Err(error.into()),
                _ => self.shared.listen(self.address)?,
            }
            self.has_address = true;
        }
        let decoded = SessionPayload::decode(payload)?;
        let state = WebState::from_bytes(decoded.application())?;
        let asks = self.shared.asks_again(&decoded);
        // What can't be made again is missed by whoever counts its bytes.
        let replay = |range: Range<u64>| match range.end.checked_sub(range.start) {
            Some(bytes) if bytes <= MAX_REFILL_BYTES as u64 => state.output(range).unwrap_or_default(),
            _ => Vec::new(),
        };
        let config = SessionConfig { deadline, ..self.shared.config() };
        let session = TcpSession::adopt(&lock(&self.shared.app), payload, queues, &head.name, config, replay)?;
        Ok(Prepared::Client(Conversation::prepare(session, state, asks, Arc::clone(&self.shared))?))
    }

    fn swap(&mut self, request: backdoor_core::transport::WorkRequest) -> Result<u64, TransportError> {
        self.old_owner.transport().post(&[request]).map_err(|_| TransportError::LocalFault)?;
        let (mut completions, start): (Vec<Completion>, _) = (Vec::new(), clock::now());
        while clock::now() < start + SWAP_LIMIT {
            self.old_owner.transport().poll(&mut completions);
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
