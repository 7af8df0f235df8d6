//! Failure detectors: from observed progress to trust or suspicion.
//!
//! A detector watches one progress counter, or the heartbeats of one sender. It is told of each progress, and answers up
//! to when the entity is to be trusted without any further: the *freshness point* of Chen, Toueg and Aguilera (2002). All
//! detectors that take silence for failure have one, and a monitor of thousands of counters then compares one number
//! per poll instead of asking each of them.
//!
//! | detector | trusts for | source |
//! |---|---|---|
//! | [`DeadlineDetector`] | a fixed time after each progress | the paper |
//! | [`Sfd`] | the same, and ignores heartbeats that were slow | Chen et al., section 1.2.1 |
//! | [`NfdS`] | up to fixed points on the sender's clock | Chen et al., section 3 |
//! | [`NfdU`] | up to fixed points after known expected arrivals | Chen et al., section 6 |
//! | [`NfdE`] | the same, with expected arrivals that are estimated | Chen et al., section 6 |
//! | [`TwoWindows`] | the later of two such estimates, of a short and a long window | 2W-FD, IPDPS 2015 |
//! | [`Bertier`] | an estimated arrival and a margin that follows the estimate's errors | Bertier et al., DSN 2002 |
//! | [`PhiNormal`], [`PhiExponential`] | until the silence has become too improbable | φ-accrual, SRDS 2004; Cassandra |
//! | [`Satzger`] | until the silence is longer than most recent ones | Satzger et al. 2007 |
//! | [`PullScore`] | until too many polls in a row found nothing | Mu, OSDI 2020 |
//! | [`Duty`] | a fixed time of the node's own clock after each progress, and as long as nothing is owed | ours |
//!
//! # What a detector is told
//! - **Lost** heartbeats: nothing. The next one's number tells how many were lost, to those who ask for it.
//! - **Late** ones: like every other; [`NfdS`] and its kin may then answer a freshness point that has passed already, and
//!   the entity stays suspected.
//! - **Stale** ones, whose number is not above every earlier one: they are no progress, and not to be told. A counter has
//!   none; who receives messages filters them by [`Newest`]. Detectors that look at numbers ignore them all the same.
//! - **A restart** of the entity: numbers begin anew, and what was learnt is void. Make a new detector. The monitor does.
//!
//! A detector that counts on heartbeats of a fixed period is for entities that advance by a clock, such as an operating
//! system's ticks; one that waits for work and says so may be silent for as long as it likes.
//!
//! Most detectors have one knob that trades detection time against mistakes; those that learn the same whatever its setting
//! are [`Tuned`], and one of them answers for all settings.
//!
//! Times are the monitor's *evidence time*: it advances only while the monitor demonstrably watched, see
//! [`monitor`](crate::monitor).

mod bertier;
mod deadline;
mod duty;
mod nfd_e;
mod nfd_s;
mod nfd_u;
mod normal_tail;
mod order;
mod phi;
mod pull_score;
mod satzger;
mod schedule;
mod sfd;
mod silence;
mod tuned;
mod two_windows;
mod window;

pub use bertier::{Bertier, BertierGains};
pub use deadline::DeadlineDetector;
pub use duty::Duty;
pub use nfd_e::NfdE;
pub use nfd_s::NfdS;
pub use nfd_u::NfdU;
pub use normal_tail::normal_tail_quantile;
pub use phi::{PhiExponential, PhiNormal};
pub use pull_score::PullScore;
pub use satzger::Satzger;
pub use schedule::Schedule;
pub use sfd::Sfd;
pub use silence::{Silence, SilenceRecorder};
pub use tuned::Tuned;
pub use two_windows::TwoWindows;
pub use window::MAX_WINDOW;

use crate::Nanos;

/// Progress, as a detector is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The counter's count, or the message's number. It grows by one with each step of the entity; steps that nobody saw
    /// leave gaps.
    pub number: u64,
    /// When it was seen.
    pub at: Nanos,
}

/// Whose clock an entity's silence is measured on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Clock {
    /// The monitor's: evidence time.
    Monitor,
    /// The node's: evidence time in which the node demonstrably ran, see [`NodeClock`](crate::monitor::NodeClock).
    Node,
}

/// Decides, from the progress of one entity, whether to trust it.
pub trait Detector {
    /// Whether progress never moves the freshness point to an earlier time. Then a monitor that knows the earliest
    /// freshness point of many entities need not look again when they make progress.
    const STEADY: bool = false;

    /// The entity was seen to have advanced. `at` never decreases, and `number` grows.
    fn progressed(&mut self, heartbeat: Heartbeat);

    /// When progress was last seen.
    fn last_progress(&self) -> Nanos;

    /// The last instant at which the entity is still trusted if it does not advance again. It may have passed already,
    /// even at the moment of progress: then the entity is suspected in spite of it.
    fn fresh_until(&self) -> Nanos;

    /// Whose clock runs out at the freshness point. On the node's it does so later, by as much as the node did not run
    /// since the last progress.
    fn clock(&self) -> Clock {
        Clock::Monitor
    }
}

/// Tells news from what was overtaken on its way, for those who receive heartbeats as messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Newest(Option<u64>);

impl Newest {
    /// Whether `number` is above every number before.
    #[inline]
    pub fn is_news(&mut self, number: u64) -> bool {
        let is_news = self.0.is_none_or(|newest| number > newest);
        if is_news {
            self.0 = Some(number);
        }
        is_news
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
