//! How a connection began: read right after accept, for it can't be told later.

use std::net::SocketAddrV4;
use std::os::fd::AsFd;
use std::time::SystemTime;

use backdoor_core::Nanos;
use backdoor_core::channels::{TcpBirth, TcpTimestamp, WindowScales};
use rustix::net::SocketAddrAny;
use rustix::net::sockopt::{set_socket_send_buffer_size, socket_send_buffer_size};

use super::TcpError;
use super::options::{self, Number};
use super::repair::{Queue, Repair, established};
use linux_raw_sys::net::{TCPI_OPT_SACK, TCPI_OPT_TIMESTAMPS, TCPI_OPT_WSCALE};

/// Wall clock, since 1970.
pub(crate) fn wall_clock() -> Nanos {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Reads how the connection began, and pins its send buffer to the size that it has.
///
/// Call it right after accept: nothing may have been sent or read. The client may have sent something already.
///
/// # Errors
/// [`TcpError::NotPermitted`], [`TcpError::NotTcp`], [`TcpError::NotEstablished`], [`TcpError::NotNew`].
pub fn birth(socket: impl AsFd) -> Result<TcpBirth, TcpError> {
    let socket = socket.as_fd();
    let system = TcpError::while_doing("read the connection's numbers");
    let (info, _) = established(socket)?;
    if info.tcpi_bytes_sent > 0 {
        return Err(TcpError::NotNew);
    }
    let address = |address: Option<SocketAddrAny>| address.and_then(|address| SocketAddrV4::try_from(address).ok());
    let local = address(rustix::net::getsockname(socket).ok()).ok_or(TcpError::NotTcp)?;
    let peer = address(rustix::net::getpeername(socket).ok().flatten()).ok_or(TcpError::NotTcp)?;
    // It would grow with the connection otherwise. The kernel doubles what it is told.
    let size = socket_send_buffer_size(socket).map_err(&system)?;
    set_socket_send_buffer_size(socket, size / 2).map_err(&system)?;
    let send_buffer = socket_send_buffer_size(socket).map_err(&system)? as u32;

    let repair = Repair::enter(socket)?;
    let send_base = repair.sequence(Queue::Send).map_err(&system)?;
    let unread = loop {
        if let Some(unread) = repair.unread()? {
            break unread;
        }
    };
    if unread.bytes_received != unread.bytes + u64::from(unread.ended) {
        return Err(TcpError::NotNew);
    }
    let mss = options::get(socket, Number::MaximumSegment).map_err(&system)?;
    let agreed = |option: u32| u32::from(info.tcpi_options) & option != 0;
    let timestamp = if agreed(TCPI_OPT_TIMESTAMPS) {
        let value = options::get(socket, Number::Timestamp).map_err(&system)?;
        Some(TcpTimestamp { value, at: wall_clock() })
    } else {
        None
    };
    Ok(TcpBirth {
        local,
        peer,
        send_base,
        receive_base: unread.first,
        mss: u16::try_from(mss).unwrap_or(u16::MAX),
        window_scales: agreed(TCPI_OPT_WSCALE)
            .then(|| WindowScales { send: info.tcpi_snd_wscale(), receive: info.tcpi_rcv_wscale() }),
        selective_acknowledgements: agreed(TCPI_OPT_SACK),
        timestamp,
        send_buffer,
    })
}
