//! READs of memory that is being rewritten. A READ is not atomic, but each of its words is, on most substrates; the
//! formats of `backdoor-core` tell a whole version from a mixture either way.

use backdoor_core::state_box::{StateBoxError, StateBoxView, words_needed};
use backdoor_core::transport::Rights;

use super::bench::{Bench, DONE_READ, Failure, Verdict, ensure, expect, read};
use super::cpu::{CpuWork, SESSION};
use super::{Arm, Case, Needs, Rig};

pub(super) fn cases<A: Arm>() -> Vec<Case<A>> {
    vec![
        Case::new("words are never torn", Needs::WholeWords, words_are_whole),
        Case::new("a State Box being rewritten is read whole or not at all", Needs::ConcurrentCpu, states_are_whole),
    ]
}

const ROUNDS: usize = 200;

fn words_are_whole<A: Arm>(arm: &A) -> Verdict {
    const WORDS: usize = 2048;
    let mut bench = Bench::new(arm, &[(WORDS, Rights::READ)]);
    let buffer = bench.allocate(WORDS)?;
    // Halves are equal from the start, so that it doesn't matter when the processor begins.
    (0..WORDS).for_each(|word| bench.rig.cpu_store(0, word, 0));
    bench.rig.start_cpu(0, CpuWork::DoubledHalves);
    let mut newest = 0;
    for round in 0..ROUNDS * 50 {
        if round >= ROUNDS && newest > 0 {
            break;
        }
        bench.perform_one(read(bench.slice(0, 0, WORDS as u64), buffer), DONE_READ)?;
        let words = bench.words(buffer)?;
        let torn = words.iter().find(|word| **word >> 32 != **word & 0xffff_ffff);
        expect("a word with two different halves", torn, None)?;
        newest = newest.max(words[WORDS - 1]);
    }
    ensure(newest > 0, "the arm's processor did nothing")
}

fn states_are_whole<A: Arm>(arm: &A) -> Verdict {
    // The largest that fits the words, so that the payload's tail lies where the READ ends.
    let words = words_needed(8 << 10);
    let mut bench = Bench::new(arm, &[(words, Rights::READ)]);
    let buffer = bench.allocate(words)?;
    bench.rig.start_cpu(0, CpuWork::CommitStates);
    let (mut whole, mut newest) = (0, 0);
    // A reader that loses every race against a writer that never rests goes on trying, up to a bound.
    for round in 0..ROUNDS * 50 {
        if round >= ROUNDS && whole > 0 {
            break;
        }
        bench.perform_one(read(bench.slice(0, 0, words as u64), buffer), DONE_READ)?;
        let copy = bench.words(buffer)?;
        // Before the box is formatted there is none: that too is an answer, though not for ever.
        let Ok(view) = StateBoxView::read(&copy) else { continue };
        expect("session", view.head().session(), SESSION)?;
        match view.committed() {
            Ok(state) => {
                let uniform = state.payload.iter().all(|byte| *byte == state.sequence as u8);
                ensure(uniform, &format!("version {} is a mixture", state.sequence))?;
                ensure(state.sequence >= newest, "an older version came after a newer one")?;
                newest = state.sequence;
                whole += 1;
            }
            Err(StateBoxError::Empty | StateBoxError::NoWholeVersion { .. }) => {}
            // A torn commit word is told by its check.
            Err(StateBoxError::Format(_)) if !arm.capabilities().whole_words => {}
            Err(StateBoxError::Format(error)) => return Err(Failure(error.to_string())),
        }
    }
    ensure(whole > 0, "not one READ brought a whole version")
}
