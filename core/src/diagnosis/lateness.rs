//! Who was late: a slow entity is suspected, trusted when it moves at last, and suspected again.
//!
//! Whoever waits for it may be silent all the while, for its turn comes late or never. Seen at the wrong moment, the
//! slow one is trusted and its client alone is silent:
//!
//! ```text
//!   disk    ── p ─────!suspected── p' ─────!suspected── p'' ──      requests of others are served, slowly
//!   client  ─ q ───!suspected───────────────────────────────        its own waits in line
//!                                   ^ here only the client is suspected, and waits for the disk all the same
//! ```
//!
//! So a silence is explained not only by who is silent too, but also by who was, for too long, since it began.

use std::collections::BTreeMap;

use crate::Nanos;
use crate::detector::Detector;
use crate::monitor::{Event, Monitor};
use crate::progress_box::Slot;

/// A suspicion that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Late {
    /// When the silence began.
    pub(super) since: Nanos,
    /// When progress was seen again.
    pub(super) until: Nanos,
}

/// The last suspicion of each entity that came back from one. Show it every step of the monitor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lateness {
    last: BTreeMap<Slot, Late>,
}

impl Lateness {
    /// Takes in what `monitor` noticed in its last step.
    pub fn look<D: Detector>(&mut self, monitor: &Monitor<D>, noticed: &[Event]) {
        self.take_in(monitor.evidence_time(), noticed);
    }

    /// Takes in what was noticed in the sample of evidence time `until`.
    pub(super) fn take_in(&mut self, until: Nanos, noticed: &[Event]) {
        for event in noticed {
            match event {
                Event::Trusted(verdict) => {
                    self.last.insert(verdict.slot, Late { since: until - verdict.silence, until });
                }
                Event::Joined { slot, .. } | Event::Left { slot, .. } => {
                    self.last.remove(slot);
                }
                Event::Attached { .. } | Event::Restarted { .. } => self.last.clear(),
                _ => {}
            }
        }
    }

    pub(super) fn of(&self, slot: Slot) -> Option<Late> {
        self.last.get(&slot).copied()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::tests::{entity, failure, node};
    use super::super::{Cause, Symptom, diagnose_symptoms, diagnose_symptoms_with};
    use super::*;
    use crate::monitor::{Standing, Verdict};
    use crate::progress_box::FailureLevel;

    const fn ms(ms: u64) -> Nanos {
        Nanos::from_millis(ms)
    }

    /// The suspicion of `slot`, silent from `since` on, is over at `until`.
    fn late(symptoms: &[Symptom], slot: u32, since: u64, until: u64) -> Event {
        let record = symptoms[slot as usize].record;
        let verdict = Verdict { slot: Slot(slot), record, at: ms(until), silence: ms(until) - ms(since) };
        Event::Trusted(verdict)
    }

    /// Application 1 waits for 2 and is silent since 100 ms; 2 is trusted.
    fn client_of_a_trusted_one() -> Vec<Symptom> {
        let mut symptoms = node(&[1]);
        symptoms[1].record = symptoms[1].record.depending_on(Slot(2));
        symptoms
    }

    #[test]
    fn whoever_was_late_meanwhile_is_the_root_although_it_moves() {
        let symptoms = client_of_a_trusted_one();
        assert_eq!(diagnose_symptoms(&symptoms), [failure(Cause::Application, &[1], &[3, 4])]);
        let mut lateness = Lateness::default();
        lateness.take_in(ms(130), &[late(&symptoms, 2, 105, 130)]);
        assert_eq!(diagnose_symptoms_with(&symptoms, &lateness), [failure(Cause::Application, &[2], &[3, 4, 5])],);
    }

    #[test]
    fn whoever_was_late_before_explains_nothing() {
        let symptoms = client_of_a_trusted_one();
        let mut lateness = Lateness::default();
        lateness.take_in(ms(100), &[late(&symptoms, 2, 50, 100)]);
        assert_eq!(diagnose_symptoms_with(&symptoms, &lateness), diagnose_symptoms(&symptoms));
        let slot = Slot(2);
        lateness.take_in(ms(130), &[late(&symptoms, 2, 105, 130), Event::Left { slot, record: symptoms[2].record }]);
        assert_eq!(lateness, Lateness::default(), "the slot's next user was not late");
    }

    #[test]
    fn the_late_may_have_waited_themselves() {
        let mut symptoms = client_of_a_trusted_one();
        symptoms.push(entity(6, FailureLevel::Application, Some(0), false));
        symptoms[2].record = symptoms[2].record.depending_on(Slot(6));
        let mut lateness = Lateness::default();
        // Slot 6 comes back first, then 2, which waited for it; 1 is still silent.
        lateness.take_in(ms(125), &[late(&symptoms, 6, 102, 125)]);
        lateness.take_in(ms(130), &[late(&symptoms, 2, 101, 130)]);
        let roots: Vec<Vec<Slot>> =
            diagnose_symptoms_with(&symptoms, &lateness).into_iter().map(|failure| failure.roots).collect();
        assert_eq!(roots, [[Slot(6)]]);
        symptoms[1].standing = Standing::Trusted;
        assert_eq!(diagnose_symptoms_with(&symptoms, &lateness), [], "all is over");
    }
}
