//! What a process that died has left, and a new process of the same application takes up: sessions go on in the State Boxes
//! that they have, over the connections that they have.
//!
//! A session is handed on if nobody else can have it:
//! * its process has ended, by the kernel's word; a connection to the agent that was closed is none of that;
//! * its claim word says that nobody has claimed it. Who claims it later has it, as from any owner: to takers, the dead
//!   owner and the new one are one that paused;
//! * its connection is kept.

use std::os::fd::BorrowedFd;

use backdoor_core::progress_box::Slot;
use backdoor_core::takeover::Ownership;

use super::{Answer, ConnectionId, Reason, Refusal, Registry};

impl Registry {
    /// Hands the next session that a dead process of the same name left to `application`, with its socket.
    pub(in crate::agent) fn adopt_orphan(
        &mut self,
        connection: ConnectionId,
        application: Slot,
    ) -> Result<(Answer, Option<BorrowedFd<'_>>), Refusal> {
        self.check_owner(connection, application)?;
        let Some(id) = self.next_orphan_for(application) else {
            if self.is_one_dying(application) {
                let message = "a process of that name is dying: ask again".into();
                return Err(Refusal(Reason::NotYet, message));
            }
            return Ok((Answer::NoOrphan { withheld: self.withheld_from(application) }, None));
        };
        let process = self.progress.record(application).map_or(0, |record| record.process);
        let Some(session) = self.sessions.get_mut(&id) else {
            return Err(Refusal(Reason::Internal, format!("session {id} is gone")));
        };
        let before = std::mem::replace(&mut session.application, application);
        let slot = session.slot;
        self.kept_until.remove(&slot);
        self.progress.amend(slot, |record| (record.parent, record.process) = (Some(application), process));
        if !self.has_sessions(before) {
            self.remove_application(before);
        }
        let session = &self.sessions[&id];
        Ok((self.opened(id, session), self.queues.kept(slot)))
    }

    fn next_orphan_for(&self, application: Slot) -> Option<u64> {
        let can_be_handed_on = |id: &u64| {
            let session = &self.sessions[id];
            // The last is asked of the kernel.
            session.orphaned.is_none()
                && self.ownership(session) == Ownership::Mine
                && self.queues.kept(session.slot).is_some()
                && self.applications.get(&session.application).is_some_and(|left| left.process.has_ended())
        };
        self.left_for(application).find(can_be_handed_on)
    }

    /// Sessions of lost connections of the same name that are not handed on.
    fn withheld_from(&self, application: Slot) -> u64 {
        self.left_for(application).count() as u64
    }

    /// Sessions whose application has the same name, and no connection any more.
    fn left_for(&self, application: Slot) -> impl Iterator<Item = u64> {
        self.sessions.iter().filter_map(move |(id, session)| {
            let left = self.applications.get(&session.application)?;
            (left.connection.is_none() && self.have_one_name(session.application, application)).then_some(*id)
        })
    }

    /// Whether another process of the same name is about to leave what it has: it has ended, and what it sent last is not
    /// taken in yet; or its connection is closed, and it has not ended yet.
    fn is_one_dying(&self, application: Slot) -> bool {
        self.applications.iter().any(|(slot, other)| {
            *slot != application
                && self.have_one_name(*slot, application)
                && self.has_sessions(*slot)
                && other.connection.is_some() == other.process.has_ended()
        })
    }

    fn have_one_name(&self, one: Slot, other: Slot) -> bool {
        let name = |slot| self.progress.record(slot).map(|record| record.name);
        one != other && name(one).is_some() && name(one) == name(other)
    }
}
