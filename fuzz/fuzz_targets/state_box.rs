//! Arbitrary memory as a State Box; and a sound box with damage of up to 32 neighbouring bits, which the checksum notices:
//! it may hide a version, but never alter one.
#![no_main]

use std::sync::atomic::AtomicU64;

use backdoor_core::state_box::{StateBox, StateBoxView, words_needed};
use backdoor_core::words::{copy_of, zeroed};
use libfuzzer_sys::fuzz_target;

/// Enough for XXH3 of long inputs, which is code of this project.
const STATE_BYTES: usize = 300;

fuzz_target!(|bytes: &[u8]| {
    let words: Vec<u64> = bytes.chunks_exact(8).map(bytemuck::pod_read_unaligned).collect();
    if let Ok(view) = StateBoxView::read(&words)
        && let Ok(version) = view.committed()
    {
        assert!(version.payload.len() <= words.len() * 8);
    }

    let claim = AtomicU64::new(0);
    let mut state_box = StateBox::format(zeroed(words_needed(STATE_BYTES)), &claim, 1, 1).expect("large enough");
    for sequence in 1..=3u8 {
        state_box.commit(&[sequence; STATE_BYTES]).expect("fits");
    }
    let mut copy = copy_of(state_box.memory());
    if let Some((&[at, shift, a, b, c, d], _)) = bytes.split_first_chunk() {
        let at = usize::from(at) % copy.len();
        copy[at] ^= u64::from(u32::from_le_bytes([a, b, c, d])) << (shift % 33);
    }
    if let Ok(view) = StateBoxView::read(&copy)
        && let Ok(version) = view.committed()
    {
        assert_eq!(version.payload, [version.sequence as u8; STATE_BYTES]);
    }
});
