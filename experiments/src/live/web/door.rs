//! The service's address at the node that carries its sessions on: when it is here, who is told, and who is heard.
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
    #[error("{address} is in use at {by}")]
    InUse { address: std::net::Ipv4Addr, by: HardwareAddress },
    #[error("can't listen at {address}: {source}")]
    Listen { address: SocketAddrV4, source: std::io::Error },
    #[error(transparent)]
    Network(#[from] NetError),
}

/// The address, and whoever listens there.
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
        let state = State { links: Links::of(&here)?, has_address: false, deaf: None, waits_until: None };
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

    /// Asks whether anybody else has the address, to be told by [`check`](Self::check).
    pub(super) fn ask(&self) {
        // A link that is down says so when the address is to be made ready.
        let _ = self.prober.ask(*self.address.ip());
    }

    /// Whether anybody has answered, and the link is up. Nobody is waited for: on a link without much delay, whoever has the
    /// address answers while sessions are made ready.
    pub(super) fn check(&self) -> Result<(), DoorError> {
        let address = *self.address.ip();
        if !lock(&self.state).links.is_up(&self.link)? {
            return Err(DoorError::LinkDown(self.link.clone()));
        }
        self.prober.answer(address).map_or(Ok(()), |by| Err(DoorError::InUse { address, by }))
    }

    /// Sees to it that connections can be made anew, and that nobody is sent a reset for those that will be.
    pub(super) fn prepare(&self) -> Result<(), DoorError> {
        let mut state = lock(&self.state);
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

    /// Tells the neighbours, now and a few times more.
    pub(super) fn announce(self: &Arc<Self>) -> Result<(), NetError> {
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
    pub(super) fn came(self: &Arc<Self>, all: bool) {
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
