//! What an error does to the channel and to the work behind it, and how the channel is opened anew.

use backdoor_core::transport::{ChannelState, PostError, RemoteSlice, Rights, Transport, TransportError};

use super::bench::{Bench, DONE_READ, DONE_WRITE, Ending, Failure, Verdict, content, ensure, expect, read, write};
use super::{Arm, Case, Needs, Rig};

pub(super) fn cases<A: Arm>() -> Vec<Case<A>> {
    vec![
        Case::new("work before an error is done, work behind it is flushed or done", Needs::Nothing, middle_of_batch),
        Case::new("a broken channel takes nothing until it is reopened", Needs::BreaksOnError, broken),
        Case::new("buffers survive an error and a reopening", Needs::Nothing, buffers_stay),
        Case::new("reopening an open channel flushes and opens it", Needs::Nothing, reopen_open),
        Case::new("a cut link ends in Unreachable, within a bound", Needs::CutLink, cut_link),
        Case::new("a link cut under way never yields data", Needs::CutLink, cut_under_way),
        Case::new("a channel does not open while the link is cut", Needs::CutLink, no_opening_without_link),
    ]
}

const RW: Rights = Rights::from_bits(3).unwrap();

fn middle_of_batch<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(8, RW)]);
    let (source, before, behind) = (bench.filled(&[3])?, bench.allocate(1)?, bench.allocate(1)?);
    let nowhere = RemoteSlice { key: bench.unknown_key(), offset: 0, words: 1 };
    let operations = [
        read(bench.slice(0, 1, 1), before),
        read(nowhere, behind),
        write(source, bench.slice(0, 2, 1)),
        read(bench.slice(0, 2, 1), behind),
    ];
    let endings = bench.perform(&operations)?;
    let refused = Err(TransportError::Refused);
    if bench.capabilities.breaks_on_error {
        let flushed = Err(TransportError::Flushed);
        expect("endings", endings, vec![DONE_READ, refused, flushed, flushed])?;
        bench.expect_untouched(0)?;
    } else {
        expect("endings", endings, vec![DONE_READ, refused, DONE_WRITE, DONE_READ])?;
        expect("what the last READ brought", bench.words(behind)?, vec![3])?;
    }
    expect("what the first READ brought", bench.words(before)?, vec![content(0, 1)])?;
    bench.mend()?;
    bench.perform_one(write(source, bench.slice(0, 2, 1)), DONE_WRITE)
}

fn broken<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(8, RW)]);
    let buffer = bench.allocate(8)?;
    let nowhere = RemoteSlice { key: bench.unknown_key(), offset: 0, words: 1 };
    expect("ending", bench.perform(&[read(nowhere, buffer)])?, vec![Err(TransportError::Refused)])?;
    expect("channel", bench.transport().channel(), ChannelState::Broken)?;
    let good = read(bench.slice(0, 0, 8), buffer);
    expect("posting on a broken channel", bench.try_post(&[good]), Err(PostError::NotOpen))?;
    expect("endings of what was not taken", bench.finish()?, vec![])?;
    bench.reopen()?;
    bench.perform_one(good, DONE_READ)
}

fn buffers_stay<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(8, RW)]);
    let (kept, used) = (bench.filled(&[1, 2, 3])?, bench.allocate(8)?);
    let nowhere = RemoteSlice { key: bench.unknown_key(), offset: 0, words: 1 };
    for _ in 0..3 {
        bench.perform_refused(read(nowhere, used), TransportError::Refused)?;
        expect("a buffer from before", bench.words(kept)?, vec![1, 2, 3])?;
        bench.perform_one(read(bench.slice(0, 0, 8), used), DONE_READ)?;
        expect("what a READ brought", bench.words(used)?, (0..8).map(|word| content(0, word)).collect())?;
    }
    Ok(())
}

fn reopen_open<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(8, RW)]);
    let buffer = bench.allocate(8)?;
    let good = read(bench.slice(0, 0, 8), buffer);
    bench.reopen()?;
    bench.perform_one(good, DONE_READ)?;
    bench.post(&[good, good])?;
    bench.transport().reopen();
    // What was finished before the reopening is done, the rest flushed.
    let endings = bench.finish()?;
    let all = |rest: &[Ending], ending: Ending| rest.iter().all(|found| *found == ending);
    let done = endings.iter().take_while(|ending| **ending == DONE_READ).count();
    ensure(all(&endings[done..], Err(TransportError::Flushed)), &format!("work under way ended as {endings:?}"))?;
    if bench.transport().channel() != ChannelState::Open {
        bench.reopen()?;
    }
    bench.perform_one(good, DONE_READ)
}

fn cut_link<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(8, RW)]);
    let buffer = bench.filled(&[3; 8])?;
    bench.perform_one(write(buffer, bench.slice(0, 0, 1)), DONE_WRITE)?;
    bench.rig.cut_link();
    bench.perform_one(read(bench.slice(0, 0, 8), buffer), Err(TransportError::Unreachable))?;
    bench.rig.restore_link();
    bench.mend()?;
    bench.perform_one(read(bench.slice(0, 0, 8), buffer), DONE_READ)?;
    expect("a word", bench.words(buffer)?[1], content(0, 1))
}

fn cut_under_way<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(8, RW)]);
    let buffer = bench.allocate(8)?;
    let good = read(bench.slice(0, 0, 8), buffer);
    bench.post(&[good, good, good])?;
    bench.rig.cut_link();
    let endings = bench.finish()?;
    let done = endings.iter().take_while(|ending| **ending == DONE_READ).count();
    if let Some((first, behind)) = endings[done..].split_first() {
        expect("the first error", *first, Err(TransportError::Unreachable))?;
        let flushed = |ending: &Ending| *ending == Err(TransportError::Flushed);
        let either = |ending: &Ending| flushed(ending) || *ending == Err(TransportError::Unreachable);
        let fits =
            if bench.capabilities.breaks_on_error { behind.iter().all(flushed) } else { behind.iter().all(either) };
        ensure(fits, &format!("work behind the error ended as {behind:?}"))?;
        bench.rig.restore_link();
        return bench.mend();
    }
    // The answers had arrived before the cut; then nothing arrives any more.
    bench.perform_one(good, Err(TransportError::Unreachable))
}

fn no_opening_without_link<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(8, RW)]);
    let buffer = bench.allocate(8)?;
    let good = read(bench.slice(0, 0, 8), buffer);
    bench.rig.cut_link();
    bench.transport().reopen();
    let mut completions = Vec::new();
    for _ in 0..bench.rig.patience() {
        match bench.transport().channel() {
            ChannelState::Open => return Err(Failure("the channel opened over a cut link".into())),
            ChannelState::Broken => break,
            ChannelState::Opening => bench.rig.step(&mut completions),
        }
    }
    expect("posting without a link", bench.try_post(&[good]), Err(PostError::NotOpen))?;
    bench.rig.restore_link();
    // An attempt in progress may end either way; the next one succeeds.
    for _ in 0..bench.rig.patience() {
        if bench.transport().channel() == ChannelState::Opening {
            bench.rig.step(&mut completions);
        }
    }
    expect("completions of nothing", completions.len(), 0)?;
    if bench.transport().channel() == ChannelState::Broken {
        bench.reopen()?;
    }
    bench.perform_one(good, DONE_READ)
}
