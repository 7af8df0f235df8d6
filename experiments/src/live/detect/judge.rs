//! Who is to be suspected after a failure, who was, and when.

use std::collections::HashSet;

use backdoor_core::Nanos;

use crate::live::notice::{Entity, Notice, Recovery, What};
use crate::live::parts::session_name;

/// Whom a failure hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hit {
    /// The worker and all its sessions.
    Worker,
    /// All sessions of the worker, which goes on itself.
    Service,
    /// The session of this client.
    Session(u64),
    /// Everything on the node.
    Node,
    /// The way there. Everybody is well, and nobody is to be suspected.
    Link,
}

/// A failure that was made. Instants are of the clock that the monitor's notices are of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) at: Nanos,
    /// How far off that may be.
    pub(super) clock_error: Nanos,
    /// How long it took to make it, where that can be told.
    pub(super) injection: Option<Nanos>,
    pub(super) hit: Hit,
}

/// What a verdict rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// A suspicion: counters stand still in memory that can be read.
    Suspicion,
    /// The node can't be reached.
    Unreachable,
    /// This machine's own card or link has failed.
    LocalFault,
}

impl Sign {
    /// What broke the channel, as it is called in files; empty if nothing did.
    pub(super) const fn of_channel(self) -> &'static str {
        match self {
            Sign::Suspicion => "",
            Sign::Unreachable => "unreachable",
            Sign::LocalFault => "local_fault",
        }
    }
}

/// What there is to judge by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence<'a> {
    /// The worker's process.
    pub(super) worker: u64,
    /// Processes of earlier workers. What is said of those is no news.
    pub(super) past: &'a HashSet<u64>,
    /// When the run began.
    pub(super) began: Nanos,
    pub(super) notices: &'a [Notice],
}

impl<'a> Evidence<'a> {
    /// When the monitor came to the verdict that lasts, and what it rests on. For a worker or a session it is a
    /// suspicion; for a service, the first of one of its sessions. A node is found out by a suspicion of its operating
    /// system (its counters stand still, and its memory can be read), or by being unreachable; a broken link by a broken
    /// channel.
    pub(super) fn detection(&self, fault: Fault) -> Option<(Nanos, Sign)> {
        let mut since = None;
        let mut suspected = HashSet::new();
        let mut lost = None;
        for notice in self.notices {
            match &notice.what {
                What::Suspected { entity, .. } if self.is_target(entity, fault.hit) => {
                    suspected.insert((entity.slot, entity.generation));
                }
                What::Trusted { entity, .. } | What::Left { entity } if self.is_target(entity, fault.hit) => {
                    suspected.remove(&(entity.slot, entity.generation));
                }
                What::ChannelLost { kind, .. } => {
                    lost = match (kind.as_str(), fault.hit) {
                        ("unreachable", Hit::Node | Hit::Link) => Some(Sign::Unreachable),
                        // Two cards on one cable see the link of the other go down as their own.
                        ("local_fault", Hit::Link) => Some(Sign::LocalFault),
                        _ => lost,
                    };
                }
                What::ChannelRestored => lost = None,
                _ => continue,
            }
            let sign = lost.or((!suspected.is_empty()).then_some(Sign::Suspicion));
            since = match sign {
                None => None,
                // What came first stands for as long as there is anything.
                Some(sign) => since.or(Some((Nanos(notice.at_ns), sign))),
            };
        }
        since
    }

    /// The diagnosis after the detection: with what failed as its root or, if not `exact`, whatever came last.
    pub(super) fn explanation(&self, fault: Fault, exact: bool) -> Option<(&'a str, Option<&'a Recovery>)> {
        let (detected, _) = self.detection(fault)?;
        let after = self.notices.iter().rev().filter(|notice| notice.at_ns >= detected.0);
        after.into_iter().find_map(|notice| match &notice.what {
            What::Failure { cause, roots, recovery, .. }
                if !exact || roots.iter().any(|root| self.is_root(root, fault.hit)) =>
            {
                Some((cause.as_str(), recovery.as_ref()))
            }
            _ => None,
        })
    }

    /// Whether all has been said of a failure that is to be waited for.
    pub(super) fn is_complete(&self, fault: Fault) -> bool {
        match self.detection(fault) {
            None => false,
            // Nothing can be read, so nothing is diagnosed.
            Some((_, Sign::Unreachable | Sign::LocalFault)) => true,
            Some((_, Sign::Suspicion)) => self.explanation(fault, true).is_some(),
        }
    }

    /// Suspicions of those who had not failed: operating system, applications, sessions.
    pub(super) fn false_positives(&self, fault: Option<Fault>) -> [u64; 3] {
        let mut count = [0; 3];
        for notice in self.notices {
            if let What::Suspected { entity, .. } = &notice.what
                && self.is_false(Nanos(notice.at_ns), entity, fault)
            {
                let level = ["os", "application", "session"].iter().position(|level| *level == entity.level);
                count[level.unwrap_or(0)] += 1;
            }
        }
        count
    }

    pub(super) fn is_ours(&self, entity: &Entity) -> bool {
        entity.process == self.worker
    }

    /// Whether the suspicion of the entity is the one that is waited for.
    fn is_target(&self, entity: &Entity, hit: Hit) -> bool {
        match hit {
            Hit::Worker => self.is_ours(entity) && entity.level == "application",
            Hit::Service => self.is_ours(entity) && entity.level == "session",
            Hit::Session(client) => self.is_ours(entity) && entity.name == session_name(client),
            Hit::Node => entity.level == "os",
            Hit::Link => false,
        }
    }

