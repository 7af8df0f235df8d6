//! The links of a network namespace, and what can be changed about them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NlasIterator};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags, LinkHeader, LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use super::error::{Cause, NetError};
use super::namespace::NetworkNamespace;
use super::route_socket::{Refusal, RouteSocket};

/// Longest name of a link in bytes: `IFNAMSIZ` of linux/if.h, without the byte that ends it.
const MAX_NAME_BYTES: usize = 15;

/// Length of `struct ifinfomsg` of linux/rtnetlink.h, after which a link's attributes come.
const LINK_HEADER_BYTES: usize = 16;

/// Number of the attribute that is the hardware address, in linux/if_link.h.
const IFLA_ADDRESS: u16 = 1;

const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// The links of one network namespace, by rtnetlink over one socket, which keeps the namespace alive.
///
/// Every change is confirmed by the kernel before its call returns. All of them take CAP_NET_ADMIN in the namespace
/// ([`Cause::Privilege`]), and fail with [`Cause::NoLink`] where a link is named that isn't there.
#[derive(Debug)]
pub struct Links {
    route: RouteSocket,
}

/// Six bytes that name a network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HardwareAddress(pub [u8; 6]);

impl fmt::Display for HardwareAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Links {
    /// Those of `namespace`.
    ///
    /// # Errors
    ///
    /// Those of [`NetworkNamespace::enter`], and whatever the system says.
    pub fn of(namespace: &NetworkNamespace) -> Result<Self, NetError> {
        namespace.enter(Self::here)?
    }

    /// Those of the calling thread's namespace.
    pub(super) fn here() -> Result<Self, NetError> {
        let opened = RouteSocket::open();
        let failed = |errno| NetError::new("open a netlink socket", Cause::System(errno));
        opened.map(|route| Links { route }).map_err(|errno| failed(errno.into()))
    }

    /// Adds a bridge, down. Its ports forward as soon as they are up; there is no spanning tree.
    ///
    /// # Errors
    ///
    /// [`Cause::LinkExists`], [`Cause::Name`].
    pub fn add_bridge(&mut self, name: &str) -> Result<(), NetError> {
        let added = named(name).and_then(|mut link| {
            link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
            self.change(RouteNetlinkMessage::NewLink(link), NEW, name)
        });
        added.map_err(|cause| NetError::new(format_args!("add bridge {name}"), cause))
    }

