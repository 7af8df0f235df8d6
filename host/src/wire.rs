//! The client's end of an agent's socket, for applications and monitors alike; and what all sockets have in common over
//! which processes of a node exchange packets.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, RecvMsg, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use crate::protocol::{
    Answer, MAX_DESCRIPTORS, MAX_PACKET_BYTES, PROTOCOL_VERSION, PacketError, Reason, Request, decode, encode,
};

/// An agent answers within microseconds; one that is silent this long is stopped or dead.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why an agent could not be reached, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// No such socket.
    #[error("no agent at {path}: there is no such socket; is `backdoor node` running?")]
    Missing {
        /// The socket.
        path: String,
    },
    /// A socket that nobody listens on.
    #[error("no agent at {path}: the socket is stale, its agent has died; start `backdoor node` again")]
    Stale {
        /// The socket.
        path: String,
    },
    /// The socket belongs to somebody else.
    #[error("not permitted to use the agent at {path}: only the user who started it may")]
    Permission {
        /// The socket.
        path: String,
    },
    /// Something else lives there.
    #[error("what is at {path} is no agent: {why}")]
    NotAnAgent {
        /// The socket.
        path: String,
        /// How that is known.
        why: String,
    },
    /// The agent speaks another version.
    #[error("the agent speaks protocol version {theirs}, this program version {PROTOCOL_VERSION}")]
    WrongVersion {
        /// The agent's version.
        theirs: u32,
    },
    /// The agent refused, and said why.
    #[error("the agent refused: {message}")]
    Refused {
        /// For programs.
        reason: Reason,
        /// For people.
        message: String,
    },
    /// The agent has closed the connection: it has stopped or died.
    #[error("the agent is gone: it closed the connection")]
    Gone,
    /// The agent does not answer.
    #[error("the agent does not answer within {} s: it is stopped, or something else listens there", waited.as_secs_f64())]
    NoAnswer {
        /// How long it was waited for.
        waited: Duration,
    },
    /// A path that no socket can have.
    #[error("{path} is too long for a socket, whose path has at most 107 bytes")]
    TooLong {
        /// The path.
        path: String,
    },
    /// The system failed.
    #[error("can't talk to the agent: {0}")]
    System(#[from] io::Error),
}

/// Most requests over one connection whose answers have not been taken. Answers wait in a socket's queue, which is small: an
/// agent disconnects whoever lets it become full.
const MOST_UNDER_WAY: u64 = 16;

/// A connection to an agent, for any number of threads. Requests are answered in their order, and several may be under way:
/// so the agent need not be woken up for each.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    path: String,
    patience: Duration,
    turns: Mutex<Turns>,
    answered: Condvar,
}

/// Whose answer is next.
#[derive(Debug, Default)]
struct Turns {
    /// Requests that were sent.
    asked: u64,
    /// Requests whose answers were taken.
    answered: u64,
    /// Whether an answer is outstanding that nobody waits for any more, so that answers would be taken for others.
    out_of_step: bool,
}

impl Turns {
    fn is_full(&self) -> bool {
        self.asked - self.answered >= MOST_UNDER_WAY && !self.out_of_step
    }
}

/// The place of a request that was sent; its answer comes after those of all earlier ones. Dropped, nobody takes that answer
/// any more.
#[derive(Debug)]
struct Turn<'a> {
    connection: &'a Connection,
    number: u64,
}

impl Turn<'_> {
    /// The packet that answers, and the descriptors that come with it.
    fn receive(self, packet: &mut [u8]) -> Result<(Received, Vec<OwnedFd>), ConnectionError> {
        let Connection { socket, patience, answered, .. } = self.connection;
        let waiting = self.connection.turns();
        let not_yet = |turns: &mut Turns| turns.answered != self.number && !turns.out_of_step;
        let turns = answered.wait_while(waiting, not_yet).unwrap_or_else(PoisonError::into_inner);
        if turns.out_of_step {
            return Err(ConnectionError::NoAnswer { waited: *patience });
        }
        // Nobody else receives until this one has.
        drop(turns);
        let answer = match receive(socket.as_fd(), packet) {
            // Reported once, and before what is still to be received.
            Err(Errno::CONNRESET) => receive(socket.as_fd(), packet),
            answer => answer,
        };
        let answer = answer.map_err(|errno| self.connection.io_error(errno))?;
        self.connection.turns().answered += 1;
        Ok(answer)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut turns = self.connection.turns();
        turns.out_of_step |= turns.answered <= self.number;
        drop(turns);
        self.connection.answered.notify_all();
    }
}

impl Connection {
    /// Connects to the agent at `path`.
    pub fn connect(path: &Path) -> Result<Self, ConnectionError> {
        Self::connect_within(path, PATIENCE)
    }

