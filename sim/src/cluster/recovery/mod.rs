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
//! the way to the clients confirms it. Before a State Box is read for good, the failed node's agent tells what its kernel
//! holds of the connection, unless the operating system has failed. Reinstatement is work for the target's run queue,
//! [`RecoveryOptions::reinstatement`] for each session, all in parallel as far as there are cores. With several targets,
//! core's [`spread`](backdoor_core::recovery::policy::spread) says which of them each session is offered to.
//!
//! Other [remedies](Remedy) begin at the same plan, and are what a takeover is compared with ([`renewal`]).
//!
//! Counters that stop together fall silent one after another, by their rhythm and their deadlines: right after the
//! first suspicion, a diagnosis takes the failure of a node for that of whatever ticked last. So planning waits until
//! core says that the diagnosis is [settled](backdoor_core::diagnosis::settles_by). An alarm before the failure is
//! counted and not acted on.

mod options;
mod outcome;
mod renewal;
mod rescue;
mod swaps;
mod target;

use backdoor_core::Nanos;
use backdoor_core::detector::DeadlineDetector;
use backdoor_core::diagnosis::{diagnose, settles_by};
use backdoor_core::hook_table::Purpose;
use backdoor_core::monitor::{EntityView, Event as Noticed, Monitor, Standing};
use backdoor_core::progress_box::FailureLevel;
use backdoor_core::recovery::{ExtractionStats, SessionState, SessionToRecover, plan};
use backdoor_transports::sim_nic::SimChannel;

pub use self::options::{RecoveryOptions, Remedy};
pub use self::outcome::{RecoveryOutcome, SessionFate, SessionOutcome, Timeline};
use self::renewal::Renewal;
use self::rescue::{Hooks, Marks, Rescue};
use self::target::Target;
use super::node::Node;
use super::path::RandomPath;
use super::scenario::{Scenario, ScenarioError};
use super::wire::Wire;
use super::world::{Happening, World};
use crate::faults::Arrivals;
use crate::streams::Streams;
use crate::workload::payload;

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
    let machines = if options.remedy == Remedy::Takeover { options.targets.max(1) } else { 1 };
    let machines = (0..machines).map(|_| Target::new(machine.0, machine.1)).collect::<Result<Vec<_>, _>>()?;
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
    let course = Course::Waiting(machines);
    let recovery =
        Recovery { options, streams, scenario: &scenario, world, detected, planned, called, course, outcome };
    Ok(recovery.run())
}

/// What is being done.
enum Course {
    /// Nothing yet; these are the machines that will have to work, one or more.
    Waiting(Vec<Target>),
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
        let Course::Waiting(mut machines) = std::mem::replace(&mut self.course, Course::Nothing) else { return };
        if self.options.remedy != Remedy::Takeover {
            sessions.extend(lost);
            let affected: Vec<u64> = sessions.iter().map(|session| session.record.session).collect();
            let path = self.path("clients network");
            let (options, work) = (self.options, self.scenario.workload.service_work);
            let all = self.ended_by_remedy(&affected);
            self.outcome.interrupted = all.iter().filter(|session| !affected.contains(session)).count() as u64;
            let Some(machine) = machines.pop() else { return };
            let renewal = Renewal::new(now, options, all, path, machine, work, self.streams);
            self.course = Course::Other(Box::new(renewal));
            return;
        }
        if self.options.whole_node {
            let goes_on = |entity: &EntityView<'_, _>| {
                matches!(entity.standing, Standing::Trusted | Standing::Idle | Standing::Suspected)
            };
            let of_node = monitor.entities().filter(|entity| entity.record.state_box.is_some() && goes_on(entity));
            sessions.extend(of_node.map(|entity| SessionToRecover { slot: entity.slot, record: *entity.record }));
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
                offers: Wire::new(self.path("offers network"), self.scenario.nic.clone()),
                targets: machines,
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
        // Those that were taken over with them have an outcome, too.
        let is_taken_over = |index: &usize| match &self.course {
            Course::Takeover(rescue) if self.options.whole_node => rescue.get(*index as u64 + 1).is_some(),
            _ => false,
        };
        let is_affected = |index: &usize| {
            effective.is_some() && failure.affected.iter().any(|slot| slot.index() == node.slots.session(*index))
        };
        let sessions = (0..node.sessions.len()).filter(|index| is_affected(index) || is_taken_over(index));
        for index in sessions {
            let session = &node.sessions[index];
            let number = index as u64 + 1;
            // Who had not failed is simulated as going on, whatever the fence, and that is nobody's loss.
            let (requests_lost, requests_waiting) = match is_affected(&index) {
                true => (session.served - session.served_at_commit, session.pending),
                false => (0, 0),
            };
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
                requests_lost,
                requests_waiting,
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
