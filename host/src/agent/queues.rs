//! Sockets of services, held in duplicate: how much waits to be read is the kernel's word, not the service's.
//!
//! A session that says it is idle while its client's request lies unread in the socket has lost a wake-up, or hangs where
//! its counter can't show it. The service can't be asked; the kernel can, by anybody who holds a descriptor of the same
//! socket. So a service may hand the agent one, and every pass writes what waits into a gauge of the Progress Box, against
//! which a monitor holds the claim to be idle.
//!
//! * A pass asks once per socket (`FIONREAD`; a listening socket is polled and counts 1 if somebody waits): it never reads,
//!   never waits, and never changes a flag, all of which would show in the service. A pass over 256 TCP sockets took 68 us
//!   in the median on a busy virtual machine with 2 processors (`what_a_pass_costs` below): every 2 ms, 3.4% of one
//!   processor. With nothing to look at there is no pass.
//! * What a peer sends is hostile until it has shown to be a stream socket of which the kernel tells what waits. Of those,
//!   no more are held than there are gauges, and the agent starts only where it may have as many descriptors.
//! * A duplicate keeps its connection open, so it is let go with its session, and when its process dies: then clients are
//!   told by the kernel, as ever. One that is to be kept is let go a while later, so that somebody can carry it on; and in
//!   silence if somebody did. When that is, the registry knows.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use backdoor_core::progress_box::{MAX_GAUGES, Pending, Slot};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::sockopt::{socket_acceptconn, socket_type};
use rustix::net::{Shutdown, SocketType};
use rustix::time::Timespec;

use super::gauges::GAUGE_SLOTS;
use crate::tcp;

/// Most sockets that an agent can hold.
pub(super) const MAX_QUEUES: usize = MAX_GAUGES - GAUGE_SLOTS;

/// Why a descriptor was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum QueueError {
    #[error("what was sent is no socket")]
    NoSocket,
    #[error("only of a stream socket is it known how much waits")]
    NoStream,
    #[error("the kernel does not tell how much waits in that socket")]
    NotTold,
    #[error("all {0} queue gauges are in use")]
    Full(usize),
}

/// How a socket is let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    /// Closed: the kernel tells the other end.
    AsUsual,
    /// Without a word: its client talks to somebody else, and would take the end of this connection for that of the other.
    InSilence,
}

/// A stream socket, connected or listening.
#[derive(Debug)]
struct Queue {
    socket: OwnedFd,
    listens: bool,
    gauge: u16,
    /// Not let go when its process dies.
    keep: bool,
}

impl Queue {
    /// Fails unless the kernel tells what waits in it.
    fn of(socket: OwnedFd, gauge: u16, keep: bool) -> Result<Self, QueueError> {
        match socket_type(&socket) {
            // Of packets that are kept in order, the kernel tells of all that wait, too.
            Ok(SocketType::STREAM | SocketType::SEQPACKET) => {}
            Ok(_) => return Err(QueueError::NoStream),
            Err(_) => return Err(QueueError::NoSocket),
        }
        let listens = socket_acceptconn(&socket).unwrap_or(false);
        let queue = Queue { socket, listens, gauge, keep };
        queue.waiting().map(|_| queue).map_err(|_| QueueError::NotTold)
    }

    /// Bytes that wait to be read; of a listening socket, whether a connection waits. The end of a connection is no byte.
    fn waiting(&self) -> Result<u64, Errno> {
        if !self.listens {
            return rustix::io::ioctl_fionread(&self.socket);
        }
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
        rustix::event::poll(&mut polled, Some(&at_once))?;
        Ok(u64::from(polled[0].revents().contains(PollFlags::IN)))
    }
}

/// The sockets that the agent holds, each for the entity in a slot, and the gauges that are left.
#[derive(Debug)]
pub(super) struct Queues {
    held: BTreeMap<Slot, Queue>,
    /// Those that were free for longest come first: a monitor may take a while to learn whose a gauge is now.
    free: VecDeque<u16>,
    room: usize,
    /// Number of the last pass.
    pass: u32,
}