    /// The same, and waits no longer than `patience` for each answer.
    pub fn connect_within(path: &Path, patience: Duration) -> Result<Self, ConnectionError> {
        let shown = path.display().to_string();
        let system = |errno: Errno| ConnectionError::System(errno.into());
        let address = match SocketAddrUnix::new(path) {
            Err(Errno::NAMETOOLONG) => return Err(ConnectionError::TooLong { path: shown }),
            address => address.map_err(system)?,
        };
        let socket = new_socket(SocketFlags::CLOEXEC).map_err(system)?;
        for which in [Timeout::Recv, Timeout::Send] {
            // Also bounds the connect, which waits while an agent's backlog is full.
            set_socket_timeout(&socket, which, Some(patience)).map_err(system)?;
        }
        match rustix::net::connect(&socket, &address) {
            Ok(()) => {
                Ok(Connection { socket, path: shown, patience, turns: Mutex::default(), answered: Condvar::new() })
            }
            Err(Errno::NOENT) => Err(ConnectionError::Missing { path: shown }),
            // The kernel says the same of a socket without listener and of a path that is no socket.
            Err(Errno::CONNREFUSED) if is_socket(path) => Err(ConnectionError::Stale { path: shown }),
            Err(Errno::CONNREFUSED) => Err(ConnectionError::NotAnAgent { path: shown, why: "it is no socket".into() }),
            Err(Errno::ACCESS | Errno::PERM) => Err(ConnectionError::Permission { path: shown }),
            Err(Errno::PROTOTYPE) => {
                Err(ConnectionError::NotAnAgent { path: shown, why: "the socket is of another type".into() })
            }
            Err(Errno::AGAIN) => Err(ConnectionError::NoAnswer { waited: patience }),
            Err(errno) => Err(system(errno)),
        }
    }

    /// Asks, and waits for the answer and the descriptors that come with it. A refusal is an error.
    pub fn request(&self, request: &Request) -> Result<(Answer, Vec<OwnedFd>), ConnectionError> {
        self.request_with(request, &[])
    }

    /// The same, and sends duplicates of descriptors along.
    pub fn request_with(
        &self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(Answer, Vec<OwnedFd>), ConnectionError> {
        self.answer(self.ask(request, descriptors)?)
    }

    /// Asks all of it, and does not wait for one answer before the next question. Answers come in the order of the requests.
    pub fn request_all(
        &self,
        requests: impl IntoIterator<Item = Request>,
    ) -> Vec<Result<(Answer, Vec<OwnedFd>), ConnectionError>> {
        let (mut answers, mut under_way) = (Vec::new(), VecDeque::new());
        for request in requests {
            let asked = loop {
                // Whoever has requests under way does not wait for a place: two who did would wait for each other.
                if under_way.is_empty() {
                    break self.ask(&request, &[]);
                }
                match self.ask_if_there_is_a_place(&request) {
                    Some(asked) => break asked,
                    None => answers.extend(under_way.pop_front().map(|asked| self.answer(asked))),
                }
            };
            match asked {
                Ok(asked) => under_way.push_back(asked),
                Err(error) => {
                    answers.extend(under_way.drain(..).map(|asked| self.answer(asked)));
                    answers.push(Err(error));
                }
            }
        }
        answers.extend(under_way.into_iter().map(|asked| self.answer(asked)));
        answers
    }

    /// Sends it, as soon as there is a place.
    fn ask(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<Turn<'_>, ConnectionError> {
        let turns = self.answered.wait_while(self.turns(), |turns| turns.is_full());
        self.send(turns.unwrap_or_else(PoisonError::into_inner), request, descriptors)
    }

    fn ask_if_there_is_a_place(&self, request: &Request) -> Option<Result<Turn<'_>, ConnectionError>> {
        let turns = self.turns();
        (!turns.is_full()).then(|| self.send(turns, request, &[]))
    }

