//! Who is on the node: applications, their sessions, and what died and is kept. No clock in here.
//!
//! ```text
//!   register ──> served ── depart ───────────────> freed
//!                  │                                 ^
//!                  └─ connection lost ──> orphaned ──┘ older than `retain`, and its room is needed
//! ```
//!
//! A session that somebody has claimed is kept in the same way when it is closed: whoever takes it over may still be reading
//! it. What a process that died has left, a new one of the same application [takes up](orphans). [`room`] is what entities take and give back, [`connections`] the sockets that are held for them.

mod connections;
mod orphans;
mod room;

use std::collections::BTreeMap;
use std::ops::Range;

use backdoor_core::Nanos;
use backdoor_core::progress_box::{EntityRecord, FailureLevel, ProgressBox, ProgressBoxError, Slot};
use backdoor_core::state_box::{MAX_PAYLOAD_BYTES, StateBoxError, StateBoxView, words_needed};
use backdoor_core::takeover::{Claim, DamagedClaim, Ownership};
use backdoor_core::words::copy_of;
use backdoor_transports::shm::{ReadOnlyWords, SharedWord, SharedWords};

use super::AgentConfig;
use super::arena::Arena;
use super::memory::Mapped;
use super::process::Process;
use super::queues::{Farewell, Queues as HeldQueues};
use crate::input_ring::{self, MAX_INPUT_BYTES};
use crate::protocol::{Answer, Reason, Status};

/// Number of a connection, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnectionId(pub(super) u64);

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal(pub(super) Reason, pub(super) String);

impl From<Refusal> for Answer {
    fn from(Refusal(reason, message): Refusal) -> Answer {
        Answer::Refused { reason, message }
    }
}

#[derive(Debug)]
struct Application {
    /// Who registered it.
    process: Process,
    /// `None` once the connection is lost.
    connection: Option<ConnectionId>,
    orphaned: Option<Nanos>,
}

#[derive(Debug)]
struct Session {
    application: Slot,
    slot: Slot,
    state: Range<usize>,
    /// Right behind the state.
    input: Range<usize>,
    claim: usize,
    unclaimed: u64,
    /// Since when it is closed and only kept for whoever has claimed it.
    orphaned: Option<Nanos>,
}

/// The node's entities and the memory they use.
pub(super) struct Registry {
    progress: ProgressBox<SharedWords>,
    progress_words: SharedWords,
    states: SharedWords,
    claims: ReadOnlyWords,
    claims_taken: Vec<bool>,
    arena: Arena,
    queues: HeldQueues,
    /// Until when sockets are kept that nobody serves, or whose session is lost to its owner.
    kept_until: BTreeMap<Slot, Nanos>,
    keep: Nanos,
    applications: BTreeMap<Slot, Application>,
    sessions: BTreeMap<u64, Session>,
    next_session: u64,
    system: Option<Slot>,
    retain: Nanos,
    pub(super) incarnation: u64,
}

impl Registry {
    pub(super) fn new(mapped: Mapped, config: &AgentConfig, incarnation: u64) -> Self {
        Registry {
            progress: mapped.progress,
            progress_words: mapped.progress_words,
            states: mapped.states,
            claims: mapped.claims,
            claims_taken: vec![false; config.claims],
            arena: Arena::new(config.state_words),
            queues: HeldQueues::new(config.queues),
            kept_until: BTreeMap::new(),
            keep: config.keep,
            applications: BTreeMap::new(),
            sessions: BTreeMap::new(),
            next_session: 1,
            system: None,
            retain: config.retain,
            incarnation,
        }
    }

    /// Adds the operating system, or one of its CPUs, or the agent: what the agent itself ticks. The first of them is
    /// the system, in which the others live.
    pub(super) fn add_own(&mut self, mut record: EntityRecord) -> Result<SharedWord, ProgressBoxError> {
        record.parent = self.system;
        record.process = u64::from(std::process::id());
        let slot = self.progress.add(record)?;
        self.system = self.system.or(Some(slot));
        Ok(self.progress_words.word(self.liveness_index(slot)))
    }

