//! The machinery around the experiments of Back-Doors: what turns a sweep into numbers, figures and a report.
//!
//! ```text
//!  config/  ──> grid of points ──> runner ──> results/ (journal, CSV) ──> figures/ ──> report
//!  TOML          (index, axes)     rayon       survives kill -9           SVG, PNG     one HTML file
//!                                    │
//!                              progress, interrupt
//! ```
//!
//! Nothing here knows what an experiment measures; an experiment is a function from a grid point to a row. Two
//! promises hold throughout. *Same seed, same bytes:* a CSV depends on the config and the seed, never on the number
//! of threads, on the order in which points finish, or on whether the run was interrupted and resumed. *No half
//! files:* whatever a reader finds under its final name is whole.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod cli;
pub mod config;
pub mod doctor;
#[cfg(feature = "studies")]
pub mod figures;
pub mod interrupt;
pub mod live;
pub mod progress;
#[cfg(feature = "studies")]
pub mod qos;
#[cfg(feature = "studies")]
pub mod report;
pub mod results;
#[cfg(feature = "studies")]
pub mod runner;
mod say;
#[cfg(feature = "studies")]
pub mod soft_roce;
#[cfg(feature = "studies")]
pub mod study;

pub use backdoor_sim::stats;
pub(crate) use say::plain;
