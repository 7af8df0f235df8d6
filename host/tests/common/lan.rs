//! A small network of namespaces: a client and two nodes, each on a port of a bridge in a fourth one.

use std::net::Ipv4Addr;

use backdoor_host::net::{HardwareAddress, Links, NetworkNamespace};

use super::wait_for;

/// The address that moves between the nodes. Nobody has it at first.
pub const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);

/// Everybody's only link.
pub const LINK: &str = "eth0";

/// The ports of the bridge, by which they are cut off.
pub const CLIENT_PORT: &str = "client";
pub const A_PORT: &str = "a";
pub const B_PORT: &str = "b";

/// Namespaces on one bridge.
pub struct Lan {
    pub ports: Links,
    pub client: Member,
    pub a: Member,
    pub b: Member,
}

/// A namespace with one link, [`LINK`].
pub struct Member {
    pub namespace: NetworkNamespace,
    pub links: Links,
    pub address: Ipv4Addr,
}

impl Lan {
    pub fn new() -> Self {
        let switch = apart();
        let mut ports = Links::of(&switch).unwrap();
        ports.add_bridge("bridge").unwrap();
        ports.set_up("bridge").unwrap();
        let mut join = |port: &str, host| Member::join(&mut ports, port, Ipv4Addr::new(10, 77, 0, host));
        let (client, a, b) = (join(CLIENT_PORT, 1), join(A_PORT, 2), join(B_PORT, 3));
        // Frames that come before the kernel has noticed a link's other end are dropped.
        for port in [CLIENT_PORT, A_PORT, B_PORT] {
            wait_for("the port's link carries frames", || ports.is_running(port).unwrap());
        }
        Lan { ports, client, a, b }
    }
}

impl Member {
    fn join(ports: &mut Links, port: &str, address: Ipv4Addr) -> Self {
        let namespace = apart();
        let mut links = Links::of(&namespace).unwrap();
        ports.add_veth(port, LINK, &namespace).unwrap();
        ports.attach(port, "bridge").unwrap();
        ports.set_up(port).unwrap();
        links.add_address(LINK, address, 24).unwrap();
        links.set_up(LINK).unwrap();
        Member { namespace, links, address }
    }

    pub fn hardware(&mut self) -> HardwareAddress {
        self.links.hardware_address(LINK).unwrap()
    }

    /// Where it sends what is for `address`; `None` if it doesn't know.
    pub fn neighbour(&self, address: Ipv4Addr) -> Option<String> {
        let table = self.namespace.enter(|| std::fs::read_to_string("/proc/thread-self/net/arp").unwrap()).unwrap();
        let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut known = lines.filter(|fields| fields[0] == address.to_string() && fields[2] != "0x0");
        known.next().map(|fields| fields[3].to_owned())
    }
}

/// A new namespace, in which nothing that a test does happens to the machine.
pub fn apart() -> NetworkNamespace {
    let which = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let namespace = NetworkNamespace::new().unwrap();
    assert_ne!(namespace.enter(which).unwrap(), which(), "the machine's own namespace would be changed");
    namespace
}

/// Whether this process may make namespaces. Says so if not; but root must be able to, so its tests fail instead.
pub fn able() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: network namespaces take root (or CAP_SYS_ADMIN and CAP_NET_ADMIN)");
    }
    root
}
