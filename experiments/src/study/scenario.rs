//! The `[scenario]` and `[faults]` tables of a config, and the simulated scenarios that they stand for.

use super::limits::{Complaint, DURATION_OF_FULL};
use super::{Full, Profile};
use crate::config::{Axis, ConfigError, Grid, GridPoint, OneOrMany, Span};
use backdoor_core::Nanos;
use backdoor_core::monitor::MonitorConfig;
use backdoor_sim::cluster::{Scenario, ScenarioError};
use backdoor_sim::cpu::CpuParams;
use backdoor_sim::dist::Dist;
use backdoor_sim::faults::Arrivals;
use serde::Deserialize;

/// The simulated node and its monitor. What can be an axis of a sweep takes a value, a list or a range; what is left out
/// is as in [`Scenario::default`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ScenarioConfig {
    load: Option<Axis<u64>>,
    sessions: Option<Axis<u64>>,
    poll_interval: Option<Axis<Span>>,
    network_loss: Option<Axis<f64>>,
    monitor_shares_cpu: Option<OneOrMany<bool>>,
    cores: Option<usize>,
    applications: Option<usize>,
    tick_interval: Option<Span>,
    loop_interval: Option<Span>,
    loop_jitter: Option<Dist>,
    loop_work: Option<Span>,
    request_interval: Option<Dist>,
    service_work: Option<Dist>,
    state_bytes: Option<usize>,
    network_delay: Option<Dist>,
    warm_up: Option<Span>,
    duration: Option<Span>,
}

/// What goes wrong in it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FaultConfig {
    per_minute: Option<Axis<f64>>,
    levels: Option<Levels>,
    repair_after: Option<Dist>,
}

/// How often each level fails, relative to the others.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Levels {
    os: f64,
    application: f64,
    session: f64,
}

impl Default for Levels {
    fn default() -> Self {
        Levels { os: 1.0, application: 1.0, session: 1.0 }
    }
}

/// One combination of the swept values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Swept {
    pub(super) load: u64,
    pub(super) failures_per_minute: f64,
    pub(super) sessions: u64,
    pub(super) poll_interval: Nanos,
    pub(super) network_loss: f64,
    pub(super) monitor_shares_cpu: bool,
}

impl Swept {
    /// The part of a random stream's key that names the point: what changes workload or faults, so that points that
    /// differ in the monitor alone are compared under the same random numbers.
    pub(super) fn stream_point(&self) -> String {
        format!("load={} failures={} sessions={}", self.load, self.failures_per_minute, self.sessions)
    }
}

impl ScenarioConfig {
    /// Number of [`points`](Self::points); saturated where it is beyond counting.
    pub(super) fn count(&self, faults: &FaultConfig) -> usize {
        let failures = faults.per_minute.as_ref().map_or(1, |rates| rates.len());
        self.axes().iter().fold(failures, |all, (_, length)| all.saturating_mul(length.unwrap_or(1)))
    }

    /// What may be a list, and the length of the lists that are there.
    fn axes(&self) -> [(&'static str, Option<usize>); 5] {
        [
            ("load", self.load.as_ref().map(|values| values.len())),
            ("sessions", self.sessions.as_ref().map(|values| values.len())),
            ("poll_interval", self.poll_interval.as_ref().map(|values| values.len())),
            ("network_loss", self.network_loss.as_ref().map(|values| values.len())),
            ("monitor_shares_cpu", self.monitor_shares_cpu.as_ref().map(|values| values.len())),
        ]
    }

    /// For a study that sets some keys itself and takes one value of every other: whatever would be ignored is refused.
    pub(super) fn check_single(&self, table: &str, taken: &[&str], invalid: &Complaint<'_>) -> Result<(), ConfigError> {
        let state = ("state_bytes", self.state_bytes.map(|_| 1));
        for (name, length) in self.axes().into_iter().chain([state]) {
            let key = format!("{table}.{name}");
            match length {
                Some(_) if taken.contains(&name) => {
                    return Err(invalid(&key, "this kind of study sets it outside of this table".into()));
                }
                Some(2..) => return Err(invalid(&key, "must be one value in this kind of study".into())),
                _ => {}
            }
        }
        Ok(())
    }

    /// For a study whose runs end by themselves: a length would be ignored, so it is refused.
    pub(super) fn check_no_length(&self, table: &str, invalid: &Complaint<'_>) -> Result<(), ConfigError> {
        for (name, span) in [("warm_up", self.warm_up), ("duration", self.duration)] {
            if span.is_some() {
                return Err(invalid(&format!("{table}.{name}"), "each run ends when it has its answers".into()));
            }
        }
        Ok(())
    }

    /// All combinations, the axis named last changing fastest.
    pub(super) fn points(&self, faults: &FaultConfig) -> Vec<Swept> {
        let default = Scenario::default();
        let load = or_one(&self.load, default.load as u64);
        let failures = or_one(&faults.per_minute, 0.0);
        let sessions = or_one(&self.sessions, default.workload.sessions as u64);
        let poll = or_one(&self.poll_interval, Span(default.monitor.poll_interval));
        let loss = or_one(&self.network_loss, default.network_loss);
        let shares = self.monitor_shares_cpu.clone().unwrap_or(OneOrMany::one(default.monitor_shares_cpu));
        let grid = Grid::new()
            .axis("load", load.len())
            .axis("failures", failures.len())
            .axis("sessions", sessions.len())
            .axis("poll", poll.len())
            .axis("loss", loss.len())
            .axis("shares", shares.len());
        let at = |point: &GridPoint<'_>| Swept {
            load: load[point.at("load")],
            failures_per_minute: failures[point.at("failures")],
            sessions: sessions[point.at("sessions")],
            poll_interval: poll[point.at("poll")].0,
            network_loss: loss[point.at("loss")],
            monitor_shares_cpu: shares[point.at("shares")],
        };
        grid.points().map(|point| at(&point)).collect()
    }

