//! What clients notice: when bytes moved, and whether they were right.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use backdoor_core::Nanos;
use backdoor_host::clock;

use crate::live::two_locks::lock;

/// When bytes moved over one connection.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// In order, as good as.
    moments: Mutex<Vec<Nanos>>,
    /// Whether nothing more is to move.
    is_over: AtomicBool,
}

impl Flow {
    /// Nothing more is to move.
    pub(super) fn ends(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// The longest time without any; up to `now`, if there is more to come.
    fn longest_silence(&self, now: Nanos) -> Option<Nanos> {
        let mut moments = lock(&self.moments).clone();
        moments.extend((!self.is_over() && !moments.is_empty()).then_some(now));
        moments.sort_unstable();
        moments.windows(2).map(|pair| pair[1] - pair[0]).max()
    }
}

/// What happened at the client so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    flows: Mutex<Vec<Arc<Flow>>>,
    bytes: AtomicU64,
    /// Connections that have been answered once.
    begun: AtomicU64,
    /// Whether any byte was another one than it should have been.
    wrong: AtomicBool,
    /// Connections that ended before all was done, after which another one was made.
    lost: AtomicU64,
}

impl Seen {
    /// A connection's, to be noted in.
    pub(super) fn flow(&self) -> Arc<Flow> {
        let flow = Arc::default();
        lock(&self.flows).push(Arc::clone(&flow));
        flow
    }

    /// Bytes have just moved.
    pub(super) fn note(&self, flow: &Flow, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Release);
        lock(&flow.moments).push(clock::now());
    }

    /// A connection was answered for the first time.
    pub(super) fn has_begun(&self) {
        self.begun.fetch_add(1, Ordering::Release);
    }

    /// A session ended before all was done, and another one begins in its place.
    pub(super) fn has_lost(&self) {
        self.lost.fetch_add(1, Ordering::Release);
    }

    /// A byte was another one than it should have been.
    pub(super) fn has_erred(&self) {
        self.wrong.store(true, Ordering::Release);
    }

    /// Connections over which anything has moved.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    /// Sessions that ended before all was done, and others were begun in their place.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Acquire)
    }

    /// Bytes moved so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// Whether any byte was another one than it should have been, finished or not.
    pub(super) fn is_wrong(&self) -> bool {
        self.wrong.load(Ordering::Acquire)
    }

    /// The first moment from `from` on at which bytes moved, over any connection.
    pub(super) fn first_after(&self, from: Nanos) -> Option<Nanos> {
        let first = |flow: &Arc<Flow>| lock(&flow.moments).iter().copied().filter(|moment| *moment >= from).min();
        lock(&self.flows).iter().filter_map(first).min()
    }

    /// The longest time without any over one connection; up to `now`, if it was not over by then.
    pub(super) fn longest_silence(&self, now: Nanos) -> Option<Nanos> {
        lock(&self.flows).iter().filter_map(|flow| flow.longest_silence(now)).max()
    }
}
