//! The process that watches a node, and carries the sessions of its service on at another when it fails.

use std::error::Error;
use std::io::BufRead;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use backdoor_core::Nanos;
use backdoor_core::channels::mirror::Limits;
use backdoor_core::detector::Detector;
use backdoor_core::hook_table::Purpose;
use backdoor_core::monitor::{Monitor, MonitorConfig};
use backdoor_core::progress_box::{EntityRecord, FailureLevel};
use backdoor_core::recovery::SessionToRecover;
use backdoor_core::recovery::policy::Remedy;
use backdoor_core::takeover::{Outcome, PartyId, TakeoverConfig};
use backdoor_host::attach::attach;
use backdoor_host::clock;
use backdoor_host::mirror::Mirror;
use backdoor_host::net::{Links, NetworkNamespace};
use serde::{Deserialize, Serialize};

use super::around::{Agent, Around};
use super::milestone::Milestone;
use super::party;
use super::remedy::{self, Choice, Known};
use super::rescue::{self, Memory, Plan, Surroundings};
use super::rescued::{Ending, Marks};
use super::supervisor::{self, Restarted};
use super::targets::{Heard, Target};
use crate::live::detector::DetectorKind;
use crate::live::notice::{Entity, What};
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
    /// Where sessions are offered: numbers and sockets.
    pub targets: Vec<(u32, PathBuf)>,
    /// The port that leads to the watched node, in this process's network namespace.
    pub port: String,
    /// The socket of the watched node's agent, if it can be asked for what its sockets hold.
    pub agent: Option<PathBuf>,
    /// The link to the clients, in this process's network namespace, and the service's addresses, if what passes there is to
    /// tell what the node's sockets held when its agent can't.
    pub mirror: Option<(String, Vec<SocketAddrV4>)>,
    /// What it does about a failure.
    pub remedy: Choice,
    /// Where whoever can start the service again on its node is asked, if there is one.
    pub supervisor: Option<PathBuf>,
    /// Whether whoever started it can start the node anew: see [`TakerReport::Reboot`].
    pub can_reboot: bool,
    /// Time between polls, in ns.
    pub poll_ns: u64,
    /// What to judge by.
    pub detector: DetectorKind,
    /// How long it tries, in ns.
    pub limit_ns: u64,
    /// Where it halts until it is told to go on, so that something can happen just then.
    pub halts_at: Option<Milestone>,
}

/// What it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TakerOrder {
    /// Take the node for failed, whatever the monitor says.
    Suspect,
    /// Go on from where it halts.
    GoOn,
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
    /// The node's agent is gone.
    AgentGone,
    /// It takes over.
    Decided {
        /// When, in monotonic ns.
        at_ns: u64,
        /// What was diagnosed.
        cause: String,
    },
    /// What came of having the service started again on its node.
    Restarted(Restarted),
    /// The node is to start anew. It waits to be told to go on when that is done.
    Reboot,
    /// Nothing that the policy knows can be done, or nothing more.
    NoRemedy,
    /// What is to be done at the node besides.
    Afterwards {
        /// For people.
        actions: Vec<String>,
    },
    /// It halts.
    Halted {
        /// Before this step.
        at: Milestone,
    },
    /// What came of one session.
    Session {
        /// Its number at the old owner.
        session: u64,
        /// Whether it was left to its owner, who is trusted again.
        left: bool,
        /// If another node has it: which, and the epoch of the offer that it took.
        moved: Option<(u32, u32)>,
        /// How it ended, for people.
        outcome: String,
        /// When it got how far.
        marks: Marks,
        /// Bytes of its state.
        state_bytes: u64,
        /// Whether it went on with all input that the old owner's kernel had acknowledged; `None` if nobody has said that
        /// it serves.
        input_known: Option<bool>,
    },
    /// It has done what it could.
    Done,
}

