//! The conformance suite against shared memory, with a real processor at the node: a thread.
#![cfg(target_os = "linux")]

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use backdoor_core::transport::{Completion, RegionKey, Rights, Transport};
use backdoor_core::words::Ordering;
use backdoor_transports::conformance::{self, Arm, Capabilities, CpuWork, RegionSetup, Rig};
use backdoor_transports::shm::{ReadOnlyWords, SealedMemory, SharedWords, ShmTransport};

struct ShmArm;

struct ShmRig {
    transport: ShmTransport,
    memory: Vec<SharedWords>,
    stop: Arc<AtomicBool>,
    cpu: Option<JoinHandle<()>>,
}

fn key(region: usize) -> RegionKey {
    RegionKey(100 + region as u32)
}

impl Arm for ShmArm {
    type Rig = ShmRig;

    /// A mapping can't be taken back nor cut, and no error breaks the channel.
    fn capabilities(&self) -> Capabilities {
        Capabilities { revoke: false, cut_link: false, breaks_on_error: false, ..Capabilities::ALL }
    }

    fn set_up(&self, regions: &[RegionSetup]) -> ShmRig {
        let mut transport = ShmTransport::new(64);
        let mut memory = Vec::new();
        for (region, setup) in regions.iter().enumerate() {
            let sealed = SealedMemory::create("conformance", setup.words).unwrap();
            // As a monitor gets it: mapped for writing only where it may write.
            if Rights::READ.allow(setup.rights) {
                let words = ReadOnlyWords::open(sealed.read_only_fd().unwrap().as_fd(), setup.words).unwrap();
                transport.add_read_only(key(region), words, setup.rights).unwrap();
            } else {
                transport.add_shared(key(region), sealed.map().unwrap(), setup.rights).unwrap();
            }
            memory.push(sealed.map().unwrap());
        }
        ShmRig { transport, memory, stop: Arc::default(), cpu: None }
    }
}

impl Rig for ShmRig {
    type T = ShmTransport;

    fn transport(&mut self) -> &mut ShmTransport {
        &mut self.transport
    }
    fn key(&self, region: usize) -> RegionKey {
        key(region)
    }
    fn cpu_load(&mut self, region: usize, word: usize) -> u64 {
        self.memory[region][word].load(Ordering::Relaxed)
    }
    fn cpu_store(&mut self, region: usize, word: usize, value: u64) {
        self.memory[region][word].store(value, Ordering::Relaxed);
    }
    fn step(&mut self, completions: &mut Vec<Completion>) {
        self.transport.poll(completions);
    }
    fn patience(&self) -> usize {
        1000
    }

    fn start_cpu(&mut self, region: usize, work: CpuWork) {
        let (stop, mut next) = (Arc::clone(&self.stop), work.start(self.memory[region].clone()));
        self.cpu = Some(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                next();
            }
        }));
    }
}

impl Drop for ShmRig {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(cpu) = self.cpu.take() {
            cpu.join().unwrap();
        }
    }
}

#[test]
fn shared_memory_conforms() {
    conformance::run(&ShmArm).assert_passed();
}
