//! How long until a client whose server died in the middle of a transfer goes on, and does it get every byte?
//!
//! One run: a client, two nodes and a switch, each in a network namespace; a service on node A, its heir on node B, a
//! monitor behind the switch that reads node A's memory. Somewhere in the middle of the transfer node A fails. Whoever
//! watches it takes its sessions over: claims them, cuts node A off, reads the State Boxes, hands them to node B,
//! which recreates the connections; the client, an ordinary one, is told nothing.
//!
//! # Moments
//! | column | from | to |
//! |---|---|---|
//! | `detection_ms` | the failure | the first suspicion of the service or of one of its sessions |
//! | `claim_ms` | the decision (the diagnosis has settled) | every claim stands, with no way back |
//! | `fence_ms` | | the switch has closed node A's port |
//! | `extract_ms` | | the last State Box is here |
//! | `reinstate_ms` | | the last connection begins to speak at node B |
//! | `first_byte_ms` | the decision | the first byte that moves at the client after its connection began to speak |
//! | `outage_ms` | | the longest time in which nothing moved over one of the client's connections, over the whole transfer, and up to the end of the run if it did not finish |
//!
//! Of many sessions, a phase ends with the last of them. All processes read one monotonic clock.
//!
//! # Several heirs
//! With `heirs` above 1, nodes B, C and so on stand by, and the service has as many addresses: for a client finds an address at
//! one node at a time. [`ClientKind::Many`] connects to them by turns. All sessions of an address go on at the same node; which
//! one decides core's [`spread_groups`](backdoor_core::recovery::policy::spread_groups), by how many sessions the addresses have.
//! One that is dead or says no is passed over at once, one that does not answer after a second (the takeover's
//! [`offer_timeout`](backdoor_core::takeover::TakeoverConfig::offer_timeout)); others are not kept waiting by it. Two nodes never
//! have the same address: each asks on the link before it takes the first session of an address, and declines if another one
//! has it or asks, too. So when a node has taken some sessions of an address and has no room for the others, these are not carried
//! on; and an address without any session goes to no node. What goes wrong with an heir, goes wrong with node B. `moved_to`
//! counts sessions by node; in `trouble` nodes are parties of the takeover, of which B is number 2, and C, D and E are 5 to 7.
//!
//! # A service of two processes
//! In a pair, a front talks to clients, and a worker counts their requests, over a link between the two. A session then has
//! a State Box in each, and the heirs are two processes, too: both State Boxes are carried on, whichever process failed,
//! and the heirs' ends of the link send again what was under way.
//!
//! # A second failure
//! With `then`, node B fails, too, in the middle of what is left of the transfer, after it has taken over all sessions. A
//! third node stands by for its sessions, and a second taker watches it from the end of the first takeover on. The columns
//! `then_detection_ms` and `then_first_byte_ms` are of that failure, and `outage_ms` is of the longer silence.
//!
//! # Other remedies
//! With the remedy `restart` nobody claims sessions and nothing is cut off: a supervisor on node A ends the service's process,
//! if it has not ended, and starts another, which re-adopts the sessions over their own sockets. `reinstate_ms` is then the
//! time from the decision until it has taken up the last one.
//!
//! With the remedy `reboot` node A starts anew: its processes are ended, which its kernel tells the clients by a reset, or by the
//! end of the connection where nothing was left unread; after `boot_time` there is another kernel at its addresses (a namespace of
//! its own) that knows of no connection, with an agent and a service that know of no session. Clients connect again, at once and
//! again and again. `lost` counts the sessions that ended so, `client_resets` and `client_connections` what the client's kernel saw of it, and
//! `reinstate_ms` is the time from the decision until the service listens again. As all that a takeover is compared with, it is
//! at its best: here it takes as long as processes take to start, and `boot_time` besides, which is none unless it is given.
//! Its clients' sessions begin anew, so counts begin at 1 again; `sha256_ok` says that over each connection every byte was right.
//!
//! With `policy`, core's policy decides by expected cost, and again when what it decided did not help: after a restart that
//! could not be, sessions are taken over, and if nobody can take them and nobody may take them yet, the node is rebooted. The
//! column `remedy` says what was done. What the policy asks for besides, when sessions are at another node (to start the application
//! again, to reboot), is told in `afterwards` and not done. Exclusion is done: the switch's port to node A, closed by the fence,
//! stays closed to the end of the run, and only a reboot opens it.
//!
//! # What can't be carried on
//! A connection that the node's kernel has accepted and its service has not is no session yet: node B's kernel resets it,
//! once all sessions are there. If the agent has ended before the service, its memory is there still: progress is watched on,
//! and sessions are taken over. But nobody holds the sockets of a service that is killed then, and node A's kernel ends its
//! connections; one that is frozen or hangs holds them itself. Of a node whose agent can't be asked (it has vanished, `cut`; its agent has failed, too; it is
//! another machine) nobody knows which input its kernel had acknowledged and its service not acted upon; a client that
//! uploads waits for ever then, unless the taker has a [mirror](backdoor_host::mirror) of what passed at the switch. Input that was on its way when the node was cut off is sent again by the client's own timer, 200 ms after it was
//! sent or later; what the mirror saw of it needs not be.

