//! Making a connection anew.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use backdoor_core::channels::{Resume, TcpBirth};
use linux_raw_sys::net::{tcp_repair_opt, tcp_repair_window};
use rustix::io::Errno;
use rustix::net::sockopt::{
    set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force, set_tcp_nodelay, socket_recv_buffer_size,
};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

use super::TcpError;
use super::options::{self, Number};
use super::repair::{Queue, Repair};
use super::reset;

/// Most bytes that are put into a queue of the kernel.
pub const MAX_REFILL_BYTES: usize = 64 << 20;

/// Numbers of TCP options (RFC 9293, 7323, 2018).
mod tcp_option {
    pub(super) const MAXIMUM_SEGMENT: u32 = 2;
    pub(super) const WINDOW_SCALE: u32 = 3;
    pub(super) const SELECTIVE_ACKNOWLEDGEMENTS: u32 = 4;
    pub(super) const TIMESTAMP: u32 = 8;
}

/// A connection that was made anew and has not said a word. Dropped, it never does.
#[derive(Debug)]
pub struct SilentSocket {
    socket: OwnedFd,
    birth: TcpBirth,
    /// Output that the peer can't have, to be sent as usual.
    unsent: Vec<u8>,
    /// Whether its kernel believes that it has announced no window.
    window_closed: bool,
}

/// Makes the connection anew in the calling thread's network namespace, with `replay` as the output that was asked for
/// ([`Resume::replay`]). The service's address must be there already, but nobody may be told yet: what comes for a
/// connection that isn't there is answered by a reset, and that ends it at the client.
///
/// Never waits: the kernel's buffers are made as large as it takes, within [`MAX_REFILL_BYTES`].
///
/// # Errors
/// [`TcpError::NotPermitted`], [`TcpError::AddressNotHere`], [`TcpError::InUse`], [`TcpError::WrongReplay`],
/// [`TcpError::TooMuch`], [`TcpError::Nonsense`].
pub fn recreate(resume: &Resume<'_>, replay: &[u8]) -> Result<SilentSocket, TcpError> {
    let birth = &resume.birth;
    let range = resume.replay();
    let needed = range.end.saturating_sub(range.start);
    let (refill, most) = (resume.refill(), MAX_REFILL_BYTES as u64);
    if let Some(bytes) = [needed, refill.len() as u64].into_iter().find(|bytes| *bytes > most) {
        return Err(TcpError::TooMuch { bytes });
    }
    if replay.len() as u64 != needed {
        return Err(TcpError::WrongReplay { needed, found: replay.len() });
    }
    let sent =
        resume.replay_until.checked_sub(resume.replay_from).and_then(|sent| replay.split_at_checked(sent as usize));
    let (again, unsent) = sent.ok_or_else(|| TcpError::Nonsense("more was sent than was promised".into()))?;

    let system = TcpError::while_doing("make a socket");
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let socket = socket.map_err(&system)?;
    // Whatever fails from here on, fails in silence.
    let repair = Repair::enter(socket.as_fd())?.for_good();
    make_room(socket.as_fd(), birth, refill.len(), replay.len())?;
    let numbers = TcpError::while_doing("set the connection's numbers");
    repair.set_sequence(Queue::Send, resume.send_sequence()).map_err(&numbers)?;
    repair.set_sequence(Queue::Receive, resume.receive_sequence()).map_err(&numbers)?;
    rustix::net::bind(&socket, &birth.local).map_err(|errno| refused(birth, errno))?;
    rustix::net::connect(&socket, &birth.peer).map_err(|errno| match errno {
        // The address is there, so it is the pair that is taken.
        Errno::ADDRNOTAVAIL => TcpError::InUse { local: birth.local, peer: birth.peer },
        errno => refused(birth, errno),
    })?;
    agree(socket.as_fd(), birth)?;
    // Sent as usual, the last byte makes the peer say at once what it is missing; see `room_for_one_more`.
    let (again, unsent) = match again.len().checked_sub(1) {
        Some(last) if unsent.is_empty() && room_for_one_more(socket.as_fd(), again.len())? => again.split_at(last),
        _ => (again, unsent),
    };
    let filling = |doing| move |source| TcpError::System { doing, source };
    repair.fill(Queue::Receive, refill).map_err(filling("refill the receive queue"))?;
    repair.fill(Queue::Send, again).map_err(filling("refill the send queue"))?;
    let window_closed = refill.len() >= CLOSED_WINDOW_BYTES;
    if window_closed {
        close_window(&repair, socket.as_fd())?;
    }
    drop(repair);
    Ok(SilentSocket { socket, birth: *birth, unsent: unsent.to_vec(), window_closed })
}

