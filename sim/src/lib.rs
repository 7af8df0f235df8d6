//! Discrete-event simulation of monitored clusters.
//!
//! The parts that everything else in here stands on:
//!
//! | module | gives |
//! |---|---|
//! | [`engine`] | virtual time: events come out in the order (time, sequence of scheduling), whatever the queue's geometry |
//! | [`streams`] | a random stream per component, derived from (seed, experiment, point, replication, component) |
//! | [`dist`] | delays and durations as distributions, written `exp:20ms` in configurations |
//! | [`cpu`] | a node's processors: who runs, who waits, what is stuck |
//!
//! Time is [`backdoor_core::Nanos`] throughout: integers, so that the same seed gives the same bytes.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod cpu;
pub mod dist;
pub mod engine;
pub mod streams;
