//! What a monitor tells its user.

use crate::progress_box::{EntityRecord, Slot};
use crate::transport::TransportError;
use crate::{FormatError, Nanos};

/// An entity that the monitor began to suspect, or trusts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Where it is in the Progress Box.
    pub slot: Slot,
    /// What the directory says of it.
    pub record: EntityRecord,
    /// When the monitor came to the verdict.
    pub at: Nanos,
    /// How long the counter stood still while the monitor watched.
    pub silence: Nanos,
}

/// Something that a monitor noticed, in the order in which it noticed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The node's Progress Box was found, and is polled from here on. Whoever was known before is forgotten, without
    /// having left: who is there joins anew.
    Attached {
        /// Boot incarnation of the node.
        incarnation: u64,
        /// Room in its Progress Box.
        capacity: usize,
    },
    /// The node started anew: its entities are others, and the new incarnation is no progress of the old ones.
    Restarted {
        /// The incarnation watched so far.
        old: u64,
        /// The one found now.
        new: u64,
    },
    /// An entity is watched from here on.
    Joined {
        /// Its place.
        slot: Slot,
        /// What the directory says of it.
        record: EntityRecord,
    },
    /// An entity ended by its own will, or its slot was freed.
    Left {
        /// Its place.
        slot: Slot,
        /// What the directory said of it.
        record: EntityRecord,
    },
    /// An entity is suspected to have failed.
    Suspected(Verdict),
    /// A suspected entity made progress, or said that it is idle.
    Trusted(Verdict),
    /// The channel failed. Nobody is accused on that evidence.
    ChannelLost {
        /// How it failed.
        error: TransportError,
        /// When that was noticed.
        at: Nanos,
    },
    /// The channel works again: it brings what is monitored.
    ChannelRestored {
        /// When that was noticed.
        at: Nanos,
    },
    /// The monitor's own samples were too far apart; the excess is held against nobody.
    Late {
        /// Time between the samples.
        gap: Nanos,
        /// When that was noticed.
        at: Nanos,
    },
    /// The node's memory is not what it should be; it is read anew.
    BadMemory {
        /// What is wrong.
        error: FormatError,
        /// When that was noticed.
        at: Nanos,
    },
    /// The node offers no memory for monitoring, or too little.
    NoProgressBox {
        /// When that was noticed.
        at: Nanos,
    },
}
