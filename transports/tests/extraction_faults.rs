//! Extraction over a channel that fails at random, and beside writers that go on: every session is answered once, what
//! is answered is true, and nothing is left behind.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use backdoor_core::Nanos;
use backdoor_core::progress_box::{EntityRecord, FailureLevel, Slot, StateBoxLocation};
use backdoor_core::recovery::{Extraction, ExtractionConfig, SessionToRecover, StateError};
use backdoor_core::state_box::{StateBox, StateBoxError, words_needed};
use backdoor_core::transport::{
    BufferId, ChannelState, Completion, PostError, RegionKey, RemoteSlice, Rights, Transport, WorkRequest,
};
use backdoor_core::words::{AtomicU64, Ordering, zeroed};
use backdoor_transports::FaultInjector;
use backdoor_transports::fault_injector::FaultOptions;
use backdoor_transports::shm::{ReadOnlyWords, SealedMemory, ShmTransport};
use proptest::prelude::*;

const KEY: RegionKey = RegionKey(3);

/// Counts the buffers that are out.
struct Counting<T> {
    inner: T,
    out: usize,
    most: usize,
}

impl<T: Transport> Transport for Counting<T> {
    fn allocate(&mut self, words: usize) -> Result<BufferId, PostError> {
        let buffer = self.inner.allocate(words)?;
        self.out += 1;
        self.most = self.most.max(self.out);
        Ok(buffer)
    }
    fn release(&mut self, buffer: BufferId) -> Result<(), PostError> {
        self.inner.release(buffer)?;
        self.out -= 1;
        Ok(())
    }
    fn buffer(&self, buffer: BufferId) -> Result<&[u64], PostError> {
        self.inner.buffer(buffer)
    }
    fn buffer_mut(&mut self, buffer: BufferId) -> Result<&mut [u64], PostError> {
        self.inner.buffer_mut(buffer)
    }
    fn post(&mut self, batch: &[WorkRequest]) -> Result<(), PostError> {
        self.inner.post(batch)
    }
    fn poll(&mut self, completions: &mut Vec<Completion>) {
        self.inner.poll(completions)
    }
    fn channel(&self) -> ChannelState {
        self.inner.channel()
    }
    fn reopen(&mut self) {
        self.inner.reopen()
    }
}

/// Sessions in shared memory, each with a box of its own length.
struct Boxes {
    memory: SealedMemory,
    sessions: Vec<SessionToRecover>,
}

fn payload(session: u64, version: u64, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at as u64 ^ session ^ (version << 3)) as u8).collect()
}

impl Boxes {
    /// One session for each capacity, with three versions committed.
    fn new(capacities: &[usize]) -> Self {
        let total: usize = capacities.iter().map(|bytes| words_needed(*bytes)).sum();
        let memory = SealedMemory::create("boxes", total).unwrap();
        let all = memory.map().unwrap();
        let claim = AtomicU64::new(0);
        let mut offset = 0;
        let sessions = (1..).zip(capacities).map(|(session, bytes)| {
            let words = words_needed(*bytes);
            let mut state_box = StateBox::format(all.slice(offset..offset + words), &claim, session, 1).unwrap();
            for version in 1..=3 {
                state_box.commit(&payload(session, version, *bytes)).unwrap();
            }
            let mut record = EntityRecord::new("s", FailureLevel::Session, Nanos(1));
            record.session = session;
            record.state_box = Some(StateBoxLocation { offset: offset as u64, words: words as u64, claim: 0 });
            offset += words;
            SessionToRecover { slot: Slot(session as u32), record }
        });
        let sessions = sessions.collect();
        Boxes { memory, sessions }
    }

    fn transport(&self, depth: usize) -> ShmTransport {
        let mut transport = ShmTransport::new(depth);
        let words = ReadOnlyWords::open(self.memory.writable_fd(), self.memory.words()).unwrap();
        transport.add_read_only(KEY, words, Rights::READ).unwrap();
        transport
    }

    fn slice(&self) -> RemoteSlice {
        RemoteSlice { key: KEY, offset: 0, words: self.memory.words() as u64 }
    }
}

type Answers = BTreeMap<u64, Result<(u64, Vec<u8>), StateError>>;

