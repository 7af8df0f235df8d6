//! What came of a recovery, session by session.

use backdoor_core::Nanos;
use backdoor_core::diagnosis::Cause;
use backdoor_core::progress_box::FailureLevel;
use backdoor_core::recovery::{ExtractionStats, NodeAction, StateError};

use super::rescue::Marks;

/// When a session's recovery reached each of its steps; each span begins where the one before ends. Those that a remedy
/// doesn't have are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// From the failure's effect to the first suspicion.
    pub detection: Nanos,
    /// To the plan: until the diagnosis is settled.
    pub planning: Nanos,
    /// To the claim that can't be given back.
    pub claiming: Nanos,
    /// To the old owner's being cut off.
    pub fencing: Nanos,
    /// To the session's state being here.
    pub extraction: Nanos,
    /// To the session being ready to serve again; with a restart, from the plan or the fence on.
    pub reinstatement: Nanos,
    /// To its being the target's.
    pub taking: Nanos,
    /// To its first request served there.
    pub first_service: Nanos,
}

impl Timeline {
    /// Time without service: all but the first request's own.
    pub fn outage(&self) -> Nanos {
        let Timeline { detection, planning, claiming, fencing, extraction, reinstatement, taking, .. } = *self;
        detection + planning + claiming + fencing + extraction + reinstatement + taking
    }

    /// From when the failure took effect, was noticed, and planned for, and what happened then.
    pub(super) fn new([failed, detected, planned]: [Nanos; 3], marks: &Marks) -> Option<Self> {
        let (restored, served) = (marks.restored?, marks.served?);
        let mut last = planned;
        let mut to = |mark: Option<Nanos>| {
            let mark = mark.unwrap_or(last);
            mark - std::mem::replace(&mut last, mark)
        };
        Some(Timeline {
            detection: detected - failed,
            planning: planned - detected,
            claiming: to(marks.claimed),
            fencing: to(marks.fenced),
            extraction: to(marks.extracted),
            // Who has no swap to make is ready when it is restored.
            reinstatement: to(marks.prepared.or(marks.restored)),
            taking: to(marks.restored),
            first_service: served - restored,
        })
    }
}

/// What became of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionFate {
    /// It goes on elsewhere.
    Saved {
        /// How long that took.
        timeline: Timeline,
        /// Whether its state is, byte for byte, what it had committed last. A backup's is: it was told before the answer.
        intact: bool,
    },
    /// Its client has another session, without the state.
    Renewed {
        /// How long that took.
        timeline: Timeline,
    },
    /// It keeps no State Box.
    NoStateBox,
    /// Its State Box gave no state.
    NoState(StateError),
    /// The diagnosis did not count it among the affected, or the run ended first.
    Overlooked,
}

/// One session that lost service, by the failure or by its being taken over with the others of its node. Of the latter,
/// only the spans of the timeline from the plan on mean anything, and its requests are not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOutcome {
    /// Session number.
    pub session: u64,
    /// What became of it.
    pub fate: SessionFate,
    /// Bytes of state recovered.
    pub state_bytes: u64,
    /// Requests that were answered after the last commit: their effects are lost.
    pub requests_lost: u64,
    /// Requests that had come and were not answered when the recovery ended: to be sent again by their clients, or
    /// replayed from the channel's state.
    pub requests_waiting: u64,
}

/// What one recovery came to.
#[derive(Clone, Debug, PartialEq)]
pub struct RecoveryOutcome {
    /// When the failure took effect; `None`: not before the end of the run (a session that got no request).
    pub effective: Option<Nanos>,
    /// From then to the first suspicion of something that it affects.
    pub detection: Option<Nanos>,
    /// What was diagnosed.
    pub causes: Vec<Cause>,
    /// What else is to be done at the node.
    pub actions: Vec<NodeAction>,
    /// Suspicions before the failure.
    pub false_alarms: u64,
    /// The sessions that lost service, in order.
    pub sessions: Vec<SessionOutcome>,
    /// Sessions that had not failed and were ended by the remedy.
    pub interrupted: u64,
    /// What the READs of State Boxes cost.
    pub extraction: ExtractionStats,
}

impl RecoveryOutcome {
    /// Sessions that go on elsewhere.
    pub fn saved(&self) -> usize {
        self.sessions.iter().filter(|s| matches!(s.fate, SessionFate::Saved { .. })).count()
    }
    /// Sessions that don't. Restarting what failed without State Boxes loses all of them.
    pub fn lost(&self) -> usize {
        self.sessions.len() - self.saved()
    }
    /// Whether the diagnosis was the failure's level, and nothing else.
    pub fn diagnosed_right(&self, level: FailureLevel) -> bool {
        matches!(self.causes[..], [cause] if cause.level() == Some(level))
    }
}
