//! What a monitor in real time says: one value per thing noticed, one JSON line each for machines.
//!
//! Times are nanoseconds of the monotonic clock of the monitor's machine, which all processes there share: a notice can
//! be set against a fault that another process made; one that another machine made is
//! [translated](super::stage::offset). Texts for people are made in [`text`].

pub mod text;

use backdoor_core::diagnosis::Cause;
use backdoor_core::monitor::Event;
use backdoor_core::progress_box::{EntityRecord, Slot};
use backdoor_core::recovery::NodeAction;
use backdoor_core::transport::TransportError;
use serde::{Deserialize, Serialize};

use super::wakeups::WakeupError;

/// Something noticed, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// `CLOCK_MONOTONIC`, in nanoseconds.
    pub at_ns: u64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// An entity of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entity {
    /// Its place in the Progress Box.
    pub slot: u32,
    /// Which use of that place it is.
    pub generation: u32,
    /// Its name.
    pub name: String,
    /// `os`, `application` or `session`.
    pub level: String,
    /// Operating system's number of its process.
    pub process: u64,
    /// Session number; 0 for what is no session.
    pub session: u64,
    /// Longest silence that is trusted.
    pub deadline_ns: u64,
}

impl Entity {
    /// As the directory describes it.
    pub fn new(slot: Slot, record: &EntityRecord) -> Self {
        Entity {
            slot: slot.0,
            generation: record.generation,
            name: record.name.to_string(),
            level: record.level.name().into(),
            process: record.process,
            session: record.session,
            deadline_ns: record.deadline.0,
        }
    }
}

/// A session's last committed state, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveredState {
    /// Whose it is.
    pub entity: Entity,
    /// Number of the commit; 0 if there is no state.
    pub sequence: u64,
    /// The state in hexadecimal digits; empty if there is none.
    pub state_hex: String,
    /// Why there is none.
    pub error: Option<String>,
}

/// What an extraction brought and cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// One answer per session.
    pub states: Vec<RecoveredState>,
    /// From the first READ to the last answer.
    pub took_ns: u64,
    /// READs posted.
    pub reads: u64,
    /// Bytes asked for.
    pub bytes_read: u64,
}

/// What was noticed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// There is no agent to attach to, or a channel that failed can't be opened again; it is tried again.
    Waiting {
        /// Why not.
        why: String,
    },
    /// An agent answered, and its memory is mapped.
    Connected {
        /// Which start of the agent it is.
        incarnation: u64,
        /// Whether another agent was watched before.
        again: bool,
    },
    /// The agent has stopped or died. What it left is watched on, until there is another.
    AgentGone,
    /// The node's Progress Box was found, and is polled from here on.
    Attached {
        /// Boot incarnation of the node.
        incarnation: u64,
        /// Room in its Progress Box.
        capacity: usize,
    },
    /// The memory belongs to another incarnation than before.
    Restarted {
        /// The incarnation watched so far.
        old: u64,
        /// The one found now.
        new: u64,
    },
    /// An entity is watched from here on.
    Joined {
        /// Who.
        entity: Entity,
    },
    /// An entity ended by its own will, or its place was freed.
    Left {
        /// Who.
        entity: Entity,
    },
    /// An entity was silent for too long.
    Suspected {
        /// Who.
        entity: Entity,
        /// For how long, as far as the monitor watched.
        silence_ns: u64,
    },
    /// A suspected entity made progress, or said that it is idle.
    Trusted {
        /// Who.
        entity: Entity,
        /// How long it had been silent.
        silence_ns: u64,
    },
    /// A failure that explains what is silent.
    Failure {
        /// `operating_system`, `processor`, `reporter`, `application`, `not_serving` or `session`.
        cause: String,
        /// Whose silence is the failure itself; of `not_serving`, the application whose sessions are silent.
        roots: Vec<Entity>,
        /// How many sessions lose service by it.
        sessions: usize,
        /// How many of those keep a State Box.
        recoverable: usize,
        /// `none`, `restart_application` or `reboot_node`.
        action: String,
        /// What was read out of the failed node, if that was asked for.
        recovery: Option<Recovery>,
    },
    /// A failure reported before is over.
    Resolved {
        /// Its cause.
        cause: String,
        /// Its roots.
        roots: Vec<Entity>,
    },
    /// The channel failed; nobody is accused on that evidence.
    ChannelLost {
        /// `unreachable`, `local_fault`, `refused`, `out_of_bounds` or `flushed`.
        kind: String,
        /// The same in a sentence.
        error: String,
    },
    /// The channel works again.
    ChannelRestored,
    /// The monitor's own samples were too far apart; the excess is held against nobody.
    Late {
        /// Time between them.
        gap_ns: u64,
    },
    /// The node's memory is not what it should be.
    BadMemory {
        /// What is wrong with it.
        error: String,
    },
    /// The node offers no memory for monitoring.
    NoProgressBox,
    /// The last notice.
    Summary(Summary),
}