impl SilentSocket {
    /// Lets the connection speak: from here on it is the one that the peer talks to. What it is asked first is how far it
    /// has come; what it is missing goes out when it has answered. The connection does not hold small pieces back
    /// (`TCP_NODELAY`).
    ///
    /// # Errors
    /// [`TcpError::System`], [`TcpError::NotPermitted`]. The peer was told by a reset, if that is possible at all.
    pub fn speak(self) -> Result<TcpStream, TcpError> {
        match self.go_on() {
            Ok(()) => Ok(TcpStream::from(self.socket)),
            Err(error) => {
                // Whoever else has the socket, say this node's agent, would keep the peer waiting for ever.
                let _ = reset(&self.socket);
                Err(error)
            }
        }
    }

    fn go_on(&self) -> Result<(), TcpError> {
        // Entered again, it is as it was.
        let repair = Repair::enter(self.socket.as_fd())?;
        // A probe would announce the window, and not be believed; what the first reading brings about is asked instead.
        if self.window_closed { repair.leave() } else { repair.leave_with_probe() }?;
        let system = TcpError::while_doing("send on the connection made anew");
        // Not held back until all before it is acknowledged.
        set_tcp_nodelay(&self.socket, true).map_err(&system)?;
        let mut left = &self.unsent[..];
        while !left.is_empty() {
            let sent = send_now(self.socket.as_fd(), left)
                .map_err(|source| TcpError::System { doing: "send on the connection made anew", source })?;
            left = &left[sent..];
        }
        // Of the size that the next heir counts on.
        set_socket_send_buffer_size_force(&self.socket, send_buffer(&self.birth)).map_err(&system)
    }
}

impl AsFd for SilentSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sends what the kernel takes now.
pub(crate) fn send_now(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::io::retry_on_intr(|| rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL))?)
}

/// Buffers for what is refilled. Each byte is counted with what the kernel needs to keep it, so there is twice the room,
/// and the kernel doubles that.
fn make_room(socket: BorrowedFd<'_>, birth: &TcpBirth, refill: usize, replay: usize) -> Result<(), TcpError> {
    const SPARE_BYTES: usize = 64 << 10;
    let forced = |errno| match errno {
        Errno::PERM => TcpError::NotPermitted,
        errno => TcpError::while_doing("make the socket's buffers larger")(errno),
    };
    let send = send_buffer(birth).max(replay + SPARE_BYTES);
    set_socket_send_buffer_size_force(socket, send).map_err(forced)?;
    // Set by hand it no longer grows by itself, so it is left alone if it can be.
    if refill > socket_recv_buffer_size(socket).map_err(forced)? / 4 {
        set_socket_recv_buffer_size_force(socket, 2 * refill + SPARE_BYTES).map_err(forced)?;
    }
    Ok(())
}

/// What to ask for so that the send buffer is as large as it was, which the kernel doubles. Another machine says how large
/// that is, so there is a limit.
fn send_buffer(birth: &TcpBirth) -> usize {
    (birth.send_buffer as usize / 2).min(MAX_REFILL_BYTES)
}