    pub(super) fn register(
        &mut self,
        connection: ConnectionId,
        process: Process,
        name: &str,
        deadline: Nanos,
        now: Nanos,
    ) -> Result<Slot, Refusal> {
        check_deadline(deadline)?;
        let mut record = EntityRecord::new(name, FailureLevel::Application, deadline);
        record.parent = self.system;
        record.process = process.id();
        let slot = self.with_room(now, |registry| registry.progress.add(record).map_err(full))?;
        self.applications.insert(slot, Application { process, connection: Some(connection), orphaned: None });
        Ok(slot)
    }

    pub(super) fn open_session(
        &mut self,
        connection: ConnectionId,
        application: Slot,
        name: &str,
        deadline: Nanos,
        (state_bytes, input_bytes): (u64, u64),
        now: Nanos,
    ) -> Result<Answer, Refusal> {
        check_deadline(deadline)?;
        self.check_owner(connection, application)?;
        let bytes = usize::try_from(state_bytes).ok().filter(|bytes| (1..=MAX_PAYLOAD_BYTES).contains(bytes));
        let bytes = bytes.ok_or_else(|| {
            Refusal(Reason::Invalid, format!("a state of {state_bytes} bytes: 1 to {MAX_PAYLOAD_BYTES} are possible"))
        })?;
        let input_words = usize::try_from(input_bytes).ok().and_then(input_ring::words_needed).ok_or_else(|| {
            let message = format!("room for {input_bytes} bytes of input: up to {MAX_INPUT_BYTES} are possible");
            Refusal(Reason::Invalid, message)
        })?;
        let mut record = EntityRecord::new(name, FailureLevel::Session, deadline).within(application);
        record.process = self.progress.record(application).map_or(0, |application| application.process);
        record.session = self.next_session;
        let (id, session) =
            self.with_room(now, |registry| registry.try_open(application, record, words_needed(bytes), input_words))?;
        let answer = self.opened(id, &session);
        self.sessions.insert(id, session);
        self.next_session += 1;
        Ok(answer)
    }

    /// Where a session has its place.
    fn opened(&self, id: u64, session: &Session) -> Answer {
        Answer::SessionOpened {
            slot: session.slot.0,
            liveness_word: self.liveness_index(session.slot) as u64,
            session: id,
            offset: session.state.start as u64,
            words: session.state.len() as u64,
            input_words: session.input.len() as u64,
            claim: session.claim as u32,
        }
    }

    pub(super) fn close_session(&mut self, connection: ConnectionId, id: u64, now: Nanos) -> Result<(), Refusal> {
        let not_yours = || Refusal(Reason::NotYours, format!("there is no session {id} of this connection"));
        let application = self.sessions.get(&id).ok_or_else(not_yours)?.application;
        self.check_owner(connection, application).map_err(|_| not_yours())?;
        self.retire(id, now);
        Ok(())
    }

    pub(super) fn depart(&mut self, connection: ConnectionId, application: Slot, now: Nanos) -> Result<(), Refusal> {
        self.check_owner(connection, application)?;
        for id in self.sessions_of(application) {
            self.retire(id, now);
        }
        if !self.has_sessions(application) {
            self.remove_application(application);
        } else if let Some(entry) = self.applications.get_mut(&application) {
            // Sessions that are claimed remain, and their parent with them.
            (entry.connection, entry.orphaned) = (None, Some(now));
            self.release(application, Farewell::AsUsual);
        }
        Ok(())
    }

