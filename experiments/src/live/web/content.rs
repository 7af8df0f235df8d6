//! What the service serves: bytes that follow from a seed and their offset alone, so that any part can be made again.

/// Writes the bytes from `offset` on of the content of `seed`.
pub fn fill(seed: u64, offset: u64, into: &mut [u8]) {
    let mut offset = offset;
    let mut rest = into;
    while !rest.is_empty() {
        let word = mixed(seed, offset / 8).to_le_bytes();
        let from = (offset % 8) as usize;
        let length = (8 - from).min(rest.len());
        let (now, later) = rest.split_at_mut(length);
        now.copy_from_slice(&word[from..from + length]);
        offset += length as u64;
        rest = later;
    }
}

/// The word at `index`: SplitMix64 (Steele, Lea and Flood 2014), whose state is a counter.
fn mixed(seed: u64, index: u64) -> u64 {
    let state = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_is_as_in_the_whole() {
        let mut whole = [0; 100];
        fill(7, 0, &mut whole);
        for (from, to) in [(0, 100), (3, 4), (8, 16), (5, 93), (99, 100), (50, 50)] {
            let mut part = vec![0; to - from];
            fill(7, from as u64, &mut part);
            assert_eq!(part, whole[from..to], "{from}..{to}");
        }
        let mut other = [0; 100];
        fill(8, 0, &mut other);
        assert_ne!(other, whole);
    }
}
