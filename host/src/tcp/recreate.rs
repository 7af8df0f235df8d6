//! Making a connection anew.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use backdoor_core::channels::{Resume, TcpBirth};
use linux_raw_sys::net::{tcp_repair_opt, tcp_repair_window};
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::net::sockopt::{
    set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force, set_tcp_nodelay, socket_recv_buffer_size,
};

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
    /// Output that the peer may have, for the send queue.
    again: Vec<u8>,
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
/// [`TcpError::NotPermitted`], [`TcpError::BuffersNotPermitted`], [`TcpError::AddressNotHere`], [`TcpError::NoRoute`],
/// [`TcpError::InUse`], [`TcpError::WrongReplay`], [`TcpError::TooMuch`], [`TcpError::Nonsense`].
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

    let socket = super::new_socket()?;
    // Whatever fails from here on, fails in silence.
    let repair = Repair::enter(socket.as_fd())?.for_good();
    make_room(socket.as_fd(), birth, refill.len(), replay.len())?;
    let numbers = TcpError::while_doing("set the connection's numbers");
    let early = if again.is_empty() { 0 } else { EARLY_BYTES.len() as u32 };
    repair.set_sequence(Queue::Send, resume.send_sequence().wrapping_sub(early)).map_err(&numbers)?;
    repair.set_sequence(Queue::Receive, resume.receive_sequence()).map_err(&numbers)?;
    rustix::net::bind(&socket, &birth.local).map_err(|errno| refused(birth, errno))?;
    rustix::net::connect(&socket, &birth.peer).map_err(|errno| match errno {
        // The address is there, so it is the pair that is taken.
        Errno::ADDRNOTAVAIL => TcpError::InUse { local: birth.local, peer: birth.peer },
        errno => refused(birth, errno),
    })?;
    agree(socket.as_fd(), birth)?;
    let refilling = |source| TcpError::System { doing: "refill the receive queue", source };
    repair.fill(Queue::Receive, refill).map_err(refilling)?;
    let window_closed = refill.len() >= CLOSED_WINDOW_BYTES;
    if window_closed {
        close_window(&repair, socket.as_fd())?;
    }
    drop(repair);
    Ok(SilentSocket { socket, birth: *birth, again: again.to_vec(), unsent: unsent.to_vec(), window_closed })
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
        let socket = self.socket.as_fd();
        let system = TcpError::while_doing("send on the connection made anew");
        let sending = |source| TcpError::System { doing: "send on the connection made anew", source };
        let send_all = |mut left: &[u8]| -> io::Result<()> {
            while !left.is_empty() {
                left = &left[send_now(socket, left, SendFlags::empty())?..];
            }
            Ok(())
        };
        // Not held back until all before it is acknowledged.
        set_tcp_nodelay(&self.socket, true).map_err(&system)?;
        // Entered again, it is as it was.
        let mut repair = Repair::enter(socket)?;
        let (mut again, mut unsent) = (&self.again[..], &self.unsent[..]);
        if !again.is_empty() {
            repair.leave()?;
            // Nothing goes out: the peer has not said how much it takes.
            send_now(socket, EARLY_BYTES, SendFlags::EOR).map_err(sending)?;
            // Sent as usual, the last byte makes the peer say at once what it is missing.
            let one_more = unsent.is_empty() && fits_one_more(socket, again.len())?;
            if one_more {
                (again, unsent) = again.split_at(again.len() - 1);
            }
            send_all(again).map_err(sending)?;
            repair = Repair::enter(socket)?;
            repair.count_as_sent().map_err(&system)?;
            if one_more {
                open_window(socket)?;
            }
        } else {
            // The peer has all that was sent, so what comes next needs no answer to the probe first. There may be none: a peer
            // answers such probes once in 500 ms (Linux, `tcp_invalid_ratelimit`), and this may be the second heir by then.
            open_window(socket)?;
        }
        // A probe would announce the window, and not be believed; what the first reading brings about is asked instead.
        if self.window_closed { repair.leave() } else { repair.leave_with_probe() }?;
        send_all(unsent).map_err(sending)?;
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
pub(crate) fn send_now(socket: BorrowedFd<'_>, bytes: &[u8], flags: SendFlags) -> io::Result<usize> {
    let flags = flags | SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    Ok(rustix::io::retry_on_intr(|| rustix::net::send(socket, bytes, flags))?)
}

/// Buffers for what is refilled. Each byte is counted with what the kernel needs to keep it, so there is twice the room,
/// and the kernel doubles that.
fn make_room(socket: BorrowedFd<'_>, birth: &TcpBirth, refill: usize, replay: usize) -> Result<(), TcpError> {
    const SPARE_BYTES: usize = 64 << 10;
    let send = send_buffer(birth).max(replay + SPARE_BYTES);
    set_socket_send_buffer_size_force(socket, send).map_err(forced)?;
    // Set by hand it no longer grows by itself, so it is left alone if it can be.
    if refill > socket_recv_buffer_size(socket).map_err(forced)? / 4 {
        set_socket_recv_buffer_size_force(socket, 2 * refill + SPARE_BYTES).map_err(forced)?;
    }
    Ok(())
}

/// Whether [`make_room`] may be done.
pub(super) fn may_have_room(socket: BorrowedFd<'_>) -> Result<(), TcpError> {
    set_socket_send_buffer_size_force(socket, 0).map_err(forced)
}

