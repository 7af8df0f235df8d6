//! What a fault does to a node, and what its repair undoes.

use backdoor_core::Nanos;
use backdoor_core::progress_box::{FailureLevel, Slot};

use super::memory::damage;
use super::node::Node;
use super::{Agenda, What};
use crate::faults::{ApplicationFault, Failure, OsFault};

impl Node {
    /// The next fault strikes.
    pub(super) fn strike(&mut self, agenda: &mut Agenda<'_>) {
        let now = agenda.now();
        let draw = self.plan.draw();
        let repair_at = now + draw.repair_after;
        if let Some(at) = self.plan.next(now, repair_at) {
            agenda.at(at, What::Strike);
        }
        let victim = |count: usize| (draw.victim % count.max(1) as u64) as usize;
        let (roots, affected) = match draw.level {
            FailureLevel::Os => {
                if self.cpu.is_frozen() {
                    return;
                }
                match self.plan.options.os {
                    OsFault::Freeze => {
                        self.cpu.freeze(now);
                        (self.slots.os().collect(), (0..self.slots.count()).collect())
                    }
                    OsFault::HungProcessor => {
                        // Each has a counter of its own, and one more counter migrates.
                        let core = victim(self.slots.os().len() - 1);
                        if self.cpu.is_hung(core) || self.cpu.hang_core(now, core).is_err() {
                            return;
                        }
                        let root = self.slots.os().start + core;
                        let mut affected = self.slots_stuck();
                        affected.push(root);
                        affected.sort_unstable();
                        affected.dedup();
                        (vec![root], affected)
                    }
                }
            }
            FailureLevel::Application => {
                let index = victim(self.applications.len());
                if self.cpu.is_frozen() || self.applications[index].failed {
                    return;
                }
                self.applications[index].failed = true;
                self.apply_stops(index, now);
                let root = self.slots.application(index);
                let sessions = index * self.work.sessions..(index + 1) * self.work.sessions;
                let sessions = sessions.map(|session| self.slots.session(session));
                match self.plan.options.application {
                    ApplicationFault::Stop => (vec![root], std::iter::once(root).chain(sessions).collect()),
                    ApplicationFault::Livelock => (sessions.clone().collect(), sessions.collect()),
                }
            }
            FailureLevel::Session => {
                let index = victim(self.sessions.len());
                let application = index / self.work.sessions;
                if self.cpu.is_frozen() || self.applications[application].failed || self.sessions[index].stuck {
                    return;
                }
                self.sessions[index].stuck = true;
                self.apply_stops(application, now);
                (vec![self.slots.session(index)], vec![self.slots.session(index)])
            }
        };
        let at_once = draw.level != FailureLevel::Session || self.sessions[victim(self.sessions.len())].pending > 0;
        self.damage_boxes(&affected);
        let slots = |list: Vec<usize>| list.into_iter().map(|index| Slot(index as u32)).collect();
        self.failures.push(Failure {
            level: draw.level,
            struck: now,
            effective: at_once.then_some(now),
            repaired: None,
            roots: slots(roots),
            affected: slots(affected),
        });
        if repair_at < Nanos::MAX {
            agenda.at(repair_at, What::Repair(self.failures.len() as u32 - 1));
        }
    }

    /// The first request comes to a session whose handler got stuck while it was idle.
    pub(super) fn takes_effect(&mut self, slot: usize, now: Nanos) {
        let open = |f: &&mut Failure| f.repaired.is_none() && f.effective.is_none();
        if let Some(failure) = self.failures.iter_mut().filter(open).find(|f| f.roots == [Slot(slot as u32)]) {
            failure.effective = Some(now);
        }
    }

    /// A failure is mended.
    pub(super) fn repair(&mut self, failure: usize, agenda: &mut Agenda<'_>) {
        let now = agenda.now();
        let failure = &mut self.failures[failure];
        failure.repaired = Some(now);
        let root = failure.roots.first().map_or(0, |slot| slot.index());
        match failure.level {
            FailureLevel::Os => match self.plan.options.os {
                OsFault::Freeze => {
                    self.take_in_kept_requests();
                    self.cpu.thaw(now);
                }
                OsFault::HungProcessor => {
                    // It was one of this machine's when it began to hang.
                    let _ = self.cpu.resume_core(now, root - self.slots.os().start);
                }
            },
            FailureLevel::Application => {
                let index = match self.plan.options.application {
                    ApplicationFault::Stop => root - self.slots.application(0),
                    ApplicationFault::Livelock => (root - self.slots.session(0)) / self.work.sessions,
                };
                self.applications[index].failed = false;
                self.apply_stops(index, now);
            }
            FailureLevel::Session => {
                let index = root - self.slots.session(0);
                self.sessions[index].stuck = false;
                self.apply_stops(index / self.work.sessions, now);
            }
        }
    }

    /// `affected` is in order.
    fn damage_boxes(&mut self, affected: &[usize]) {
        let Some(bytes) = self.work.state_bytes else { return };
        for index in 0..self.memory.boxes.len() {
            if affected.binary_search(&self.slots.session(index)).is_ok()
                && let Some(bit) = self.plan.damage(bytes)
            {
                damage(&self.memory.boxes[index], bit);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use backdoor_core::monitor::Monitor;
    use backdoor_core::progress_box::EntityState;

    use super::*;
    use crate::cluster::Scenario;
    use crate::cluster::world::World;
    use crate::dist::Dist;
    use crate::faults::{Arrivals, FaultOptions};
    use crate::streams::{StreamKey, Streams};

    #[test]
    fn requests_that_came_during_a_freeze_are_taken_in_by_the_thaw() {
        let mut scenario = Scenario { duration: Nanos::from_secs(2), ..Scenario::default() };
        scenario.faults = FaultOptions {
            arrivals: Arrivals::Once { at: Nanos::from_secs(1) },
            repair_after: Some(Dist::constant(Nanos::from_millis(200))),
            ..FaultOptions::default()
        }
        .at_level(FailureLevel::Os);
        let config = scenario.monitor;
        let streams = Streams::new(StreamKey { seed: 1, experiment: "", point: "", replication: 0 });
        let mut world = World::new(&scenario, &streams, |key| Monitor::by_deadline(config, key)).unwrap();
        let says = |node: &Node, session: usize| node.memory.counters[node.slots.session(session)].liveness().state();
        let waiting = |node: &Node| -> Vec<EntityState> {
            let sessions = (0..node.sessions.len()).filter(|s| node.sessions[*s].pending > 0);
            sessions.map(|session| says(node, session)).collect()
        };
        let mut frozen = Vec::new();
        while world.next().is_some() {
            let node = &world.nodes[0];
            match node.failures.first() {
                Some(failure) if failure.repaired.is_some() => break,
                Some(_) => frozen = waiting(node),
                None => {}
            }
        }
        let thawed = waiting(&world.nodes[0]);
        assert!(frozen.contains(&EntityState::Idle), "a frozen kernel takes nothing in: {frozen:?}");
        assert!(thawed.len() > 2 && thawed.iter().all(|state| *state == EntityState::Active), "{thawed:?}");
    }
}
