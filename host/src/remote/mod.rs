//! Monitors on other machines.
mod channel;
mod key;
pub use channel::{Channel, ChannelError, MAX_MESSAGE_BYTES, SETUP_VERSION};
pub use key::{KEY_BYTES, KeyError, SetupKey};