    /// Whether the entity is the one that a right diagnosis names.
    fn is_root(&self, entity: &Entity, hit: Hit) -> bool {
        // By itself, no session that is not served tells that none is.
        let hit = if hit == Hit::Service { Hit::Worker } else { hit };
        self.is_target(entity, hit)
    }

    fn is_false(&self, at: Nanos, entity: &Entity, fault: Option<Fault>) -> bool {
        let failed = fault.is_some_and(|fault| {
            let affected = match fault.hit {
                Hit::Worker => self.is_ours(entity),
                Hit::Service | Hit::Session(_) => self.is_target(entity, fault.hit),
                Hit::Node => true,
                Hit::Link => false,
            };
            at >= fault.at && affected
        });
        at >= self.began && !failed && !self.past.contains(&entity.process)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backdoor_core::progress_box::{EntityRecord, FailureLevel, Slot};

    const WORKER: u64 = 7;

    fn entity(slot: u32, level: FailureLevel, name: &str) -> Entity {
        let mut entity = Entity::new(Slot(slot), &EntityRecord::new(name, level, Nanos(1)));
        entity.process = if level == FailureLevel::Os { 1 } else { WORKER };
        entity
    }

    fn os() -> Entity {
        entity(0, FailureLevel::Os, "os")
    }

    fn session() -> Entity {
        entity(2, FailureLevel::Session, "client 1")
    }

    fn suspected(entity: Entity) -> What {
        What::Suspected { entity, silence_ns: 1 }
    }

    fn lost(kind: &str) -> What {
        What::ChannelLost { kind: kind.into(), error: String::new() }
    }

    /// Detection, and false positives, after a failure at 100; notices come at 10, 20, …, 110, 120, ….
    fn judged(hit: Hit, before: &[What], after: &[What]) -> (Option<(u64, Sign)>, [u64; 3]) {
        let at = |from: u64| (1..).map(move |n| from + 10 * n);
        let notices = at(0).zip(before).chain(at(100).zip(after));
        let notices: Vec<Notice> = notices.map(|(at_ns, what)| Notice { at_ns, what: what.clone() }).collect();
        let past = HashSet::new();
        let evidence = Evidence { worker: WORKER, past: &past, began: Nanos(1), notices: &notices };
        let fault = Fault { at: Nanos(100), clock_error: Nanos::ZERO, injection: None, hit };
        let detection = evidence.detection(fault).map(|(at, sign)| (at.0, sign));
        (detection, evidence.false_positives(Some(fault)))
    }

    #[test]
    fn a_node_is_found_out_by_its_system_or_its_silence() {
        let after = [suspected(session()), suspected(os()), lost("unreachable")];
        assert_eq!(judged(Hit::Node, &[], &after), (Some((120, Sign::Suspicion)), [0; 3]));
        assert_eq!(judged(Hit::Node, &[], &[lost("unreachable")]), (Some((110, Sign::Unreachable)), [0; 3]));
        assert_eq!(judged(Hit::Node, &[], &[lost("local_fault"), lost("flushed")]), (None, [0; 3]));
        let restored = [lost("unreachable"), What::ChannelRestored];
        assert_eq!(judged(Hit::Node, &[], &restored), (None, [0; 3]));
    }

    #[test]
    fn behind_a_broken_link_nobody_is_to_be_suspected() {
        let after = [lost("local_fault"), suspected(session()), suspected(os())];
        assert_eq!(judged(Hit::Link, &[], &after), (Some((110, Sign::LocalFault)), [1, 0, 1]));
        assert_eq!(judged(Hit::Link, &[], &[suspected(os())]), (None, [1, 0, 0]));
    }

    #[test]
    fn a_suspicion_before_the_failure_is_wrong_at_every_level() {
        let before = [suspected(session()), suspected(os())];
        assert_eq!(judged(Hit::Node, &before, &[]), (Some((20, Sign::Suspicion)), [1, 0, 1]));
        assert_eq!(judged(Hit::Worker, &before, &[]), (None, [1, 0, 1]));
    }

    #[test]
    fn a_service_is_found_out_by_its_sessions_and_diagnosed_as_a_whole() {
        let worker = entity(1, FailureLevel::Application, "worker");
        let after = [suspected(session()), suspected(worker.clone())];
        let judged = judged(Hit::Service, &[suspected(session())], &after);
        assert_eq!(judged, (Some((10, Sign::Suspicion)), [0, 1, 1]), "the worker itself goes on");
        let diagnosed = |root: Entity| {
            let (cause, action) = ("c".into(), "none".into());
            let failure =
                What::Failure { cause, roots: vec![root], sessions: 1, recoverable: 1, action, recovery: None };
            let notices = [suspected(session()), failure].map(|what| Notice { at_ns: 110, what });
            let past = HashSet::new();
            let evidence = Evidence { worker: WORKER, past: &past, began: Nanos(1), notices: &notices };
            let fault = Fault { at: Nanos(100), clock_error: Nanos::ZERO, injection: None, hit: Hit::Service };
            evidence.is_complete(fault)
        };
        assert!(diagnosed(worker) && !diagnosed(session()));
    }

    #[test]
    fn a_broken_channel_is_no_suspicion_of_a_worker() {
        let worker = entity(1, FailureLevel::Application, "worker");
        let after = [lost("unreachable"), suspected(worker.clone())];
        assert_eq!(judged(Hit::Worker, &[], &after).0.map(|(at, _)| at), Some(120));
        let withdrawn = [suspected(worker.clone()), What::Trusted { entity: worker, silence_ns: 1 }];
        assert_eq!(judged(Hit::Worker, &[], &withdrawn), (None, [0; 3]));
        assert_eq!(judged(Hit::Session(1), &[], &[suspected(session()), suspected(os())]).1, [1, 0, 0]);
    }
}
