//! The processes of an experiment: this same program, told by a hidden subcommand which part to play.
//!
//! No part outlives who started it, however that ends. Each asks the kernel at its start to be killed with its parent,
//! and then looks whether the parent had died before that; the agent and the saboteur instead end by themselves when the
//! pipe to their standard input closes, because they have a directory to remove, or a link to bring up. A part is a process group of its own, so that a Ctrl-C
//! in a terminal reaches only the parent, which then ends its parts in order.
//!
//! A [`Part`] is a child of this process (`ChildPart`), or a child of a [stage](super::stage) on another machine. It
//! is started, talked to and ended in the same way.

mod agent;
mod child;
mod link;
mod load;
mod monitor;
mod process;
mod saboteur;
mod state;
mod worker;

pub(in crate::live) use agent::check_place_for_sockets;
pub use agent::{QUEUE_PERIOD, Ready, RemoteReady};
pub(in crate::live) use child::ChildPart;
pub use child::PartSignal;
pub use process::{Part, PartError, Place};
pub use saboteur::{NodeFault, Sabotage, SaboteurReport};
pub use state::{MIN_STATE_BYTES, content};
pub use worker::{Order, Report, WORKER_NAME, session_name};

use std::io::Read;
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use super::detector::DetectorKind;
use super::overhead::{self, Counters};
use super::reach::{NodeAddress, Offer};
use super::web;
use super::web::serve::Serve;
use super::web::supervisor::Supervise;
use super::web::taker::Taker;
use crate::config::Span;

/// Name of the hidden subcommand of `backdoor live`.
pub const SUBCOMMAND: &str = "part";

/// Which part to play, and how.
///
/// A change of this is a change of the protocol between orchestrators and stages, which has a
/// [version](super::stage::protocol::VERSION).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "part", rename_all = "snake_case")]
pub enum Role {
    /// The agent, in a temporary directory of its own. Reports `{"socket": …}`.
    Agent {
        /// Room for entities.
        capacity: usize,
        /// Words for State Boxes.
        state_words: usize,
        /// Deadline of the operating system's counters.
        os_deadline: Span,
        /// Sockets that it can watch.
        queues: usize,
        /// How long what died is kept.
        retain: Span,
        /// How it serves network cards, if it does.
        offer: Option<Offer>,
    },
    /// The service that fails. Takes [`Order`]s, makes [`Report`]s.
    Worker {
        /// The agent's socket.
        socket: String,
        /// Deadline of the application and of each session.
        deadline: Span,
        /// Bytes of each session's state.
        state_bytes: usize,
        /// Seed of the states' contents.
        seed: u64,
        /// Whether a stuck session spins instead of blocking.
        stuck_spins: bool,
        /// Whether it has the agent watch its sessions' sockets.
        queues: bool,
        /// Where to wait for clients. A stage puts its own address here.
        listen: IpAddr,
    },
    /// A busy loop.
    Load {
        /// How long at most.
        lifetime: Span,
    },
    /// The monitor. Makes [`Notice`](super::notice::Notice)s.
    Monitor {
        /// Where it finds the node.
        node: NodeAddress,
        /// Time between polls.
        poll: Span,
        /// What to judge by.
        detector: DetectorKind,
        /// Whether to spin instead of sleeping the last bit.
        spin: bool,
    },
    /// A service whose sessions can be carried on, or its heir. Takes [`WebOrder`](super::web::serve::WebOrder)s, makes
    /// [`WebReport`](super::web::serve::WebReport)s.
    Web(Serve),
    /// Starts a service again on its node. Makes [`SupervisorReport`](super::web::supervisor::SupervisorReport)s.
    Supervisor(Supervise),
    /// Watches a node and takes its sessions over. Takes [`TakerOrder`](super::web::taker::TakerOrder)s, makes
    /// [`TakerReport`](super::web::taker::TakerReport)s.
    Taker(Taker),
    /// A service that is measured. Says [`CountersReady`](super::overhead::CountersReady).
    Counters(Counters),
    /// The program curl, with these arguments. Reads and writes what its parent gives it.
    Curl {
        /// Its arguments.
        arguments: Vec<String>,
    },
    /// Makes its machine fail. Takes a [`Sabotage`], makes [`SaboteurReport`]s.
    Saboteur {
        /// How.
        fault: NodeFault,
    },
}

