//! Idle is not hung, and a hung entity can't hide behind it: who says that it is idle while work waits for it owes progress
//! all the same.
//!
//! How much work waits is a gauge that somebody else keeps (the kernel's queue of the session's socket, the front that hands
//! out requests), so an entity can't deny it. Gauges come in the same READ as the liveness words, and READs are not atomic:
//! for a moment, work that was just done may still be counted. So what is owed is owed from the first sample that shows
//! it, and again from each progress: a keeper that is quicker than the entity's deadline accuses nobody.
//!
//! The gauge of a keeper that has died stands still. That is for the keeper's own counter to tell.

use super::table::{Sample, Standing};
use crate::Nanos;
use crate::progress_box::{EntityRecord, EntityState, Liveness, Slot};

/// An entity whose pending work is counted.
#[derive(Clone, Copy, Debug)]
struct IdleClaim {
    slot: Slot,
    gauge: usize,
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
            (Ok(at), Some(gauge)) => self.0[at].gauge = gauge,
            (Ok(at), None) => {
                self.0.remove(at);
            }
            (Err(at), Some(gauge)) => self.0.insert(at, IdleClaim { slot, gauge, owes_since: None }),
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
        for claim in &mut self.0 {
            let index = claim.slot.index();
            let (Some(word), Some(standing)) = (sample.words.get(index), standing.get(index)) else { continue };
            if Liveness(*word).state() != EntityState::Idle {
                claim.owes_since = None;
                continue;
            }
            let pending = sample.gauges.get(claim.gauge).is_some_and(|pending| *pending > 0);
            match (standing, pending) {
                (Standing::Idle, true) => {
                    claim.owes_since = Some(sample.end);
                    change(claim.slot, Ruling::Owes);
                }
                (Standing::Trusted | Standing::Suspected, false) => {
                    claim.owes_since = None;
                    change(claim.slot, Ruling::IsIdle);
                }
                _ => {}
            }
        }
    }
}
