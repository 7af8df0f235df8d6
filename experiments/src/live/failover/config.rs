//! What an experiment is to be, and whether it can be.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use backdoor_core::Nanos;

use super::{Accident, ClientKind, Disturbance, FailoverError, FailoverFailure, ServiceKind, Victim};
use crate::live::detector::DetectorKind;
use crate::live::reach::{Card, Retry, WITHOUT_VERBS, built_with_verbs};
use crate::live::web::ballast::MAX_BALLAST_BYTES;
use crate::live::web::milestone::Milestone;
use crate::live::web::party::{HEIRS, TAKERS};
use crate::live::web::remedy::Choice;
use crate::live::web::state::STATE_BYTES;

/// Most sessions at once.
pub const MAX_SESSIONS: u64 = 2000;
/// Most takers at once.
pub const MAX_TAKERS: u32 = TAKERS.len() as u32;
/// Most nodes that stand by.
pub const MAX_HEIRS: u32 = HEIRS.len() as u32;
/// Deadlines that there can be.
pub const DEADLINES: RangeInclusive<Nanos> = Nanos::from_millis(2)..=Nanos::from_secs(60);
/// For how long a run may be allowed to go on.
pub const RUN_LIMITS: RangeInclusive<Nanos> = Nanos::from_secs(1)..=Nanos::from_secs(3600);
/// Shortest time between two polls.
pub const SHORTEST_POLL: Nanos = Nanos::from_micros(10);
/// Bytes that a client can be asked to move.
pub const TRANSFERS: RangeInclusive<u64> = 1000..=10_000_000_000;
/// Clients that [`Accident::Connect`] brings.
pub(super) const LATE_CONNECTIONS: u64 = 5;

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

    pub(super) fn is_disturbed_by(&self, accident: Accident) -> bool {
        self.disturbances.iter().any(|disturbance| disturbance.accident == accident)
    }

    /// Where the first taker halts.
    pub(super) fn halts_at(&self) -> Option<Milestone> {
        self.disturbances.iter().map(|disturbance| disturbance.at).find(|at| *at != Milestone::Watching)
    }

    /// Sessions at the end.
    pub(super) fn most_sessions(&self) -> u64 {
        self.sessions() + if self.is_disturbed_by(Accident::Connect) { LATE_CONNECTIONS } else { 0 }
    }

    pub(super) fn sessions(&self) -> u64 {
        if self.client == ClientKind::Many { self.connections } else { 1 }
    }

    /// Addresses of the service.
    pub(super) fn addresses(&self) -> u32 {
        self.heirs.max(1)
    }

    /// Whether node A can be started anew so that clients reach it: not its link.
    pub(super) fn can_reboot(&self) -> bool {
        self.elsewhere.is_none() && self.failure.leaves_the_agent_in_reach()
    }

    pub(super) fn box_bytes(&self) -> usize {
        STATE_BYTES + self.state_size
    }

    /// Whether it can be run.
    ///
    /// # Errors
    /// A sentence about the first setting that can't be.
    pub fn check(&self) -> Result<(), FailoverError> {
        let error = |what: String| Err(FailoverError::Config(what));
        let from_to = |range: &RangeInclusive<Nanos>| format!("from {} to {}", range.start(), range.end());
        if !DEADLINES.contains(&self.deadline) {
            return error(format!("the deadline is {}, must be {}", self.deadline, from_to(&DEADLINES)));
        }
        if !RUN_LIMITS.contains(&self.limit) || self.limit <= self.deadline {
            return error(format!(
                "the limit is {}, must be {} and longer than the deadline",
                self.limit,
                from_to(&RUN_LIMITS)
            ));
        }
        if self.poll < SHORTEST_POLL || self.poll > self.deadline {
            return error(format!("the poll interval is {}, must be from {SHORTEST_POLL} to the deadline", self.poll));
        }
        if self.connections == 0 || self.connections > MAX_SESSIONS {
            return error(format!("{} connections: must be from 1 to {MAX_SESSIONS}", self.connections));
        }
        if self.state_size > MAX_BALLAST_BYTES {
            return error(format!("{} bytes of state: must be at most {MAX_BALLAST_BYTES}", self.state_size));
        }
        if !TRANSFERS.contains(&self.bytes) {
            let (least, most) = (TRANSFERS.start() / 1000, TRANSFERS.end() / 1_000_000_000);
            return error(format!("a transfer of {} bytes: must be from {least} kB to {most} GB", self.bytes));
        }
        if self.service == ServiceKind::Web && self.victim != Victim::Front {
            return error("a service of one process has no worker that could fail".into());
        }
        if self.victim == Victim::Worker && !self.client.asks_the_worker() {
            return error("a worker that fails: only the clients 'requests' and 'many' ask it anything".into());
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
        if self.boot_time > Nanos::ZERO && !self.remedy.reboots() {
            return error("a boot time: of the remedies, only a reboot and the policy's choice boot anything".into());
        }
        if self.boot_time >= self.limit {
            return error(format!("a boot of {}: must be shorter than the limit", self.boot_time));
        }
        if self.mirror && matches!(self.remedy, Choice::Restart | Choice::Reboot) {
            return error("a mirror: without a takeover, nobody asks it".into());
        }
        if self.remedy.restarts() && self.service == ServiceKind::Pair {
            return error(
                "a restart in place, which the policy may choose, too: of one process only, and not of a pair".into(),
            );
        }
        if self.remedy == Choice::Restart && !self.failure.leaves_the_agent_in_reach() {
            return error("a restart in place: nobody at a node that is cut off can be asked for it".into());
        }
        if self.then.is_some() {
            let in_vain = [
                (self.remedy != Choice::Takeover, "is of a node that has taken sessions over; another remedy has none"),
                (self.heirs != 1, "is of the one node that has taken all over, and not of one of several"),
                (self.service == ServiceKind::Pair, "is of a service of one process, and not of a pair"),
                (self.elsewhere.is_some(), "is of a node B that has taken over from a node A on this machine"),
                (
                    self.then == Some(FailoverFailure::Zombie),
                    "that a process goes on after is node A's, of which somebody else has the sessions",
                ),
            ];
            if let Some((_, why)) = in_vain.iter().find(|(is_so, _)| *is_so) {
                return error(format!("a second failure {why}"));
            }
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
        if self.is_disturbed_by(Accident::Resume) && self.failure != FailoverFailure::Sigstop {
            return error("disturbances: what goes on by itself was frozen before, by the failure sigstop".into());
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