/// Steps until all are answered, opening the channel again whenever it broke.
fn drive<T: Transport>(mut extraction: Extraction, transport: &mut T) -> (Answers, Extraction) {
    let mut answers = Answers::new();
    for _ in 0..100_000 {
        extraction.step(transport, &mut |session, state| {
            let state = state.map(|s| (s.committed.sequence, s.committed.payload.to_vec()));
            assert!(answers.insert(session.record.session, state).is_none(), "answered twice");
        });
        if extraction.is_done() {
            return (answers, extraction);
        }
        if transport.channel() == ChannelState::Broken {
            transport.reopen();
        }
    }
    panic!("an extraction that never ends: {answers:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_session_is_answered_once_and_truly(
        seed: u64,
        capacities in proptest::collection::vec(1usize..5000, 1..40),
        window in 0usize..8,
        depth in 3usize..12,
        whole_up_to_words in 0usize..800,
        faults in (0.0..0.1f64, 0.0..0.1f64, 0.0..0.3f64, 0.0..0.3f64),
    ) {
        let boxes = Boxes::new(&capacities);
        let options = FaultOptions {
            seed,
            unreachable_probability: faults.0,
            local_fault_probability: faults.1,
            corrupt_read_probability: faults.2,
            refused_post_probability: faults.3,
            ..FaultOptions::default()
        };
        let inner = FaultInjector::new(boxes.transport(depth), options).unwrap();
        let mut transport = Counting { inner, out: 0, most: 0 };
        let config = ExtractionConfig { window, whole_up_to_words, attempts: 6 };
        let extraction = Extraction::new(config, boxes.slice(), boxes.sessions.iter().copied());
        let (answers, extraction) = drive(extraction, &mut transport);
        prop_assert_eq!(answers.len(), capacities.len());
        for (session, answer) in answers {
            match answer {
                Ok((sequence, state)) => {
                    prop_assert_eq!(sequence, 3);
                    prop_assert_eq!(state, payload(session, sequence, capacities[session as usize - 1]));
                }
                Err(StateError::Transport(_) | StateError::StateBox(_) | StateError::NotPosted(_)) => {}
                Err(error) => prop_assert!(false, "session {}: {}", session, error),
            }
        }
        prop_assert!(transport.most <= window.max(1), "{} buffers for a window of {window}", transport.most);
        prop_assert_eq!(transport.out, 0, "buffers left behind");
        // A head and a payload for each attempt.
        prop_assert!(extraction.stats().reads <= 2 * 6 * capacities.len() as u64);
    }
}

#[test]
fn a_queue_with_less_room_than_the_window_only_takes_longer() {
    let boxes = Boxes::new(&[4000; 32]);
    let config = ExtractionConfig { window: 16, whole_up_to_words: 0, attempts: 1 };
    let extraction = Extraction::new(config, boxes.slice(), boxes.sessions.iter().copied());
    let (answers, _) = drive(extraction, &mut boxes.transport(1));
    assert!(answers.len() == 32 && answers.values().all(Result::is_ok));
}

#[test]
fn a_queue_that_never_takes_the_reads_is_an_error_and_no_endless_wait() {
    let boxes = Boxes::new(&[4000; 3]);
    let config = ExtractionConfig { whole_up_to_words: 0, ..ExtractionConfig::default() };
    let extraction = Extraction::new(config, boxes.slice(), boxes.sessions.iter().copied());
    let (answers, _) = drive(extraction, &mut boxes.transport(0));
    let refused = Err(StateError::NotPosted(PostError::QueueFull { depth: 0 }));
    assert!(answers.len() == 3 && answers.values().all(|answer| *answer == refused));
}

#[test]
fn beside_a_writer_that_never_rests_a_state_is_whole_or_missing() {
    const BYTES: usize = 16 << 10;
    let boxes = Boxes::new(&[BYTES]);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (stop, words) = (stop.clone(), boxes.memory.map().unwrap());
        move || {
            let claim = zeroed(1);
            let mut state_box = StateBox::resume(words, &claim[0]).unwrap();
            let mut version = 3;
            while !stop.load(Ordering::Relaxed) {
                version += 1;
                assert_eq!(state_box.commit(&payload(1, version, BYTES)), Ok(version));
            }
            version
        }
    });
    let (mut whole, mut torn, mut last) = (0, 0, 3);
    for round in 0..400 {
        let whole_up_to_words = if round % 2 == 0 { 0 } else { usize::MAX };
        let config = ExtractionConfig { whole_up_to_words, ..ExtractionConfig::default() };
        let extraction = Extraction::new(config, boxes.slice(), boxes.sessions.iter().copied());
        let (answers, extraction) = drive(extraction, &mut boxes.transport(4));
        assert!(extraction.stats().reads <= 2 * u64::from(config.attempts));
        match &answers[&1] {
            Ok((sequence, state)) => {
                assert!(*sequence >= last, "version {sequence} after {last}");
                assert_eq!(*state, payload(1, *sequence, BYTES));
                (whole, last) = (whole + 1, *sequence);
            }
            Err(StateError::StateBox(StateBoxError::NoWholeVersion { .. })) => torn += 1,
            Err(error) => panic!("{error}"),
        }
    }
    stop.store(true, Ordering::Relaxed);
    let versions = writer.join().unwrap();
    assert!(whole > 0, "no state in {torn} tries beside {versions} commits");
    let extraction = Extraction::new(ExtractionConfig::default(), boxes.slice(), boxes.sessions.iter().copied());
    let (answers, _) = drive(extraction, &mut boxes.transport(4));
    assert_eq!(answers[&1], Ok((versions, payload(1, versions, BYTES))), "once the writer rests");
}
