//! Whether anybody on a link has an address.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use rustix::io::retry_on_intr;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::arp;
use super::error::{Cause, NetError};
use super::links::{HardwareAddress, Links};
use super::namespace::NetworkNamespace;
use super::system::PacketAddress;

/// Most frames that are looked at for one answer.
const MOST_FRAMES: usize = 1024;

/// A packet socket on one link that asks who has an address (RFC 5227, section 2.1.1), and hears who says so. It is open all
/// the time, as an [`Announcer`](super::Announcer) is, and for the same reason.
#[derive(Debug)]
pub struct Prober {
    socket: OwnedFd,
    link: String,
    hardware: HardwareAddress,
}

impl Prober {
    /// Over `link` of `namespace`.
    ///
    /// # Errors
    ///
    /// Those of [`Announcer::open`](super::Announcer::open).
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
        rustix::net::bind(&socket, &PacketAddress::to_hear(index, arp::ARP)).map_err(failed)?;
        Ok(Prober { socket, link: link.to_owned(), hardware })
    }

    /// Asks everybody on the link who has `address`. What was heard before is forgotten.
    ///
    /// # Errors
    ///
    /// What the system says; ENETDOWN if the link is down.
    pub fn ask(&self, address: Ipv4Addr) -> Result<(), NetError> {
        while self.hear().is_some() {}
        let sent =
            retry_on_intr(|| rustix::net::send(&self.socket, &arp::probe(address, self.hardware), SendFlags::empty()));
        let failed = |cause| NetError::new(format_args!("ask who has {address} on link {}", self.link), cause);
        sent.map(drop).map_err(|errno| failed(Cause::of_call(errno, "CAP_NET_RAW")))
    }

    /// Who has said since then that it has `address`; never this link itself. Waits for nobody.
    pub fn answer(&self, address: Ipv4Addr) -> Option<HardwareAddress> {
        let heard = std::iter::from_fn(|| self.hear()).take(MOST_FRAMES);
        heard
            .filter_map(|frame| arp::sender(&frame))
            .find(|(who, at)| *who == address && *at != self.hardware)
            .map(|found| found.1)
    }

    fn hear(&self) -> Option<[u8; arp::FRAME_BYTES]> {
        let mut frame = [0; arp::FRAME_BYTES];
        let heard = retry_on_intr(|| rustix::net::recv(&self.socket, &mut frame[..], RecvFlags::DONTWAIT));
        // A shorter one is none of ARP's, and read as one of nobody's.
        heard.ok().map(|_| frame)
    }
}
