//! What a recovery costs: one failure, from the moment it takes effect until its sessions are served again.
//!
//! ```text
//!  fails ─ detection ─ suspected ─ planning ─ plan ─ claiming ─ no way back ─ fencing ─ cut off ─ extraction ─ state
//!         (silence,               (until     (READs, swaps)                  (delay)            (READs)
//!          deadline, poll)         settled)
//!     state ─ reinstatement ─ ready ─ taking ─ restored ─ first service
//!            (network, run            (swap)
//!             queue of the target)
//! ```
//!
//! Detection is core's monitor, planning core's diagnosis and plan. What follows is core's
//! [takeover](backdoor_core::takeover) of each session, all at the same time, over connections to the same simulated NIC
//! that were opened beforehand as a monitor that wants to be quick would ([`rescue`]). The fence is a delay: whoever owns
//! the way to the clients confirms it. Reinstatement is work for the target's run queue,
//! [`RecoveryOptions::reinstatement`] for each session, all in parallel as far as there are cores.
//!
//! Other [remedies](Remedy) begin at the same plan, and are what a takeover is compared with ([`renewal`]).
//!
//! Counters that stop together fall silent one after another, by their rhythm and their deadlines: right after the
//! first suspicion, a diagnosis takes the failure of a node for that of whatever ticked last. So planning waits until
//! core says that the diagnosis is [settled](backdoor_core::diagnosis::settles_by). An alarm before the failure is
//! counted and not acted on.

mod renewal;
mod rescue;
mod swaps;
mod target;

use backdoor_core::Nanos;
use backdoor_core::detector::DeadlineDetector;
use backdoor_core::diagnosis::{Cause, diagnose, settles_by};
use backdoor_core::hook_table::Purpose;
use backdoor_core::monitor::{EntityView, Event as Noticed, Monitor, Standing};
use backdoor_core::progress_box::FailureLevel;
use backdoor_core::recovery::{
    ExtractionConfig, ExtractionStats, NodeAction, SessionState, SessionToRecover, StateError, plan,
};
use backdoor_core::takeover::TakeoverConfig;
use backdoor_transports::sim_nic::SimChannel;
use serde::Deserialize;

use self::renewal::Renewal;
use self::rescue::{Hooks, Marks, Rescue};
use self::target::Target;
use super::node::Node;
use super::path::RandomPath;
use super::scenario::{Scenario, ScenarioError};
use super::world::{Happening, World};
use crate::cpu::CpuParams;
use crate::dist::Dist;
use crate::faults::Arrivals;
use crate::streams::Streams;
use crate::workload::payload;

/// What is done about a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Remedy {
    /// The sessions are carried on elsewhere, with the state of their State Boxes.
    #[default]
    Takeover,
    /// A backup that was told of every change, before its answer, becomes the primary.
    Failover,
    /// The service is started again, without any state: on the node, or, if the operating system has failed, on another.
    Restart,
    /// The node is started again, and the service on it, without any state.
    Reboot,
}

impl Remedy {
    /// All of them.
    pub const ALL: [Remedy; 4] = [Remedy::Takeover, Remedy::Failover, Remedy::Restart, Remedy::Reboot];

    /// As configurations write it.
    pub const fn name(self) -> &'static str {
        match self {
            Remedy::Takeover => "takeover",
            Remedy::Failover => "failover",
            Remedy::Restart => "restart",
            Remedy::Reboot => "reboot",
        }
    }
}

/// What fails, and how it is recovered.
#[derive(Clone, Debug, PartialEq)]
pub struct RecoveryOptions {
    /// Level of the failure.
    pub level: FailureLevel,
    /// What is done about it.
    pub remedy: Remedy,
    /// When it strikes, from the start of the run.
    pub fail_at: Nanos,
    /// How the State Boxes are read.
    pub extraction: ExtractionConfig,
    /// How patient taker and target are.
    pub takeover: TakeoverConfig,
    /// From asking for a fence to its confirmation.
    pub fence: Dist,
    /// Processors of the node that takes over.
    pub target_cpu: CpuParams,
    /// Always-busy tasks there.
    pub target_load: usize,
    /// CPU time to reinstate a session, whatever its size.
    pub reinstate_work: Nanos,
    /// CPU time that each KiB of its state adds.
    pub reinstate_work_per_kib: Nanos,
    /// CPU time to make a session's backup its primary, which has state and connection ready.
    pub promote_work: Nanos,
    /// CPU time from the start of the service's process until clients can come.
    pub service_start: Nanos,
    /// From the order to reboot until the service's process starts.
    pub boot: Nanos,
    /// How long after the fault the run ends, recovered or not.
    pub give_up_after: Nanos,
}

