//! From suspected entities to failures: at which level did the node fail, and who is the root among the silent?
//!
//! A failure shows in many counters at once. When an operating system freezes, its applications and their sessions fall
//! silent with it; when a server process hangs, so do its clients' sessions and every process that waits for it. The
//! widest level whose own counters stand still is the level of the failure (paper, section 5: OS, application,
//! session); within a level, whoever waits for another silent entity is not the root (section 4.1, fault propagation).
//!
//! An application whose sessions are silent while it goes on has failed as well, if it [serves nobody](Cause::NotServing).
//!
//! Counters are kept by somebody: if "the operating system" is silent while applications go on, then whoever keeps its
//! counters is what failed. Who [saw that one end](Monitor::keeper_ended) needs no application to tell, and an application
//! that falls silent at the same time, or later, is a failure of its own.
//!
//! Counters that stop together are suspected one after another, each by its own deadline. A diagnosis at the first
//! suspicion is often too narrow; [`settles_by`] tells whether it is to be had already. Whoever is slow is suspected and
//! trusted by turns; [`Lateness`] remembers it. Whoever looks well and may be the root all the same is named as a doubt,
//! in [`Failure::perhaps`]. What a channel's silence means, which accuses no counter, is in [`reachability`].

mod channel_log;
mod doubt;
mod lateness;
pub mod reachability;
mod roots;
mod serving;
mod settling;

pub use channel_log::ChannelLog;
pub use lateness::Lateness;
pub use settling::{settles_by, symptoms_settle_by};

use std::collections::{BTreeMap, BTreeSet};

use crate::Nanos;
use crate::detector::Detector;
use crate::monitor::{EntityView, Monitor, Standing};
use crate::progress_box::{EntityRecord, FailureLevel, Slot};

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Nothing of the node advances.
    OperatingSystem,
    /// One of several operating-system counters stands still: a processor hangs, the system goes on.
    Processor,
    /// The operating system's counters stand still while applications go on: their keeper failed.
    Reporter,
    /// An application as a whole, or what is kept as one: a kernel service, a disk.
    Application,
    /// An application that goes on, by its own counter, and serves nobody: several of its sessions are silent, and not one
    /// has made progress since. A livelock, or a deadlock of all threads but the main one.
    NotServing,
    /// One client's session.
    Session,
}

impl Cause {
    /// The level at which clients are affected; `None` if they are not.
    pub const fn level(self) -> Option<FailureLevel> {
        match self {
            Cause::OperatingSystem => Some(FailureLevel::Os),
            Cause::Application | Cause::NotServing => Some(FailureLevel::Application),
            Cause::Session => Some(FailureLevel::Session),
            Cause::Processor | Cause::Reporter => None,
        }
    }
}

/// One failure of a node, with everything that it explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What failed.
    pub cause: Cause,
    /// The entities whose silence, or slowness, is the failure itself; of [`Cause::NotServing`], the application.
    pub roots: Vec<Slot>,
    /// The sessions that lose service by it, silent already or not: its own, and those of whoever is silent because it
    /// waits for a root. Each session is listed with one failure.
    pub sessions: Vec<Slot>,
    /// Entities that look well, and whose failure would explain the silence as well as that of the roots: the monitor
    /// can't tell.
    pub perhaps: Vec<Slot>,
}

/// What diagnosis needs to know of an entity.
#[derive(Clone, Copy, Debug)]
pub struct Symptom {
    /// Its place.
    pub slot: Slot,
    /// What the directory says of it.
    pub record: EntityRecord,
    /// How the monitor sees it.
    pub standing: Standing,
    /// Since when its silence counts.
    pub last_progress: Nanos,
    /// When it was last seen to make progress: earlier than that if it was idle in between.
    pub progressed: Nanos,
}

impl<D> From<EntityView<'_, D>> for Symptom {
    fn from(view: EntityView<'_, D>) -> Self {
        let EntityView { slot, record, standing, silent_since, last_progress: progressed, .. } = view;
        Symptom { slot, record: *record, standing, last_progress: silent_since, progressed }
    }
}

/// The failures of the node that `monitor` watches, widest first; empty while nobody is suspected.
pub fn diagnose<D: Detector>(monitor: &Monitor<D>) -> Vec<Failure> {
    diagnose_with(monitor, &Lateness::default())
}

/// The same, knowing who was late.
pub fn diagnose_with<D: Detector>(monitor: &Monitor<D>, late: &Lateness) -> Vec<Failure> {
    if monitor.entities().all(|entity| entity.standing != Standing::Suspected) {
        return Vec::new();
    }
    let symptoms: Vec<Symptom> = monitor.entities().map(Symptom::from).collect();
    Node { keeper_ended: monitor.has_keeper_ended(), ..Node::of(&symptoms, late) }.failures()
}

