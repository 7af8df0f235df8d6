//! What to do about a failure, and in which order: of all ways that could help, the one that is expected to cost least.
//!
//! ```text
//!   restart in place ──┐ does not help    the application's new process goes on over the very connections that the
//!        │             │                  node's agent has kept; nobody is cut off
//!        │             v
//!        │          takeover ──┐          the node is cut off, its sessions go on at healthy nodes
//!        │             │       │
//!        └─────────────┴───────┴─> reboot     no session outlives it; new clients are served
//! ```
//!
//! # What a remedy is expected to cost
//! A plan tries remedies *r₁, r₂, …* one after the other. Its cost is in session-seconds:
//!
//! ```text
//!   cost(r₁, r₂, …) = Σᵢ Πⱼ﹤ᵢ p(rⱼ) · c(rᵢ)   +   Πⱼ p(rⱼ) · loss · everyone
//!   c(r)  = t(r) · (affected + bystander · others(r))   +   loss · lost(r)
//!   t(r)  = fixed(r) + each(r) · (n(r) + 1) / 2
//!   p(r)  = 1 − (1 − failing(r)) · ½ᵏ      k: restarts in place lately, of a restart; 0 of others
//! ```
//!
//! * *n(r)* sessions are served again one after the other, *each(r)* later than the one before: on average each waits for
//!   half of them. A takeover onto several nodes serves as many at once, and the node with most of them counts.
//! * *affected* sessions have lost service already; *others(r)* have not, and the remedy interrupts them: the application's,
//!   of a restart; all of the node's, of the others. What a session that was never affected waits weighs *bystander*.
//!   Those whom a remedy interrupted in vain count as affected from then on.
//! * *lost(r)* sessions end with it: those without a kept connection, of a restart; those that no target has room for, or
//!   that have no State Box, of a takeover; all of the node's, of a reboot. A lost session is as bad as *loss* of waiting.
//! * If the last remedy does not help either, *everyone* whom the plan has touched is lost.
//!
//! A restart leaves the takeover open, and a takeover leaves nothing open that saves sessions. So of two that cost the same,
//! the restart comes first, unless a takeover is sure to help.
//!
//! A restart that was followed by another failure says that the next one may be, too: each halves the trust in it, and after
//! [`Policy::most_restarts`] no other is tried.
//!
//! Prices are estimates. [`Policy::default`] says where its own come from.

mod spread;
#[cfg(all(test, not(loom)))]
mod tests;

pub use spread::{Group, Room, spread, spread_groups};

use crate::Nanos;
use crate::progress_box::{FailureLevel, Slot};

use super::NodeAction;

/// A way to serve clients again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Remedy {
    /// A new process of the application, on its own node, re-adopts the sessions of the old one, which is ended first if it
    /// hangs.
    RestartInPlace,
    /// The node is cut off, and its sessions go on at healthy ones.
    Takeover,
    /// The node starts anew. Its sessions end.
    Reboot,
}

impl Remedy {
    /// All of them, the mildest first.
    pub const ALL: [Remedy; 3] = [Remedy::RestartInPlace, Remedy::Takeover, Remedy::Reboot];

    /// Whether `next` can still be tried after it: what was fenced is not given back, and no session outlives a reboot.
    const fn can_be_followed_by(self, next: Remedy) -> bool {
        matches!(
            (self, next),
            (Remedy::RestartInPlace, Remedy::Takeover | Remedy::Reboot) | (Remedy::Takeover, Remedy::Reboot)
        )
    }
}

/// What a remedy takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// Time from the decision on, however many sessions there are.
    pub fixed: Nanos,
    /// Time for each session more.
    pub each: Nanos,
    /// How probable it is that it does not help, from 0 to 1.
    pub failing: f64,
}

/// What remedies cost, and how bad that is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// Of a restart in place.
    pub restart: Price,
    /// Of a takeover.
    pub takeover: Price,
    /// Of a reboot.
    pub reboot: Price,
    /// A lost session is as bad as one that waits so long.
    pub loss: Nanos,
    /// How much the waiting of a session weighs that nothing had happened to; 1 is as much as that of an affected one.
    pub bystander: f64,
    /// No more restarts in place than so many lately.
    pub most_restarts: u32,
    /// For how long a node is excluded for the first time; every further time, for twice as long as before.
    pub exclusion: Nanos,
    /// No longer than that.
    pub longest_exclusion: Nanos,
}

impl Default for Policy {
    /// Orders of magnitude, to be replaced by what is measured on the machines at hand: `backdoor live failover --remedy
    /// restart` and `--remedy takeover` print it for a small service. To start a process takes tens of milliseconds, a
    /// takeover ten and some, and a server's boot a minute or more. How often a remedy does not help, and what a lost session
    /// is worth, are assumptions.
    fn default() -> Self {
        Policy {
            restart: Price { fixed: Nanos::from_millis(30), each: Nanos::from_micros(100), failing: 0.2 },
            takeover: Price { fixed: Nanos::from_millis(15), each: Nanos::from_micros(200), failing: 0.02 },
            reboot: Price { fixed: Nanos::from_secs(60), each: Nanos::from_micros(100), failing: 0.1 },
            loss: Nanos::from_secs(60),
            bystander: 1.0,
            most_restarts: 3,
            exclusion: Nanos::from_secs(60),
            longest_exclusion: Nanos::from_secs(3600),
        }
    }
}

