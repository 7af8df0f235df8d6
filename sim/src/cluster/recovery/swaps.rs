//! Compare-and-swaps on a node's claim words, by its simulated network card.

use std::collections::{BTreeMap, VecDeque};

use backdoor_core::Nanos;
use backdoor_core::takeover::Swap;
use backdoor_core::transport::{
    ChannelState, Completion, Done, PostError, RemoteSlice, Transport, TransportError, WorkId,
};
use backdoor_transports::sim_nic::SimChannel;

use crate::cluster::path::RandomPath;

/// Somebody's connection to the claim words of a node.
pub(super) struct Swaps {
    channel: SimChannel<RandomPath>,
    claims: RemoteSlice,
    /// Session by place, its claim word, and the swap.
    waiting: VecDeque<(usize, u32, Swap)>,
    under_way: BTreeMap<u64, (usize, Swap)>,
    posted: u64,
    completions: Vec<Completion>,
}

/// What came of the swap of a session.
pub(super) type Swapped = (usize, Swap, Result<u64, TransportError>);

impl Swaps {
    pub(super) fn new(channel: SimChannel<RandomPath>, claims: RemoteSlice) -> Self {
        let (waiting, under_way) = (VecDeque::new(), BTreeMap::new());
        Swaps { channel, claims, waiting, under_way, posted: 0, completions: Vec::new() }
    }

    /// Swaps claim word `word` for the session at place `at`, as soon as there is room.
    pub(super) fn ask(&mut self, at: usize, word: u32, swap: Swap) {
        self.waiting.push_back((at, word, swap));
    }

    /// Takes in what has completed by `now` and posts what waits; adds what came of it to `results`.
    pub(super) fn step(&mut self, now: Nanos, results: &mut Vec<Swapped>) {
        self.channel.advance_to(now);
        self.channel.poll(&mut self.completions);
        for Completion { id, result } in self.completions.drain(..) {
            let Some((at, swap)) = self.under_way.remove(&id.0) else { continue };
            let result = match result {
                Ok(Done::CompareSwapped { previous }) => Ok(previous),
                // No other work is posted here.
                Ok(_) => Err(TransportError::LocalFault),
                Err(error) => Err(error),
            };
            results.push((at, swap, result));
        }
        while let Some((at, word, swap)) = self.waiting.front().copied() {
            let id = WorkId(self.posted);
            let posted = match swap.request(id, self.claims, word) {
                Some(request) => self.channel.post(&[request]),
                None => {
                    results.push((at, swap, Err(TransportError::OutOfBounds)));
                    self.waiting.pop_front();
                    continue;
                }
            };
            match posted {
                Ok(()) => {
                    self.posted += 1;
                    self.under_way.insert(id.0, (at, swap));
                }
                Err(PostError::NotOpen | PostError::QueueFull { .. }) => break,
                Err(_) => results.push((at, swap, Err(TransportError::LocalFault))),
            }
            self.waiting.pop_front();
        }
        if self.channel.channel() == ChannelState::Broken && !self.waiting.is_empty() {
            self.channel.reopen();
        }
    }

    pub(super) fn next_event(&self) -> Option<Nanos> {
        self.channel.next_event()
    }
}
