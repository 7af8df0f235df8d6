//! One monitored node: its processors, its tasks, and the counters and State Boxes that they keep.
//!
//! Everything here is reaction: an event comes in, tasks are woken; the run queue says when a task has done its work,
//! and only then does its counter move or its State Box change.

use backdoor_core::Nanos;
use backdoor_core::progress_box::EntityState;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::agent::{Agent, Waits};
use super::backup::BackupState;
use super::chain::ChainState;
use super::disk::DiskState;
use super::memory::{NodeMemory, Slots};
use super::mode::Mode;
use super::scenario::Scenario;
use super::{Agenda, What};
use crate::cpu::{Affinity, CpuError, CpuModel, Finished, TaskId};
use crate::engine::EventId;
use crate::faults::{ApplicationFault, Failure, FaultPlan};
use crate::streams::Streams;
use crate::workload::{Activity, Workload, payload};

/// What a task of the node is for.
#[derive(Clone, Copy, Debug)]
enum Role {
    Tick(usize),
    Loop(usize),
    Handler(usize),
    Process(usize),
    Monitor,
    Agent,
}

#[derive(Debug)]
pub(super) struct Application {
    task: TaskId,
    pub(super) paused: bool,
    pub(super) failed: bool,
    jitter: Xoshiro256PlusPlus,
    pauses: Xoshiro256PlusPlus,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) task: TaskId,
    pub(super) stuck: bool,
    /// Requests that came and were not answered.
    pub(super) pending: u64,
    /// Requests that were answered.
    pub(super) served: u64,
    /// Commits so far: the committed sequence.
    pub(super) committed: u64,
    /// Requests that had been answered at the last commit.
    pub(super) served_at_commit: u64,
    arrivals: Xoshiro256PlusPlus,
    service: Xoshiro256PlusPlus,
}

/// A monitored node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) memory: NodeMemory,
    pub(super) slots: Slots,
    pub(super) work: Workload,
    pub(super) cpu: CpuModel,
    cpu_event: Option<(EventId, Nanos)>,
    /// By task, ascending.
    roles: Vec<(TaskId, Role)>,
    ticks: Vec<TaskId>,
    pub(super) applications: Vec<Application>,
    pub(super) sessions: Vec<Session>,
    pub(super) chain: Option<ChainState>,
    pub(super) disk: Option<DiskState>,
    pub(super) backup: Option<BackupState>,
    pub(super) monitor: Option<TaskId>,
    pub(super) agent: Option<Agent>,
    /// How long requests took, once [`measure`](Self::measure) was called.
    pub(super) served_in: Option<Waits>,
    pub(super) plan: FaultPlan,
    pub(super) failures: Vec<Failure>,
    payload: Vec<u8>,
}

impl Node {
    pub(super) fn new(scenario: &Scenario, memory: NodeMemory, streams: &Streams) -> Result<Self, CpuError> {
        let mut cpu = CpuModel::new(scenario.cpu)?;
        cpu.set_load(Nanos::ZERO, scenario.load);
        let work = scenario.workload.clone();
        let mut roles = Vec::new();
        let mut task = |affinity, role| -> Result<TaskId, CpuError> {
            let task = cpu.add_task(affinity)?;
            roles.push((task, role));
            Ok(task)
        };
        let cores = scenario.cpu.cores;
        let affinities = (0..cores).map(Affinity::Pinned).chain([Affinity::Free]);
        let ticks = affinities.enumerate().map(|(i, a)| task(a, Role::Tick(i))).collect::<Result<_, _>>()?;
        let mut applications = Vec::new();
        for index in 0..work.applications {
            applications.push(Application {
                task: task(Affinity::Free, Role::Loop(index))?,
                paused: false,
                failed: false,
                jitter: streams.indexed("loop jitter", index as u64),
                pauses: streams.indexed("pauses", index as u64),
            });
        }
        let mut sessions = Vec::new();
        for index in 0..work.total_sessions() {
            sessions.push(Session {
                task: task(Affinity::Free, Role::Handler(index))?,
                stuck: false,
                pending: 0,
                served: 0,
                committed: 0,
                served_at_commit: 0,
                arrivals: streams.indexed("arrivals", index as u64),
                service: streams.indexed("service", index as u64),
            });
        }
        let agent = match scenario.mode {
            Mode::Pull | Mode::Push => Some(Agent::new(task(Affinity::Free, Role::Agent)?, scenario, &memory)),
            Mode::Read | Mode::Watchdog => None,
        };
        let mut process = |index| task(Affinity::Free, Role::Process(index));
        let chain = work.chain.map(|chain| ChainState::new(chain, streams, &mut process)).transpose()?;
        let disk = work.disk.map(|disk| DiskState::new(disk, work.applications, streams));
        let backup = BackupState::new(scenario, streams)?;
        let monitor = if scenario.monitor_is_on_node() { Some(task(Affinity::Free, Role::Monitor)?) } else { None };
        let plan = FaultPlan::new(scenario.faults.clone(), streams.stream("faults"), streams.stream("damage"));
        let slots = Slots::of(scenario);
        Ok(Node {
            memory,
            slots,
            work,
            cpu,
            cpu_event: None,
            roles,
            ticks,
            applications,
            sessions,
            chain,
            disk,
            backup,
            monitor,
            agent,
            served_in: None,
            plan,
            failures: Vec::new(),
            payload: Vec::new(),
        })
    }

