//! Who is in an experiment's network: the agents, the service, its heir, the taker.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_core::state_box::words_needed;
use backdoor_host::net::NetworkNamespace;

use super::network::Network;
use super::{Elsewhere, FailoverConfig, FailoverError, ServiceKind, Victim};
use crate::config::Span;
use crate::live::parts::{Part, PartError, PartSignal, Place, Ready, Role};
use crate::live::reach::{NodeAddress, Offer, Reached, TransportKind, reach};
use crate::live::stage::connection::StageConnection;
use crate::live::stage::offset::ClockOffset;
use crate::live::web::serve::{Duty, Serve, ServicePart, WebReport};
use crate::live::web::taker::{Taker, TakerReport};

/// How long a part may take for what takes milliseconds on a machine that has time.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// Where clients find the service, on whichever node it is.
pub(super) const SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 10), 80);
/// Numbers of the parties of a takeover: the taker, and the node that stands by.
const TAKER: u32 = 1;
const TARGET: u32 = 2;
/// The heir of a pair's worker.
const WORKER_TARGET: u32 = 3;

/// The network, and who is in it. Dropping it ends all of that.
pub(super) struct World {
    /// Watches node A from the switch.
    pub(super) taker: Part,
    /// The service on node A.
    serving: Part,
    /// Its worker, if it has one.
    worker: Option<Part>,
    /// The service on node B, and its worker.
    _standing_by: (Part, Option<Part>),
    _agents: [Part; 2],
    /// Where node A's processes run.
    node_a: Place,
    _reached: Option<Reached>,
    pub(super) network: Network,
    _directory: tempfile::TempDir,
}

impl World {
    /// Makes it, and waits until the service serves and the taker watches.
    pub(super) fn make(config: &FailoverConfig) -> Result<Self, FailoverError> {
        let here = Place::Here(config.program.clone());
        let (network, node_a) = match &config.elsewhere {
            None => (Network::within()?, here.clone()),
            Some(Elsewhere { stage, through, .. }) => {
                let stage = StageConnection::open(*stage).map_err(PartError::from)?;
                (Network::around(through)?, Place::Stage(Rc::new(stage)))
            }
        };
        let directory =
            tempfile::Builder::new().prefix("backdoor-failover-").tempdir().map_err(FailoverError::Files)?;
        let start = |namespace: &NetworkNamespace, role: Role| -> Result<Part, FailoverError> {
            Ok(namespace.enter_here(|| here.start(role))??)
        };
        let start_a = |role: Role| match &network.node {
            Some(namespace) => start(namespace, role),
            None => Ok(node_a.start(role)?),
        };
        let sessions = config.sessions() as usize;
        let agent_role = |offer| Role::Agent {
            capacity: 64 + 2 * sessions,
            // The connection's state comes to the application's; a pair keeps two of each session.
            state_words: 2 * (sessions + 1) * words_needed(2 * config.box_bytes()),
            os_deadline: Span(config.deadline.max(Nanos::from_millis(100))),
            queues: 2 * (sessions + 1),
            retain: Span(Nanos::from_secs(60)),
            offer,
        };
        let offer = |to: &Elsewhere| Offer { listen: to.stage.ip(), card: to.card.clone() };
        let mut agent_a = start_a(agent_role(config.elsewhere.as_ref().map(offer)))?;
        let mut agent_b = start(&network.heir, agent_role(None))?;
        let (ready_a, ready_b): (Ready, Ready) = (agent_a.expect(PATIENCE)?, agent_b.expect(PATIENCE)?);
        let reached = config.elsewhere.as_ref().map(|Elsewhere { stage, card, retry, .. }| {
            let same_machine = node_a.is_this_machine();
            reach(TransportKind::Verbs, &ready_a, Some(stage.ip()), same_machine, (card, *retry))
        });
        let reached = reached.transpose().map_err(FailoverError::Config)?;
        let socket_a = PathBuf::from(ready_a.socket);
        let address = reached.as_ref().map_or_else(|| NodeAddress::Local(socket_a.clone()), |to| to.address.clone());
        let offers = directory.path().join("offers");
        let service = |agent: PathBuf, duty, part| {
            Role::Web(Serve {
                agent,
                deadline_ns: config.deadline.0,
                state_bytes: config.box_bytes(),
                address: SERVICE,
                duty,
                service: part,
            })
        };
        let (is_pair, in_directory) = (config.service == ServiceKind::Pair, |name: &str| directory.path().join(name));
        let worker = |links| is_pair.then(|| ServicePart::Worker { links: in_directory(links) });
        let front = |links| match is_pair {
            true => ServicePart::Front { worker: in_directory(links) },
            false => ServicePart::Whole,
        };
        let begun = |mut part: Part| -> Result<Part, FailoverError> {
            match part.expect(PATIENCE)? {
                WebReport::Ready => Ok(part),
                other => Err(FailoverError::Unexpected(format!("the service began with {other:?}"))),
            }
        };
        let start_worker = |part| begun(start_a(service(socket_a.clone(), Duty::Serve, part))?);
        let worker_a = worker("links-a").map(start_worker).transpose()?;
        let serving = begun(start_a(service(socket_a.clone(), Duty::Serve, front("links-a")))?)?;
        let socket_b = PathBuf::from(ready_b.socket);
        let stand_by = |party, offers: &PathBuf, part| {
            let (offers, old_owner, link) = (offers.clone(), address.clone(), network.heir_link.clone());
            let duty = Duty::StandBy { party, offers, old_owner, link };
            begun(start(&network.heir, service(socket_b.clone(), duty, part))?)
        };
        let mut targets = vec![(TARGET, offers)];
        let worker_b = match worker("links-b") {
            Some(part) => {
                targets.push((WORKER_TARGET, in_directory("worker-offers")));
                Some(stand_by(WORKER_TARGET, &targets[1].1, part)?)
            }
            None => None,
        };
        let standing_by = stand_by(TARGET, &targets[0].1, front("links-b"))?;
        let asks_agent = config.failure.leaves_the_agent_in_reach() && config.elsewhere.is_none();
        let mut taker = start(
            &network.switch,
            Role::Taker(Taker {
                node: address,
                party: TAKER,
                targets,
                port: network.port.clone(),
                agent: asks_agent.then_some(socket_a),
                mirror: config.mirror.then(|| (network.clients_port.into(), SERVICE)),
                poll_ns: config.poll.0,
                detector: config.detector,
                // So that it can tell what hindered it before the run is given up.
                limit_ns: config.limit.0 / 4 * 3,
            }),
        )?;
        match taker.expect(PATIENCE)? {
            TakerReport::Ready => {}
            other => return Err(FailoverError::Unexpected(format!("the taker began with {other:?}"))),
        }
        Ok(World {
            taker,
            serving,
            worker: worker_a,
            _standing_by: (standing_by, worker_b),
            _agents: [agent_a, agent_b],
            node_a,
            _reached: reached,
            network,
            _directory: directory,
        })
    }

