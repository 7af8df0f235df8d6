//! Everything that can be set about a simulated cluster, in one place.

use backdoor_core::Nanos;
use backdoor_core::monitor::MonitorConfig;
use backdoor_core::progress_box::{FailureLevel, MAX_ENTITIES};
use backdoor_core::state_box::MAX_PAYLOAD_BYTES;
use backdoor_transports::sim_nic::{SimNicConfig, SimNicConfigError};

use super::limits::{MAX_EVENTS, MAX_LOAD, MAX_STATE_TOTAL};
use super::mode::{AgentCosts, Mode};
use crate::cpu::{CpuError, CpuParams};
use crate::dist::Dist;
use crate::faults::{Arrivals, FaultOptions};
use crate::workload::{Pauses, Workload};

/// Detection deadlines, by the level of the entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// Of the operating system's counters.
    pub os: Nanos,
    /// Of each application.
    pub application: Nanos,
    /// Of each session.
    pub session: Nanos,
}

impl Deadlines {
    /// The same for all levels.
    pub const fn all(deadline: Nanos) -> Self {
        Deadlines { os: deadline, application: deadline, session: deadline }
    }

    /// That of entities of `level`.
    pub const fn of(&self, level: FailureLevel) -> Nanos {
        match level {
            FailureLevel::Os => self.os,
            FailureLevel::Application => self.application,
            FailureLevel::Session => self.session,
        }
    }
}

/// A cluster of alike nodes, each watched by a monitor of its own.
///
/// Nodes share nothing, so ten nodes for a minute tell as much as one node for ten.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Number of monitored nodes.
    pub nodes: usize,
    /// The processors of each.
    pub cpu: CpuParams,
    /// Always-busy tasks on each, besides what its workload does.
    pub load: usize,
    /// What each does.
    pub workload: Workload,
    /// What the Progress Box says each entity's deadline is. Not looked at when silences are recorded.
    pub deadlines: Deadlines,
    /// How the monitor polls.
    pub monitor: MonitorConfig,
    /// How the monitor learns of the node's progress.
    pub mode: Mode,
    /// CPU time of the node's agent, in modes that have one.
    pub agent: AgentCosts,
    /// The monitor is a task on the node's own run queue, as in a live experiment on one machine: it polls late under
    /// load, and stops when the node freezes. Otherwise it has a machine of its own.
    pub monitor_shares_cpu: bool,
    /// CPU time of each step of such a monitor (posting a poll, looking at what came back).
    pub monitor_work: Nanos,
    /// Stretches in which the monitor's own machine stands still, and the monitor with it.
    pub observer_stalls: Option<Pauses>,
    /// Time that a message takes from monitor to node, or back.
    pub network_delay: Dist,
    /// Fraction of messages that are lost; the card sends them again.
    pub network_loss: f64,
    /// The network card.
    pub nic: SimNicConfig,
    /// What goes wrong.
    pub faults: FaultOptions,
    /// Time from the start during which nothing is measured.
    pub warm_up: Nanos,
    /// When the run ends, warm-up included.
    pub duration: Nanos,
}

impl Default for Scenario {
    /// One node of two cores without load or faults, polled every millisecond through a network of 2 µs, for 60 s.
    fn default() -> Self {
        Scenario {
            nodes: 1,
            cpu: CpuParams::default(),
            load: 0,
            workload: Workload::default(),
            deadlines: Deadlines::all(Nanos::from_millis(50)),
            monitor: MonitorConfig::polling_every(Nanos::from_millis(1)),
            mode: Mode::Read,
            agent: AgentCosts::default(),
            monitor_shares_cpu: false,
            monitor_work: Nanos::from_micros(5),
            observer_stalls: None,
            network_delay: Dist::constant(Nanos::from_micros(2)),
            network_loss: 0.0,
            nic: SimNicConfig::default(),
            faults: FaultOptions::default(),
            warm_up: Nanos::from_secs(1),
            duration: Nanos::from_secs(60),
        }
    }
}