    /// Schedules what happens first of each kind.
    pub(super) fn start(&mut self, warm_up: Nanos, agenda: &mut Agenda<'_>) {
        // Counters tick out of step with each other, but the same in every run: only what is random needs a stream.
        let spread = |interval: Nanos, index: usize, of: usize| interval * index as u64 / of.max(1) as u64;
        for index in 0..self.ticks.len() {
            agenda.at(spread(self.work.tick_interval, index, self.ticks.len()), What::Tick(index as u32));
        }
        for index in 0..self.applications.len() {
            let of = self.applications.len() * 2;
            agenda.at(spread(self.work.loop_interval, 2 * index + 1, of), What::Loop(index as u32));
            if let Some(pauses) = self.work.pauses {
                let first = pauses.interval.sample(&mut self.applications[index].pauses);
                agenda.at(first, What::PauseBegin(index as u32));
            }
        }
        for session in 0..self.sessions.len() {
            // Before its first request, so that an heir finds every client.
            self.commit(session);
            let first = self.work.request_interval.sample(&mut self.sessions[session].arrivals);
            agenda.at(first, What::Arrival(session as u32));
        }
        self.start_chain(agenda);
        if let Some(beat) = self.agent.as_ref().and_then(|agent| agent.beat) {
            agenda.after(beat, What::Beat);
        }
        if let Some(at) = self.plan.first(warm_up) {
            agenda.at(at, What::Strike);
        }
    }

    /// The timer of an OS counter. A tick whose predecessor is not done yet is lost, as timers coalesce.
    pub(super) fn tick(&mut self, index: usize, agenda: &mut Agenda<'_>) {
        agenda.after(self.work.tick_interval, What::Tick(index as u32));
        if self.cpu.remaining(self.ticks[index]) == Nanos::ZERO {
            self.cpu.wake(agenda.now(), self.ticks[index], at_least(self.work.tick_work));
        }
    }

    /// An application's loop wakes up.
    pub(super) fn turn(&mut self, application: usize, agenda: &mut Agenda<'_>) {
        self.cpu.wake(agenda.now(), self.applications[application].task, at_least(self.work.loop_work));
    }

    /// A request arrives from the network.
    pub(super) fn arrive(&mut self, index: usize, agenda: &mut Agenda<'_>) {
        let session = &mut self.sessions[index];
        agenda.after(self.work.request_interval.sample(&mut session.arrivals), What::Arrival(index as u32));
        session.pending += 1;
        if let Some(waits) = &mut self.served_in {
            waits.begin(index, agenda.now());
        }
        if session.pending > 1 {
            if !self.cpu.is_frozen() {
                self.memory.count_pending(index, session.pending);
            }
            return;
        }
        let slot = self.slots.session(index);
        // The kernel's receive path; a frozen kernel has none, and its NIC keeps the request.
        if !self.cpu.is_frozen() {
            self.take_in(index);
        }
        self.serve(index, agenda.now());
        if self.sessions[index].stuck {
            self.takes_effect(slot, agenda.now());
        }
    }

    /// Gives the handler its next request.
    fn serve(&mut self, index: usize, now: Nanos) {
        let session = &mut self.sessions[index];
        let mut work = self.work.service_work.sample(&mut session.service);
        if (session.served + 1).is_multiple_of(self.work.commit_every) {
            work += self.work.commit_cost();
            work += self.backup.as_ref().map_or(Nanos::ZERO, BackupState::send_work);
        }
        self.cpu.wake(now, session.task, at_least(work));
    }

    /// The monitor wants to step, and has to wait for a core like anybody else. `None`: it has a machine of its own.
    pub(super) fn wake_monitor(&mut self, now: Nanos, work: Nanos) -> Option<()> {
        let task = self.monitor?;
        if self.cpu.remaining(task) == Nanos::ZERO {
            self.cpu.wake(now, task, at_least(work));
        }
        Some(())
    }

    /// Lets the processors' past catch up with now; answers whether the monitor's task got its turn.
    pub(super) fn run(&mut self, agenda: &mut Agenda<'_>) -> bool {
        self.cpu.advance(agenda.now());
        let mut monitor = false;
        while let Some(Finished { task, .. }) = self.cpu.next_finished() {
            monitor |= self.finish(task, agenda);
        }
        monitor
    }

    /// Schedules the processors' next change.
    pub(super) fn plan_cpu(&mut self, agenda: &mut Agenda<'_>) {
        let next = self.cpu.next_change();
        agenda.keep(&mut self.cpu_event, next, What::Cpu);
    }

    /// The scheduled change has come.
    pub(super) fn cpu_event_came(&mut self) {
        self.cpu_event = None;
    }