mod chain;
mod client;
mod disturbance;
mod heirs;
mod line;
mod network;
mod one_run;
mod report;
mod story;
mod world;

pub use client::ClientKind;
pub use disturbance::{Accident, Disturbance};
pub use report::{FailoverReport, FailoverRow};

use std::net::SocketAddr;
use std::path::PathBuf;

use backdoor_core::Nanos;
use backdoor_host::net::{NetError, NetworkNamespace};
use backdoor_sim::streams::{StreamKey, Streams};
use serde::{Deserialize, Serialize};

use super::detector::DetectorKind;
use super::parts::PartError;
use super::reach::{Card, Retry, WITHOUT_VERBS, built_with_verbs};
use super::web::ballast::MAX_BALLAST_BYTES;
use super::web::milestone::Milestone;
use super::web::remedy::Choice;
use super::web::state::STATE_BYTES;
use crate::interrupt::Interrupt;

/// Most sessions at once.
pub const MAX_SESSIONS: u64 = 2000;
/// Most takers at once.
pub const MAX_TAKERS: u32 = 2;
/// Most nodes that stand by.
pub const MAX_HEIRS: u32 = 4;
/// Clients that [`Accident::Connect`] brings.
const LATE_CONNECTIONS: u64 = 5;

/// How node A fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum FailoverFailure {
    /// The service's process is frozen; its kernel goes on to acknowledge what clients send.
    Sigstop,
    /// The service's process is killed.
    Sigkill,
    /// Two of its threads wait for each other.
    Deadlock,
    /// One session's handler never ends what it does.
    SessionStuck,
    /// The process is frozen and the node's link gone at the same moment: nothing of the node can be asked any more.
    Cut,
    /// Frozen like `sigstop`, and let go on when its sessions are at node B.
    Zombie,
    /// Nobody fails: the suspicion is wrong.
    Wrong,
}

impl FailoverFailure {
    /// The name used on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            FailoverFailure::Sigstop => "sigstop",
            FailoverFailure::Sigkill => "sigkill",
            FailoverFailure::Deadlock => "deadlock",
            FailoverFailure::SessionStuck => "session-stuck",
            FailoverFailure::Cut => "cut",
            FailoverFailure::Zombie => "zombie",
            FailoverFailure::Wrong => "wrong",
        }
    }

    /// Whether anything fails at all.
    const fn is_one(self) -> bool {
        !matches!(self, FailoverFailure::Wrong)
    }

    const fn leaves_the_agent_in_reach(self) -> bool {
        !matches!(self, FailoverFailure::Cut)
    }
}

/// How many processes the service is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceKind {
    /// One.
    #[default]
    Web,
    /// Two: a front that talks to clients, and a worker that counts.
    Pair,
}

impl ServiceKind {
    /// The name used on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            ServiceKind::Web => "web",
            ServiceKind::Pair => "pair",
        }
    }
}

