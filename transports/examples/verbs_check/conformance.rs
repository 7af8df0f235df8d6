//! The conformance suite over a real queue pair.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;

use backdoor_core::transport::{Completion, RegionKey, Transport};
use backdoor_core::words::Ordering;
use backdoor_transports::conformance::{self, Arm, Capabilities, CpuWork, RegionSetup, Rig};
use backdoor_transports::verbs::{Device, VerbsConfig, VerbsTransport};

use super::Outcome;
use super::node::{Node, key};

pub(crate) fn check(device: &Device) -> Outcome {
    let report = conformance::run(&VerbsArm { device: device.clone() });
    print!("{report}");
    let failed = report.failures().count();
    println!("cases {}", report.outcomes.len());
    println!("skipped {}", report.skipped().count());
    println!("failed {failed}");
    if failed > 0 { Err(format!("{failed} cases failed").into()) } else { Ok(()) }
}

struct VerbsArm {
    device: Device,
}

struct VerbsRig {
    // The connection before the node, and both before what the node's processor does.
    transport: VerbsTransport,
    node: Node,
    stop: Arc<AtomicBool>,
    cpu: Option<JoinHandle<()>>,
}

impl Arm for VerbsArm {
    type Rig = VerbsRig;

    fn capabilities(&self) -> Capabilities {
        let (compare_swap, whole_words) = (self.device.has_compare_swap(), !self.device.is_software());
        Capabilities { compare_swap, whole_words, ..Capabilities::ALL }
    }

    fn set_up(&self, regions: &[RegionSetup]) -> VerbsRig {
        let regions: Vec<_> = regions.iter().map(|setup| (setup.words, setup.rights)).collect();
        let node = Node::new(&self.device, &regions).expect("memory can be registered");
        let transport = node.connect(VerbsConfig::default()).expect("the device connects to itself");
        VerbsRig { transport, node, stop: Arc::default(), cpu: None }
    }
}

impl Rig for VerbsRig {
    type T = VerbsTransport;

    fn transport(&mut self) -> &mut VerbsTransport {
        &mut self.transport
    }
    fn key(&self, region: usize) -> RegionKey {
        key(region)
    }
    fn cpu_load(&mut self, region: usize, word: usize) -> u64 {
        self.node.memory(region)[word].load(Ordering::Acquire)
    }
    fn cpu_store(&mut self, region: usize, word: usize, value: u64) {
        self.node.memory(region)[word].store(value, Ordering::Release);
    }
    fn step(&mut self, completions: &mut Vec<Completion>) {
        std::thread::sleep(Duration::from_micros(50));
        self.transport.poll(completions);
    }
    /// Several seconds.
    fn patience(&self) -> usize {
        50_000
    }
    fn revoke(&mut self, region: usize) {
        self.node.revoke(region);
    }
    /// Not the cable: the device's loopback has none. The node's queue pair goes, so nobody answers.
    fn cut_link(&mut self) {
        self.node.set_cut(true);
    }
    fn restore_link(&mut self) {
        self.node.set_cut(false);
    }
    fn start_cpu(&mut self, region: usize, work: CpuWork) {
        let (stop, mut next) = (Arc::clone(&self.stop), work.start(self.node.memory(region).clone()));
        self.cpu = Some(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                next();
            }
        }));
    }
}

impl Drop for VerbsRig {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(cpu) = self.cpu.take() {
            cpu.join().expect("the node's processor does its work");
        }
    }
}
