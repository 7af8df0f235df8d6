//! What each process of an experiment is started as.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_host::net::NetworkNamespace;

use super::disturbance::Accident;
use super::network::Network;
use super::{FailoverConfig, FailoverError, ServiceKind};
use crate::config::Span;
use crate::live::parts::{Part, Place, Role};
use crate::live::reach::{NodeAddress, Offer};
use crate::live::web::milestone::Milestone;
use crate::live::web::party::TAKERS;
use crate::live::web::remedy::Choice;
use crate::live::web::serve::{Duty, Serve, ServicePart, WebReport, session_config};
use crate::live::web::supervisor::{Supervise, SupervisorReport};
use crate::live::web::taker::{Taker, TakerReport};

/// How long a part may take for what takes milliseconds on a machine that has time.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// Where clients find the service, on whichever node it is: the first of its addresses.
pub(super) const SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 10), 80);

/// Where node A is.
pub(super) struct Reach {
    /// Node A, to its monitors.
    pub(super) node: NodeAddress,
    /// The socket of node A's agent, for whoever is on that machine.
    pub(super) agent_a: PathBuf,
}

/// State Boxes of all sessions: a pair keeps two of each.
pub(super) fn boxes(config: &FailoverConfig) -> usize {
    config.most_sessions() as usize * if config.service == ServiceKind::Pair { 2 } else { 1 }
}

/// An agent that has room for so many of them.
pub(super) fn agent_role(config: &FailoverConfig, room: usize, offer: Option<Offer>) -> Role {
    let all = boxes(config);
    Role::Agent {
        capacity: 64 + 2 * all,
        // A worker's State Boxes are smaller than a front's.
        state_words: room * session_config(config.deadline, 2 * config.box_bytes()).words(),
        os_deadline: Span(config.deadline.max(Nanos::from_millis(100))),
        queues: all + 1,
        retain: Span(Nanos::from_secs(60)),
        offer,
    }
}

/// The service's address number `number`, from 0.
pub(super) const fn service_address(number: u32) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from_bits(SERVICE.ip().to_bits() + number), SERVICE.port())
}

pub(super) fn start(config: &FailoverConfig, namespace: &NetworkNamespace, role: Role) -> Result<Part, FailoverError> {
    let place = Place::Here(config.program.clone());
    Ok(namespace.enter_here(|| place.start(role))??)
}

pub(super) fn service(config: &FailoverConfig, agent: &Path, duty: Duty, part: ServicePart) -> Role {
    Role::Web(serve(config, agent, duty, part))
}

pub(super) fn serve(config: &FailoverConfig, agent: &Path, duty: Duty, part: ServicePart) -> Serve {
    Serve {
        agent: agent.to_owned(),
        deadline_ns: config.deadline.0,
        state_bytes: config.box_bytes(),
        ballast: config.state_size,
        addresses: (0..config.addresses()).map(service_address).collect(),
        duty,
        service: part,
    }
}

/// Where the worker of a node listens: beside its agent's socket.
pub(super) fn links(agent: &Path) -> PathBuf {
    agent.with_file_name("links")
}

/// The part that talks to clients, on the node of this agent.
pub(super) fn front(config: &FailoverConfig, agent: &Path) -> ServicePart {
    match config.service {
        ServiceKind::Web => ServicePart::Whole,
        ServiceKind::Pair => ServicePart::Front { worker: links(agent) },
    }
}

/// A service that is ready.
pub(super) fn begun(mut part: Part) -> Result<Part, FailoverError> {
    match part.expect(PATIENCE)? {
        WebReport::Ready => Ok(part),
        other => Err(FailoverError::Unexpected(format!("the service began with {other:?}"))),
    }
}

impl Reach {
    /// Where node A's supervisor is asked.
    pub(super) fn supervisor(&self) -> PathBuf {
        self.agent_a.with_file_name("supervisor")
    }
}

pub(super) fn start_supervisor(
    config: &FailoverConfig,
    node: &NetworkNamespace,
    reach: &Reach,
    process: u32,
) -> Result<Part, FailoverError> {
    let service = serve(config, &reach.agent_a, Duty::ServeAgain, front(config, &reach.agent_a));
    let mut supervisor =
        start(config, node, Role::Supervisor(Supervise { requests: reach.supervisor(), process, service }))?;
    match supervisor.expect(PATIENCE)? {
        SupervisorReport::Ready => Ok(supervisor),
    }
}

pub(super) fn start_taker(
    config: &FailoverConfig,
    network: &Network,
    reach: &Reach,
    targets: &[(u32, PathBuf)],
    number: u32,
) -> Result<Part, FailoverError> {
    let halts_at = match number == TAKERS[0] {
        true => config.halts_at(),
        // It is to find what the first one leaves.
        false => config.is_disturbed_by(Accident::KillTaker).then_some(Milestone::Decided),
    };
    let asks_agent = config.failure.leaves_the_agent_in_reach() && config.elsewhere.is_none();
    let taker = Taker {
        agent: asks_agent.then(|| reach.agent_a.clone()),
        remedy: config.remedy,
        supervisor: (asks_agent && config.remedy.restarts()).then(|| reach.supervisor()),
        can_reboot: config.can_reboot(),
        halts_at,
        ..taker(config, network, reach.node.clone(), network.port.clone(), number, targets.to_vec())
    };
    watch(config, network, taker)
}

/// Whoever watches `node`, which is behind `port`, as this party, and has its sessions taken over by `targets` without asking
/// any agent.
pub(super) fn taker(
    config: &FailoverConfig,
    network: &Network,
    node: NodeAddress,
    port: String,
    party: u32,
    targets: Vec<(u32, PathBuf)>,
) -> Taker {
    let mirror = || (network.clients_port.into(), (0..config.addresses()).map(service_address).collect());
    Taker {
        node,
        party,
        targets,
        port,
        agent: None,
        mirror: config.mirror.then(mirror),
        remedy: Choice::Takeover,
        supervisor: None,
        can_reboot: false,
        poll_ns: config.poll.0,
        detector: config.detector,
        // So that it can tell what hindered it before the run is given up.
        limit_ns: config.limit.0 / 4 * 3,
        halts_at: None,
    }
}

/// Starts it at the switch; it watches when this returns.
pub(super) fn watch(config: &FailoverConfig, network: &Network, taker: Taker) -> Result<Part, FailoverError> {
    let mut taker = start(config, &network.switch, Role::Taker(taker))?;
    match taker.expect(PATIENCE)? {
        TakerReport::Ready => Ok(taker),
        other => Err(FailoverError::Unexpected(format!("the taker began with {other:?}"))),
    }
}
