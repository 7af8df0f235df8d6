//! Posting and completing.

use backdoor_core::transport::{LocalSlice, Operation, PostError, Rights, Transport};

use super::bench::{Bench, DONE_READ, DONE_WRITE, Failure, Verdict, content, ensure, expect, read, write};
use super::{Arm, Case, Needs};

pub(super) fn cases<A: Arm>() -> Vec<Case<A>> {
    vec![
        Case::new("completions come in the order of posting", Needs::Nothing, order),
        Case::new("nothing is posted with an empty batch", Needs::Nothing, empty_batch),
        Case::new("a batch with one impossible operation is not taken at all", Needs::Nothing, whole_or_not),
        Case::new("a full queue takes no batch, and is free again once polled", Needs::Nothing, full_queue),
        Case::new("parts of one buffer serve several operations", Needs::Nothing, parts_of_a_buffer),
    ]
}

fn order<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(2000, Rights::READ | Rights::WRITE)]);
    let (long, short, source) = (bench.allocate(2000)?, bench.allocate(1)?, bench.filled(&[7])?);
    // A long one first, so that a transport that lets short ones overtake is seen.
    let operations =
        [read(bench.slice(0, 0, 2000), long), write(source, bench.slice(0, 5, 1)), read(bench.slice(0, 5, 1), short)];
    bench.post(&operations)?;
    bench.post(&operations[1..2])?;
    expect("endings", bench.finish()?, vec![DONE_READ, DONE_WRITE, DONE_READ, DONE_WRITE])?;
    expect("what the last READ brought", bench.words(short)?, vec![7])?;
    expect("what the first READ brought", bench.words(long)?[5], content(0, 5))
}

fn empty_batch<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(8, Rights::READ)]);
    expect("endings", bench.perform(&[])?, vec![])
}

fn whole_or_not<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(8, Rights::READ | Rights::WRITE)]);
    let (source, copy) = (bench.filled(&[3; 8])?, bench.allocate(4)?);
    let good = write(source, bench.slice(0, 0, 8));
    let too_long = read(bench.slice(0, 0, 8), copy);
    for batch in [[good, too_long], [too_long, good]] {
        expect("posting", bench.try_post(&batch), Err(PostError::Buffer { buffer: copy.0 }))?;
        expect("endings", bench.finish()?, vec![])?;
        bench.expect_untouched(0)?;
    }
    // And it holds no buffer.
    ensure(bench.transport().buffer(source).is_ok(), "a batch that was not taken holds its buffers")?;
    bench.perform_one(good, DONE_WRITE)
}

/// More than any real card's queue.
const NO_QUEUE_IS_LONGER: usize = 1 << 17;

fn full_queue<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(1, Rights::READ)]);
    let buffer = bench.allocate(1)?;
    let one = read(bench.slice(0, 0, 1), buffer);
    let depth = match bench.try_post(&vec![one; NO_QUEUE_IS_LONGER]) {
        Err(PostError::QueueFull { depth }) => depth,
        other => return Err(Failure(format!("posting {NO_QUEUE_IS_LONGER} operations: {other:?}"))),
    };
    expect("endings of the batch not taken", bench.finish()?, vec![])?;
    ensure(depth > 0, "a queue for no operations")?;
    for _ in 0..2 {
        bench.post(&vec![one; depth - 1])?;
        expect("posting two where one fits", bench.try_post(&[one; 2]), Err(PostError::QueueFull { depth }))?;
        bench.post(&[one])?;
        expect("posting where none fits", bench.try_post(&[one]), Err(PostError::QueueFull { depth }))?;
        expect("endings", bench.finish()?, vec![DONE_READ; depth])?;
    }
    Ok(())
}

fn parts_of_a_buffer<A: Arm>(arm: &A) -> Verdict {
    let mut bench = Bench::new(arm, &[(8, Rights::READ), (8, Rights::READ)]);
    let buffer = bench.allocate(16)?;
    let into = |offset| LocalSlice { buffer, offset };
    let operations = [
        Operation::Read { from: bench.slice(0, 0, 8), into: into(0) },
        Operation::Read { from: bench.slice(1, 0, 8), into: into(8) },
    ];
    expect("endings", bench.perform(&operations)?, vec![DONE_READ; 2])?;
    let expected = (0..16).map(|word| content(word / 8, word % 8)).collect();
    expect("the buffer", bench.words(buffer)?, expected)
}
