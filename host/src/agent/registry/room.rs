//! What entities take (a slot, a State Box, a claim word), and how they give it back.

use backdoor_core::Nanos;
use backdoor_core::progress_box::{EntityRecord, Slot, StateBoxLocation};
use backdoor_core::state_box::StateBox;
use backdoor_core::takeover::{Claim, Ownership};
use backdoor_core::words::{AtomicU64, Ordering};

use super::{Farewell, Reason, Refusal, Registry, Session, full};

/// The room that a reclaimed orphan gives back.
enum Orphan {
    Application(Slot),
    Session(u64),
}

impl Registry {
    /// Tries; while there is no room, gives up the oldest orphan that has been kept long enough, and tries again.
    pub(super) fn with_room<T>(
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

    /// Takes a claim word, memory for a State Box and for input, and a slot, or none of them.
    pub(super) fn try_open(
        &mut self,
        application: Slot,
        mut record: EntityRecord,
        words: usize,
        input_words: usize,
    ) -> Result<(u64, Session), Refusal> {
        let claims = self.claims_taken.len();
        let claim =
            self.free_claim().ok_or_else(|| Refusal(Reason::Full, format!("all {claims} claim words are in use")))?;
        let memory = self.arena.allocate(words + input_words).ok_or_else(|| {
            let (needed, free, all) = (words + input_words, self.arena.free_words(), self.arena.words());
            let message =
                format!("no room for a State Box of {needed} words: {free} of {all} are free, not in one piece");
            Refusal(Reason::Full, message)
        })?;
        // Both are whole cache lines, so this is all of it.
        let (state, input) = (memory.start..memory.start + words, memory.start + words..memory.end);
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
                Ok((id, Session { application, slot, state, input, claim, unclaimed, orphaned: None }))
            }
            Err(refusal) => {
                self.arena.release(memory);
                Err(refusal)
            }
        }
    }

    /// A claim word that is nobody's. One with which somebody may be in the middle of a takeover, of the session that had it
    /// before, comes last: giving that session back would make the next one lose itself.
    fn free_claim(&self) -> Option<usize> {
        let is_contested = |claim: &usize| {
            // Whatever it meant to the session before, it is looked at as a claim here.
            let word = self.claims.load(*claim).unwrap_or(0);
            matches!(Claim::of_word(word, !word), Ok(Claim::Claimed { .. } | Claim::Fencing { .. }))
        };
        let free = || (0..self.claims_taken.len()).filter(|claim| !self.claims_taken[*claim]);
        free().find(|claim| !is_contested(claim)).or_else(|| free().next())
    }

    /// Gives back all that a session has.
    pub(super) fn remove_session(&mut self, id: u64, farewell: Farewell) {
        let Some(session) = self.sessions.remove(&id) else { return };
        self.release(session.slot, farewell);
        self.progress.remove(session.slot);
        let memory = session.state.start..session.input.end;
        // One client's state is not the next one's business.
        for word in &self.states[memory.clone()] {
            word.store(0, Ordering::Relaxed);
        }
        self.arena.release(memory);
        self.claims_taken[session.claim] = false;
    }

    /// The same of an application, and of what is left of its sessions.
    pub(super) fn remove_application(&mut self, application: Slot) {
        for id in self.sessions_of(application) {
            self.give_up(id);
        }
        self.release(application, Farewell::AsUsual);
        self.applications.remove(&application);
        self.progress.remove(application);
    }

    /// Removes a session that was kept for long enough.
    fn give_up(&mut self, id: u64) {
        let Some(session) = self.sessions.get(&id) else { return };
        self.remove_session(id, Farewell::after_retention(self.ownership(session)));
    }

    fn reclaim_oldest(&mut self, now: Nanos) -> bool {
        let applications =
            self.applications.iter().filter_map(|(slot, a)| Some((a.orphaned?, Orphan::Application(*slot))));
        let sessions = self.sessions.iter().filter_map(|(id, s)| Some((s.orphaned?, Orphan::Session(*id))));
        let oldest = applications.chain(sessions).min_by_key(|(since, _)| *since);
        let Some((_, orphan)) = oldest.filter(|(since, _)| now - *since >= self.retain) else { return false };
        match orphan {
            Orphan::Application(slot) => self.remove_application(slot),
            Orphan::Session(id) => self.give_up(id),
        }
        true
    }
}

impl Farewell {
    /// For what was kept for long enough. Who still claims it may be about to carry it on, and an end that its client hears of
    /// would be the end of that.
    pub(super) fn after_retention(ownership: Ownership) -> Self {
        if ownership == Ownership::Mine { Farewell::AsUsual } else { Farewell::InSilence }
    }
}