fn forced(errno: Errno) -> TcpError {
    match errno {
        Errno::PERM => TcpError::BuffersNotPermitted,
        errno => TcpError::while_doing("make the socket's buffers larger")(errno),
    }
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

/// What comes before the output that the peer may have: a byte from before it, which the peer has and would drop unseen, as
/// it does with a keep-alive's (RFC 9293, section 3.8.4).
///
/// What is written in repair mode counts as sent, and Linux takes no round-trip time from it. Without one, its timer decides
/// when what the peer never had is sent again: after 200 ms on a known path, up to 3 s on an unknown one, and longer each
/// time. So all is written as usual, while nothing can go out, and only then counted as sent. This byte is a piece of its
/// own: the peer's first answer acknowledges it, whatever else the peer has, and brings a round-trip time. After twice as
/// long and two ticks of its clock the kernel looks for a loss, however much is on its way (RFC 8985, section 7), and hears
/// what is missing.
const EARLY_BYTES: &[u8] = &[0];

/// What the peer is believed to take until it says.
const WINDOW_BYTES: u32 = 32 << 10;

/// Whether one byte more than `bytes` goes out at once, as soon as the window is [open](open_window).
///
/// If the peer never had the bytes that are refilled, its kernel has nothing to say about them. A byte that comes after the
/// gap is answered at once by what is missing (RFC 2018), and that is repaired at once (RFC 8985).
///
/// It must go out at once. The peer may have that byte already; then its acknowledgements are of something that was never
/// sent and are ignored until it was. So it has to fit the congestion window beside all that was refilled.
fn fits_one_more(socket: BorrowedFd<'_>, bytes: usize) -> Result<bool, TcpError> {
    let info = options::info(socket).map_err(TcpError::while_doing("look at the connection's window"))?;
    // The early byte's, and one that is not full.
    let segments = bytes / (info.tcpi_snd_mss.max(1) as usize) + 3;
    Ok(segments < info.tcpi_snd_cwnd as usize && bytes < WINDOW_BYTES as usize)
}

/// Lets this side send before the peer has said how much it takes. If that is less, it doesn't take it, and says so.
fn open_window(socket: BorrowedFd<'_>) -> Result<(), TcpError> {
    let system = TcpError::while_doing("open the connection's window");
    let window = options::window(socket).map_err(&system)?;
    let window = tcp_repair_window {
        // As told by the byte before all that is to come, so that whatever the peer tells counts more.
        snd_wl1: window.rcv_wup.wrapping_sub(1),
        snd_wnd: WINDOW_BYTES,
        max_window: WINDOW_BYTES.max(window.max_window),
        ..window
    };
    options::set_window(socket, window).map_err(&system)
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
        Errno::NETUNREACH | Errno::HOSTUNREACH => TcpError::NoRoute { peer },
        Errno::PERM => TcpError::NotPermitted,
        Errno::INVAL | Errno::AFNOSUPPORT | Errno::FBIG => {
            TcpError::Nonsense(format!("the kernel refuses it ({errno}): {birth:?}"))
        }
        errno => TcpError::while_doing("make the connection anew")(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use backdoor_core::channels::{Output, TcpState, resume};

    use super::super::{birth, silence, wall_clock};
    use super::*;

    /// A client and its service; `None` for whoever is not root.
    fn connected() -> Option<(TcpStream, TcpStream)> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not tested: repair mode needs root");
            return None;
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        Some((client, listener.accept().unwrap().0))
    }

    /// Without it, a loss is noticed by the timer alone.
    #[test]
    fn the_first_answer_tells_the_round_trip_time_however_much_is_played_again() {
        let Some((mut client, mut server)) = connected() else { return };
        let birth = birth(&server).unwrap();
        server.write_all(&[1; 8_000]).unwrap();
        client.read_exact(&mut [0; 8_000]).unwrap();
        silence(server).unwrap();

        let state = TcpState { intent: 200_000, acknowledged: 3_000, ..TcpState::new(birth, Output::Regenerated) };
        let resume = resume(&state, None, wall_clock()).unwrap();
        let heir = recreate(&resume, &[1; 197_000]).unwrap().speak().unwrap();
        let answered = loop {
            let info = options::info(heir.as_fd()).unwrap();
            if info.tcpi_bytes_acked > 0 {
                break info;
            }
            std::thread::yield_now();
        };
        assert!(answered.tcpi_rtt > 0, "{answered:?}");
        let mut rest = vec![0; 192_000];
        client.read_exact(&mut rest).unwrap();
        drop(heir);
        assert_eq!((rest, client.read(&mut [0]).unwrap()), (vec![1; 192_000], 0), "the early byte is nobody's");
    }

    /// A client that was asked by an heir a moment ago does not answer the next one's probe.
    #[test]
    fn an_heir_soon_after_another_sends_at_once() {
        let Some((mut client, mut owner)) = connected() else { return };
        let birth = birth(&owner).unwrap();
        for answers in [1, 2, 3] {
            owner.write_all(b"answer").unwrap();
            assert_eq!(options::amount(owner.as_fd(), options::Amount::Unsent).unwrap(), 0, "answer {answers}");
            client.read_exact(&mut [0; 6]).unwrap();
            while options::amount(owner.as_fd(), options::Amount::Unacknowledged).unwrap() > 0 {
                std::thread::yield_now();
            }
            silence(owner).unwrap();
            let sent = 6 * answers;
            let state = TcpState { intent: sent, acknowledged: sent, ..TcpState::new(birth, Output::Regenerated) };
            let resume = resume(&state, None, wall_clock()).unwrap();
            owner = recreate(&resume, &[]).unwrap().speak().unwrap();
        }
    }
}