/// Watches, and takes over once; ends when that is done.
pub fn play(settings: &Taker, mut tell: impl FnMut(TakerReport) -> std::io::Result<()>) -> Result<(), Box<dyn Error>> {
    let me = PartyId::new(settings.party).ok_or("no number of a party")?;
    let (sender, heard) = mpsc::channel::<Heard>();
    let mut targets = Vec::new();
    for (number, path) in &settings.targets {
        let mut target = Target::new(PartyId::new(*number).ok_or("no number of a party")?, path, sender.clone());
        // Who is not there now may be when it is needed.
        let _ = target.connect();
        targets.push(target);
    }
    let here = NetworkNamespace::current()?;
    let links = Links::of(&here)?;
    let mut mirrors = Vec::new();
    for (link, service) in settings.mirror.iter().flat_map(|(link, of)| of.iter().map(move |service| (link, *service)))
    {
        mirrors.push(Mirror::open(&here, link, service, Limits::default())?);
    }
    let node = settings.node.to_attach()?;
    // A channel of its own, for the monitor's may have a READ under way; to the memory of the same agent.
    let mut channel = None;
    let orders = orders();
    let mut watch = Watch::new(WatchConfig {
        node: node.clone(),
        monitor: MonitorConfig::polling_every(Nanos(settings.poll_ns)),
        detector: settings.detector,
        spin: false,
        recover: false,
    });
    let (mut ready, mut agent_lives, mut notices) = (false, true, Vec::new());
    let (cause, affected, sessions, memory, mut transport, told_so) = loop {
        watch.turn(clock::now() + LOOK_EVERY, &mut notices);
        let order = orders.try_recv().ok().filter(|order| *order == TakerOrder::Suspect);
        let mut cause = order.map(|_| ("told so".to_owned(), usize::MAX));
        let told_so = cause.is_some();
        for notice in notices.drain(..) {
            match notice.what {
                What::Connected { incarnation, .. } => {
                    let attached = attach(&node).ok();
                    channel = attached.filter(|attached| attached.incarnation() == incarnation);
                }
                What::AgentGone => {
                    agent_lives = false;
                    tell(TakerReport::AgentGone)?;
                }
                What::Suspected { entity, .. } if is_served(&entity, watch.monitor().map(|(_, monitor)| monitor)) => {
                    tell(TakerReport::Suspected { at_ns: notice.at_ns })?;
                }
                What::Failure { cause: diagnosed, sessions, .. } if sessions > 0 => cause = Some((diagnosed, sessions)),
                _ => {}
            }
        }
        let Some((_, monitor)) = watch.monitor() else { continue };
        let Some(hooks) = monitor.hooks() else { continue };
        let memory = |purpose| hooks.find(purpose).map(|hook| hook.memory);
        let memory = match (channel.as_ref(), memory(Purpose::Monitoring), memory(Purpose::Recovery)) {
            (Some(channel), Some(progress), Some(states)) => {
                memory(Purpose::Claim).map(|claims| Memory { agent: channel.incarnation(), progress, states, claims })
            }
            _ => None,
        };
        if !std::mem::replace(&mut ready, memory.is_some()) && ready {
            tell(TakerReport::Ready)?;
        }
        // The fence cuts off the node, so all of its sessions are to be carried on, whichever failed.
        if let (Some((cause, affected)), Some(memory)) = (cause, memory)
            && let Some(channel) = channel.take()
        {
            let sessions: Vec<SessionToRecover> = monitor
                .entities()
                .filter(|entity| entity.record.state_box.is_some())
                .map(|entity| SessionToRecover { slot: entity.slot, record: *entity.record })
                .collect();
            break (cause, affected, sessions, memory, channel.into_parts().0, told_so);
        }
    };
    let decided = clock::now();
    let records: Vec<_> = sessions.iter().map(|session| session.record).collect();
    let parties: Vec<PartyId> = targets.iter().map(Target::party).collect();
    let mut known = Known {
        cause: &cause,
        affected: affected as u64,
        sessions: &records,
        can_restart: settings.supervisor.is_some() && agent_lives,
        targets: &parties,
        can_reboot: settings.can_reboot,
    };
    let mut to_do = remedy::to_do(settings.remedy, &known);
    tell(TakerReport::Decided { at_ns: decided.0, cause: cause.clone() })?;
    let plan = Plan {
        config: TakeoverConfig::default(),
        me,
        targets: parties.clone(),
        memory,
        until: decided + Nanos(settings.limit_ns),
    };
    let mut around = Around {
        links,
        port: settings.port.clone(),
        agent: Agent::new(settings.agent.clone(), !mirrors.is_empty()),
        mirrors,
        targets,
        suspicion: if told_so { None } else { watch.suspicion() },
        watch,
        halts_at: settings.halts_at,
        orders: &orders,
        tell: &mut tell,
    };
    around.reached(Milestone::Decided);
    let mut endings = Vec::new();
    while let Some(remedy) = to_do.remedies.first() {
        match remedy {
            Remedy::RestartInPlace => {
                let process = records.first().map_or(0, |record| record.process);
                let restarted = restarted(settings.supervisor.as_deref(), process);
                let helped = restarted.helped();
                (around.tell)(TakerReport::Restarted(restarted))?;
                if helped {
                    break;
                }
                known.can_restart = false;
                // Whoever serves there now is not whom that was about.
                around.suspicion = None;
            }
            Remedy::Takeover => {
                endings = rescue::rescue(plan.clone(), &sessions, &mut transport, &mut around, &heard);
                let moved = |ending: &Ending| matches!(ending.outcome, Some(Outcome::Moved { .. }));
                // What a session may be served by yet, the node's new start must not serve beside it.
                if endings.iter().any(|ending| moved(ending) || ending.in_doubt || is_left(ending)) {
                    break;
                }
                known.targets = &[];
            }
            Remedy::Reboot => {
                (around.tell)(TakerReport::Reboot)?;
                while orders.recv().is_ok_and(|order| order != TakerOrder::GoOn) {}
                break;
            }
        }
        if settings.remedy != Choice::Policy {
            break;
        }
        to_do = remedy::to_do(settings.remedy, &known);
    }
    if to_do.remedies.is_empty() {
        (around.tell)(TakerReport::NoRemedy)?;
    }
    let moved = || endings.iter().filter(|ending| matches!(ending.outcome, Some(Outcome::Moved { .. })));
    if moved().next().is_some() {
        around.reached(Milestone::Served);
    }
    for ending in &endings {
        (around.tell)(report(ending))?;
    }
    (around.tell)(TakerReport::Afterwards { actions: to_do.afterwards })?;
    (around.tell)(TakerReport::Done)?;
    moved().for_each(|ending| around.agent.let_go(ending.session.record.session));
    Ok(())
}