/// The failures that explain `symptoms`, which are in slot order; widest first. Directory entries may be forged: any
/// graph of parents and dependencies is answered.
pub fn diagnose_symptoms(symptoms: &[Symptom]) -> Vec<Failure> {
    diagnose_symptoms_with(symptoms, &Lateness::default())
}

/// The same, knowing who was late.
pub fn diagnose_symptoms_with(symptoms: &[Symptom], late: &Lateness) -> Vec<Failure> {
    Node::of(symptoms, late).failures()
}

impl Symptom {
    fn is_there(&self) -> bool {
        matches!(self.standing, Standing::Trusted | Standing::Idle | Standing::Suspected)
    }

    /// Up to when it may be silent.
    fn overdue(&self) -> Nanos {
        self.last_progress + self.record.deadline
    }
}

#[derive(Clone, Copy)]
struct Node<'a> {
    symptoms: &'a [Symptom],
    late: &'a Lateness,
    /// Whoever keeps the operating system's counters was seen to end.
    keeper_ended: bool,
}

impl<'a> Node<'a> {
    fn of(symptoms: &'a [Symptom], late: &'a Lateness) -> Self {
        Node { symptoms, late, keeper_ended: false }
    }

    fn failures(self) -> Vec<Failure> {
        let systems: Vec<&Symptom> = self.at(FailureLevel::Os).collect();
        let silent: Vec<Slot> = systems.iter().filter(|s| s.standing == Standing::Suspected).map(|s| s.slot).collect();
        let of_system = |cause, sessions| Failure { cause, roots: silent.clone(), sessions, perhaps: Vec::new() };
        let mut failures = Vec::new();
        if !silent.is_empty() {
            let all = silent.len() == systems.len();
            if all && !self.keeper_ended && !self.others_went_on(&systems) {
                let sessions = self.at(FailureLevel::Session).filter(|s| s.is_there()).map(|s| s.slot).collect();
                return vec![of_system(Cause::OperatingSystem, sessions)];
            }
            let cause = if all || self.keeper_ended { Cause::Reporter } else { Cause::Processor };
            failures.push(of_system(cause, Vec::new()));
        }
        let roots = self.roots();
        let (mut sessions, mut doubts) = (self.sessions_by_root(&roots), self.doubts(&roots));
        for (level, cause) in [(FailureLevel::Application, Cause::Application), (FailureLevel::Session, Cause::Session)]
        {
            for root in self.at(level).map(|entity| entity.slot).filter(|slot| roots.contains(slot)) {
                let sessions = sessions.remove(&root).unwrap_or_default().into_iter().collect();
                let perhaps = doubts.remove(&root).unwrap_or_default();
                failures.push(Failure { cause, roots: vec![root], sessions, perhaps });
            }
        }
        self.join_unserved(&mut failures);
        failures
    }

