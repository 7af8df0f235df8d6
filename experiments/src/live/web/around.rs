//! What surrounds a taker here: a switch whose port can be closed, the node's agent, and targets behind sockets.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use backdoor_core::channels::{Channel, SessionPayload};
use backdoor_host::app::Node;
use backdoor_host::mirror::Mirror;
use backdoor_host::net::Links;
use backdoor_host::serve::CLIENT;
use backdoor_host::tcp::Queues;
use backdoor_host::wire::ConnectionError;

use super::milestone::Milestone;
use super::rescue::{Batch, Surroundings};
use super::taker::{TakerOrder, TakerReport};
use super::targets::Target;
use crate::live::watch::{Suspicion, Watch};

/// How long an agent may take for an answer that can be done without. It answers within a millisecond, if its machine is not
/// busy.
const AGENT_PATIENCE: Duration = Duration::from_millis(50);

/// The same if nobody else can tell what it knows: without the input that its node had acknowledged, a client that sends
/// may wait for ever, which is worse than that all wait for this long. So is a service that is not started again.
pub(super) const AGENT_ALONE_PATIENCE: Duration = Duration::from_secs(1);

/// How often it is asked for a socket's queues that it says it does not have, and the pause in between: a service that has
/// just opened a session may not have handed its socket over yet.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_micros(500);

/// The node's agent, as long as it answers.
pub(super) struct Agent {
    /// Its socket; `None` if there is nobody to ask.
    path: Option<PathBuf>,
    /// For how long each answer is waited for.
    patience: Duration,
    /// Why it is not asked any more.
    silent: Option<String>,
    /// Opened when it is needed: an agent closes one over which nothing is asked.
    connection: Option<Node>,
}

impl Agent {
    /// The agent at `path`, if there is one to ask; `has_mirror` if somebody else knows what its node had acknowledged.
    pub(super) fn new(path: Option<PathBuf>, has_mirror: bool) -> Self {
        let patience = if has_mirror { AGENT_PATIENCE } else { AGENT_ALONE_PATIENCE };
        Agent { path, patience, silent: None, connection: None }
    }

    /// The way to it; `None` if there is nobody to ask.
    fn connected(&mut self) -> Option<Result<Node, String>> {
        let path = self.path.as_ref()?;
        if let Some(why) = &self.silent {
            return Some(Err(why.clone()));
        }
        let connection = match &self.connection {
            Some(connection) => Ok(connection.clone()),
            None => Node::connect_within(path, self.patience),
        };
        self.connection = connection.as_ref().ok().cloned();
        Some(self.heard(connection))
    }

    /// One that does not answer is not asked a second time, for each session would wait for it.
    fn heard<T>(&mut self, answer: Result<T, ConnectionError>) -> Result<T, String> {
        answer.map_err(|error| {
            let why = error.to_string();
            if !matches!(error, ConnectionError::Refused { .. }) {
                (self.silent, self.connection) = (Some(why.clone()), None);
            }
            why
        })
    }

    /// The queues of these sessions, in their order.
    fn queues(&mut self, sessions: &[u64]) -> Vec<Result<Option<Queues>, String>> {
        let mut found = vec![Ok(None); sessions.len()];
        let mut wanted: Vec<usize> = (0..sessions.len()).collect();
        for attempt in 0..ATTEMPTS {
            if wanted.is_empty() {
                break;
            }
            if attempt > 0 {
                std::thread::sleep(PAUSE);
            }
            let answers = match self.connected() {
                None => break,
                Some(Ok(agent)) => {
                    let numbers: Vec<u64> = wanted.iter().map(|at| sessions[*at]).collect();
                    agent.queues_of_all(&numbers).into_iter().map(|answer| self.heard(answer)).collect()
                }
                Some(Err(why)) => vec![Err(why); wanted.len()],
            };
            wanted.iter().zip(answers).for_each(|(at, answer)| found[*at] = answer.map(Some));
            wanted.retain(|at| self.silent.is_none() && found[*at].is_err());
        }
        found
    }

    /// Has it close what it keeps of a connection that lives elsewhere now. Nothing depends on it.
    pub(super) fn let_go(&mut self, session: u64) {
        if let Some(Ok(agent)) = self.connected() {
            let _ = self.heard(agent.let_go(session));
        }
    }
}

/// All of it.
pub(super) struct Around<'a> {
    pub(super) links: Links,
    pub(super) port: String,
    pub(super) agent: Agent,
    /// What passed between the node and its clients, for each of its addresses.
    pub(super) mirrors: Vec<Mirror>,
    pub(super) targets: Vec<Target>,
    /// Whoever watches the node.
    pub(super) watch: Watch,
    /// Its suspicion, if it was that which decided.
    pub(super) suspicion: Option<Suspicion>,
    pub(super) halts_at: Option<Milestone>,
    pub(super) orders: &'a Receiver<TakerOrder>,
    pub(super) tell: &'a mut dyn FnMut(TakerReport) -> io::Result<()>,
}

impl Surroundings for Around<'_> {
    fn fence(&mut self) -> Result<(), String> {
        self.links.set_down(&self.port).map_err(|error| error.to_string())
    }

    fn queues(&mut self, sessions: &[u64]) -> Vec<Result<Option<Queues>, String>> {
        self.agent.queues(sessions)
    }

    fn mirrored(&mut self, payload: &[u8]) -> Result<Option<Queues>, String> {
        let payload = SessionPayload::decode(payload).map_err(|error| error.to_string())?;
        let Some(Channel::Tcp(state)) = payload.channel(CLIENT) else { return Ok(None) };
        let looks = |mirror: &&Mirror| mirror.service() == state.birth.local;
        let Some(mirror) = self.mirrors.iter().find(looks) else { return Ok(None) };
        mirror.queues(&state).map(Some).map_err(|error| error.to_string())
    }

    fn offer(&mut self, batches: &[Batch<'_>]) -> Vec<Result<(), String>> {
        let offer = |target: Option<&mut Target>, batch: &Batch<'_>| {
            target.ok_or("there is no such target")?.offer(&batch.offered).map_err(|error| error.to_string())
        };
        if let [batch] = batches {
            return vec![offer(self.targets.iter_mut().find(|target| target.party() == batch.to), batch)];
        }
        // Each by a thread of its own: one that takes no bytes is waited for.
        let mut targets: HashMap<_, _> = self.targets.iter_mut().map(|target| (target.party(), target)).collect();
        std::thread::scope(|scope| {
            let offering = batches.iter().map(|batch| {
                let target = targets.remove(&batch.to);
                scope.spawn(move || offer(target, batch))
            });
            let offering: Vec<_> = offering.collect();
            offering
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err("it can't be asked".into())))
                .collect()
        })
    }

    fn check(&self, payload: &[u8]) -> Result<(), &'static str> {
        SessionPayload::check(payload)
    }

    fn is_trusted_again(&mut self) -> bool {
        let Some(suspicion) = &self.suspicion else { return false };
        self.watch.look_at_once(&mut Vec::new());
        self.watch.has_passed(suspicion)
    }

    fn reached(&mut self, milestone: Milestone) {
        if self.halts_at != Some(milestone) {
            return;
        }
        self.halts_at = None;
        // Who can't be told can't say when to go on either.
        if (self.tell)(TakerReport::Halted { at: milestone }).is_ok() {
            while self.orders.recv().is_ok_and(|order| order != TakerOrder::GoOn) {}
        }
    }
}