/// Whether an entity is the service or one of its sessions: neither the operating system, nor whoever keeps its counters.
fn is_served<D: Detector>(entity: &Entity, monitor: Option<&Monitor<D>>) -> bool {
    let is_os = |record: &EntityRecord| record.level == FailureLevel::Os;
    let keeps = |record: &EntityRecord| is_os(record) && record.process == entity.process;
    entity.level != FailureLevel::Os.name()
        && !monitor.is_some_and(|monitor| monitor.entities().any(|of_node| keeps(of_node.record)))
}

/// Has the service started again in place of `process`.
fn restarted(supervisor: Option<&Path>, process: u64) -> Restarted {
    let asked = supervisor.ok_or_else(|| "nobody at the node can start the service again".to_owned());
    asked
        .and_then(|path| supervisor::ask(path, process))
        .unwrap_or_else(|why| Restarted { why: Some(why), ..Restarted::default() })
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

/// Whether the session is its owner's as before.
fn is_left(ending: &Ending) -> bool {
    matches!(ending.outcome, Some(Outcome::GivenBack | Outcome::NotNeeded))
}

fn report(ending: &Ending) -> TakerReport {
    let Ending { session, outcome, marks, why, state_bytes, input_known, .. } = ending;
    let outcome_text = match outcome {
        Some(Outcome::Moved { to, .. }) => format!("moved to {}", party::name(to.number())),
        Some(Outcome::GivenBack) => "given back".into(),
        Some(Outcome::NotNeeded) => "not needed".into(),
        Some(Outcome::Abandoned { why: reason, .. }) => reason.to_string(),
        None => "not taken over in time".into(),
    };
    let outcome_text = why.as_ref().map_or(outcome_text.clone(), |why| format!("{outcome_text}: {why}"));
    TakerReport::Session {
        session: session.record.session,
        moved: match outcome {
            Some(Outcome::Moved { to, epoch }) => Some((to.number(), epoch.0)),
            _ => None,
        },
        left: is_left(ending),
        outcome: outcome_text,
        marks: *marks,
        state_bytes: *state_bytes,
        input_known: *input_known,
    }
}
