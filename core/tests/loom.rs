//! Interleavings, with every value that the memory model lets a relaxed load see, for the two protocols in which a
//! reader meets a running writer: all of them up to two preemptions of a thread per execution. Run with:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release -p backdoor-core --test loom
//! ```
#![cfg(loom)]

use backdoor_core::Nanos;
use backdoor_core::progress_box::{EntityRecord, FailureLevel, Geometry, Header, ProgressBox, read_directory};
use backdoor_core::state_box::{StateBox, StateBoxError, StateBoxView, words_needed};
use backdoor_core::words::{AtomicU64, Ordering, copy_of, zeroed};
use loom::sync::Arc;
use loom::thread;

fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(model);
}

fn shared(words: usize) -> Arc<[AtomicU64]> {
    Arc::from_std(std::sync::Arc::from(zeroed(words)))
}

/// A reader of a State Box that is being committed gets one whole version or is told that it got none.
#[test]
fn a_commit_is_seen_whole_or_not_at_all() {
    explore(|| {
        let memory = shared(words_needed(1));
        let claim = Arc::new(AtomicU64::new(0));
        let mut writer = StateBox::format(memory.clone(), claim, 1, 1).unwrap();
        writer.commit(&[1; 8]).unwrap();
        let reader = thread::spawn({
            let memory = memory.clone();
            move || {
                let copy = copy_of(&memory);
                match StateBoxView::read(&copy).unwrap().committed() {
                    Ok(version) => assert_eq!(version.payload, [version.sequence as u8; 8]),
                    Err(StateBoxError::NoWholeVersion { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
        writer.commit(&[2; 8]).unwrap();
        writer.commit(&[3; 8]).unwrap();
        reader.join().unwrap();
    });
}

/// Whoever sees a commit by an acquiring load finds that version or a later one.
#[test]
fn a_commit_that_was_seen_is_not_lost() {
    explore(|| {
        let memory = shared(words_needed(1));
        let claim = Arc::new(AtomicU64::new(0));
        let told = Arc::new(AtomicU64::new(0));
        let mut writer = StateBox::format(memory.clone(), claim, 1, 1).unwrap();
        writer.commit(&[1; 8]).unwrap();
        let reader = thread::spawn({
            let (memory, told) = (memory.clone(), told.clone());
            move || {
                let at_least = told.load(Ordering::Acquire);
                let copy = copy_of(&memory);
                let version = StateBoxView::read(&copy).unwrap().committed();
                if at_least == 2 {
                    assert_eq!(version.map(|v| v.sequence), Ok(2), "nothing was committed after version 2");
                }
            }
        });
        let sequence = writer.commit(&[2; 8]).unwrap();
        told.store(sequence, Ordering::Release);
        reader.join().unwrap();
    });
}

/// A reader that saw a directory version finds at least the entries that it promises.
#[test]
fn a_directory_version_promises_its_entries() {
    explore(|| {
        let geometry = Geometry::new(1, 0).unwrap();
        let memory = shared(geometry.total_words());
        let mut owner = ProgressBox::format(memory.clone(), geometry, 1).unwrap();
        let reader = thread::spawn({
            let memory = memory.clone();
            move || {
                let header = Header::read(&{
                    // The version is what a monitor's earlier READ brought: acquire, as a completed READ does.
                    let mut words = copy_of(&memory[..8]);
                    words[5] = memory[5].load(Ordering::Acquire);
                    words
                })
                .unwrap();
                let directory = copy_of(&memory[geometry.directory()]);
                let (_, entry) = read_directory(&directory).next().unwrap();
                if header.directory_version > 0 {
                    assert_eq!(entry.unwrap().unwrap().name.as_str(), "a");
                }
            }
        });
        owner.add(EntityRecord::new("a", FailureLevel::Application, Nanos(1))).unwrap();
        reader.join().unwrap();
    });
}