/// Why a scenario can't be: each is one sentence to show to whoever wrote it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ScenarioError {
    /// The processors.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// The network card.
    #[error(transparent)]
    Nic(#[from] SimNicConfigError),
    /// A count that must not be zero.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// A span that must not be zero, or the simulation would not advance.
    #[error("{0} must be more than zero, or the simulation would stand still")]
    NoTime(&'static str),
    /// A fraction outside its range.
    #[error("{name} must lie from 0 to {below}, not {value}")]
    Fraction {
        /// Which.
        name: &'static str,
        /// Upper end.
        below: &'static str,
        /// What it is.
        value: f64,
    },
    /// More entities than a Progress Box holds.
    #[error("{entities} entities per node do not fit a Progress Box, which holds {MAX_ENTITIES}")]
    TooMany {
        /// How many.
        entities: usize,
    },
    /// A State Box of impossible size.
    #[error("a session's state must have 1 to {MAX_PAYLOAD_BYTES} bytes, not {0}")]
    StateSize(usize),
    /// Nothing would be measured.
    #[error("the run ends at {duration}, before its warm-up of {warm_up} does")]
    WarmUp {
        /// The warm-up.
        warm_up: Nanos,
        /// The end.
        duration: Nanos,
    },
    /// A negative or infinite rate of faults.
    #[error("the rate of faults must be finite and not negative")]
    Rate(f64),
    /// Weights of the fault levels that weigh nothing.
    #[error("the weights of the fault levels must be finite and not negative, and not all zero")]
    Weights,
    /// Faults of sessions or applications that don't exist.
    #[error("faults strike at level '{0}', and the workload has none of those")]
    NoVictim(FailureLevel),
    /// Something is to break down that is not there.
    #[error("the workload has no {0}, which is to break down")]
    Lacks(&'static str),
    /// More work than the cores can do.
    #[error("the workload needs {utilisation:.2} cores and the node has {cores}: requests would pile up without end")]
    Overload {
        /// CPU time per time.
        utilisation: f64,
        /// Cores.
        cores: usize,
    },
    /// Two answers to where the monitor runs.
    #[error("a monitor that shares the node's processors can only read its memory, or be a watchdog, not {0}")]
    SharedMode(Mode),
    /// More always-busy tasks than anybody means.
    #[error("a load of {0} tasks is more than the {MAX_LOAD} that can be simulated")]
    TooMuchLoad(usize),
    /// State Boxes that would fill the memory of the machine that simulates.
    #[error("the states of all sessions are {} MiB, more than the {} that can be simulated", bytes >> 20, MAX_STATE_TOTAL >> 20)]
    TooMuchState {
        /// All of them together.
        bytes: usize,
    },
    /// More events than anybody waits for.
    #[error(
        "one run takes about {events:.0e} events, more than the {MAX_EVENTS:.0e} that are simulated: make it shorter, or its intervals longer"
    )]
    TooLong {
        /// About how many.
        events: f64,
    },
}

impl ScenarioError {
    /// The setting that is to blame, by the name that configurations give it; `None` where it is several together.
    pub fn setting(&self) -> Option<&'static str> {
        match self {
            ScenarioError::Cpu(CpuError::NoCores) => Some("cores"),
            ScenarioError::Zero(name) | ScenarioError::NoTime(name) => name.rsplit(' ').next(),
            ScenarioError::Fraction { name, .. } => Some(name),
            ScenarioError::TooMany { .. } | ScenarioError::NoVictim(FailureLevel::Session) => Some("sessions"),
            ScenarioError::NoVictim(FailureLevel::Application) => Some("applications"),
            ScenarioError::Lacks("session") => Some("sessions"),
            ScenarioError::Lacks("application") => Some("applications"),
            ScenarioError::StateSize(_) | ScenarioError::TooMuchState { .. } => Some("state_bytes"),
            ScenarioError::WarmUp { .. } => Some("duration"),
            ScenarioError::SharedMode(_) => Some("monitor_shares_cpu"),
            ScenarioError::Rate(_) => Some("per_minute"),
            ScenarioError::Weights => Some("levels"),
            ScenarioError::TooMuchLoad(_) => Some("load"),
            _ => None,
        }
    }
}

impl Scenario {
    /// Entities of one node: a counter per core, the migrating one, applications, sessions, processes of the chain, disk.
    pub fn entities_per_node(&self) -> usize {
        // Saturating, because it is asked before anything has been checked.
        let own = self.cpu.cores.saturating_add(1).saturating_add(self.workload.applications);
        let services = self.workload.processes().saturating_add(usize::from(self.workload.disk.is_some()));
        own.saturating_add(self.workload.total_sessions()).saturating_add(services)
    }

    /// Whether the monitor is a task of the node.
    pub(super) fn monitor_is_on_node(&self) -> bool {
        self.monitor_shares_cpu || self.mode == Mode::Watchdog
    }

    /// CPU time of each step of a monitor that is.
    pub(super) fn monitor_step_work(&self) -> Nanos {
        match self.mode {
            // What it posts is there at once, so a poll is one step.
            Mode::Watchdog => self.mode.work(&self.agent, self.entities_per_node() as u64),
            _ => self.monitor_work,
        }
    }

