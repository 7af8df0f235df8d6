//! Recovery: what to do about a failure, and how to get the sessions' state out of the failed node.
//!
//! [`plan`] turns a diagnosis into what is to be done; [`Extraction`] then READs the State Boxes of the affected
//! sessions, any number of them through a bounded window of buffers, and hands out every session's last committed state
//! or the reason why there is none. Whether sessions are to be carried on elsewhere at all, or their application started
//! anew where it was, [`policy`] decides. Like the monitor it has neither clock nor I/O of its own: the same code empties a
//! simulated node, a shared memory, and a real one.

mod extraction;
mod plan;
pub mod policy;

pub use extraction::{Answer, Extraction, ExtractionConfig, ExtractionStats, SessionState, StateError};
pub use plan::{NodeAction, RecoveryPlan, SessionToRecover, plan};
