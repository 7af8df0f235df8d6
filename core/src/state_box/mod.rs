//! The State Box: what it takes to carry one client session on elsewhere (paper, section 5).
//!
//! ```text
//!  head, first line: session, incarnation, unclaimed value | checksum
//!  head, second line: commit word | of each slot: sequence, length, checksum
//!  slot 0: payload        version n lives in slot n mod 2
//!  slot 1: payload
//! ```
//!
//! A commit writes the slot that is not committed and then moves the commit word, so a writer killed at any
//! instruction leaves the last committed version whole. All but the payloads lies in the head, so one READ tells where
//! the committed payload is, and a second brings it and nothing else. A remote READ is not atomic; a version's checksum
//! covers the head's first line, sequence, length and payload, so a reader gets one whole committed version or a typed
//! error, never a mixture of two, nor another session's state.
//!
//! Who owns the session is decided in a *claim word*, which is changed by remote compare-and-swap only and lies in a
//! region of its own: rights are granted by page or by registration, and that way neither the service can write claims,
//! nor a taker state. The header keeps the claim word's value at the time the session was opened; any other value is
//! [somebody's claim](crate::takeover::Claim). That is how a used claim word serves again without the node writing to it.
//! A writer commits while the word has that value, [waits](CommitError::InDoubt) while the session may be given back to
//! it, and [stops](CommitError::Lost) when it is lost.
//!
//! A claim word does not say which session it belongs to. A taker that was slow may swap it after the session it read
//! has ended and another has opened with the same unclaimed value; so after a successful swap a taker reads session and
//! incarnation again, and holds the session only if they are still those that it meant.

mod layout;
mod reader;
mod writer;

pub use layout::{HEAD_WORDS, MAX_PAYLOAD_BYTES, words_needed};
pub use reader::{Committed, CommittedVersion, StateBoxError, StateBoxHead, StateBoxView};
pub use writer::{ClaimWord, CommitError, StateBox};
