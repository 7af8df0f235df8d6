//! The old owner's end: what it may do, by its session's claim word, and for how long it says that it lives.
//!
//! ```text
//!   claim word                    owner
//!   unclaimed            Mine     serves
//!   claimed by t         InDoubt  does nothing that others can see; advances its counter, for the takers' patience:
//!      ⋮ patience                   whoever suspected it wrongly sees that it lives, and gives the session back
//!   claimed by t still   InDoubt  falls silent: t may have died, and only silence brings another taker
//!   claimed by u         InDoubt  somebody lives: patience begins anew
//!   fencing, moved       Lost     closes what was the session's, without a word to its client
//! ```

use super::claim::Claim;
use crate::Nanos;

/// Whose a session is, as its owner reads it in the claim word. To be asked before every step that others can see.
///
/// The answer may be out of date when it is acted upon, so it is courtesy, and no fence: it saves work that nobody will
/// see, and lets an owner that was suspected wrongly serve on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ownership {
    /// Serve.
    Mine,
    /// Do nothing that others can see, and ask again: the claim may be given back. What to do meanwhile says [`Doubt`].
    InDoubt,
    /// Stop, and close what was the session's without a word to its client.
    Lost,
}

impl Ownership {
    /// By the claim word's value now, and its value while unclaimed.
    #[inline]
    pub const fn of(word: u64, unclaimed: u64) -> Self {
        match Claim::of_word(word, unclaimed) {
            Ok(Claim::Unclaimed) => Ownership::Mine,
            Ok(Claim::Claimed { .. }) => Ownership::InDoubt,
            Ok(Claim::Fencing { .. } | Claim::Moved { .. }) | Err(_) => Ownership::Lost,
        }
    }
}

/// What a session's owner is to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Duty {
    /// Serve.
    Serve,
    /// Do nothing that others can see but advance the session's progress counter, and ask again, sooner than its deadline.
    ShowLife,
    /// Do nothing that others can see, and ask again; leave the counter alone.
    FallSilent,
    /// Stop, and close what was the session's without a word to its client.
    Stop,
}

/// How long an owner that waits for its session has been waiting for the same claim.
///
/// ```
/// use backdoor_core::Nanos;
/// use backdoor_core::takeover::{Claim, Doubt, Duty, Epoch, PartyId};
/// let mut doubt = Doubt::new(Nanos::from_secs(2));
/// let claim = Claim::Claimed { by: PartyId::new(1).unwrap(), epoch: Epoch(1) }.word(0);
/// assert_eq!(doubt.duty(|| Nanos::ZERO, claim, 0), Duty::ShowLife);
/// assert_eq!(doubt.duty(|| Nanos::from_secs(2), claim, 0), Duty::FallSilent); // its taker may be dead
/// assert_eq!(doubt.duty(|| unreachable!(), 0, 0), Duty::Serve); // given back by another
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Doubt {
    patience: Nanos,
    /// The claim, and when it was first seen.
    claim: Option<(u64, Nanos)>,
}

impl Doubt {
    /// Shows life for `patience` at most under one claim: that of the takers
    /// ([`TakeoverConfig::patience`](super::TakeoverConfig::patience)).
    pub const fn new(patience: Nanos) -> Self {
        Doubt { patience, claim: None }
    }

    /// What to do now, by the claim word's value and its value while unclaimed. A clock is read only while somebody claims
    /// the session: `now` says when that is.
    #[inline]
    pub fn duty(&mut self, now: impl FnOnce() -> Nanos, word: u64, unclaimed: u64) -> Duty {
        let ownership = Ownership::of(word, unclaimed);
        if ownership != Ownership::InDoubt {
            self.claim = None;
            return if ownership == Ownership::Mine { Duty::Serve } else { Duty::Stop };
        }
        let now = now();
        let since = match self.claim {
            Some((seen, since)) if seen == word => since,
            _ => now,
        };
        self.claim = Some((word, since));
        if now < since + self.patience { Duty::ShowLife } else { Duty::FallSilent }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::takeover::{Epoch, PartyId};
    use proptest::prelude::*;

    const UNCLAIMED: u64 = 17;
    const PATIENCE: Nanos = Nanos(100);

    fn claimed(taker: u32, epoch: u32) -> u64 {
        Claim::Claimed { by: PartyId::new(taker).unwrap(), epoch: Epoch(epoch) }.word(UNCLAIMED)
    }

    #[test]
    fn what_leads_back_is_in_doubt_and_nothing_else_is() {
        let (party, epoch) = (PartyId::new(1).unwrap(), Epoch(3));
        let of = |claim: Claim| Ownership::of(claim.word(UNCLAIMED), UNCLAIMED);
        assert_eq!(of(Claim::Unclaimed), Ownership::Mine);
        assert_eq!(of(Claim::Claimed { by: party, epoch }), Ownership::InDoubt);
        assert_eq!(of(Claim::Fencing { by: party, epoch }), Ownership::Lost);
        assert_eq!(of(Claim::Moved { to: party, epoch }), Ownership::Lost);
        // It might have said that the session has moved.
        assert_eq!(Ownership::of(18, UNCLAIMED), Ownership::Lost);
    }

    #[test]
    fn a_claim_that_stands_silences_the_owner_and_a_new_one_lets_it_speak() {
        let mut doubt = Doubt::new(PATIENCE);
        let mut at = |now: u64, word: u64| doubt.duty(|| Nanos(now), word, UNCLAIMED);
        assert_eq!(at(0, UNCLAIMED), Duty::Serve);
        assert_eq!(at(1_000, claimed(1, 1)), Duty::ShowLife);
        assert_eq!(at(1_099, claimed(1, 1)), Duty::ShowLife);
        assert_eq!(at(1_100, claimed(1, 1)), Duty::FallSilent);
        assert_eq!(at(1_150, claimed(2, 2)), Duty::ShowLife);
        assert_eq!(at(1_250, claimed(2, 2)), Duty::FallSilent);
        assert_eq!(at(1_260, UNCLAIMED), Duty::Serve);
        assert_eq!(at(1_270, claimed(2, 2)), Duty::ShowLife);
        let fencing = Claim::Fencing { by: PartyId::new(2).unwrap(), epoch: Epoch(2) };
        assert_eq!(at(1_280, fencing.word(UNCLAIMED)), Duty::Stop);
    }

    proptest! {
        #[test]
        fn an_owner_is_sure_only_of_the_unclaimed_value(word in any::<u64>(), unclaimed in any::<u64>()) {
            prop_assert_eq!(Ownership::of(word, unclaimed) == Ownership::Mine, word == unclaimed);
            prop_assert_eq!(Ownership::of(word, word), Ownership::Mine);
        }
    }
}
