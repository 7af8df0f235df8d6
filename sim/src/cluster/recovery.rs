//! What a recovery costs: one failure, from the moment it takes effect until its sessions are served elsewhere.
//!
//! ```text
//!  fails ── detection ── suspected ── planning ── plan ── extraction ── state ── reinstatement ── restored ── first service
//!          (silence,                 (until settled,     (READs of the          (run queue of
//!           deadline, poll)           diagnosis)          State Boxes)           the target node)
//! ```
//!
//! Detection is core's monitor, planning core's diagnosis and plan, extraction core's
//! [`Extraction`] over a second connection to the same simulated NIC, opened beforehand as a monitor that wants to be
//! quick would. Reinstatement is work for the target's run queue, `reinstate_work + reinstate_work_per_kib · size` per
//! session, all sessions in parallel as far as there are cores.
//!
//! Counters that stop together fall silent one after another, by their rhythm and their deadlines: right after the
//! first suspicion, a diagnosis takes the failure of a node for that of whatever ticked last. So planning waits until
//! core says that the diagnosis is [settled](backdoor_core::diagnosis::settles_by). An alarm before the failure is
//! counted and not acted on.
//!
//! Taking over a session that still runs needs a fence first; here the failed party stays down, so there is none.

use backdoor_core::Nanos;
use backdoor_core::detector::DeadlineDetector;
use backdoor_core::diagnosis::{Cause, diagnose, settles_by};
use backdoor_core::hook_table::Purpose;
use backdoor_core::monitor::{EntityView, Event as Noticed, Monitor, Standing};
use backdoor_core::progress_box::FailureLevel;
use backdoor_core::recovery::{
    Extraction, ExtractionConfig, ExtractionStats, NodeAction, SessionState, SessionToRecover, StateError, plan,
};
use backdoor_core::transport::{ChannelState, Transport};
use backdoor_transports::sim_nic::SimChannel;

use super::node::Node;
use super::path::RandomPath;
use super::scenario::{Scenario, ScenarioError};
use super::target::Target;
use super::world::{Happening, World};
use crate::cpu::CpuParams;
use crate::faults::Arrivals;
use crate::streams::Streams;
use crate::workload::payload;

/// What fails, and how it is recovered.
#[derive(Clone, Debug, PartialEq)]
pub struct RecoveryOptions {
    /// Level of the failure.
    pub level: FailureLevel,
    /// When it strikes, from the start of the run.
    pub fail_at: Nanos,
    /// How the State Boxes are read.
    pub extraction: ExtractionConfig,
    /// Processors of the node that takes over.
    pub target_cpu: CpuParams,
    /// Always-busy tasks there.
    pub target_load: usize,
    /// CPU time to reinstate a session, whatever its size.
    pub reinstate_work: Nanos,
    /// CPU time that each KiB of its state adds.
    pub reinstate_work_per_kib: Nanos,
    /// How long after the fault the run ends, recovered or not.
    pub give_up_after: Nanos,
}

impl Default for RecoveryOptions {
    /// An application fails after 2 s; an idle target of two cores; 200 µs + 2 µs/KiB to
    /// reinstate a session; 10 s until the end.
    fn default() -> Self {
        RecoveryOptions {
            level: FailureLevel::Application,
            fail_at: Nanos::from_secs(2),
            extraction: ExtractionConfig::default(),
            target_cpu: CpuParams::default(),
            target_load: 0,
            reinstate_work: Nanos::from_micros(200),
            reinstate_work_per_kib: Nanos::from_micros(2),
            give_up_after: Nanos::from_secs(10),
        }
    }
}

/// When a session's recovery reached each of its steps; each span begins where the one before ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// From the failure's effect to the first suspicion.
    pub detection: Nanos,
    /// To the plan: until the diagnosis is settled.
    pub planning: Nanos,
    /// To the session's state being here.
    pub extraction: Nanos,
    /// To the session being able to serve again.
    pub reinstatement: Nanos,
    /// To its first request served there.
    pub first_service: Nanos,
}

impl Timeline {
    /// Time without service: all but the first request's own.
    pub fn outage(&self) -> Nanos {
        self.detection + self.planning + self.extraction + self.reinstatement
    }
}

/// What became of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionFate {
    /// It goes on elsewhere.
    Saved {
        /// How long that took.
        timeline: Timeline,
        /// Whether its state is, byte for byte, what it had committed last.
        intact: bool,
    },
    /// It keeps no State Box.
    NoStateBox,
    /// Its State Box gave no state.
    NoState(StateError),
    /// The diagnosis did not count it among the affected, or the run ended first.
    Overlooked,
}

