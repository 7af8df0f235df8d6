//! Random streams, derived and never shared.
//!
//! Each component of a simulated run draws from a generator of its own, which is a function of
//! **(seed, experiment, point, replication, component)** and of nothing else. So the numbers that one component draws
//! depend neither on how many another has drawn, nor on the thread or the order in which the points of a sweep run.
//!
//! *Common random numbers* (the same arrivals and faults for two alternatives, so that their difference has less
//! variance) are had by choosing the same key: leave out of `point` whatever must not change the numbers. Comparing
//! monitoring modes, the load's stream comes from a key whose point names the load but not the mode.
//!
//! ```
//! use backdoor_sim::streams::{StreamKey, Streams};
//! use rand::Rng;
//!
//! let streams = Streams::new(StreamKey { seed: 1, experiment: "detection-time", point: "load=0.8", replication: 7 });
//! let mut faults = streams.stream("faults");
//! let mut ticks_of_node_3 = streams.indexed("ticks", 3);
//! assert_ne!(faults.next_u64(), ticks_of_node_3.next_u64());
//! assert_eq!(streams.stream("faults").next_u64(), streams.stream("faults").next_u64());
//! ```
//!
//! # The derivation (fixed: results with a seed depend on it)
//! The state starts as the seed. Each further part, in the order above, is turned into a 64-bit word `w`, and the state
//! becomes `mix(state + GOLDEN ^ w)`, where + wraps and comes first, GOLDEN is 0x9e37_79b9_7f4a_7c15, and `mix` is the
//! finaliser of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014; Stafford's
//! variant 13 of the constants). A text's word is its 64-bit FNV-1a hash over the UTF-8 bytes, mixed; a number's word is
//! itself. Every step is a bijection of the state, so two streams whose keys differ in one number only never share a
//! state. The last state seeds xoshiro256++ through SplitMix64, which is what `seed_from_u64` does.
//!
//! States have 64 bits: of a million streams, two are the same with a probability of about 3e-8.

use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

/// 2^64 divided by the golden ratio, odd: SplitMix64's increment.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a run's random numbers depend on, besides the component that draws them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamKey<'a> {
    /// The user's seed.
    pub seed: u64,
    /// Name of the experiment.
    pub experiment: &'a str,
    /// The point of the sweep, written so that equal points have equal texts; without the parameters that are to be
    /// compared under the same random numbers.
    pub point: &'a str,
    /// Number of the replication at this point.
    pub replication: u64,
}

/// The streams of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    state: u64,
}

impl Streams {
    /// The streams under a key.
    pub fn new(key: StreamKey<'_>) -> Self {
        Streams { state: key.seed }.text(key.experiment).text(key.point).number(key.replication)
    }

    /// The generator of a component, from its beginning: asking twice gives the same numbers twice.
    pub fn stream(&self, component: &str) -> Xoshiro256PlusPlus {
        Xoshiro256PlusPlus::seed_from_u64(self.text(component).state)
    }

    /// The generator of one of many alike components, such as the ticks of node `index`. Differs from
    /// [`stream`](Self::stream) of the same name for every index.
    pub fn indexed(&self, component: &str, index: u64) -> Xoshiro256PlusPlus {
        Xoshiro256PlusPlus::seed_from_u64(self.text(component).number(index).state)
    }

    /// The streams of a part that has components of its own, such as a node: `nested("node", 3).stream("ticks")`.
    pub fn nested(&self, component: &str, index: u64) -> Streams {
        self.text(component).number(index)
    }

    fn text(self, text: &str) -> Self {
        self.number(mix(fnv_1a(text)))
    }

    fn number(self, word: u64) -> Self {
        Streams { state: mix(self.state.wrapping_add(GOLDEN) ^ word) }
    }
}

/// SplitMix64's finaliser.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo): chosen for being short enough to be written down anywhere, the same for ever;
/// the standard library's hashers promise no such thing.
fn fnv_1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;
    use std::collections::HashSet;

    const KEY: StreamKey<'_> = StreamKey { seed: 1, experiment: "detection", point: "load=0.8", replication: 0 };

    fn first(key: StreamKey<'_>) -> u64 {
        Streams::new(key).stream("ticks").next_u64()
    }

    #[test]
    fn the_hashes_are_the_published_ones() {
        // From the FNV authors' test vectors.
        assert_eq!(fnv_1a(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv_1a("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv_1a("foobar"), 0x8594_4171_f739_67e8);
        // First output of SplitMix64 with seed 0.
        assert_eq!(mix(GOLDEN), 0xe220_a839_7b1d_cdaf);
    }

    /// Results are published with their seeds: these numbers may never change. They were computed apart from this code,
    /// from the description above.
    #[test]
    fn the_derivation_is_pinned() {
        let streams = Streams::new(KEY);
        let draw = |mut rng: Xoshiro256PlusPlus| [rng.next_u64(), rng.next_u64()];
        assert_eq!(draw(streams.stream("ticks")), [0xf224_d94f_383f_b691, 0x5ea8_3ee0_f46d_3bba]);
        assert_eq!(draw(streams.indexed("ticks", 0)), [0xe1cd_210e_2847_2f0d, 0x7398_1d3f_9797_91f4]);
        assert_eq!(draw(streams.nested("node", 3).stream("ticks")), [0xfc30_a42b_1b5d_46e9, 0x77f7_1a0c_a718_082a]);
    }

    #[test]
    fn every_part_of_the_key_counts() {
        let streams = Streams::new(KEY);
        let draws = [
            first(KEY),
            first(StreamKey { seed: 2, ..KEY }),
            first(StreamKey { experiment: "detectioN", ..KEY }),
            first(StreamKey { point: "load=0.9", ..KEY }),
            first(StreamKey { replication: 1, ..KEY }),
            // Parts are kept apart: neither do they commute, nor run into each other.
            first(StreamKey { experiment: "load=0.8", point: "detection", ..KEY }),
            first(StreamKey { experiment: "detectionload=0.8", point: "", ..KEY }),
            first(StreamKey { seed: 0, replication: 1, ..KEY }),
            streams.stream("faults").next_u64(),
            streams.indexed("ticks", 0).next_u64(),
            streams.indexed("ticks", 1).next_u64(),
            streams.nested("ticks", 0).stream("ticks").next_u64(),
        ];
        assert_eq!(draws.iter().collect::<HashSet<_>>().len(), draws.len(), "{draws:x?}");
    }

    #[test]
    fn streams_of_neighbours_are_uncorrelated() {
        let streams = Streams::new(KEY);
        let uniform = |index| (streams.indexed("ticks", index).next_u64() >> 11) as f64 / (1u64 << 53) as f64 - 0.5;
        let n = 20_000;
        let covariance = (0..n).map(|index| uniform(index) * uniform(index + 1)).sum::<f64>() / n as f64;
        // The products have mean 0 and standard deviation 1/12.
        assert!(covariance.abs() < 4.0 / 12.0 / (n as f64).sqrt(), "{covariance}");
    }
}