    /// Whether it can be simulated.
    pub fn check(&self) -> Result<(), ScenarioError> {
        use ScenarioError as E;
        self.cpu.check()?;
        self.nic.validate()?;
        let work = &self.workload;
        at_least_one("the number of nodes", self.nodes)?;
        at_least_one("commit_every", usize::try_from(work.commit_every).unwrap_or(usize::MAX))?;
        for (name, span) in [
            ("tick_interval", work.tick_interval),
            ("loop_interval", work.loop_interval),
            ("the mean of request_interval", work.request_interval.mean()),
            ("poll_interval", self.monitor.poll_interval),
            ("retry_interval", self.monitor.retry_interval),
            ("read_timeout", self.monitor.read_timeout),
        ] {
            more_than_zero(name, span)?;
        }
        for (name, pauses) in [
            ("the mean interval of pauses", work.pauses),
            ("the mean interval of observer_stalls", self.observer_stalls),
        ] {
            if let Some(pauses) = pauses {
                more_than_zero(name, pauses.interval.mean())?;
            }
        }
        if let Some(chain) = work.chain {
            at_least_one("processes", chain.processes)?;
            more_than_zero("the mean of the chain's request_interval", chain.request_interval.mean())?;
        }
        if let Some(disk) = work.disk {
            at_least_one("every", usize::try_from(disk.every).unwrap_or(usize::MAX))?;
            more_than_zero("retry_after", disk.retry_after)?;
        }
        let entities = self.entities_per_node();
        if entities > MAX_ENTITIES {
            return Err(E::TooMany { entities });
        }
        if let Some(bytes) = work.state_bytes.filter(|bytes| !(1..=MAX_PAYLOAD_BYTES).contains(bytes)) {
            return Err(E::StateSize(bytes));
        }
        if !(0.0..1.0).contains(&self.network_loss) {
            return Err(E::Fraction { name: "network_loss", below: "less than 1", value: self.network_loss });
        }
        if self.monitor_shares_cpu && matches!(self.mode, Mode::Pull | Mode::Push) {
            return Err(E::SharedMode(self.mode));
        }
        if self.warm_up >= self.duration {
            return Err(E::WarmUp { warm_up: self.warm_up, duration: self.duration });
        }
        let (utilisation, cores) = (work.utilisation(self.cpu.cores), self.cpu.cores);
        if utilisation >= cores as f64 {
            return Err(E::Overload { utilisation, cores });
        }
        self.check_faults()?;
        self.check_cost()
    }

    fn check_faults(&self) -> Result<(), ScenarioError> {
        use ScenarioError as E;
        let faults = &self.faults;
        if !(0.0..=1.0).contains(&faults.corrupt_fraction) {
            return Err(E::Fraction { name: "corrupt_fraction", below: "1", value: faults.corrupt_fraction });
        }
        let weights = faults.level_weights;
        if weights.iter().any(|w| !(w.is_finite() && *w >= 0.0)) {
            return Err(E::Weights);
        }
        match faults.arrivals {
            Arrivals::Never => return Ok(()),
            Arrivals::Poisson { per_second } if !(per_second.is_finite() && per_second >= 0.0) => {
                return Err(E::Rate(per_second));
            }
            Arrivals::OneAtATime { gap } => {
                let repair = faults.repair_after.map_or(Nanos::MAX, |dist| dist.mean());
                more_than_zero("the mean time from fault to fault", gap.mean() + repair)?;
            }
            _ => {}
        }
        if weights.iter().sum::<f64>() <= 0.0 {
            return Err(E::Weights);
        }
        let there = [1, self.workload.applications, self.workload.total_sessions()];
        for ((level, weight), count) in FailureLevel::ALL.into_iter().zip(weights).zip(there) {
            if weight > 0.0 && count == 0 {
                return Err(E::NoVictim(level));
            }
        }
        Ok(())
    }
}

fn at_least_one(name: &'static str, count: usize) -> Result<(), ScenarioError> {
    if count == 0 { Err(ScenarioError::Zero(name)) } else { Ok(()) }
}

fn more_than_zero(name: &'static str, span: Nanos) -> Result<(), ScenarioError> {
    if span == Nanos::ZERO { Err(ScenarioError::NoTime(name)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Scenario)) -> String {
        let mut scenario = Scenario::default();
        change(&mut scenario);
        scenario.check().unwrap_err().to_string()
    }

    #[test]
    fn the_default_is_possible() {
        assert_eq!(Scenario::default().check(), Ok(()));
    }

    #[test]
    fn the_impossible_is_refused_with_a_sentence() {
        assert_eq!(refused(|s| s.nodes = 0), "the number of nodes must be at least 1");
        assert!(refused(|s| s.cpu.cores = 0).contains("core"));
        assert!(refused(|s| s.monitor.poll_interval = Nanos::ZERO).starts_with("poll_interval"));
        assert!(refused(|s| s.network_loss = 1.0).starts_with("network_loss must lie from 0 to less than 1"));
        assert!(refused(|s| s.workload.sessions = 70_000).contains("70004 entities"));
        assert!(refused(|s| s.workload.state_bytes = Some(0)).contains("bytes, not 0"));
        assert!(refused(|s| s.warm_up = s.duration).contains("warm-up"));
        assert!(refused(|s| s.workload.service_work = Dist::constant(Nanos::from_millis(50))).contains("pile up"));
        let struck = |s: &mut Scenario| s.faults.arrivals = Arrivals::Poisson { per_second: 1.0 };
        assert!(refused(|s| (struck(s), s.workload.sessions = 0).0).contains("level 'session'"));
        assert!(refused(|s| (struck(s), s.faults.level_weights = [0.0; 3]).0).contains("not all zero"));
    }
}
