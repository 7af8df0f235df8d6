//! Reading the states of many sessions, against plain READs of the same bytes over the same transport: one READ of head
//! and payload, or of the whole State Box where the extraction reads that, since it is small. Either has buffers for its
//! own window, and gives them back.
//!
//! It is measured of states in memory, as after a service that was idle, and of states that still lie in the last-level
//! cache, where a READ costs hardly more than its check. The same is required of both.

use std::hint::black_box;
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU64;

use backdoor_core::Nanos;
use backdoor_core::progress_box::{EntityRecord, FailureLevel, Slot, StateBoxLocation};
use backdoor_core::recovery::{Extraction, ExtractionConfig, SessionToRecover};
use backdoor_core::state_box::{HEAD_WORDS, StateBox, words_needed};
use backdoor_core::transport::{
    Completion, LocalSlice, Operation, RegionKey, RemoteSlice, Rights, Transport, WorkId, WorkRequest,
};
use backdoor_transports::shm::{ReadOnlyWords, SealedMemory, ShmTransport};

use super::measure::{Ratio, Table, compare_prepared};

const STATES: RegionKey = RegionKey(1);
/// How many KiB of state, of how many sessions. The first three are more State Boxes than a last-level cache holds; the
/// others are more than a core's own caches hold, and less than the last-level cache.
const STATES_OF: [(usize, usize, &str); 5] =
    [(1, 64_000, ""), (4, 16_000, ""), (64, 1000, ""), (1, 1000, ", cached"), (4, 1000, ", cached")];

/// A node's State Boxes, all of the same size, full.
struct Node {
    states: ReadOnlyWords,
    memory: RemoteSlice,
    sessions: Vec<SessionToRecover>,
}

impl Node {
    fn new(state_bytes: usize, count: usize) -> Self {
        let words = words_needed(state_bytes);
        let memory = SealedMemory::create("states", count * words).expect("shared memory");
        let all = memory.map().expect("mapping");
        let state: Vec<u8> = (0..state_bytes).map(|i| i as u8).collect();
        let claim = AtomicU64::new(0);
        let sessions = (0..count).map(|number| {
            let (offset, session) = (number * words, number as u64 + 1);
            let place = all.slice(offset..offset + words);
            let mut state_box = StateBox::format(place, &claim, session, 1).expect("box");
            // The second version lies right behind the head.
            state_box.commit(&state).expect("commit");
            state_box.commit(&state).expect("commit");
            let mut record = EntityRecord::new("session", FailureLevel::Session, Nanos::from_secs(1));
            record.session = session;
            record.state_box = Some(StateBoxLocation { offset: offset as u64, words: words as u64, claim: 0 });
            SessionToRecover { slot: Slot(number as u32), record }
        });
        let sessions = sessions.collect();
        let fd = memory.read_only_fd().expect("descriptor");
        let states = ReadOnlyWords::open(fd.as_fd(), memory.words()).expect("mapping");
        let memory = RemoteSlice { key: STATES, offset: 0, words: memory.words() as u64 };
        Node { states, memory, sessions }
    }

    fn transport(&self) -> ShmTransport {
        let mut transport = ShmTransport::new(64);
        transport.add_read_only(STATES, self.states.clone(), Rights::READ).expect("a new key");
        transport
    }
}

pub(crate) fn extraction(table: &mut Table) {
    for (kib, count, place) in STATES_OF {
        let (what, ratio) = measure(kib, count);
        table.at_most(&format!("{what}{place}"), 2.0, &ratio);
    }
}

fn measure(kib: usize, count: usize) -> (String, Ratio) {
    let bytes = kib << 10;
    let node = Node::new(bytes, count);
    let (transport, mut plain) = (node.transport(), node.transport());
    let config = ExtractionConfig::default();
    let (window, whole) = (config.window, config.reads_whole(words_needed(bytes)));
    let words = if whole { words_needed(bytes) } else { HEAD_WORDS + bytes / 8 };
    let mut completions: Vec<Completion> = Vec::new();
    let ratio = compare_prepared(
        1,
        &mut (transport, None),
        // The sessions are listed by a recovery plan, and forgotten when they have been reinstated.
        |(_, extraction)| {
            let sessions = node.sessions.clone();
            *extraction = Some(Extraction::new(config, node.memory, sessions));
        },
        |(transport, extraction)| {
            let extraction = extraction.as_mut().expect("prepared");
            let mut found = 0;
            while !extraction.is_done() {
                extraction.step(transport, &mut |_, state| {
                    let payload = state.as_ref().map(|state| black_box(state.committed.payload));
                    found += usize::from(payload.is_ok_and(|payload| payload.len() == bytes));
                });
            }
            assert_eq!(found, count);
        },
        || {
            let buffers: Vec<_> = (0..window).map(|_| plain.allocate(words).expect("a buffer")).collect();
            for sessions in node.sessions.chunks(window) {
                for (session, buffer) in sessions.iter().zip(&buffers) {
                    let location = session.record.state_box.expect("it has one");
                    let from = node.memory.part(location.offset, words as u64).expect("it is there");
                    let into = LocalSlice { buffer: *buffer, offset: 0 };
                    let read = WorkRequest { id: WorkId(1), operation: Operation::Read { from, into } };
                    plain.post(&[read]).expect("room");
                }
                while completions.len() < sessions.len() {
                    plain.poll(&mut completions);
                }
                for buffer in &buffers {
                    black_box(plain.buffer(*buffer).expect("it is ours"));
                }
                completions.clear();
            }
            buffers.into_iter().for_each(|buffer| plain.release(buffer).expect("nothing is under way"));
        },
    );
    let read = if whole { "READs of boxes" } else { "READs of as much" };
    (format!("extraction of {count} states of {kib} KiB / {read}"), ratio)
}
