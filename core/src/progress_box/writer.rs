//! The owner's end: formats a Progress Box and keeps its directory.

use std::ops::Deref;

use super::counter::{Counter, EntityState, Liveness};
use super::entity::{EntityRecord, Slot};
use super::layout::{ENTRY_WORDS, Geometry, IDENTITY, header};
use super::reader::{Header, read_entry};
use crate::checksum::checksum_of;
use crate::format::FormatError;
use crate::words::{AtomicU64, Ordering, copy_of};

/// Why an entity could not be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgressBoxError {
    /// Every slot is taken.
    #[error("the Progress Box is full ({capacity} entities)")]
    Full {
        /// Room of the box.
        capacity: usize,
    },
}

/// A Progress Box and the right to change its directory. One per box.
///
/// Entities update their own liveness words through a [`Counter`]; the owner only adds and removes entities.
#[derive(Debug)]
pub struct ProgressBox<M> {
    memory: M,
    geometry: Geometry,
    generations: Vec<u32>,
    taken: Vec<bool>,
}

impl<M: Deref<Target = [AtomicU64]>> ProgressBox<M> {
    /// Formats `memory` as an empty box of a new boot incarnation.
    ///
    /// The magic word is stored last: a reader refuses the memory until the box is whole.
    pub fn format(memory: M, geometry: Geometry, boot_incarnation: u64) -> Result<Self, FormatError> {
        let need = geometry.total_words();
        if memory.len() < need {
            return Err(FormatError::Truncated { what: IDENTITY.what, have: memory.len(), need });
        }
        memory[header::MAGIC].store(0, Ordering::Relaxed);
        for word in &memory[1..need] {
            word.store(0, Ordering::Relaxed);
        }
        let mut fixed = [0; header::CHECK];
        fixed[header::MAGIC] = IDENTITY.magic_word();
        fixed[header::VERSION] = IDENTITY.version_word(0);
        fixed[header::GEOMETRY] = geometry.to_word();
        fixed[header::BOOT_INCARNATION] = boot_incarnation;
        for (word, value) in memory.iter().zip(fixed).skip(1) {
            word.store(value, Ordering::Relaxed);
        }
        memory[header::CHECK].store(checksum_of(&fixed), Ordering::Relaxed);
        memory[header::MAGIC].store(fixed[header::MAGIC], Ordering::Release);
        let capacity = geometry.capacity();
        Ok(ProgressBox { memory, geometry, generations: vec![0; capacity], taken: vec![false; capacity] })
    }

    /// Room in the box.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Adds an entity in the lowest free slot and says so in the directory. It counts as idle until it first advances.
    /// The record's generation is set by the box.
    pub fn add(&mut self, mut record: EntityRecord) -> Result<Slot, ProgressBoxError> {
        let index = self
            .taken
            .iter()
            .position(|taken| !taken)
            .ok_or(ProgressBoxError::Full { capacity: self.geometry.capacity() })?;
        let slot = Slot(index as u32);
        self.taken[index] = true;
        self.generations[index] = self.generations[index].wrapping_add(1);
        record.generation = self.generations[index];
        self.write_entry(slot, &record);
        // After its entry: whoever sees that the slot is in use, and then reads the directory, finds who uses it.
        Counter::resume(self.liveness_word(slot)).idle();
        Ok(slot)
    }

    /// Changes what the directory says of `slot`, keeping its generation. No effect on a free slot.
    pub fn amend(&mut self, slot: Slot, change: impl FnOnce(&mut EntityRecord)) {
        let Some(mut record) = self.record(slot) else { return };
        change(&mut record);
        record.generation = self.generations[slot.index()];
        self.write_entry(slot, &record);
    }

    /// Frees a slot. Its entity must have stopped updating its counter.
    pub fn remove(&mut self, slot: Slot) {
        if self.taken.get(slot.index()).copied().unwrap_or(false) {
            self.taken[slot.index()] = false;
            Counter::resume(self.liveness_word(slot)).free();
            self.move_version();
        }
    }

    /// What the directory says of `slot`; `None` for a free one.
    pub fn record(&self, slot: Slot) -> Option<EntityRecord> {
        if !self.taken.get(slot.index()).copied().unwrap_or(false) {
            return None;
        }
        let directory = self.geometry.directory();
        let start = directory.start + slot.index() * ENTRY_WORDS;
        let words = copy_of(&self.memory[start..start + ENTRY_WORDS]);
        let words: &[u64; ENTRY_WORDS] = words.as_slice().try_into().ok()?;
        EntityRecord::decode(words, slot).ok().flatten()
    }