    fn send(
        &self,
        mut turns: MutexGuard<'_, Turns>,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Turn<'_>, ConnectionError> {
        if turns.out_of_step {
            return Err(ConnectionError::NoAnswer { waited: self.patience });
        }
        match send(self.socket.as_fd(), &encode(request), descriptors, SendFlags::empty()) {
            // An agent that closes the connection at once has said why before.
            Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => {}
            Err(errno) => return Err(self.io_error(errno)),
        }
        turns.asked += 1;
        Ok(Turn { connection: self, number: turns.asked - 1 })
    }

    fn answer(&self, asked: Turn<'_>) -> Result<(Answer, Vec<OwnedFd>), ConnectionError> {
        let mut packet = [0; MAX_PACKET_BYTES];
        let (received, descriptors) = asked.receive(&mut packet)?;
        let packet = match received {
            Received::Packet(0) => return Err(ConnectionError::Gone),
            Received::Packet(length) => &packet[..length],
            Received::TooLong => return Err(self.no_agent(format!("a packet over {MAX_PACKET_BYTES} bytes"))),
        };
        match decode(packet) {
            Ok(Answer::Refused { reason, message }) => Err(ConnectionError::Refused { reason, message }),
            Ok(answer) => Ok((answer, descriptors)),
            Err(PacketError::WrongVersion { found }) => Err(ConnectionError::WrongVersion { theirs: found }),
            Err(PacketError::Malformed(why)) => Err(self.no_agent(why)),
        }
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says something that is not answered.
    pub fn notify(&self, notice: &Request) -> Result<(), ConnectionError> {
        send(self.socket.as_fd(), &encode(notice), &[], SendFlags::empty()).map_err(|errno| self.io_error(errno))
    }

    /// Whether the agent still holds its end. A stopped agent does; a dead one does not.
    pub fn is_alive(&self) -> bool {
        !has_hung_up(self.socket.as_fd())
    }

    fn io_error(&self, errno: Errno) -> ConnectionError {
        match errno {
            Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => ConnectionError::Gone,
            Errno::AGAIN => ConnectionError::NoAnswer { waited: self.patience },
            errno => ConnectionError::System(errno.into()),
        }
    }

    /// For an answer that makes no sense.
    pub(crate) fn no_agent(&self, why: String) -> ConnectionError {
        ConnectionError::NotAnAgent { path: self.path.clone(), why }
    }
}

pub(crate) fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

pub(crate) fn new_socket(flags: SocketFlags) -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

/// A socket of this address that is yet to listen, non-blocking. Only this user may connect.
pub(crate) fn bind(address: &SocketAddrUnix) -> Result<OwnedFd, Errno> {
    let socket = new_socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    // On Linux the file gets the mode of the socket: there is no moment at which others could connect.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, address)?;
    Ok(socket)
}

/// Connections may wait from now on until they are accepted.
pub(crate) fn listen(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    const BACKLOG: i32 = 128;
    rustix::net::listen(socket, BACKLOG)
}

/// The next connection that waits, non-blocking; `None` if there is none.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Errno> {
    match rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
        Ok(connection) => Ok(Some(connection)),
        Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Whether the other end is closed. What it sent before can still be received.
pub(crate) fn has_hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(socket, PollFlags::RDHUP)];
    let at_once = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut polled, Some(&at_once)).is_ok()
        && polled[0].revents().intersects(PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR)
}

/// Sends one packet, whole or not at all.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    packet: &[u8],
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOBIG);
    }
    // No SIGPIPE: that the peer is gone is an answer, not a reason to die.
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(socket, &[IoSlice::new(packet)], &mut control, flags | SendFlags::NOSIGNAL)
    })
    .map(|_| ())
}

/// What came in.
pub(crate) enum Received {
    /// Bytes of a packet; 0 for the end, or for an empty packet.
    Packet(usize),
    /// A packet longer than the buffer, which is lost.
    TooLong,
}

/// Receives one packet and its descriptors.
fn receive(socket: BorrowedFd<'_>, packet: &mut [u8]) -> Result<(Received, Vec<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let (message, descriptors) = receive_into(socket, packet, &mut space, RecvFlags::empty())?;
    Ok((received(&message), descriptors))
}

/// What came with a packet that may bring one descriptor.
#[derive(Debug)]
pub(crate) enum Enclosed {
    Nothing,
    One(OwnedFd),
    /// More than one, or one that this process had no room for. All are closed.
    TooMany,
}

/// Receives one packet without waiting. Of the descriptors that come with it, the kernel hands out no more than fit into
/// the space for one, which it may round up to two; the others it closes.
pub(crate) fn receive_from_peer(socket: BorrowedFd<'_>, packet: &mut [u8]) -> Result<(Received, Enclosed), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let (message, mut descriptors) = receive_into(socket, packet, &mut space, RecvFlags::DONTWAIT)?;
    let enclosed = match (descriptors.pop(), message.flags.contains(ReturnFlags::CTRUNC)) {
        (None, false) => Enclosed::Nothing,
        (Some(descriptor), false) if descriptors.is_empty() => Enclosed::One(descriptor),
        _ => Enclosed::TooMany,
    };
    Ok((received(&message), enclosed))
}

/// Receives one packet and the descriptors that there is space for. They are not inherited by other programs.
fn receive_into(
    socket: BorrowedFd<'_>,
    packet: &mut [u8],
    space: &mut [MaybeUninit<u8>],
    flags: RecvFlags,
) -> Result<(RecvMsg, Vec<OwnedFd>), Errno> {
    let mut control = RecvAncillaryBuffer::new(space);
    let message = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(packet)], &mut control, flags | RecvFlags::CMSG_CLOEXEC)
    })?;
    let rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Ok((message, rights.flatten().collect()))
}

fn received(message: &RecvMsg) -> Received {
    let too_long = message.flags.contains(ReturnFlags::TRUNC);
    if too_long { Received::TooLong } else { Received::Packet(message.bytes) }
}
