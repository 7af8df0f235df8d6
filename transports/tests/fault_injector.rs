//! The fault injector does what its options say, and whatever they say, the rules of a transport hold.

use std::sync::Arc;

use backdoor_core::Nanos;
use backdoor_core::transport::{
    BufferId, ChannelState, Completion, Done, LocalSlice, Operation, PostError, RegionKey, RemoteSlice, Rights,
    Transport, TransportError, WorkId, WorkRequest,
};
use backdoor_core::words::{AtomicU64, Ordering, zeroed};
use backdoor_transports::FaultInjector;
use backdoor_transports::fault_injector::{Fault, FaultOptions, ScheduledFault};
use backdoor_transports::sim_nic::{Leg, Path, SimChannel, SimNicConfig, SimNode, Transit};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// Loses some messages, delays the others.
#[derive(Debug)]
struct Weather {
    random: Xoshiro256PlusPlus,
    loss: f64,
}

impl Path for Weather {
    fn one_way(&mut self, _: Leg, _: Nanos, _: u64) -> Transit {
        let delay = Nanos(self.random.random_range(500..50_000));
        if self.random.random_bool(self.loss) { Transit::Lost } else { Transit::ArrivesAfter(delay) }
    }
}

struct Setting {
    memory: Arc<[AtomicU64]>,
    key: RegionKey,
    transport: FaultInjector<SimChannel<Weather>>,
    buffer: BufferId,
    next_id: u64,
}

impl Setting {
    fn new(loss: f64, options: FaultOptions) -> Self {
        let node = SimNode::new();
        let memory: Arc<[AtomicU64]> = zeroed(4).into();
        let key = node.register(memory.clone(), Rights::READ | Rights::WRITE).unwrap();
        let config =
            SimNicConfig { retransmit_after: Nanos::from_micros(200), queue_depth: 16, ..SimNicConfig::default() };
        let path = Weather { random: Xoshiro256PlusPlus::seed_from_u64(options.seed), loss };
        let mut transport = FaultInjector::new(SimChannel::connect(&node, path, config).unwrap(), options).unwrap();
        let buffer = transport.allocate(4).unwrap();
        Setting { memory, key, transport, buffer, next_id: 0 }
    }

    fn slice(&self) -> RemoteSlice {
        RemoteSlice { key: self.key, offset: 0, words: 4 }
    }

    fn post(&mut self, operation: Operation) -> Result<WorkId, PostError> {
        let id = WorkId(self.next_id);
        self.next_id += 1;
        self.transport.post(&[WorkRequest { id, operation }]).map(|()| id)
    }

    /// Everything up to the next completions; `None` if nothing is under way.
    fn advance(&mut self) -> Option<Vec<Completion>> {
        let at = self.transport.inner().next_event()?;
        self.transport.inner_mut().advance_to(at);
        let mut completions = Vec::new();
        self.transport.poll(&mut completions);
        Some(completions)
    }

    fn all(&mut self) -> Vec<Completion> {
        std::iter::from_fn(|| self.advance()).flatten().collect()
    }

    /// One READ alone: how it ended, and what the buffer then holds.
    fn read(&mut self) -> (Result<Done, TransportError>, Vec<u64>) {
        self.post(Operation::Read { from: self.slice(), into: LocalSlice::start_of(self.buffer) }).unwrap();
        let completions = self.all();
        assert_eq!(completions.len(), 1);
        (completions[0].result, self.transport.buffer(self.buffer).unwrap().to_vec())
    }

    fn reopen(&mut self) {
        self.transport.reopen();
        assert_eq!(self.all(), []);
        assert_eq!(self.transport.channel(), ChannelState::Open);
    }
}

fn scheduled(fault: Fault, operations: std::ops::Range<u64>) -> FaultOptions {
    FaultOptions { schedule: vec![ScheduledFault { operations, fault }], ..FaultOptions::default() }
}

#[test]
fn an_injected_error_breaks_the_channel_and_flushes_what_is_behind() {
    for (fault, error) in [
        (Fault::Refused, TransportError::Refused),
        (Fault::Unreachable, TransportError::Unreachable),
        (Fault::LocalFault, TransportError::LocalFault),
    ] {
        let mut setting = Setting::new(0.0, scheduled(fault, 1..2));
        let read = Operation::Read { from: setting.slice(), into: LocalSlice::start_of(setting.buffer) };
        for _ in 0..4 {
            setting.post(read).unwrap();
        }
        let endings: Vec<_> = setting.all().iter().map(|completion| completion.result).collect();
        assert_eq!(
            endings,
            [Ok(Done::Read), Err(error), Err(TransportError::Flushed), Err(TransportError::Flushed)],
            "{fault:?}"
        );
        assert_eq!(setting.transport.channel(), ChannelState::Broken);
        assert_eq!(setting.post(read), Err(PostError::NotOpen));
        setting.reopen();
        assert_eq!(setting.read().0, Ok(Done::Read));
        assert_eq!(setting.transport.injected(), 1);
    }
}

