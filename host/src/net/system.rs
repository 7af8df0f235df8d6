//! The two calls that rustix offers no safe way to: leaving a network namespace, and the address of a packet socket.

use std::mem::offset_of;

use rustix::io::Errno;
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::thread::UnshareFlags;

/// Moves the calling thread into a new network namespace, which has nothing but a loopback link that is down.
pub(super) fn unshare_network() -> Result<(), Errno> {
    // SAFETY: the call is unsafe for the sake of `UnshareFlags::FILES`, after which descriptors would mean something else
    // on this thread than on others. The network namespace alone is left here; descriptors stay shared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
}

/// `struct sockaddr_ll` of packet(7), as it is needed to bind a packet socket to a link.
#[repr(C)]
pub(super) struct PacketAddress {
    family: u16,
    protocol: u16,
    index: i32,
    hardware_type: u16,
    packet_type: u8,
    address_length: u8,
    address: [u8; 8],
}

const _: () = {
    assert!(size_of::<PacketAddress>() == 20);
    assert!(offset_of!(PacketAddress, protocol) == 2);
    assert!(offset_of!(PacketAddress, index) == 4);
    assert!(offset_of!(PacketAddress, hardware_type) == 8);
    assert!(offset_of!(PacketAddress, address) == 12);
};

impl PacketAddress {
    /// Of the link with this index, for frames of this protocol that arrive there, and for sending. No protocol, 0, means
    /// that nothing that arrives is queued.
    pub(super) fn on(index: u32, protocol: u16) -> Self {
        PacketAddress {
            family: rustix::net::AddressFamily::PACKET.as_raw(),
            protocol: protocol.to_be(),
            index: index.cast_signed(),
            hardware_type: 0,
            packet_type: 0,
            address_length: 0,
            address: [0; 8],
        }
    }
}

// SAFETY: the pointer is that of `self`, which is borrowed for the whole call, with its size; every byte of it is
// initialised, for there is no padding (asserted above: the fields' sizes add up to 20), and it is laid out as the kernel's
// `sockaddr_ll`.
unsafe impl SocketAddrArg for PacketAddress {
    unsafe fn with_sockaddr<R>(&self, call: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        call(std::ptr::from_ref(self).cast(), size_of::<Self>() as SocketAddrLen)
    }
}
