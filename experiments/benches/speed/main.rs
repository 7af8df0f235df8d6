//! How fast the parts are, each as a ratio to a baseline measured in the same run. `cargo bench -p
//! backdoor-experiments --bench speed`, with `-- GROUP ...` only these groups; ends with exit code 1 if a ratio is worse
//! than required.
//!
//! Absolute times vary with the machine; the ratios are what is required.

mod detectors;
mod extraction;
mod measure;

use std::hint::black_box;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use backdoor_core::Nanos;
use backdoor_core::detector::DeadlineDetector;
use backdoor_core::hook_table::{Hook, Purpose, hook_table_words, write_hook_table};
use backdoor_core::monitor::{Monitor, MonitorConfig};
use backdoor_core::progress_box::{Counter, EntityRecord, FailureLevel, Geometry, ProgressBox};
use backdoor_core::state_box::{StateBox, words_needed};
use backdoor_core::transport::{RegionKey, Rights};
use backdoor_sim::engine::workload::{Workload, compare as compare_engines};
use backdoor_sim::metrics::cost::sweep_cost;
use backdoor_transports::shm::{ReadOnlyWords, SealedMemory, SharedWords, ShmTransport};
use measure::{Table, compare, compare_prepared};
use twox_hash::XxHash3_64;

type Group = (&'static str, fn(&mut Table));

const GROUPS: [Group; 7] = [
    ("counter", progress_counter),
    ("poll", poll),
    ("commit", state_box),
    ("extraction", extraction::extraction),
    ("engine", event_engine),
    ("deadlines", deadlines),
    ("detectors", detectors::detectors),
];

fn main() -> ExitCode {
    // Cargo says `--bench`.
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if let Some(unknown) = asked.iter().find(|asked| GROUPS.iter().all(|(name, _)| name != asked)) {
        eprintln!("there is no group {unknown}, only {}", GROUPS.map(|(name, _)| name).join(", "));
        return ExitCode::from(2);
    }
    let mut table = Table::new();
    for (name, run) in GROUPS {
        if asked.is_empty() || asked.iter().any(|asked| asked == name) {
            run(&mut table);
        }
    }
    table.finish()
}

/// One update of a progress counter in shared memory, against one relaxed store to the same memory.
fn progress_counter(table: &mut Table) {
    let memory = SealedMemory::create("bench", 64).expect("shared memory");
    let words = memory.map().expect("mapping");
    let mut counter = Counter::resume(words.word(8));
    let word = words.word(16);
    let mut value = 0u64;
    let ratio = compare(
        200_000,
        || {
            counter.advance();
            black_box(&counter);
        },
        || {
            value = value.wrapping_add(4);
            word.store(value, Ordering::Relaxed);
            black_box(&word);
        },
    );
    table.at_most("progress counter update / relaxed store", 2.0, &ratio);
}

const ENTITIES: usize = 4096;

/// A node of 4096 entities in shared memory, and its monitor.
struct Node {
    liveness: SharedWords,
    transport: ShmTransport,
    monitor: Monitor<DeadlineDetector>,
    now: Nanos,
}

impl Node {
    fn new() -> Self {
        let geometry = Geometry::new(ENTITIES, 0).expect("geometry");
        let table_words = hook_table_words(1);
        let (table, memory) = (
            SealedMemory::create("hooks", table_words).expect("shared memory"),
            SealedMemory::create("box", geometry.total_words()).expect("shared memory"),
        );
        let hook = Hook::whole_region(1, Purpose::Monitoring, Rights::READ, RegionKey(2), geometry.total_words());
        write_hook_table(&table.map().expect("mapping"), 1, &[hook]).expect("hook table");
        let words = memory.map().expect("mapping");
        let mut progress_box = ProgressBox::format(words.clone(), geometry, 1).expect("box");
        for entity in 0..ENTITIES {
            let name = format!("entity {entity}");
            let record = EntityRecord::new(&name, FailureLevel::Application, Nanos::from_secs(1));
            let slot = progress_box.add(record).expect("room");
            Counter::resume(progress_box.liveness_word(slot)).advance();
        }
        let mut transport = ShmTransport::new(16);
        for (key, memory) in [(1, &table), (2, &memory)] {
            let fd = memory.read_only_fd().expect("descriptor");
            let words = ReadOnlyWords::open(fd.as_fd(), memory.words()).expect("mapping");
            transport.add_read_only(RegionKey(key), words, Rights::READ).expect("a new key");
        }
        let monitor = Monitor::by_deadline(MonitorConfig::polling_every(Nanos::from_millis(1)), RegionKey(1));
        let mut node = Node { liveness: words.slice(geometry.liveness()), transport, monitor, now: Nanos::ZERO };
        (0..10).for_each(|_| node.poll());
        assert_eq!(node.monitor.entities().count(), ENTITIES, "all entities are watched");
        node
    }

    fn poll(&mut self) {
        let mut events = Vec::new();
        self.now += Nanos::from_millis(1);
        self.monitor.step(self.now, &mut self.transport, &mut events);
        black_box(&events);
    }

    /// Moves every counter on, as its entity would.
    fn progress(&self) {
        for word in self.liveness.iter() {
            word.store(word.load(Ordering::Relaxed) + 4, Ordering::Relaxed);
        }
    }
}

/// One poll of 4096 liveness words, from posting to verdicts, against copying as many bytes.
fn poll(table: &mut Table) {
    let source = vec![1u64; ENTITIES];
    let mut target = vec![0u64; ENTITIES];
    let mut copy = || {
        target.copy_from_slice(black_box(&source));
        black_box(&target);
    };
    let mut node = Node::new();
    let unchanged = compare(200, || node.poll(), &mut copy);
    table.at_most("poll of 4096 words, nothing changed / copy of 32 KiB", 4.0, &unchanged);
    let changed = compare_prepared(100, &mut node, |node| node.progress(), Node::poll, &mut copy);
    table.at_most("poll of 4096 words, all changed / copy of 32 KiB", 8.0, &changed);
}

/// A commit, against one copy of the same bytes and one XXH3 of them, by the library.
fn state_box(table: &mut Table) {
    for kib in [1usize, 64] {
        let bytes = kib << 10;
        let memory = SealedMemory::create("state", words_needed(bytes)).expect("shared memory");
        let claim = AtomicU64::new(0);
        let mut state_box = StateBox::format(memory.map().expect("mapping"), &claim, 1, 1).expect("box");
        let state: Vec<u8> = (0..bytes).map(|i| i as u8).collect();
        let mut copy = vec![0u8; bytes];
        let ratio = compare(
            (200_000 / bytes.max(1000)).max(10) as u32,
            || {
                black_box(state_box.commit(black_box(&state)).expect("commit"));
            },
            || {
                copy.copy_from_slice(black_box(&state));
                black_box(XxHash3_64::oneshot(&copy));
            },
        );
        table.at_most(&format!("State Box commit of {kib} KiB / copy and checksum"), 2.0, &ratio);
    }
}

/// Events per second of the calendar queue, against a plain binary heap.
fn event_engine(table: &mut Table) {
    let comparison = compare_engines(&Workload::default(), 7);
    table.at_least(
        "event engine, 2,000,000 events / binary heap (times faster)",
        2.0,
        1e9 / comparison.engine_events_per_s(),
        1e9 / comparison.heap_events_per_s(),
        comparison.speedup(),
    );
}

/// Simulating once and judging 100 deadlines, against judging one.
fn deadlines(table: &mut Table) {
    let cost = sweep_cost(11);
    let ratio = cost.ratio();
    table.at_most_of(
        "a sweep over 100 deadlines / over one",
        1.5,
        (cost.run_s + cost.hundred_s) * 1e9,
        (cost.run_s + cost.one_s) * 1e9,
        ratio,
    );
}
