//! The agent's one thread that talks: it never waits for anybody in particular.
//!
//! All sockets are non-blocking. A peer is served one packet per round, so that none can keep the others waiting; a
//! peer that does not take its answers is disconnected; one that never asks anything is, too.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backdoor_core::Nanos;
use backdoor_core::progress_box::{Counter, Slot};
use backdoor_core::transport::RegionKey;
use backdoor_transports::shm::SharedWord;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::AgentConfig;
use super::elsewhere::{Elsewhere, OfferError};
use super::gauges::{self, Gauge};
use super::memory::NodeMemory;
use super::process::Process;
use super::registry::{ConnectionId, Refusal, Registry};
use super::socket::Listener;
use crate::clock;
use crate::protocol::{Answer, MAX_PACKET_BYTES, PacketError, QueuesOf, Reason, Region, Request, decode, encode};
use crate::tcp::Queues;
use crate::wire::{Enclosed, Received, has_hung_up, receive_from_peer, send};

/// One look at all sockets takes about a microsecond for each. From one to the next it waits at least this many times as
/// long, so that a node with thousands of them spends a twentieth of a processor on it.
const PAUSE_BY_LOOK: u64 = 20;

struct Peer {
    id: ConnectionId,
    socket: OwnedFd,
    process: u64,
    connected: Nanos,
    has_asked: bool,
}

/// What becomes of a peer after its packet.
#[derive(PartialEq, Eq)]
enum Fate {
    Stay,
    Close,
}

pub(super) struct EventLoop {
    pub(super) config: AgentConfig,
    pub(super) listener: Listener,
    pub(super) memory: NodeMemory,
    pub(super) registry: Registry,
    pub(super) elsewhere: Option<Arc<dyn Elsewhere>>,
    pub(super) own_counter: Counter<SharedWord>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) wake: Arc<OwnedFd>,
}

impl EventLoop {
    /// Serves until told to stop.
    pub(super) fn run(mut self) {
        let mut peers: Vec<Peer> = Vec::new();
        let mut next_id = 0;
        let mut next_gauges = Nanos::ZERO;
        let mut next_queues = Nanos::ZERO;
        // Without descriptors to spare, accepting fails at once, again and again; it is left alone for a moment.
        let mut accept_from = Nanos::ZERO;
        while !self.stop.load(Ordering::Acquire) {
            self.own_counter.advance();
            let now = clock::now();
            if now >= next_gauges {
                self.update_gauges(now);
                next_gauges = now + self.config.gauge_period;
            }
            // With nothing to look at, nobody is woken up for it.
            let mut at_most = self.config.agent_tick;
            if self.registry.has_queues() {
                if now >= next_queues {
                    self.registry.look_at_queues(now);
                    let took = clock::now() - now;
                    next_queues = now + self.config.queue_period.max(took * PAUSE_BY_LOOK);
                }
                at_most = at_most.min(next_queues - now);
            }
            let (ready, somebody_comes) = self.wait(&peers, now >= accept_from, at_most);
            let now = clock::now();
            let mut index = 0;
            peers.retain_mut(|peer| {
                let fate = self.attend(peer, ready.get(index).copied().unwrap_or(PollFlags::empty()), now);
                index += 1;
                if fate == Fate::Close {
                    self.registry.connection_lost(peer.id, now);
                }
                fate == Fate::Stay
            });
            // To try in vain is dear: the kernel makes a socket first.
            let newcomer = if somebody_comes { self.listener.accept() } else { Ok(None) };
            match newcomer {
                Ok(Some(socket)) => {
                    next_id += 1;
                    peers.extend(self.welcome(socket, ConnectionId(next_id), peers.len(), now));
                }
                Ok(None) => {}
                Err(_) => accept_from = now + self.config.gauge_period,
            }
        }
        self.own_counter.depart();
    }

    /// Waits for anything to happen, `at_most` so long; answers what happened to each peer, and whether there is a new one.
    fn wait(&self, peers: &[Peer], accepting: bool, at_most: Nanos) -> (Vec<PollFlags>, bool) {
        let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut polled: Vec<PollFd<'_>> = peers.iter().map(|peer| readable(peer.socket.as_fd())).collect();
        polled.push(readable(self.wake.as_fd()));
        if accepting {
            polled.push(readable(self.listener.as_fd()));
        }
        match rustix::event::poll(&mut polled, Some(&clock::timespec(at_most))) {
            Ok(_) => {
                let revents = |polled: &PollFd<'_>| polled.revents();
                let listener = polled.get(peers.len() + 1).map(revents).unwrap_or(PollFlags::empty());
                (polled[..peers.len()].iter().map(revents).collect(), !listener.is_empty())
            }
            Err(_) => (Vec::new(), false),
        }
    }