    fn finish(&mut self, task: TaskId, agenda: &mut Agenda<'_>) -> bool {
        let Ok(at) = self.roles.binary_search_by_key(&task, |(task, _)| *task) else { return false };
        match self.roles[at].1 {
            Role::Tick(index) => self.memory.counters[index].advance(),
            Role::Loop(index) => {
                self.memory.counters[self.slots.application(index)].advance();
                if self.turn_reads(index, agenda) {
                    return false;
                }
                let jitter = self.work.loop_jitter.sample(&mut self.applications[index].jitter);
                agenda.after(self.work.loop_interval + jitter, What::Loop(index as u32));
            }
            Role::Handler(index) => {
                if !self.tells_backup(index, agenda) {
                    self.answer(index, agenda.now());
                }
            }
            Role::Process(index) => self.process_done(index, agenda),
            Role::Monitor => return true,
            Role::Agent => self.agent_has_worked(agenda.now()),
        }
        false
    }

    /// A request has been served.
    fn answer(&mut self, index: usize, now: Nanos) {
        let session = &mut self.sessions[index];
        session.pending -= 1;
        session.served += 1;
        self.memory.count_pending(index, session.pending);
        if let Some(waits) = &mut self.served_in {
            waits.end(index, now);
        }
        if session.served.is_multiple_of(self.work.commit_every) {
            self.commit(index);
        }
        let pending = self.sessions[index].pending;
        let counter = &mut self.memory.counters[self.slots.session(index)];
        match self.work.activity {
            Activity::Kernel if pending > 0 => counter.advance(),
            Activity::Kernel | Activity::Handler => counter.idle(),
            Activity::Nobody => counter.advance(),
        }
        if pending > 0 {
            self.serve(index, now);
        }
    }

    /// Stores a session's next state into its State Box, if it keeps one.
    fn commit(&mut self, index: usize) {
        let (Some(state_box), Some(bytes)) = (self.memory.boxes.get_mut(index), self.work.state_bytes) else { return };
        let session = &mut self.sessions[index];
        payload(index as u64 + 1, session.committed + 1, bytes, &mut self.payload);
        // Neither claimed nor too large: only what has failed for good is claimed, and the box was made for this size.
        if let Ok(sequence) = state_box.commit(&self.payload) {
            session.committed = sequence;
            session.served_at_commit = session.served;
        }
    }

    /// Stops or continues an application's tasks, as its state and that of its sessions wants it.
    pub(super) fn apply_stops(&mut self, application: usize, now: Nanos) {
        let Application { task, paused, failed, .. } = self.applications[application];
        let all = paused || failed;
        let the_loop = paused || failed && self.plan.options.application == ApplicationFault::Stop;
        let first = application * self.work.sessions;
        let handlers = self.sessions[first..first + self.work.sessions].iter().map(|s| (s.task, all || s.stuck));
        for (task, stop) in std::iter::once((task, the_loop)).chain(handlers) {
            match (stop, self.cpu.is_stopped(task)) {
                (true, false) => self.cpu.stop(now, task),
                (false, true) => self.cpu.resume(now, task),
                _ => {}
            }
        }
    }

    /// A pause begins.
    pub(super) fn pause(&mut self, index: usize, agenda: &mut Agenda<'_>) {
        let Some(pauses) = self.work.pauses else { return };
        let length = pauses.length.sample(&mut self.applications[index].pauses);
        self.applications[index].paused = true;
        self.apply_stops(index, agenda.now());
        agenda.after(length, What::PauseEnd(index as u32));
    }

    /// A pause ends.
    pub(super) fn unpause(&mut self, index: usize, agenda: &mut Agenda<'_>) {
        let Some(pauses) = self.work.pauses else { return };
        let interval = pauses.interval.sample(&mut self.applications[index].pauses);
        self.applications[index].paused = false;
        self.apply_stops(index, agenda.now());
        agenda.after(interval, What::PauseBegin(index as u32));
    }

    /// The slots of what is stuck on a processor that hangs.
    pub(super) fn slots_stuck(&self) -> Vec<usize> {
        let slot = |role: &Role| match role {
            Role::Tick(index) => Some(*index),
            Role::Loop(index) => Some(self.slots.application(*index)),
            Role::Handler(index) => Some(self.slots.session(*index)),
            Role::Process(index) => Some(self.slots.process(*index)),
            Role::Monitor | Role::Agent => None,
        };
        self.roles.iter().filter(|(task, _)| self.cpu.is_stuck(*task)).filter_map(|(_, role)| slot(role)).collect()
    }

    /// The kernel hears of a session's requests.
    fn take_in(&mut self, index: usize) {
        let pending = self.sessions[index].pending;
        self.memory.count_pending(index, pending);
        let counter = &mut self.memory.counters[self.slots.session(index)];
        let is_idle = counter.liveness().state() == EntityState::Idle;
        if pending > 0 && is_idle && self.work.activity == Activity::Kernel {
            counter.advance();
        }
    }

    /// A thawed kernel takes in the requests that its NIC has kept.
    pub(super) fn take_in_kept_requests(&mut self) {
        (0..self.sessions.len()).for_each(|index| self.take_in(index));
        self.take_in_chain();
    }
}

/// Work of no length would finish at the instant of waking, before anything else at that instant.
pub(super) fn at_least(work: Nanos) -> Nanos {
    work.max(Nanos(1))
}