impl Default for RecoveryOptions {
    /// An application fails after 2 s and is taken over; an idle target of two cores; 200 µs + 2 µs/KiB to reinstate a
    /// session; 10 s until the end. What is assumed, and on what ground:
    ///
    /// * a fence in 1 ms: a rule of a switch or a host's filter, asked for over the network. Cutting the power takes seconds;
    /// * 50 µs to promote a backup: it has a connection rebuilt and silent, and lets it speak. To rebuild one by
    ///   `TCP_REPAIR` took 55 to 95 µs on a small virtual machine, most of which the backup has done beforehand;
    /// * 10 ms to start a service: a small native program. Managed runtimes and warm caches take seconds;
    /// * 5.7 s to boot: a virtual machine of two processors with a kernel and a RAM disk and nothing else, which
    ///   `transports/soft-roce/run` measures. Firmware and services of a server make it minutes.
    fn default() -> Self {
        RecoveryOptions {
            level: FailureLevel::Application,
            remedy: Remedy::Takeover,
            fail_at: Nanos::from_secs(2),
            extraction: ExtractionConfig::default(),
            takeover: TakeoverConfig::default(),
            fence: Dist::constant(Nanos::from_millis(1)),
            target_cpu: CpuParams::default(),
            target_load: 0,
            reinstate_work: Nanos::from_micros(200),
            reinstate_work_per_kib: Nanos::from_micros(2),
            promote_work: Nanos::from_micros(50),
            service_start: Nanos::from_millis(10),
            boot: Nanos::from_millis(5_700),
            give_up_after: Nanos::from_secs(10),
        }
    }
}

impl RecoveryOptions {
    /// CPU time to reinstate a session with `bytes` bytes of state.
    pub fn reinstatement(&self, bytes: u64) -> Nanos {
        self.reinstate_work + self.reinstate_work_per_kib * bytes / 1024
    }
}

/// When a session's recovery reached each of its steps; each span begins where the one before ends. Those that a remedy
/// doesn't have are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// From the failure's effect to the first suspicion.
    pub detection: Nanos,
    /// To the plan: until the diagnosis is settled.
    pub planning: Nanos,
    /// To the claim that can't be given back.
    pub claiming: Nanos,
    /// To the old owner's being cut off.
    pub fencing: Nanos,
    /// To the session's state being here.
    pub extraction: Nanos,
    /// To the session being ready to serve again; with a restart, from the plan or the fence on.
    pub reinstatement: Nanos,
    /// To its being the target's.
    pub taking: Nanos,
    /// To its first request served there.
    pub first_service: Nanos,
}

impl Timeline {
    /// Time without service: all but the first request's own.
    pub fn outage(&self) -> Nanos {
        let Timeline { detection, planning, claiming, fencing, extraction, reinstatement, taking, .. } = *self;
        detection + planning + claiming + fencing + extraction + reinstatement + taking
    }

    /// From when the failure took effect, was noticed, and planned for, and what happened then.
    fn new([failed, detected, planned]: [Nanos; 3], marks: &Marks) -> Option<Self> {
        let (restored, served) = (marks.restored?, marks.served?);
        let mut last = planned;
        let mut to = |mark: Option<Nanos>| {
            let mark = mark.unwrap_or(last);
            mark - std::mem::replace(&mut last, mark)
        };
        Some(Timeline {
            detection: detected - failed,
            planning: planned - detected,
            claiming: to(marks.claimed),
            fencing: to(marks.fenced),
            extraction: to(marks.extracted),
            // Who has no swap to make is ready when it is restored.
            reinstatement: to(marks.prepared.or(marks.restored)),
            taking: to(marks.restored),
            first_service: served - restored,
        })
    }
}

