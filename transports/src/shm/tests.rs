//! The shared-memory transport against the rules of the trait that need its memory at hand, and what a READ costs.

use std::hint::black_box;
use std::time::Instant;

use backdoor_core::transport::{
    BufferId, Completion, Done, LocalSlice, Operation, PostError, RegionKey, RemoteSlice, Rights, Transport,
    TransportError, WorkId, WorkRequest,
};
use backdoor_core::words::Ordering;

use super::{ReadOnlyWords, RegionError, SealedMemory, SharedWords, ShmTransport};

const BOXES: RegionKey = RegionKey(1);
const CLAIMS: RegionKey = RegionKey(2);
const REPAIR: RegionKey = RegionKey(3);

/// Boxes read-only, claims for READ and COMPARE_SWAP, repair for WRITE; 16 words each, holding their own index.
fn node() -> (ShmTransport, SharedWords, SharedWords, SharedWords) {
    let make = || {
        let memory = SealedMemory::create("node", 16).unwrap();
        let words = memory.map().unwrap();
        for (index, word) in words.iter().enumerate() {
            word.store(index as u64, Ordering::Relaxed);
        }
        (memory, words)
    };
    let ((boxes, a), (_, b), (_, c)) = (make(), make(), make());
    let mut transport = ShmTransport::new(4);
    let read_only = ReadOnlyWords::open(boxes.writable_fd(), 16).unwrap();
    transport.add_read_only(BOXES, read_only, Rights::READ).unwrap();
    transport.add_shared(CLAIMS, b.clone(), Rights::READ | Rights::COMPARE_SWAP).unwrap();
    transport.add_shared(REPAIR, c.clone(), Rights::WRITE).unwrap();
    (transport, a, b, c)
}

fn read(id: u64, key: RegionKey, offset: u64, words: u64, buffer: BufferId) -> WorkRequest {
    let operation = Operation::Read { from: RemoteSlice { key, offset, words }, into: LocalSlice::start_of(buffer) };
    WorkRequest { id: WorkId(id), operation }
}

fn write(id: u64, key: RegionKey, offset: u64, words: u64, buffer: BufferId) -> WorkRequest {
    let operation = Operation::Write { from: LocalSlice::start_of(buffer), to: RemoteSlice { key, offset, words } };
    WorkRequest { id: WorkId(id), operation }
}

fn swap(id: u64, key: RegionKey, offset: u64, expected: u64, new: u64) -> WorkRequest {
    WorkRequest { id: WorkId(id), operation: Operation::CompareSwap { key, offset, expected, new } }
}

/// Posts one at a time and answers what came of it.
fn run(transport: &mut ShmTransport, work: WorkRequest) -> Result<Done, TransportError> {
    transport.post(&[work]).unwrap();
    let mut completions = Vec::new();
    transport.poll(&mut completions);
    let [Completion { id, result }] = completions[..] else { panic!("{completions:?}") };
    assert_eq!(id, work.id);
    result
}

#[test]
fn operations_do_what_they_say() {
    let (mut transport, _, claims, repair) = node();
    let buffer = transport.allocate(8).unwrap();
    assert_eq!(run(&mut transport, read(1, BOXES, 3, 4, buffer)), Ok(Done::Read));
    assert_eq!(transport.buffer(buffer).unwrap(), [3, 4, 5, 6, 0, 0, 0, 0]);
    assert_eq!(run(&mut transport, write(2, REPAIR, 10, 2, buffer)), Ok(Done::Written));
    assert_eq!([9, 10, 11, 12].map(|i: usize| repair[i].load(Ordering::Relaxed)), [9, 3, 4, 12]);
    assert_eq!(run(&mut transport, swap(3, CLAIMS, 7, 7, 70)), Ok(Done::CompareSwapped { previous: 7 }));
    assert_eq!(run(&mut transport, swap(4, CLAIMS, 7, 7, 71)), Ok(Done::CompareSwapped { previous: 70 }));
    assert_eq!(claims[7].load(Ordering::Relaxed), 70);
}

#[test]
fn rights_and_bounds_are_kept_apart() {
    let (mut transport, boxes, ..) = node();
    let buffer = transport.allocate(32).unwrap();
    let refused = [
        write(1, BOXES, 0, 1, buffer),
        swap(2, BOXES, 0, 0, 1),
        read(3, REPAIR, 0, 1, buffer),
        swap(4, REPAIR, 0, 0, 1),
        write(5, CLAIMS, 0, 1, buffer),
        read(6, RegionKey(9), 0, 1, buffer),
        // Without the right, nothing is told about the bounds.
        write(7, BOXES, 99, 1, buffer),
    ];
    for work in refused {
        assert_eq!(run(&mut transport, work), Err(TransportError::Refused), "{work:?}");
    }
    let outside = [
        read(1, BOXES, 0, 17, buffer),
        read(2, BOXES, 17, 0, buffer),
        read(3, BOXES, u64::MAX, 2, buffer),
        write(4, REPAIR, 16, 1, buffer),
        swap(5, CLAIMS, 16, 0, 1),
        swap(6, CLAIMS, u64::MAX, 0, 1),
    ];
    for work in outside {
        assert_eq!(run(&mut transport, work), Err(TransportError::OutOfBounds), "{work:?}");
    }
    assert_eq!(run(&mut transport, read(7, BOXES, 16, 0, buffer)), Ok(Done::Read), "an error breaks nothing");
    assert_eq!(boxes[0].load(Ordering::Relaxed), 0);
}