impl Queues {
    /// Room for `room` sockets, whose gauges come right after the fixed ones.
    pub(super) fn new(room: usize) -> Self {
        let room = room.min(MAX_QUEUES);
        let free = (GAUGE_SLOTS..GAUGE_SLOTS + room).map(|gauge| gauge as u16).collect();
        Queues { held: BTreeMap::new(), free, room, pass: 0 }
    }

    /// Sockets held.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Sockets that can be held.
    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// Holds `socket` for the entity in `slot`, in place of an earlier one. Answers its gauge.
    pub(super) fn hold(&mut self, slot: Slot, socket: OwnedFd, keep: bool) -> Result<u16, QueueError> {
        let known = self.held.get(&slot).map(|queue| queue.gauge);
        let gauge = known.or(self.free.front().copied()).ok_or(QueueError::Full(self.room))?;
        let queue = Queue::of(socket, gauge, keep)?;
        if known.is_none() {
            self.free.pop_front();
        }
        self.held.insert(slot, queue);
        Ok(gauge)
    }

    /// Lets go of the socket of the entity in `slot`, if there is one. Its gauge is to be cleared before it is another's.
    pub(super) fn release(&mut self, slot: Slot, farewell: Farewell) -> Option<u16> {
        let queue = self.held.remove(&slot)?;
        if farewell == Farewell::InSilence {
            // What is no TCP connection is nobody else's.
            let _ = tcp::silence(&queue.socket);
            // No word of this goes out. An owner that lives, and waits for input, finds its end.
            let _ = rustix::net::shutdown(&queue.socket, Shutdown::Read);
        }
        self.free.push_back(queue.gauge);
        Some(queue.gauge)
    }

