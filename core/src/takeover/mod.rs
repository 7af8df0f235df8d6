//! Takeover: how a session passes from an owner that seems to have failed to a healthy node, with never two owners whose
//! doings anybody sees.
//!
//! ```text
//!   old owner's node            taker (a monitor)                     target (a healthy node)
//!  ┌────────────────┐
//!  │ State Box ─────┼── READ ──> Looking     which session, which value is "unclaimed"?
//!  │                │               │
//!  │ claim word     │           Claiming ──────┐
//!  │  unclaimed     │               │          │ swap
//!  │  claimed 1     │<──────────────┼──────────┘     the owner waits
//!  │ State Box ─────┼── READ ──> Verifying   still that session?
//!  │                │               │  │
//!  │  unclaimed     │<── swap ──────│──┴─ GivingBack    trusted again: the owner serves on
//!  │                │               │
//!  │  fencing 1     │<── swap ── Committing          no way back; the owner stops when it looks
//!  └──────╳─────────┘               │
//!         └── cut off <───────── Fencing     whoever owns the way to the clients confirms
//!  ┌────────────────┐               │
//!  │ State Box ─────┼── READ ──> Extracting  what it has committed, which is all that it ever answered
//!  │                │               │
//!  │                │           Offering ── state ───> Preparing   in a State Box of its own, and silent
//!  │                │                                      │
//!  │  moved to 2    │<────────── swap ───────────────── Taking
//!  └────────────────┘                                      │
//!                                Moved <── serving ─── Serving     the connections speak
//! ```
//!
//! [`Takeover`] and [`Reinstatement`] are the two ends. Both are pure: inputs are completions, confirmations, verdicts of
//! the monitor and the time; outputs are work to post, what to fence, what to send to whom. A driver (a simulation, a
//! real node) does what they ask. [`Claim`] is what the claim word says, [`Ownership`] what the old owner reads in it.
//!
//! # What holds
//! 1. **One owner.** The claim word decides, by compare-and-swap, and nothing else does. The old owner is the owner while
//!    the word says unclaimed or claimed. From then on nobody is, until one target swaps *fencing* for its own name; of any
//!    number of targets with any number of offers at most one can, and nothing follows *moved*.
//! 2. **No overlap.** A claim of *fencing* is not yet a fence. State is read, and then offered, only when the fence is
//!    confirmed to the taker that offers it; so whoever serves, does so after the old owner was cut off, though that may
//!    not know yet.
//! 3. **Nothing lost.** An owner commits before it answers. Whatever was answered was answered before the fence, and the
//!    State Box was read after it. The owner may commit more, which nobody hears of: a target may have that or not.
//! 4. **Nobody is waited for.** A taker that dies anywhere leaves a word that another supersedes, in the same phase, after
//!    its patience; a target that dies before its swap is passed over.
//!
//! All four are checked on this code, with every interleaving of two takers, two targets and an owner that lives, dies or
//! is late, in `tests/takeover_model/main.rs`. Safety (1 to 3) needs no clock: with any patience, and with any message or
//! completion late, lost or repeated, it holds.
//!
//! # A wrong suspicion
//! While the word says *claimed*, nothing irreversible has happened: a taker that hears that the owner is trusted swaps the
//! unclaimed value back. The owner has waited meanwhile, and serves on. The two swaps, back to *unclaimed* and on to
//! *fencing*, start from the same value, so exactly one of them happens. After *fencing* the migration goes on, healthy
//! owner or not: the fence may be under way, and a fence that has been asked for can't be called back. It costs the
//! client the time of a migration, and the owner its session; no state.
//!
//! Giving back the very value that the State Box's header names keeps owner and agent unaware, and brings a value a second
//! time. A claim that was given up may therefore land late, on a session that nobody is taking over. Its owner then
//! waits, and falls silent after a while as [`Doubt`] asks; any monitor finds the claim unmoved for its
//! patience, supersedes it, and gives it back or goes on. It can't do more harm, for only its taker leads from a claim to
//! *fencing*, after having verified what it claimed.
//!
//! # When takers die, and when they don't
//! A claim says nothing about whether its taker lives. Whoever finds the session in other hands waits; if the word is
//! the same after [`patience`](TakeoverConfig::patience), it swaps it for a claim of its own. It needn't be right: the
//! taker before, if it lives, finds out by its next swap and becomes the one that waits. So leases are not needed, and no
//! clock has to be trusted; patience that doubles with every such encounter keeps takers from disturbing each other for
//! ever. A successor believes nothing that it was not told itself: it has the owner fenced again, and reads the state
//! again. That is why there is no phase *fenced*.
//!
//! # When the memory is out of reach
//! A session's claim word lies at one place, fixed when the session is opened: with its State Box at the owner's node, or,
//! where boxes are mirrored, with the mirror. If that place is gone, there is no takeover: nobody could tell whether
//! another had happened, and there is no state to carry on. The taker tries for a while, then ends with
//! [`Reason::OutOfReach`]. One that was fencing already says so, for the session is then cut off from its owner. A target
//! that can't learn what came of its swap goes on asking. Two places that could both be claimed would be two owners.
//!
//! # What is assumed, and where it is needed
//! | Of | Assumed | Needed for |
//! |---|---|---|
//! | the claim word | compare-and-swap is atomic among all who use it; nobody else writes it (not the node's processor) | one owner |
//! | the fence | when confirmed, no effect of the old owner reaches anybody, in any way (clients, peers, storage), and nothing reaches it that it could acknowledge | no overlap, nothing lost |
//! | | it is for good, for this incarnation of the session | no overlap |
//! | | it cuts off the *old owner's node*, not whoever has the address now: it may be asked for late, and twice | nobody is waited for |
//! | | it needs no help of the old owner; a coarser one (the node, its power) will do, and concerns all its sessions | nobody is waited for |
//! | the old owner | commits before it answers | nothing lost |
//! | | looks at its claim word before each visible step | giving back; else only work in vain |
//! | a READ | is executed after it was posted | nothing lost |
//! | the State Box | outlives its owner, as long as a takeover may take; its claim word serves no other session meanwhile | nothing lost |
//! | a target | keeps what it prepared until the word decides, in a State Box that outlives it | nobody is waited for |
//! | whoever has the right to swap | keeps to this protocol | everything |
//!
//! # Taking over from a target
//! A target that fails after it took the session is an old owner like any other: its State Box, claim word and fence are
//! what the next takeover is about. One that failed before may still hold what it prepared, in a State Box that looks the
//! same; the claim word that it was to swap knows, and may yet give the session to another. So whoever takes over from a
//! target first sees that every session there was the target's by that word: it begins when the takeovers before are over.

mod claim;
mod config;
mod exchange;
mod owner;
mod seen;
mod taker;
mod target;

pub use claim::{Claim, DamagedClaim, Epoch, PartyId, Swap};
pub use config::TakeoverConfig;
pub use exchange::{Action, Answer, Input, Look, Offer, Outcome, Purpose, Reason, TargetAction, TargetInput};
pub use owner::{Doubt, Duty, Ownership};
pub use seen::{BoxError, Seen};
pub use taker::{Offering, Step, Takeover};
pub use target::{Reinstatement, Stage};
