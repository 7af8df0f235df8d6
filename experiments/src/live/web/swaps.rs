//! Compare-and-swaps on claim words, waited for.

use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_core::takeover::Swap;
use backdoor_core::transport::{ChannelState, Completion, Done, RemoteSlice, Transport, TransportError, WorkId};
use backdoor_host::clock;

/// How long swaps are waited for.
const SWAP_LIMIT: Nanos = Nanos::from_millis(500);
/// Swaps under way at once.
const AT_ONCE: usize = 64;
/// The first number: whatever else goes over the same transport has lower ones.
const FIRST: u64 = 1 << 48;

/// Pause between two looks at a channel that is being opened.
const LOOK_AGAIN: Duration = Duration::from_micros(200);

/// Has a channel opened that an error broke, and waits a little for one that is not open. Polling takes it in.
pub(super) fn mend<T: Transport>(transport: &mut T) {
    match transport.channel() {
        ChannelState::Open => return,
        ChannelState::Broken => transport.reopen(),
        ChannelState::Opening => {}
    }
    std::thread::sleep(LOOK_AGAIN);
}

/// A swap, and the word that it is on: its number among these.
#[derive(Clone, Copy, Debug)]
pub(super) struct OnWord {
    pub(super) swap: Swap,
    pub(super) claims: RemoteSlice,
    pub(super) word: u32,
}

/// Numbers the swaps that go over one transport. None comes a second time, so an answer that comes too late is never taken
/// for that to another.
#[derive(Debug)]
pub(super) struct Swaps {
    next: u64,
}

impl Swaps {
    pub(super) fn new() -> Self {
        Swaps { next: FIRST }
    }

    /// Does them; answers what each word held before. A swap whose answer did not come in time may have happened.
    pub(super) fn run<T: Transport>(
        &mut self,
        transport: &mut T,
        swaps: &[OnWord],
    ) -> Vec<Result<u64, TransportError>> {
        swaps.chunks(AT_ONCE).flat_map(|chunk| self.run_chunk(transport, chunk)).collect()
    }

    fn run_chunk<T: Transport>(&mut self, transport: &mut T, swaps: &[OnWord]) -> Vec<Result<u64, TransportError>> {
        let first = self.next;
        self.next += swaps.len() as u64;
        let mut results = vec![None; swaps.len()];
        let mut requests = Vec::with_capacity(swaps.len());
        for ((id, OnWord { swap, claims, word }), result) in (first..).zip(swaps).zip(&mut results) {
            match swap.request(WorkId(id), *claims, *word) {
                Some(request) => requests.push(request),
                None => *result = Some(Err(TransportError::OutOfBounds)),
            }
        }
        let (mut completions, until): (Vec<Completion>, _) = (Vec::new(), clock::now() + SWAP_LIMIT);
        while transport.channel() != ChannelState::Open && clock::now() < until {
            mend(transport);
            transport.poll(&mut completions);
        }
        let posted = transport.post(&requests).is_ok();
        while posted && results.contains(&None) && clock::now() < until {
            transport.poll(&mut completions);
            for completion in completions.drain(..) {
                let place = completion.id.0.checked_sub(first).and_then(|place| usize::try_from(place).ok());
                let Some(result) = place.and_then(|place| results.get_mut(place)) else { continue };
                *result = Some(completion.result.and_then(|done| match done {
                    Done::CompareSwapped { previous } => Ok(previous),
                    Done::Read | Done::Written => Err(TransportError::LocalFault),
                }));
            }
        }
        results.into_iter().map(|result| result.unwrap_or(Err(TransportError::Unreachable))).collect()
    }
}
