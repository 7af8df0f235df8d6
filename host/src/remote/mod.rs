//! Monitors on other machines: how a monitor and an agent meet, before the network cards take over.
//!
//! The agent listens at a TCP port, [`DEFAULT_PORT`] unless told otherwise. A connection begins with a handshake that
//! only those pass who have the node's [key](SetupKey); see [`Channel`]. Then one request and its answer, in JSON:
//!
//! | request | answer | |
//! |---|---|---|
//! | `{"request":"connect","endpoint":{…},"monitor":"name of its machine"}` | `connected`: `endpoint`, `incarnation`, `regions` | the node's queue pair is ready, and the monitor's may be used |
//! | | `refused`: `reason`, `message` | too many monitors, other kind of network, … |
//!
//! Nothing more is said. The node's queue pair lives exactly as long as the connection: the monitor closes it when it is
//! done with its own queue pair, and the agent's end notices, if the monitor's machine vanishes without a word, by TCP's
//! keep-alive. A monitor whose queue pair broke begins again from the start, and hears of the regions as they are then.
//!
//! # What the key protects, and what it does not
//! Without the key, nobody gets a queue pair or learns the card's keys of the node's regions; what is said can't be
//! read, changed or played back. Whoever has it may read everything the node offers and change its claim words: one key
//! is for one group of machines that trust each other with that.
//!
//! RDMA itself neither authenticates nor encrypts. Somebody who can put packets of his own on the network of the cards,
//! or read those of others there, can read what monitors read, and can forge requests if he learns or guesses a region's
//! key and a queue pair's numbers. Use a network where only trusted machines are, as is the custom. Two things limit the
//! damage whatever happens: the card grants each region no more than its rights, so that nothing but claim words can be
//! changed; and a region that is [revoked](crate::agent::Agent::revoke) is out of reach at once, and comes back under
//! another key of the card.
//!
//! Somebody without the key can keep an agent busy with connections. Those that have not shown the key yet are bounded
//! in time and number, and the oldest give way, so monitors still get through, and the agent's other work goes on.
//!
//! # Claims
//! A card's compare-and-swap is atomic against those of the same card, not against the node's processors. Monitors that
//! may take over one node's sessions must therefore all come over the network card, or all run on the node.

mod channel;
mod key;
mod messages;
mod tcp;

pub use channel::{Channel, ChannelError, MAX_MESSAGE_BYTES, SETUP_VERSION};
pub use key::{KEY_BYTES, KeyError, SetupKey};
pub use messages::{Answer, MAX_NAME_BYTES, MAX_REGIONS, Reason, Request};

pub(crate) use messages::{check_regions, machine_name};
pub(crate) use tcp::prepare;

/// Where agents listen for monitors of other machines, unless told otherwise.
pub const DEFAULT_PORT: u16 = 7471;