    fn at(self, level: FailureLevel) -> impl Iterator<Item = &'a Symptom> {
        self.symptoms.iter().filter(move |s| s.record.level == level)
    }

    fn get(self, slot: Slot) -> Option<&'a Symptom> {
        // Monitors list entities in slot order.
        self.symptoms.binary_search_by_key(&slot, |s| s.slot).ok().map(|at| &self.symptoms[at])
    }

    /// Whether somebody advanced for long after the operating system's counters stood still. Samples and rhythms
    /// differ a little; half a deadline is no coincidence.
    fn others_went_on(self, systems: &[&Symptom]) -> bool {
        let stood_still = systems.iter().map(|s| s.last_progress).max().unwrap_or(Nanos::ZERO);
        let deadline = systems.iter().map(|s| s.record.deadline).min().unwrap_or(Nanos::ZERO);
        let others = self.symptoms.iter().filter(|s| s.record.level != FailureLevel::Os);
        others.into_iter().any(|s| s.last_progress > stood_still + deadline / 2)
    }

    /// The sessions that lose service by each of `roots`. Everybody is visited once, whatever the directory says, so who
    /// has several roots is counted with the first.
    fn sessions_by_root(self, roots: &BTreeSet<Slot>) -> BTreeMap<Slot, BTreeSet<Slot>> {
        let mut within: BTreeMap<Slot, Vec<Slot>> = BTreeMap::new();
        for session in self.at(FailureLevel::Session).filter(|s| s.is_there()) {
            if let Some(application) = session.record.parent {
                within.entry(application).or_default().push(session.slot);
            }
        }
        let mut waits_for: BTreeMap<Slot, Vec<&Symptom>> = BTreeMap::new();
        for entity in self.symptoms.iter().filter(|s| self.silent_since(s).is_some()) {
            for cause in self.explained_by(entity) {
                waits_for.entry(cause.slot).or_default().push(entity);
            }
        }
        let (mut seen, mut listed) = (roots.clone(), BTreeSet::new());
        let mut of_root = |root: &Slot| {
            let mut sessions = BTreeSet::new();
            let mut next: Vec<&Symptom> = self.get(*root).into_iter().collect();
            while let Some(entity) = next.pop() {
                let lost = match entity.record.level {
                    FailureLevel::Session => vec![entity.slot],
                    FailureLevel::Application => within.remove(&entity.slot).unwrap_or_default(),
                    FailureLevel::Os => Vec::new(),
                };
                sessions.extend(lost.into_iter().filter(|slot| listed.insert(*slot)));
                let waiting = waits_for.remove(&entity.slot).unwrap_or_default();
                next.extend(waiting.into_iter().filter(|s| seen.insert(s.slot)));
            }
            (*root, sessions)
        };
        roots.iter().map(&mut of_root).collect()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const DEADLINE: Nanos = Nanos::from_millis(20);

    pub(super) fn entity(slot: u32, level: FailureLevel, parent: Option<u32>, silent: bool) -> Symptom {
        let mut record = EntityRecord::new("x", level, DEADLINE);
        record.parent = parent.map(Slot);
        let (standing, last_progress) = match silent {
            true => (Standing::Suspected, Nanos::from_millis(100)),
            false => (Standing::Trusted, Nanos::from_millis(140)),
        };
        Symptom { slot: Slot(slot), record, standing, last_progress, progressed: last_progress }
    }

    /// Slot 0: OS; 1, 2: applications; 3, 4: sessions of 1; 5: session of 2.
    pub(super) fn node(silent: &[u32]) -> Vec<Symptom> {
        let entity = |slot, level, parent| entity(slot, level, parent, silent.contains(&slot));
        vec![
            entity(0, FailureLevel::Os, None),
            entity(1, FailureLevel::Application, Some(0)),
            entity(2, FailureLevel::Application, Some(0)),
            entity(3, FailureLevel::Session, Some(1)),
            entity(4, FailureLevel::Session, Some(1)),
            entity(5, FailureLevel::Session, Some(2)),
        ]
    }

    pub(super) fn failure(cause: Cause, roots: &[u32], sessions: &[u32]) -> Failure {
        let slots = |numbers: &[u32]| numbers.iter().copied().map(Slot).collect();
        Failure { cause, roots: slots(roots), sessions: slots(sessions), perhaps: Vec::new() }
    }

    #[test]
    fn a_silent_session_is_a_session_failure() {
        assert_eq!(diagnose_symptoms(&node(&[4])), [failure(Cause::Session, &[4], &[4])]);
    }

    #[test]
    fn a_silent_application_explains_its_sessions() {
        assert_eq!(diagnose_symptoms(&node(&[1, 3])), [failure(Cause::Application, &[1], &[3, 4])]);
    }

    #[test]
    fn a_silent_system_explains_everything() {
        let everything = diagnose_symptoms(&node(&[0, 1, 2, 3, 4, 5]));
        assert_eq!(everything, [failure(Cause::OperatingSystem, &[0], &[3, 4, 5])]);
    }

    #[test]
    fn a_silent_system_whose_applications_go_on_is_a_failed_reporter() {
        assert_eq!(diagnose_symptoms(&node(&[0])), [failure(Cause::Reporter, &[0], &[])]);
    }

    /// Of the same, when whoever keeps the system's counters was seen to end.
    fn without_keeper(symptoms: &[Symptom]) -> Vec<Failure> {
        Node { keeper_ended: true, ..Node::of(symptoms, &Lateness::default()) }.failures()
    }

    #[test]
    fn an_application_that_falls_silent_with_a_dead_reporter_has_failed_by_itself() {
        let reporter = failure(Cause::Reporter, &[0], &[]);
        let all = without_keeper(&node(&[0, 1, 3]));
        assert_eq!(all, [reporter.clone(), failure(Cause::Application, &[1], &[3, 4])]);
        assert_eq!(without_keeper(&node(&[0])), [reporter]);
        assert_eq!(without_keeper(&node(&[4])), [failure(Cause::Session, &[4], &[4])]);
        let mut symptoms = node(&[]);
        symptoms.push(entity(6, FailureLevel::Os, None, true));
        assert_eq!(without_keeper(&symptoms), [failure(Cause::Reporter, &[6], &[])], "the first of its counters");
    }

    proptest::proptest! {
        /// The end of a keeper hides no failure of an application or a session, and invents none.
        #[test]
        fn a_dead_reporter_changes_nothing_for_the_others(silent in proptest::collection::vec(1u32..6, 0..6)) {
            let alone = diagnose_symptoms(&node(&silent));
            let with_system = [vec![0], silent].concat();
            let found = without_keeper(&node(&with_system));
            proptest::prop_assert_eq!(&found[0], &failure(Cause::Reporter, &[0], &[]));
            proptest::prop_assert_eq!(&found[1..], &alone[..]);
        }
    }

    #[test]
    fn one_silent_processor_of_several_is_no_failed_system() {
        let mut symptoms = node(&[]);
        symptoms.push(entity(6, FailureLevel::Os, None, true));
        assert_eq!(diagnose_symptoms(&symptoms), [failure(Cause::Processor, &[6], &[])]);
    }
}
