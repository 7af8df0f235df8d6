//! From a failure to a plan: which sessions to carry on elsewhere, and what else to do at the node.

use crate::Nanos;
use crate::detector::Detector;
use crate::diagnosis::{Cause, Failure};
use crate::monitor::Monitor;
use crate::progress_box::{EntityRecord, Slot};

/// What a failure asks for besides moving sessions (paper, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeAction {
    /// Nothing: only one session is affected, or nobody's service.
    None,
    /// Restart the failed application.
    RestartApplication(Slot),
    /// Reboot the node.
    RebootNode,
    /// Offer it no sessions, and keep its clients from it, for so long.
    ExcludeNode(Nanos),
}

/// A session that lost service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionToRecover {
    /// Its place in the Progress Box.
    pub slot: Slot,
    /// What the directory says of it: its number, its State Box.
    pub record: EntityRecord,
}

/// What to do about one failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryPlan {
    /// What failed.
    pub cause: Cause,
    /// Sessions with a State Box, to be extracted and carried on elsewhere.
    pub recoverable: Vec<SessionToRecover>,
    /// Sessions without one, which end with the failure.
    pub lost: Vec<SessionToRecover>,
    /// What else to do at the node.
    pub action: NodeAction,
}

/// The plan for `failure`, a diagnosis of `monitor`'s node.
pub fn plan<D: Detector>(monitor: &Monitor<D>, failure: &Failure) -> RecoveryPlan {
    let (recoverable, lost) = monitor
        .entities()
        .filter(|entity| failure.sessions.binary_search(&entity.slot).is_ok())
        .map(|entity| SessionToRecover { slot: entity.slot, record: *entity.record })
        .partition(|session| session.record.state_box.is_some());
    let action = match (failure.cause, failure.roots.first()) {
        (Cause::OperatingSystem, _) => NodeAction::RebootNode,
        (Cause::Application | Cause::NotServing, Some(root)) => NodeAction::RestartApplication(*root),
        _ => NodeAction::None,
    };
    RecoveryPlan { cause: failure.cause, recoverable, lost, action }
}
