//! READs of words that a processor changes meanwhile.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use backdoor_core::state_box::{StateBoxView, words_needed};
use backdoor_core::transport::{LocalSlice, Operation, RemoteSlice, Rights, Transport, WorkId, WorkRequest};
use backdoor_core::words::Ordering;
use backdoor_transports::conformance::CpuWork;
use backdoor_transports::verbs::{Device, VerbsConfig};

use super::Outcome;
use super::node::{Node, key};

const WORDS: usize = 512;
const STATE_BYTES: usize = 8 << 10;
const FOR: Duration = Duration::from_secs(1);

pub(crate) fn check(device: &Device) -> Outcome {
    let state_words = words_needed(STATE_BYTES);
    let node = Node::new(device, &[(WORDS, Rights::READ), (state_words, Rights::READ)])?;
    let (mut reads, mut torn, mut halves) = (0u64, 0u64, 0u64);
    read_while(&node, 0, WORDS, CpuWork::DoubledHalves, |words| {
        reads += 1;
        torn += u64::from(words.iter().any(|word| word >> 32 != words[0] >> 32));
        halves += words.iter().filter(|word| *word >> 32 != *word & 0xffff_ffff).count() as u64;
    })?;
    println!("reads_4KiB {reads} READs");
    println!("torn_4KiB {:.4} of_READs", torn as f64 / reads.max(1) as f64);
    println!("torn_words {halves} words");
    let (mut states, mut whole, mut mixtures) = (0u64, 0u64, 0u64);
    read_while(&node, 1, state_words, CpuWork::CommitStates, |words| {
        states += 1;
        if let Some(state) = StateBoxView::read(words).ok().as_ref().and_then(|view| view.committed().ok()) {
            whole += 1;
            mixtures += u64::from(state.payload.iter().any(|byte| *byte != state.sequence as u8));
        }
    })?;
    println!("state_reads {states} READs");
    println!("state_whole {:.4} of_READs", whole as f64 / states.max(1) as f64);
    println!("state_mixtures {mixtures} states");
    if whole == 0 {
        return Err("not one READ brought a whole State Box".into());
    }
    if mixtures > 0 {
        return Err("a mixture of states was taken for a whole one".into());
    }
    match halves > 0 && !device.is_software() {
        true => Err("a READ brought a torn word".into()),
        false => Ok(()),
    }
}

/// READs a whole region over and over while a processor works on it.
fn read_while(node: &Node, region: usize, words: usize, work: CpuWork, mut each: impl FnMut(&[u64])) -> Outcome {
    let mut transport = node.connect(VerbsConfig::default())?;
    let buffer = transport.allocate(words)?;
    let from = RemoteSlice { key: key(region), offset: 0, words: words as u64 };
    let operation = Operation::Read { from, into: LocalSlice::start_of(buffer) };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut next = work.start(node.memory(region).clone());
            while !stop.load(Ordering::Relaxed) {
                next();
            }
        });
        let result = (|| {
            let begin = Instant::now();
            let mut completions = Vec::new();
            while begin.elapsed() < FOR {
                transport.post(&[WorkRequest { id: WorkId(0), operation }])?;
                while completions.is_empty() {
                    transport.poll(&mut completions);
                }
                completions.remove(0).result?;
                each(transport.buffer(buffer)?);
            }
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        result
    })
}
