//! A small network of the experiment's own: a client, two nodes and a switch between them, each in a network namespace.
//! Nothing of it has a name that anybody else sees, and all of it goes with the processes that are in it.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_core::state_box::words_needed;
use backdoor_host::net::{Links, NetworkNamespace};

use super::{FailoverConfig, FailoverError};
use crate::config::Span;
use crate::live::parts::{Part, Place, Ready, Role};
use crate::live::reach::NodeAddress;
use crate::live::web::serve::{Duty, Serve, WebReport};
use crate::live::web::taker::{Taker, TakerReport};

/// How long a part may take for what takes milliseconds on a machine that has time.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// Where clients find the service, on whichever node it is.
pub(super) const SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 10), 80);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const NODES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 3)];
const PREFIX: u8 = 24;
/// Each namespace's only link.
const LINK: &str = "eth0";
/// The switch's ports.
const PORTS: [&str; 2] = ["node-a", "node-b"];
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
    /// Where the client is.
    pub(super) client: NetworkNamespace,
    switch_links: Links,
    _nodes: [NetworkNamespace; 2],
    _switch: NetworkNamespace,
    _directory: tempfile::TempDir,
}

impl World {
    /// Makes it, and waits until the service serves and the taker watches.
    pub(super) fn make(config: &FailoverConfig) -> Result<Self, FailoverError> {
        let switch = NetworkNamespace::new()?;
        let client = NetworkNamespace::new()?;
        let nodes = [NetworkNamespace::new()?, NetworkNamespace::new()?];
        let mut switch_links = Links::of(&switch)?;
        switch_links.add_bridge("bridge")?;
        switch_links.set_up("bridge")?;
        let ends = [(&client, "client", CLIENT), (&nodes[0], PORTS[0], NODES[0]), (&nodes[1], PORTS[1], NODES[1])];
        for (namespace, port, address) in ends {
            switch_links.add_veth(port, LINK, namespace)?;
            switch_links.attach(port, "bridge")?;
            switch_links.set_up(port)?;
            let mut links = Links::of(namespace)?;
            links.add_address(LINK, address, PREFIX)?;
            links.set_up(LINK)?;
        }
        Links::of(&nodes[0])?.add_address(LINK, *SERVICE.ip(), 32)?;

        let directory =
            tempfile::Builder::new().prefix("backdoor-failover-").tempdir().map_err(FailoverError::Files)?;
        let place = Place::Here(config.program.clone());
        let start = |namespace: &NetworkNamespace, role: Role| -> Result<Part, FailoverError> {
            Ok(namespace.enter_here(|| place.start(role))??)
        };
        let sessions = config.sessions() as usize;
        let agent = |namespace| -> Result<(Part, PathBuf), FailoverError> {
            let mut agent = start(
                namespace,
                Role::Agent {
                    capacity: 64 + 2 * sessions,
                    // The connection's state comes to the application's.
                    state_words: (sessions + 1) * words_needed(2 * config.box_bytes()),
                    os_deadline: Span(config.deadline.max(Nanos::from_millis(100))),
                    queues: sessions + 1,
                    retain: Span(Nanos::from_secs(60)),
                    offer: None,
                },
            )?;
            let Ready { socket, .. } = agent.expect(PATIENCE)?;
            Ok((agent, socket.into()))
        };
        let [(agent_a, socket_a), (agent_b, socket_b)] = [agent(&nodes[0])?, agent(&nodes[1])?];
        let offers = directory.path().join("offers");
        let serve = |namespace, agent: &PathBuf, duty| -> Result<Part, FailoverError> {
            let role = Role::Web(Serve {
                agent: agent.clone(),
                deadline_ns: config.deadline.0,
                state_bytes: config.box_bytes(),
                address: SERVICE,
                duty,
            });
            let mut part = start(namespace, role)?;
            match part.expect(PATIENCE)? {
                WebReport::Ready => Ok(part),
                other => Err(FailoverError::Unexpected(format!("the service began with {other:?}"))),
            }
        };
        let serving = serve(&nodes[0], &socket_a, Duty::Serve)?;
        let stand_by = Duty::StandBy {
            party: TARGET,
            offers: offers.clone(),
            old_owner: NodeAddress::Local(socket_a.clone()),
            link: LINK.into(),
        };
        let standing_by = serve(&nodes[1], &socket_b, stand_by)?;
        let mut taker = start(
            &switch,
            Role::Taker(Taker {
                node: NodeAddress::Local(socket_a.clone()),
                party: TAKER,
                targets: vec![(TARGET, offers)],
                port: PORTS[0].into(),
                agent: config.failure.leaves_the_agent_in_reach().then_some(socket_a),
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
            client,
            switch_links,
            _nodes: nodes,
            _switch: switch,
            _directory: directory,
        })
    }

    /// Cuts node A's link.
    pub(super) fn cut(&mut self) -> Result<(), FailoverError> {
        Ok(self.switch_links.set_down(PORTS[0])?)
    }

    /// What the client's kernel has counted.
    pub(super) fn counted(&self) -> Result<TcpCounts, FailoverError> {
        let text = self.client.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))?;
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
