//! Why verbs can't be used.

use std::error::Error;

use super::address::Link;

/// Why a device can't be opened, memory not be registered, or a connection not be made.
#[derive(Debug, thiserror::Error)]
pub enum VerbsError {
    /// The library or the kernel's part is missing.
    #[error(
        "this machine can't do RDMA: libibverbs.so.1 (package rdma-core or libibverbs1) or the kernel module ib_uverbs is missing; `backdoor doctor` says which"
    )]
    NotInstalled,
    /// No network card that speaks verbs.
    #[error("there is no RDMA device on this machine; `backdoor doctor` says what to do")]
    NoDevice,
    /// No card of that name.
    #[error("there is no RDMA device '{name}'; there is {have}")]
    UnknownDevice {
        /// The name asked for.
        name: String,
        /// The names that there are.
        have: String,
    },
    /// A card, but no port of it that could be used.
    #[error("RDMA device {device}: {why}")]
    NoPort {
        /// The card.
        device: String,
        /// Why not, port by port.
        why: String,
    },
    /// The ends can't be connected to each other.
    #[error("the other end is on {theirs}, this one on {ours}")]
    OtherLink {
        /// This end.
        ours: Link,
        /// The other end.
        theirs: Link,
    },
    /// The other end described itself by values that can't be.
    #[error("the other end described its queue pair by {0}, which can't be")]
    Nonsense(String),
    /// A queue deeper or shallower than the card can make.
    #[error("a queue of {asked} operations: the device can do from 1 to {most}")]
    Depth {
        /// Asked for.
        asked: usize,
        /// The card's limit.
        most: usize,
    },
    /// The way by which the ends meet failed.
    #[error(transparent)]
    Connect(Box<dyn Error + Send + Sync>),
    /// A call of the library failed.
    #[error("can't {doing}: {why}")]
    Call {
        /// What was tried.
        doing: &'static str,
        /// What the library said.
        why: String,
    },
    /// Too little memory may be locked.
    #[error("can't register {bytes} bytes: {why}; raise the limit of locked memory (`ulimit -l`, LimitMEMLOCK=)")]
    Register {
        /// How much.
        bytes: usize,
        /// What the library said.
        why: String,
    },
}

/// An error with its causes, as one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Wrappers that are transparent say the same twice.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// For `map_err`: a failed call, by what it was to do.
pub(super) fn call<E: Error>(doing: &'static str) -> impl Fn(E) -> VerbsError {
    move |error| VerbsError::Call { doing, why: chain(&error) }
}