    /// The socket that is kept for the entity in `slot` if its process dies.
    pub(super) fn kept(&self, slot: Slot) -> Option<BorrowedFd<'_>> {
        self.held.get(&slot).filter(|queue| queue.keep).map(|queue| queue.socket.as_fd())
    }

    /// Asks for what waits in each socket and hands it on, by gauge. What the kernel does not tell is nothing.
    pub(super) fn pass(&mut self, mut set: impl FnMut(usize, u64)) {
        self.pass = Pending::next_look(self.pass);
        for queue in self.held.values() {
            let waiting = queue.waiting().unwrap_or(0);
            set(usize::from(queue.gauge), Pending::seen(waiting, self.pass).to_word());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;
    use crate::clock;

    fn slot(index: usize) -> Slot {
        Slot(index as u32)
    }

    fn tcp() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    fn duplicate(socket: &TcpStream) -> OwnedFd {
        socket.try_clone().unwrap().into()
    }

    /// What each gauge was set to by one pass.
    fn pass(queues: &mut Queues) -> Vec<(usize, u32)> {
        let mut seen = Vec::new();
        queues.pass(|gauge, word| seen.push((gauge - GAUGE_SLOTS, Pending::of_word(word).amount)));
        seen
    }

    #[test]
    fn what_waits_is_seen_and_not_touched() {
        let (mut client, mut server) = tcp();
        let (mut local_client, local_server) = UnixStream::pair().unwrap();
        let mut queues = Queues::new(4);
        queues.hold(slot(3), duplicate(&server), false).unwrap();
        queues.hold(slot(5), local_server.into(), false).unwrap();
        assert_eq!(pass(&mut queues), [(0, 0), (1, 0)]);
        client.write_all(b"request").unwrap();
        local_client.write_all(b"more").unwrap();
        assert_eq!(pass(&mut queues), [(0, 7), (1, 4)]);
        let mut request = [0; 7];
        server.read_exact(&mut request).unwrap();
        assert_eq!((&request, pass(&mut queues)), (b"request", vec![(0, 0), (1, 4)]));
        drop((client, local_client));
        let mut rest = Vec::new();
        assert_eq!((server.read_to_end(&mut rest).unwrap(), pass(&mut queues)), (0, vec![(0, 0), (1, 4)]));
    }

    #[test]
    fn who_waits_at_a_listener_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let local = UnixListener::bind(directory.path().join("listener")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut queues = Queues::new(4);
        queues.hold(slot(0), listener.try_clone().unwrap().into(), false).unwrap();
        queues.hold(slot(1), local.into(), false).unwrap();
        assert_eq!(pass(&mut queues), [(0, 0), (1, 0)]);
        let _clients = [listener.local_addr().unwrap(); 2].map(|address| TcpStream::connect(address).unwrap());
        assert_eq!(pass(&mut queues), [(0, 1), (1, 0)]);
        let _first = listener.accept().unwrap();
        assert_eq!(pass(&mut queues), [(0, 1), (1, 0)]);
        let _second = listener.accept().unwrap();
        assert_eq!(pass(&mut queues), [(0, 0), (1, 0)]);
    }

    #[test]
    fn looks_are_numbered() {
        let mut queues = Queues::new(1);
        queues.hold(slot(0), duplicate(&tcp().1), false).unwrap();
        let mut looks = Vec::new();
        for _ in 0..3 {
            queues.pass(|_, word| looks.push(Pending::of_word(word).look));
        }
        assert_eq!(looks, [1, 2, 3]);
    }

    #[test]
    fn what_is_no_stream_socket_is_not_taken() {
        let mut queues = Queues::new(1);
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        assert_eq!(queues.hold(slot(0), reader, false), Err(QueueError::NoSocket));
        assert_eq!(
            queues.hold(slot(0), std::fs::File::open("/dev/null").unwrap().into(), false),
            Err(QueueError::NoSocket)
        );
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(queues.hold(slot(0), datagrams.into(), false), Err(QueueError::NoStream));
        assert_eq!((queues.len(), pass(&mut queues)), (0, vec![]));
    }

    #[test]
    fn gauges_are_as_many_as_there_is_room_and_rest_before_they_serve_again() {
        let (_client, server) = tcp();
        let mut queues = Queues::new(3);
        let gauges: Vec<u16> = (0..3).map(|at| queues.hold(slot(at), duplicate(&server), false).unwrap()).collect();
        assert_eq!(gauges, [GAUGE_SLOTS as u16, GAUGE_SLOTS as u16 + 1, GAUGE_SLOTS as u16 + 2]);
        assert_eq!(queues.hold(slot(9), duplicate(&server), false), Err(QueueError::Full(3)));
        assert_eq!(
            queues.hold(slot(1), duplicate(&server), false),
            Ok(gauges[1]),
            "one socket each, the last one given"
        );
        assert_eq!(queues.len(), 3);
        for at in [2, 0, 1] {
            assert_eq!(queues.release(slot(at), Farewell::AsUsual), Some(gauges[at]));
        }
        assert_eq!(queues.release(slot(1), Farewell::AsUsual), None);
        let again: Vec<u16> = (0..3).map(|at| queues.hold(slot(at), duplicate(&server), false).unwrap()).collect();
        assert_eq!(again, [gauges[2], gauges[0], gauges[1]]);
    }

    #[test]
    #[ignore = "a measurement: cargo test --release -p backdoor-host --lib queues -- --ignored --nocapture"]
    fn what_a_pass_costs() {
        const QUEUES: usize = 256;
        let sockets: Vec<_> = (0..QUEUES).map(|_| tcp()).collect();
        let mut queues = Queues::new(QUEUES);
        for (at, (client, server)) in sockets.iter().enumerate() {
            (&*client).write_all(&[0; 8]).unwrap();
            queues.hold(slot(at), duplicate(server), false).unwrap();
        }
        let mut times: Vec<u64> = (0..2000)
            .map(|_| {
                let start = clock::now();
                queues.pass(|_, word| {
                    std::hint::black_box(word);
                });
                (clock::now() - start).0
            })
            .collect();
        times.sort_unstable();
        let at = |percent: usize| times[times.len() * percent / 100] as f64 / 1e3;
        println!(
            "a pass over {QUEUES} TCP sockets: {:.1} us at 5%, {:.1} us at 50%, {:.1} us at 95%",
            at(5),
            at(50),
            at(95)
        );
    }
}
