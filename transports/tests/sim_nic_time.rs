//! When things happen on the simulated NIC: the instants are exact, so they are compared exactly.

use std::sync::Arc;

use backdoor_core::Nanos;
use backdoor_core::transport::{
    BufferId, ChannelState, Completion, Done, LocalSlice, Operation, RegionKey, RemoteSlice, Rights, Transport,
    TransportError, WorkId, WorkRequest,
};
use backdoor_core::words::{AtomicU64, Ordering, zeroed};
use backdoor_transports::sim_nic::{Leg, Path, SimChannel, SimNicConfig, SimNode, Transit};

const US: Nanos = Nanos(1_000);
const ONE_WAY: Nanos = Nanos(2_000);

/// Loses the messages whose numbers are given, counted from 0 in the order in which they leave.
#[derive(Debug, Default)]
struct Losing {
    lost: Vec<usize>,
    sent: usize,
}

impl Path for Losing {
    fn one_way(&mut self, _: Leg, _: Nanos, _: u64) -> Transit {
        self.sent += 1;
        if self.lost.contains(&(self.sent - 1)) { Transit::Lost } else { Transit::ArrivesAfter(ONE_WAY) }
    }
}

struct Setting {
    node: SimNode,
    memory: Arc<[AtomicU64]>,
    key: RegionKey,
    channel: SimChannel<Losing>,
    buffer: BufferId,
}

/// 16 words at a time, 1 µs apart; gives up after 4 times 100 µs.
fn setting(lost: &[usize]) -> Setting {
    let config = SimNicConfig {
        chunk_words: 16,
        chunk_interval: US,
        retransmit_after: US * 100,
        retries: 3,
        connect_time: US * 50,
        ..SimNicConfig::default()
    };
    let node = SimNode::new();
    let memory: Arc<[AtomicU64]> = zeroed(64).into();
    let rights = Rights::READ | Rights::WRITE | Rights::COMPARE_SWAP;
    let key = node.register(memory.clone(), rights).unwrap();
    let mut channel = SimChannel::connect(&node, Losing { lost: lost.to_vec(), sent: 0 }, config).unwrap();
    let buffer = channel.allocate(64).unwrap();
    Setting { node, memory, key, channel, buffer }
}

impl Setting {
    fn slice(&self, words: u64) -> RemoteSlice {
        RemoteSlice { key: self.key, offset: 0, words }
    }
    fn read(&self, words: u64) -> Operation {
        Operation::Read { from: self.slice(words), into: LocalSlice::start_of(self.buffer) }
    }
    fn post(&mut self, operations: &[Operation]) {
        let numbered = (0..).zip(operations);
        let batch: Vec<_> = numbered.map(|(id, op)| WorkRequest { id: WorkId(id), operation: *op }).collect();
        self.channel.post(&batch).unwrap();
    }
    /// Everything up to the end; when each completion came.
    fn run(&mut self) -> Vec<(Nanos, Result<Done, TransportError>)> {
        let (mut endings, mut completions) = (Vec::new(), Vec::<Completion>::new());
        while let Some(at) = self.channel.next_event() {
            self.channel.advance_to(at);
            self.channel.poll(&mut completions);
            endings.extend(completions.drain(..).map(|completion| (at, completion.result)));
        }
        endings
    }
    fn store_all(&self, value: u64) {
        self.memory.iter().for_each(|word| word.store(value, Ordering::Relaxed));
    }
}

const UNREACHABLE: Result<Done, TransportError> = Err(TransportError::Unreachable);
const FLUSHED: Result<Done, TransportError> = Err(TransportError::Flushed);

#[test]
fn a_read_samples_each_chunk_when_its_turn_comes() {
    let mut setting = setting(&[]);
    setting.post(&[setting.read(64)]);
    for (at, value) in [(1_999, 1), (2_500, 2), (3_500, 3), (4_500, 4), (5_500, 5)] {
        setting.channel.advance_to(Nanos(at));
        setting.store_all(value);
    }
    assert_eq!(setting.run(), [(Nanos(7_000), Ok(Done::Read))]);
    let copy = setting.channel.buffer(setting.buffer).unwrap();
    let chunks: Vec<_> = copy.chunks(16).map(|chunk| (chunk[0], chunk[15])).collect();
    assert_eq!(chunks, [(1, 1), (2, 2), (3, 3), (4, 4)], "torn between chunks, and nowhere else");
}

#[test]
fn a_lost_request_costs_one_timeout() {
    let mut setting = setting(&[0]);
    setting.post(&[setting.read(1)]);
    assert_eq!(setting.run(), [(US * 104, Ok(Done::Read))]);
}

