//! Lets monitors in: a thread that accepts, and a small one for each monitor, which waits for it to go.
//!
//! ```text
//!   accepted ── handshake, request ──> admitted ── queue pair, answer ──> served until the connection ends
//!      │ stranger: `greeting_timeout` for │ at most `max_monitors`
//!      │ all that; the oldest gives way   │
//!      └──────> turned away <─────────────┘
//! ```
//!
//! The agent's own thread never waits for any of this: what it shares with these threads is locked for moments only.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use backdoor_core::Nanos;
use backdoor_core::transport::{RegionKey, Rights};
use backdoor_transports::shm::SharedWords;
use backdoor_transports::verbs::{RemoteRegion, VerbsError};
use rustix::event::{PollFd, PollFlags};

use super::{Fabric, RemoteConfig};
use crate::agent::elsewhere::{Elsewhere, OfferError};
use crate::clock;
use crate::protocol::Status;
use crate::remote::{Answer, Channel, ChannelError, MAX_NAME_BYTES, Reason, Request, SetupKey, prepare};

/// Strangers that are borne at once; for one more, the oldest has to go.
const MAX_STRANGERS: usize = 32;
/// After a failure to accept, which would only fail again at once.
const ACCEPT_PAUSE: Nanos = Nanos::from_millis(100);
/// Refusals kept for whoever asks.
const MAX_NOTICES: usize = 32;
/// A thread here calls the network card's library, and keeps little.
const STACK_BYTES: usize = 512 * 1024;

/// A region, and what the card knows of it.
struct Offer<R> {
    key: RegionKey,
    memory: SharedWords,
    rights: Rights,
    /// `None` while it is revoked.
    registered: Option<(R, RemoteRegion)>,
}

struct Guest {
    stream: Arc<TcpStream>,
    standing: Standing,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Has not shown the key yet.
    Stranger,
    /// Its connection was shut down to make room; its thread will notice.
    ToldToGo,
    /// A monitor.
    Admitted,
}

#[derive(Default)]
struct Guests {
    arrived: u64,
    /// By the order of their arrival.
    present: BTreeMap<u64, Guest>,
    turned_away: u64,
    notices: VecDeque<String>,
}

pub(super) struct Server<F: Fabric> {
    fabric: F,
    key: SetupKey,
    address: SocketAddr,
    incarnation: u64,
    max_monitors: usize,
    greeting_timeout: Duration,
    vanished_after: Duration,
    offers: Mutex<Vec<Offer<F::Region>>>,
    guests: Mutex<Guests>,
}

impl<F: Fabric> Server<F> {
    /// Registers all of `memory`.
    pub(super) fn new(
        fabric: F,
        config: &RemoteConfig,
        (address, greeting_timeout): (SocketAddr, Nanos),
        incarnation: u64,
        memory: Vec<(RegionKey, SharedWords, Rights)>,
    ) -> Result<Self, VerbsError> {
        let register = |(key, memory, rights)| {
            let registered = Some(fabric.register(key, &memory, rights)?);
            Ok(Offer { key, memory, rights, registered })
        };
        let offers = memory.into_iter().map(register).collect::<Result<_, VerbsError>>()?;
        Ok(Server {
            key: config.key.clone(),
            address,
            incarnation,
            max_monitors: config.max_monitors,
            greeting_timeout: Duration::from_nanos(greeting_timeout.0),
            vanished_after: Duration::from_nanos(config.vanished_after.0),
            offers: Mutex::new(offers),
            guests: Mutex::default(),
            fabric,
        })
    }

