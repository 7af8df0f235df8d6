//! Input of clients that a vanished node's kernel had acknowledged, from somebody who saw it pass.
//!
//! While a node can be reached, its agent tells what its sockets hold ([`Node::queues`](crate::app::Node::queues)). A node
//! whose links are cut tells nothing, and its clients don't send again what was acknowledged. A [`Mirror`] stands on the way
//! between clients and the service, at a switch's port say, and answers the same from the packets that passed:
//! [`backdoor_core::channels::mirror`] puts them in order.
//!
//! ```text
//!   clients ══════ link ═══╦═══ switch ══════ node, that vanishes; later its heir
//!                          ║
//!                     Mirror::open: a packet socket, filtered by the kernel; a thread that reads it
//!                          ║
//!                     Mirror::queues, after the fence: read empty, then answered
//! ```
//!
//! * The link is best one to the clients: then what they send while nobody serves them is known, too, and need not be
//!   sent again.
//! * It reads of each packet to the service all, and of those from it the headers. What the kernel had no room to queue is
//!   counted, and then a connection is not answered for until its node was heard on it again.
//! * The addresses are those of IPv4 over Ethernet. Packets that Linux hands over as one, up to 64 KiB, are read as one.
//!
//! A link between two namespaces, on a virtual machine with 2 processors that also sent and received: an unoptimised build
//! kept up with one connection's input of 400 MB/s, and dropped packets at 800 MB/s (`what_it_keeps_up_with` in
//! `tests/mirror.rs`; one run each).

mod frame;

use std::net::SocketAddrV4;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use backdoor_core::channels::mirror::{Limits, MirrorError, Mirrored, Streams};
use backdoor_core::channels::{TcpState, sequence_at};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};

use crate::net::{Capture, Captured, NetError, NetworkNamespace};
use crate::tcp::Queues;
use frame::Said;

/// Packets that are read before somebody else may ask.
const AT_ONCE: usize = 64;
/// Packets that are read at most before a question is answered: more than the kernel's queue holds.
const BEFORE_AN_ANSWER: usize = 1 << 18;

/// Follows the connections between clients and one service. Dropped, it looks away.
#[derive(Debug)]
pub struct Mirror {
    shared: Arc<Mutex<Seen>>,
    service: SocketAddrV4,
    /// Written to, it ends the thread.
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// What it has seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets to and from the service.
    pub packets: u64,
    /// Bytes of input in them.
    pub input_bytes: u64,
    /// Packets that were not seen.
    pub missed: u64,
}

#[derive(Debug)]
struct Seen {
    capture: Capture,
    streams: Streams,
    service: SocketAddrV4,
    counts: Counts,
    /// Packets were dropped since the queue was empty last, and what waits in it may have passed before them.
    after_a_loss: bool,
}

