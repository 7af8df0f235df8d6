//! What operations do to memory, at both ends.

use backdoor_core::transport::{LocalSlice, Operation, Rights};

use super::bench::{Bench, DONE_READ, DONE_WRITE, Verdict, content, expect, found, read, swap, write};
use super::{Arm, Case, Needs, Rig};

pub(super) fn cases<A: Arm>() -> Vec<Case<A>> {
    vec![
        Case::new("a READ brings what is there", Needs::Nothing, brings_what_is_there),
        Case::new("a READ brings what the CPU stored before it", Needs::Nothing, brings_what_was_stored),
        Case::new("READs keep to their offsets and lengths, at both ends", Needs::Nothing, read_offsets),
        Case::new("WRITEs keep to their offsets and lengths, at both ends", Needs::Nothing, write_offsets),
        Case::new("a large region is read whole", Needs::Nothing, large_read),
        Case::new("a large region is written whole", Needs::Nothing, large_write),
        Case::new("no words are read and written as well", Needs::Nothing, no_words),
        Case::new("a READ behind a WRITE sees it", Needs::Nothing, read_behind_write),
        Case::new("a compare-and-swap that finds what it expects stores", Needs::CompareSwap, swap_stores),
        Case::new("a compare-and-swap that finds something else doesn't", Needs::CompareSwap, swap_does_not_store),
    ]
}

const R: Rights = Rights::READ;

fn brings_what_is_there<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(16, R), (8, R)]);
    let (first, second) = (bench.allocate(16)?, bench.allocate(8)?);
    bench.perform_one(read(bench.slice(0, 0, 16), first), DONE_READ)?;
    bench.perform_one(read(bench.slice(1, 0, 8), second), DONE_READ)?;
    expect("words of region 0", bench.words(first)?, (0..16).map(|word| content(0, word)).collect())?;
    expect("words of region 1", bench.words(second)?, (0..8).map(|word| content(1, word)).collect())
}

fn brings_what_was_stored<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(4, R)]);
    let buffer = bench.allocate(4)?;
    for round in 1..=20 {
        bench.rig.cpu_store(0, 2, round);
        bench.perform_one(read(bench.slice(0, 0, 4), buffer), DONE_READ)?;
        expect("words", bench.words(buffer)?, vec![content(0, 0), content(0, 1), round, content(0, 3)])?;
    }
    Ok(())
}

fn read_offsets<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(16, R)]);
    for (offset, words) in [(0, 1), (15, 1), (3, 5), (0, 16), (9, 7)] {
        let buffer = bench.filled(&[7; 20])?;
        let from = bench.slice(0, offset, words);
        bench.perform_one(Operation::Read { from, into: LocalSlice { buffer, offset: 2 } }, DONE_READ)?;
        let mut expected = vec![7; 20];
        (0..words as usize).for_each(|word| expected[2 + word] = content(0, offset as usize + word));
        expect(&format!("buffer after a READ of {words} words at {offset}"), bench.words(buffer)?, expected)?;
    }
    Ok(())
}

fn write_offsets<A: Arm>(arm: &A) -> Verdict {
    let source: Vec<u64> = (500..520).collect();
    for (offset, words) in [(0, 1), (15, 1), (3, 5), (0, 16), (9, 7)] {
        let mut bench = Bench::new(arm, &[(16, Rights::WRITE), (4, Rights::READ | Rights::WRITE)]);
        let buffer = bench.filled(&source)?;
        let to = bench.slice(0, offset, words);
        bench.perform_one(Operation::Write { from: LocalSlice { buffer, offset: 2 }, to }, DONE_WRITE)?;
        for word in 0..16u64 {
            let written = (offset..offset + words).contains(&word);
            let expected = if written { 502 + word - offset } else { content(0, word as usize) };
            let what = format!("word {word} after a WRITE of {words} words at {offset}");
            expect(&what, bench.rig.cpu_load(0, word as usize), expected)?;
        }
        bench.expect_untouched(1)?;
        expect("the buffer that was written from", bench.words(buffer)?, source.clone())?;
    }
    Ok(())
}

/// More than any chunk or packet.
const LARGE: usize = 20_011;

fn large_read<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(LARGE, R)]);
    let buffer = bench.allocate(LARGE)?;
    bench.perform_one(read(bench.slice(0, 0, LARGE as u64), buffer), DONE_READ)?;
    let wrong = bench.words(buffer)?.iter().enumerate().position(|(word, found)| *found != content(0, word));
    expect("first wrong word", wrong, None)
}

fn large_write<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(LARGE, Rights::WRITE)]);
    let words: Vec<u64> = (0..LARGE as u64).map(|word| word * 3).collect();
    let buffer = bench.filled(&words)?;
    bench.perform_one(write(buffer, bench.slice(0, 0, LARGE as u64)), DONE_WRITE)?;
    let wrong = (0..LARGE).find(|word| bench.rig.cpu_load(0, *word) != words[*word]);
    expect("first wrong word", wrong, None)
}

fn no_words<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(8, Rights::READ | Rights::WRITE)]);
    let buffer = bench.filled(&[7; 4])?;
    bench.perform_one(read(bench.slice(0, 3, 0), buffer), DONE_READ)?;
    bench.perform_one(write(buffer, bench.slice(0, 3, 0)), DONE_WRITE)?;
    expect("buffer", bench.words(buffer)?, vec![7; 4])?;
    bench.expect_untouched(0)
}

fn read_behind_write<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(8, Rights::READ | Rights::WRITE)]);
    let (source, copy) = (bench.filled(&[41, 42])?, bench.allocate(8)?);
    let operations = [write(source, bench.slice(0, 3, 2)), read(bench.slice(0, 0, 8), copy)];
    expect("endings", bench.perform(&operations)?, vec![DONE_WRITE, DONE_READ])?;
    expect("words 3 and 4", bench.words(copy)?[3..5].to_vec(), vec![41, 42])
}

fn swap_stores<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(4, Rights::READ | Rights::COMPARE_SWAP)]);
    let at = bench.slice(0, 2, 1);
    bench.perform_one(swap(at, content(0, 2), 9), found(content(0, 2)))?;
    expect("the word", bench.rig.cpu_load(0, 2), 9)?;
    bench.perform_one(swap(at, 9, u64::MAX), found(9))?;
    expect("the word", bench.rig.cpu_load(0, 2), u64::MAX)?;
    for word in [0, 1, 3] {
        expect("another word", bench.rig.cpu_load(0, word), content(0, word))?;
    }
    Ok(())
}

fn swap_does_not_store<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(4, Rights::COMPARE_SWAP)]);
    bench.perform_one(swap(bench.slice(0, 2, 1), 1, 9), found(content(0, 2)))?;
    bench.expect_untouched(0)?;
    // Of two that expect the same, one wins, and the other learns of it.
    let at = bench.slice(0, 1, 1);
    let endings = bench.perform(&[swap(at, content(0, 1), 5), swap(at, content(0, 1), 6)])?;
    expect("endings", endings, vec![found(content(0, 1)), found(5)])?;
    expect("the word", bench.rig.cpu_load(0, 1), 5)
}
