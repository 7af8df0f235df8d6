//! Telling the neighbours that an address is here now.

use std::net::Ipv4Addr;

use super::arp;
use super::error::NetError;
use super::namespace::NetworkNamespace;
use super::packet_socket::PacketSocket;

/// A packet socket on one link, open so that an announcement costs nothing but two frames: closing such a socket has taken
/// tens of milliseconds. It keeps the link's namespace alive.
#[derive(Debug)]
pub struct Announcer {
    socket: PacketSocket,
}

impl Announcer {
    /// Over `link` of `namespace`, from the hardware address that it has now. The link may be down until it announces.
    ///
    /// # Errors
    ///
    /// [`NoLink`](super::Cause::NoLink); [`NoEthernet`](super::Cause::NoEthernet); [`Privilege`](super::Cause::Privilege)
    /// without CAP_NET_RAW in the namespace; those of
    /// [`NetworkNamespace::enter`].
    pub fn open(namespace: &NetworkNamespace, link: &str) -> Result<Self, NetError> {
        Ok(Announcer { socket: PacketSocket::open(namespace, link, 0)? })
    }

    /// Sends two frames to everybody: `address` is here. Neighbours that know the address send here from now on; those
    /// that don't will ask. Frames can get lost, and nobody confirms them, so whoever depends on it announces again.
    ///
    /// # Errors
    ///
    /// What the system says; ENETDOWN if the link is down.
    pub fn announce(&self, address: Ipv4Addr) -> Result<(), NetError> {
        let PacketSocket { link, hardware, .. } = &self.socket;
        let announced = arp::announcements(address, *hardware).iter().try_for_each(|frame| self.socket.send(frame));
        announced.map_err(|cause| NetError::new(format_args!("announce {address} on link {link}"), cause))
    }
}
