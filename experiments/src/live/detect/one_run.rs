//! One run: a worker lives, fails, and is read out.

use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_host::clock;
use backdoor_sim::streams::Streams;
use rand::RngExt;

use super::cast::{Cast, PATIENCE};
use super::clients::Clients;
use super::faults::Means;
use super::judge::{Evidence, Fault, Hit, Sign};
use super::report::DetectRow;
use super::service::Service;
use super::verify::{States, verify};
use super::{DetectConfig, DetectError, FailureKind};
use crate::interrupt::Interrupt;
use crate::live::notice::{Notice, What};
use crate::live::parts::{Part, PartSignal, Report};

/// How often a wait looks whether somebody asked to stop.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A failure comes up to this much after the healthy part: at any phase of polls and ticks.
const JITTER: Nanos = Nanos::from_millis(50);

/// Fields are dropped in this order: clients notice at once that a worker has ended, and a link that was taken down is
/// up again before the rest is talked to.
pub(super) struct OneRun<'a> {
    means: Means,
    worker: Part,
    clients: Clients,
    config: &'a DetectConfig,
    number: u32,
    cast: &'a mut Cast,
    streams: Streams,
    states: States,
    began: Nanos,
    notices: Vec<Notice>,
}

impl<'a> OneRun<'a> {
    /// Starts a worker and its clients, and waits until the monitor watches all of them.
    pub(super) fn start(
        config: &'a DetectConfig,
        number: u32,
        streams: Streams,
        cast: &'a mut Cast,
    ) -> Result<Self, DetectError> {
        let means = Means::prepare(config, &cast.node.place)?;
        let began = clock::now();
        let Service { worker, clients, states } = Service::start(config, &cast.node, &streams)?;
        let notices = Vec::new();
        let mut run = OneRun { means, worker, clients, config, number, cast, streams, states, began, notices };
        let joined = |run: &mut Self| {
            let evidence = run.evidence();
            let ours = |notice: &&Notice| matches!(&notice.what, What::Joined { entity } if evidence.is_ours(entity));
            run.notices.iter().filter(ours).count() as u64 > config.sessions && run.clients.all_served()
        };
        match run.wait(clock::now() + Nanos(PATIENCE.as_nanos() as u64), &Interrupt::new(), joined)? {
            Waited::Enough => Ok(run),
            _ => Err(DetectError::Blind { what: "see the worker and its sessions", waited: PATIENCE }),
        }
    }

    /// Plays it to its end; `None` if somebody asked to stop.
    pub(super) fn play(mut self, interrupt: &Interrupt) -> Result<Option<DetectRow>, DetectError> {
        let mut random = self.streams.stream("fault");
        let fails = self.config.failure != FailureKind::None;
        let jitter = if fails { Nanos(random.random_range(0..JITTER.0)) } else { Nanos::ZERO };
        let fail_at = clock::now() + self.config.healthy + jitter;
        if self.wait(fail_at, interrupt, |_| false)? == Waited::Interrupted {
            return Ok(None);
        }
        // It must have lived until now.
        if self.worker.receive::<Report>(Duration::ZERO)?.is_some() {
            return Err(DetectError::Config("the worker failed before it was told to".into()));
        }
        let client = random.random_range(0..self.config.sessions);
        let fault = match fails {
            true => Some(self.means.fail(self.config, client, &self.cast.node.place, &mut self.worker)?),
            false => None,
        };
        if let Some(fault) = fault {
            let complete = |run: &mut Self| run.evidence().is_complete(fault);
            if self.wait(fault.at + self.config.limit(), interrupt, complete)? == Waited::Interrupted {
                return Ok(None);
            }
        }
        self.row(fault).map(Some)
    }

