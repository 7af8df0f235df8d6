//! The quality of service of one failure detector: how fast it notices a crash, how often and for how long it errs.
//!
//! ```text
//!   sender ── heartbeat i at iη ──> lost with probability p_L, or delayed by D ──> detector (core) ──> trust, suspicion
//! ```
//!
//! The measures are those of Chen, Toueg and Aguilera, *On the Quality of Service of Failure Detectors*, IEEE Transactions
//! on Computers 51(5), 2002:
//!
//! | | |
//! |---|---|
//! | T_D | from a crash to the beginning of the suspicion that lasts; 0 if that began before |
//! | T_MR | from the beginning of one mistake to that of the next |
//! | T_M | how long a mistake lasts |
//! | P_A | probability that the detector is right at a random instant while the sender is alive |
//! | λ_M | mistakes per unit of time: 1 / E(T_MR) |
//!
//! | module | gives |
//! |---|---|
//! | [`setting`] | a detector, a heartbeat process, and whether they are possible |
//! | [`delay`] | laws of delay: those of [`dist`](crate::dist), or recorded ones |
//! | [`process`] | the arrivals, in order |
//! | [`watch`] | a core detector, and when it trusted and suspected |
//! | [`replication`] | one independent run: mistakes, then crashes |
//! | [`rare`] | mistakes too rare to wait for, by importance sampling |
//! | [`replay`] | the same measures on arrivals that were recorded |
//! | [`observed`] | the same on the progress that a monitor observed, as that monitor judges |
//! | [`measures`] | runs to estimates with intervals |
//! | [`closed`], [`configure`] | exact values where they are known, and NFD-S's parameters from requirements |
//!
//! # How a run is evaluated
//! A replication begins as if heartbeat 0 had just come, and forgets what it sees until twice the detector's window of
//! heartbeats (and 20 more, and a delay that one heartbeat in a thousand exceeds) have passed: see
//! [`Setting::warm_up`](setting::Setting::warm_up). It then measures from the first mistake that begins to the one that
//! completes the number asked for: whole cycles, so no run is cut short by its end. Intervals are Student's, over
//! replications. A run that reaches its cap of heartbeats first is measured from the warm-up to the cap instead.
//!
//! Then it crashes the sender many times, each at an instant that is uniform in a heartbeat interval: the heartbeats under
//! way still arrive, no other does.

pub mod closed;
pub mod configure;
pub mod delay;
pub mod integrate;
pub mod measures;
pub mod observed;
pub mod process;
pub mod rare;
pub mod replay;
pub mod replication;
pub mod setting;
pub mod watch;