#[test]
fn a_lost_answer_to_a_read_brings_newer_memory() {
    let mut setting = setting(&[1]);
    setting.post(&[setting.read(1)]);
    setting.channel.advance_to(US * 50);
    setting.store_all(8);
    assert_eq!(setting.run(), [(US * 104, Ok(Done::Read))]);
    assert_eq!(setting.channel.buffer(setting.buffer).unwrap()[0], 8);
}

#[test]
fn a_lost_answer_to_a_swap_does_not_swap_twice() {
    let mut setting = setting(&[1]);
    let swap = Operation::CompareSwap { key: setting.key, offset: 0, expected: 0, new: 1 };
    setting.post(&[swap]);
    setting.channel.advance_to(US * 50);
    assert_eq!(setting.memory[0].load(Ordering::Relaxed), 1);
    assert_eq!(setting.run(), [(US * 104, Ok(Done::CompareSwapped { previous: 0 }))]);
}

#[test]
fn work_behind_a_lost_request_waits_for_it() {
    // Messages 0, 1 and 2 are the three requests; the second is lost.
    let mut setting = setting(&[1]);
    setting.post(&[setting.read(1); 3]);
    let endings = setting.run();
    // The clock of the second starts when the first is answered, at 4 µs.
    assert_eq!(endings.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [US * 4, US * 108, US * 108]);
    assert!(endings.iter().all(|(_, ending)| *ending == Ok(Done::Read)));
}

#[test]
fn nobody_there_is_reported_after_all_retries() {
    for fault in [SimNode::cut_link, SimNode::fail_nic, SimNode::power_off] {
        let mut setting = setting(&[]);
        fault(&setting.node);
        setting.post(&[setting.read(1); 2]);
        assert_eq!(setting.run(), [(US * 400, UNREACHABLE), (US * 400, FLUSHED)]);
        assert_eq!(setting.channel.config().gives_up_after(), US * 400);
    }
}

#[test]
fn a_connection_outlives_a_short_cut_of_the_link_but_no_reset_of_the_card() {
    let mut cut = setting(&[]);
    cut.node.cut_link();
    cut.post(&[cut.read(1)]);
    cut.channel.advance_to(US * 150);
    cut.node.restore_link();
    assert_eq!(cut.run(), [(US * 204, Ok(Done::Read))]);

    let mut reset = setting(&[]);
    reset.node.fail_nic();
    reset.node.restore_nic();
    reset.post(&[reset.read(1)]);
    assert_eq!(reset.run(), [(US * 400, UNREACHABLE)]);
    reset.channel.reopen();
    assert_eq!(reset.channel.channel(), ChannelState::Opening);
    reset.run();
    assert_eq!((reset.channel.channel(), reset.channel.now()), (ChannelState::Open, US * 454));
    reset.post(&[reset.read(1)]);
    assert_eq!(reset.run(), [(US * 458, Ok(Done::Read))]);
}

#[test]
fn an_attempt_to_open_ends_as_broken_if_nobody_answers() {
    let mut setting = setting(&[]);
    setting.node.power_off();
    setting.channel.reopen();
    assert_eq!(setting.run(), []);
    assert_eq!((setting.channel.channel(), setting.channel.now()), (ChannelState::Broken, US * 450));
    setting.node.power_on();
    setting.channel.reopen();
    setting.run();
    assert_eq!(setting.channel.channel(), ChannelState::Open);
    setting.post(&[setting.read(1)]);
    // Memory and regions went with the power.
    assert_eq!(setting.run().pop(), Some((US * 508, Err(TransportError::Refused))));
}

#[test]
fn a_fault_of_the_own_link_is_noticed_at_once() {
    let mut setting = setting(&[]);
    setting.post(&[setting.read(1); 2]);
    setting.channel.advance_to(US);
    setting.channel.cut_own_link();
    assert_eq!(setting.run(), [(US, Err(TransportError::LocalFault)), (US, FLUSHED)]);
    setting.channel.reopen();
    assert_eq!(setting.channel.channel(), ChannelState::Broken);
    setting.channel.restore_own_link();
    setting.channel.reopen();
    setting.run();
    setting.channel.cut_own_link();
    assert_eq!(setting.channel.channel(), ChannelState::Open, "without work nothing is noticed");
    let now = setting.channel.now();
    setting.post(&[setting.read(1)]);
    assert_eq!(setting.run(), [(now, Err(TransportError::LocalFault))]);
}
