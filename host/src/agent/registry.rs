//! Who is on the node: applications, their sessions, and what died and is kept. No sockets and no clock in here.
//!
//! ```text
//!   register ──> served ── depart ───────────────> freed
//!                  │                                 ^
//!                  └─ connection lost ──> orphaned ──┘ older than `retain`, and its room is needed
//! ```
//!
//! A session that was taken over is kept in the same way when it is closed: its new owner may still be reading it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::OwnedFd;

use backdoor_core::Nanos;
use backdoor_core::progress_box::{EntityRecord, FailureLevel, ProgressBox, ProgressBoxError, Slot, StateBoxLocation};
use backdoor_core::state_box::{MAX_PAYLOAD_BYTES, StateBox, words_needed};
use backdoor_core::words::{AtomicU64, Ordering};
use backdoor_transports::shm::{ReadOnlyWords, SharedWord, SharedWords};

use super::AgentConfig;
use super::arena::Arena;
use super::memory::Mapped;
use super::queues::{QueueError, Queues as HeldQueues};
use crate::protocol::{Answer, Reason, Status};
use crate::tcp::{self, Queues, TcpError};

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
    /// `None` once the connection is lost.
    connection: Option<ConnectionId>,
    orphaned: Option<Nanos>,
}

#[derive(Debug)]
struct Session {
    application: Slot,
    slot: Slot,
    state: Range<usize>,
    claim: usize,
    unclaimed: u64,
    /// Since when it is only kept for whoever took it over.
    orphaned: Option<Nanos>,
}

