//! One run: a worker lives, fails, and is read out.

use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_host::clock;
use backdoor_sim::streams::Streams;
use rand::{Rng, RngExt};
use rustix::process::Signal;

use super::clients::Clients;
use super::report::DetectRow;
use super::stage::{PATIENCE, Stage};
use super::verify::{States, verify};
use super::{DetectConfig, DetectError, FailureKind};
use crate::config::Span;
use crate::interrupt::Interrupt;
use crate::live::notice::{Entity, Notice, Recovery, What};
use crate::live::parts::{Order, Part, Report, Role, session_name};

/// How often a wait looks whether somebody asked to stop.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A failure comes up to this much after the healthy part: at any phase of polls and ticks.
const JITTER: Nanos = Nanos::from_millis(50);

/// Fields are dropped in this order: clients notice at once that a worker has ended.
pub(super) struct OneRun<'a> {
    worker: Part,
    clients: Clients,
    config: &'a DetectConfig,
    number: u32,
    stage: &'a mut Stage,
    streams: Streams,
    states: States,
    began: Nanos,
    notices: Vec<Notice>,
}

/// A failure that was made.
#[derive(Clone, Copy, Debug)]
struct Fault {
    at: Nanos,
    /// How long it took to make it.
    injection: Nanos,
    /// The client whose session is stuck, if the failure is no wider.
    stuck: Option<u64>,
}

