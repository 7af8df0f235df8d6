//! Formats and decisions of Back-Doors.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(not(target_endian = "little"))]
compile_error!("the formats are little-endian words; a big-endian machine would need byte swaps at every access");

pub mod detector;
pub mod diagnosis;
mod format;
pub mod hook_table;
pub mod monitor;
pub mod progress_box;
pub mod recovery;
pub mod state_box;
pub mod transport;
mod units;
pub mod words;

pub use format::FormatError;
pub use units::{Nanos, ParseNanosError};
