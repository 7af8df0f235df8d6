//! One of the service's addresses at the node that carries its sessions on: when it is here, who is told, and who is heard.
//!
//! ```text
//!   a listener that is deaf ──> the address is here ──> sessions stand, and are this node's ──> neighbours are told
//!                                                                                                       │
//!                                         all sessions of the old owner are here ──> the listener hears ┘
//! ```
//!
//! What comes for a connection that isn't here would be answered by a reset. The deaf listener sees to it that it isn't
//! answered at all, for whoever sends it will send it again: so takers need not agree on the moment at which they offer
//! sessions of one node, and one that is offered late, or a second time, is not lost. New clients wait meanwhile.
//!
//! An address is at one node. Whoever makes sessions ready has a [`Stay`] at the door. It asks who else has the address, or
//! wants it, and is no further than that until it has [looked](Stay::check); from the first session that is this node's on
//! the address is too, and others are told so by the kernel. If nothing came of all stays, it goes again.

use std::net::{SocketAddrV4, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_host::clock;
use backdoor_host::net::{Announcer, Cause, HardwareAddress, Links, NetError, NetworkNamespace, Prober};
use backdoor_host::tcp::DeafListener;

use crate::live::two_locks::lock;

/// When neighbours are told once more, for a frame may be lost: after the first time.
const TOLD_AGAIN: [Duration; 3] = [Duration::from_millis(50), Duration::from_millis(200), Duration::from_secs(1)];
/// How long sessions that are missing are waited for, after the last that came or was offered.
const OPENS_AFTER: Nanos = Nanos::from_secs(5);

/// Why sessions can't be carried on here now.
#[derive(Debug, thiserror::Error)]
pub(super) enum DoorError {
    #[error("the link {0} is down")]
    LinkDown(String),
    #[error("{0} is none of the service's addresses")]
    Unknown(SocketAddrV4),
    #[error("{address} is in use at {by}")]
    InUse { address: std::net::Ipv4Addr, by: HardwareAddress },
    #[error("can't listen at {address}: {source}")]
    Listen { address: SocketAddrV4, source: std::io::Error },
    #[error(transparent)]
    Network(#[from] NetError),
}

/// One address, and whoever listens there.
pub(super) struct Door {
    address: SocketAddrV4,
    link: String,
    announcer: Announcer,
    prober: Prober,
    state: Mutex<State>,
    opened: Box<dyn Fn(TcpListener) + Send + Sync>,
}

struct State {
    links: Links,
    has_address: bool,
    /// A session with this address is this node's.
    is_ours: bool,
    /// Those who make sessions ready.
    stays: usize,
    /// Who else has the address or wants it, as far as was heard during these stays.
    conflict: Option<HardwareAddress>,
    deaf: Option<DeafListener>,
    /// Until when missing sessions are waited for, if they are.
    waits_until: Option<Nanos>,
}

impl Door {
    /// For `address` on `link`, which is not here yet. New clients are `opened` to at the end.
    pub(super) fn new(
        address: SocketAddrV4,
        link: &str,
        opened: impl Fn(TcpListener) + Send + Sync + 'static,
    ) -> Result<Self, NetError> {
        let here = NetworkNamespace::current()?;
        let state = State {
            links: Links::of(&here)?,
            has_address: false,
            is_ours: false,
            stays: 0,
            conflict: None,
            deaf: None,
            waits_until: None,
        };
        let (announcer, prober) = (Announcer::open(&here, link)?, Prober::open(&here, link)?);
        Ok(Door {
            address,
            link: link.to_owned(),
            announcer,
            prober,
            state: Mutex::new(state),
            opened: Box::new(opened),
        })
    }

    /// Which it is.
    pub(super) fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Sessions are to be made ready: asks who else has the address, and sees to it that connections can be made anew, and
    /// that nobody is sent a reset for those that will be.
    pub(super) fn enter(self: &Arc<Self>) -> Result<Stay, DoorError> {
        let mut state = lock(&self.state);
        // Who answers is heard during all stays that overlap, and after the first session nobody is asked any more.
        if state.stays == 0 && !state.is_ours {
            state.conflict = None;
            // A link that is down says so right below.
            let _ = self.prober.ask(*self.address.ip());
        }
        state.stays += 1;
        let stay = Stay(Arc::clone(self));
        let prepared = self.prepare(&mut state);
        // Leaving takes the lock.
        drop(state);
        prepared.map(|()| stay)
    }

    fn prepare(&self, state: &mut State) -> Result<(), DoorError> {
        if state.has_address {
            return Ok(());
        }
        if !state.links.is_up(&self.link)? {
            return Err(DoorError::LinkDown(self.link.clone()));
        }
        if state.deaf.is_none() {
            let failed = |source| DoorError::Listen { address: self.address, source };
            state.deaf = Some(DeafListener::bind(self.address).map_err(failed)?);
        }
        match state.links.add_address(&self.link, *self.address.ip(), 32) {
            Err(error) if !matches!(error.cause(), Cause::AddressExists { .. }) => return Err(error.into()),
            _ => state.has_address = true,
        }
        Ok(())
    }

    fn leave(&self) {
        let mut state = lock(&self.state);
        state.stays -= 1;
        if state.stays > 0 || state.is_ours {
            return;
        }
        if std::mem::take(&mut state.has_address) {
            // Before the listener, so that nobody is sent a reset.
            let _ = state.links.remove_address(&self.link, *self.address.ip(), 32);
        }
        state.deaf = None;
    }

    /// Tells the neighbours, now and a few times more.
    fn announce(self: &Arc<Self>) -> Result<(), NetError> {
        lock(&self.state).is_ours = true;
        let door = Arc::clone(self);
        // Without a thread it was told once.
        let _ = std::thread::Builder::new().name("announcer".into()).spawn(move || {
            let mut before = Duration::ZERO;
            for after in TOLD_AGAIN {
                std::thread::sleep(after - before);
                before = after;
                let _ = door.announcer.announce(*door.address.ip());
            }
        });
        self.announcer.announce(*self.address.ip())
    }

    /// Sessions came or were offered. Either that were `all` of the old owner's, or others will come, and are waited for a
    /// while.
    fn came(self: &Arc<Self>, all: bool) {
        if !lock(&self.state).is_ours {
            return;
        }
        if all {
            return self.open();
        }
        let mut state = lock(&self.state);
        if state.deaf.is_none() || state.waits_until.replace(clock::now() + OPENS_AFTER).is_some() {
            return;
        }
        let door = Arc::clone(self);
        let waits = move || {
            while let Some(until) = door.waits_until() {
                clock::sleep_until(until);
            }
            door.open();
        };
        // Without a thread, new clients wait until all sessions are here.
        let _ = std::thread::Builder::new().name("door".into()).spawn(waits);
    }

    /// Until when to wait, if that is yet to come.
    fn waits_until(&self) -> Option<Nanos> {
        lock(&self.state).waits_until.filter(|until| clock::now() < *until)
    }

    fn open(&self) {
        let heard = lock(&self.state).deaf.take().map(DeafListener::hear);
        match heard {
            Some(Ok(listener)) => (self.opened)(listener),
            Some(Err(error)) => crate::say::err(&format!("new clients can't be taken at {}: {error}", self.address)),
            None => {}
        }
    }
}

/// Somebody makes sessions ready at the address. Dropped before any is this node's, and when nobody else stays, the address
/// is not here any more.
pub(super) struct Stay(Arc<Door>);

impl Stay {
    /// Whether the link is up and the address nobody else's. Nobody is waited for: on a link without much delay, whoever has
    /// the address answers while sessions are made ready.
    pub(super) fn check(&self) -> Result<(), DoorError> {
        let Door { address, link, prober, state, .. } = &*self.0;
        let address = *address.ip();
        let mut state = lock(state);
        if !state.links.is_up(link)? {
            return Err(DoorError::LinkDown(link.clone()));
        }
        if state.is_ours {
            return Ok(());
        }
        state.conflict = state.conflict.or_else(|| prober.answer(address));
        state.conflict.map_or(Ok(()), |by| Err(DoorError::InUse { address, by }))
    }

    /// Sessions are this node's, and so is the address: tells the neighbours, now and a few times more.
    pub(super) fn announce(&self) -> Result<(), NetError> {
        self.0.announce()
    }

    /// Whether `all` sessions are here that were the old owner's at this address. If not, others will come, and are waited for
    /// a while.
    pub(super) fn came(&self, all: bool) {
        self.0.came(all);
    }

    /// Of which address.
    pub(super) fn address(&self) -> SocketAddrV4 {
        self.0.address
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 10), 80);

    /// A node with a door, on a bridge; only root can make one.
    struct Node {
        namespace: NetworkNamespace,
        door: Arc<Door>,
    }

    impl Node {
        fn join(ports: &mut Links, port: &str, host: u8) -> Self {
            let namespace = NetworkNamespace::new().unwrap();
            ports.add_veth(port, "eth0", &namespace).unwrap();
            ports.attach(port, "bridge").unwrap();
            ports.set_up(port).unwrap();
            let mut links = Links::of(&namespace).unwrap();
            links.add_address("eth0", Ipv4Addr::new(10, 77, 0, host), 24).unwrap();
            links.set_up("eth0").unwrap();
            while !ports.is_running(port).unwrap() {
                std::thread::sleep(Duration::from_millis(1));
            }
            let door = namespace.enter(|| Door::new(ADDRESS, "eth0", |_| ()).unwrap()).unwrap();
            Node { namespace, door: Arc::new(door) }
        }

        fn enter(&self) -> Stay {
            self.namespace.enter(|| self.door.enter().unwrap()).unwrap()
        }

        fn has_address(&self) -> bool {
            lock(&self.door.state).has_address
        }
    }

    /// Frames take a moment.
    fn is_in_use(stay: &Stay) -> bool {
        for _ in 0..1000 {
            match stay.check() {
                Ok(()) => std::thread::sleep(Duration::from_millis(1)),
                Err(DoorError::InUse { .. }) => return true,
                Err(other) => panic!("{other}"),
            }
        }
        false
    }

    #[test]
    fn an_address_is_at_one_node() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let switch = NetworkNamespace::new().unwrap();
        let mut ports = Links::of(&switch).unwrap();
        ports.add_bridge("bridge").unwrap();
        ports.set_up("bridge").unwrap();
        let (one, other) = (Node::join(&mut ports, "one", 2), Node::join(&mut ports, "other", 3));

        // Neither has looked when the other begins: neither takes it, and it goes again.
        let (here, there) = (one.enter(), other.enter());
        assert!(is_in_use(&here) && is_in_use(&there));
        drop((here, there));
        assert!(!one.has_address() && !other.has_address());

        // Two stays at one node are not in each other's way, and what was heard in one counts for both.
        let (first, second) = (one.enter(), one.enter());
        first.check().and(second.check()).unwrap();
        drop(first);
        second.announce().unwrap();
        drop(second);
        assert!(one.has_address());

        // From now on it is there, whoever asks.
        let there = other.enter();
        assert!(is_in_use(&there));
        one.enter().check().unwrap();
        drop(there);
        assert!(one.has_address() && !other.has_address());
    }
}