    /// The processes on node A that are to fail.
    pub(super) fn victims(&mut self, victim: Victim) -> impl Iterator<Item = &mut Part> {
        let front = Some(&mut self.serving).filter(|_| victim != Victim::Worker);
        front.into_iter().chain(self.worker.as_mut().filter(|_| victim != Victim::Front))
    }

    /// Signals them; answers when the first of them had it, by node A's clock.
    pub(super) fn signal(&mut self, victim: Victim, signal: PartSignal) -> Result<Nanos, FailoverError> {
        let mut first = None;
        for part in self.victims(victim) {
            let (_, at) = part.signal(signal)?;
            first.get_or_insert(at);
        }
        Ok(first.unwrap_or(Nanos::ZERO))
    }

    /// Cuts node A's link.
    pub(super) fn cut(&mut self) -> Result<(), FailoverError> {
        Ok(self.network.cut()?)
    }

    /// How far node A's clock is ahead of this machine's.
    pub(super) fn clock(&self) -> Result<ClockOffset, FailoverError> {
        Ok(self.node_a.clock()?)
    }

    /// What the client's kernel has counted.
    pub(super) fn counted(&self) -> Result<TcpCounts, FailoverError> {
        let text = self.network.client.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))?;
        TcpCounts::parse(&text.map_err(FailoverError::Files)?)
            .ok_or_else(|| FailoverError::Unexpected("the kernel's TCP counters can't be read".into()))
    }
}

/// What a namespace's kernel has counted of TCP (RFC 4022).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TcpCounts {
    /// Connections begun here.
    pub(super) opened: u64,
    /// Connections that ended by a reset, sent or received.
    pub(super) resets: u64,
}

impl TcpCounts {
    fn parse(snmp: &str) -> Option<Self> {
        let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let (names, values) = (lines.next()?, lines.next()?);
        let of = |name: &str| {
            let at = names.split(' ').position(|found| found == name)?;
            values.split(' ').nth(at)?.parse().ok()
        };
        Some(TcpCounts { opened: of("ActiveOpens")?, resets: of("EstabResets")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let text = "Ip: A B\nIp: 1 2\nTcp: RtoMin ActiveOpens EstabResets\nTcp: 200 7 3\n";
        assert_eq!(TcpCounts::parse(text), Some(TcpCounts { opened: 7, resets: 3 }));
        assert_eq!(TcpCounts::parse("Tcp: ActiveOpens\n"), None);
        let here = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
        assert!(TcpCounts::parse(&here).is_some());
    }
}
