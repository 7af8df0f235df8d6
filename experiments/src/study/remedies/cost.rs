//! What a request pays for being survivable while nothing fails.

use super::Point;
use crate::config::{Axis as Values, ConfigError, Span};
use crate::runner::TaskError;
use crate::stats;
use crate::study::limits::Complaint;
use crate::study::row::row;
use backdoor_sim::cluster::{Overhead, Scenario, overhead};
use backdoor_sim::faults::Arrivals;
use backdoor_sim::streams::Streams;
use backdoor_sim::workload::Backup;
use serde::{Deserialize, Serialize};

/// What is compared, besides having nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::study) enum Protection {
    /// The state is stored into a State Box.
    StateBox,
    /// It is sent to a backup.
    Backup,
    /// The change is sent to a backup.
    BackupUpdate,
}

impl Protection {
    const ALL: [Protection; 3] = [Protection::StateBox, Protection::Backup, Protection::BackupUpdate];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Protection::StateBox => "state-box",
            Protection::Backup => "backup",
            Protection::BackupUpdate => "backup-update",
        }
    }
}

/// What is swept for it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cost {
    sessions: u64,
    state_bytes: Values<u64>,
    /// Requests from one save to the next.
    commit_every: Values<u64>,
    /// Bytes of a change, where it is changes that a backup is told.
    pub(super) update_bytes: u64,
    duration: Span,
}

row! {
    /// Times are in microseconds. What is added is the difference from the same requests without any protection.
    pub(super) struct CostRow {
        protection: String,
        state_bytes: u64,
        commit_every: u64,
        replications: u64,
        requests: u64,
    }
    estimates {
        request_us,
        added_request_us,
        added_cpu_us,
        backup_cpu_us,
    }
}

/// Means of one replication, per request, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(in crate::study) struct Run {
    requests: u64,
    pub(in crate::study) request_us: f64,
    pub(in crate::study) added_request_us: f64,
    pub(in crate::study) cpu_us: f64,
    pub(in crate::study) added_cpu_us: f64,
    backup_cpu_us: f64,
}

impl Cost {
    pub(super) fn count(&self) -> usize {
        Protection::ALL.len().saturating_mul(self.state_bytes.len()).saturating_mul(self.commit_every.len())
    }

    pub(super) fn check(&self, invalid: &Complaint<'_>) -> Result<(), ConfigError> {
        if self.sessions == 0 {
            return Err(invalid("cost.sessions", "must be at least 1, or there are no requests".into()));
        }
        Ok(())
    }

    pub(super) fn points(&self) -> Vec<Point> {
        let mut points = Vec::new();
        for commit_every in self.commit_every.iter().copied() {
            for protection in Protection::ALL {
                let point = |state_bytes: &u64| Point::Cost { protection, state_bytes: *state_bytes, commit_every };
                points.extend(self.state_bytes.iter().map(point));
            }
        }
        points
    }

    /// `base` as this point wants it.
    pub(super) fn scenario(&self, base: Scenario, point: &Point) -> Scenario {
        let mut scenario = Scenario { duration: base.warm_up + self.duration.0, ..base };
        scenario.faults.arrivals = Arrivals::Never;
        scenario.workload.sessions = self.sessions as usize;
        if let Point::Cost { protection, state_bytes, commit_every } = *point {
            let work = &mut scenario.workload;
            work.commit_every = commit_every;
            let backup = |bytes| Some(Backup { update_bytes: Some(bytes as usize), ..Backup::default() });
            (work.state_bytes, work.backup) = match protection {
                Protection::StateBox => (Some(state_bytes as usize), None),
                Protection::Backup => (None, backup(state_bytes)),
                Protection::BackupUpdate => (None, backup(self.update_bytes)),
            };
        }
        scenario
    }
}

/// One replication, and the same requests without protection.
pub(in crate::study) fn measure(scenario: &Scenario, streams: &Streams) -> Result<Run, TaskError> {
    let mut bare = scenario.clone();
    (bare.workload.state_bytes, bare.workload.backup) = (None, None);
    let (with, without) = (overhead(scenario, streams)?, overhead(&bare, streams)?);
    let request =
        |measured: &Overhead| per_request(measured, measured.served_in.iter().map(|time| time.as_micros_f64()).sum());
    let cpu = |measured: &Overhead| per_request(measured, measured.session_cpu.as_micros_f64());
    Ok(Run {
        requests: with.served_in.len() as u64,
        request_us: request(&with),
        added_request_us: request(&with) - request(&without),
        cpu_us: cpu(&with),
        added_cpu_us: cpu(&with) - cpu(&without),
        backup_cpu_us: per_request(&with, with.backup_cpu.as_micros_f64()),
    })
}

fn per_request(measured: &Overhead, sum: f64) -> f64 {
    sum / (measured.served_in.len() as f64).max(1.0)
}

pub(super) fn row(protection: Protection, state_bytes: u64, commit_every: u64, runs: &[Run]) -> CostRow {
    let over_runs = |of: fn(&Run) -> f64| stats::mean(&runs.iter().map(of).collect::<Vec<f64>>());
    CostRow {
        protection: protection.name().to_owned(),
        state_bytes,
        commit_every,
        replications: runs.len() as u64,
        requests: runs.iter().map(|run| run.requests).sum(),
        request_us: over_runs(|run| run.request_us),
        added_request_us: over_runs(|run| run.added_request_us),
        added_cpu_us: over_runs(|run| run.added_cpu_us),
        backup_cpu_us: over_runs(|run| run.backup_cpu_us),
    }
}
