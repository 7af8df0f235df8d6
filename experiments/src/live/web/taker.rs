//! The process that watches a node, and carries the sessions of its service on at another when it fails.

use std::error::Error;
use std::io::BufRead;
use std::net::SocketAddrV4;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc;

use backdoor_core::Nanos;
use backdoor_core::channels::mirror::Limits;
use backdoor_core::channels::{Channel, SessionPayload};
use backdoor_core::hook_table::Purpose;
use backdoor_core::monitor::MonitorConfig;
use backdoor_core::recovery::SessionToRecover;
use backdoor_core::takeover::{Outcome, PartyId, TakeoverConfig};
use backdoor_host::app::Node;
use backdoor_host::attach::attach;
use backdoor_host::clock;
use backdoor_host::mirror::Mirror;
use backdoor_host::net::{Links, NetworkNamespace};
use backdoor_host::serve::CLIENT;
use backdoor_host::tcp::Queues;
use serde::{Deserialize, Serialize};

use super::offers::{self, AnswerHead, OfferHead};
use super::rescue::{self, Answered, Ending, Marks, Memory, Surroundings};
use crate::live::detector::DetectorKind;
use crate::live::notice::What;
use crate::live::reach::NodeAddress;
use crate::live::watch::{Watch, WatchConfig};

/// How often it looks whether it was told something.
const LOOK_EVERY: Nanos = Nanos::from_millis(5);

/// How to take over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taker {
    /// Where the watched node is.
    pub node: NodeAddress,
    /// Its number among the parties.
    pub party: u32,
    /// Where sessions are offered: numbers and sockets, in the order in which they are asked.
    pub targets: Vec<(u32, PathBuf)>,
    /// The port that leads to the watched node, in this process's network namespace.
    pub port: String,
    /// The socket of the watched node's agent, if it can be asked for what its sockets hold.
    pub agent: Option<PathBuf>,
    /// The link to the clients, in this process's network namespace, and the service's address, if what passes there is to
    /// tell what the node's sockets held when its agent can't.
    pub mirror: Option<(String, SocketAddrV4)>,
    /// Time between polls, in ns.
    pub poll_ns: u64,
    /// What to judge by.
    pub detector: DetectorKind,
    /// How long it tries, in ns.
    pub limit_ns: u64,
}

/// What it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TakerOrder {
    /// Take the node for failed, whatever the monitor says.
    Suspect,
}

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TakerReport {
    /// It watches.
    Ready,
    /// The service, or one of its sessions, is suspected.
    Suspected {
        /// When, in monotonic ns.
        at_ns: u64,
    },
    /// It takes over.
    Decided {
        /// When, in monotonic ns.
        at_ns: u64,
        /// What was diagnosed.
        cause: String,
        /// Sessions that are to be carried on.
        sessions: u64,
    },
    /// What came of one session.
    Session {
        /// Its number at the old owner.
        session: u64,
        /// Whether another node serves it.
        moved: bool,
        /// How it ended, for people.
        outcome: String,
        /// When it got how far.
        marks: Marks,
        /// Bytes of its state.
        state_bytes: u64,
    },
    /// It has done what it could.
    Done {
        /// When, in monotonic ns.
        at_ns: u64,
    },
}

