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
//! | `standby` | sessions of another node, carried on here |
//! | [`offers`] | what a taker and a node that stands by say to each other |
//! | [`rescue`] | the taker's doing: core's takeover, for many sessions at once |
//! | [`taker`] | the process that watches a node and carries its sessions on |

mod asks;
pub mod content;
mod conversation;
pub mod offers;
mod promised;
pub mod request;
pub mod rescue;
pub mod serve;
mod standby;
pub mod state;
pub mod taker;
mod worker;
