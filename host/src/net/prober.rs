//! Whether anybody on a link has an address, or is about to.

use std::net::Ipv4Addr;

use super::arp;
use super::error::NetError;
use super::links::HardwareAddress;
use super::namespace::NetworkNamespace;
use super::packet_socket::PacketSocket;

/// Most frames that are looked at for one answer.
const MOST_FRAMES: usize = 1024;

/// A packet socket on one link that asks who has an address (RFC 5227, section 2.1.1), and hears who says so. It is open all
/// the time, as an [`Announcer`](super::Announcer) is, and for the same reason.
#[derive(Debug)]
pub struct Prober {
    socket: PacketSocket,
}

impl Prober {
    /// Over `link` of `namespace`.
    ///
    /// # Errors
    ///
    /// Those of [`Announcer::open`](super::Announcer::open).
    pub fn open(namespace: &NetworkNamespace, link: &str) -> Result<Self, NetError> {
        Ok(Prober { socket: PacketSocket::open(namespace, link, arp::ARP)? })
    }

    /// Asks everybody on the link who has `address`. What was heard before is forgotten.
    ///
    /// # Errors
    ///
    /// What the system says; ENETDOWN if the link is down.
    pub fn ask(&self, address: Ipv4Addr) -> Result<(), NetError> {
        while self.hear().is_some() {}
        let PacketSocket { link, hardware, .. } = &self.socket;
        let asked = self.socket.send(&arp::probe(address, *hardware));
        asked.map_err(|cause| NetError::new(format_args!("ask who has {address} on link {link}"), cause))
    }

    /// Who has said since then that it has `address`, or has asked for it likewise, to have it; never this link itself. Waits
    /// for nobody.
    ///
    /// So of two that ask, then take the address, and then look here, one at most finds nobody: the other's question came
    /// before it looked, or was answered by its kernel.
    pub fn answer(&self, address: Ipv4Addr) -> Option<HardwareAddress> {
        let heard = std::iter::from_fn(|| self.hear()).take(MOST_FRAMES);
        let wants = |frame: [u8; arp::FRAME_BYTES]| arp::prober(&frame).or_else(|| arp::sender(&frame));
        let mut others = heard.filter_map(wants).filter(|(_, at)| *at != self.socket.hardware);
        others.find(|(who, _)| *who == address).map(|(_, at)| at)
    }

    fn hear(&self) -> Option<[u8; arp::FRAME_BYTES]> {
        // A shorter one is none of ARP's, and read as one of nobody's.
        let mut frame = [0; arp::FRAME_BYTES];
        self.socket.hear(&mut frame).ok().map(|()| frame)
    }
}
