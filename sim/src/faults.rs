//! Failures of a simulated node: when they strike, what they stop, and when they are mended.
//!
//! | level | what strikes | mended by |
//! |---|---|---|
//! | OS | the processors stop (panic, freeze with interrupts off); memory and NIC go on | a thaw: everything continues |
//! | application | its tasks stop: event loop and all session handlers (deadlock, crash, SIGSTOP) | the tasks go on |
//! | session | its handler never finishes (a lock that is not released) | the lock is released |
//!
//! Two of them can strike in another way ([`OsFault`], [`ApplicationFault`]): one processor hangs and the others go on; an
//! application's event loop goes on turning and no request is served any more.
//!
//! A failure is the impossibility of continuing service (paper, section 5). For a node or an application that is the
//! moment of the strike. A session's handler may get stuck while the session has nothing to do; nobody loses service
//! then, and no observer could know, until the next request arrives. So a failure has two times:
//! [`struck`](Failure::struck), and [`effective`](Failure::effective), from which detection times are counted. One that
//! is mended before it takes effect was none.
//!
//! Faults are drawn from a stream of their own, with the same number of draws for each whatever becomes of it, so that
//! neither deadline nor monitor changes them. A draw that hits what is already down, itself or with what it runs in,
//! has no effect: the dead don't die again.

mod breakdown;

pub use breakdown::Breakdown;

use backdoor_core::Nanos;
use backdoor_core::progress_box::{FailureLevel, Slot};
use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::dist::Dist;

/// When faults strike a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrivals {
    /// Never.
    Never,
    /// At random, independently of each other and of repairs: a Poisson process. Failures can overlap.
    Poisson {
        /// Mean number per node and simulated second.
        per_second: f64,
    },
    /// The next one strikes so long after the last one was mended: never two at a time.
    OneAtATime {
        /// Time from the end of the warm-up, and then from each repair, to the next fault.
        gap: Dist,
    },
    /// One only.
    Once {
        /// When, from the start of the run.
        at: Nanos,
    },
}

/// What a fault of the operating system is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OsFault {
    /// All processors stop.
    #[default]
    Freeze,
    /// One of them hangs, with whatever runs on it.
    HungProcessor,
}

/// What a fault of an application is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApplicationFault {
    /// All its tasks stop.
    #[default]
    Stop,
    /// Its handlers stop, its event loop goes on: activity without progress.
    Livelock,
}

/// All knobs of the faults.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultOptions {
    /// When they strike. None strikes during the warm-up, except by [`Arrivals::Once`].
    pub arrivals: Arrivals,
    /// Relative frequencies of OS, application and session faults.
    pub level_weights: [f64; 3],
    /// What a fault of the operating system is.
    pub os: OsFault,
    /// What a fault of an application is.
    pub application: ApplicationFault,
    /// Time from the strike to the repair; `None`: never mended.
    pub repair_after: Option<Dist>,
    /// Fraction of the State Boxes that a failure damages (one bit of the committed payload), among those of the
    /// sessions it affects: 0 to 1.
    pub corrupt_fraction: f64,
}

impl Default for FaultOptions {
    /// None; if `arrivals` is changed: all levels alike, mended after a second, no damage.
    fn default() -> Self {
        FaultOptions {
            arrivals: Arrivals::Never,
            level_weights: [1.0; 3],
            os: OsFault::Freeze,
            application: ApplicationFault::Stop,
            repair_after: Some(Dist::constant(Nanos::from_secs(1))),
            corrupt_fraction: 0.0,
        }
    }
}

impl FaultOptions {
    /// Faults of one level only.
    pub fn at_level(mut self, level: FailureLevel) -> Self {
        self.level_weights = FailureLevel::ALL.map(|other| f64::from(u8::from(other == level)));
        self
    }
}

/// What was drawn for one fault, before it is known what it hits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draw {
    pub(crate) level: FailureLevel,
    /// Uniform; the victim is this, modulo how many there are.
    pub(crate) victim: u64,
    pub(crate) repair_after: Nanos,
}

/// A node's faults, in order.
#[derive(Debug)]
pub(crate) struct FaultPlan {
    pub(crate) options: FaultOptions,
    rng: Xoshiro256PlusPlus,
    damage: Xoshiro256PlusPlus,
}

