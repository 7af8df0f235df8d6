//! A service whose sessions outlive its node: what it promises its clients, how it is served, and how its sessions are
//! carried on elsewhere.
//!
//! | | |
//! |---|---|
//! | [`state`] | a session: what was asked, what was promised; no I/O |
//! | [`request`] | what clients ask for |
//! | `promised` | what they were promised, in pieces |
//! | [`content`] | the bytes that it serves |
//! | [`serve`] | the process that serves, or stands by |
//! | `conversation` | a session at work |
//! | `asks`, `worker` | a session that a second process counts for: the front's end, and the worker's |
//! | `readopt` | sessions of a dead process of the same node, gone on with |
//! | [`supervisor`] | the process that starts the service again on its node |
//! | `standby` | sessions of another node, carried on here |
//! | `door`, `doors` | the service's addresses at a node that carries on: when one is there, who is told, and who is heard |
//! | `old_owner` | the claim words of the node whose sessions may be carried on |
//! | [`offers`] | what a taker and a node that stands by say to each other |
//! | [`targets`] | the taker's connections to such nodes |
//! | [`rescue`] | the taker's doing: core's takeover, for many sessions at once |
//! | [`rescued`] | one of them, and what came of it |
//! | `aims` | to which node they go: those of one address together |
//! | [`taker`] | the process that watches a node and carries its sessions on |
//! | [`remedy`] | what it does about a failure: takeover, restart, or what a policy finds best |
//! | `around` | what surrounds it: the switch, the node's agent, the targets |
//! | [`milestone`] | where it can be halted, for experiments |
//! | [`party`] | who takes part in takeovers: numbers and names |
//! | `swaps` | compare-and-swaps, waited for |
//! | `places` | for so many at once |

mod aims;
mod around;
mod asks;
pub mod ballast;
pub mod content;
mod conversation;
mod door;
mod doors;
pub mod milestone;
pub mod offers;
mod old_owner;
pub mod party;
mod places;
mod promised;
mod readopt;
pub mod remedy;
pub mod request;
pub mod rescue;
pub mod rescued;
pub mod serve;
mod standby;
pub mod state;
pub mod supervisor;
mod swaps;
pub mod taker;
pub mod targets;
mod waiting;
mod worker;
