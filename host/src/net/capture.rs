//! Looking at the packets of a service that pass on a link.

use std::net::SocketAddrV4;
use std::os::fd::{AsFd, BorrowedFd};

use libc::{sock_filter, tpacket_stats};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::RecvFlags;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;

use super::error::{Cause, NetError};
use super::namespace::NetworkNamespace;
use super::packet_socket::PacketSocket;
use crate::socket_option;

/// `struct virtio_net_hdr`, which comes before each frame and says what the kernel knows of its checksum.
const ABOUT_BYTES: usize = 10;
/// Its flags: the checksum is yet to be made, and it was found to be right.
const NOT_MADE_YET: u8 = 1;
const FOUND_RIGHT: u8 = 2;
/// Ethernet's header and the longest IPv4 packet: a link between namespaces brings many segments as one.
const FRAME_BYTES: usize = 14 + 0xffff;
/// What is kept of a packet of the node's: the longest headers of Ethernet, IPv4 and TCP.
const HEADERS_BYTES: u32 = 14 + 60 + 60;
/// What the kernel may keep until it is looked at, as it counts.
const QUEUE_BYTES: usize = 64 << 20;

/// A packet socket on one link. It keeps the link's namespace alive.
#[derive(Debug)]
pub(crate) struct Capture {
    socket: PacketSocket,
    buffer: Vec<u8>,
}

/// What a look brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Captured<'a> {
    /// A frame, from Ethernet's header on: whole if it is for the service, otherwise cut off after TCP's header.
    Frame {
        /// The bytes.
        bytes: &'a [u8],
        /// Whether its checksum need not be looked at: it was found right, or it is made by the card that sends it.
        checksum_settled: bool,
    },
    /// Nothing more for now.
    Nothing,
    /// One passed of which nothing can be told.
    Unseen,
}

impl Capture {
    /// Of TCP packets over IPv4 from and to `service` on `link` of `namespace`, from now on.
    ///
    /// # Errors
    ///
    /// Those of [`PacketSocket::open`]; CAP_NET_ADMIN is needed, too.
    pub(crate) fn open(namespace: &NetworkNamespace, link: &str, service: SocketAddrV4) -> Result<Self, NetError> {
        let raw = |errno| Cause::of_call(errno, "CAP_NET_RAW");
        let socket = PacketSocket::prepared(namespace, link, libc::ETH_P_ALL as u16, |socket| {
            set_socket_recv_buffer_size_force(socket, QUEUE_BYTES / 2)
                .map_err(|errno| Cause::of_call(errno, "CAP_NET_ADMIN"))?;
            socket_option::set(socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &[1u32]).map_err(raw)?;
            socket_option::attach_filter(socket, &filter(service)).map_err(raw)
        })?;
        Ok(Capture { socket, buffer: vec![0; ABOUT_BYTES + FRAME_BYTES] })
    }

    /// What passed next. Never waits.
    pub(crate) fn next(&mut self) -> Captured<'_> {
        let received = loop {
            let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
            match retry_on_intr(|| rustix::net::recv(self.socket.as_fd(), &mut self.buffer[..], flags)) {
                // Told once when the link goes down; what passed before is still there.
                Err(Errno::NETDOWN) => {}
                received => break received,
            }
        };
        match received {
            Err(Errno::AGAIN) => Captured::Nothing,
            Ok((_, length)) if (ABOUT_BYTES..=self.buffer.len()).contains(&length) => {
                let (about, bytes) = self.buffer[..length].split_at(ABOUT_BYTES);
                Captured::Frame { bytes, checksum_settled: about[0] & (NOT_MADE_YET | FOUND_RIGHT) != 0 }
            }
            _ => Captured::Unseen,
        }
    }

    /// Packets that found no room in the kernel's queue since this was asked last.
    pub(crate) fn dropped(&self) -> Result<u32, Errno> {
        let mut counted = tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let counts = socket_option::get(self.as_fd(), libc::SOL_PACKET, libc::PACKET_STATISTICS, &mut counted);
        counts.map(|()| counted.tp_drops)
    }
}

impl AsFd for Capture {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The kernel's program that chooses packets (classic BPF; Linux, Documentation/networking/filter.rst). Answers how many
/// bytes are kept: all of what is for the service, the headers of what is from it, none of anything else.
///
/// Fragments after the first have no ports and are not chosen; TCP doesn't make any.
fn filter(service: SocketAddrV4) -> [sock_filter; 18] {
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_WORD: u16 = 0x20;
    /// The half at the index and an offset; the index becomes the length of IPv4's header.
    const LOAD_HALF_INDEXED: u16 = 0x48;
    const INDEX_BY_HEADER: u16 = 0xb1;
    const IF_EQUAL: u16 = 0x15;
    const IF_ANY_BIT: u16 = 0x45;
    const KEEP: u16 = 0x06;
    const ETHERNET: u32 = 14;
    let [address, port] = [u32::from(*service.ip()), u32::from(service.port())];
    let plain = |code, k| sock_filter { code, jt: 0, jf: 0, k };
    // How many instructions are left out if it is so, and if not.
    let either = |code, k, jt, jf| sock_filter { code, jt, jf, k };
    [
        plain(LOAD_HALF, 12),
        either(IF_EQUAL, libc::ETH_P_IP as u32, 0, 15),
        plain(LOAD_BYTE, ETHERNET + 9),
        either(IF_EQUAL, libc::IPPROTO_TCP as u32, 0, 13),
        plain(LOAD_HALF, ETHERNET + 6),
        either(IF_ANY_BIT, 0x1fff, 11, 0),
        plain(INDEX_BY_HEADER, ETHERNET),
        plain(LOAD_WORD, ETHERNET + 16),
        either(IF_EQUAL, address, 0, 3),
        plain(LOAD_HALF_INDEXED, ETHERNET + 2),
        either(IF_EQUAL, port, 0, 1),
        plain(KEEP, u32::MAX),
        plain(LOAD_WORD, ETHERNET + 12),
        either(IF_EQUAL, address, 0, 3),
        plain(LOAD_HALF_INDEXED, ETHERNET),
        either(IF_EQUAL, port, 0, 1),
        plain(KEEP, HEADERS_BYTES),
        plain(KEEP, 0),
    ]
}