#[test]
fn a_buffer_under_way_is_out_of_reach() {
    let (mut transport, ..) = node();
    let buffer = transport.allocate(8).unwrap();
    transport.post(&[read(1, BOXES, 0, 8, buffer)]).unwrap();
    let in_use = PostError::Buffer { buffer: buffer.0 };
    assert_eq!(transport.buffer(buffer), Err(in_use));
    assert_eq!(transport.buffer_mut(buffer), Err(in_use));
    assert_eq!(transport.release(buffer), Err(in_use));
    transport.poll(&mut Vec::new());
    assert!(transport.buffer(buffer).is_ok());
    transport.release(buffer).unwrap();
    assert_eq!(transport.release(buffer), Err(in_use));
    assert_eq!(transport.post(&[read(2, BOXES, 0, 1, buffer)]), Err(in_use));
}

#[test]
fn a_batch_is_taken_whole_or_not_at_all() {
    let (mut transport, ..) = node();
    let buffer = transport.allocate(8).unwrap();
    let error = transport.post(&[read(1, BOXES, 0, 8, buffer), read(2, BOXES, 0, 9, buffer)]);
    assert_eq!(error, Err(PostError::Buffer { buffer: buffer.0 }));
    transport.post(&[read(3, BOXES, 0, 1, buffer); 3]).unwrap();
    assert_eq!(transport.post(&[read(4, BOXES, 0, 1, buffer); 2]), Err(PostError::QueueFull { depth: 4 }));
    transport.post(&[swap(5, CLAIMS, 0, 0, 9)]).unwrap();
    let mut completions = Vec::new();
    transport.poll(&mut completions);
    assert_eq!(completions.iter().map(|c| c.id.0).collect::<Vec<_>>(), [3, 3, 3, 5]);
    assert!(transport.buffer(buffer).is_ok());
    transport.post(&[read(6, BOXES, 0, 1, buffer); 4]).unwrap();
}

#[test]
fn too_large_a_buffer_is_an_error() {
    let (mut transport, ..) = node();
    assert_eq!(transport.allocate(usize::MAX), Err(PostError::OutOfMemory { words: usize::MAX }));
}

#[test]
fn regions_that_can_not_be_are_refused() {
    let (mut transport, ..) = node();
    let memory = SealedMemory::create("more", 8).unwrap();
    let words = || ReadOnlyWords::open(memory.writable_fd(), 8).unwrap();
    assert_eq!(transport.add_read_only(BOXES, words(), Rights::READ), Err(RegionError::KeyTaken(1)));
    let rights = Rights::READ | Rights::WRITE;
    assert_eq!(transport.add_read_only(RegionKey(8), words(), rights), Err(RegionError::ReadOnly(rights)));
    assert_eq!(transport.region_words(BOXES), Some(16));
}

/// A measurement, not a test: `cargo test --release -p backdoor-transports read_cost -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn read_cost() {
    const WORDS: usize = 4096;
    let memory = SealedMemory::create("measured", WORDS).unwrap();
    let words = ReadOnlyWords::open(memory.writable_fd(), WORDS).unwrap();
    let mut transport = ShmTransport::new(4);
    transport.add_read_only(BOXES, words, Rights::READ).unwrap();
    let buffer = transport.allocate(WORDS).unwrap();
    let work = [read(1, BOXES, 0, WORDS as u64, buffer)];
    let (from, mut into) = (vec![1u64; WORDS], vec![0u64; WORDS]);
    let mut completions = Vec::with_capacity(1);
    let mut best = [u128::MAX; 2];
    for _ in 0..20_000 {
        let start = Instant::now();
        black_box(&mut into[..]).copy_from_slice(black_box(&from));
        best[0] = best[0].min(start.elapsed().as_nanos());
        let start = Instant::now();
        transport.post(black_box(&work)).unwrap();
        transport.poll(&mut completions);
        black_box(transport.buffer(buffer).unwrap());
        best[1] = best[1].min(start.elapsed().as_nanos());
        completions.clear();
    }
    let ratio = best[1] as f64 / best[0] as f64;
    println!("memcpy of 32 KiB: {} ns; READ of 4096 words: {} ns; {ratio:.2} times", best[0], best[1]);
}