/// What became of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionFate {
    /// It goes on elsewhere.
    Saved {
        /// How long that took.
        timeline: Timeline,
        /// Whether its state is, byte for byte, what it had committed last. A backup's is: it was told before the answer.
        intact: bool,
    },
    /// Its client has another session, without the state.
    Renewed {
        /// How long that took.
        timeline: Timeline,
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
    /// Sessions that had not failed and were ended by the remedy.
    pub interrupted: u64,
    /// What the READs of State Boxes cost.
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

/// What the world calls for.
const REMEDY: u32 = 0;

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
    let machine = match (options.remedy, options.level) {
        // The node itself: it goes on with what else it does, or has nothing to do yet.
        (Remedy::Restart, FailureLevel::Application | FailureLevel::Session) => (scenario.cpu, scenario.load),
        (Remedy::Reboot, _) => (scenario.cpu, 0),
        _ => (options.target_cpu, options.target_load),
    };
    let machine = Target::new(machine.0, machine.1)?;
    let outcome = RecoveryOutcome {
        effective: None,
        detection: None,
        causes: Vec::new(),
        actions: Vec::new(),
        false_alarms: 0,
        sessions: Vec::new(),
        interrupted: 0,
        extraction: ExtractionStats::default(),
    };
    let (detected, planned, called) = (None, None, None);
    let course = Course::Waiting(machine);
    let recovery =
        Recovery { options, streams, scenario: &scenario, world, detected, planned, called, course, outcome };
    Ok(recovery.run())
}

/// What is being done.
enum Course {
    /// Nothing yet; this is the machine that will have to work.
    Waiting(Target),
    Takeover(Box<Rescue>),
    Other(Box<Renewal>),
    /// There is nothing to be done.
    Nothing,
}

struct Recovery<'a> {
    options: &'a RecoveryOptions,
    streams: &'a Streams,
    scenario: &'a Scenario,
    world: World<DeadlineDetector>,
    detected: Option<Nanos>,
    planned: Option<Nanos>,
    /// For when the world was asked to call.
    called: Option<Nanos>,
    course: Course,
    outcome: RecoveryOutcome,
}

