//! A backup that is told of every change before its answer goes out, as primary and backup do it (Alsberg and Day 1976;
//! Budhiraja, Marzullo, Schneider and Toueg 1993).
//!
//! ```text
//!   handler: service + send ──update──▶ [run queue of the backup: receive + send] ──acknowledgement──▶ handler: receive,
//!                                                                                                      answer
//! ```
//!
//! What that costs a request comes out of the two run queues and the network between them. A State Box costs a store into
//! memory instead, and nobody waits.

use backdoor_core::Nanos;

use super::mode::AgentCosts;
use super::node::{Node, at_least};
use super::path::RandomPath;
use super::scenario::Scenario;
use super::wire::Wire;
use super::{Agenda, What};
use crate::cpu::{Affinity, CpuError, CpuModel, TaskId};
use crate::engine::EventId;
use crate::streams::Streams;

/// What a session's handler is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Serving,
    /// The backup has been told.
    Waiting,
    /// It has acknowledged.
    Answering,
}

/// A session: its task at the backup, and what its handler is at.
#[derive(Debug)]
struct Line {
    task: TaskId,
    step: Step,
}

/// The backup, and the way there.
#[derive(Debug)]
pub(super) struct BackupState {
    pub(super) cpu: CpuModel,
    event: Option<(EventId, Nanos)>,
    lines: Vec<Line>,
    wire: Wire,
    costs: AgentCosts,
    /// Of an update.
    words: u64,
}

impl BackupState {
    pub(super) fn new(scenario: &Scenario, streams: &Streams) -> Result<Option<Self>, CpuError> {
        let Some(backup) = scenario.workload.backup else { return Ok(None) };
        let mut cpu = CpuModel::new(backup.cpu)?;
        cpu.set_load(Nanos::ZERO, backup.load);
        let line = |_| {
            let task = cpu.add_task(Affinity::Free)?;
            Ok(Line { task, step: Step::default() })
        };
        let lines = (0..scenario.workload.total_sessions()).map(line).collect::<Result<_, CpuError>>()?;
        let path = RandomPath::new(scenario.network_delay, scenario.network_loss, streams.stream("backup network"));
        let bytes = backup.update_bytes.or(scenario.workload.state_bytes).unwrap_or(0);
        Ok(Some(BackupState {
            cpu,
            event: None,
            lines,
            wire: Wire::new(path, scenario.nic.clone()),
            costs: scenario.agent,
            words: bytes.div_ceil(8) as u64,
        }))
    }

    fn copy(&self) -> Nanos {
        self.costs.per_kiloword * self.words / 1024
    }

    /// CPU time that the primary's handler needs to send an update.
    pub(super) fn send_work(&self) -> Nanos {
        self.costs.send + self.copy()
    }

    /// CPU time that the backup has spent on updates until the last call with a time.
    pub(super) fn cpu_time(&self) -> Nanos {
        self.lines.iter().map(|line| self.cpu.cpu_time(line.task)).fold(Nanos::ZERO, |sum, time| sum + time)
    }

    fn plan(&mut self, agenda: &mut Agenda<'_>) {
        let next = self.cpu.next_change();
        agenda.keep(&mut self.event, next, What::BackupCpu);
    }
}

impl Node {
    /// A handler has done its work. If the backup has to hear of it first, it does, and the answer has to wait.
    pub(super) fn tells_backup(&mut self, index: usize, agenda: &mut Agenda<'_>) -> bool {
        let every = self.work.commit_every;
        let Some(backup) = &mut self.backup else { return false };
        let line = &mut backup.lines[index];
        if line.step == Step::Answering {
            line.step = Step::Serving;
            return false;
        }
        if !(self.sessions[index].served + 1).is_multiple_of(every) {
            return false;
        }
        line.step = Step::Waiting;
        let arrives = backup.wire.send(agenda.now(), backup.words);
        agenda.at(arrives, What::ToBackup(index as u32));
        true
    }