    /// Takes notices in until `enough` or until `end`.
    fn wait(
        &mut self,
        end: Nanos,
        interrupt: &Interrupt,
        mut enough: impl FnMut(&mut Self) -> bool,
    ) -> Result<Waited, DetectError> {
        loop {
            if enough(self) {
                return Ok(Waited::Enough);
            }
            let left = Duration::from_nanos((end - clock::now()).0);
            if left.is_zero() {
                return Ok(Waited::End);
            }
            if interrupt.requested() {
                return Ok(Waited::Interrupted);
            }
            self.check_node()?;
            let notice = self.cast.notice(left.min(LOOK_EVERY))?;
            self.notices.extend(notice);
        }
    }

    /// A stage that goes of its own accord takes the worker with it, and that is not the failure to be measured.
    fn check_node(&self) -> Result<(), DetectError> {
        if self.means.node_has_failed() { Ok(()) } else { Ok(self.cast.node.place.check()?) }
    }

    fn evidence(&self) -> Evidence<'_> {
        let worker = u64::from(self.worker.id());
        Evidence { worker, past: &self.cast.past, began: self.began, notices: &self.notices }
    }

    /// Ends the worker and counts.
    fn row(mut self, fault: Option<Fault>) -> Result<DetectRow, DetectError> {
        let end = clock::now();
        self.check_node()?;
        let evidence = self.evidence();
        let false_positives = evidence.false_positives(fault);
        let detected = fault.and_then(|fault| evidence.detection(fault));
        let explanation = match (fault, detected) {
            (Some(fault), Some((_, Sign::Suspicion))) => {
                evidence.explanation(fault, true).or_else(|| evidence.explanation(fault, false))
            }
            // What can't be reached is neither diagnosed nor read.
            _ => None,
        };
        let channel = detected.map_or("", |(_, sign)| sign.of_channel());
        let cause = explanation.map_or(channel, |(cause, _)| cause).to_string();
        let recovery = explanation.and_then(|(_, recovery)| recovery.cloned());
        let config = self.config;
        let failed: Vec<u64> = match fault.map(|fault| fault.hit) {
            None | Some(Hit::Link) => Vec::new(),
            Some(Hit::Session(client)) => vec![client],
            Some(Hit::Worker | Hit::Service | Hit::Node) => (0..config.sessions).collect(),
        };
        // A stopped worker holds its connections open; its end lets the clients read what it had answered.
        let _ = self.worker.signal(PartSignal::Kill);
        self.clients.end();
        let affected = failed.len() as u64;
        let verdict = recovery
            .as_ref()
            .map(|recovery| verify(self.states, recovery, failed.into_iter(), self.clients.known()))
            .unwrap_or_default();
        self.cast.past.insert(u64::from(self.worker.id()));
        let late = self.notices.iter().filter(|notice| matches!(notice.what, What::Late { .. })).count();
        self.means.undo()?;
        Ok(DetectRow {
            run: self.number,
            failure: config.failure.name().into(),
            level: config.failure.level().into(),
            transport: config.transport.name().into(),
            deadline_ms: config.deadline.as_millis_f64(),
            poll_ms: config.poll.as_millis_f64(),
            load: config.load,
            detected: detected.is_some(),
            detection_ms: fault.and_then(|fault| Some((detected?.0 - fault.at).as_millis_f64())),
            false_positives: false_positives.iter().sum(),
            cause,
            sessions: config.sessions,
            affected,
            recovered: verdict.recovered,
            recovered_ok: verdict.right,
            extraction_ms: recovery.as_ref().map(|recovery| Nanos(recovery.took_ns).as_millis_f64()),
            bytes_read: recovery.as_ref().map(|recovery| recovery.bytes_read),
            injection_ms: fault.and_then(|fault| Some(fault.injection?.as_millis_f64())),
            healthy_ms: (fault.map_or(end, |fault| fault.at) - self.began).as_millis_f64(),
            late_samples: late as u64,
            false_os: false_positives[0],
            false_application: false_positives[1],
            false_session: false_positives[2],
            clock_error_ms: fault.map_or(0.0, |fault| fault.clock_error.as_millis_f64()),
            detector: config.detector.name().into(),
            queues: config.queues,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    Enough,
    End,
    Interrupted,
}