/// Which of a pair's processes fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Victim {
    /// The one that talks to clients.
    #[default]
    Front,
    /// The one that counts.
    Worker,
    /// One right after the other.
    Both,
}

impl Victim {
    /// The name used on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            Victim::Front => "front",
            Victim::Worker => "worker",
            Victim::Both => "both",
        }
    }
}

/// Node A on another machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// The stage there, by its address in the network that the taker reads over.
    pub stage: SocketAddr,
    /// This machine's link that leads to the node and carries what it has for its clients; not the one that the taker reads
    /// over, for it is taken down to fence the node.
    pub through: String,
    /// This machine's card.
    pub card: Card,
    /// How long it tries.
    pub retry: Retry,
}

/// One configuration of the experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct FailoverConfig {
    /// The `backdoor` binary.
    pub program: PathBuf,
    /// How node A fails.
    pub failure: FailoverFailure,
    /// How many processes the service is.
    pub service: ServiceKind,
    /// Which of them fail, if it is two.
    pub victim: Victim,
    /// How node B fails after it has taken over, if it does; a third node stands by for its sessions then.
    pub then: Option<FailoverFailure>,
    /// Who talks to it.
    pub client: ClientKind,
    /// Bytes that the client moves, about.
    pub bytes: u64,
    /// Connections of [`ClientKind::Many`].
    pub connections: u64,
    /// Bytes of each session's state beyond what it needs.
    pub state_size: usize,
    /// Deadline of the service and its sessions.
    pub deadline: Nanos,
    /// Time between the monitor's polls.
    pub poll: Nanos,
    /// What the monitor judges by.
    pub detector: DetectorKind,
    /// Runs, each in a network of its own.
    pub runs: u32,
    /// How long a run may take from the failure on before it is given up.
    pub limit: Nanos,
    /// Seed of the moments of failure and of the contents.
    pub seed: u64,
    /// Whether the taker has a mirror of what passes between the client and the service.
    pub mirror: bool,
    /// Where node A is, if not on this machine.
    pub elsewhere: Option<Elsewhere>,
    /// What a taker does about a failure.
    pub remedy: Choice,
    /// Who watches node A, and takes its sessions over, each by itself.
    pub takers: u32,
    /// Nodes that stand by; the service has as many addresses, one at least.
    pub heirs: u32,
    /// For how long node A is off when it is rebooted, beside what its processes take to start.
    pub boot_time: Nanos,
    /// What else goes wrong.
    pub disturbances: Vec<Disturbance>,
}

impl FailoverConfig {
    /// Defaults: 60 MB (2 MB of answers that count, 500 kB of many clients'), 100 ms deadline, 1 ms polls, 20 runs. Fails if this program can't tell where its binary is.
    pub fn of(client: ClientKind, failure: FailoverFailure) -> std::io::Result<Self> {
        Ok(Self::new(client, failure, std::env::current_exe()?))
    }

    /// The same, with the `backdoor` binary named.
    pub fn new(client: ClientKind, failure: FailoverFailure, program: PathBuf) -> Self {
        FailoverConfig {
            program,
            failure,
            service: ServiceKind::default(),
            victim: Victim::default(),
            then: None,
            client,
            bytes: match client {
                ClientKind::Curl | ClientKind::CurlUpload | ClientKind::KeepAlive => 60_000_000,
                ClientKind::Requests => 2_000_000,
                ClientKind::Many => 500_000,
            },
            connections: 200,
            state_size: 0,
            deadline: Nanos::from_millis(100),
            poll: Nanos::from_millis(1),
            detector: DetectorKind::default(),
            runs: 20,
            limit: Nanos::from_secs(30),
            seed: 1,
            mirror: false,
            elsewhere: None,
            remedy: Choice::default(),
            takers: 1,
            heirs: 1,
            boot_time: Nanos::ZERO,
            disturbances: Vec::new(),
        }
    }

    fn is_disturbed_by(&self, accident: Accident) -> bool {
        self.disturbances.iter().any(|disturbance| disturbance.accident == accident)
    }

