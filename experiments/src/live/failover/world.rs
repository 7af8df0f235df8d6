//! Who is in an experiment's network: the agents, the service, its heir, the taker.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_core::state_box::words_needed;
use backdoor_host::net::NetworkNamespace;

use super::network::Network;
use super::{Elsewhere, FailoverConfig, FailoverError};
use crate::config::Span;
use crate::live::parts::{Part, PartError, Place, Ready, Role};
use crate::live::reach::{NodeAddress, Offer, Reached, TransportKind, reach};
use crate::live::stage::connection::StageConnection;
use crate::live::stage::offset::ClockOffset;
use crate::live::web::serve::{Duty, Serve, WebReport};
use crate::live::web::taker::{Taker, TakerReport};

/// How long a part may take for what takes milliseconds on a machine that has time.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// Where clients find the service, on whichever node it is.
pub(super) const SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 10), 80);
/// Numbers of the parties of a takeover: the taker, and the node that stands by.
const TAKER: u32 = 1;
const TARGET: u32 = 2;

/// The network, and who is in it. Dropping it ends all of that.
pub(super) struct World {
    /// Watches node A from the switch.
    pub(super) taker: Part,
    /// The service on node A.
    pub(super) serving: Part,
    /// The service on node B.
    pub(super) _standing_by: Part,
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
            // The connection's state comes to the application's.
            state_words: (sessions + 1) * words_needed(2 * config.box_bytes()),
            os_deadline: Span(config.deadline.max(Nanos::from_millis(100))),
            queues: sessions + 1,
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
        let service = |agent: PathBuf, duty| {
            Role::Web(Serve {
                agent,
                deadline_ns: config.deadline.0,
                state_bytes: config.box_bytes(),
                address: SERVICE,
                duty,
            })
        };
        let begun = |mut part: Part| -> Result<Part, FailoverError> {
            match part.expect(PATIENCE)? {
                WebReport::Ready => Ok(part),
                other => Err(FailoverError::Unexpected(format!("the service began with {other:?}"))),
            }
        };
        let serving = begun(start_a(service(socket_a.clone(), Duty::Serve))?)?;
        let stand_by = Duty::StandBy {
            party: TARGET,
            offers: offers.clone(),
            old_owner: address.clone(),
            link: network.heir_link.clone(),
        };
        let standing_by = begun(start(&network.heir, service(ready_b.socket.into(), stand_by))?)?;
        let asks_agent = config.failure.leaves_the_agent_in_reach() && config.elsewhere.is_none();
        let mut taker = start(
            &network.switch,
            Role::Taker(Taker {
                node: address,
                party: TAKER,
                targets: vec![(TARGET, offers)],
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
            _standing_by: standing_by,
            _agents: [agent_a, agent_b],
            node_a,
            _reached: reached,
            network,
            _directory: directory,
        })
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
