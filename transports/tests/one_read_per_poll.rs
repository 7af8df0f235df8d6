//! What a poll costs: one READ, whatever the number of entities.
#![cfg(target_os = "linux")]

use backdoor_core::Nanos;
use backdoor_core::hook_table::{Hook, Purpose, hook_table_words, write_hook_table};
use backdoor_core::monitor::{Monitor, MonitorConfig};
use backdoor_core::progress_box::{Counter, EntityRecord, FailureLevel, Geometry, ProgressBox};
use backdoor_core::transport::{RegionKey, Rights};
use backdoor_transports::Tracer;
use backdoor_transports::shm::{SealedMemory, ShmTransport};

const ENTITIES: usize = 4096;

#[test]
fn a_poll_of_4096_entities_is_one_read() {
    let geometry = Geometry::new(ENTITIES, 8).unwrap();
    let memory = |words| SealedMemory::create("one-read", words).unwrap().map().unwrap();
    let (table, progress) = (memory(hook_table_words(1)), memory(geometry.total_words()));
    let keys = (RegionKey(1), RegionKey(2));
    let hook = Hook::whole_region(1, Purpose::Monitoring, Rights::READ, keys.1, progress.len());
    write_hook_table(&table, 7, &[hook]).unwrap();
    let mut progress_box = ProgressBox::format(progress.clone(), geometry, 7).unwrap();
    let record = EntityRecord::new("session", FailureLevel::Session, Nanos::from_secs(1));
    let slots: Vec<_> = (0..ENTITIES).map(|_| progress_box.add(record).unwrap()).collect();
    let mut transport = ShmTransport::new(16);
    transport.add_shared(keys.0, table, Rights::READ).unwrap();
    transport.add_shared(keys.1, progress, Rights::READ).unwrap();
    let mut transport = Tracer::new(transport);

    let mut monitor = Monitor::by_deadline(MonitorConfig::polling_every(Nanos::from_millis(1)), keys.0);
    let mut events = Vec::new();
    let mut now = Nanos::ZERO;
    while monitor.entities().count() < ENTITIES {
        monitor.step(now, &mut transport, &mut events);
        now += Nanos::from_millis(1);
        assert!(now < Nanos::from_secs(1), "the monitor does not find them all");
    }
    transport.take_counts();
    let samples = monitor.stats().samples;
    for _ in 0..100 {
        slots.iter().for_each(|slot| Counter::resume(progress_box.liveness_word(*slot)).advance());
        monitor.step(now, &mut transport, &mut events);
        now += Nanos::from_millis(1);
    }
    let polls = monitor.stats().samples - samples;
    let counts = transport.take_counts();
    assert!(polls >= 99, "{polls} polls");
    assert_eq!((counts.reads.done, counts.errors.total()), (polls, 0), "{counts:?}");
    assert_eq!((counts.writes.posted, counts.compare_swaps.posted), (0, 0), "{counts:?}");
}
