//! The Progress Box: a node's table of progress counters (paper, section 5).
//!
//! ```text
//!  header | liveness words, one per entity | gauges | directory, one entry per entity
//!  `------------- one READ, every poll ---------'     `--- re-read when its version moves
//! ```
//!
//! A *liveness word* carries an entity's state in its two low bits and a progress count above, so that "idle" and
//! "advanced" can't tear apart, and an update is one store by the word's single writer. Counts wrap after 2⁶² updates.
//! The directory tells names, levels, deadlines and dependencies; each of its entries has a checksum, and every change
//! moves the directory version after the change, so a reader that saw version *v* and then reads the directory gets at
//! least what *v* promised. *Gauges* are the paper's statistics of interest, plain words beside the counters.

mod counter;
mod entity;
mod layout;
mod pending;
mod reader;
mod writer;

pub use counter::{Counter, EntityState, Liveness};
pub use entity::{EntityRecord, FailureLevel, MAX_DEPENDENCIES, MAX_NAME_BYTES, Name, Slot, StateBoxLocation};
pub use layout::{ENTRY_WORDS, Geometry, HEADER_WORDS, MAX_ENTITIES, MAX_GAUGES};
pub use pending::Pending;
pub use reader::{Header, read_directory};
pub use writer::{ProgressBox, ProgressBoxError};
