//! Which words of the State Boxes' region are in use. Pure bookkeeping: it never touches the words.
//!
//! First fit over an ordered map of the free ranges. State Boxes are few, long-lived and of similar size, so searching
//! is cheap and fragmentation mild; neighbours are merged when a range comes back, so that all of it can be used again.

use std::collections::BTreeMap;
use std::ops::Range;

/// Ranges start and end on cache lines, so that no two sessions write to one.
const LINE_WORDS: usize = 8;

/// Free ranges of a region.
#[derive(Clone, Debug)]
pub(super) struct Arena {
    /// Length by start; never adjacent, never empty.
    free: BTreeMap<usize, usize>,
    words: usize,
}

impl Arena {
    /// All of `words` words are free.
    pub(super) fn new(words: usize) -> Self {
        let words = words / LINE_WORDS * LINE_WORDS;
        let free = if words > 0 { BTreeMap::from([(0, words)]) } else { BTreeMap::new() };
        Arena { free, words }
    }

    /// Words of the whole region.
    pub(super) fn words(&self) -> usize {
        self.words
    }

    /// Words that are free, not necessarily in one piece.
    pub(super) fn free_words(&self) -> usize {
        self.free.values().sum()
    }

    /// Takes at least `words` words in one piece; `None` if there are none such.
    pub(super) fn allocate(&mut self, words: usize) -> Option<Range<usize>> {
        let words = words.max(1).checked_next_multiple_of(LINE_WORDS)?;
        let (&start, &length) = self.free.iter().find(|(_, length)| **length >= words)?;
        self.free.remove(&start);
        if length > words {
            self.free.insert(start + words, length - words);
        }
        Some(start..start + words)
    }

    /// Gives back a range as [`Arena::allocate`] gave it.
    pub(super) fn release(&mut self, range: Range<usize>) {
        let Range { mut start, mut end } = range;
        if let Some((&before, &length)) = self.free.range(..start).next_back()
            && before + length == start
        {
            self.free.remove(&before);
            start = before;
        }
        if let Some(length) = self.free.remove(&end) {
            end += length;
        }
        self.free.insert(start, end - start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_arena_has_nothing_to_give() {
        let mut arena = Arena::new(67);
        assert_eq!(arena.allocate(65), None);
        assert_eq!(arena.allocate(57), Some(0..64));
        assert_eq!(arena.allocate(1), None);
        assert_eq!(arena.allocate(usize::MAX), None);
        assert_eq!(Arena::new(7).allocate(1), None);
    }

    proptest! {
        /// Takes and gives back at random; whatever is in use never overlaps, and in the end all is one piece again.
        #[test]
        fn ranges_never_overlap_and_all_come_back(steps in proptest::collection::vec((0usize..200, any::<bool>(), 0usize..64), 1..200)) {
            let mut arena = Arena::new(2048);
            let mut held: Vec<Range<usize>> = Vec::new();
            for (words, take, which) in steps {
                if take || held.is_empty() {
                    let taken = arena.allocate(words);
                    let Some(range) = taken else { continue };
                    prop_assert!(range.len() >= words && range.end <= 2048 && range.start.is_multiple_of(LINE_WORDS));
                    prop_assert!(held.iter().all(|other| range.end <= other.start || other.end <= range.start));
                    held.push(range);
                } else {
                    arena.release(held.swap_remove(which % held.len()));
                }
                let used: usize = held.iter().map(|range| range.len()).sum();
                prop_assert_eq!(arena.free_words() + used, 2048);
            }
            for range in held {
                arena.release(range);
            }
            prop_assert_eq!(arena.allocate(2048), Some(0..2048));
        }
    }
}
