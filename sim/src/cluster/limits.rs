//! What one run may cost, so that a slip in a configuration is refused before it fills the machine or the week.
//!
//! The bounds are far above what a study needs and what they guard is only time and memory, so estimates do.

use super::mode::Mode;
use super::scenario::{Scenario, ScenarioError};
use crate::faults::Arrivals;

/// Most always-busy tasks.
pub const MAX_LOAD: usize = 100_000;
/// Most bytes of state in all sessions of all nodes.
pub const MAX_STATE_TOTAL: usize = 1 << 30;
/// Most events of one run: minutes of computing.
pub const MAX_EVENTS: f64 = 5e8;

impl Scenario {
    /// About how many events a run takes: arrivals and ends of work, slices, polls, faults.
    pub fn expected_events(&self) -> f64 {
        let work = &self.workload;
        let sessions = work.total_sessions() as f64;
        let ticks = 2.0 * (self.cpu.cores as f64 + 1.0) / work.tick_interval.as_secs_f64();
        let turn = work.loop_interval.as_secs_f64() + work.loop_jitter.mean_s() + work.loop_work.as_secs_f64();
        let loops = 3.0 * work.applications as f64 / turn;
        let requests = 4.0 * sessions / work.request_interval.mean_s();
        let pauses = work.pauses.map_or(0.0, |pauses| 2.0 * work.applications as f64 / pauses.interval.mean_s());
        // Each process takes a request up, works, and answers; so does the disk.
        let chain = work.chain.map_or(0.0, |c| (1.0 + 8.0 * c.processes as f64) / c.request_interval.mean_s());
        let reads = work.disk.map_or(0.0, |disk| 3.0 * work.applications as f64 / (turn * disk.every as f64));
        let slices = if self.load > 0 { self.cpu.cores as f64 / self.cpu.slice.as_secs_f64() } else { 0.0 };
        // A poll looks at all counters, which costs little for each, and is sent again when it is lost.
        // Messages have their agent: its wake-up, its turn, its end.
        let steps = if matches!(self.mode, Mode::Pull | Mode::Push) { 10.0 } else { 6.0 };
        let poll = (steps + self.entities_per_node() as f64 / 100.0) / (1.0 - self.network_loss);
        let polls = poll / self.monitor.poll_interval.as_secs_f64();
        let faults = match self.faults.arrivals {
            Arrivals::Never | Arrivals::Once { .. } => 0.0,
            Arrivals::Poisson { per_second } => 4.0 * per_second,
            Arrivals::OneAtATime { gap } => {
                4.0 / (gap.mean_s() + self.faults.repair_after.map_or(f64::INFINITY, |repair| repair.mean_s()))
            }
        };
        let rate = chain + reads + ticks + loops + requests + pauses + slices + polls + faults;
        self.nodes as f64 * self.duration.as_secs_f64() * rate
    }

    /// Refuses what can be simulated in principle only.
    pub(super) fn check_cost(&self) -> Result<(), ScenarioError> {
        if self.load > MAX_LOAD {
            return Err(ScenarioError::TooMuchLoad(self.load));
        }
        let bytes = self.workload.state_bytes.unwrap_or(0);
        let total = bytes.saturating_mul(self.workload.total_sessions()).saturating_mul(self.nodes);
        if total > MAX_STATE_TOTAL {
            return Err(ScenarioError::TooMuchState { bytes: total });
        }
        let events = self.expected_events();
        if events > MAX_EVENTS {
            return Err(ScenarioError::TooLong { events });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::Dist;
    use backdoor_core::Nanos;

    fn refused(change: impl FnOnce(&mut Scenario)) -> ScenarioError {
        let mut scenario = Scenario::default();
        change(&mut scenario);
        scenario.check().unwrap_err()
    }

    #[test]
    fn the_absurd_is_refused() {
        assert!(refused(|s| s.load = 1_000_000_000).to_string().contains("a load of 1000000000"));
        for long in [
            refused(|s| s.monitor.poll_interval = Nanos(1)),
            refused(|s| s.duration = Nanos::from_secs(3600 * 24 * 365)),
            refused(|s| s.network_loss = 0.999_999_9),
            refused(|s| s.faults.arrivals = Arrivals::Poisson { per_second: 1e300 }),
            refused(|s| (s.workload.loop_interval, s.workload.loop_work) = (Nanos(1), Nanos::ZERO)),
        ] {
            assert!(matches!(long, ScenarioError::TooLong { .. }), "{long}");
            assert_eq!(long.setting(), None);
        }
        let large = refused(|s| {
            s.workload.sessions = 100;
            s.workload.state_bytes = Some(1 << 24);
            s.workload.request_interval = Dist::constant(Nanos::from_secs(60));
        });
        assert!(large.to_string().contains("1600 MiB") && large.setting() == Some("state_bytes"), "{large}");
        // Products of absurd numbers must not wrap around into something small.
        let wrapping = refused(|s| (s.workload.applications, s.workload.sessions) = (usize::MAX / 2, 2));
        assert!(matches!(wrapping, ScenarioError::TooMany { .. }), "{wrapping}");
    }

    #[test]
    fn a_rate_that_is_none_is_refused_whatever_it_is() {
        for per_second in [f64::NAN, -1.0, f64::INFINITY] {
            let error = refused(|s| s.faults.arrivals = Arrivals::Poisson { per_second });
            assert_eq!(error.setting(), Some("per_minute"), "{error}");
        }
        // Even where no fault strikes: a weight that is no number is a mistake.
        assert_eq!(refused(|s| s.faults.level_weights = [f64::NAN, 1.0, 1.0]).setting(), Some("levels"));
    }
}