    /// An update gets to the backup.
    pub(super) fn backup_hears(&mut self, index: usize, agenda: &mut Agenda<'_>) {
        let Some(backup) = &mut self.backup else { return };
        let work = backup.costs.wake + backup.costs.receive + backup.copy() + backup.costs.send;
        backup.cpu.wake(agenda.now(), backup.lines[index].task, at_least(work));
        backup.plan(agenda);
    }

    /// The backup's processors change.
    pub(super) fn backup_runs(&mut self, agenda: &mut Agenda<'_>) {
        let Some(backup) = &mut self.backup else { return };
        backup.event = None;
        backup.cpu.advance(agenda.now());
        while let Some(done) = backup.cpu.next_finished() {
            let Some(index) = backup.lines.iter().position(|line| line.task == done.task) else { continue };
            let arrives = backup.wire.answer(done.at, 0);
            agenda.at(arrives, What::FromBackup(index as u32));
        }
        backup.plan(agenda);
    }

    /// The backup's acknowledgement comes back.
    pub(super) fn backup_has_heard(&mut self, index: usize, agenda: &mut Agenda<'_>) {
        let Some(backup) = &mut self.backup else { return };
        backup.lines[index].step = Step::Answering;
        let work = backup.costs.wake + backup.costs.receive;
        self.cpu.wake(agenda.now(), self.sessions[index].task, at_least(work));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Overhead, overhead};
    use crate::dist::Dist;
    use crate::streams::StreamKey;
    use crate::workload::Backup;

    /// Mean time of a request, and what was measured, of a session that is alone on the node.
    fn requests(change: impl FnOnce(&mut Scenario)) -> (Nanos, Overhead) {
        let mut scenario = Scenario { duration: Nanos::from_secs(5), ..Scenario::default() };
        let work = &mut scenario.workload;
        (work.sessions, work.state_bytes) = (1, None);
        (work.tick_work, work.loop_work) = (Nanos(1), Nanos(1));
        work.service_work = Dist::constant(Nanos::from_micros(500));
        work.request_interval = Dist::constant(Nanos::from_millis(7));
        change(&mut scenario);
        let streams = Streams::new(StreamKey { seed: 1, experiment: "backup", point: "", replication: 0 });
        let measured = overhead(&scenario, &streams).unwrap();
        let sum = measured.served_in.iter().fold(Nanos::ZERO, |sum, time| sum + *time);
        (sum / measured.served_in.len() as u64, measured)
    }

    #[test]
    fn an_answer_waits_for_the_backup_and_its_run_queue() {
        let alone = requests(|_| ()).0;
        let (told, measured) = requests(|s| s.workload.backup = Some(Backup::default()));
        let AgentCosts { wake, receive, send, .. } = AgentCosts::default();
        // Send; there; wake, receive, send; back; wake, receive.
        let least = send + Nanos::from_micros(2) + wake + receive + send + Nanos::from_micros(2) + wake + receive;
        let added = told - alone;
        assert!(added >= least && added < least + Nanos::from_micros(1), "{added}, at least {least}");
        assert!(measured.backup_cpu >= (wake + receive + send) * measured.served_in.len() as u64);

        let busy = requests(|s| s.workload.backup = Some(Backup { load: 4, ..Backup::default() })).0;
        assert!(busy > told + Nanos::from_micros(100), "a backup that is busy: {busy} after {told}");
    }

    #[test]
    fn a_larger_update_takes_longer_and_a_rarer_one_less() {
        let of = |update_bytes, commit_every| {
            requests(|s| {
                s.workload.backup = Some(Backup { update_bytes: Some(update_bytes), ..Backup::default() });
                s.workload.commit_every = commit_every;
            })
            .0
        };
        let (small, large, seldom) = (of(256, 1), of(1 << 17, 1), of(1 << 17, 10));
        assert!(small < large && seldom < large && seldom > requests(|_| ()).0, "{small} {large} {seldom}");
    }
}