/// What a monitor did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How long it ran, in s.
    pub ran_s: f64,
    /// Times it attached to an agent.
    pub attached: u64,
    /// Samples of the liveness words.
    pub samples: u64,
    /// Samples that came too late to be evidence of the silence before them.
    pub late_samples: u64,
    /// Entities that were watched.
    pub entities: u64,
    /// Suspicions, those that were withdrawn included.
    pub suspicions: u64,
    /// Suspicions withdrawn.
    pub withdrawn: u64,
    /// Failures diagnosed.
    pub failures: u64,
    /// Entities suspected at the end.
    pub suspected: u64,
    /// How late it woke up for its polls.
    pub wakeups: WakeupError,
}

impl Summary {
    /// Adds what another monitor did afterwards. Wake-ups can't be merged: the worse of the two stand for both.
    pub fn add(&mut self, other: &Summary) {
        self.ran_s += other.ran_s;
        self.attached += other.attached;
        self.samples += other.samples;
        self.late_samples += other.late_samples;
        self.entities += other.entities;
        self.suspicions += other.suspicions;
        self.withdrawn += other.withdrawn;
        self.failures += other.failures;
        self.suspected = other.suspected;
        self.wakeups.count += other.wakeups.count;
        self.wakeups.median_ms = self.wakeups.median_ms.max(other.wakeups.median_ms);
        self.wakeups.p99_ms = self.wakeups.p99_ms.max(other.wakeups.p99_ms);
        self.wakeups.max_ms = self.wakeups.max_ms.max(other.wakeups.max_ms);
    }
}

/// The name of a cause in files.
pub const fn cause_name(cause: Cause) -> &'static str {
    match cause {
        Cause::OperatingSystem => "operating_system",
        Cause::Processor => "processor",
        Cause::Reporter => "reporter",
        Cause::Application => "application",
        Cause::NotServing => "not_serving",
        Cause::Session => "session",
    }
}

/// The name of what broke a channel in files.
pub const fn channel_error_name(error: TransportError) -> &'static str {
    match error {
        TransportError::Refused => "refused",
        TransportError::OutOfBounds => "out_of_bounds",
        TransportError::Unreachable => "unreachable",
        TransportError::Flushed => "flushed",
        TransportError::LocalFault => "local_fault",
    }
}

/// The name of an action in files.
pub const fn action_name(action: NodeAction) -> &'static str {
    match action {
        NodeAction::None => "none",
        NodeAction::RestartApplication(_) => "restart_application",
        NodeAction::RebootNode => "reboot_node",
        NodeAction::ExcludeNode(_) => "exclude_node",
    }
}

impl What {
    /// What an event of the pure monitor says.
    pub fn of(event: &Event) -> Self {
        match event {
            Event::Attached { incarnation, capacity } => {
                What::Attached { incarnation: *incarnation, capacity: *capacity }
            }
            Event::Restarted { old, new } => What::Restarted { old: *old, new: *new },
            Event::Joined { slot, record } => What::Joined { entity: Entity::new(*slot, record) },
            Event::Left { slot, record } => What::Left { entity: Entity::new(*slot, record) },
            Event::Suspected(v) => What::Suspected { entity: Entity::new(v.slot, &v.record), silence_ns: v.silence.0 },
            Event::Trusted(v) => What::Trusted { entity: Entity::new(v.slot, &v.record), silence_ns: v.silence.0 },
            Event::ChannelLost { error, .. } => {
                What::ChannelLost { kind: channel_error_name(*error).into(), error: error.to_string() }
            }
            Event::ChannelRestored { .. } => What::ChannelRestored,
            Event::Late { gap, .. } => What::Late { gap_ns: gap.0 },
            Event::BadMemory { error, .. } => What::BadMemory { error: error.to_string() },
            Event::NoProgressBox { .. } => What::NoProgressBox,
        }
    }
}

/// Bytes as hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_come_back_from_their_lines() {
        let record =
            EntityRecord::new("kv \"7\"", backdoor_core::progress_box::FailureLevel::Session, backdoor_core::Nanos(5));
        let entity = Entity::new(Slot(3), &record);
        for what in [
            What::AgentGone,
            What::Connected { incarnation: u64::MAX, again: true },
            What::Suspected { entity: entity.clone(), silence_ns: u64::MAX - 1 },
            What::Resolved { cause: cause_name(Cause::Session).into(), roots: vec![entity] },
            What::Summary(Summary { ran_s: 0.5, ..Summary::default() }),
        ] {
            let notice = Notice { at_ns: 1 << 60, what };
            let line = serde_json::to_string(&notice).unwrap();
            assert!(!line.contains('\n') && line.contains("\"event\":"), "{line}");
            assert_eq!(serde_json::from_str::<Notice>(&line).unwrap(), notice);
        }
        assert_eq!(to_hex(&[0, 0x1f, 0xa0]), "001fa0");
    }
}
