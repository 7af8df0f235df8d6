//! The plain binary heap behind the same trait: the model that tests compare with, and the yardstick of the benchmark.
//!
//! It is what one would write first and what must not be slower than [`super::Engine`] for that to deserve its code.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use backdoor_core::Nanos;

use super::EventQueue;

/// A binary heap of (time, sequence, event).
#[derive(Debug)]
pub struct HeapEngine<E> {
    now: Nanos,
    sequence: u64,
    heap: BinaryHeap<Entry<E>>,
}

#[derive(Debug)]
struct Entry<E> {
    time: Nanos,
    sequence: u64,
    event: E,
}

impl<E> HeapEngine<E> {
    /// An empty queue at time zero.
    pub fn new() -> Self {
        HeapEngine { now: Nanos::ZERO, sequence: 0, heap: BinaryHeap::new() }
    }

    /// Number of scheduled events.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether nothing is scheduled.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Time of the first event, if there is one.
    pub fn peek_time(&self) -> Option<Nanos> {
        self.heap.peek().map(|entry| entry.time)
    }
}

impl<E> Default for HeapEngine<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> EventQueue<E> for HeapEngine<E> {
    #[inline]
    fn now(&self) -> Nanos {
        self.now
    }

    #[inline]
    fn schedule(&mut self, at: Nanos, event: E) {
        debug_assert!(at >= self.now, "scheduled at {at}, which is before now, {}", self.now);
        self.heap.push(Entry { time: at.max(self.now), sequence: self.sequence, event });
        self.sequence += 1;
    }

    #[inline]
    fn next(&mut self) -> Option<(Nanos, E)> {
        let Entry { time, event, .. } = self.heap.pop()?;
        self.now = time;
        Some((time, event))
    }
}

// The heap gives the greatest first, and we want the earliest: the comparison is turned round.
impl<E> Ord for Entry<E> {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        (other.time, other.sequence).cmp(&(self.time, self.sequence))
    }
}
impl<E> PartialOrd for Entry<E> {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl<E> Eq for Entry<E> {}