impl Recovery<'_> {
    fn run(mut self) -> RecoveryOutcome {
        while let Some(happening) = self.world.next() {
            match happening {
                Happening::Stepped(_) if self.planned.is_none() => self.look(),
                Happening::Driver(REMEDY) => {}
                _ => continue,
            }
            if self.planned.is_some() && self.go_on() {
                break;
            }
        }
        self.end()
    }

    /// Lets the remedy take its course; whether it has.
    fn go_on(&mut self) -> bool {
        let now = self.world.now();
        let next = match &mut self.course {
            Course::Takeover(rescue) => {
                rescue.step(now, &self.world.nodes[0]);
                if rescue.is_done() {
                    return true;
                }
                rescue.next_event()
            }
            Course::Other(renewal) => {
                renewal.step(now);
                if renewal.is_done() {
                    return true;
                }
                renewal.next_event()
            }
            Course::Waiting(_) | Course::Nothing => return true,
        };
        // What was asked for too early does no harm, so only an earlier call is asked for.
        if let Some(at) = next.map(|at| at.max(now))
            && self.called.is_none_or(|called| called <= now || at < called)
        {
            self.called = Some(at);
            self.world.call_driver(at, REMEDY);
        }
        false
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
        let mut sessions: Vec<SessionToRecover> = Vec::new();
        let mut lost = Vec::new();
        for plan in plans {
            sessions.extend(plan.recoverable);
            lost.extend(plan.lost);
        }
        let Course::Waiting(machine) = std::mem::replace(&mut self.course, Course::Nothing) else { return };
        if self.options.remedy != Remedy::Takeover {
            sessions.extend(lost);
            let affected: Vec<u64> = sessions.iter().map(|session| session.record.session).collect();
            let path = self.path("clients network");
            let (options, work) = (self.options, self.scenario.workload.service_work);
            let all = self.ended_by_remedy(&affected);
            self.outcome.interrupted = all.iter().filter(|session| !affected.contains(session)).count() as u64;
            let renewal = Renewal::new(now, options, all, path, machine, work, self.streams);
            self.course = Course::Other(Box::new(renewal));
            return;
        }
        sessions.sort_by_key(|session| session.slot);
        sessions.dedup_by_key(|session| session.slot);
        let memory = |purpose| monitor.hooks().and_then(|hooks| hooks.find(purpose)).map(|hook| hook.memory);
        // Without recovery memory there is nothing to take over.
        if let (Some(states), Some(claims)) = (memory(Purpose::Recovery), memory(Purpose::Claim)) {
            let connect = |name| {
                let nic = &self.world.nodes[0].memory.nic;
                SimChannel::connect(nic, self.path(name), self.scenario.nic.clone()).ok()
            };
            // The scenario's card was checked.
            let channels = ["extraction network", "taker's swaps", "target's swaps"].map(connect);
            let [Some(reads), Some(taker), Some(target)] = channels else { return };
            let surroundings = rescue::Surroundings {
                hooks: Hooks { states, claims },
                channels: [reads, taker, target],
                offers: (self.path("offers network"), self.scenario.nic.clone()),
                target: machine,
                service_work: self.scenario.workload.service_work,
            };
            self.course =
                Course::Takeover(Box::new(Rescue::new(now, self.options, sessions, surroundings, self.streams)));
        }
    }

    fn path(&self, name: &str) -> RandomPath {
        RandomPath::new(self.scenario.network_delay, self.scenario.network_loss, self.streams.stream(name))
    }

    /// The sessions that end with the remedy, by number: those of every process, or machine, that is started again.
    fn ended_by_remedy(&self, affected: &[u64]) -> Vec<u64> {
        let (all, each) = (self.scenario.workload.total_sessions() as u64, self.scenario.workload.sessions as u64);
        let application = |session: u64| (session - 1) / each.max(1);
        let ends = |session: &u64| match self.options.remedy {
            Remedy::Takeover | Remedy::Failover => affected.contains(session),
            Remedy::Restart => affected.iter().any(|other| application(*other) == application(*session)),
            Remedy::Reboot => true,
        };
        (1..=all).filter(ends).collect()
    }

    fn end(mut self) -> RecoveryOutcome {
        let node = &self.world.nodes[0];
        let Some(failure) = node.failures.first() else { return self.outcome };
        let effective = failure.effective;
        self.outcome.effective = effective;
        self.outcome.detection = effective.and_then(|effective| Some(self.detected? - effective));
        if let Course::Takeover(rescue) = &self.course {
            self.outcome.extraction = rescue.stats();
        }
        let times = effective.zip(self.detected).zip(self.planned);
        let timeline = |marks: &Marks| {
            let ((failed, detected), planned) = times?;
            Timeline::new([failed, detected, planned], marks)
        };
        let sessions = (0..node.sessions.len()).filter(|s| {
            effective.is_some() && failure.affected.iter().any(|slot| slot.index() == node.slots.session(*s))
        });
        for index in sessions {
            let session = &node.sessions[index];
            let number = index as u64 + 1;
            let (fate, state_bytes) = match &self.course {
                Course::Takeover(rescue) => match rescue.get(number) {
                    Some(rescued) => match (timeline(&rescued.marks), rescued.state, rescued.error()) {
                        (Some(timeline), Some((intact, bytes)), _) => (SessionFate::Saved { timeline, intact }, bytes),
                        (_, _, Some(error)) => (SessionFate::NoState(error), 0),
                        _ => (SessionFate::Overlooked, 0),
                    },
                    None => (SessionFate::Overlooked, 0),
                },
                Course::Other(renewal) => match renewal.get(number).and_then(|marks| timeline(&marks)) {
                    Some(timeline) if self.options.remedy == Remedy::Failover => {
                        (SessionFate::Saved { timeline, intact: true }, node.work.state_bytes.unwrap_or(0) as u64)
                    }
                    Some(timeline) => (SessionFate::Renewed { timeline }, 0),
                    None => (SessionFate::Overlooked, 0),
                },
                Course::Waiting(_) | Course::Nothing if node.memory.boxes.is_empty() => (SessionFate::NoStateBox, 0),
                Course::Waiting(_) | Course::Nothing => (SessionFate::Overlooked, 0),
            };
            self.outcome.sessions.push(SessionOutcome {
                session: number,
                fate,
                state_bytes,
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