impl FaultPlan {
    pub(crate) fn new(options: FaultOptions, rng: Xoshiro256PlusPlus, damage: Xoshiro256PlusPlus) -> Self {
        FaultPlan { options, rng, damage }
    }

    /// When the first fault strikes; `None`: never.
    pub(crate) fn first(&mut self, warm_up: Nanos) -> Option<Nanos> {
        match self.options.arrivals {
            Arrivals::Never => None,
            Arrivals::Once { at } => Some(at),
            Arrivals::Poisson { .. } | Arrivals::OneAtATime { .. } => self.gap().map(|gap| warm_up + gap),
        }
    }

    /// When the next one strikes after one at `struck` that is mended at `repaired`; `None`: never.
    pub(crate) fn next(&mut self, struck: Nanos, repaired: Nanos) -> Option<Nanos> {
        match self.options.arrivals {
            Arrivals::Never | Arrivals::Once { .. } => None,
            Arrivals::Poisson { .. } => self.gap().map(|gap| struck + gap),
            Arrivals::OneAtATime { .. } => self.gap().map(|gap| repaired + gap),
        }
    }

    pub(crate) fn draw(&mut self) -> Draw {
        let weights = self.options.level_weights;
        let mut mark = self.rng.random::<f64>() * weights.iter().sum::<f64>();
        let victim = self.rng.random();
        let repair_after = self.options.repair_after.map_or(Nanos::MAX, |dist| dist.sample(&mut self.rng));
        let mut level = None;
        for (candidate, weight) in FailureLevel::ALL.into_iter().zip(weights) {
            if weight > 0.0 && (level.is_none() || mark >= 0.0) {
                level = Some(candidate);
            }
            mark -= weight;
        }
        Draw { level: level.unwrap_or(FailureLevel::Os), victim, repair_after }
    }

    /// The bit of a payload of `bytes` bytes that a failure flips; `None` if it spares this box.
    pub(crate) fn damage(&mut self, bytes: usize) -> Option<u64> {
        let (hit, bit): (f64, u64) = (self.damage.random(), self.damage.random());
        (hit < self.options.corrupt_fraction && bytes > 0).then(|| bit % (bytes as u64 * 8))
    }

    fn gap(&mut self) -> Option<Nanos> {
        match self.options.arrivals {
            Arrivals::Poisson { per_second } if per_second > 0.0 => {
                let uniform: f64 = 1.0 - self.rng.random::<f64>();
                Some(Nanos::from_secs_f64(-uniform.ln() / per_second))
            }
            Arrivals::OneAtATime { gap } => Some(gap.sample(&mut self.rng)),
            _ => None,
        }
    }
}

/// A failure that happened: what no monitor knows, and every monitor is measured against.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// At which level.
    pub level: FailureLevel,
    /// When the fault struck.
    pub struck: Nanos,
    /// When service first became impossible; `None` if it was mended before that, or the run ended.
    pub effective: Option<Nanos>,
    /// When it was mended; `None` if it was not before the run ended.
    pub repaired: Option<Nanos>,
    /// The entities whose silence is the failure: all OS counters, or that of the processor that hangs, or one application
    /// (the sessions of one that livelocks, for itself it goes on), or one session.
    pub roots: Vec<Slot>,
    /// All entities that it stops, the roots among them.
    pub affected: Vec<Slot>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn plan(options: FaultOptions) -> FaultPlan {
        let rng = Xoshiro256PlusPlus::seed_from_u64;
        FaultPlan::new(options, rng(1), rng(2))
    }

    #[test]
    fn levels_come_by_their_weights() {
        let mut plan = plan(FaultOptions { level_weights: [1.0, 0.0, 3.0], ..Default::default() });
        let mut counts = [0; 3];
        for _ in 0..4000 {
            counts[plan.draw().level as usize] += 1;
        }
        assert_eq!(counts[1], 0);
        assert!((900..1100).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn the_rate_is_the_rate() {
        let mut plan = plan(FaultOptions { arrivals: Arrivals::Poisson { per_second: 4.0 }, ..Default::default() });
        let mut at = plan.first(Nanos::ZERO).unwrap();
        for _ in 0..10_000 {
            at = plan.next(at, at).unwrap();
        }
        assert!((at.as_secs_f64() - 2_500.0).abs() < 100.0, "{at}");
    }
}
