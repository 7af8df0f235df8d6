//! The worker: a process that counts for fronts. Each of its sessions is the other half of a front's, in a State Box of
//! its own, and is carried on together with that.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_core::channels::{LinkId, SessionPayload};
use backdoor_core::state_box::CommitError;
use backdoor_core::takeover::{Ownership, TakeoverConfig};
use backdoor_host::serve::{Breaker, Greeted, Incoming, IpcConfig, IpcListener, IpcSession, Received, ServeError};

use super::asks::ROOM;
use super::places::Places;
use super::serve::Shared;
use crate::live::two_locks::lock;

/// Bytes of a session's own state: its count.
const STATE_BYTES: usize = 8;
/// How long who connects may take to say which link it is of.
const GREETING: Duration = Duration::from_secs(1);
/// Most connections at once.
const MAX_CONNECTIONS: usize = 4096;
/// Stack of a connection's thread.
const STACK_BYTES: usize = 256 << 10;

/// What the worker's threads share.
#[derive(Debug)]
pub(super) struct Worker {
    listener: IpcListener,
    links: Mutex<HashMap<LinkId, Held>>,
    connections: Arc<Places>,
}

/// A session, and how to end the connection that it is served over.
#[derive(Debug)]
struct Held {
    counting: Arc<Mutex<Counting>>,
    connection: Option<Breaker>,
}

/// A session at work.
#[derive(Debug)]
pub(super) struct Counting {
    session: IpcSession,
    count: u64,
}

impl Counting {
    /// Carries one on; it is silent until it is [held](Worker::hold).
    pub(super) fn adopt(
        shared: &Shared,
        payload: &SessionPayload<'_>,
        name: &str,
        deadline: Nanos,
    ) -> Result<Self, Box<dyn Error>> {
        let count = match payload.application() {
            [] => 0,
            bytes => u64::from_le_bytes(bytes.try_into().map_err(|_| "the session's state is no count")?),
        };
        let config = IpcConfig { deadline, ..config(shared) };
        Ok(Counting { session: IpcSession::adopt(&shared.app, payload, name, config)?, count })
    }

    /// Serves the front that has connected until it leaves; answers whether for good.
    fn serve(&mut self, greeted: Greeted, shared: &Shared) -> Result<bool, Box<dyn Error>> {
        if self.session.session().ownership() != Ownership::Mine {
            greeted.refuse("the session is in other hands");
            return Ok(false);
        }
        self.session.answer(greeted)?;
        loop {
            match self.session.receive(None)? {
                Received::Message(message) => {
                    *lock(&shared.locks.requests) += 1;
                    let more = message.as_slice().try_into().map(u64::from_le_bytes);
                    self.count = self.count.saturating_add(more.map_err(|_| "what the front asks is no number")?);
                    self.session.channel().push(&self.count.to_le_bytes())?;
                    // If it is to hang, then with nothing committed, or with all of it committed and nothing sent.
                    if shared.is_to_stick() && self.count.is_multiple_of(2) {
                        shared.sticks();
                    }
                    match self.session.commit(&self.count.to_le_bytes()) {
                        Err(ServeError::Commit(CommitError::Lost { .. })) => return Ok(false),
                        result => result?,
                    }
                    if shared.is_to_stick() {
                        shared.sticks();
                    }
                    self.session.channel().flush()?;
                }
                Received::Bye => return Ok(true),
                Received::Nothing | Received::Disconnected => return Ok(false),
            }
        }
    }
}

impl Worker {
    pub(super) fn listen(at: &Path) -> std::io::Result<Self> {
        let listener = IpcListener::bind(at)?;
        Ok(Worker { listener, links: Mutex::default(), connections: Places::new(MAX_CONNECTIONS) })
    }

    /// Takes in a front that waits, if one does; answers whether.
    pub(super) fn welcome(self: &Arc<Self>, shared: &Arc<Shared>) -> Result<bool, Box<dyn Error>> {
        let Some(incoming) = self.listener.accept()? else { return Ok(false) };
        // One too many finds the connection closed, and tries again.
        let Some(place) = self.connections.take() else { return Ok(true) };
        let (worker, shared) = (Arc::clone(self), Arc::clone(shared));
        let thread = std::thread::Builder::new().name("link".into()).stack_size(STACK_BYTES);
        thread.spawn(move || {
            let _taken = place;
            if let Err(error) = worker.attend(incoming, &shared) {
                crate::say::err(&format!("the worker ends a connection: {error}"));
            }
        })?;
        Ok(true)
    }

    /// Has a session that is this node's now.
    pub(super) fn hold(&self, mut counting: Counting) -> Result<(), Box<dyn Error>> {
        let link = counting.session.channel().link();
        let mut links = lock(&self.links);
        if links.contains_key(&link) {
            return Err(format!("there is a link {link} already").into());
        }
        links.insert(link, Held { counting: Arc::new(Mutex::new(counting)), connection: None });
        Ok(())
    }

    fn attend(&self, incoming: Incoming, shared: &Shared) -> Result<(), Box<dyn Error>> {
        let greeted = incoming.greeting(GREETING)?;
        let link = greeted.link();
        let Some(counting) = self.find(&greeted, shared)? else {
            // It may be on its way here, so the front may ask again.
            greeted.refuse("there is no such link here");
            return Ok(());
        };
        let is_over = lock(&counting).serve(greeted, shared)?;
        if is_over {
            lock(&self.links).remove(&link);
        }
        Ok(())
    }

    /// The session of a link; `None` if there is none, and the front doesn't open it. A connection that it is served over
    /// ends: whoever has connected since has nothing to expect of that.
    fn find(&self, greeted: &Greeted, shared: &Shared) -> Result<Option<Arc<Mutex<Counting>>>, Box<dyn Error>> {
        let link = greeted.link();
        let mut links = lock(&self.links);
        if !links.contains_key(&link) && greeted.opens() {
            let name = format!("counter {link}");
            let session = IpcSession::open(&shared.app, &name, link, config(shared))?;
            let counting = Arc::new(Mutex::new(Counting { session, count: 0 }));
            links.insert(link, Held { counting, connection: None });
        }
        let Some(held) = links.get_mut(&link) else { return Ok(None) };
        if let Some(before) = held.connection.replace(greeted.breaker()?) {
            before.end();
        }
        Ok(Some(Arc::clone(&held.counting)))
    }
}

fn config(shared: &Shared) -> IpcConfig {
    let (deadline, patience) = (shared.deadline, TakeoverConfig::default().patience);
    IpcConfig { deadline, patience, application_bytes: STATE_BYTES, room: ROOM }
}
