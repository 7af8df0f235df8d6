//! The socket options and queries of TCP that neither std nor rustix has.

use std::ffi::c_int;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, BorrowedFd};

use linux_raw_sys::net::{tcp_info, tcp_repair_opt, tcp_repair_window};
use rustix::io::Errno;

use crate::socket_option::{self, Plain, check};

// SAFETY: structures of integers, laid out as the kernel's; they are made of zeros, or with every field.
unsafe impl Plain for tcp_info {}
// SAFETY: as above.
unsafe impl Plain for tcp_repair_opt {}
// SAFETY: as above.
unsafe impl Plain for tcp_repair_window {}

/// An option whose value is one number.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    /// Repair mode; see [`super::repair`].
    Repair,
    /// Which queue the next calls are about.
    RepairQueue,
    /// Sequence number at that queue's end.
    QueueSequence,
    /// The timestamp clock.
    Timestamp,
    /// Largest segment; in repair mode that of the peer.
    MaximumSegment,
}

impl Number {
    const fn name(self) -> (c_int, c_int) {
        match self {
            Number::Repair => (libc::IPPROTO_TCP, libc::TCP_REPAIR),
            Number::RepairQueue => (libc::IPPROTO_TCP, libc::TCP_REPAIR_QUEUE),
            Number::QueueSequence => (libc::IPPROTO_TCP, libc::TCP_QUEUE_SEQ),
            Number::Timestamp => (libc::IPPROTO_TCP, libc::TCP_TIMESTAMP),
            Number::MaximumSegment => (libc::IPPROTO_TCP, libc::TCP_MAXSEG),
        }
    }
}

/// A query of how much a queue of a connection holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Amount {
    /// Bytes written and not acknowledged.
    Unacknowledged,
    /// Bytes written and never sent.
    Unsent,
}

/// Sets a number, which the kernel takes for signed or not, as it likes.
pub(super) fn set(socket: BorrowedFd<'_>, option: Number, value: u32) -> Result<(), Errno> {
    let (level, name) = option.name();
    socket_option::set(socket, level, name, &[value])
}

/// Reads a number.
pub(super) fn get(socket: BorrowedFd<'_>, option: Number) -> Result<u32, Errno> {
    let (level, name) = option.name();
    let mut value = 0u32;
    socket_option::get(socket, level, name, &mut value).map(|()| value)
}

/// All that the kernel tells of a connection. Fields that an older kernel doesn't know are 0.
pub(super) fn info(socket: BorrowedFd<'_>) -> Result<tcp_info, Errno> {
    // SAFETY: a structure of integers, for which zeros are a value.
    let mut info: tcp_info = unsafe { zeroed() };
    socket_option::get(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info).map(|()| info)
}

/// Restores what was agreed on in the handshake.
pub(super) fn set_agreed(socket: BorrowedFd<'_>, options: &[tcp_repair_opt]) -> Result<(), Errno> {
    socket_option::set(socket, libc::IPPROTO_TCP, libc::TCP_REPAIR_OPTIONS, options)
}

/// Makes the kernel work out anew how large a segment is. Setting that of the peer doesn't, but setting options of IP does,
/// for these take room of a segment: here, none.
pub(super) fn size_segments_anew(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    socket_option::set::<u32>(socket, libc::IPPROTO_IP, libc::IP_OPTIONS, &[])
}

/// What both sides may send.
pub(super) fn window(socket: BorrowedFd<'_>) -> Result<tcp_repair_window, Errno> {
    // SAFETY: a structure of integers, for which zeros are a value.
    let mut window: tcp_repair_window = unsafe { zeroed() };
    socket_option::get(socket, libc::IPPROTO_TCP, libc::TCP_REPAIR_WINDOW, &mut window).map(|()| window)
}

/// Sets what both sides may send.
pub(super) fn set_window(socket: BorrowedFd<'_>, window: tcp_repair_window) -> Result<(), Errno> {
    socket_option::set(socket, libc::IPPROTO_TCP, libc::TCP_REPAIR_WINDOW, &[window])
}

/// Makes the kernel drop whatever comes for the socket, before anybody answers it.
pub(super) fn drop_all(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    let code = (libc::BPF_RET | libc::BPF_K) as u16;
    socket_option::attach_filter(socket, &[libc::sock_filter { code, jt: 0, jf: 0, k: 0 }])
}

/// Undoes that.
pub(super) fn drop_nothing(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    socket_option::set(socket, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, &[0u32])
}

/// How many bytes there are.
pub(super) fn amount(socket: BorrowedFd<'_>, which: Amount) -> Result<u32, Errno> {
    let request = match which {
        // Linux gives one number two names; SIOCOUTQ is the one for sockets.
        Amount::Unacknowledged => libc::TIOCOUTQ,
        Amount::Unsent => libc::SIOCOUTQNSD as libc::Ioctl,
    };
    let mut amount: c_int = 0;
    // SAFETY: both requests write one int through the pointer, which is that of a live one.
    let outcome = unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut amount) };
    check(outcome).map(|()| amount.max(0) as u32)
}