/// One session that lost service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOutcome {
    /// Session number.
    pub session: u64,
    /// What became of it.
    pub fate: SessionFate,
    /// Bytes of state recovered.
    pub state_bytes: u64,
    /// Requests that were answered after the last commit: their effects are lost.
    pub requests_lost: u64,
    /// Requests that had come and were not answered when the recovery ended: to be sent again by their clients, or
    /// replayed from the channel's state.
    pub requests_waiting: u64,
}

/// What one recovery came to.
#[derive(Clone, Debug, PartialEq)]
pub struct RecoveryOutcome {
    /// When the failure took effect; `None`: not before the end of the run (a session that got no request).
    pub effective: Option<Nanos>,
    /// From then to the first suspicion of something that it affects.
    pub detection: Option<Nanos>,
    /// What was diagnosed.
    pub causes: Vec<Cause>,
    /// What else is to be done at the node.
    pub actions: Vec<NodeAction>,
    /// Suspicions before the failure.
    pub false_alarms: u64,
    /// The sessions that lost service, in order.
    pub sessions: Vec<SessionOutcome>,
    /// What the extraction cost.
    pub extraction: ExtractionStats,
}

impl RecoveryOutcome {
    /// Sessions that go on elsewhere.
    pub fn saved(&self) -> usize {
        self.sessions.iter().filter(|s| matches!(s.fate, SessionFate::Saved { .. })).count()
    }
    /// Sessions that don't. Restarting what failed without State Boxes loses all of them.
    pub fn lost(&self) -> usize {
        self.sessions.len() - self.saved()
    }
    /// Whether the diagnosis was the failure's level, and nothing else.
    pub fn diagnosed_right(&self, level: FailureLevel) -> bool {
        matches!(self.causes[..], [cause] if cause.level() == Some(level))
    }
}

const EXTRACT: u32 = 0;
const TARGET: u32 = 1;

/// Simulates one failure of one node of `scenario` and its recovery. The scenario's own fault arrivals, levels, number
/// of nodes and duration don't count; its `corrupt_fraction` does.
///
/// # Errors
/// The scenario, or the target, is impossible.
pub fn recovery_run(
    scenario: &Scenario,
    streams: &Streams,
    options: &RecoveryOptions,
) -> Result<RecoveryOutcome, ScenarioError> {
    let mut scenario = Scenario { nodes: 1, ..scenario.clone() };
    scenario.duration = options.fail_at + options.give_up_after;
    scenario.faults = scenario.faults.at_level(options.level);
    scenario.faults.arrivals = Arrivals::Once { at: options.fail_at };
    scenario.faults.repair_after = None;
    let config = scenario.monitor;
    let world = World::new(&scenario, streams, |hook_table| Monitor::by_deadline(config, hook_table))?;
    let path = RandomPath::new(scenario.network_delay, scenario.network_loss, streams.stream("extraction network"));
    let channel = SimChannel::connect(&world.nodes[0].memory.nic, path, scenario.nic.clone())?;
    let target = Target::new(options, scenario.workload.service_work, streams)?;
    let outcome = RecoveryOutcome {
        effective: None,
        detection: None,
        causes: Vec::new(),
        actions: Vec::new(),
        false_alarms: 0,
        sessions: Vec::new(),
        extraction: ExtractionStats::default(),
    };
    let recovery =
        Recovery { options, world, channel, target, detected: None, planned: None, extraction: None, outcome };
    Ok(recovery.run())
}

struct Recovery<'a> {
    options: &'a RecoveryOptions,
    world: World<DeadlineDetector>,
    channel: SimChannel<RandomPath>,
    target: Target,
    detected: Option<Nanos>,
    planned: Option<Nanos>,
    extraction: Option<Extraction>,
    outcome: RecoveryOutcome,
}

