//! Who was suspected, and whether that has passed: what a taker asks before there is no way back.

use backdoor_core::detector::Detector;
use backdoor_core::monitor::Standing;
use backdoor_core::progress_box::Slot;

use super::Watch;

/// Who was suspected at some moment, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspicion {
    /// Of the attachments to the node, which.
    attachment: u64,
    /// By place and use of that place.
    of: Vec<(Slot, u32)>,
}

impl<D: Detector + 'static> Watch<D> {
    /// Who is suspected now.
    pub fn suspicion(&self) -> Option<Suspicion> {
        let (attachment, monitor) = self.monitor()?;
        let suspected = monitor.entities().filter(|entity| entity.standing == Standing::Suspected);
        let of: Vec<_> = suspected.map(|entity| (entity.slot, entity.record.generation)).collect();
        (!of.is_empty()).then_some(Suspicion { attachment, of })
    }

    /// Whether everybody of whom that was is there still, and nobody is suspected any more.
    pub fn has_passed(&self, suspicion: &Suspicion) -> bool {
        let Some((attachment, monitor)) = self.monitor() else { return false };
        let is_there = |(slot, generation): &(Slot, u32)| {
            monitor.entities().any(|entity| entity.slot == *slot && entity.record.generation == *generation)
        };
        // What another agent knows of says nothing about those.
        attachment == suspicion.attachment && self.suspicion().is_none() && suspicion.of.iter().all(is_there)
    }
}