#[test]
fn a_refused_write_is_not_executed() {
    let mut setting = Setting::new(0.0, scheduled(Fault::Refused, 0..1));
    setting.transport.buffer_mut(setting.buffer).unwrap().fill(9);
    let write = Operation::Write { from: LocalSlice::start_of(setting.buffer), to: setting.slice() };
    setting.post(write).unwrap();
    setting.post(write).unwrap();
    setting.all();
    assert!(setting.memory.iter().all(|word| word.load(Ordering::Relaxed) == 0));
}

#[test]
fn corrupt_data_differs_in_as_many_bits_as_told() {
    let mut setting = Setting::new(0.0, scheduled(Fault::CorruptRead, 1..2));
    let ones = |words: &[u64]| words.iter().map(|word| word.count_ones()).sum::<u32>();
    assert_eq!(setting.read(), (Ok(Done::Read), vec![0; 4]));
    let (ending, words) = setting.read();
    assert_eq!((ending, ones(&words)), (Ok(Done::Read), 1));
    assert_eq!(setting.read(), (Ok(Done::Read), vec![0; 4]));
}

#[test]
fn replayed_data_stays_what_it_was_when_the_replay_began() {
    let mut setting = Setting::new(0.0, scheduled(Fault::StaleRead, 2..5));
    let brought: Vec<u64> = (1..=7)
        .map(|value| {
            setting.memory[3].store(value, Ordering::Relaxed);
            setting.read().1[3]
        })
        .collect();
    assert_eq!(brought, [1, 2, 2, 2, 2, 6, 7]);
}

/// Random work over a lossy network under every fault, with reopenings at any time: what came of it.
fn chaos(seed: u64) -> Vec<Completion> {
    let options = FaultOptions {
        seed,
        refused_probability: 0.02,
        unreachable_probability: 0.02,
        local_fault_probability: 0.02,
        corrupt_read_probability: 0.05,
        stale_read_probability: 0.05,
        refused_post_probability: 0.05,
        ..FaultOptions::default()
    };
    let mut setting = Setting::new(0.1, options);
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed + 1);
    let (mut taken, mut completions) = (Vec::new(), Vec::new());
    for _ in 0..1000 {
        match random.random_range(0..10) {
            0..5 => {
                let read = Operation::Read { from: setting.slice(), into: LocalSlice::start_of(setting.buffer) };
                let write = Operation::Write { from: LocalSlice::start_of(setting.buffer), to: setting.slice() };
                let operation = if random.random_bool(0.8) { read } else { write };
                let broken = setting.transport.channel() != ChannelState::Open;
                match setting.post(operation) {
                    Ok(id) => taken.push(id),
                    Err(error) => assert!(broken || matches!(error, PostError::QueueFull { .. }), "{error}"),
                }
            }
            5..9 => completions.extend(setting.advance().unwrap_or_default()),
            _ if random.random_bool(0.1) || setting.transport.channel() == ChannelState::Broken => {
                setting.transport.reopen();
            }
            _ => {}
        }
        let under_way = taken.len() > completions.len();
        assert_eq!(
            setting.transport.buffer(setting.buffer).is_err(),
            under_way,
            "the buffer is held by work under way"
        );
    }
    completions.extend(setting.all());
    let ids: Vec<_> = completions.iter().map(|completion| completion.id).collect();
    assert_eq!(ids, taken, "each operation completes once, in the order of posting");
    assert!(setting.transport.injected() > 0);
    completions
}

#[test]
fn whatever_goes_wrong_everything_completes_once_and_in_order() {
    let mut done = 0;
    for seed in 0..100 {
        let completions = chaos(seed);
        done += completions.iter().filter(|completion| completion.result.is_ok()).count();
        assert_eq!(completions, chaos(seed), "the same seed brings the same");
    }
    assert!(done > 1000, "only {done} operations ended well: too much chaos to prove anything");
}
