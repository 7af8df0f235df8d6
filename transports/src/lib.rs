//! Transports of Back-Doors: ways to reach another machine's memory without its processor.
//!
//! The monitor in `backdoor-core` is written once, against
//! [`Transport`](backdoor_core::transport::Transport). Here are the substrates it runs on, wrappers that stand between
//! the two, and the one suite of tests that all of them pass.
//!
//! ```text
//!                         monitor
//!                            │  Transport: post / poll
//!          ┌─────────────────┴─────────────────┐
//!          │ FaultInjector<T>      Tracer<T>   │   wrappers: each is a Transport around a Transport
//!          └─────────────────┬─────────────────┘
//!               ┌────────────┼────────────────────┐
//!            sim_nic         shm                  verbs
//!         virtual time   memory shared         a network card,
//!                        between processes     over queue pairs
//! ```
//!
//! - [`sim_nic`]: a network card in virtual time, with the manners of a reliable connection of verbs.
//! - [`shm`]: memory shared between processes; page protection keeps the rights.
//! - `verbs` (feature `verbs`): reliable connections of real network cards, InfiniBand and RoCE; the card keeps the
//!   rights.
//! - [`fault_injector`]: errors, corrupt data and replayed data, from a seed or at set operations.
//! - [`tracer`]: counts of operations, words and errors; a line of text per operation.
//! - [`conformance`]: what every transport must do, as a list of cases that any of them can be put through.
#![deny(unsafe_code)]
#![warn(missing_docs)]

mod buffers;
pub mod conformance;
pub mod fault_injector;
#[cfg(target_os = "linux")]
pub mod shm;
pub mod sim_nic;
pub mod tracer;
#[cfg(all(target_os = "linux", feature = "verbs"))]
pub mod verbs;

pub use fault_injector::FaultInjector;
pub use tracer::Tracer;