    /// Where the first taker halts.
    fn halts_at(&self) -> Option<Milestone> {
        self.disturbances.iter().map(|disturbance| disturbance.at).find(|at| *at != Milestone::Watching)
    }

    /// Sessions at the end.
    fn most_sessions(&self) -> u64 {
        self.sessions() + if self.is_disturbed_by(Accident::Connect) { LATE_CONNECTIONS } else { 0 }
    }

    fn sessions(&self) -> u64 {
        if self.client == ClientKind::Many { self.connections } else { 1 }
    }

    /// Addresses of the service.
    fn addresses(&self) -> u32 {
        self.heirs.max(1)
    }

    /// Whether node A can be started anew so that clients reach it: not its link.
    fn can_reboot(&self) -> bool {
        self.elsewhere.is_none() && self.failure.leaves_the_agent_in_reach()
    }

    fn box_bytes(&self) -> usize {
        STATE_BYTES + self.state_size
    }

    /// Whether it can be run.
    ///
    /// # Errors
    /// A sentence about the first setting that can't be.
    pub fn check(&self) -> Result<(), FailoverError> {
        let error = |what: String| Err(FailoverError::Config(what));
        let (least, most) = (Nanos::from_millis(2), Nanos::from_secs(60));
        if self.deadline < least || self.deadline > most {
            return error(format!("the deadline is {}, must be from {least} to {most}", self.deadline));
        }
        if self.poll < Nanos::from_micros(10) || self.poll > self.deadline {
            return error(format!("the poll interval is {}, must be from 10us to the deadline", self.poll));
        }
        if self.connections == 0 || self.connections > MAX_SESSIONS {
            return error(format!("{} connections: must be from 1 to {MAX_SESSIONS}", self.connections));
        }
        if self.state_size > MAX_BALLAST_BYTES {
            return error(format!("{} bytes of state: must be at most {MAX_BALLAST_BYTES}", self.state_size));
        }
        if !(1000..=10_000_000_000).contains(&self.bytes) {
            return error(format!("a transfer of {} bytes: must be from 1 kB to 10 GB", self.bytes));
        }
        if self.service == ServiceKind::Web && self.victim != Victim::Front {
            return error("a service of one process has no worker that could fail".into());
        }
        if self.failure == FailoverFailure::SessionStuck && self.victim == Victim::Both {
            return error("a session that is stuck in the front asks the worker nothing: one of them is stuck".into());
        }
        if self.service == ServiceKind::Pair && self.elsewhere.is_some() {
            return error("a service of two processes is on this machine".into());
        }
        if !(1..=100_000).contains(&self.runs) {
            return error(format!("{} runs: must be from 1 to 100000", self.runs));
        }
        if !(1..=MAX_TAKERS).contains(&self.takers) {
            return error(format!("{} takers: must be from 1 to {MAX_TAKERS}", self.takers));
        }
        if self.heirs > MAX_HEIRS {
            return error(format!("{} heirs: must be from 0 to {MAX_HEIRS}", self.heirs));
        }
        if self.heirs == 0 && (self.remedy == Choice::Takeover || self.elsewhere.is_some()) {
            return error("no heirs: for a takeover there must be one".into());
        }
        if self.heirs == 0 && self.disturbances.iter().any(|disturbance| disturbance.accident.is_an_heirs()) {
            return error("disturbances: nothing can happen to an heir where there is none".into());
        }
        if self.heirs > 1 && self.elsewhere.is_some() {
            return error("several heirs: node A must be on this machine".into());
        }
        if self.heirs > 1 && self.service == ServiceKind::Pair {
            return error("several heirs: of a service of one process only, and not of a pair".into());
        }
        if self.remedy != Choice::Takeover && self.elsewhere.is_some() {
            return error("another remedy than a takeover: node A must be on this machine".into());
        }
        if self.remedy == Choice::Reboot && !self.can_reboot() {
            return error("a reboot: it does not mend the link of a node that is cut off".into());
        }
        if self.remedy == Choice::Reboot && !self.client.connects_again() {
            return error("a reboot: only the clients 'requests' and 'many' connect again".into());
        }
        if self.boot_time >= self.limit {
            return error(format!("a boot of {}: must be shorter than the limit", self.boot_time));
        }
        if self.remedy.restarts() && self.service == ServiceKind::Pair {
            return error("a restart in place: of one process only, and not of a pair".into());
        }
        if self.remedy == Choice::Restart && !self.failure.leaves_the_agent_in_reach() {
            return error("a restart in place: nobody at a node that is cut off can be asked for it".into());
        }
        let takes_over = self.remedy == Choice::Takeover && self.heirs == 1;
        if self.then.is_some() && (!takes_over || self.elsewhere.is_some() || self.service == ServiceKind::Pair) {
            return error("a second failure: of a node on this machine, whose one process has taken all over".into());
        }
        if self.then == Some(FailoverFailure::Zombie) {
            return error("a second failure: a process that is to go on again is node A's".into());
        }
        let mut steps =
            self.disturbances.iter().map(|disturbance| disturbance.at).filter(|at| *at != Milestone::Watching);
        let first = steps.next();
        if steps.any(|at| Some(at) != first) {
            return error("disturbances: the taker can be halted at one step only".into());
        }
        if let Some(why) = self.disturbances.iter().find_map(|disturbance| disturbance.is_in_vain(self.remedy)) {
            return error(format!("disturbances: {why}"));
        }
        if self.is_disturbed_by(Accident::Connect) && self.client.is_curl() {
            return error("disturbances: curl has one connection, and can't connect once more".into());
        }
        if self.elsewhere.is_some() && !built_with_verbs() {
            return error(WITHOUT_VERBS.into());
        }
        Ok(())
    }
}

