//! What the node must not let happen: these are enforced there, not by good manners.

use backdoor_core::transport::{Operation, RemoteSlice, Rights, TransportError};

use super::bench::{Bench, DONE_READ, DONE_WRITE, Verdict, content, expect, found, read, swap, write};
use super::{Arm, Case, Needs, Rig};

pub(super) fn cases<A: Arm>() -> Vec<Case<A>> {
    vec![
        Case::new("a READ without the right is refused", Needs::Nothing, read_right),
        Case::new("a WRITE without the right is refused and stores nothing", Needs::Nothing, write_right),
        Case::new("a compare-and-swap without the right is refused", Needs::CompareSwap, swap_right),
        Case::new("a key that nobody has is refused", Needs::Nothing, unknown_key),
        Case::new("a READ out of bounds fails", Needs::Nothing, read_bounds),
        Case::new("a WRITE out of bounds fails and stores nothing", Needs::Nothing, write_bounds),
        Case::new("a compare-and-swap out of bounds fails", Needs::CompareSwap, swap_bounds),
        Case::new("a region taken back is refused, others are not", Needs::Revoke, revoked),
    ]
}

/// Ranges that leave a region of 8 words. The last ones wrap around when added up or counted in bytes.
const OUTSIDE: [(u64, u64); 8] =
    [(0, 9), (8, 1), (7, 2), (100, 1), (u64::MAX, 2), (u64::MAX - 1, 2), (1 << 61, 1), ((1 << 61) - 1, 2)];

const ALL: Rights = Rights::from_bits(7).unwrap();

fn read_right<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(8, Rights::WRITE), (8, Rights::READ), (8, Rights::NONE)]);
    let buffer = bench.allocate(8)?;
    for region in [0, 2] {
        bench.perform_refused(read(bench.slice(region, 0, 8), buffer), TransportError::Refused)?;
    }
    bench.perform_one(read(bench.slice(1, 0, 8), buffer), DONE_READ)
}

fn write_right<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(8, Rights::READ), (8, Rights::WRITE), (8, Rights::NONE)]);
    let buffer = bench.filled(&[3; 8])?;
    for region in [0, 2] {
        bench.perform_refused(write(buffer, bench.slice(region, 0, 8)), TransportError::Refused)?;
        bench.expect_untouched(region)?;
    }
    bench.perform_one(write(buffer, bench.slice(1, 0, 8)), DONE_WRITE)
}

fn swap_right<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(8, Rights::READ | Rights::WRITE), (8, Rights::COMPARE_SWAP)]);
    bench.perform_refused(swap(bench.slice(0, 0, 1), content(0, 0), 5), TransportError::Refused)?;
    bench.expect_untouched(0)?;
    bench.perform_one(swap(bench.slice(1, 0, 1), content(1, 0), 5), found(content(1, 0)))
}

fn unknown_key<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(8, ALL)]);
    let buffer = bench.filled(&[3; 8])?;
    let nowhere = RemoteSlice { key: bench.unknown_key(), offset: 0, words: 1 };
    bench.perform_refused(read(nowhere, buffer), TransportError::Refused)?;
    bench.perform_refused(write(buffer, nowhere), TransportError::Refused)?;
    if bench.capabilities.compare_swap {
        bench.perform_refused(swap(nowhere, 0, 1), TransportError::Refused)?;
    }
    bench.expect_untouched(0)
}

/// The suite's own buffers are long enough for the words that it asks for.
const BUFFER_WORDS: usize = 16;

fn each_outside<R: Rig>(bench: &mut Bench<R>, operation: impl Fn(RemoteSlice) -> Operation) -> Verdict {
    for (offset, words) in OUTSIDE {
        bench.perform_refused(operation(bench.slice(0, offset, words)), TransportError::OutOfBounds)?;
        bench.expect_untouched(0)?;
        bench.expect_untouched(1)?;
    }
    Ok(())
}

fn read_bounds<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(8, ALL), (8, ALL)]);
    let buffer = bench.allocate(BUFFER_WORDS)?;
    each_outside(&mut bench, |from| read(from, buffer))
}

fn write_bounds<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(8, ALL), (8, ALL)]);
    let buffer = bench.filled(&[3; BUFFER_WORDS])?;
    each_outside(&mut bench, |to| write(buffer, to))
}

fn swap_bounds<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(8, ALL), (8, ALL)]);
    for offset in [8, 9, 1 << 61, u64::MAX] {
        bench.perform_refused(swap(bench.slice(0, offset, 1), 0, 1), TransportError::OutOfBounds)?;
        bench.expect_untouched(0)?;
    }
    Ok(())
}

fn revoked<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(8, ALL), (8, ALL)]);
    let buffer = bench.filled(&[3; 8])?;
    bench.perform_one(read(bench.slice(0, 0, 8), buffer), DONE_READ)?;
    bench.rig.revoke(0);
    bench.perform_refused(read(bench.slice(0, 0, 8), buffer), TransportError::Refused)?;
    bench.perform_refused(write(buffer, bench.slice(0, 0, 8)), TransportError::Refused)?;
    bench.perform_one(read(bench.slice(1, 0, 8), buffer), DONE_READ)?;
    expect("words of the other region", bench.words(buffer)?, (0..8).map(|word| content(1, word)).collect())
}
