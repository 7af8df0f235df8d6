//! The quality of service of one detector in one setting: how much to simulate, on how many threads, and until when.
//!
//! What is simulated is in [`backdoor_sim::qos`]; recorded arrivals are read by [`trace`]; [`report`] presents either.
//! What a recording says of another run, [`predict`] tells.

pub mod predict;
pub mod report;
pub mod trace;

use rayon::prelude::*;

use backdoor_sim::qos::closed::{self, ClosedForm};
use backdoor_sim::qos::measures::Measures;
use backdoor_sim::qos::rare;
use backdoor_sim::qos::replication::{Goal, Outcome, Totals, replicate};
use backdoor_sim::qos::setting::{Setting, SettingError};
use backdoor_sim::streams::{StreamKey, Streams};

use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::runner::{TooManyThreads, check_threads};
use report::Report;

/// Replications of a round; fewer for fewer mistakes.
const REPLICATIONS: u64 = 40;
/// Crashes of each replication.
const CRASHES: u32 = 250;
/// Samples of each replication by importance sampling, and in the first look.
const SAMPLES: u64 = 10_000;
const PILOT_SAMPLES: u64 = 1_000;

/// How mistakes are simulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Method {
    /// Directly, if enough mistakes are to be seen within the cap; else by importance sampling, where that is possible.
    #[default]
    Auto,
    /// Directly, whatever comes.
    Direct,
    /// By importance sampling: for NFD-S, NFD-U, SFD and deadlines.
    Importance,
}