/// Watches, and takes over once; ends when that is done.
pub fn play(settings: &Taker, mut tell: impl FnMut(TakerReport) -> std::io::Result<()>) -> Result<(), Box<dyn Error>> {
    let me = PartyId::new(settings.party).ok_or("no number of a party")?;
    let (sender, answers) = mpsc::channel::<Answered>();
    let mut targets = Vec::new();
    for (number, path) in &settings.targets {
        let party = PartyId::new(*number).ok_or("no number of a party")?;
        let stream = UnixStream::connect(path)?;
        let (mut reader, sender) = (stream.try_clone()?, sender.clone());
        // Ends with the target, or with this process.
        std::thread::spawn(move || {
            while let Ok(Some(answer)) = offers::receive::<AnswerHead>(&mut reader) {
                if sender.send((party, answer)).is_err() {
                    return;
                }
            }
        });
        targets.push((party, stream));
    }
    drop(sender);
    let here = NetworkNamespace::current()?;
    let open = |(link, service): &(String, SocketAddrV4)| Mirror::open(&here, link, *service, Limits::default());
    let mut world = World {
        links: Links::of(&here)?,
        mirror: settings.mirror.as_ref().map(open).transpose()?,
        port: settings.port.clone(),
        agent: settings.agent.clone(),
        connection: None,
        targets,
    };
    // A channel of its own: the monitor's may have a READ under way.
    let node = settings.node.to_attach()?;
    let (mut transport, _link) = attach(&node)?.into_parts();
    let orders = orders();
    let mut watch = Watch::new(WatchConfig {
        node,
        monitor: MonitorConfig::polling_every(Nanos(settings.poll_ns)),
        detector: settings.detector,
        spin: false,
        recover: false,
    });
    let (mut ready, mut notices) = (false, Vec::new());
    let (cause, sessions, memory) = loop {
        watch.turn(clock::now() + LOOK_EVERY, &mut notices);
        let mut cause = orders.try_recv().ok().map(|TakerOrder::Suspect| "told so".to_owned());
        for notice in notices.drain(..) {
            match notice.what {
                What::Suspected { .. } => tell(TakerReport::Suspected { at_ns: notice.at_ns })?,
                What::Failure { cause: diagnosed, sessions, .. } if sessions > 0 => cause = Some(diagnosed),
                _ => {}
            }
        }
        let Some((_, monitor)) = watch.monitor() else { continue };
        let Some(hooks) = monitor.hooks() else { continue };
        let memory = hooks.find(Purpose::Recovery).zip(hooks.find(Purpose::Claim));
        if !std::mem::replace(&mut ready, memory.is_some()) && ready {
            tell(TakerReport::Ready)?;
        }
        // The fence cuts off the node, so all of its sessions are to be carried on, whichever failed.
        if let (Some(cause), Some((states, claims))) = (cause, memory) {
            let sessions: Vec<SessionToRecover> = monitor
                .entities()
                .filter(|entity| entity.record.state_box.is_some())
                .map(|entity| SessionToRecover { slot: entity.slot, record: *entity.record })
                .collect();
            break (cause, sessions, Memory { states: states.memory, claims: claims.memory });
        }
    };
    let decided = clock::now();
    let count = sessions.len() as u64;
    tell(TakerReport::Decided { at_ns: decided.0, cause, sessions: count })?;
    let names: Vec<PartyId> = world.targets.iter().map(|(party, _)| *party).collect();
    let until = decided + Nanos(settings.limit_ns);
    let config = TakeoverConfig::default();
    let endings = rescue::rescue(config, me, &names, &sessions, memory, &mut transport, &mut world, &answers, until);
    let at_ns = clock::now().0;
    for ending in &endings {
        tell(report(ending))?;
    }
    tell(TakerReport::Done { at_ns })?;
    Ok(())
}

/// Orders as they come in, line by line; read by a thread of its own.
fn orders() -> mpsc::Receiver<TakerOrder> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let lines = std::io::stdin().lock().lines().map_while(Result::ok);
        lines.filter_map(|line| serde_json::from_str(&line).ok()).try_for_each(|order| sender.send(order))
    });
    receiver
}

fn report(ending: &Ending) -> TakerReport {
    let Ending { session, outcome, marks, why, state_bytes } = ending;
    let outcome_text = match outcome {
        Some(Outcome::Moved { to, .. }) => format!("moved to {}", to.number()),
        Some(Outcome::GivenBack) => "given back".into(),
        Some(Outcome::NotNeeded) => "not needed".into(),
        Some(Outcome::Abandoned { why: reason, .. }) => reason.to_string(),
        None => "not taken over in time".into(),
    };
    let outcome_text = why.as_ref().map_or(outcome_text.clone(), |why| format!("{outcome_text}: {why}"));
    TakerReport::Session {
        session: session.record.session,
        moved: matches!(outcome, Some(Outcome::Moved { .. })),
        outcome: outcome_text,
        marks: *marks,
        state_bytes: *state_bytes,
    }
}

/// What surrounds a rescue here: a switch whose port can be closed, the node's agent, and targets behind sockets.
struct World {
    links: Links,
    port: String,
    /// The socket of the node's agent, if it can be asked.
    agent: Option<PathBuf>,
    /// Opened when it is needed: an agent closes one over which nothing is asked.
    connection: Option<Node>,
    mirror: Option<Mirror>,
    targets: Vec<(PartyId, UnixStream)>,
}

impl Surroundings for World {
    fn fence(&mut self) -> Result<(), String> {
        self.links.set_down(&self.port).map_err(|error| error.to_string())
    }

    fn queues(&mut self, session: u64) -> Result<Option<Queues>, String> {
        let Some(path) = &self.agent else { return Ok(None) };
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => Node::connect(path).map_err(|error| error.to_string())?,
        };
        let queues = connection.queues(session).map_err(|error| error.to_string())?;
        self.connection = Some(connection);
        Ok(Some(queues))
    }

    fn mirrored(&mut self, payload: &[u8]) -> Result<Option<Queues>, String> {
        let Some(mirror) = &self.mirror else { return Ok(None) };
        let payload = SessionPayload::decode(payload).map_err(|error| error.to_string())?;
        let Some(Channel::Tcp(state)) = payload.channel(CLIENT) else { return Ok(None) };
        mirror.queues(&state).map(Some).map_err(|error| error.to_string())
    }

    fn offer(&mut self, to: PartyId, head: OfferHead, payload: &[u8], queues: Option<&Queues>) -> Result<(), String> {
        let target = self.targets.iter_mut().find(|(party, _)| *party == to).ok_or("there is no such target")?;
        offers::send_offer(&mut target.1, head, payload, queues).map_err(|error| error.to_string())
    }

    fn check(&self, payload: &[u8]) -> Result<(), &'static str> {
        SessionPayload::check(payload)
    }
}
