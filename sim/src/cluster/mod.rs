//! A monitored cluster in virtual time.
//!
//! ```text
//!   node: run queue ── tasks ── counters, State Boxes (core's formats, in registered memory)
//!                                   ▲
//!                    simulated NIC ─┘  READs by core's Monitor, one per node; by core's Takeover after a failure
//! ```
//!
//! The monitor is `backdoor_core::monitor::Monitor` over `backdoor_transports::sim_nic`, and nothing else; the node's
//! memory is what a real node's would be. What this module adds is what a simulation has to: when things happen
//! ([`crate::engine`]), who gets a core ([`crate::cpu`]), what a node does all day ([`crate::workload`]) and what goes
//! wrong with it ([`crate::faults`]), and the truth, against which a monitor is measured ([`crate::metrics`]).
//!
//! | function | monitor | gives |
//! |---|---|---|
//! | [`record`] | suspects nobody, records silences | a [`Record`], from which **every** deadline is judged afterwards |
//! | [`observe`] | suspects nobody, notes all that it sees | an [`Observation`], on which **every** detector is [replayed](NodeObservation::suspicions) |
//! | [`record_by_node`] | the same | the same, node by node, for more nodes than fit into memory together |
//! | [`verdicts`] | by the scenario's deadlines | what that monitor said, and when |
//! | [`overhead`] | by the scenario's deadlines | what watching costs the node, its clients and the network |
//! | [`diagnosis_run`] | by the scenario's deadlines | what one breakdown, of any kind, was taken for, and when |
//! | [`recovery_run`] | by the scenario's deadlines | one failure detected, planned, and its sessions taken over; or another remedy |
//!
//! ```
//! use backdoor_core::Nanos;
//! use backdoor_sim::cluster::{Deadlines, Scenario, record};
//! use backdoor_sim::faults::Arrivals;
//! use backdoor_sim::metrics::detection;
//! use backdoor_sim::streams::{StreamKey, Streams};
//!
//! let mut scenario = Scenario { duration: Nanos::from_secs(4), load: 4, ..Scenario::default() };
//! scenario.faults.arrivals = Arrivals::OneAtATime { gap: "const:500ms".parse().unwrap() };
//! // The deadline is no part of the point: all deadlines are judged on the same random numbers.
//! let streams = Streams::new(StreamKey { seed: 1, experiment: "accuracy", point: "load=4", replication: 0 });
//! let run = record(&scenario, &streams, Nanos::from_millis(20)).unwrap();
//! let sweep = detection(&run, &[20, 50, 200].map(|ms| Deadlines::all(Nanos::from_millis(ms))));
//! let false_positives: Vec<u64> = sweep.iter().map(|d| d.levels.iter().map(|l| l.false_positives).sum()).collect();
//! assert!(false_positives.is_sorted_by(|shorter, longer| shorter >= longer));
//! ```
//!
//! That is how a monitor works whose node offers its memory. The ways it is compared with, in which the node's own
//! processors take part, are in [`mode`].
//!
//! Every random number comes from `streams`, by component: faults, arrivals, service, jitter, pauses, network. So a
//! change of deadline, of the poll interval or of where the monitor runs leaves workload and faults as they are.

mod agent;
mod backup;
mod chain;
mod diagnosis;
mod disk;
mod inject;
mod limits;
mod link;
mod memory;
pub mod mode;
mod near;
mod node;
mod observe;
mod overhead;
mod path;
mod record;
mod recovery;
mod replay;
mod replay_by_sample;
mod scenario;
mod strikes;
mod suspect;
mod timers;
mod wire;
mod world;

pub use diagnosis::{Answer, DiagnosisOptions, DiagnosisOutcome, Found, Later, Way, Worth, diagnosis_run};
pub use limits::{MAX_EVENTS, MAX_LOAD, MAX_STATE_TOTAL};
pub use observe::{Change, Life, NodeObservation, Observation, Span, Taken, observe};
pub use overhead::{Overhead, overhead};
pub use path::RandomPath;
pub use record::{
    EntityRecording, Mark, NodeRecord, Record, RecordedSilence, Sample, VerdictLog, record, record_by_node, verdicts,
    verdicts_by,
};
pub use recovery::{RecoveryOptions, RecoveryOutcome, Remedy, SessionFate, SessionOutcome, Timeline, recovery_run};
pub use replay::{Alone, Ladder, Settings, Suspicion, Suspicions};
pub use scenario::{Deadlines, Scenario, ScenarioError};
pub use suspect::{NodeSuspicions, suspicions};

use backdoor_core::Nanos;

use crate::engine::{Engine, EventId};

/// What happens, and where.
#[derive(Clone, Copy, Debug)]
struct Event {
    node: u32,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Cpu,
    Nic,
    Monitor,
    /// A request gets to the node's agent.
    Request,
    /// It is time for the agent to send.
    Beat,
    /// A message of the agent gets to the monitor.
    Heard,
    Tick(u32),
    Loop(u32),
    Arrival(u32),
    PauseBegin(u32),
    PauseEnd(u32),
    /// A request comes to the chain.
    ChainRequest,
    /// The disk has done a request, or is asked again after an error.
    DiskDone,
    ReadAgain(u32),
    /// An update of a session gets to the backup, its processors change, its acknowledgement gets back.
    ToBackup(u32),
    BackupCpu,
    FromBackup(u32),
    /// The monitor's machine stands still, or goes on.
    StallBegin,
    StallEnd,
    Strike,
    Repair(u32),
    /// For who drives the world.
    Driver(u32),
}

/// The engine, as one node sees it.
struct Agenda<'a> {
    engine: &'a mut Engine<Event>,
    node: u32,
    /// Nothing beyond is worth scheduling.
    end: Nanos,
}

impl Agenda<'_> {
    fn now(&self) -> Nanos {
        self.engine.now()
    }

    fn at(&mut self, at: Nanos, what: What) {
        if at <= self.end {
            self.engine.schedule(at, Event { node: self.node, what });
        }
    }

    fn after(&mut self, delay: Nanos, what: What) {
        self.at(self.now() + delay, what);
    }

    /// Keeps exactly one event scheduled, at `next`; a time that has passed means now.
    fn keep(&mut self, scheduled: &mut Option<(EventId, Nanos)>, next: Option<Nanos>, what: What) {
        let next = next.map(|at| at.max(self.engine.now())).filter(|at| *at <= self.end);
        if scheduled.map(|(_, at)| at) == next {
            return;
        }
        if let Some((id, _)) = scheduled.take() {
            self.engine.cancel(id);
        }
        if let Some(at) = next {
            *scheduled = Some((self.engine.schedule(at, Event { node: self.node, what }), at));
        }
    }
}