    fn welcome(&self, socket: OwnedFd, id: ConnectionId, peers: usize, now: Nanos) -> Option<Peer> {
        if peers >= self.config.max_connections {
            let message = format!("the agent serves {peers} connections already");
            answer(socket.as_fd(), &Answer::Refused { reason: Reason::Busy, message }, &[]);
            return None;
        }
        // The kernel's word for who is there, not the peer's own.
        let process = rustix::net::sockopt::socket_peercred(&socket).ok()?.pid.as_raw_nonzero().get();
        Some(Peer { id, socket, process: process as u64, connected: now, has_asked: false })
    }

    fn attend(&mut self, peer: &mut Peer, ready: PollFlags, now: Nanos) -> Fate {
        if ready.is_empty() {
            let silent = !peer.has_asked && now - peer.connected > self.config.greeting_timeout;
            return if silent { Fate::Close } else { Fate::Stay };
        }
        let mut packet = [0; MAX_PACKET_BYTES];
        // Whatever is not asked for is closed at the end of this.
        let mut enclosed = Enclosed::Nothing;
        let received = receive_from_peer(peer.socket.as_fd(), &mut packet).map(|(received, with_it)| {
            enclosed = with_it;
            received
        });
        let decoded = match received {
            // An empty packet looks like the end of the connection.
            Ok(Received::Packet(0)) if has_hung_up(peer.socket.as_fd()) => return Fate::Close,
            Ok(Received::Packet(length)) => decode(&packet[..length]),
            Ok(Received::TooLong) => Err(PacketError::Malformed(format!("longer than {MAX_PACKET_BYTES} bytes"))),
            // Reported once, before what the peer had sent earlier; the end of it all is reported as such.
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNRESET) => return Fate::Stay,
            Err(_) => return Fate::Close,
        };
        peer.has_asked |= decoded.is_ok();
        let outcome = decoded
            .map_err(|error| {
                let reason = match error {
                    PacketError::WrongVersion { .. } => Reason::WrongVersion,
                    PacketError::Malformed(_) => Reason::Malformed,
                };
                Refusal(reason, error.to_string())
            })
            .and_then(|request| self.serve(peer, request, enclosed, now));
        match outcome {
            Ok(None) => Fate::Stay,
            Ok(Some((reply, descriptors))) => {
                let descriptors: Vec<_> = descriptors.iter().map(Handed::as_fd).collect();
                answer(peer.socket.as_fd(), &reply, &descriptors)
            }
            Err(refusal) => answer(peer.socket.as_fd(), &refusal.into(), &[]),
        }
    }

    fn serve(
        &mut self,
        peer: &Peer,
        request: Request,
        enclosed: Enclosed,
        now: Nanos,
    ) -> Result<Option<Reply<'_>>, Refusal> {
        let incarnation = self.registry.incarnation;
        let (reply, descriptors) = match request {
            Request::Queues { session } => {
                let queues = self.registry.queues_of(session)?;
                let file = file_of(&queues)
                    .map_err(|errno| Refusal(Reason::Internal, format!("the queues can't be handed over: {errno}")))?;
                return Ok(Some((Answer::Queues(QueuesOf::from(&queues)), vec![Handed::Made(file)])));
            }
            Request::LetGo { session } => {
                self.registry.let_go(session)?;
                (Answer::Done {}, Vec::new())
            }
            Request::Attach {} => {
                let (regions, descriptors) = self.memory.for_monitor();
                (Answer::Attached { incarnation, regions }, descriptors)
            }
            Request::Status {} => {
                let mut status = self.registry.status();
                self.elsewhere.iter().for_each(|elsewhere| elsewhere.describe(&mut status));
                (Answer::Status(status), Vec::new())
            }
            Request::Revoke { region } => {
                self.elsewhere()?.revoke(RegionKey(region))?;
                (Answer::Done {}, Vec::new())
            }
            Request::Restore { region } => {
                self.elsewhere()?.restore(RegionKey(region))?;
                (Answer::Done {}, Vec::new())
            }
            Request::Register { name, deadline_ns } => {
                let slot =
                    self.registry.register(peer.id, Process::of(peer.process), &name, Nanos(deadline_ns), now)?;
                let liveness_word = self.registry.liveness_index(slot) as u64;
                let (regions, descriptors): (Vec<Region>, _) = self.memory.for_application();
                (Answer::Registered { incarnation, application: slot.0, liveness_word, regions }, descriptors)
            }
            Request::OpenSession { application, name, deadline_ns, state_bytes, input_bytes } => {
                let deadline = Nanos(deadline_ns);
                let application = Slot(application);
                let socket = match enclosed {
                    Enclosed::One(socket) => Some(socket),
                    Enclosed::Nothing => None,
                    Enclosed::TooMany => return Err(not_one_socket(TOO_MANY)),
                };
                let bytes = (state_bytes, input_bytes);
                let opened = self.registry.open_session(peer.id, application, &name, deadline, bytes, now)?;
                let opened = match socket {
                    Some(socket) => self.registry.keep_from_the_start(opened, socket, now)?,
                    None => opened,
                };
                (opened, Vec::new())
            }
            Request::AdoptOrphan { application } => {
                let (answer, socket) = self.registry.adopt_orphan(peer.id, Slot(application))?;
                (answer, socket.into_iter().collect())
            }
            Request::WatchQueue { slot, keep } => {
                let socket = match enclosed {
                    Enclosed::One(socket) => socket,
                    Enclosed::Nothing => return Err(not_one_socket("no descriptor")),
                    Enclosed::TooMany => return Err(not_one_socket(TOO_MANY)),
                };
                self.registry.watch_queue(peer.id, Slot(slot), socket, keep)?;
                (Answer::Done {}, Vec::new())
            }
            // Nobody waits for an answer to these, so a refusal would be taken for the answer to something else.
            Request::CloseSession { session } => {
                let _ = self.registry.close_session(peer.id, session, now);
                return Ok(None);
            }
            Request::Depart { application } => {
                let _ = self.registry.depart(peer.id, Slot(application), now);
                return Ok(None);
            }
        };
        Ok(Some((reply, descriptors.into_iter().map(Handed::Kept).collect())))
    }

    fn elsewhere(&self) -> Result<&dyn Elsewhere, OfferError> {
        self.elsewhere.as_deref().ok_or(OfferError::LocalOnly)
    }

    fn update_gauges(&self, now: Nanos) {
        let status = self.registry.status();
        for (gauge, value) in [
            (Gauge::Sessions, status.sessions),
            (Gauge::Orphans, status.orphans),
            (Gauge::FreeStateWords, status.free_state_words),
        ] {
            self.registry.set_gauge(gauge.index(), value);
        }
        gauges::sample(now, |gauge, value| self.registry.set_gauge(gauge.index(), value));
    }
}

