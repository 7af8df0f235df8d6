//! Who looks well and may be the root all the same.
//!
//! Counters can't tell everything. A root that says whom it waits for may have hung by itself, or wait for somebody who
//! failed without showing it (paper, section 4.1: idleness and failure look alike; a disk's error shows in the
//! application). Two cases can be named, and are, as a doubt beside the root that is there to be seen:
//!
//! * **Idle in appearance.** Whoever is waited for says that it has nothing to do, and has not moved since the root should
//!   have: it may have hung before it took the root's request. Not if its pending work is counted by somebody else, and
//!   there is none.
//! * **Shared.** Two roots or more wait for the same one, and nobody who waits for it makes progress: it may answer
//!   everybody with errors.

use std::collections::{BTreeMap, BTreeSet};

use super::{Node, Symptom};
use crate::monitor::Standing;
use crate::progress_box::Slot;

/// Of those who wait for somebody.
#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    roots: usize,
    well: usize,
}

impl<'a> Node<'a> {
    /// For each of `roots`, in slot order, who may be the root instead.
    pub(super) fn doubts(self, roots: &BTreeSet<Slot>) -> BTreeMap<Slot, Vec<Slot>> {
        let mut waiting: BTreeMap<Slot, Waiting> = BTreeMap::new();
        for entity in self.symptoms {
            for awaited in self.awaited_by(entity) {
                let waiting = waiting.entry(awaited.slot).or_default();
                waiting.roots += usize::from(roots.contains(&entity.slot));
                waiting.well += usize::from(entity.standing == Standing::Trusted && !roots.contains(&entity.slot));
            }
        }
        let is_shared = |slot| waiting.get(&slot).is_some_and(|w: &Waiting| w.roots > 1 && w.well == 0);
        let doubts_of = |root: &'a Symptom| {
            let overdue = root.overdue();
            let looks_idle = move |s: &Symptom| {
                s.standing == Standing::Idle && s.last_progress <= overdue && s.record.pending.is_none()
            };
            let looks_well = |s: &&Symptom| matches!(s.standing, Standing::Idle | Standing::Trusted);
            let perhaps = self.awaited_by(root).filter(looks_well).filter(|s| !roots.contains(&s.slot));
            perhaps.filter(|s| looks_idle(s) || is_shared(s.slot)).map(|s| s.slot).collect()
        };
        roots.iter().filter_map(|slot| Some((*slot, doubts_of(self.get(*slot)?)))).collect()
    }

    /// Those it says it waits for, each once.
    fn awaited_by(self, entity: &'a Symptom) -> impl Iterator<Item = &'a Symptom> {
        let slots: BTreeSet<Slot> = entity.record.dependencies().filter(|slot| *slot != entity.slot).collect();
        slots.into_iter().filter_map(move |slot| self.get(slot))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::tests::node;
    use super::super::{Failure, diagnose_symptoms};
    use super::*;
    use crate::Nanos;

    fn perhaps(symptoms: &[Symptom]) -> Vec<Vec<u32>> {
        let slots = |failure: &Failure| failure.perhaps.iter().map(|slot| slot.0).collect();
        diagnose_symptoms(symptoms).iter().map(slots).collect()
    }

    #[test]
    fn whoever_is_waited_for_and_says_it_is_idle_may_be_the_root() {
        let mut symptoms = node(&[1]);
        symptoms[1].record = symptoms[1].record.depending_on(Slot(2));
        assert_eq!(perhaps(&symptoms), [[0; 0]], "it works");
        symptoms[2].standing = Standing::Idle;
        assert_eq!(perhaps(&symptoms), [[0; 0]], "it moved after the root should have");
        symptoms[2].last_progress = Nanos::from_millis(110);
        assert_eq!(perhaps(&symptoms), [[2]]);
        symptoms[2].record.pending = Some(0);
        assert_eq!(perhaps(&symptoms), [[0; 0]], "nothing waits for it, by somebody else's word");
    }

    #[test]
    fn whoever_is_waited_for_by_all_the_roots_may_be_the_one() {
        let mut symptoms = node(&[1, 2]);
        for client in [1, 2] {
            symptoms[client].record = symptoms[client].record.depending_on(Slot(5)).depending_on(Slot(5));
        }
        assert_eq!(perhaps(&symptoms), [[5], [5]]);
        symptoms[4].record = symptoms[4].record.depending_on(Slot(5));
        assert_eq!(perhaps(&symptoms), [[0; 0], [0; 0]], "somebody who waits for it goes on");
        symptoms[2].standing = Standing::Trusted;
        symptoms[4].record = symptoms[3].record;
        assert_eq!(perhaps(&symptoms), [[0; 0]], "one alone may well have hung by itself");
    }
}