/// The room that a reclaimed orphan gives back.
enum Orphan {
    Application(Slot),
    Session(u64),
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
    /// Until when sockets are kept whose process has died.
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
        process: u64,
        name: &str,
        deadline: Nanos,
        now: Nanos,
    ) -> Result<Slot, Refusal> {
        check_deadline(deadline)?;
        let mut record = EntityRecord::new(name, FailureLevel::Application, deadline);
        record.parent = self.system;
        record.process = process;
        let slot = self.with_room(now, |registry| registry.progress.add(record).map_err(full))?;
        self.applications.insert(slot, Application { connection: Some(connection), orphaned: None });
        Ok(slot)
    }

    pub(super) fn open_session(
        &mut self,
        connection: ConnectionId,
        application: Slot,
        name: &str,
        deadline: Nanos,
        state_bytes: u64,
        now: Nanos,
    ) -> Result<Answer, Refusal> {
        check_deadline(deadline)?;
        self.check_owner(connection, application)?;
        let bytes = usize::try_from(state_bytes).ok().filter(|bytes| (1..=MAX_PAYLOAD_BYTES).contains(bytes));
        let bytes = bytes.ok_or_else(|| {
            Refusal(Reason::Invalid, format!("a state of {state_bytes} bytes: 1 to {MAX_PAYLOAD_BYTES} are possible"))
        })?;
        let mut record = EntityRecord::new(name, FailureLevel::Session, deadline).within(application);
        record.process = self.progress.record(application).map_or(0, |application| application.process);
        record.session = self.next_session;
        let (id, session) =
            self.with_room(now, |registry| registry.try_open(application, record, words_needed(bytes)))?;
        let answer = Answer::SessionOpened {
            slot: session.slot.0,
            liveness_word: self.liveness_index(session.slot) as u64,
            session: id,
            offset: session.state.start as u64,
            words: session.state.len() as u64,
            claim: session.claim as u32,
        };
        self.sessions.insert(id, session);
        self.next_session += 1;
        Ok(answer)
    }

    /// Takes a claim word, a State Box and a slot, or none of them.
    fn try_open(
        &mut self,
        application: Slot,
        mut record: EntityRecord,
        words: usize,
    ) -> Result<(u64, Session), Refusal> {
        let claims = self.claims_taken.len();
        let claim = self.claims_taken.iter().position(|taken| !taken);
        let claim = claim.ok_or_else(|| Refusal(Reason::Full, format!("all {claims} claim words are in use")))?;
        let state = self.arena.allocate(words).ok_or_else(|| {
            let (free, all) = (self.arena.free_words(), self.arena.words());
            let message =
                format!("no room for a State Box of {words} words: {free} of {all} are free, not in one piece");
            Refusal(Reason::Full, message)
        })?;
        let unclaimed = self.claims.load(claim).unwrap_or(0);
        let id = self.next_session;
        // Formatted before the directory tells of it, so that a monitor never finds an earlier session there.
        let claim_now = AtomicU64::new(unclaimed);
        let formatted = StateBox::format(self.states.slice(state.clone()), &claim_now, id, id);
        let added = formatted.map_err(|error| Refusal(Reason::Internal, error.to_string())).and_then(|_| {
            let (offset, words) = (state.start as u64, state.len() as u64);
            record.state_box = Some(StateBoxLocation { offset, words, claim: claim as u32 });
            self.progress.add(record).map_err(full)
        });
        match added {
            Ok(slot) => {
                self.claims_taken[claim] = true;
                Ok((id, Session { application, slot, state, claim, unclaimed, orphaned: None }))
            }
            Err(refusal) => {
                self.arena.release(state);
                Err(refusal)
            }
        }
    }

    /// Takes a duplicate of the socket in which work waits for the application or session in `slot`, in place of an earlier
    /// one, and names its gauge in the directory.
    pub(super) fn watch_queue(
        &mut self,
        connection: ConnectionId,
        slot: Slot,
        socket: OwnedFd,
        keep: bool,
    ) -> Result<(), Refusal> {
        let session = self.sessions.values().find(|session| session.slot == slot && session.orphaned.is_none());
        self.check_owner(connection, session.map_or(slot, |session| session.application))
            .map_err(|_| Refusal(Reason::NotYours, format!("slot {} is not of this connection", slot.0)))?;
        let gauge = self.queues.hold(slot, socket, keep).map_err(|error| match error {
            QueueError::Full(_) => Refusal(Reason::Full, error.to_string()),
            _ => Refusal(Reason::Invalid, error.to_string()),
        })?;
        if self.progress.record(slot).is_some_and(|record| record.pending != Some(gauge)) {
            self.progress.amend(slot, |record| record.pending = Some(gauge));
        }
        Ok(())
    }

    /// Whether there are sockets to look at.
    pub(super) fn has_queues(&self) -> bool {
        self.queues.len() > 0
    }

    /// What the kept connection of a session holds that was claimed.
    pub(super) fn queues_of(&self, id: u64) -> Result<Queues, Refusal> {
        let invalid = |message: String| Refusal(Reason::Invalid, message);
        let socket = self.queues.kept(self.claimed(id)?);
        let socket = socket.ok_or_else(|| invalid(format!("no connection of session {id} is kept")))?;
        tcp::queues(socket).map_err(|error| match error {
            TcpError::NotTcp | TcpError::NotEstablished { .. } => invalid(error.to_string()),
            _ => Refusal(Reason::Internal, error.to_string()),
        })
    }

    /// Closes what is kept of a claimed session's connection, in silence.
    pub(super) fn let_go(&mut self, id: u64) -> Result<(), Refusal> {
        let slot = self.claimed(id)?;
        self.release_queue(slot);
        Ok(())
    }

    /// The slot of a session that is no longer its owner's alone.
    fn claimed(&self, id: u64) -> Result<Slot, Refusal> {
        let session = self.sessions.get(&id);
        let session = session.ok_or_else(|| Refusal(Reason::Invalid, format!("there is no session {id}")))?;
        if !self.is_claimed(session) {
            let message = format!("nobody has claimed session {id}: its connection is its owner's");
            return Err(Refusal(Reason::NotClaimed, message));
        }
        Ok(session.slot)
    }

    fn is_claimed(&self, session: &Session) -> bool {
        self.claims.load(session.claim) != Some(session.unclaimed)
    }

    /// Looks what waits in each socket, and lets go of those that were kept for long enough after their process.
    pub(super) fn look_at_queues(&mut self, now: Nanos) {
        let late: Vec<Slot> =
            self.kept_until.iter().filter(|(_, until)| now >= **until).map(|(slot, _)| *slot).collect();
        for slot in late {
            self.release_queue(slot);
        }
        self.queues.pass(|gauge, waiting| self.progress.set_gauge(gauge, waiting));
    }

    /// Lets go of the socket of whoever is in `slot`. The gauge is cleared before anybody else can get it.
    fn release_queue(&mut self, slot: Slot) {
        self.kept_until.remove(&slot);
        // Its client talks to somebody else, and would take the end of this connection for that of the other one.
        let is_anothers = self.sessions.values().any(|session| session.slot == slot && self.is_claimed(session));
        if let Some(gauge) = self.queues.release(slot, is_anothers) {
            self.progress.amend(slot, |record| record.pending = None);
            self.progress.set_gauge(usize::from(gauge), 0);
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
        if self.sessions_of(application).is_empty() {
            self.remove_application(application);
        } else if let Some(entry) = self.applications.get_mut(&application) {
            // Sessions that were taken over remain, and their parent with them.
            *entry = Application { connection: None, orphaned: Some(now) };
            self.release_queue(application);
        }
        Ok(())
    }

    /// The connection is closed. What still belongs to it did not depart: it died. Its sockets are let go, so that the
    /// kernel tells its clients.
    pub(super) fn connection_lost(&mut self, connection: ConnectionId, now: Nanos) {
        let mut lost = Vec::new();
        for (slot, application) in self.applications.iter_mut().filter(|(_, a)| a.connection == Some(connection)) {
            *application = Application { connection: None, orphaned: Some(now) };
            lost.push(*slot);
        }
        for slot in lost {
            self.release_queue(slot);
            for id in self.sessions_of(slot) {
                match self.sessions.get(&id).map(|session| session.slot) {
                    Some(slot) if self.queues.kept(slot).is_some() => {
                        self.kept_until.insert(slot, now + self.keep);
                    }
                    _ => self.release_session_queue(id),
                }
            }
        }
    }

    fn release_session_queue(&mut self, id: u64) {
        if let Some(slot) = self.sessions.get(&id).map(|session| session.slot) {
            self.release_queue(slot);
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

    fn check_owner(&self, connection: ConnectionId, application: Slot) -> Result<(), Refusal> {
        match self.applications.get(&application) {
            Some(found) if found.connection == Some(connection) => Ok(()),
            _ => Err(Refusal(Reason::NotYours, format!("application {} is not of this connection", application.0))),
        }
    }

    fn sessions_of(&self, application: Slot) -> Vec<u64> {
        self.sessions.iter().filter(|(_, s)| s.application == application).map(|(id, _)| *id).collect()
    }

    /// Frees a session, or keeps it, and its connection, if somebody took it over and may still be reading.
    fn retire(&mut self, id: u64, now: Nanos) {
        let claimed = self.sessions.get(&id).filter(|session| self.is_claimed(session)).map(|session| session.slot);
        match claimed {
            Some(slot) if self.queues.kept(slot).is_some() => {
                self.kept_until.insert(slot, now + self.keep);
            }
            _ => self.release_session_queue(id),
        }
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if self.claims.load(session.claim) == Some(session.unclaimed) {
            self.remove_session(id);
        } else {
            session.orphaned.get_or_insert(now);
        }
    }

    fn remove_session(&mut self, id: u64) {
        self.release_session_queue(id);
        let Some(session) = self.sessions.remove(&id) else { return };
        self.progress.remove(session.slot);
        // One client's state is not the next one's business.
        for word in &self.states[session.state.clone()] {
            word.store(0, Ordering::Relaxed);
        }
        self.arena.release(session.state);
        self.claims_taken[session.claim] = false;
    }

    fn remove_application(&mut self, application: Slot) {
        for id in self.sessions_of(application) {
            self.remove_session(id);
        }
        self.release_queue(application);
        self.applications.remove(&application);
        self.progress.remove(application);
    }

    /// Tries; while there is no room, gives up the oldest orphan that has been kept long enough, and tries again.
    fn with_room<T>(
        &mut self,
        now: Nanos,
        mut attempt: impl FnMut(&mut Self) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        loop {
            match attempt(self) {
                Err(Refusal(Reason::Full, message)) => {
                    if !self.reclaim_oldest(now) {
                        let message = format!("{message}, and nothing has been dead for {}", self.retain);
                        return Err(Refusal(Reason::Full, message));
                    }
                }
                other => return other,
            }
        }
    }

    fn reclaim_oldest(&mut self, now: Nanos) -> bool {
        let applications =
            self.applications.iter().filter_map(|(slot, a)| Some((a.orphaned?, Orphan::Application(*slot))));
        let sessions = self.sessions.iter().filter_map(|(id, s)| Some((s.orphaned?, Orphan::Session(*id))));
        let oldest = applications.chain(sessions).min_by_key(|(since, _)| *since);
        let Some((_, orphan)) = oldest.filter(|(since, _)| now - *since >= self.retain) else { return false };
        match orphan {
            Orphan::Application(slot) => self.remove_application(slot),
            Orphan::Session(id) => self.remove_session(id),
        }
        true
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
