//! Telling the neighbours that an address is here now.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use rustix::io::retry_on_intr;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

use super::arp;
use super::error::{Cause, NetError};
use super::links::{HardwareAddress, Links};
use super::namespace::NetworkNamespace;
use super::system::PacketAddress;

/// A packet socket on one link, open so that an announcement costs nothing but two frames: closing such a socket has taken
/// tens of milliseconds. It keeps the link's namespace alive.
#[derive(Debug)]
pub struct Announcer {
    socket: OwnedFd,
    link: String,
    hardware: HardwareAddress,
}

impl Announcer {
    /// Over `link` of `namespace`, from the hardware address that it has now. The link may be down until it announces.
    ///
    /// # Errors
    ///
    /// [`Cause::NoLink`]; [`Cause::NoEthernet`]; [`Cause::Privilege`] without CAP_NET_RAW in the namespace; those of
    /// [`NetworkNamespace::enter`].
    pub fn open(namespace: &NetworkNamespace, link: &str) -> Result<Self, NetError> {
        let opened = namespace.enter(|| {
            let found = Links::here()?.find(link).and_then(|found| Ok((found.index, found.ethernet(link)?)));
            found
                .and_then(|(index, hardware)| Self::on(link, index, hardware))
                .map_err(|cause| NetError::new(format_args!("open a packet socket on link {link}"), cause))
        });
        opened?
    }

    fn on(link: &str, index: u32, hardware: HardwareAddress) -> Result<Self, Cause> {
        let failed = |errno| Cause::of_call(errno, "CAP_NET_RAW");
        let socket = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None);
        let socket = socket.map_err(failed)?;
        rustix::net::bind(&socket, &PacketAddress::to_send_on(index)).map_err(failed)?;
        Ok(Announcer { socket, link: link.to_owned(), hardware })
    }

    /// Sends two frames to everybody: `address` is here. Neighbours that know the address send here from now on; those
    /// that don't will ask. Frames can get lost, and nobody confirms them, so whoever depends on it announces again.
    ///
    /// # Errors
    ///
    /// What the system says; ENETDOWN if the link is down.
    pub fn announce(&self, address: Ipv4Addr) -> Result<(), NetError> {
        for frame in arp::announcements(address, self.hardware) {
            let sent = retry_on_intr(|| rustix::net::send(&self.socket, &frame, SendFlags::empty()));
            let failed = |cause| NetError::new(format_args!("announce {address} on link {}", self.link), cause);
            sent.map_err(|errno| failed(Cause::of_call(errno, "CAP_NET_RAW")))?;
        }
        Ok(())
    }
}