    /// The slots in use.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        (0..).map(Slot).zip(&self.taken).filter(|(_, taken)| **taken).map(|(slot, _)| slot)
    }

    /// The liveness word of `slot`, for the entity's [`Counter`].
    ///
    /// # Panics
    /// If the slot lies outside the box.
    pub fn liveness_word(&self, slot: Slot) -> &AtomicU64 {
        &self.memory[self.geometry.liveness()][slot.index()]
    }

    /// What an entity says of itself now.
    pub fn liveness(&self, slot: Slot) -> Liveness {
        Liveness(self.liveness_word(slot).load(Ordering::Acquire))
    }

    /// Sets gauge `index` to `value`. No effect outside the box.
    pub fn set_gauge(&self, index: usize, value: u64) {
        if let Some(word) = self.memory[self.geometry.gauges()].get(index) {
            word.store(value, Ordering::Relaxed);
        }
    }

    fn write_entry(&mut self, slot: Slot, record: &EntityRecord) {
        let start = self.geometry.directory().start + slot.index() * ENTRY_WORDS;
        for (word, value) in self.memory[start..].iter().zip(record.encode(slot)) {
            word.store(value, Ordering::Relaxed);
        }
        let used = &self.memory[header::DIRECTORY_USED];
        used.store(used.load(Ordering::Relaxed).max(slot.index() as u64 + 1), Ordering::Relaxed);
        self.move_version();
    }

    /// Release: whoever sees the new version sees the change.
    fn move_version(&self) {
        let version = &self.memory[header::DIRECTORY_VERSION];
        version.store(version.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }
}

impl<M: Deref<Target = [AtomicU64]>> ProgressBox<M> {
    /// Takes over a box that an earlier owner of the same memory formatted.
    pub fn open(memory: M) -> Result<Self, FormatError> {
        let copy = copy_of(&memory);
        let geometry = Header::read(&copy)?.geometry;
        if copy.len() < geometry.total_words() {
            return Err(FormatError::Truncated { what: IDENTITY.what, have: copy.len(), need: geometry.total_words() });
        }
        let mut generations = vec![0; geometry.capacity()];
        let mut taken = vec![false; geometry.capacity()];
        for index in 0..geometry.capacity() {
            if let Ok(Some(record)) = read_entry(&copy[geometry.directory()], Slot(index as u32)) {
                generations[index] = record.generation;
                taken[index] = Liveness(copy[geometry.liveness()][index]).state() != EntityState::Free;
            }
        }
        Ok(ProgressBox { memory, geometry, generations, taken })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::Nanos;
    use crate::progress_box::{FailureLevel, read_directory};
    use crate::words::zeroed;

    fn small() -> ProgressBox<Box<[AtomicU64]>> {
        let geometry = Geometry::new(3, 2).unwrap();
        ProgressBox::format(zeroed(geometry.total_words()), geometry, 7).unwrap()
    }

    fn session(name: &str) -> EntityRecord {
        EntityRecord::new(name, FailureLevel::Session, Nanos::from_millis(20))
    }

    #[test]
    fn a_reader_sees_what_the_owner_added() {
        let mut owner = small();
        let slot = owner.add(session("a")).unwrap();
        Counter::resume(owner.liveness_word(slot)).advance();
        owner.set_gauge(1, 99);
        let copy = copy_of(&owner.memory);
        let header = Header::read(&copy).unwrap();
        assert_eq!((header.boot_incarnation, header.directory_used), (7, 1));
        assert_eq!(Liveness(copy[header.geometry.liveness()][0]).state(), EntityState::Active);
        assert_eq!(copy[header.geometry.gauges()], [0, 99]);
        let (_, record) = read_directory(&copy[header.geometry.directory()]).next().unwrap();
        assert_eq!(record.unwrap().unwrap().name.as_str(), "a");
    }

    #[test]
    fn a_slot_used_again_has_a_new_generation_and_a_count_that_went_on() {
        let mut owner = small();
        let slot = owner.add(session("a")).unwrap();
        Counter::resume(owner.liveness_word(slot)).advance();
        let before = owner.liveness(slot).count();
        owner.remove(slot);
        assert_eq!(owner.add(session("b")), Ok(slot));
        assert_eq!(owner.record(slot).unwrap().generation, 2);
        assert!(owner.liveness(slot).count() > before);
    }

    #[test]
    fn a_full_box_says_so() {
        let mut owner = small();
        for name in ["a", "b", "c"] {
            owner.add(session(name)).unwrap();
        }
        assert_eq!(owner.add(session("d")), Err(ProgressBoxError::Full { capacity: 3 }));
    }

    #[test]
    fn every_change_moves_the_directory_version() {
        let mut owner = small();
        let version =
            |owner: &ProgressBox<Box<[AtomicU64]>>| Header::read(&copy_of(&owner.memory)).unwrap().directory_version;
        let start = version(&owner);
        let slot = owner.add(session("a")).unwrap();
        owner.amend(slot, |record| record.deadline = Nanos(1));
        owner.remove(slot);
        assert_eq!(version(&owner), start + 3);
    }

    #[test]
    fn a_new_owner_finds_the_box_as_it_was() {
        let mut owner = small();
        owner.add(session("a")).unwrap();
        let b = owner.add(session("b")).unwrap();
        owner.remove(Slot(0));
        let mut heir = ProgressBox::open(owner.memory).unwrap();
        assert_eq!(heir.slots().collect::<Vec<_>>(), [b]);
        assert_eq!(heir.add(session("c")), Ok(Slot(0)));
        assert_eq!(heir.record(Slot(0)).unwrap().generation, 2);
    }

    #[test]
    fn memory_too_small_is_refused() {
        let geometry = Geometry::new(3, 2).unwrap();
        assert!(ProgressBox::format(zeroed(10), geometry, 1).is_err());
        assert!(Geometry::new(0, 0).is_err());
    }
}