    /// The scenario of the first combination, without failures; as by default if there is none.
    pub(super) fn single(&self, full: Option<&Full>, profile: Profile) -> Scenario {
        let faults = FaultConfig::default();
        let first = self.points(&faults).into_iter().next();
        first.map_or_else(Scenario::default, |swept| self.scenario(&faults, &swept, full, profile))
    }

    /// The scenario of one combination.
    pub(super) fn scenario(
        &self,
        faults: &FaultConfig,
        swept: &Swept,
        full: Option<&Full>,
        profile: Profile,
    ) -> Scenario {
        let mut scenario = Scenario::default();
        if let Some(cores) = self.cores {
            scenario.cpu = CpuParams { cores, ..scenario.cpu };
        }
        scenario.load = swept.load as usize;
        let work = &mut scenario.workload;
        work.sessions = swept.sessions as usize;
        set(&mut work.applications, self.applications);
        set(&mut work.tick_interval, self.tick_interval.map(Nanos::from));
        set(&mut work.loop_interval, self.loop_interval.map(Nanos::from));
        set(&mut work.loop_jitter, self.loop_jitter);
        set(&mut work.loop_work, self.loop_work.map(Nanos::from));
        set(&mut work.request_interval, self.request_interval);
        set(&mut work.service_work, self.service_work);
        set(&mut work.state_bytes, self.state_bytes.map(Some));
        scenario.monitor = MonitorConfig::polling_every(swept.poll_interval);
        scenario.monitor_shares_cpu = swept.monitor_shares_cpu;
        scenario.network_loss = swept.network_loss;
        set(&mut scenario.network_delay, self.network_delay);
        set(&mut scenario.warm_up, self.warm_up.map(Nanos::from));
        set(&mut scenario.duration, self.duration.map(Nanos::from));
        if profile == Profile::Full {
            set(&mut scenario.duration, full.and_then(|full| full.duration).map(Nanos::from));
        }
        // Anything but zero, so that a negative rate or none at all is refused rather than taken for zero.
        if swept.failures_per_minute != 0.0 {
            scenario.faults.arrivals = Arrivals::Poisson { per_second: swept.failures_per_minute / 60.0 };
        }
        if let Some(Levels { os, application, session }) = faults.levels {
            scenario.faults.level_weights = [os, application, session];
        }
        set(&mut scenario.faults.repair_after, faults.repair_after.map(Some));
        scenario
    }
}

/// A complaint about the key that is to blame. `table` is where the scenario stands; `taken` names the settings that
/// stand elsewhere, and where.
pub(super) fn complain(
    error: &ScenarioError,
    table: &str,
    taken: &[(&str, &str)],
    invalid: &Complaint<'_>,
) -> ConfigError {
    let key = match error.setting() {
        // Several together; the quick profile has passed with all of them but this.
        None if taken.contains(&DURATION_OF_FULL) => DURATION_OF_FULL.1.to_owned(),
        None => table.to_owned(),
        Some(setting @ ("per_minute" | "levels")) => format!("faults.{setting}"),
        Some(setting) => match taken.iter().find(|(name, _)| *name == setting) {
            Some((_, elsewhere)) => (*elsewhere).to_owned(),
            None => format!("{table}.{setting}"),
        },
    };
    invalid(&key, error.to_string())
}

fn or_one<T: Clone>(axis: &Option<Axis<T>>, default: T) -> Axis<T> {
    axis.clone().unwrap_or_else(|| Axis::one(default))
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}
