//! The formats' checksum: XXH3, 64 bits, without a seed (Collet, "xxHash fast digest algorithm", XXH3). It finds damage and
//! mixtures of versions; it is no protection from somebody who forges memory.
//!
//! Every state that is taken over is hashed, and a READ out of a cache takes hardly longer than the library does for that.
//! So long inputs are hashed here, in the widest registers that the processor has; short ones, and all on other
//! processors than x86-64, by the library.

use twox_hash::XxHash3_64;

use crate::words::as_bytes;

/// The checksum of words in address order.
#[inline]
pub(crate) fn checksum_of(words: &[u64]) -> u64 {
    checksum(as_bytes(words))
}

/// The checksum of bytes.
#[inline]
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() > wide::SHORT {
        return wide::checksum(bytes);
    }
    XxHash3_64::oneshot(bytes)
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use fearless_simd::{Level, Simd, SimdBase, SimdFrom, dispatch, u64x8};

    /// Up to this many bytes XXH3 is another function, without lanes.
    pub(super) const SHORT: usize = 240;

    const STRIPE_BYTES: usize = 64;
    const LANES: usize = 8;
    const STRIPES_PER_BLOCK: usize = 16;
    const BLOCK_BYTES: usize = STRIPES_PER_BLOCK * STRIPE_BYTES;

    type Lanes = [u64; LANES];

    const PRIME32_1: u64 = 0x9e37_79b1;
    const PRIME32_2: u64 = 0x85eb_ca77;
    const PRIME32_3: u64 = 0xc2b2_ae3d;
    const PRIME64_1: u64 = 0x9e37_79b1_85eb_ca87;
    const PRIME64_2: u64 = 0xc2b2_ae3d_27d4_eb4f;
    const PRIME64_3: u64 = 0x1656_67b1_9e37_79f9;
    const PRIME64_4: u64 = 0x85eb_ca77_c2b2_ae63;
    const PRIME64_5: u64 = 0x27d4_eb2f_1656_67c5;
    const PRIME_MX1: u64 = 0x1656_6791_9e37_79f9;

    const START: Lanes = [PRIME32_3, PRIME64_1, PRIME64_2, PRIME64_3, PRIME64_4, PRIME32_2, PRIME64_5, PRIME32_1];

    /// The default secret.
    #[rustfmt::skip]
    const SECRET: [u8; 192] = [
        0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
        0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
        0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
        0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
        0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
        0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
        0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
        0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
        0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
        0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
        0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
        0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
    ];

    /// A block's stripes each have a key, a word further in the secret than the one before.
    const KEYS: [Lanes; STRIPES_PER_BLOCK] = {
        let mut keys = [[0; LANES]; STRIPES_PER_BLOCK];
        let mut stripe = 0;
        while stripe < STRIPES_PER_BLOCK {
            keys[stripe] = secret_at(8 * stripe);
            stripe += 1;
        }
        keys
    };
    const KEY_OF_SCRAMBLE: Lanes = secret_at(SECRET.len() - STRIPE_BYTES);
    const KEY_OF_LAST_STRIPE: Lanes = secret_at(SECRET.len() - STRIPE_BYTES - 7);
    const KEY_OF_MERGE: Lanes = secret_at(11);

    const fn secret_at(start: usize) -> Lanes {
        let mut lanes = [0; LANES];
        let mut byte = 0;
        while byte < STRIPE_BYTES {
            lanes[byte / 8] |= (SECRET[start + byte] as u64) << (byte % 8 * 8);
            byte += 1;
        }
        lanes
    }

    /// XXH3 of more than [`SHORT`] bytes.
    pub(super) fn checksum(bytes: &[u8]) -> u64 {
        checksum_at(Level::new(), bytes)
    }

    pub(super) fn checksum_at(level: Level, bytes: &[u8]) -> u64 {
        dispatch!(level, simd => checksum_with(simd, bytes))
    }

    /// All that is called here is inlined, so that it is compiled for the `simd` at hand.
    #[inline(always)]
    fn checksum_with<S: Simd>(simd: S, bytes: &[u8]) -> u64 {
        // The last stripe is the last 64 bytes, whatever else they are part of; before it there is at least one byte.
        let last = bytes.last_chunk().expect("longer than a stripe");
        let whole_blocks = (bytes.len() - 1) / BLOCK_BYTES;
        let (blocks, rest) = bytes.split_at(whole_blocks * BLOCK_BYTES);

        let mut lanes = u64x8::simd_from(simd, START);
        for block in blocks.as_chunks::<BLOCK_BYTES>().0 {
            let mut sums = Sums::new(simd);
            for (stripe, key) in block.as_chunks().0.iter().zip(&KEYS) {
                sums.add(simd, stripe, key);
            }
            lanes = scramble(simd, lanes + sums.total(simd));
        }
        let mut sums = Sums::new(simd);
        for (stripe, key) in rest[..rest.len() - 1].as_chunks().0.iter().zip(&KEYS) {
            sums.add(simd, stripe, key);
        }
        sums.add(simd, last, &KEY_OF_LAST_STRIPE);
        merge((lanes + sums.total(simd)).into(), bytes.len())
    }

    /// What a block's stripes add to the lanes. XXH3 adds a product to each lane, and to its neighbour the word that the
    /// product is of. Here the words are added up in their own lanes and change places once, in the end: there is less
    /// to do for each stripe, and neither sum waits for the other.
    struct Sums<S: Simd> {
        words: u64x8<S>,
        products: u64x8<S>,
    }

    impl<S: Simd> Sums<S> {
        #[inline(always)]
        fn new(simd: S) -> Self {
            Sums { words: u64x8::splat(simd, 0), products: u64x8::splat(simd, 0) }
        }

        #[inline(always)]
        fn add(&mut self, simd: S, stripe: &[u8; STRIPE_BYTES], key: &Lanes) {
            let (words, _) = stripe.as_chunks();
            let words: Lanes = std::array::from_fn(|lane| u64::from_le_bytes(words[lane]));
            let words = u64x8::simd_from(simd, words);
            let keyed = words ^ u64x8::simd_from(simd, *key);
            self.words += words;
            self.products += low_half(keyed) * (keyed >> 32);
        }

        #[inline(always)]
        fn total(self, simd: S) -> u64x8<S> {
            let words: Lanes = self.words.into();
            let of_neighbours: Lanes = std::array::from_fn(|lane| words[lane ^ 1]);
            u64x8::simd_from(simd, of_neighbours) + self.products
        }
    }

    /// A product of two lanes like these is one instruction.
    #[inline(always)]
    fn low_half<S: Simd>(lanes: u64x8<S>) -> u64x8<S> {
        lanes & 0xffff_ffff
    }

    #[inline(always)]
    fn scramble<S: Simd>(simd: S, lanes: u64x8<S>) -> u64x8<S> {
        let lanes = lanes ^ (lanes >> 47) ^ u64x8::simd_from(simd, KEY_OF_SCRAMBLE);
        low_half(lanes) * PRIME32_1 + (((lanes >> 32) * PRIME32_1) << 32)
    }

    #[inline(always)]
    fn merge(lanes: Lanes, bytes: usize) -> u64 {
        let mut hash = (bytes as u64).wrapping_mul(PRIME64_1);
        for pair in (0..LANES).step_by(2) {
            let keyed = |lane: usize| u128::from(lanes[lane] ^ KEY_OF_MERGE[lane]);
            let product = keyed(pair) * keyed(pair + 1);
            hash = hash.wrapping_add(product as u64 ^ (product >> 64) as u64);
        }
        hash = (hash ^ hash >> 37).wrapping_mul(PRIME_MX1);
        hash ^ hash >> 32
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Of any length, and long enough to be of several blocks.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![0..600_usize, 900..1200_usize, 0..10_000_usize]
            .prop_flat_map(|length| proptest::collection::vec(any::<u8>(), length))
    }

    proptest! {
        #[test]
        fn it_is_the_library_s(bytes in bytes()) {
            prop_assert_eq!(checksum(&bytes), XxHash3_64::oneshot(&bytes));
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn it_is_the_same_at_every_length_and_width_of_registers() {
        use fearless_simd::Level;

        let best = Level::new();
        let levels: Vec<Level> = [
            best.as_sse2().map(Level::Sse2),
            best.as_sse4_2().map(Level::Sse4_2),
            best.as_avx2().map(Level::Avx2),
            best.as_avx512().map(Level::Avx512),
        ]
        .into_iter()
        .flatten()
        .collect();
        let bytes: Vec<u8> = (0..4100_u32).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
        for length in wide::SHORT + 1..=bytes.len() {
            let bytes = &bytes[..length];
            let expected = XxHash3_64::oneshot(bytes);
            for level in &levels {
                assert_eq!(wide::checksum_at(*level, bytes), expected, "{length} bytes, {level:?}");
            }
        }
    }
}
