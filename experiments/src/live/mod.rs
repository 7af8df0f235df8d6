//! Real processes, real faults, real time: the monitor of the simulations over memory shared between processes.
//!
//! ```text
//!  detect ── starts ──> agent    owns the memory                      (a process of its own, as are the next three)
//!    │       ├────────> worker   serves sessions over TCP; this is what fails
//!    │       ├────────> load     busy loops
//!    │       └────────> monitor  reads that memory, and nothing else
//!    └─ clients: threads that keep the sessions busy and remember what they were answered
//! ```
//!
//! On one machine `detect` starts all of them. On two, a [`stage`] on the watched machine starts the agent, the worker
//! and the load for it.
//!
//! * [`watch`] drives the monitor of `backdoor-core` in real time: finds the agent, sleeps until a poll is due, says
//!   what was noticed. `backdoor monitor` and the monitor of the experiments are the same code.
//! * [`detector`] is what it judges by.
//! * [`notice`] is what it says, for machines and for people.
//! * [`snapshot`] reads a node once, for `backdoor inspect`.
//! * [`parts`] are the processes of an experiment, and how they are kept from outliving it.
//! * [`stage`] lets agent, worker and load be on another machine than all the rest; [`reach`] is how the monitor gets
//!   there.
//! * [`detect`] is the experiment: how long until a real failure is noticed, and is the state that is then read out of
//!   the failed process the one that the clients know?
//! * [`failover`] is the other: does a client go on whose server died, with every byte right? [`web`] is its service, the
//!   heir, and the taker between them.
//! * [`overhead`] is the third: what do State Boxes cost while nothing fails?
//! * [`record`] writes down what the monitor of healthy parts, or of any node, observes: traces for `backdoor qos`.

pub mod detect;
pub mod detector;
pub mod failover;
pub mod notice;
pub mod overhead;
pub mod parts;
pub mod reach;
pub mod record;
pub mod snapshot;
pub mod stage;
mod two_locks;
pub mod wakeups;
pub mod watch;
pub mod web;
