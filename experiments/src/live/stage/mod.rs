//! An experiment on two machines: the node that is watched, and fails, is not the machine that watches.
//!
//! ```text
//!   the monitor's machine                          the node
//!  detect ── TCP: orders, lines of the parts ──> stage ── starts ──> agent, worker, load, saboteur
//!    ├─ starts ──> monitor ── one-sided READs ─────────────────────> the agent's memory
//!    └─ clients ── TCP: requests of the sessions ──────────────────> worker
//! ```
//!
//! A *stage* is a process on the node (`backdoor live stage`) that starts the parts of one experiment at a time when it
//! is told to, hands on what they are told and what they say, and ends them all when the connection ends, whichever
//! side it ends on. The parts are the same processes as on one machine; only [`Part`](super::parts::Part) knows where
//! one is.
//!
//! * [`protocol`]: what the two sides say to each other, a JSON line each; how long a line may be.
//! * [`serve`]: the stage. [`connection`]: who gives the orders.
//! * [`offset`]: two machines, two clocks, and by how much they differ.
//!
//! # Trust
//! There are no passwords. Whoever can reach the port can start the experiment's processes, as the user whom the stage
//! runs as, and crash the machine if the stage allows crashes; so it listens where it is told to and nowhere else. What
//! comes over the connection can do no more than that: lines, parts and waiting are bounded, nothing in them names
//! a program, and the only address to listen on that they name is that of a failover's service. Nothing is encrypted, the key of the experiment's agent neither; it is
//! made for the experiment and worth nothing after it.

pub mod connection;
pub mod offset;
pub mod protocol;
pub mod serve;
