//! Memory as words: whatever can be reached remotely is a slice of 64-bit atomic words.
//!
//! A network card writes and reads such memory while the processor does the same. Plain references would make that a
//! data race; words make it a sequence of relaxed loads and stores, which compile to plain moves, need no `unsafe`, and
//! can be explored by loom. The formats of this crate are views on such slices: writers act on `&[AtomicU64]`, the
//! shared memory itself; readers act on `&[u64]`, the private copy that a READ brought.

#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU64, Ordering, fence};

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU64, Ordering, fence};

/// Bytes in a word.
pub const WORD_BYTES: usize = 8;

// Loom's words are larger: they carry their history.
#[cfg(not(loom))]
const _: () = assert!(size_of::<AtomicU64>() == WORD_BYTES && align_of::<AtomicU64>() == WORD_BYTES);

/// Words that hold `bytes` bytes, the last one padded.
pub const fn words_for(bytes: usize) -> usize {
    bytes.div_ceil(WORD_BYTES)
}

/// `count` zeroed words of ordinary memory, for nodes that live inside this process.
pub fn zeroed(count: usize) -> Box<[AtomicU64]> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

/// A private copy of shared words, in address order, not atomic as a whole.
pub fn copy_of(words: &[AtomicU64]) -> Vec<u64> {
    words.iter().map(|word| word.load(Ordering::Relaxed)).collect()
}

/// Stores `bytes` into the front of `words`, the last word padded with zeros.
///
/// # Panics
/// If `words` is shorter than [`words_for`]`(bytes.len())`: the caller has checked its own capacity.
pub fn store_bytes(words: &[AtomicU64], bytes: &[u8]) {
    let words = &words[..words_for(bytes.len())];
    let (whole, rest) = bytes.as_chunks::<WORD_BYTES>();
    for (word, chunk) in words.iter().zip(whole) {
        word.store(u64::from_le_bytes(*chunk), Ordering::Relaxed);
    }
    if !rest.is_empty() {
        let mut last = [0; WORD_BYTES];
        last[..rest.len()].copy_from_slice(rest);
        words[whole.len()].store(u64::from_le_bytes(last), Ordering::Relaxed);
    }
}

/// The bytes of a private copy, in address order.
#[inline]
pub fn as_bytes(words: &[u64]) -> &[u8] {
    bytemuck::cast_slice(words)
}

/// Two halves in one word.
pub(crate) const fn pack(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

/// The low and the high half of a word.
pub(crate) const fn unpack(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let words = zeroed(words_for(bytes.len()));
            store_bytes(&words, &bytes);
            let copy = copy_of(&words);
            prop_assert_eq!(&as_bytes(&copy)[..bytes.len()], &bytes[..]);
        }
    }
}