impl Role {
    /// What its process is called.
    pub const fn name(&self) -> &'static str {
        match self {
            Role::Agent { .. } => "agent",
            Role::Worker { .. } => "worker",
            Role::Load { .. } => "load",
            Role::Monitor { .. } => "monitor",
            Role::Web(_) => "service",
            Role::Supervisor(_) => "supervisor",
            Role::Taker(_) => "taker",
            Role::Counters(_) => "counters",
            Role::Curl { .. } => "curl",
            Role::Saboteur { .. } => "saboteur",
        }
    }

    /// What starts it from `program`. The calling thread must outlive it.
    pub(in crate::live) fn command(self, program: &Path) -> std::io::Result<Command> {
        let task = serde_json::to_string(&Task { parent: std::process::id(), role: self })?;
        let mut command = Command::new(program);
        command.args(["live", SUBCOMMAND, &task]).process_group(0);
        Ok(command)
    }

    /// Whether it ends when its standard input closes, having something to clean up. The others are killed.
    const fn ends_by_itself(&self) -> bool {
        matches!(self, Role::Agent { .. } | Role::Saboteur { .. })
    }
}

/// What a part is told on its command line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    /// Who started it.
    pub parent: u32,
    /// What to do.
    pub role: Role,
}

/// Plays the part that `task` describes, to its end. Fails with a sentence for the user.
pub fn play(task: &str) -> Result<(), String> {
    let task: Task =
        serde_json::from_str(task).map_err(|error| format!("this subcommand is for the program itself: {error}"))?;
    if !task.role.ends_by_itself() && rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).is_err() {
        return Err("the kernel does not offer to end a process with its parent".into());
    }
    if rustix::process::getppid().map(Pid::as_raw_nonzero).map(|pid| pid.get() as u32) != Some(task.parent) {
        return Err("who started this part has ended".into());
    }
    let name = task.role.name();
    let outcome = match task.role {
        Role::Agent { capacity, state_words, os_deadline, queues, retain, offer } => {
            let room = agent::Room { capacity, state_words, queues };
            agent::play(room, os_deadline.0, retain.0, offer.as_ref())
        }
        Role::Worker { socket, deadline, state_bytes, seed, stuck_spins, queues, listen } => {
            let settings = worker::Settings { deadline: deadline.0, state_bytes, seed, stuck_spins, queues, listen };
            worker::play(&socket, settings)
        }
        Role::Load { lifetime } => {
            load::play(lifetime.0);
            Ok(())
        }
        Role::Monitor { node, poll, detector, spin } => monitor::play(node, poll.0, detector, spin),
        Role::Web(settings) => web::serve::play(&settings, |report| tell(&report)),
        Role::Supervisor(settings) => web::supervisor::play(&settings, |report| tell(&report)),
        Role::Taker(settings) => web::taker::play(&settings, |report| tell(&report)),
        Role::Counters(settings) => overhead::play(&settings, |ready| tell(&ready)),
        // What was asked of the kernel above, a program that takes this one's place has not to ask again.
        Role::Curl { arguments } => Err(Command::new("curl").args(arguments).exec().into()),
        Role::Saboteur { fault } => saboteur::play(&fault),
    };
    outcome.map_err(|error| format!("{name} process: {error}"))
}

/// A flag that is set once the parent closes the pipe to standard input, be it by dying.
fn parent_gone() -> Arc<AtomicBool> {
    let gone = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&gone);
    std::thread::spawn(move || {
        let mut rest = [0; 64];
        while std::io::stdin().read(&mut rest).is_ok_and(|bytes| bytes > 0) {}
        flag.store(true, Ordering::Release);
    });
    gone
}

/// Writes one line for the parent.
fn tell(message: &impl Serialize) -> std::io::Result<()> {
    use std::io::Write;
    let mut line = serde_json::to_string(message)?;
    line.push('\n');
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.flush()
}