const TOO_MANY: &str = "more than one descriptor, or one that the agent has no room for,";

fn not_one_socket(what: &str) -> Refusal {
    Refusal(Reason::Invalid, format!("{what} came with it: send one socket"))
}

type Reply<'a> = (Answer, Vec<Handed<'a>>);

/// A descriptor that goes with an answer.
enum Handed<'a> {
    Kept(BorrowedFd<'a>),
    Made(OwnedFd),
}

impl AsFd for Handed<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Handed::Kept(descriptor) => *descriptor,
            Handed::Made(descriptor) => descriptor.as_fd(),
        }
    }
}

/// Unread input and unacknowledged output, in a file that exists nowhere.
fn file_of(queues: &Queues) -> std::io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create("backdoor-queues", MemfdFlags::CLOEXEC)?;
    let mut file = File::from(file);
    file.write_all(&queues.unread)?;
    file.write_all(&queues.unacknowledged)?;
    file.rewind()?;
    Ok(file.into())
}

/// A peer whose queue is full does not read its answers; it is let go rather than waited for.
fn answer(socket: BorrowedFd<'_>, answer: &Answer, descriptors: &[BorrowedFd<'_>]) -> Fate {
    match send(socket, &encode(answer), descriptors, SendFlags::DONTWAIT) {
        Ok(()) => Fate::Stay,
        // It may have sent its departure before it closed.
        Err(Errno::PIPE | Errno::CONNRESET) => Fate::Stay,
        Err(_) => Fate::Close,
    }
}
