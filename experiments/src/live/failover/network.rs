//! The network that an experiment plays in: a client, node A, and the nodes that stand by, joined by a switch.
//!
//! On one machine, each is a network namespace. Nothing of it has a name that anybody else sees, and all of it goes with the
//! processes that are in it. With node A on another machine, this one is the switch, and node B too: a bridge joins the
//! link that leads there with the client, which is a namespace still.
//!
//! The service has an address for each node that stands by, one at least, and node A has all of them at first.

use std::net::Ipv4Addr;
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_host::clock;
use backdoor_host::net::{Announcer, Links, NetError, NetworkNamespace};

use super::roles::{SERVICE, service_address};

const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const NODE_A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// Of node B; those of C and so on follow.
const NODE_B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
const PREFIX: u8 = 24;
/// Each namespace's only link.
const LINK: &str = "eth0";
/// The switch's ports.
const PORT_A: &str = "node-a";
/// How long a port may take to carry frames.
const CARRIES_WITHIN: Nanos = Nanos::from_millis(500);
const CLIENTS_PORT: &str = "client";
const BRIDGE: &str = "bridge";
/// The bridge and the client's port, where others have links, too.
const BRIDGE_HERE: &str = "bd-failover";
const CLIENT_HERE: &str = "bd-client";

/// The network. Dropping it ends it, once the processes in it have ended.
pub(super) struct Network {
    /// Where the client is.
    pub(super) client: NetworkNamespace,
    /// Where node A is; `None`: on another machine.
    pub(super) node: Option<NetworkNamespace>,
    /// Where the nodes are that stand by: node B, and so on.
    pub(super) heirs: Vec<Standby>,
    /// Where the switch is.
    pub(super) switch: NetworkNamespace,
    /// The switch's port that leads to node A.
    pub(super) port: String,
    /// And the one that leads to the client.
    pub(super) clients_port: &'static str,
    links: Links,
}

/// Where a node is that stands by.
pub(super) struct Standby {
    pub(super) namespace: NetworkNamespace,
    /// Its link to the clients.
    pub(super) link: String,
}

impl Network {
    /// Makes one within this machine, with so many nodes that stand by, and so many addresses of the service.
    pub(super) fn within(heirs: u32, addresses: u32) -> Result<Self, NetError> {
        let switch = NetworkNamespace::new()?;
        let client = NetworkNamespace::new()?;
        let mut links = Links::of(&switch)?;
        links.add_bridge(BRIDGE)?;
        links.set_up(BRIDGE)?;
        join(&mut links, BRIDGE, CLIENTS_PORT, &client, CLIENT)?;
        let node = node_a(&mut links, addresses)?;
        let mut standing_by = Vec::new();
        for heir in 0..heirs {
            let namespace = NetworkNamespace::new()?;
            let address = Ipv4Addr::from_bits(NODE_B.to_bits() + heir);
            join(&mut links, BRIDGE, &port_of_heir(heir), &namespace, address)?;
            standing_by.push(Standby { namespace, link: LINK.into() });
        }
        let (heirs, port, clients_port) = (standing_by, PORT_A.into(), CLIENTS_PORT);
        Ok(Network { client, node: Some(node), heirs, switch, port, clients_port, links })
    }

    /// Makes one around this machine's link to another, which is node A and has the addresses 10.0.0.2/24 and, the
    /// service's, 10.0.0.10/32. The link's own addresses are out of use as long as the network is there.
    pub(super) fn around(link: &str) -> Result<Self, NetError> {
        let client = NetworkNamespace::new()?;
        let (switch, namespace) = (NetworkNamespace::current()?, NetworkNamespace::current()?);
        let mut links = Links::of(&switch)?;
        links.is_up(link)?;
        links.add_bridge(BRIDGE_HERE)?;
        // From here on dropping it puts things back.
        let (heirs, port) = (vec![Standby { namespace, link: BRIDGE_HERE.into() }], link.into());
        let mut network = Network { client, node: None, heirs, switch, port, clients_port: CLIENT_HERE, links };
        let links = &mut network.links;
        links.set_up(BRIDGE_HERE)?;
        links.add_address(BRIDGE_HERE, NODE_B, PREFIX)?;
        join(links, BRIDGE_HERE, CLIENT_HERE, &network.client, CLIENT)?;
        links.attach(link, BRIDGE_HERE)?;
        Ok(network)
    }

