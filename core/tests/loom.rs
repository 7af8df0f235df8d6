//! All interleavings, with every value that the memory model lets a relaxed load see, for the two protocols in which a
//! reader meets a running writer. Half a minute; `LOOM_MAX_PREEMPTIONS=3` needs seconds and misses little. Run with:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release -p backdoor-core --test loom
//! ```
#![cfg(loom)]

use backdoor_core::Nanos;
use backdoor_core::progress_box::{EntityRecord, FailureLevel, Geometry, ProgressBox, read_directory};
use backdoor_core::state_box::{Committed, StateBox, StateBoxError, StateBoxView, words_needed};
use backdoor_core::words::{AtomicU64, Ordering, copy_of, zeroed};
use loom::sync::Arc;
use loom::thread;

fn shared(words: usize) -> Arc<[AtomicU64]> {
    Arc::from_std(std::sync::Arc::from(zeroed(words)))
}

/// Words of a State Box for a payload of one word: header, then two slots. Nobody knows offsets but the format's own
/// `layout`; here they name what a READ has to bring, and a wrong one shows as a box that can't be read.
const COMMIT: usize = 6;
const SEQUENCE: u64 = (1 << 48) - 1;
const SLOTS: [usize; 2] = [8, 16];
const SLOT_USED: std::ops::Range<usize> = 1..5;

/// What a READ of a State Box brings, in address order. Words that are padding, or never change once the box is
/// formatted, are taken at once: loads of theirs would only multiply the executions.
fn read(memory: &[AtomicU64], fixed: &[u64]) -> Vec<u64> {
    let mut copy = fixed.to_vec();
    copy[COMMIT] = memory[COMMIT].load(Ordering::Relaxed);
    for slot in SLOTS {
        for at in SLOT_USED.map(|word| slot + word) {
            copy[at] = memory[at].load(Ordering::Relaxed);
        }
    }
    copy
}

/// A box in which version 1 is committed, and a reader beside a writer that goes on. The reader gets the commit word
/// that a completed READ brought before, acquired, and what a READ brings then.
fn beside_commits(
    commits: u64,
    check: impl Fn(u64, Result<Committed<'_>, StateBoxError>) + Copy + Send + Sync + 'static,
) {
    loom::model(move || {
        let memory = shared(words_needed(1));
        let claim = Arc::new(AtomicU64::new(0));
        let mut writer = StateBox::format(memory.clone(), claim, 1, 1).unwrap();
        writer.commit(&[1; 8]).unwrap();
        let reader = thread::spawn({
            let memory = memory.clone();
            let fixed = copy_of(&memory);
            move || {
                let seen = memory[COMMIT].load(Ordering::Acquire) & SEQUENCE;
                let copy = read(&memory, &fixed);
                check(seen, StateBoxView::read(&copy).unwrap().committed());
            }
        });
        for version in 2..2 + commits {
            writer.commit(&[version as u8; 8]).unwrap();
        }
        reader.join().unwrap();
    });
}

fn assert_whole(version: Committed<'_>) {
    assert_eq!(version.payload, [version.sequence as u8; 8]);
}

/// A reader of a State Box that is being committed gets one whole version or is told that it got none.
#[test]
fn a_commit_is_seen_whole_or_not_at_all() {
    beside_commits(2, |seen, answer| match answer {
        Ok(version) => {
            assert_whole(version);
            assert!(version.sequence >= seen, "version {seen} was committed, {version:?} was read");
        }
        Err(StateBoxError::NoWholeVersion { .. }) => {}
        Err(error) => panic!("{error}"),
    });
}

/// While one commit is under way, the version before it stays whole; one that was seen is whole as well.
#[test]
fn a_commit_touches_nothing_of_the_version_before() {
    beside_commits(1, |seen, answer| match answer {
        Ok(version) => {
            assert_whole(version);
            assert!(version.sequence >= seen, "version {seen} was committed, {version:?} was read");
        }
        // Words that were not ordered by any acquisition: the commit word came, its slot did not.
        Err(StateBoxError::NoWholeVersion { commit: 2 }) => assert_eq!(seen, 1),
        Err(error) => panic!("{error}"),
    });
}

const DIRECTORY_VERSION: usize = 5;

/// A reader that saw a directory version finds at least the entries that it promises; one that saw a slot in use finds
/// who uses it.
#[test]
fn a_directory_version_and_a_slot_in_use_promise_their_entries() {
    loom::model(|| {
        let geometry = Geometry::new(1, 0).unwrap();
        let memory = shared(geometry.total_words());
        let mut owner = ProgressBox::format(memory.clone(), geometry, 1).unwrap();
        let reader = thread::spawn({
            let memory = memory.clone();
            move || {
                // What a monitor's earlier READ brought: acquired, as by a completed READ.
                let version = memory[DIRECTORY_VERSION].load(Ordering::Acquire);
                let in_use = memory[geometry.liveness().start].load(Ordering::Acquire) != 0;
                if version > 0 || in_use {
                    let directory = copy_of(&memory[geometry.directory()]);
                    let (_, entry) = read_directory(&directory).next().unwrap();
                    assert_eq!(entry.unwrap().unwrap().name.as_str(), "a");
                }
            }
        });
        owner.add(EntityRecord::new("a", FailureLevel::Application, Nanos(1))).unwrap();
        reader.join().unwrap();
    });
}
