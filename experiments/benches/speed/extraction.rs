//! Reading the states of many sessions, against plain READs of the same bytes over the same transport: of the committed
//! payloads, or of whole State Boxes where the extraction reads these, since they are small.

use std::hint::black_box;
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU64;

use backdoor_core::Nanos;
use backdoor_core::progress_box::{EntityRecord, FailureLevel, Slot, StateBoxLocation};
use backdoor_core::recovery::{Extraction, ExtractionConfig, SessionToRecover};
use backdoor_core::state_box::{StateBox, words_needed};
use backdoor_core::transport::{
    Completion, LocalSlice, Operation, RegionKey, RemoteSlice, Rights, Transport, WorkId, WorkRequest,
};
use backdoor_transports::shm::{ReadOnlyWords, SealedMemory, ShmTransport};

use super::measure::{Table, compare};

const STATES: RegionKey = RegionKey(1);
/// Sessions, whose State Boxes are more than a core's own caches hold.
const SESSIONS: usize = 1000;

/// A node's State Boxes, all of the same size, full.
struct Node {
    transport: ShmTransport,
    memory: RemoteSlice,
    sessions: Vec<SessionToRecover>,
}

impl Node {
    fn new(state_bytes: usize) -> Self {
        let words = words_needed(state_bytes);
        let memory = SealedMemory::create("states", SESSIONS * words).expect("shared memory");
        let all = memory.map().expect("mapping");
        let state: Vec<u8> = (0..state_bytes).map(|i| i as u8).collect();
        let claim = AtomicU64::new(0);
        let sessions = (0..SESSIONS).map(|number| {
            let (offset, session) = (number * words, number as u64 + 1);
            let place = all.slice(offset..offset + words);
            let mut state_box = StateBox::format(place, &claim, session, 1).expect("box");
            state_box.commit(&state).expect("commit");
            let mut record = EntityRecord::new("session", FailureLevel::Session, Nanos::from_secs(1));
            record.session = session;
            record.state_box = Some(StateBoxLocation { offset: offset as u64, words: words as u64, claim: 0 });
            SessionToRecover { slot: Slot(number as u32), record }
        });
        let sessions = sessions.collect();
        let mut transport = ShmTransport::new(64);
        let fd = memory.read_only_fd().expect("descriptor");
        let words = ReadOnlyWords::open(fd.as_fd(), memory.words()).expect("mapping");
        transport.add_read_only(STATES, words, Rights::READ).expect("a new key");
        let memory = RemoteSlice { key: STATES, offset: 0, words: memory.words() as u64 };
        Node { transport, memory, sessions }
    }
}

pub(crate) fn extraction(table: &mut Table) {
    for kib in [1usize, 4, 64] {
        let bytes = kib << 10;
        let (mut node, mut plain) = (Node::new(bytes), Node::new(bytes));
        let ExtractionConfig { window, whole_up_to_words, .. } = ExtractionConfig::default();
        let whole = words_needed(bytes) <= whole_up_to_words;
        let words = if whole { words_needed(bytes) } else { bytes / 8 };
        let buffers: Vec<_> = (0..window).map(|_| plain.transport.allocate(words).expect("a buffer")).collect();
        let mut completions: Vec<Completion> = Vec::new();
        let ratio = compare(
            1,
            || {
                let mut extraction =
                    Extraction::new(ExtractionConfig::default(), node.memory, node.sessions.iter().copied());
                let mut found = 0;
                while !extraction.is_done() {
                    extraction.step(&mut node.transport, &mut |_, state| {
                        let payload = state.as_ref().map(|state| black_box(state.committed.payload));
                        found += usize::from(payload.is_ok_and(|payload| payload.len() == bytes));
                    });
                }
                assert_eq!(found, SESSIONS);
            },
            || {
                for sessions in plain.sessions.chunks(window) {
                    for (session, buffer) in sessions.iter().zip(&buffers) {
                        let location = session.record.state_box.expect("it has one");
                        let from = plain.memory.part(location.offset, words as u64).expect("it is there");
                        let into = LocalSlice { buffer: *buffer, offset: 0 };
                        let read = WorkRequest { id: WorkId(1), operation: Operation::Read { from, into } };
                        plain.transport.post(&[read]).expect("room");
                    }
                    while completions.len() < sessions.len() {
                        plain.transport.poll(&mut completions);
                    }
                    for buffer in &buffers {
                        black_box(plain.transport.buffer(*buffer).expect("it is ours"));
                    }
                    completions.clear();
                }
            },
        );
        let read = if whole { "READs of their boxes" } else { "READs" };
        table.at_most(&format!("extraction of {SESSIONS} states of {kib} KiB / {read}"), 2.0, &ratio);
    }
}
