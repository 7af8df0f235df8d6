//! When a diagnosis is to be had: the first suspicion is seldom the whole failure.
//!
//! An operating system that dies takes applications and sessions with it, but their deadlines expire one after another,
//! and so do equal deadlines of counters with different rhythms. Who asks too early hears of the session that ticked
//! last instead of the system. How long is long enough follows from the deadlines alone:
//!
//! ```text
//!   session   ── p ─────────── p + d  overdue, so suspected; it failed somewhere between p and p + d
//!   system    ─────── q ──────────────────── q + D
//!                      went with it?          still silent: suspected, the failure is the system's
//!                                    q' ──    progress later than p + d: it is alive, the failure is the session's
//! ```
//!
//! So a suspicion is settled once everybody whose failure would explain it was either seen to progress after the
//! suspected entity was overdue, or is suspected too; once everybody else who waits for whom it waits for was, since what
//! they share may be the cause without showing it; and once other sessions that owe something were served or are
//! suspected, if none of their application was served meanwhile. A system that lives settles it with its next tick; one that died,
//! with its own deadline, and no fixed waiting time could do it earlier.

use std::collections::BTreeMap;

use super::{Lateness, Node, Symptom};
use crate::Nanos;
use crate::detector::Detector;
use crate::monitor::{Monitor, Standing};
use crate::progress_box::{FailureLevel, Slot};

/// Up to when, in evidence time, what the monitor suspects may turn out to be part of a wider failure; `None` if
/// [`diagnose`](super::diagnose) answers for good as things stand. Progress settles it earlier, so ask after each sample.
///
/// Who can't wait so long, because a wide deadline is much longer than a narrow one, may diagnose earlier and be wrong.
pub fn settles_by<D: Detector>(monitor: &Monitor<D>) -> Option<Nanos> {
    if monitor.entities().all(|entity| entity.standing != Standing::Suspected) {
        return None;
    }
    let symptoms: Vec<Symptom> = monitor.entities().map(Symptom::from).collect();
    Node { keeper_ended: monitor.has_keeper_ended(), ..Node::of(&symptoms, &Lateness::default()) }.settles_by()
}

/// The same for `symptoms`, in slot order.
pub fn symptoms_settle_by(symptoms: &[Symptom]) -> Option<Nanos> {
    Node::of(symptoms, &Lateness::default()).settles_by()
}

impl Node<'_> {
    fn settles_by(self) -> Option<Nanos> {
        let overdue = Symptom::overdue;
        let suspected = || self.symptoms.iter().filter(|s| s.standing == Standing::Suspected);
        // One pass for the systems, which explain everybody if their counters are kept, and one along parents and
        // dependencies.
        let last_overdue = suspected().map(overdue).max()?;
        let explains_all = |system: &&Symptom| !self.keeper_ended && system.last_progress <= last_overdue;
        let systems = self.at(FailureLevel::Os).filter(explains_all);
        let others = suspected().flat_map(|entity| {
            let causes = self.named_by(entity);
            causes.filter(move |cause| cause.last_progress <= overdue(entity))
        });
        let causes = systems.chain(others).filter(|s| s.standing == Standing::Trusted).map(overdue).max();
        causes.max(self.siblings_settle_by()).max(self.services_settle_by())
    }

    /// Whoever waits for the same as a suspected entity may be silent by the same cause, which then is a shared one.
    fn siblings_settle_by(self) -> Option<Nanos> {
        // For each who is waited for, when the last of those in vain was overdue.
        let mut in_vain: BTreeMap<Slot, Nanos> = BTreeMap::new();
        for entity in self.symptoms.iter().filter(|s| s.standing == Standing::Suspected) {
            for awaited in entity.record.dependencies() {
                let last = in_vain.entry(awaited).or_default();
                *last = (*last).max(entity.overdue());
            }
        }
        let is_open = |s: &&Symptom| {
            let mut shared = s.record.dependencies().filter_map(|slot| in_vain.get(&slot));
            s.standing == Standing::Trusted && shared.any(|overdue| s.last_progress <= *overdue)
        };
        self.symptoms.iter().filter(is_open).map(Symptom::overdue).max()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::tests::node;
    use super::super::{Cause, diagnose_symptoms};
    use super::*;

    const MS: Nanos = Nanos::from_millis(1);

    /// The node of the diagnosis' tests; slot `silent` has been silent since 100 ms and was overdue at 120 ms.
    fn with_system(silent: u32, system_at: Nanos, system_deadline: Nanos) -> Vec<Symptom> {
        let mut symptoms = node(&[silent]);
        symptoms[0].last_progress = system_at;
        symptoms[0].record.deadline = system_deadline;
        symptoms
    }

    #[test]
    fn nobody_suspected_is_settled() {
        assert_eq!(symptoms_settle_by(&node(&[])), None);
    }

    #[test]
    fn a_system_with_a_longer_deadline_is_waited_for() {
        let mut symptoms = with_system(1, MS * 101, MS * 100);
        assert_eq!(diagnose_symptoms(&symptoms)[0].cause, Cause::Application, "too narrow");
        assert_eq!(symptoms_settle_by(&symptoms), Some(MS * 201));
        for symptom in &mut symptoms {
            (symptom.standing, symptom.last_progress) = (Standing::Suspected, MS * 101);
        }
        assert_eq!(symptoms_settle_by(&symptoms), None);
        assert_eq!(diagnose_symptoms(&symptoms)[0].cause, Cause::OperatingSystem);
    }

    #[test]
    fn a_system_whose_counters_nobody_keeps_is_not_waited_for() {
        let symptoms = with_system(1, MS * 101, MS * 100);
        let late = Lateness::default();
        assert_eq!(Node { keeper_ended: true, ..Node::of(&symptoms, &late) }.settles_by(), None);
    }

    #[test]
    fn progress_settles_it_once_the_suspected_was_overdue() {
        assert_eq!(symptoms_settle_by(&with_system(1, MS * 119, MS * 100)), Some(MS * 219));
        assert_eq!(symptoms_settle_by(&with_system(1, MS * 121, MS * 100)), None);
    }

    #[test]
    fn a_session_waits_for_its_own_application_and_those_it_depends_on() {
        let mut symptoms = node(&[3]);
        symptoms[2].last_progress = MS * 110;
        assert_eq!(symptoms_settle_by(&symptoms), None, "another application");
        symptoms[3].record = symptoms[3].record.depending_on(Slot(2));
        assert_eq!(symptoms_settle_by(&symptoms), Some(MS * 130));
        symptoms[1].last_progress = MS * 115;
        assert_eq!(symptoms_settle_by(&symptoms), Some(MS * 135));
        symptoms[1].standing = Standing::Idle;
        assert_eq!(symptoms_settle_by(&symptoms), Some(MS * 130), "who idles promises nothing");
    }

    #[test]
    fn whoever_waits_for_the_same_is_waited_for() {
        let mut symptoms = node(&[1]);
        symptoms[2].last_progress = MS * 115;
        for client in [1, 2] {
            symptoms[client].record = symptoms[client].record.depending_on(Slot(5));
        }
        assert_eq!(symptoms_settle_by(&symptoms), Some(MS * 135));
        symptoms[2].last_progress = MS * 121;
        assert_eq!(symptoms_settle_by(&symptoms), None, "it goes on");
    }
}
