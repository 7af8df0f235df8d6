//! Which buckets of the wheel hold anything: a bitmap with a summary above it.
//!
//! A wheel with narrow buckets is mostly empty. The time to the next event must not depend on how many empty buckets
//! lie between, so one bit stands for a bucket, and one summary bit for 64 of them: a search looks at a word, then at
//! the summary, then at a word.

/// A set of bucket numbers below a power of two, at least 64, with circular search.
#[derive(Debug)]
pub(super) struct Occupancy {
    words: Vec<u64>,
    /// Bit `i` of the summary: `words[i]` is not zero.
    summary: Vec<u64>,
}

impl Occupancy {
    /// An empty set for `buckets` buckets, a power of two from 64 on.
    pub(super) fn new(buckets: usize) -> Self {
        debug_assert!(buckets.is_power_of_two() && buckets >= 64);
        let words = buckets / 64;
        Occupancy { words: vec![0; words], summary: vec![0; words.div_ceil(64)] }
    }

    #[inline]
    pub(super) fn insert(&mut self, bucket: usize) {
        let word = bucket / 64;
        self.words[word] |= 1 << (bucket % 64);
        self.summary[word / 64] |= 1 << (word % 64);
    }

    #[inline]
    pub(super) fn remove(&mut self, bucket: usize) {
        let word = bucket / 64;
        self.words[word] &= !(1 << (bucket % 64));
        if self.words[word] == 0 {
            self.summary[word / 64] &= !(1 << (word % 64));
        }
    }

    /// The first member at or after `start`, going round.
    #[inline]
    pub(super) fn next_from(&self, start: usize) -> Option<usize> {
        let word = start / 64;
        let here = self.words[word] & (!0 << (start % 64));
        if here != 0 {
            return Some(word * 64 + here.trailing_zeros() as usize);
        }
        // Past the end we come back to bucket 0; `start`'s own word is then looked at from its first bit, and it can
        // only hold members before `start`, which is what "going round" means.
        let word = self.next_word(word + 1).or_else(|| self.next_word(0))?;
        Some(word * 64 + self.words[word].trailing_zeros() as usize)
    }

    /// The first word at or after `start` that is not zero, not going round.
    fn next_word(&self, start: usize) -> Option<usize> {
        let mut index = start / 64;
        let mut bits = *self.summary.get(index)? & (!0 << (start % 64));
        while bits == 0 {
            index += 1;
            bits = *self.summary.get(index)?;
        }
        Some(index * 64 + bits.trailing_zeros() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn searches_like_a_sorted_set(
            log2 in 6u32..16,
            changes in prop::collection::vec((any::<u32>(), any::<bool>()), 0..40),
            starts in prop::collection::vec(any::<u32>(), 1..40),
        ) {
            let buckets = 1usize << log2;
            let (mut bits, mut set) = (Occupancy::new(buckets), BTreeSet::new());
            for (bucket, add) in changes {
                let bucket = bucket as usize % buckets;
                if add {
                    bits.insert(bucket);
                    set.insert(bucket);
                } else {
                    bits.remove(bucket);
                    set.remove(&bucket);
                }
            }
            for start in starts.into_iter().map(|s| s as usize % buckets).chain(set.iter().copied()) {
                let expected = set.range(start..).chain(set.iter()).next().copied();
                prop_assert_eq!(bits.next_from(start), expected);
            }
        }
    }
}