impl Recovery<'_> {
    fn run(mut self) -> RecoveryOutcome {
        while let Some(happening) = self.world.next() {
            match happening {
                Happening::Stepped(_) if self.planned.is_none() => self.look(),
                Happening::Driver(EXTRACT) => self.extract(),
                Happening::Driver(TARGET) => self.target.run(self.world.now()),
                _ => continue,
            }
            self.call_for_target();
            // Without recovery memory there is nothing to extract.
            let extracted = self.extraction.as_ref().is_none_or(Extraction::is_done);
            if self.planned.is_some() && extracted && self.target.is_done() {
                break;
            }
        }
        self.end()
    }

    /// Looks for the first suspicion after the failure, and plans once what it means is settled.
    fn look(&mut self) {
        let watch = &self.world.watches[0];
        let failure = self.world.nodes[0].failures.first().filter(|failure| failure.effective.is_some());
        let Some(failure) = failure else {
            let alarms = watch.noticed.iter().filter(|noticed| matches!(noticed, Noticed::Suspected(_)));
            self.outcome.false_alarms += alarms.count() as u64;
            return;
        };
        let noticed = |e: EntityView<'_, _>| e.standing == Standing::Suspected && failure.affected.contains(&e.slot);
        if self.detected.is_none() && watch.monitor.entities().any(noticed) {
            self.detected = Some(self.world.now());
        }
        if self.detected.is_some() && settles_by(&watch.monitor).is_none() {
            self.plan();
        }
    }

    fn plan(&mut self) {
        let now = self.world.now();
        let monitor = &self.world.watches[0].monitor;
        let failures = diagnose(monitor);
        if failures.is_empty() {
            // Trusted again: the suspicion was of somebody who was only slow.
            self.detected = None;
            return;
        }
        let plans: Vec<_> = failures.iter().map(|failure| plan(monitor, failure)).collect();
        self.planned = Some(now);
        self.outcome.causes = plans.iter().map(|plan| plan.cause).collect();
        self.outcome.actions = plans.iter().map(|plan| plan.action).collect();
        let mut sessions: Vec<SessionToRecover> = plans.into_iter().flat_map(|plan| plan.recoverable).collect();
        sessions.sort_by_key(|session| session.slot);
        sessions.dedup_by_key(|session| session.slot);
        let memory = monitor.hooks().and_then(|hooks| hooks.find(Purpose::Recovery)).map(|hook| hook.memory);
        if let Some(memory) = memory {
            self.extraction = Some(Extraction::new(self.options.extraction, memory, sessions));
            self.extract();
        }
    }

    fn extract(&mut self) {
        let now = self.world.now();
        let Some(extraction) = &mut self.extraction else { return };
        let (node, target) = (&self.world.nodes[0], &mut self.target);
        self.channel.advance_to(now);
        extraction.step(&mut self.channel, &mut |session, state| target.receive(now, node, session, state));
        if extraction.is_done() {
            return;
        }
        if self.channel.channel() == ChannelState::Broken {
            self.channel.reopen();
        }
        if let Some(at) = self.channel.next_event() {
            self.world.call_driver(at.max(now), EXTRACT);
        }
    }

    fn call_for_target(&mut self) {
        if let Some(at) = self.target.next_call(self.world.now()) {
            self.world.call_driver(at, TARGET);
        }
    }

    fn end(mut self) -> RecoveryOutcome {
        let node = &self.world.nodes[0];
        let Some(failure) = node.failures.first() else { return self.outcome };
        let effective = failure.effective;
        self.outcome.effective = effective;
        self.outcome.detection = effective.and_then(|effective| Some(self.detected? - effective));
        self.outcome.extraction = self.extraction.as_ref().map(Extraction::stats).unwrap_or_default();
        let sessions = (0..node.sessions.len()).filter(|s| {
            effective.is_some() && failure.affected.iter().any(|slot| slot.index() == node.slots.session(*s))
        });
        for index in sessions {
            let session = &node.sessions[index];
            let number = index as u64 + 1;
            let received = self.target.received.iter().find(|received| received.session == number);
            let keeps_none = node.memory.boxes.is_empty();
            let times = effective.zip(self.detected).zip(self.planned);
            let fate = match (received.map(|r| (r.state, r.restored, r.served)), times) {
                (Some((Ok(intact), Some(restored), Some(served))), Some(((failed, detected), planned))) => {
                    let state_at = received.map_or(planned, |r| r.at);
                    let timeline = Timeline {
                        detection: detected - failed,
                        planning: planned - detected,
                        extraction: state_at - planned,
                        reinstatement: restored - state_at,
                        first_service: served - restored,
                    };
                    SessionFate::Saved { timeline, intact }
                }
                (Some((Err(error), ..)), _) => SessionFate::NoState(error),
                _ if keeps_none => SessionFate::NoStateBox,
                _ => SessionFate::Overlooked,
            };
            self.outcome.sessions.push(SessionOutcome {
                session: number,
                fate,
                state_bytes: received.map_or(0, |r| r.bytes),
                requests_lost: session.served - session.served_at_commit,
                requests_waiting: session.pending,
            });
        }
        self.outcome
    }
}

/// Whether a state is what the session committed last, as only a simulation can tell.
pub(super) fn is_intact(node: &Node, state: &SessionState<'_>) -> bool {
    let Some(session) = (state.session as usize).checked_sub(1).and_then(|index| node.sessions.get(index)) else {
        return false;
    };
    let mut expected = Vec::new();
    payload(state.session, session.committed, node.work.state_bytes.unwrap_or(0), &mut expected);
    state.committed.sequence == session.committed && state.committed.payload == expected
}
