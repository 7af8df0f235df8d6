//! The cases: what is the matter with the node or with who watches it, and what each contender is told.

use backdoor_core::Nanos;
use backdoor_core::monitor::MonitorConfig;
use backdoor_core::progress_box::FailureLevel;
use backdoor_sim::cluster::{Deadlines, Scenario};
use backdoor_sim::dist::Dist;
use backdoor_sim::faults::{ApplicationFault, Arrivals, FaultOptions, OsFault};
use backdoor_sim::workload::{Activity, Pauses};

use super::contenders::Contender;

/// Always-busy tasks of the loaded node, which has two cores.
const LOAD: usize = 40;
/// Time from the repair of a failure to the next one.
const GAP: (u64, u64) = (500, 1500);
/// How long a failure lasts.
const OUTAGE: Nanos = Nanos::from_millis(500);

/// What is the matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::study) enum Case {
    Calm,
    Observer,
    Idle,
    Hidden,
    Livelock,
    Pauses,
    Load,
    Processor,
}

impl Case {
    pub(super) const ALL: [Case; 8] = [
        Case::Calm,
        Case::Observer,
        Case::Idle,
        Case::Hidden,
        Case::Livelock,
        Case::Pauses,
        Case::Load,
        Case::Processor,
    ];

    /// In tables.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Case::Calm => "calm",
            Case::Observer => "observer",
            Case::Idle => "idle",
            Case::Hidden => "hidden",
            Case::Livelock => "livelock",
            Case::Pauses => "pauses",
            Case::Load => "load",
            Case::Processor => "processor",
        }
    }

    /// In figures.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Case::Calm => "nothing else",
            Case::Observer => "observer stalls",
            Case::Idle => "idle sessions",
            Case::Hidden => "hung, says idle",
            Case::Livelock => "livelock",
            Case::Pauses => "pauses of 40 ms",
            Case::Load => "load of 40 tasks",
            Case::Processor => "a processor hangs",
        }
    }

    /// The level at which things fail, and at which mistakes are counted.
    pub(super) const fn level(self) -> FailureLevel {
        match self {
            Case::Idle | Case::Hidden => FailureLevel::Session,
            Case::Processor => FailureLevel::Os,
            _ => FailureLevel::Application,
        }
    }

    /// The node that a contender watches, and the way it does.
    pub(super) fn scenario(self, contender: Contender, (deadline, poll): (Nanos, Nanos), duration: Nanos) -> Scenario {
        let millis = Nanos::from_millis;
        let uniform = |(low, high): (u64, u64)| Dist::uniform(millis(low), millis(high));
        let exponential = |mean: u64| Dist::exp(millis(mean)).unwrap_or(Dist::constant(millis(mean)));
        let mut scenario = Scenario {
            mode: contender.mode(),
            deadlines: Deadlines::all(deadline),
            monitor: MonitorConfig::polling_every(poll),
            warm_up: Nanos::from_secs(4),
            duration,
            ..Scenario::default()
        };
        let work = &mut scenario.workload;
        (work.tick_interval, work.loop_interval) = (millis(1), millis(1));
        work.request_interval = exponential(20);
        work.state_bytes = None;
        let ours = contender == Contender::Ours;
        (work.activity, work.pending_gauges) = match self {
            _ if ours => (Activity::Handler, true),
            Case::Idle => (Activity::Nobody, false),
            Case::Hidden => (Activity::Handler, false),
            _ => (Activity::Kernel, false),
        };
        scenario.faults = FaultOptions {
            arrivals: Arrivals::OneAtATime { gap: uniform(GAP).unwrap_or(Dist::constant(millis(GAP.1))) },
            repair_after: Some(Dist::constant(OUTAGE)),
            ..FaultOptions::default()
        }
        .at_level(self.level());
        match self {
            Case::Calm | Case::Hidden => {}
            // Of its time, it stands still for a tenth.
            Case::Observer => {
                scenario.observer_stalls = Some(Pauses { interval: exponential(900), length: exponential(100) });
            }
            Case::Idle => scenario.workload.request_interval = exponential(200),
            Case::Livelock => scenario.faults.application = ApplicationFault::Livelock,
            Case::Pauses => {
                let length = Dist::constant(millis(40));
                scenario.workload.pauses = Some(Pauses { interval: exponential(300), length });
            }
            Case::Load => scenario.load = LOAD,
            Case::Processor => scenario.faults.os = OsFault::HungProcessor,
        }
        scenario
    }

    /// Whether a contender is told of an entity, given its place among the operating system's counters or otherwise its
    /// level: heartbeats say that somebody is awake, not which processor ticks, nor what work is done.
    pub(super) fn is_told(self, contender: Contender, level: FailureLevel, is_processor: bool) -> bool {
        contender == Contender::Ours
            || match self {
                Case::Processor => !is_processor,
                Case::Livelock => level != FailureLevel::Session,
                _ => true,
            }
    }
}