impl Mirror {
    /// Follows what passes on `link` of `namespace` to and from `service`, from now on. A connection that is at work already
    /// is known from its node's next packet on.
    ///
    /// # Errors
    ///
    /// As [`Announcer::open`](crate::net::Announcer::open); CAP_NET_ADMIN is needed, too.
    pub fn open(
        namespace: &NetworkNamespace,
        link: &str,
        service: SocketAddrV4,
        limits: Limits,
    ) -> Result<Self, NetError> {
        let capture = Capture::open(namespace, link, service)?;
        let failed = |error: std::io::Error| NetError::new(format_args!("watch the packets on link {link}"), error);
        let socket = capture.as_fd().try_clone_to_owned().map_err(failed)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
        let (streams, counts) = (Streams::new(service, limits), Counts::default());
        let seen = Seen { capture, streams, service, counts, after_a_loss: false };
        let (shared, stop) = (Arc::new(Mutex::new(seen)), Arc::new(stop));
        let (for_thread, stopped) = (Arc::clone(&shared), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("mirror".into()).spawn(move || {
            let mut waits = [PollFd::new(&socket, PollFlags::IN), PollFd::new(&*stopped, PollFlags::IN)];
            loop {
                let woken = rustix::io::retry_on_intr(|| rustix::event::poll(&mut waits, None));
                if woken.is_err() || !waits[1].revents().is_empty() {
                    return;
                }
                lock(&for_thread).read(AT_ONCE);
            }
        });
        Ok(Mirror { shared, service, stop, thread: Some(thread.map_err(failed)?) })
    }

    /// Where the connection stands whose service committed `state` last: as the [queues](crate::tcp::queues()) of its socket
    /// would tell, except that its unacknowledged output is not in the answer. To be asked when its node is cut off: then all
    /// that it had acknowledged has passed.
    ///
    /// # Errors
    /// [`MirrorError`]: it is not known exactly, and should not be guessed.
    pub fn queues(&self, state: &TcpState<'_>) -> Result<Queues, MirrorError> {
        let birth = &state.birth;
        if birth.local != self.service {
            return Err(MirrorError::Unknown);
        }
        let mut seen = lock(&self.shared);
        if !seen.read(BEFORE_AN_ANSWER) {
            return Err(MirrorError::Missed);
        }
        let consumed = sequence_at(birth.receive_base, state.consumed);
        let Mirrored { acknowledged, sent, received, ended, unread } = seen.streams.queues(birth.peer, consumed)?;
        Ok(Queues { acknowledged, sent, received, ended, unread, unacknowledged: Vec::new() })
    }

    /// The service whose connections it follows.
    pub fn service(&self) -> SocketAddrV4 {
        self.service
    }

    /// What it has seen so far.
    pub fn counts(&self) -> Counts {
        lock(&self.shared).counts
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Seen {
    /// Takes in what waits in the kernel's queue, `most` packets at most. Answers whether it is empty.
    fn read(&mut self, most: usize) -> bool {
        let mut is_empty = false;
        for _ in 0..most {
            let said = match self.capture.next() {
                Captured::Frame { bytes, checksum_settled } => frame::read(bytes, checksum_settled),
                Captured::Unseen => Said::Unreadable,
                Captured::Nothing => {
                    is_empty = true;
                    break;
                }
            };
            self.counts.packets += 1;
            match said {
                Said::Segment(segment) => {
                    if segment.to == self.service {
                        self.counts.input_bytes += segment.payload.len() as u64;
                    }
                    self.streams.pass(&segment);
                }
                Said::Nothing => {}
                Said::Unreadable => {
                    self.counts.missed += 1;
                    self.streams.missed();
                }
            }
        }
        // What waited may have passed before what was dropped; what comes from now on passed after it.
        if is_empty && std::mem::take(&mut self.after_a_loss) {
            self.streams.missed();
        }
        match self.capture.dropped() {
            Ok(0) => {}
            dropped => {
                self.counts.missed += u64::from(dropped.unwrap_or(1));
                self.streams.missed();
                self.after_a_loss = true;
            }
        }
        is_empty
    }
}

/// What a thread that panicked has left is whole: nothing is changed half.
fn lock(shared: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use backdoor_core::channels::Output;
    use rustix::net::sockopt::set_socket_recv_buffer_size;

    use super::*;
    use crate::net::Links;

    const SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 10), 80);

    #[test]
    fn what_found_no_room_is_counted_and_made_no_secret_of() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not tested: network namespaces need root");
            return;
        }
        // Over one loopback, so that each packet passes twice: as it is sent, and as it comes in.
        let place = NetworkNamespace::new().unwrap();
        Links::of(&place).unwrap().add_address("lo", *SERVICE.ip(), 32).unwrap();
        let mirror = Mirror::open(&place, "lo", SERVICE, Limits::default()).unwrap();
        let listener = place.enter(|| TcpListener::bind(SERVICE)).unwrap().unwrap();
        let mut client = place.enter(|| TcpStream::connect(SERVICE)).unwrap().unwrap();
        let mut server = listener.accept().unwrap().0;
        let state = TcpState::new(crate::tcp::birth(&server).unwrap(), Output::Regenerated);
        let mut exchange = |bytes: usize| {
            client.write_all(&vec![7; bytes]).unwrap();
            server.read_exact(&mut vec![0; bytes]).unwrap();
            server.write_all(b"done").unwrap();
            client.read_exact(&mut [0; 4]).unwrap();
        };
        exchange(100);
        assert_eq!(mirror.queues(&state).unwrap().unread, [7; 100]);
        {
            // Nobody reads, and there is hardly any room.
            let seen = lock(&mirror.shared);
            set_socket_recv_buffer_size(seen.capture.as_fd(), 1).unwrap();
            exchange(20_000);
            exchange(20_000);
            set_socket_recv_buffer_size(seen.capture.as_fd(), 1 << 20).unwrap();
        }
        assert_eq!(mirror.queues(&state), Err(MirrorError::Missed));
        assert!(mirror.counts().missed > 0);
        // Until the node was heard again, behind all that was lost.
        let until = (1..100).find(|_| {
            exchange(1);
            mirror.queues(&state) != Err(MirrorError::Missed)
        });
        assert_eq!(mirror.queues(&state), Err(MirrorError::Gap));
        let state = TcpState { consumed: 40_100, ..state };
        assert_eq!(mirror.queues(&state).unwrap().unread, vec![7; until.unwrap()]);
    }
}