/// A setting of a policy that can't be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} must be {must}")]
pub struct PolicyError {
    name: &'static str,
    must: &'static str,
}

/// What can still be reached of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// Nothing: its memory can't be read either.
    Nothing,
    /// Its memory only: its system or its agent does not answer.
    Memory,
    /// Its agent, which keeps the sockets of sessions whose process has died, and can have the application started.
    Agent,
}

/// What is known when it is to be decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Situation<'a> {
    /// At which level the node failed.
    pub level: FailureLevel,
    /// The application that failed, or whose session did.
    pub application: Option<Slot>,
    /// What can be reached of it.
    pub reach: Reach,
    /// Sessions that have lost service.
    pub affected: u64,
    /// Sessions of the failed application, those among them.
    pub of_application: u64,
    /// Sessions of the node, those among them.
    pub of_node: u64,
    /// Sessions of the application whose connection the agent does not keep: they end with their process.
    pub not_kept: u64,
    /// Sessions of the node that have no State Box.
    pub stateless: u64,
    /// Healthy nodes that carry sessions on.
    pub targets: &'a [Room],
    /// Whether somebody can start the node anew.
    pub can_reboot: bool,
    /// Restarts in place of that application lately.
    pub restarts: u32,
    /// Times that the node was excluded lately.
    pub exclusions: u32,
}

impl Situation<'_> {
    /// Room at all targets.
    fn room(&self) -> u64 {
        self.targets.iter().fold(0, |room, target| room.saturating_add(target.free))
    }
}

/// One remedy of a plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// What to try.
    pub remedy: Remedy,
    /// What it costs if it comes to that, in session-seconds.
    pub cost: f64,
    /// How probable it is that it does not help.
    pub failing: f64,
    /// Sessions that end with it.
    pub lost: u64,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What to try, each if the one before does not help. Empty if nothing can be done: see `obstacles`.
    pub steps: Vec<Step>,
    /// What all of it is expected to cost, in session-seconds.
    pub cost: f64,
    /// What to do at the node besides, when sessions are served again, or lost.
    pub afterwards: Vec<NodeAction>,
    /// What can't be done, and why.
    pub obstacles: Vec<(Remedy, Obstacle)>,
}

impl Decision {
    /// What to try first.
    pub fn first(&self) -> Option<Remedy> {
        self.steps.first().map(|step| step.remedy)
    }
}

/// Why a remedy is out of the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Obstacle {
    /// The operating system failed, so no process of it can be started.
    #[error("the operating system itself has failed")]
    SystemFailed,
    /// Nobody at the node could do it.
    #[error("the node's agent can't be reached")]
    NoAgent,
    /// It did not last.
    #[error("{0} restarts lately did not last")]
    CrashLoop(u32),
    /// Neither state nor claims can be read.
    #[error("the node's memory can't be read")]
    NoMemory,
    /// Nobody to go on.
    #[error("no healthy node has room for a session")]
    NoRoom,
    /// Nobody has its power switch.
    #[error("nobody can start the node anew")]
    NoReboot,
}

impl Policy {
    /// Whether it can be.
    ///
    /// # Errors
    /// Names the first setting that can't.
    pub fn check(&self) -> Result<(), PolicyError> {
        let error = |name, must| Err(PolicyError { name, must });
        for (name, price) in [
            ("the probability that a restart does not help", self.restart),
            ("the probability that a takeover does not help", self.takeover),
            ("the probability that a reboot does not help", self.reboot),
        ] {
            if !(0.0..=1.0).contains(&price.failing) {
                return error(name, "from 0 to 1");
            }
        }
        if !(self.bystander.is_finite() && self.bystander >= 0.0) {
            return error("the weight of a bystander", "a number, and not negative");
        }
        if self.longest_exclusion < self.exclusion {
            return error("the longest exclusion", "no shorter than the first");
        }
        Ok(())
    }

    /// The plan for a situation: the cheapest of all, and of equals the mildest.
    pub fn decide(&self, situation: &Situation<'_>) -> Decision {
        let (mut possible, mut obstacles) = (Vec::new(), Vec::new());
        for remedy in Remedy::ALL {
            match self.obstacle(remedy, situation) {
                None => possible.push(remedy),
                Some(obstacle) => obstacles.push((remedy, obstacle)),
            }
        }
        let (mut steps, mut cost) = (Vec::new(), f64::INFINITY);
        for plan in plans(&possible) {
            let (priced, total) = self.price(&plan, situation);
            if total < cost {
                (steps, cost) = (priced, total);
            }
        }
        if possible.is_empty() {
            cost = self.loss.as_secs_f64() * situation.affected as f64;
        }
        let afterwards = self.afterwards(&steps, situation);
        Decision { steps, cost, afterwards, obstacles }
    }

