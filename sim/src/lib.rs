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
//! | [`workload`] | what a node does all day: ticks, event loops, requests, commits |
//! | [`faults`] | what goes wrong with it, when, and until when |
//! | [`cluster`] | nodes and their monitors in virtual time; recovery of what a node held |
//! | [`qos`] | one sender of heartbeats and one detector: simulated quality of service, closed forms, rare mistakes |
//! | [`stats`] | estimates with 95% intervals |
//! | [`metrics`] | how good a monitor was, for every deadline and every detector at once |
//!
//! Time is [`backdoor_core::Nanos`] throughout: integers, so that the same seed gives the same bytes.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod cluster;
pub mod cpu;
pub mod dist;
pub mod engine;
pub mod faults;
pub mod metrics;
pub mod qos;
pub mod stats;
pub mod streams;
pub mod workload;
