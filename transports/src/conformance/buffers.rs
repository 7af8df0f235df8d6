//! Who may look at a buffer, and when.

use backdoor_core::transport::{BufferId, LocalSlice, Operation, PostError, RemoteSlice, Rights, Transport};

use super::bench::{Bench, DONE_READ, Verdict, ensure, expect, read, write};
use super::{Arm, Case, Needs, Rig};

pub(super) fn cases<A: Arm>() -> Vec<Case<A>> {
    vec![
        Case::new("a fresh buffer is zeroed and has its length", Needs::Nothing, fresh),
        Case::new("a buffer with work under way is out of reach", Needs::Nothing, busy),
        Case::new("a released buffer is gone, also after others were made", Needs::Nothing, released),
        Case::new("a buffer that never was is refused", Needs::Nothing, unknown),
        Case::new("work that leaves its buffer is refused", Needs::Nothing, too_short),
        Case::new("a buffer larger than memory is refused", Needs::Nothing, too_large),
    ]
}

const RW: Rights = Rights::from_bits(3).unwrap();

fn fresh<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(8, RW)]);
    let first = bench.filled(&[9; 5])?;
    let second = bench.allocate(5)?;
    expect("a fresh buffer", bench.words(second)?, vec![0; 5])?;
    expect("the buffer before it", bench.words(first)?, vec![9; 5])?;
    expect("release", bench.transport().release(first), Ok(()))?;
    let third = bench.allocate(5)?;
    expect("a buffer made after a release", bench.words(third)?, vec![0; 5])
}

/// Every access that the poster has.
fn expect_out_of_reach<R: Rig>(bench: &mut Bench<R>, buffer: BufferId, why: &str) -> Verdict {
    let refused = PostError::Buffer { buffer: buffer.0 };
    let transport = bench.transport();
    expect(&format!("looking at a buffer {why}"), transport.buffer(buffer).err(), Some(refused))?;
    expect(&format!("changing a buffer {why}"), transport.buffer_mut(buffer).err(), Some(refused))?;
    expect(&format!("releasing a buffer {why}"), transport.release(buffer), Err(refused))
}

fn busy<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(8, RW)]);
    let (buffer, other) = (bench.allocate(8)?, bench.filled(&[5])?);
    let nowhere = RemoteSlice { key: bench.unknown_key(), offset: 0, words: 1 };
    let good = [read(bench.slice(0, 0, 8), buffer), write(buffer, bench.slice(0, 0, 8))];
    for (operation, bad) in [(good[0], false), (good[1], false), (read(nowhere, buffer), true)] {
        bench.post(&[operation])?;
        expect_out_of_reach(&mut bench, buffer, "with work under way")?;
        expect("another buffer", bench.words(other)?, vec![5])?;
        bench.finish()?;
        bench.words(buffer)?;
        if bad {
            bench.mend()?;
        }
    }
    expect("releasing after the work", bench.transport().release(buffer), Ok(()))
}

fn released<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(8, RW)]);
    let gone = bench.allocate(8)?;
    expect("release", bench.transport().release(gone), Ok(()))?;
    let use_of_it = read(bench.slice(0, 0, 8), gone);
    for round in 0..3 {
        expect_out_of_reach(&mut bench, gone, "that was released")?;
        let refused = Err(PostError::Buffer { buffer: gone.0 });
        expect("posting with a released buffer", bench.try_post(&[use_of_it]), refused)?;
        let next = bench.allocate(8)?;
        ensure(next != gone, &format!("buffer {round} after the release has the same number"))?;
    }
    Ok(())
}

fn unknown<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(8, RW)]);
    for number in [0x1234, u32::MAX] {
        let buffer = BufferId(number);
        expect_out_of_reach(&mut bench, buffer, "that never was")?;
        let refused = Err(PostError::Buffer { buffer: number });
        expect("a READ into it", bench.try_post(&[read(bench.slice(0, 0, 1), buffer)]), refused)?;
        expect("a WRITE from it", bench.try_post(&[write(buffer, bench.slice(0, 0, 1))]), refused)?;
    }
    Ok(())
}

fn too_short<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(8, RW)]);
    let buffer = bench.allocate(4)?;
    let refused = Err(PostError::Buffer { buffer: buffer.0 });
    for (offset, words) in
        [(0, 5), (4, 1), (1, 4), (5, 0), (usize::MAX, 2), (usize::MAX, 1), (0, u64::MAX), (1 << 61, 1)]
    {
        let (remote, local) = (bench.slice(0, 0, words), LocalSlice { buffer, offset });
        let what = format!("{words} words at {offset} of a buffer of 4");
        expect(&what, bench.try_post(&[Operation::Read { from: remote, into: local }]), refused)?;
        expect(&what, bench.try_post(&[Operation::Write { from: local, to: remote }]), refused)?;
    }
    bench.expect_untouched(0)?;
    bench.perform_one(read(bench.slice(0, 0, 4), buffer), DONE_READ)
}

fn too_large<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(8, RW)]);
    for words in [usize::MAX, usize::MAX / 8, 1 << 60] {
        let refused = PostError::OutOfMemory { words };
        expect(&format!("a buffer of {words} words"), bench.transport().allocate(words).err(), Some(refused))?;
    }
    Ok(())
}