/// Why the experiment ended early. Everything that it made is gone.
#[derive(Debug, thiserror::Error)]
pub enum FailoverError {
    /// A setting that can't be.
    #[error("{0}")]
    Config(String),
    /// The network can't be made; it says which privilege is missing if that is why.
    #[error("the experiment's network can't be made: {0}")]
    Network(#[from] NetError),
    /// A process did not play its part.
    #[error(transparent)]
    Part(#[from] PartError),
    /// A part said what was not its turn to say.
    #[error("{0}")]
    Unexpected(String),
    /// The client could not be sent off.
    #[error("{0}")]
    Client(String),
    /// A file could not be made or read.
    #[error("a file of the experiment: {0}")]
    Files(#[source] std::io::Error),
    /// Somebody asked to stop.
    #[error("stopped after {} of {runs} runs", report.rows.len())]
    Interrupted {
        /// What was found until then.
        report: Box<FailoverReport>,
        /// All runs.
        runs: u32,
    },
}

/// What this machine or user lacks for the experiment, in a sentence; `None` if it can be tried.
pub fn missing() -> Option<String> {
    let has_curl = || std::process::Command::new("curl").arg("--version").stdout(std::process::Stdio::null()).status();
    match NetworkNamespace::new() {
        Err(error) => Some(error.to_string()),
        Ok(_) => has_curl().err().map(|error| format!("can't start curl: {error}")),
    }
}

/// Runs one configuration. `finished` gets each row as soon as there is one. The calling thread starts the processes and
/// must live until this returns.
pub fn run(
    config: &FailoverConfig,
    interrupt: &Interrupt,
    finished: &mut dyn FnMut(&FailoverRow),
) -> Result<FailoverReport, FailoverError> {
    config.check()?;
    let mut report = FailoverReport { config: config.clone(), rows: Vec::new() };
    for number in 0..config.runs {
        if interrupt.requested() {
            return Err(FailoverError::Interrupted { report: Box::new(report), runs: config.runs });
        }
        let key =
            StreamKey { seed: config.seed, experiment: "live-failover", point: "", replication: u64::from(number) };
        let row = one_run::one_run(config, number, &Streams::new(key))?;
        finished(&row);
        report.rows.push(row);
    }
    Ok(report)
}