    /// Cuts node B off, in a network within this machine.
    pub(super) fn cut_off_heir(&mut self) -> Result<(), NetError> {
        self.links.set_down(&port_of_heir(0))
    }

    /// Opens the switch's port to node A, should it have been fenced, and waits a moment for it to carry frames. Answers whether
    /// it was closed.
    pub(super) fn open(&mut self) -> Result<bool, NetError> {
        if self.links.is_up(&self.port)? {
            return Ok(false);
        }
        self.links.set_up(&self.port)?;
        let until = clock::now() + CARRIES_WITHIN;
        while !self.links.is_running(&self.port)? && clock::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(true)
    }

    /// Node A's kernel is gone, with its link.
    pub(super) fn power_off(&mut self) -> Result<(), NetError> {
        self.links.delete(PORT_A)
    }

    /// Node A is there anew, as a kernel that knows of no connection, and has its addresses, as it tells its neighbours.
    pub(super) fn power_on(&mut self, addresses: u32) -> Result<(), NetError> {
        let node = node_a(&mut self.links, addresses)?;
        let announcer = Announcer::open(&node, LINK)?;
        (0..addresses).try_for_each(|number| announcer.announce(*service_address(number).ip()))?;
        self.node = Some(node);
        Ok(())
    }

    /// Takes node B's link down.
    pub(super) fn cut_heir(&self) -> Result<(), NetError> {
        let Standby { namespace, link } = &self.heirs[0];
        Links::of(namespace)?.set_down(link)
    }

    /// Takes node B's own address away, and with it the route to clients.
    pub(super) fn unroute_heir(&self) -> Result<(), NetError> {
        let Standby { namespace, link } = &self.heirs[0];
        Links::of(namespace)?.remove_address(link, NODE_B, PREFIX)
    }

    /// Somebody else on the network who has the service's address, as long as it is held.
    pub(super) fn stranger(&mut self) -> Result<NetworkNamespace, NetError> {
        let bridge = if self.node.is_some() { BRIDGE } else { BRIDGE_HERE };
        let stranger = NetworkNamespace::new()?;
        join(&mut self.links, bridge, "stranger", &stranger, STRANGER)?;
        Links::of(&stranger)?.add_address(LINK, *SERVICE.ip(), 32)?;
        Ok(stranger)
    }

    /// Cuts node A off.
    pub(super) fn cut(&mut self) -> Result<(), NetError> {
        self.links.set_down(&self.port)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if self.node.is_none() {
            // The client's end goes with its namespace, which may take a moment; the next network needs the name.
            let _ = self.links.delete(CLIENT_HERE);
            let _ = self.links.delete(BRIDGE_HERE);
            // The fence took it down.
            let _ = self.links.set_up(&self.port);
        }
    }
}

/// Node A, with all of the service's addresses.
fn node_a(links: &mut Links, addresses: u32) -> Result<NetworkNamespace, NetError> {
    let node = NetworkNamespace::new()?;
    join(links, BRIDGE, PORT_A, &node, NODE_A)?;
    let mut at_node = Links::of(&node)?;
    (0..addresses).try_for_each(|number| at_node.add_address(LINK, *service_address(number).ip(), 32))?;
    Ok(node)
}

/// The port that leads to a node that stands by, in a network within this machine; numbered from 0, which is node B.
pub(super) fn port_of_heir(heir: u32) -> String {
    format!("node-{}", char::from(b'b' + heir as u8))
}

/// Gives `namespace` a link with this address, whose other end is a port of the bridge.
fn join(
    links: &mut Links,
    bridge: &str,
    port: &str,
    namespace: &NetworkNamespace,
    address: Ipv4Addr,
) -> Result<(), NetError> {
    links.add_veth(port, LINK, namespace)?;
    links.attach(port, bridge)?;
    links.set_up(port)?;
    let mut inside = Links::of(namespace)?;
    inside.add_address(LINK, address, PREFIX)?;
    inside.set_up(LINK)
}
