//! TCP sequence numbers and stream offsets: 32 bits that wrap around, and 64 that don't (RFC 9293, section 3.4).

/// Sequence number of the byte at `offset` of a stream whose first byte has the number `base`.
pub const fn sequence_at(base: u32, offset: u64) -> u32 {
    base.wrapping_add(offset as u32)
}

/// The offset nearest to `near` whose byte has the number `sequence`, in a stream whose first byte has the number `base`;
/// `None` if it would lie before that first byte. Two offsets with one number are 4 GiB apart, and whatever is under way
/// between two ends of a connection is at most 1 GiB (RFC 7323, section 2.3), so an offset known from one end finds those
/// of the other.
pub const fn offset_near(base: u32, sequence: u32, near: u64) -> Option<u64> {
    let ahead = sequence.wrapping_sub(sequence_at(base, near)) as i32;
    near.checked_add_signed(ahead as i64)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_wrap_and_offsets_do_not() {
        assert_eq!(sequence_at(u32::MAX, 1), 0);
        assert_eq!(sequence_at(10, 1 << 32), 10);
        assert_eq!(offset_near(u32::MAX, 0, 0), Some(1));
        assert_eq!(offset_near(10, 9, (1 << 32) + 3), Some((1 << 32) - 1));
        assert_eq!(offset_near(10, 9, 3), None, "before the first byte");
        assert_eq!(offset_near(0, 0, u64::MAX), None, "after the last one");
    }

    proptest! {
        #[test]
        fn an_offset_is_found_from_any_near_one(base: u32, near in 0..u64::MAX / 2, ahead in -(1i64 << 31)..1 << 31) {
            if let Some(offset) = near.checked_add_signed(ahead) {
                prop_assert_eq!(offset_near(base, sequence_at(base, offset), near), Some(offset));
            }
        }
    }
}
