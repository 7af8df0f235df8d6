//! A busy process: takes all the processor time it can get.

use backdoor_core::Nanos;
use backdoor_host::clock;

/// Computes for nothing until `lifetime` has passed; the kernel ends it earlier, with its parent.
pub(super) fn play(lifetime: Nanos) {
    let end = clock::now() + lifetime;
    let mut value = 1u64;
    while clock::now() < end {
        for _ in 0..100_000 {
            value = std::hint::black_box(value.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1));
        }
    }
}