/// What to simulate, and how much of it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The detector and its heartbeats.
    pub setting: Setting,
    /// Mistakes to see, at least.
    pub mistakes: u64,
    /// Go on until the intervals of T_MR and T_M are no wider than this either way, relative to the value.
    pub precision: Option<f64>,
    /// Heartbeats (or samples) after which to stop whatever was seen.
    pub max_heartbeats: u64,
    /// How to simulate.
    pub method: Method,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Threads, 0 for one per processor. Never changes the result.
    pub threads: usize,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum QosError {
    /// The setting can't be.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The amount can't be.
    #[error("{0}")]
    Plan(String),
    /// Somebody asked to stop.
    #[error("stopped before the simulation had a result")]
    Interrupted,
    /// There may not be so many threads.
    #[error(transparent)]
    TooManyThreads(#[from] TooManyThreads),
    /// The threads can't be started.
    #[error(transparent)]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

impl Plan {
    /// Says in a sentence what can't be.
    ///
    /// # Errors
    /// See [`QosError`].
    pub fn check(&self) -> Result<(), QosError> {
        let error = |text: &str| Err(QosError::Plan(text.into()));
        self.setting.check()?;
        if self.mistakes == 0 {
            return error("the number of mistakes must be at least 1");
        }
        if self.precision.is_some_and(|precision| !(precision > 0.0 && precision < 1.0)) {
            return error("the precision must be a relative half width between 0 and 1, such as 0.01");
        }
        if self.max_heartbeats < 1000 {
            return error("the cap must be at least 1000 heartbeats");
        }
        check_threads(self.threads)?;
        if self.method == Method::Importance && !rare::applies(&self.setting) {
            return error(
                "importance sampling is for nfd-s, nfd-u, sfd and deadline without polls; others take --method direct",
            );
        }
        Ok(())
    }

    fn streams(&self, replication: u64) -> Streams {
        // Without the detector: all see the same heartbeats.
        let Setting { period, loss, delay, .. } = &self.setting;
        let point = format!("eta={period} loss={loss} delay={delay}");
        Streams::new(StreamKey { seed: self.seed, experiment: "qos", point: &point, replication })
    }
}

/// Simulates. The same plan gives the same report on any number of threads.
///
/// # Errors
/// See [`QosError`].
pub fn simulate(plan: &Plan, interrupt: &Interrupt, progress: &Progress) -> Result<Report, QosError> {
    plan.check()?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(plan.threads).build()?;
    pool.install(|| Run { plan, interrupt, progress }.run())
}

struct Run<'a> {
    plan: &'a Plan,
    interrupt: &'a Interrupt,
    progress: &'a Progress,
}

impl Run<'_> {
    fn run(&self) -> Result<Report, QosError> {
        let Plan { setting, mistakes, method, max_heartbeats, .. } = self.plan;
        let mut by_importance = *method == Method::Importance;
        let mut why = None;
        if *method == Method::Auto && rare::applies(setting) {
            let pilot = self.samples("first look", 0..REPLICATIONS, PILOT_SAMPLES)?;
            let expected =
                pilot.iter().map(|totals| totals.mistakes).sum::<f64>() / (REPLICATIONS * PILOT_SAMPLES) as f64;
            let needed = *mistakes as f64 / expected;
            if needed > *max_heartbeats as f64 {
                by_importance = true;
                why = Some(if needed.is_finite() {
                    format!(
                        "{mistakes} mistakes would take about {needed:.2e} heartbeats, more than the cap of {max_heartbeats}"
                    )
                } else {
                    "no mistake was found possible".into()
                });
            }
        }
        let form = closed::of(setting);
        if by_importance { self.importance(form, why) } else { self.direct(form) }
    }

    /// Runs replications in parallel; in order of their numbers in any case.
    fn replications<T: Send>(
        &self,
        name: &str,
        numbers: std::ops::Range<u64>,
        one: impl Fn(&Streams, &dyn Fn() -> bool) -> Option<T> + Sync,
    ) -> Result<Vec<T>, QosError> {
        let bar = self.progress.experiment(name, (numbers.end - numbers.start) as usize);
        let results: Option<Vec<T>> = numbers
            .into_par_iter()
            .map(|number| {
                let stop = || self.interrupt.requested();
                let result = if stop() { None } else { one(&self.plan.streams(number), &stop) };
                bar.point_finished();
                result
            })
            .collect();
        bar.finish();
        results.ok_or(QosError::Interrupted)
    }

    fn samples(&self, name: &str, numbers: std::ops::Range<u64>, samples: u64) -> Result<Vec<Totals>, QosError> {
        let setting = &self.plan.setting;
        self.replications(name, numbers, |streams, stop| rare::replicate(setting, samples, streams, stop))
    }

    fn direct(&self, form: Option<ClosedForm>) -> Result<Report, QosError> {
        let Plan { setting, mistakes, precision, max_heartbeats, .. } = self.plan;
        let first = REPLICATIONS.min(*mistakes).max(2);
        let per_replication = mistakes.div_ceil(first);
        let mut outcomes: Vec<Outcome> = Vec::new();
        let mut next = first;
        let mut notes = Vec::new();
        loop {
            let done = outcomes.len() as u64;
            let spent: u64 = outcomes.iter().map(|outcome| outcome.heartbeats).sum();
            let heartbeats = (max_heartbeats.saturating_sub(spent) / next).max(1);
            let goal = Goal { mistakes: per_replication, heartbeats, crashes: CRASHES };
            let more = self.replications("replications", done..done + next, |streams, stop| {
                replicate(setting, goal, streams, stop)
            })?;
            outcomes.extend(more);
            let measures = Measures::of(&outcomes);
            let spent: u64 = outcomes.iter().map(|outcome| outcome.heartbeats).sum();
            let narrow = precision.is_none_or(|precision| measures.relative_half_width() <= precision);
            let exhausted = measures.capped || spent >= *max_heartbeats;
            if !narrow && !exhausted {
                next = outcomes.len() as u64;
                continue;
            }
            if measures.capped {
                let seen = measures.mistakes;
                notes.push(format!(
                    "the cap of {max_heartbeats} heartbeats came first: {seen} mistakes seen, not {mistakes}; measured over all of the time"
                ));
            }
            if !narrow {
                notes.push(format!(
                    "the precision was not reached within the cap: the relative half width is {:.3}",
                    measures.relative_half_width()
                ));
            }
            let method = format!(
                "{} mistakes in {} replications, {spent} heartbeats, {CRASHES} crashes each; the first {} heartbeats of each are not measured",
                measures.mistakes,
                outcomes.len(),
                setting.warm_up()
            );
            return Ok(Report { measures, form, method, notes });
        }
    }

    fn importance(&self, form: Option<ClosedForm>, why: Option<String>) -> Result<Report, QosError> {
        let Plan { setting, precision, max_heartbeats, .. } = self.plan;
        let mut totals: Vec<Totals> = Vec::new();
        let mut next = REPLICATIONS;
        let mut notes: Vec<String> = why.into_iter().collect();
        let mut measures = loop {
            let done = totals.len() as u64;
            totals.extend(self.samples("samples", done..done + next, SAMPLES)?);
            let measures = Measures::of_mistakes(&totals, false);
            next = totals.len() as u64;
            let spent = next * SAMPLES;
            if precision.is_none_or(|precision| measures.relative_half_width() <= precision) {
                break measures;
            }
            if 2 * spent > *max_heartbeats || measures.mistakes == 0.0 {
                notes.push("the precision was not reached within the cap".into());
                break measures;
            }
        };
        if measures.mistakes == 0.0 {
            notes.push(
                "no sample ended in a mistake: there are none, or they are less likely than numbers can tell".into(),
            );
        }
        let goal = Goal { mistakes: u64::MAX, heartbeats: 0, crashes: CRASHES };
        let crashes =
            self.replications("crashes", 0..REPLICATIONS, |streams, stop| replicate(setting, goal, streams, stop))?;
        measures.detected(&crashes.iter().map(|outcome| outcome.detections).collect::<Vec<_>>());
        let method = format!(
            "mistakes by importance sampling of losses and delays, {} samples in {} replications; {CRASHES} crashes in each of {REPLICATIONS}",
            totals.len() as u64 * SAMPLES,
            totals.len(),
        );
        Ok(Report { measures, form, method, notes })
    }
}