/// What both sides agreed on in the handshake that this socket never had.
fn agree(socket: BorrowedFd<'_>, birth: &TcpBirth) -> Result<(), TcpError> {
    let mut options = vec![tcp_repair_opt { opt_code: tcp_option::MAXIMUM_SEGMENT, opt_val: u32::from(birth.mss) }];
    let mut add = |opt_code, opt_val| options.push(tcp_repair_opt { opt_code, opt_val });
    if let Some(scales) = birth.window_scales {
        add(tcp_option::WINDOW_SCALE, u32::from(scales.send) | u32::from(scales.receive) << 16);
    }
    if birth.selective_acknowledgements {
        add(tcp_option::SELECTIVE_ACKNOWLEDGEMENTS, 0);
    }
    if birth.timestamp.is_some() {
        add(tcp_option::TIMESTAMP, 0);
    }
    options::set_agreed(socket, &options).map_err(|errno| refused(birth, errno))?;
    // Or the smallest there is counts until something else is sent, and what is refilled counts as so many more segments.
    options::size_segments_anew(socket).map_err(|errno| refused(birth, errno))?;
    if let Some(timestamp) = birth.timestamp {
        options::set(socket, Number::Timestamp, timestamp.value).map_err(|errno| refused(birth, errno))?;
    }
    Ok(())
}

/// Whether one byte more than `bytes` goes out at once, and the window that lets it.
///
/// What is refilled counts as sent. If the peer never had it, its kernel has nothing to say about the bytes that are
/// missing, and this one would find out by its timer: 200 ms on a known path, up to 3 s on an unknown one. A byte that
/// comes after the gap is answered at once by what is missing (RFC 2018), and that is repaired at once (RFC 8985).
///
/// It must go out at once. The peer may have that byte already; then its acknowledgements are of something that was never
/// sent and are ignored until it was. So it has to fit the congestion window beside all that was refilled.
fn room_for_one_more(socket: BorrowedFd<'_>, bytes: usize) -> Result<bool, TcpError> {
    const WINDOW_BYTES: u32 = 32 << 10;
    let system = TcpError::while_doing("open the connection's window");
    let info = options::info(socket).map_err(&system)?;
    let segments = bytes / (info.tcpi_snd_mss.max(1) as usize) + 2;
    if segments >= info.tcpi_snd_cwnd as usize || bytes >= WINDOW_BYTES as usize {
        return Ok(false);
    }
    // Larger than the peer's may be: then it doesn't take the byte, and says so.
    let window = options::window(socket).map_err(&system)?;
    let window = tcp_repair_window {
        // As told by the byte before all that is to come, so that whatever the peer tells counts more.
        snd_wl1: window.rcv_wup.wrapping_sub(1),
        snd_wnd: WINDOW_BYTES,
        max_window: WINDOW_BYTES.max(window.max_window),
        ..window
    };
    options::set_window(socket, window).map_err(&system)?;
    Ok(true)
}

/// So much unread input means that its owner had not read for long, and that the peer may wait for the window to open.
const CLOSED_WINDOW_BYTES: usize = 32 << 10;

/// Tells this side's kernel that it has announced no window.
///
/// A peer that was told so asks again by its timer, 200 ms later and then ever more seldom, and believes only what comes
/// in its order; the probe with which a connection leaves repair mode is not. A kernel that has announced no window announces
/// one as soon as some of the unread input is taken, so that the peer goes on at once.
fn close_window(repair: &Repair<'_>, socket: BorrowedFd<'_>) -> Result<(), TcpError> {
    let system = TcpError::while_doing("close the connection's window");
    let window = options::window(socket).map_err(&system)?;
    let received = repair.sequence(Queue::Receive).map_err(&system)?;
    // As told by the byte before all that is to come, so that whatever the peer tells counts more.
    let snd_wl1 = received.wrapping_sub(1);
    let window = tcp_repair_window { snd_wl1, rcv_wnd: 0, rcv_wup: received, ..window };
    options::set_window(socket, window).map_err(&system)
}

fn refused(birth: &TcpBirth, errno: Errno) -> TcpError {
    let (local, peer) = (birth.local, birth.peer);
    match errno {
        Errno::ADDRNOTAVAIL => TcpError::AddressNotHere { address: local },
        Errno::ADDRINUSE => TcpError::InUse { local, peer },
        Errno::PERM => TcpError::NotPermitted,
        Errno::INVAL | Errno::AFNOSUPPORT | Errno::FBIG => {
            TcpError::Nonsense(format!("the kernel refuses it ({errno}): {birth:?}"))
        }
        errno => TcpError::while_doing("make the connection anew")(errno),
    }
}