    /// Adds a link here and one in `peer_namespace`, each the other end of the other. Both are down. When one goes, or its
    /// namespace, the other one goes, too.
    ///
    /// # Errors
    ///
    /// [`Cause::LinkExists`] with the name that is taken, [`Cause::Name`].
    pub fn add_veth(&mut self, name: &str, peer: &str, peer_namespace: &NetworkNamespace) -> Result<(), NetError> {
        let added = named(name).and_then(|mut link| {
            let mut other_end = named(peer)?;
            other_end.attributes.push(LinkAttribute::NetNsFd(peer_namespace.as_fd().as_raw_fd()));
            let ends = LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other_end)));
            link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), ends]));
            match self.change(RouteNetlinkMessage::NewLink(link), NEW, name) {
                // The kernel doesn't say which of the two.
                Err(Cause::LinkExists(_)) if self.find(name).is_err() => Err(Cause::LinkExists(peer.to_owned())),
                done => done,
            }
        });
        added.map_err(|cause| NetError::new(format_args!("add link {name} with other end {peer}"), cause))
    }

    /// Removes a link; with a bridge, not its ports.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn delete(&mut self, name: &str) -> Result<(), NetError> {
        let done = named(name).and_then(|link| self.change(RouteNetlinkMessage::DelLink(link), 0, name));
        done.map_err(|cause| NetError::new(format_args!("delete link {name}"), cause))
    }

    /// Sets a link up: from now on it takes and brings frames.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn set_up(&mut self, name: &str) -> Result<(), NetError> {
        self.set_flags(name, LinkFlags::Up).map_err(|cause| NetError::new(format_args!("set link {name} up"), cause))
    }

    /// Sets a link down. Of a bridge's port, that fences whoever is behind it: no frame that arrives there after this has
    /// returned is forwarded. One that was forwarded before may still be on its way.
    ///
    /// # Errors
    ///
    /// As above. Then nothing is known of the fence, and the address must not be taken.
    pub fn set_down(&mut self, name: &str) -> Result<(), NetError> {
        let done = self.set_flags(name, LinkFlags::empty());
        done.map_err(|cause| NetError::new(format_args!("set link {name} down"), cause))
    }

    /// Makes link `port` a port of `bridge`.
    ///
    /// # Errors
    ///
    /// [`Cause::NoLink`] with the one that isn't there; EOPNOTSUPP if `bridge` is no bridge.
    pub fn attach(&mut self, port: &str, bridge: &str) -> Result<(), NetError> {
        let attached = named(port).and_then(|mut link| {
            link.attributes.push(LinkAttribute::Controller(self.find(bridge)?.index));
            self.change(RouteNetlinkMessage::SetLink(link), 0, port)
        });
        attached.map_err(|cause| NetError::new(format_args!("attach link {port} to bridge {bridge}"), cause))
    }

    /// Gives `link` an IPv4 address whose first `prefix` bits are those of its neighbours; 32: it has none. Nobody is
    /// told ([`Announcer`](super::Announcer)).
    ///
    /// An address that moves between nodes should have 32: the kernel removes the other addresses of a prefix when it
    /// removes the first one.
    ///
    /// # Errors
    ///
    /// [`Cause::AddressExists`]; EINVAL for more than 32 bits.
    pub fn add_address(&mut self, link: &str, address: Ipv4Addr, prefix: u8) -> Result<(), NetError> {
        let done = self.change_address(link, address, prefix, RouteNetlinkMessage::NewAddress, NEW);
        done.map_err(|cause| NetError::new(format_args!("add address {address}/{prefix} to link {link}"), cause))
    }

    /// Takes an address away from `link`, given as it was added.
    ///
    /// # Errors
    ///
    /// [`Cause::NoAddress`].
    pub fn remove_address(&mut self, link: &str, address: Ipv4Addr, prefix: u8) -> Result<(), NetError> {
        let done = self.change_address(link, address, prefix, RouteNetlinkMessage::DelAddress, 0);
        done.map_err(|cause| NetError::new(format_args!("remove address {address}/{prefix} from link {link}"), cause))
    }

    /// Whether a link was set up. That says nothing of its other end.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn is_up(&mut self, name: &str) -> Result<bool, NetError> {
        self.find(name).map(|found| found.up).map_err(|cause| NetError::new(format_args!("look at link {name}"), cause))
    }

    /// Whether a link carries frames now: it was set up, and so was its other end. The kernel may notice a moment later.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn is_running(&mut self, name: &str) -> Result<bool, NetError> {
        let found = self.find(name).map_err(|cause| NetError::new(format_args!("look at link {name}"), cause))?;
        Ok(found.running)
    }

    /// The hardware address that a link sends from.
    ///
    /// # Errors
    ///
    /// [`Cause::NoEthernet`].
    pub fn hardware_address(&mut self, name: &str) -> Result<HardwareAddress, NetError> {
        let looked = self.find(name).and_then(|found| found.ethernet(name));
        looked.map_err(|cause| NetError::new(format_args!("look at link {name}"), cause))
    }

    /// What is known of a link.
    pub(super) fn find(&mut self, name: &str) -> Result<Found, Cause> {
        let mut link = named(name)?;
        link.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let asked = self.route.ask(RouteNetlinkMessage::GetLink(link), 0);
        Found::read(&asked.map_err(|refusal| of_link(refusal, name))?)
    }

    fn set_flags(&mut self, name: &str, flags: LinkFlags) -> Result<(), Cause> {
        let mut link = named(name)?;
        link.header.flags = flags;
        link.header.change_mask = LinkFlags::Up;
        self.change(RouteNetlinkMessage::SetLink(link), 0, name)
    }

    fn change(&mut self, request: RouteNetlinkMessage, flags: u16, link: &str) -> Result<(), Cause> {
        self.route.ask(request, flags).map(drop).map_err(|refusal| of_link(refusal, link))
    }

    fn change_address(
        &mut self,
        link: &str,
        address: Ipv4Addr,
        prefix: u8,
        request: impl FnOnce(AddressMessage) -> RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), Cause> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = prefix;
        message.header.index = self.find(link)?.index;
        // The same twice means that the other end is no single host.
        let both = [AddressAttribute::Local, AddressAttribute::Address].map(|attribute| attribute(IpAddr::V4(address)));
        message.attributes.extend(both);
        self.route.ask(request(message), flags).map(drop).map_err(|refusal| match refusal {
            Refusal::Errno(Errno::EXIST) => Cause::AddressExists { link: link.to_owned(), address },
            Refusal::Errno(Errno::ADDRNOTAVAIL) => Cause::NoAddress { link: link.to_owned(), address },
            refusal => of_link(refusal, link),
        })
    }
}

/// What the kernel tells of a link.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) index: u32,
    up: bool,
    running: bool,
    hardware: Vec<u8>,
}

impl Found {
    fn read(answer: &[u8]) -> Result<Self, Cause> {
        let header = LinkHeader::parse(answer).map_err(|error| Cause::Answer(error.to_string()))?;
        let (up, running) = (header.flags.contains(LinkFlags::Up), header.flags.contains(LinkFlags::Running));
        let mut found = Found { index: header.index, up, running, hardware: Vec::new() };
        for attribute in NlasIterator::new(&answer[LINK_HEADER_BYTES..]) {
            let attribute = attribute.map_err(|error| Cause::Answer(error.to_string()))?;
            if attribute.kind() == IFLA_ADDRESS {
                found.hardware = attribute.value().to_vec();
            }
        }
        Ok(found)
    }

    pub(super) fn ethernet(&self, name: &str) -> Result<HardwareAddress, Cause> {
        let address = self.hardware.as_slice().try_into();
        address.map(HardwareAddress).map_err(|_| Cause::NoEthernet(name.to_owned()))
    }
}

/// A request about the link of this name. The kernel takes names wherever it takes numbers, so nothing is looked up.
fn named(name: &str) -> Result<LinkMessage, Cause> {
    // The kernel makes a name of its own of one with a '%'.
    let bad = |byte: u8| byte.is_ascii_whitespace() || byte == 0x0b || b"/:%\0".contains(&byte);
    if !(1..=MAX_NAME_BYTES).contains(&name.len()) || name == "." || name == ".." || name.bytes().any(bad) {
        return Err(Cause::Name(name.to_owned()));
    }
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    Ok(link)
}

fn of_link(refusal: Refusal, link: &str) -> Cause {
    match refusal {
        Refusal::Errno(Errno::EXIST) => Cause::LinkExists(link.to_owned()),
        Refusal::Errno(Errno::NODEV) => Cause::NoLink(link.to_owned()),
        Refusal::Errno(errno) => Cause::of_call(errno, "CAP_NET_ADMIN"),
        Refusal::Answer(why) => Cause::Answer(why),
    }
}