    /// Frees a session, or keeps it, and its connection, if somebody has claimed it and may be reading.
    fn retire(&mut self, id: u64, now: Nanos) {
        let Some(session) = self.sessions.get(&id) else { return };
        if self.ownership(session) == Ownership::Mine {
            return self.remove_session(id, Farewell::AsUsual);
        }
        self.keep_or_release(id, now);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.orphaned.get_or_insert(now);
        }
    }

    /// The connection is closed. What still belongs to it did not depart: it died. Its sockets are let go, so that the
    /// kernel tells its clients; those that are to be kept, later.
    pub(super) fn connection_lost(&mut self, connection: ConnectionId, now: Nanos) {
        let mut lost = Vec::new();
        for (slot, application) in self.applications.iter_mut().filter(|(_, a)| a.connection == Some(connection)) {
            (application.connection, application.orphaned) = (None, Some(now));
            lost.push(*slot);
        }
        for application in lost {
            self.release(application, Farewell::AsUsual);
            for id in self.sessions_of(application) {
                self.keep_or_release(id, now);
            }
        }
    }

    pub(super) fn status(&self) -> Status {
        let orphaned_sessions = self.sessions.values().filter(|session| {
            session.orphaned.is_some()
                || self.applications.get(&session.application).is_some_and(|a| a.orphaned.is_some())
        });
        let orphaned_applications = self.applications.values().filter(|application| application.orphaned.is_some());
        Status {
            incarnation: self.incarnation,
            entities: self.progress.slots().count() as u64,
            capacity: self.progress.geometry().capacity() as u64,
            applications: self.applications.len() as u64,
            sessions: self.sessions.len() as u64,
            orphans: (orphaned_sessions.count() + orphaned_applications.count()) as u64,
            free_state_words: self.arena.free_words() as u64,
            state_words: self.arena.words() as u64,
            queues: self.queues.len() as u64,
            max_queues: self.queues.room() as u64,
            // Not its business; see `elsewhere`.
            remote_monitors: 0,
            remote_turned_away: 0,
        }
    }

    pub(super) fn set_gauge(&self, index: usize, value: u64) {
        self.progress.set_gauge(index, value);
    }

    pub(super) fn liveness_index(&self, slot: Slot) -> usize {
        self.progress.geometry().liveness().start + slot.index()
    }

    fn claim_word(&self, session: &Session) -> u64 {
        self.claims.load(session.claim).unwrap_or(session.unclaimed)
    }

    /// What the claim word of a session says.
    fn claim(&self, session: &Session) -> Result<Claim, DamagedClaim> {
        Claim::of_word(self.claim_word(session), session.unclaimed)
    }

    /// Whether nothing of the session was ever committed.
    fn is_empty(&self, session: &Session) -> bool {
        let copy = copy_of(&self.states.slice(session.state.clone()));
        StateBoxView::read(&copy).is_ok_and(|view| view.committed() == Err(StateBoxError::Empty))
    }

    /// Whose it says that the session is.
    fn ownership(&self, session: &Session) -> Ownership {
        Ownership::of(self.claim_word(session), session.unclaimed)
    }

    fn check_owner(&self, connection: ConnectionId, application: Slot) -> Result<(), Refusal> {
        match self.applications.get(&application) {
            Some(found) if found.connection == Some(connection) => Ok(()),
            _ => Err(Refusal(Reason::NotYours, format!("application {} is not of this connection", application.0))),
        }
    }

    fn has_sessions(&self, application: Slot) -> bool {
        self.sessions.values().any(|session| session.application == application)
    }

    fn sessions_of(&self, application: Slot) -> Vec<u64> {
        self.sessions.iter().filter(|(_, s)| s.application == application).map(|(id, _)| *id).collect()
    }
}

fn full(error: ProgressBoxError) -> Refusal {
    Refusal(Reason::Full, error.to_string())
}

fn check_deadline(deadline: Nanos) -> Result<(), Refusal> {
    if deadline == Nanos::ZERO {
        return Err(Refusal(Reason::Invalid, "a deadline of 0 can't be met".into()));
    }
    Ok(())
}
