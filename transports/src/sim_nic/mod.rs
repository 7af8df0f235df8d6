//! A network card in virtual time, with the manners of a reliable connection of verbs.
//!
//! A [`SimNode`] is the passive side: registered memory, and a card that serves it. A [`SimChannel`] is a monitor's
//! end of a connection to it, and implements [`Transport`](backdoor_core::transport::Transport). Time is told, never
//! asked: the event loop advances a channel to the instant at which something is due there.
//!
//! ```text
//!  post ──way there──▶ first chunk · second chunk · … ──way back──▶ completion, polled
//!                      (the node's processor runs in between: a long READ can be torn)
//! ```
//!
//! # How it behaves
//! - Operations execute at the node in the order of posting, and complete in that order.
//! - A READ samples the node's memory when it gets there, chunk by chunk; a WRITE stores likewise; a compare-and-swap
//!   is one instant.
//! - A lost message costs one [`retransmit_after`](SimNicConfig::retransmit_after), after which the card sends again
//!   from the oldest unfinished operation on: READs execute again, WRITEs and compare-and-swaps that were executed
//!   don't, as their answer is remembered. After the last retry: `Unreachable`.
//! - A refusal, `Unreachable`, or a failure of the own link breaks the channel; work behind it is flushed.
//! - The own link being down is noticed at once, as soon as there is work: `LocalFault`.
//!
//! # Driving it
//! Advance the channel before every call of it, and look at [`SimChannel::next_event`] after every call; memory is
//! sampled when the channel is advanced, so an event taken late samples later memory.
//!
//! ```
//! use backdoor_core::Nanos;
//! use backdoor_core::transport::*;
//! use backdoor_core::words::{Ordering, zeroed};
//! use backdoor_transports::sim_nic::{FixedPath, SimChannel, SimNicConfig, SimNode};
//!
//! let node = SimNode::new();
//! let memory: std::sync::Arc<[_]> = zeroed(8).into();
//! let key = node.register(memory.clone(), Rights::READ)?;
//! let path = FixedPath::new(Nanos::from_micros(2));
//! let mut channel = SimChannel::connect(&node, path, SimNicConfig::default())?;
//!
//! let buffer = channel.allocate(8)?;
//! let from = RemoteSlice { key, offset: 0, words: 8 };
//! let read = Operation::Read { from, into: LocalSlice::start_of(buffer) };
//! channel.post(&[WorkRequest { id: WorkId(1), operation: read }])?;
//!
//! memory[3].store(7, Ordering::Relaxed); // before the READ gets there
//! let mut completions = Vec::new();
//! while let Some(at) = channel.next_event() {
//!     channel.advance_to(at); // an event loop would pop the earliest of all its events here
//!     channel.poll(&mut completions);
//! }
//! assert_eq!(completions, [Completion { id: WorkId(1), result: Ok(Done::Read) }]);
//! assert_eq!(channel.buffer(buffer)?[3], 7);
//! assert_eq!(channel.now(), Nanos::from_micros(4));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod channel;
mod config;
mod node;
mod path;
mod work;

pub use channel::SimChannel;
pub use config::{MAX_RETRIES, SimNicConfig, SimNicConfigError};
pub use node::{RegistrationError, SimNode};
pub use path::{FixedPath, Leg, Path, Transit};