    /// Serves until told to stop; then closes all connections, and returns when their queue pairs are gone.
    pub(super) fn run(&self, listener: &TcpListener, stop: &AtomicBool, wake: &OwnedFd) {
        std::thread::scope(|scope| {
            let mut pause = false;
            while !stop.load(Ordering::Acquire) {
                wait(if pause { None } else { Some(listener) }, wake);
                pause = match listener.accept() {
                    Ok((stream, address)) => {
                        if let Some(guest) = self.let_in(stream) {
                            let thread = std::thread::Builder::new().name("agent-guest".into()).stack_size(STACK_BYTES);
                            // If there can't be a thread, the guest is dropped, and its connection with it.
                            let _ = thread.spawn_scoped(scope, move || self.attend(&guest, address));
                        }
                        false
                    }
                    Err(error) => !matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                    ),
                };
            }
            for guest in self.guests().present.values() {
                let _ = guest.stream.shutdown(Shutdown::Both);
            }
        });
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offers(&self) -> MutexGuard<'_, Vec<Offer<F::Region>>> {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection, if need be the oldest stranger's.
    fn let_in(&self, stream: TcpStream) -> Option<Place<'_, F>> {
        let mut guests = self.guests();
        if guests.count(Standing::Stranger) >= MAX_STRANGERS
            && let Some(oldest) = guests.present.values_mut().find(|guest| guest.standing == Standing::Stranger)
        {
            oldest.standing = Standing::ToldToGo;
            let _ = oldest.stream.shutdown(Shutdown::Both);
        }
        // Those who were told to go need a moment; their threads are bounded, too.
        if guests.present.len() >= self.max_monitors + 2 * MAX_STRANGERS {
            guests.turned_away += 1;
            return None;
        }
        guests.arrived += 1;
        let (number, stream) = (guests.arrived, Arc::new(stream));
        guests.present.insert(number, Guest { stream: Arc::clone(&stream), standing: Standing::Stranger });
        drop(guests);
        Some(Place { server: self, number, stream })
    }

    /// All of one guest's stay.
    fn attend(&self, place: &Place<'_, F>, address: SocketAddr) {
        match self.introduce(place) {
            // Closed when the connection ends, before the place is free again.
            Ok(_queue_pair) => wait_for_the_end(&place.stream),
            Err(why) => {
                let mut guests = self.guests();
                guests.turned_away += 1;
                guests.notices.push_back(format!("{}: {why}", address.ip().to_canonical()));
                if guests.notices.len() > MAX_NOTICES {
                    guests.notices.pop_front();
                }
            }
        }
    }

    /// From the first byte to the answer.
    fn introduce(&self, place: &Place<'_, F>) -> Result<F::QueuePair, TurnedAway> {
        let deadline = Instant::now() + self.greeting_timeout;
        // Accepted from a listener that does not wait; on Linux that is not inherited, but nothing promises it.
        place.stream.set_nonblocking(false)?;
        prepare(&place.stream, self.vanished_after)?;
        let mut channel = Channel::respond(&place.stream, &self.key, deadline)?;
        let Request::Connect { endpoint, monitor } = channel.receive()?;
        let connected = self.admit(place.number).and_then(|()| {
            let reason = |error: &VerbsError| match error {
                VerbsError::OtherLink { .. } => Reason::OtherLink,
                VerbsError::Nonsense(_) => Reason::Invalid,
                _ => Reason::Device,
            };
            self.fabric.connect(&endpoint).map_err(|error| (reason(&error), error.to_string()))
        });
        match connected {
            Ok((pair, endpoint)) => {
                let regions = self.offers().iter().filter_map(|offer| Some(offer.registered.as_ref()?.1)).collect();
                channel.send(&Answer::Connected { endpoint, incarnation: self.incarnation, regions })?;
                Ok(pair)
            }
            Err((reason, message)) => {
                let monitor = monitor.chars().take(MAX_NAME_BYTES).collect::<String>().escape_debug().to_string();
                let refused = TurnedAway::Refused { monitor, message: message.clone() };
                channel.send(&Answer::Refused { reason, message })?;
                Err(refused)
            }
        }
    }

    fn admit(&self, number: u64) -> Result<(), (Reason, String)> {
        let mut guests = self.guests();
        if guests.count(Standing::Admitted) >= self.max_monitors {
            let message = format!("the node serves {} monitors already, as many as it may", self.max_monitors);
            return Err((Reason::TooManyMonitors, message));
        }
        if let Some(guest) = guests.present.get_mut(&number) {
            guest.standing = Standing::Admitted;
        }
        Ok(())
    }

    /// Does something with a region.
    fn with_offer(
        &self,
        key: RegionKey,
        act: impl FnOnce(&mut Offer<F::Region>) -> Result<(), VerbsError>,
    ) -> Result<(), OfferError> {
        let mut offers = self.offers();
        let offer = offers.iter_mut().find(|offer| offer.key == key).ok_or(OfferError::Unknown { key: key.0 })?;
        act(offer).map_err(|error| OfferError::Device { key: key.0, why: error.to_string() })
    }
}

impl Guests {
    fn count(&self, standing: Standing) -> usize {
        self.present.values().filter(|guest| guest.standing == standing).count()
    }
}

impl<F: Fabric> Elsewhere for Server<F> {
    fn revoke(&self, region: RegionKey) -> Result<(), OfferError> {
        self.with_offer(region, |offer| {
            offer.registered = None;
            Ok(())
        })
    }

    fn restore(&self, region: RegionKey) -> Result<(), OfferError> {
        self.with_offer(region, |offer| {
            if offer.registered.is_none() {
                offer.registered = Some(self.fabric.register(offer.key, &offer.memory, offer.rights)?);
            }
            Ok(())
        })
    }

    fn describe(&self, status: &mut Status) {
        let guests = self.guests();
        status.remote_monitors = guests.count(Standing::Admitted) as u64;
        status.remote_turned_away = guests.turned_away;
    }

    fn take_turned_away(&self) -> Vec<String> {
        self.guests().notices.drain(..).collect()
    }

    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl<F: Fabric> fmt::Debug for Server<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A connection that is counted, until this is dropped.
struct Place<'a, F: Fabric> {
    server: &'a Server<F>,
    number: u64,
    stream: Arc<TcpStream>,
}

impl<F: Fabric> Drop for Place<'_, F> {
    fn drop(&mut self) {
        self.server.guests().present.remove(&self.number);
    }
}

/// Why somebody was turned away, for people.
#[derive(Debug, thiserror::Error)]
enum TurnedAway {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("refused the monitor {monitor}: {message}")]
    Refused { monitor: String, message: String },
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Waits for a connection or for the end; without a listener, for a moment or for the end.
fn wait(listener: Option<&TcpListener>, wake: &OwnedFd) {
    let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
    let mut polled = vec![readable(wake.as_fd())];
    polled.extend(listener.map(|listener| readable(listener.as_fd())));
    let moment = clock::timespec(ACCEPT_PAUSE);
    // An error, such as a signal, is like a wake-up for nothing.
    let _ = rustix::event::poll(&mut polled, if listener.is_some() { None } else { Some(&moment) });
}

/// Waits until the connection is closed, by the monitor, by us, or because the monitor has vanished. Whatever else the
/// monitor says ends it, too: there is nothing more to say.
fn wait_for_the_end(stream: &TcpStream) {
    if stream.set_read_timeout(None).is_err() {
        return;
    }
    while let Err(error) = (&mut &*stream).read(&mut [0]) {
        if error.kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
