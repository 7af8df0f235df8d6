//! Real network cards: InfiniBand and RoCE v2, over libibverbs.
//!
//! ```text
//!   monitored node                                         monitor
//!   Device ── Region::register: memory, rights             Device
//!     │                                                      │
//!   PassiveQueuePair  <── Endpoint, RemoteRegion, ... ──>  VerbsTransport    told each other by whoever implements
//!     ║                                                      ║               Connect: over TCP, in `backdoor-host`
//!     ╚══════════ reliable connection: READ, WRITE, compare-and-swap ═══════╝
//! ```
//!
//! The node's side needs no thread, and after the connection is made none of its processors: its card answers. What a
//! monitor may do is enforced by that card, by the rights of each registration. Dropping a [`Region`] takes it back at
//! once; dropping a [`PassiveQueuePair`] closes the connection. Both end with their process, so a process that outlives
//! the applications has to hold them.
//!
//! On the monitor's side, [`VerbsTransport`] is a [`Transport`](backdoor_core::transport::Transport) like the others.
//! An error breaks its queue pair for good; reopening makes a new one, and asks [`Connect`] for a new peer, on a thread
//! of its own, so that nothing blocks.
//!
//! libibverbs is opened at run time: a program with this backend starts on any machine, and [`Device::open`] says what
//! is missing.
//!
//! # What the card says, and what it means here
//! | completion status | means | reported as |
//! |---|---|---|
//! | `REM_ACCESS`, `REM_INV_REQ`, `REM_OP` | the node's card refused | `OutOfBounds`, if it was outside of the region as described at set-up; else `Refused` |
//! | `RETRY_EXC`, `RNR_RETRY_EXC`, `RESP_TIMEOUT` | nobody answered | `Unreachable` |
//! | nothing, for [`RetrySettings::patience`] | the card does not even report that | `Unreachable` |
//! | `WR_FLUSH`, and all work behind an error | given up | `Flushed` |
//! | everything else | our own card or link | `LocalFault` |

mod address;
mod device;
mod error;
mod in_flight;
#[allow(unsafe_code)]
mod memory;
#[allow(unsafe_code)]
mod queue_pair;
mod settings;
#[allow(unsafe_code)]
mod transport;

pub use address::{Endpoint, Link, RemoteRegion};
pub use device::{Device, DeviceChoice};
pub use error::VerbsError;
pub use memory::Region;
pub use queue_pair::PassiveQueuePair;
pub use settings::{RetrySettings, SettingsError};
pub use transport::{Connect, Peer, VerbsConfig, VerbsTransport};
