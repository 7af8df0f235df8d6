//! The simulated NIC as an arm of the conformance suite, bare or inside any wrapper.

use std::sync::Arc;

use backdoor_core::Nanos;
use backdoor_core::transport::{Completion, RegionKey, Transport};
use backdoor_core::words::{AtomicU64, Ordering, zeroed};
use backdoor_transports::conformance::{Arm, Capabilities, CpuWork, RegionSetup, Rig};
use backdoor_transports::sim_nic::{FixedPath, SimChannel, SimNicConfig, SimNode};

pub(crate) type Channel = SimChannel<FixedPath>;

/// Puts something around a channel, and finds the channel inside again.
pub(crate) trait Wrapped: Transport {
    fn wrap(channel: Channel) -> Self;
    fn channel_inside(&mut self) -> &mut Channel;
}

impl Wrapped for Channel {
    fn wrap(channel: Channel) -> Self {
        channel
    }
    fn channel_inside(&mut self) -> &mut Channel {
        self
    }
}

/// The arm. Its fields are what a test may want to spoil.
pub(crate) struct SimArm<W> {
    pub(crate) setup: fn(RegionSetup) -> RegionSetup,
    pub(crate) wrap: fn(Channel) -> W,
}

impl<W: Wrapped> SimArm<W> {
    #[allow(dead_code, reason = "not every test file uses it")]
    pub(crate) fn new() -> Self {
        SimArm { setup: |region| region, wrap: W::wrap }
    }
}

pub(crate) struct SimRig<W> {
    node: SimNode,
    transport: W,
    memory: Vec<Arc<[AtomicU64]>>,
    keys: Vec<RegionKey>,
    cpu: Option<Box<dyn FnMut() + Send>>,
}

pub(crate) fn config() -> SimNicConfig {
    SimNicConfig { chunk_words: 64, retransmit_after: Nanos::from_millis(1), ..SimNicConfig::default() }
}

impl<W: Wrapped> Arm for SimArm<W> {
    type Rig = SimRig<W>;

    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    fn set_up(&self, regions: &[RegionSetup]) -> SimRig<W> {
        let node = SimNode::new();
        let setups: Vec<_> = regions.iter().map(|region| (self.setup)(*region)).collect();
        let memory: Vec<Arc<[AtomicU64]>> = setups.iter().map(|region| zeroed(region.words).into()).collect();
        let registered = setups.iter().zip(&memory);
        let keys = registered.map(|(region, memory)| node.register(memory.clone(), region.rights).unwrap()).collect();
        let channel = SimChannel::connect(&node, FixedPath::new(Nanos::from_micros(2)), config()).unwrap();
        SimRig { node, transport: (self.wrap)(channel), memory, keys, cpu: None }
    }
}

impl<W: Wrapped> Rig for SimRig<W> {
    type T = W;

    fn transport(&mut self) -> &mut W {
        &mut self.transport
    }
    fn key(&self, region: usize) -> RegionKey {
        self.keys[region]
    }
    fn cpu_load(&mut self, region: usize, word: usize) -> u64 {
        self.memory[region][word].load(Ordering::Relaxed)
    }
    fn cpu_store(&mut self, region: usize, word: usize, value: u64) {
        self.memory[region][word].store(value, Ordering::Relaxed);
    }

    /// One event: the processor runs between any two chunks of a READ, sometimes.
    fn step(&mut self, completions: &mut Vec<Completion>) {
        let channel = self.transport.channel_inside();
        let next = channel.next_event().unwrap_or(channel.now() + Nanos::from_micros(1));
        channel.advance_to(next);
        // A processor that rewrote all between any two chunks would let no READ win; one that rewrites
        // every 11 chunks tears some.
        if let Some(cpu) = &mut self.cpu
            && (next.0 / 328).is_multiple_of(11)
        {
            cpu();
        }
        self.transport.poll(completions);
    }

    fn patience(&self) -> usize {
        10_000
    }
    fn revoke(&mut self, region: usize) {
        self.node.deregister(self.keys[region]).unwrap();
    }
    fn cut_link(&mut self) {
        self.node.cut_link();
    }
    fn restore_link(&mut self) {
        self.node.restore_link();
    }
    fn start_cpu(&mut self, region: usize, work: CpuWork) {
        self.cpu = Some(work.start(self.memory[region].clone()));
    }
}
