//! Extraction of session states, against plain READs of as many bytes through the same queue pair: one READ of
//! head and payload for each session, or of the whole State Box where the extraction reads that.

use std::time::Instant;

use backdoor_core::Nanos;
use backdoor_core::progress_box::{EntityRecord, FailureLevel, Slot, StateBoxLocation};
use backdoor_core::recovery::{Extraction, ExtractionConfig, SessionToRecover};
use backdoor_core::state_box::{HEAD_WORDS, StateBox, words_needed};
use backdoor_core::transport::{
    ChannelState, LocalSlice, Operation, RemoteSlice, Rights, Transport, WorkId, WorkRequest,
};
use backdoor_core::words::zeroed;
use backdoor_transports::verbs::{Device, VerbsConfig, VerbsTransport};

use super::Outcome;
use super::node::{Node, key};
use super::speed::median;

const SESSIONS: usize = 64;
/// One that is read whole, and one of which the head is read first.
const SIZES: [usize; 2] = [1 << 10, 4 << 10];
const WARM_UP: usize = 2;
const ROUNDS: usize = 15;

pub(crate) fn check(device: &Device) -> Outcome {
    for bytes in SIZES {
        let states = States::new(device, bytes)?;
        let mut transport = states.node.connect(VerbsConfig::default())?;
        let (mut times, mut ratios) = (Vec::new(), Vec::new());
        for round in 0..WARM_UP + ROUNDS {
            let (our, their) = (states.extract(&mut transport)?, states.read(&mut transport)?);
            if round >= WARM_UP {
                times.push(our);
                ratios.push(our / their);
            }
        }
        println!("extract_{bytes}B {:.2} us", median(&mut times));
        println!("extract_{bytes}B_ratio {:.3} ours/READs", median(&mut ratios));
    }
    Ok(())
}

/// A node with the State Boxes of some sessions, all full.
struct States {
    node: Node,
    memory: RemoteSlice,
    sessions: Vec<SessionToRecover>,
    bytes: usize,
}

impl States {
    fn new(device: &Device, bytes: usize) -> Result<Self, Box<dyn std::error::Error>> {
        let words = words_needed(bytes);
        let node = Node::new(device, &[(SESSIONS * words, Rights::READ)])?;
        let claim = zeroed(1);
        let mut sessions = Vec::new();
        for number in 0..SESSIONS {
            let (offset, session) = (number * words, number as u64 + 1);
            let place = node.memory(0).slice(offset..offset + words);
            let mut state_box = StateBox::format(place, &claim[0], session, 1)?;
            // The second version lies right behind the head.
            for version in [1, 2] {
                state_box.commit(&vec![version; bytes])?;
            }
            let mut record = EntityRecord::new("session", FailureLevel::Session, Nanos::from_secs(1));
            record.session = session;
            record.state_box = Some(StateBoxLocation { offset: offset as u64, words: words as u64, claim: 0 });
            sessions.push(SessionToRecover { slot: Slot(number as u32), record });
        }
        let memory = RemoteSlice { key: key(0), offset: 0, words: (SESSIONS * words) as u64 };
        Ok(States { node, memory, sessions, bytes })
    }

    /// Microseconds a session.
    fn extract(&self, transport: &mut VerbsTransport) -> Result<f64, Box<dyn std::error::Error>> {
        let mut extraction = Extraction::new(ExtractionConfig::default(), self.memory, self.sessions.clone());
        let mut whole = 0;
        let begin = Instant::now();
        while !extraction.is_done() && transport.channel() != ChannelState::Broken {
            extraction.step(transport, &mut |_, state| {
                whole += usize::from(state.is_ok_and(|state| state.committed.payload.len() == self.bytes));
            });
        }
        let time = begin.elapsed();
        if whole < SESSIONS {
            return Err(format!("{whole} of {SESSIONS} states were extracted").into());
        }
        Ok(time.as_secs_f64() * 1e6 / SESSIONS as f64)
    }

    /// Microseconds a session.
    fn read(&self, transport: &mut VerbsTransport) -> Result<f64, Box<dyn std::error::Error>> {
        let config = ExtractionConfig::default();
        let (window, whole) = (config.window, words_needed(self.bytes));
        let words = if config.reads_whole(whole) { whole } else { HEAD_WORDS + self.bytes / 8 };
        let mut completions = Vec::new();
        let begin = Instant::now();
        let buffers = (0..window).map(|_| transport.allocate(words)).collect::<Result<Vec<_>, _>>()?;
        let mut posted = 0;
        for finished in 0..SESSIONS {
            while posted < SESSIONS.min(finished + window) {
                let location = self.sessions[posted].record.state_box.ok_or("a session without a State Box")?;
                let from = self.memory.part(location.offset, words as u64).ok_or("a State Box outside the memory")?;
                let into = LocalSlice::start_of(buffers[posted % window]);
                transport.post(&[WorkRequest { id: WorkId(0), operation: Operation::Read { from, into } }])?;
                posted += 1;
            }
            while completions.is_empty() {
                transport.poll(&mut completions);
            }
            completions.remove(0).result?;
        }
        for buffer in buffers {
            transport.release(buffer)?;
        }
        Ok(begin.elapsed().as_secs_f64() * 1e6 / SESSIONS as f64)
    }
}