impl<'a> OneRun<'a> {
    /// Starts a worker and its clients, and waits until the monitor watches all of them.
    pub(super) fn start(
        config: &'a DetectConfig,
        number: u32,
        streams: Streams,
        stage: &'a mut Stage,
    ) -> Result<Self, DetectError> {
        let states = States { seed: streams.stream("states").next_u64(), bytes: config.state_bytes };
        let began = clock::now();
        let role = Role::Worker {
            socket: stage.socket.clone(),
            deadline: Span(config.deadline),
            state_bytes: config.state_bytes,
            seed: states.seed,
            stuck_spins: config.stuck_spins,
        };
        let mut worker = Part::start(&config.program, role)?;
        let Report::Ready { port } = worker.expect(PATIENCE)? else {
            return Err(DetectError::Config("the worker failed before it was told to".into()));
        };
        let clients = Clients::connect(port, config.sessions, &streams).map_err(DetectError::Client)?;
        let notices = Vec::new();
        let mut run = OneRun { worker, clients, config, number, stage, streams, states, began, notices };
        let joined = |run: &mut Self| {
            let joined =
                run.notices.iter().filter(|n| matches!(&n.what, What::Joined { entity } if run.is_ours(entity)));
            joined.count() as u64 > config.sessions && run.clients.all_served()
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
        let fault = if fails { Some(self.fail(random.random_range(0..self.config.sessions))?) } else { None };
        if let Some(fault) = fault {
            let explained = |run: &mut Self| run.detection(fault).is_some() && run.explanation(fault, true).is_some();
            if self.wait(fault.at + self.config.limit(), interrupt, explained)? == Waited::Interrupted {
                return Ok(None);
            }
        }
        Ok(Some(self.row(fault)))
    }

    /// Makes the worker fail.
    fn fail(&mut self, client: u64) -> Result<Fault, DetectError> {
        let before = clock::now();
        let (signal, name, ends_in) = match self.config.failure {
            FailureKind::Sigstop => (Signal::STOP, "SIGSTOP", "T"),
            FailureKind::Sigkill => (Signal::KILL, "SIGKILL", "ZX"),
            FailureKind::Deadlock => return self.order(Order::Deadlock, None, before),
            FailureKind::SessionStuck => return self.order(Order::Stick { client }, Some(client), before),
            FailureKind::None => return Ok(Fault { at: before, injection: Nanos::ZERO, stuck: None }),
        };
        self.worker.signal(signal, name)?;
        let at = clock::now();
        while !self.worker.state().is_none_or(|state| ends_in.contains(state)) {
            if clock::now() > at + Nanos(PATIENCE.as_nanos() as u64) {
                return Err(DetectError::Unharmed { signal: name });
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(Fault { at, injection: at - before, stuck: None })
    }

    fn order(&mut self, order: Order, stuck: Option<u64>, before: Nanos) -> Result<Fault, DetectError> {
        self.worker.send(&order)?;
        match self.worker.expect(PATIENCE)? {
            Report::Failed { at_ns } => Ok(Fault { at: Nanos(at_ns), injection: Nanos(at_ns) - before, stuck }),
            Report::Ready { .. } => Err(DetectError::Config("the worker started twice".into())),
        }
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
            let notice = self.stage.notice(left.min(LOOK_EVERY))?;
            self.notices.extend(notice);
        }
    }

    fn is_ours(&self, entity: &Entity) -> bool {
        entity.process == u64::from(self.worker.id())
    }

    /// Whether the entity is the one that `fault` was made to.
    fn is_target(&self, entity: &Entity, fault: Fault) -> bool {
        self.is_ours(entity)
            && match fault.stuck {
                None => entity.level == "application",
                Some(client) => entity.name == session_name(client),
            }
    }

    /// When the monitor came to the suspicion that lasts, if it did.
    fn detection(&self, fault: Fault) -> Option<Nanos> {
        let mut since = None;
        for notice in &self.notices {
            match &notice.what {
                What::Suspected { entity, .. } if self.is_target(entity, fault) => since = Some(Nanos(notice.at_ns)),
                What::Trusted { entity, .. } | What::Left { entity } if self.is_target(entity, fault) => since = None,
                _ => {}
            }
        }
        since
    }

    /// The diagnosis after the detection: with the target as its root or, if not `exact`, whatever came last.
    fn explanation(&self, fault: Fault, exact: bool) -> Option<(&str, Option<&Recovery>)> {
        let detected = self.detection(fault)?;
        let after = self.notices.iter().rev().filter(|notice| notice.at_ns >= detected.0);
        after.into_iter().find_map(|notice| match &notice.what {
            What::Failure { cause, roots, recovery, .. }
                if !exact || roots.iter().any(|root| self.is_target(root, fault)) =>
            {
                Some((cause.as_str(), recovery.as_ref()))
            }
            _ => None,
        })
    }

    /// Whether a suspicion accuses somebody who had not failed.
    fn is_false(&self, at: Nanos, entity: &Entity, fault: Option<Fault>) -> bool {
        let failed = fault.is_some_and(|fault| {
            let affected = match fault.stuck {
                None => self.is_ours(entity),
                Some(_) => self.is_target(entity, fault),
            };
            at >= fault.at && affected
        });
        at >= self.began && !failed && !self.stage.past.contains(&entity.process)
    }

    /// Ends the worker and counts.
    fn row(mut self, fault: Option<Fault>) -> DetectRow {
        let end = clock::now();
        let mut false_positives = [0; 3];
        for notice in &self.notices {
            if let What::Suspected { entity, .. } = &notice.what
                && self.is_false(Nanos(notice.at_ns), entity, fault)
            {
                let level = ["os", "application", "session"].iter().position(|level| *level == entity.level);
                false_positives[level.unwrap_or(0)] += 1;
            }
        }
        let detected = fault.and_then(|fault| self.detection(fault));
        let explanation = fault.and_then(|f| self.explanation(f, true).or_else(|| self.explanation(f, false)));
        let cause = explanation.map_or("", |(cause, _)| cause).to_string();
        let recovery = explanation.and_then(|(_, recovery)| recovery.cloned());
        let config = self.config;
        let failed: Vec<u64> = match fault {
            None => Vec::new(),
            Some(Fault { stuck: Some(client), .. }) => vec![client],
            Some(_) => (0..config.sessions).collect(),
        };
        // A stopped worker holds its connections open; its end lets the clients read what it had answered.
        let _ = self.worker.signal(Signal::KILL, "SIGKILL");
        self.clients.end();
        let affected = failed.len() as u64;
        let verdict = recovery
            .as_ref()
            .map(|recovery| verify(self.states, recovery, failed.into_iter(), self.clients.known()))
            .unwrap_or_default();
        self.stage.past.insert(u64::from(self.worker.id()));
        let late = self.notices.iter().filter(|notice| matches!(notice.what, What::Late { .. })).count();
        DetectRow {
            run: self.number,
            failure: config.failure.name().into(),
            level: config.failure.level().into(),
            transport: "shm".into(),
            deadline_ms: config.deadline.as_millis_f64(),
            poll_ms: config.poll.as_millis_f64(),
            load: config.load,
            detected: detected.is_some(),
            detection_ms: fault.and_then(|fault| Some((detected? - fault.at).as_millis_f64())),
            false_positives: false_positives.iter().sum(),
            cause,
            sessions: config.sessions,
            affected,
            recovered: verdict.recovered,
            recovered_ok: verdict.right,
            extraction_ms: recovery.as_ref().map(|recovery| Nanos(recovery.took_ns).as_millis_f64()),
            bytes_read: recovery.as_ref().map(|recovery| recovery.bytes_read),
            injection_ms: fault.map(|fault| fault.injection.as_millis_f64()),
            healthy_ms: (fault.map_or(end, |fault| fault.at) - self.began).as_millis_f64(),
            late_samples: late as u64,
            false_os: false_positives[0],
            false_application: false_positives[1],
            false_session: false_positives[2],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    Enough,
    End,
    Interrupted,
}
