//! Who is the root among the silent: whose silence nobody else's explains.
//!
//! Entities say what they run in and what they wait for; a failed node's memory may say anything, circles included.

use std::collections::{BTreeMap, BTreeSet};

use super::{Node, Symptom};
use crate::Nanos;
use crate::monitor::Standing;
use crate::progress_box::{FailureLevel, Slot};

/// Number in order of discovery, and the lowest number reached from there; `None` once its circle is closed.
type Visited = BTreeMap<Slot, (usize, Option<usize>)>;

fn reach(visited: &mut Visited, slot: Slot, number: usize) {
    if let Some((_, Some(reached))) = visited.get_mut(&slot) {
        *reached = number.min(*reached);
    }
}

fn close(visited: &mut Visited, slot: Slot) {
    if let Some((_, reached)) = visited.get_mut(&slot) {
        *reached = None;
    }
}

impl<'a> Node<'a> {
    /// Whose failure explains the silence of `entity`, by its own word: its application's if it is a session, and that of
    /// those it waits for.
    pub(super) fn named_by(self, entity: &'a Symptom) -> impl Iterator<Item = &'a Symptom> {
        let parent = entity.record.parent.filter(|_| entity.record.level == FailureLevel::Session);
        let application =
            parent.and_then(|slot| self.get(slot)).filter(|s| s.record.level == FailureLevel::Application);
        let awaited = entity.record.dependencies().filter_map(move |slot| self.get(slot));
        application.into_iter().chain(awaited)
    }

    /// Those of them that are suspected, or were for some of its silence.
    pub(super) fn explained_by(self, entity: &'a Symptom) -> impl Iterator<Item = &'a Symptom> {
        let since = self.silent_since(entity);
        let was_late =
            move |s: &Symptom| self.late.of(s.slot).is_some_and(|late| since.is_some_and(|since| late.until > since));
        self.named_by(entity).filter(move |s| s.standing == Standing::Suspected || was_late(s))
    }

    /// When the silence began for which the entity is suspected, or was the last time; `None` if it never was.
    pub(super) fn silent_since(self, entity: &Symptom) -> Option<Nanos> {
        match entity.standing {
            Standing::Suspected => Some(entity.last_progress),
            _ => self.late.of(entity.slot).map(|late| late.since),
        }
    }

    /// Whom the silence of the suspected leads to, and nobody else's explains: suspected entities, and those who were
    /// late. Of a circle that waits for nobody outside, the one of
    /// the widest level, and there the one in the lowest slot, stands for all.
    ///
    /// Everybody is visited once, in the order of Tarjan's search for strongly connected components, which closes every
    /// circle after those that it waits for: a node may have tens of thousands of entities, and may have forged them.
    pub(super) fn roots(self) -> BTreeSet<Slot> {
        let mut roots = BTreeSet::new();
        let mut visited = Visited::new();
        let mut open: Vec<&Symptom> = Vec::new();
        for start in self.symptoms.iter().filter(|s| s.standing == Standing::Suspected) {
            if visited.contains_key(&start.slot) {
                continue;
            }
            visited.insert(start.slot, (visited.len(), Some(visited.len())));
            open.push(start);
            let mut path = vec![(start, self.explained_by(start), false)];
            while let Some((entity, causes, is_explained)) = path.last_mut() {
                if let Some(cause) = causes.next() {
                    match visited.get(&cause.slot).copied() {
                        // In a circle with everything that is open behind it.
                        Some((number, Some(_))) => reach(&mut visited, entity.slot, number),
                        Some((_, None)) => *is_explained = true,
                        None => {
                            visited.insert(cause.slot, (visited.len(), Some(visited.len())));
                            open.push(cause);
                            path.push((cause, self.explained_by(cause), false));
                        }
                    }
                    continue;
                }
                let (slot, mut is_explained) = (entity.slot, *is_explained);
                path.pop();
                let (number, reached) = visited[&slot];
                if reached == Some(number) {
                    let first = open.iter().rposition(|s| s.slot == slot).unwrap_or(0);
                    let circle = open.split_off(first);
                    circle.iter().for_each(|s| close(&mut visited, s.slot));
                    let stands_for_all = circle.iter().min_by_key(|s| (s.record.level, s.slot));
                    roots.extend(stands_for_all.filter(|_| !is_explained).map(|s| s.slot));
                    is_explained = true;
                } else if let (Some(reached), Some((parent, ..))) = (reached, path.last()) {
                    reach(&mut visited, parent.slot, reached);
                }
                if let Some((.., parent_is_explained)) = path.last_mut() {
                    *parent_is_explained |= is_explained;
                }
            }
        }
        roots
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::tests::{entity, failure, node};
    use super::super::{Cause, Lateness, diagnose_symptoms};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn who_waits_for_another_silent_one_is_not_the_root() {
        let mut symptoms = node(&[1, 2]);
        symptoms[1].record = symptoms[1].record.depending_on(Slot(2));
        assert_eq!(
            diagnose_symptoms(&symptoms),
            [failure(Cause::Application, &[2], &[3, 4, 5])],
            "and its client's sessions have no service"
        );
    }

    #[test]
    fn a_circle_of_waiting_has_one_root() {
        let mut symptoms = node(&[1, 2]);
        symptoms[1].record = symptoms[1].record.depending_on(Slot(2));
        symptoms[2].record = symptoms[2].record.depending_on(Slot(1));
        let failures = diagnose_symptoms(&symptoms);
        assert_eq!(failures.iter().flat_map(|f| &f.roots).collect::<Vec<_>>(), [&Slot(1)]);
    }

    #[test]
    fn a_circle_that_waits_for_somebody_outside_has_no_root() {
        let mut symptoms = node(&[1, 2]);
        symptoms.push(entity(6, FailureLevel::Application, Some(0), true));
        symptoms[1].record = symptoms[1].record.depending_on(Slot(2));
        symptoms[2].record = symptoms[2].record.depending_on(Slot(1)).depending_on(Slot(6));
        assert_eq!(diagnose_symptoms(&symptoms), [failure(Cause::Application, &[6], &[3, 4, 5])]);
    }

    #[test]
    fn an_application_that_waits_for_its_own_session_has_failed() {
        let mut symptoms = node(&[1, 3]);
        symptoms[1].record = symptoms[1].record.depending_on(Slot(3));
        assert_eq!(diagnose_symptoms(&symptoms), [failure(Cause::Application, &[1], &[3, 4])]);
    }

    #[test]
    fn a_long_chain_of_waiting_is_followed_in_time() {
        const LENGTH: u32 = 1 << 16;
        let silent = |slot| entity(slot, FailureLevel::Application, None, true);
        let mut symptoms: Vec<Symptom> = (0..LENGTH).map(silent).collect();
        for slot in 0..LENGTH - 1 {
            let record = &mut symptoms[slot as usize].record;
            *record = record.depending_on(Slot(slot + 1)).depending_on(Slot(LENGTH - 1));
        }
        assert_eq!(diagnose_symptoms(&symptoms), [failure(Cause::Application, &[LENGTH - 1], &[])]);
    }

    /// Who can be reached only by those whom it reaches itself, and comes first among them.
    fn roots_by_definition(node: Node<'_>) -> BTreeSet<Slot> {
        let reached_from = |entity: &Symptom| {
            let mut reached = BTreeSet::new();
            let mut next: Vec<Slot> = node.explained_by(node.get(entity.slot).unwrap()).map(|s| s.slot).collect();
            while let Some(slot) = next.pop() {
                if reached.insert(slot) {
                    next.extend(node.explained_by(node.get(slot).unwrap()).map(|s| s.slot));
                }
            }
            reached
        };
        let rank = |slot: Slot| node.get(slot).map(|s| (s.record.level, s.slot));
        let is_root = |entity: &Symptom| {
            let comes_first = |other: &Slot| {
                reached_from(node.get(*other).unwrap()).contains(&entity.slot) && rank(entity.slot) <= rank(*other)
            };
            entity.standing == Standing::Suspected && reached_from(entity).iter().all(comes_first)
        };
        node.symptoms.iter().filter(|s| is_root(s)).map(|s| s.slot).collect()
    }

    proptest! {
        #[test]
        fn any_graph_is_answered_and_every_root_was_silent(
            silent in proptest::collection::vec(0u32..8, 0..8),
            edges in proptest::collection::vec((0usize..6, 0u32..10), 0..20),
            parents in proptest::collection::vec(proptest::option::of(0u32..10), 6),
        ) {
            let mut symptoms = node(&silent);
            for (from, to) in edges {
                symptoms[from].record = symptoms[from].record.depending_on(Slot(to));
            }
            for (symptom, parent) in symptoms.iter_mut().zip(parents) {
                symptom.record.parent = parent.map(Slot);
            }
            let mut sessions = BTreeSet::new();
            for failure in diagnose_symptoms(&symptoms) {
                // But for the application whose sessions are silent.
                let was_silent = |root: &Slot| silent.contains(&root.0) || failure.cause == Cause::NotServing;
                prop_assert!(failure.roots.iter().all(was_silent));
                prop_assert!(failure.perhaps.iter().all(|doubt| !silent.contains(&doubt.0)));
                prop_assert!(failure.sessions.is_sorted());
                prop_assert!(failure.sessions.into_iter().all(|slot| sessions.insert(slot)), "each once");
            }
            let late = Lateness::default();
            let node = Node::of(&symptoms, &late);
            prop_assert_eq!(node.roots(), roots_by_definition(node));
        }
    }
}
