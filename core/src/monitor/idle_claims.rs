//! Idle is not hung, and a hung entity can't hide behind it: who says that it is idle while work waits for it owes progress
//! all the same.
//!
//! How much work waits is a gauge that somebody else keeps (the kernel's queue of the session's socket, the front that hands
//! out requests), so an entity can't deny it. A keeper looks now and then, and may have to wait for a processor: work that
//! was done long ago may still be counted. So a gauge counts against an entity only if its keeper has certainly looked
//! after the entity's last word was seen ([`Pending::looked_since`]); what is owed is owed from the first such sample, and
//! again from each progress. A keeper that is slow, stopped or dead accuses nobody; that it is, its own counter tells. Of
//! a keeper that does not number its looks, a look is taken to be of the moment: it must be quicker than deadlines are.

use super::table::{Sample, Standing};
use crate::Nanos;
use crate::progress_box::{EntityRecord, EntityState, Liveness, Pending, Slot};

/// An entity whose pending work is counted.
#[derive(Clone, Copy, Debug)]
struct IdleClaim {
    slot: Slot,
    /// `None` if nobody counts it any more, until that has been ruled on.
    gauge: Option<usize>,
    /// Its last word, and what the gauge said when that was first seen.
    word: u64,
    then: Pending,
    /// Since when it has owed progress in spite of its claim; evidence time.
    owes_since: Option<Nanos>,
}

/// What becomes of an entity that says it is idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    /// Work waits for it.
    Owes,
    /// None does any more.
    IsIdle,
}

/// The entities whose pending work is counted, in slot order.
#[derive(Clone, Debug, Default)]
pub(super) struct IdleClaims(Vec<IdleClaim>);

impl IdleClaims {
    /// Whether nobody's pending work is counted.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes in what the directory says of `slot`; `None` when it is free.
    pub(super) fn learn(&mut self, slot: Slot, record: Option<&EntityRecord>) {
        let gauge = record.and_then(|record| record.pending).map(usize::from);
        match (self.0.binary_search_by_key(&slot, |claim| claim.slot), gauge) {
            (Ok(at), Some(_)) => self.0[at].gauge = gauge,
            (Ok(at), None) if record.is_some() && self.0[at].owes_since.is_some() => self.0[at].gauge = None,
            (Ok(at), None) => {
                self.0.remove(at);
            }
            (Err(at), Some(_)) => {
                self.0.insert(at, IdleClaim { slot, gauge, word: 0, then: Pending::default(), owes_since: None });
            }
            (Err(_), None) => {}
        }
    }

    /// Since when `slot` has owed progress in spite of its claim to be idle.
    pub(super) fn owes_since(&self, slot: Slot) -> Option<Nanos> {
        self.0.binary_search_by_key(&slot, |claim| claim.slot).ok().and_then(|at| self.0[at].owes_since)
    }

    /// Holds the claims of a sample, whose progress was taken in, against its gauges; says whose standing is not what it
    /// should be.
    pub(super) fn rule(&mut self, sample: &Sample<'_>, standing: &[Standing], mut change: impl FnMut(Slot, Ruling)) {
        self.0.retain_mut(|claim| {
            let index = claim.slot.index();
            let (Some(word), Some(standing)) = (sample.words.get(index), standing.get(index)) else { return true };
            let pending = claim.gauge.and_then(|gauge| sample.gauges.get(gauge).copied()).map(Pending::of_word);
            let pending = pending.unwrap_or_default();
            if claim.word != *word {
                (claim.word, claim.then) = (*word, pending);
            }
            let is_idle = Liveness(*word).state() == EntityState::Idle;
            match (standing, pending.amount > 0) {
                _ if !is_idle => claim.owes_since = None,
                (Standing::Idle, true) if pending.looked_since(claim.then) => {
                    claim.owes_since = Some(sample.end);
                    change(claim.slot, Ruling::Owes);
                }
                (Standing::Trusted | Standing::Suspected, false) => {
                    claim.owes_since = None;
                    change(claim.slot, Ruling::IsIdle);
                }
                _ => {}
            }
            claim.gauge.is_some()
        });
    }
}
