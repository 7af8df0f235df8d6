//! The network that an experiment plays in: a client, node A, and node B, joined by a switch.
//!
//! On one machine, each is a network namespace. Nothing of it has a name that anybody else sees, and all of it goes with the
//! processes that are in it. With node A on another machine, this one is the switch, and node B too: a bridge joins the
//! link that leads there with the client, which is a namespace still.

use std::net::Ipv4Addr;

use backdoor_host::net::{Links, NetError, NetworkNamespace};

use super::world::SERVICE;

const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const NODES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 3)];
/// Of a node that stands by for node B's sessions.
const THIRD: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 4);
const THIRDS_PORT: &str = "node-c";
const PREFIX: u8 = 24;
/// Each namespace's only link.
const LINK: &str = "eth0";
/// The switch's ports.
const PORTS: [&str; 2] = ["node-a", "node-b"];
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
    /// Where node B is.
    pub(super) heir: NetworkNamespace,
    /// Where node C is, if there is one.
    pub(super) third: Option<NetworkNamespace>,
    /// Node B's link to the clients.
    pub(super) heir_link: String,
    /// Where the switch is.
    pub(super) switch: NetworkNamespace,
    /// The switch's port that leads to node A.
    pub(super) port: String,
    /// And the one that leads to the client.
    pub(super) clients_port: &'static str,
    links: Links,
}

impl Network {
    /// Makes one within this machine.
    pub(super) fn within() -> Result<Self, NetError> {
        let switch = NetworkNamespace::new()?;
        let (client, node, heir) = (NetworkNamespace::new()?, NetworkNamespace::new()?, NetworkNamespace::new()?);
        let mut links = Links::of(&switch)?;
        links.add_bridge(BRIDGE)?;
        links.set_up(BRIDGE)?;
        let ends = [(&client, CLIENTS_PORT, CLIENT), (&node, PORTS[0], NODES[0]), (&heir, PORTS[1], NODES[1])];
        for (namespace, port, address) in ends {
            join(&mut links, BRIDGE, port, namespace, address)?;
        }
        Links::of(&node)?.add_address(LINK, *SERVICE.ip(), 32)?;
        let (heir_link, port) = (LINK.into(), PORTS[0].into());
        let third = None;
        Ok(Network {
            client,
            node: Some(node),
            heir,
            third,
            heir_link,
            switch,
            port,
            clients_port: CLIENTS_PORT,
            links,
        })
    }

    /// Makes one around this machine's link to another, which is node A and has the addresses 10.0.0.2/24 and, the
    /// service's, 10.0.0.10/32. The link's own addresses are out of use as long as the network is there.
    pub(super) fn around(link: &str) -> Result<Self, NetError> {
        let client = NetworkNamespace::new()?;
        let (switch, heir) = (NetworkNamespace::current()?, NetworkNamespace::current()?);
        let mut links = Links::of(&switch)?;
        links.is_up(link)?;
        links.add_bridge(BRIDGE_HERE)?;
        // From here on dropping it puts things back.
        let (heir_link, port) = (BRIDGE_HERE.into(), link.into());
        let mut network = Network {
            client,
            node: None,
            heir,
            third: None,
            heir_link,
            switch,
            port,
            clients_port: CLIENT_HERE,
            links,
        };
        let links = &mut network.links;
        links.set_up(BRIDGE_HERE)?;
        links.add_address(BRIDGE_HERE, NODES[1], PREFIX)?;
        join(links, BRIDGE_HERE, CLIENT_HERE, &network.client, CLIENT)?;
        links.attach(link, BRIDGE_HERE)?;
        Ok(network)
    }

    /// Adds node C, in a network within this machine.
    pub(super) fn add_third(&mut self) -> Result<(), NetError> {
        let third = NetworkNamespace::new()?;
        join(&mut self.links, BRIDGE, THIRDS_PORT, &third, THIRD)?;
        self.third = Some(third);
        Ok(())
    }

    /// The port that leads to node B, in a network within this machine.
    pub(super) const HEIRS_PORT: &str = PORTS[1];
    /// Node C's link to the clients.
    pub(super) const THIRDS_LINK: &str = LINK;

    /// Cuts node B off, in a network within this machine.
    pub(super) fn cut_off_heir(&mut self) -> Result<(), NetError> {
        self.links.set_down(Self::HEIRS_PORT)
    }

    /// Takes node B's link down.
    pub(super) fn cut_heir(&self) -> Result<(), NetError> {
        Links::of(&self.heir)?.set_down(&self.heir_link)
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
