//! The sockets that the agent holds for applications and sessions: whose they are, how long they are kept, how they end.
//!
//! | whose the session is | its process | its socket |
//! |---|---|---|
//! | its owner's | lives | held until the session is closed |
//! | | has died | kept for `keep`, then closed as usual: the kernel tells the client; at once if nothing was committed |
//! | in doubt | lives | held until the session is closed, and then as below; closed as usual if it is given back |
//! | | has died | kept for `keep`, then closed in silence: somebody may be about to carry it on |
//! | lost, and not moved yet | lives or not | kept for `keep`, for takers to read its queues; then closed in silence |
//! | moved | lives or not | closed in silence |
//!
//! What its owner did not ask to be kept is let go when its owner dies or closes it: in silence if it is lost.

use std::os::fd::OwnedFd;

use backdoor_core::Nanos;
use backdoor_core::progress_box::Slot;
use backdoor_core::takeover::{Claim, Ownership};

use super::{ConnectionId, Farewell, Reason, Refusal, Registry, Session};
use crate::agent::queues::QueueError;
use crate::input_ring::InputRing;
use crate::protocol::Answer;
use crate::tcp::{self, Queues, TcpError};

impl Registry {
    /// Takes a duplicate of the socket in which work waits for the application or session in `slot`, in place of an earlier
    /// one, and names its gauge in the directory.
    pub(in crate::agent) fn watch_queue(
        &mut self,
        connection: ConnectionId,
        slot: Slot,
        socket: OwnedFd,
        keep: bool,
    ) -> Result<(), Refusal> {
        let session = self.sessions.values().find(|session| session.slot == slot && session.orphaned.is_none());
        self.check_owner(connection, session.map_or(slot, |session| session.application))
            .map_err(|_| Refusal(Reason::NotYours, format!("slot {} is not of this connection", slot.0)))?;
        self.watch(slot, socket, keep)
    }

    /// Keeps the socket of the session of `answer`, which was just opened; or it is no more.
    pub(in crate::agent) fn keep_from_the_start(
        &mut self,
        answer: Answer,
        socket: OwnedFd,
        now: Nanos,
    ) -> Result<Answer, Refusal> {
        if let Answer::SessionOpened { slot, session, .. } = answer
            && let Err(refusal) = self.watch(Slot(slot), socket, true)
        {
            self.retire(session, now);
            return Err(refusal);
        }
        Ok(answer)
    }

    fn watch(&mut self, slot: Slot, socket: OwnedFd, keep: bool) -> Result<(), Refusal> {
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
    pub(in crate::agent) fn has_queues(&self) -> bool {
        self.queues.len() > 0
    }

    /// What the kept connection of a session holds that its owner has lost; before it, what that owner has taken out of it
    /// last, acted upon or not.
    pub(in crate::agent) fn queues_of(&self, id: u64) -> Result<Queues, Refusal> {
        let invalid = |message: String| Refusal(Reason::Invalid, message);
        let session = self.lost(id)?;
        let socket = self.queues.kept(session.slot);
        let socket = socket.ok_or_else(|| invalid(format!("no connection of session {id} is kept")))?;
        let mut queues = tcp::queues(socket).map_err(|error| match error {
            TcpError::NotTcp | TcpError::NotEstablished { .. } => invalid(error.to_string()),
            _ => Refusal(Reason::Internal, error.to_string()),
        })?;
        if let Some(ring) = InputRing::new(self.states.slice(session.input.clone())) {
            let mut input = ring.before(queues.received.wrapping_sub(queues.unread.len() as u32));
            input.append(&mut queues.unread);
            queues.unread = input;
        }
        Ok(queues)
    }

    /// Closes what is kept of the connection of a session that its owner has lost, in silence.
    pub(in crate::agent) fn let_go(&mut self, id: u64) -> Result<(), Refusal> {
        let slot = self.lost(id)?.slot;
        self.release(slot, Farewell::InSilence);
        Ok(())
    }

    /// A session that its owner can't get back.
    fn lost(&self, id: u64) -> Result<&Session, Refusal> {
        let session = self.sessions.get(&id);
        let session = session.ok_or_else(|| Refusal(Reason::Invalid, format!("there is no session {id}")))?;
        let whose = match self.ownership(session) {
            Ownership::Lost => return Ok(session),
            Ownership::InDoubt => "may be given back to its owner",
            Ownership::Mine => "is its owner's",
        };
        Err(Refusal(Reason::NotClaimed, format!("session {id} {whose}, and its connection with it")))
    }

    /// Looks what waits in each socket, having let go of those whose time is over.
    pub(in crate::agent) fn look_at_queues(&mut self, now: Nanos) {
        self.let_go_of_the_lost(now);
        self.queues.pass(|gauge, waiting| self.progress.set_gauge(gauge, waiting));
    }

    fn let_go_of_the_lost(&mut self, now: Nanos) {
        let (mut over, mut given_back) = (Vec::new(), Vec::new());
        for (id, session) in self.sessions.iter().filter(|(_, session)| self.queues.kept(session.slot).is_some()) {
            match self.claim(session) {
                Ok(Claim::Moved { .. }) => over.push((session.slot, Farewell::InSilence)),
                Ok(Claim::Fencing { .. }) | Err(_) => {
                    self.kept_until.entry(session.slot).or_insert(now + self.keep);
                }
                Ok(Claim::Unclaimed) if session.orphaned.is_some() => given_back.push(*id),
                Ok(Claim::Unclaimed | Claim::Claimed { .. }) => {}
            }
            if self.kept_until.get(&session.slot).is_some_and(|until| now >= *until) {
                over.push((session.slot, Farewell::after_retention(self.ownership(session))));
            }
        }
        for (slot, farewell) in over {
            self.release(slot, farewell);
        }
        // Closed by its owner while somebody claimed it, who had no use for it.
        for id in given_back {
            self.remove_session(id, Farewell::AsUsual);
        }
    }

    /// Nobody serves the session any more: its socket is let go, later if it is to be kept.
    pub(super) fn keep_or_release(&mut self, id: u64, now: Nanos) {
        let Some(session) = self.sessions.get(&id) else { return };
        let slot = session.slot;
        if self.queues.kept(slot).is_some() && !self.is_empty(session) {
            self.kept_until.entry(slot).or_insert(now + self.keep);
        } else {
            let is_lost = self.ownership(session) == Ownership::Lost;
            self.release(slot, if is_lost { Farewell::InSilence } else { Farewell::AsUsual });
        }
    }

    /// Lets go of the socket of whoever is in `slot`. The gauge is cleared before anybody else can get it.
    pub(super) fn release(&mut self, slot: Slot, farewell: Farewell) {
        self.kept_until.remove(&slot);
        if let Some(gauge) = self.queues.release(slot, farewell) {
            self.progress.amend(slot, |record| record.pending = None);
            self.progress.set_gauge(usize::from(gauge), 0);
        }
    }
}