    /// For how long a node is excluded that was so `before` times lately.
    pub fn exclusion(&self, before: u32) -> Nanos {
        let times = 1u64.checked_shl(before).unwrap_or(u64::MAX);
        Nanos(self.exclusion.0.saturating_mul(times)).min(self.longest_exclusion)
    }

    fn obstacle(&self, remedy: Remedy, situation: &Situation<'_>) -> Option<Obstacle> {
        match remedy {
            Remedy::RestartInPlace if situation.level == FailureLevel::Os => Some(Obstacle::SystemFailed),
            Remedy::RestartInPlace if situation.reach != Reach::Agent => Some(Obstacle::NoAgent),
            Remedy::RestartInPlace if situation.restarts >= self.most_restarts => {
                Some(Obstacle::CrashLoop(situation.restarts))
            }
            Remedy::Takeover if situation.reach == Reach::Nothing => Some(Obstacle::NoMemory),
            Remedy::Takeover if situation.room() == 0 => Some(Obstacle::NoRoom),
            Remedy::Reboot if !situation.can_reboot => Some(Obstacle::NoReboot),
            _ => None,
        }
    }

    /// A plan's steps, and what it is expected to cost.
    fn price(&self, plan: &[Remedy], situation: &Situation<'_>) -> (Vec<Step>, f64) {
        let loss = self.loss.as_secs_f64();
        let (mut steps, mut total) = (Vec::with_capacity(plan.len()), 0.0);
        // Who waits already, and how probable it is that it comes to this.
        let (mut waiting, mut probability) = (situation.affected, 1.0);
        for remedy in plan {
            let Reckoning { touched, served, at_once, lost } = Reckoning::of(*remedy, situation);
            let (price, distrust) = match remedy {
                Remedy::RestartInPlace => (self.restart, situation.restarts),
                Remedy::Takeover => (self.takeover, 0),
                Remedy::Reboot => (self.reboot, 0),
            };
            let failing = 1.0 - (1.0 - price.failing) * 0.5f64.powi(distrust.min(1000) as i32);
            let one_by_one = (served.div_ceil(at_once) + 1) as f64 / 2.0;
            let time = price.fixed.as_secs_f64() + price.each.as_secs_f64() * one_by_one;
            let others = touched.saturating_sub(waiting);
            let cost = time * (waiting as f64 + self.bystander * others as f64) + loss * lost as f64;
            steps.push(Step { remedy: *remedy, cost, failing, lost });
            total += probability * cost;
            (waiting, probability) = (waiting + others, probability * failing);
        }
        (steps, total + probability * loss * waiting as f64)
    }

    /// What else is to be done at the node.
    fn afterwards(&self, steps: &[Step], situation: &Situation<'_>) -> Vec<NodeAction> {
        let exclude = NodeAction::ExcludeNode(self.exclusion(situation.exclusions));
        let first = steps.first().map(|step| step.remedy);
        let loops = situation.restarts >= self.most_restarts;
        match (situation.level, first) {
            // It is back already, or about to be.
            (_, Some(Remedy::RestartInPlace | Remedy::Reboot)) => Vec::new(),
            (_, _) if situation.reach == Reach::Nothing => vec![exclude],
            (FailureLevel::Os, _) => vec![NodeAction::RebootNode, exclude],
            (_, _) if loops => vec![NodeAction::RebootNode, exclude],
            _ => situation.application.map(NodeAction::RestartApplication).into_iter().collect(),
        }
    }
}

/// How many sessions a remedy concerns.
struct Reckoning {
    /// All that it interrupts.
    touched: u64,
    /// Those that go on, or come back.
    served: u64,
    /// How many are served again at the same time.
    at_once: u64,
    /// Those that end.
    lost: u64,
}

impl Reckoning {
    fn of(remedy: Remedy, situation: &Situation<'_>) -> Self {
        let Situation { of_application, of_node, not_kept, stateless, targets, .. } = *situation;
        let of_node = of_node.max(of_application).max(situation.affected);
        let of_application = of_application.max(situation.affected);
        match remedy {
            Remedy::RestartInPlace => {
                let lost = not_kept.min(of_application);
                Reckoning { touched: of_application, served: of_application - lost, at_once: 1, lost }
            }
            Remedy::Takeover => {
                let carried = of_node.saturating_sub(stateless).min(situation.room());
                let busiest = spread::shares(carried, targets).into_iter().max().unwrap_or(0).max(1);
                let at_once = carried.div_ceil(busiest).max(1);
                Reckoning { touched: of_node, served: carried, at_once, lost: of_node - carried }
            }
            Remedy::Reboot => Reckoning { touched: of_node, served: of_node, at_once: 1, lost: of_node },
        }
    }
}

/// Every order in which some of the remedies can be tried, the mildest first.
fn plans(possible: &[Remedy]) -> Vec<Vec<Remedy>> {
    let mut all: Vec<Vec<Remedy>> = possible.iter().map(|remedy| vec![*remedy]).collect();
    let mut at = 0;
    while at < all.len() {
        let last = all[at].last().copied();
        for next in possible {
            if last.is_some_and(|last| last.can_be_followed_by(*next)) {
                let longer = all[at].iter().copied().chain([*next]).collect();
                all.push(longer);
            }
        }
        at += 1;
    }
    all
}
