//! The calendar queue itself: what the [module above](super) draws and promises.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use backdoor_core::Nanos;

use super::EventQueue;
use super::occupancy::Occupancy;
use super::tuning::{Geometry, Tuner};

/// Names a scheduled event, for [`Engine::cancel`]. An id never names a second event, even when the first is long gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventId {
    sequence: u64,
    slot: u32,
}

/// End of an intrusive list.
const NIL: u32 = u32::MAX;

/// What is scheduled into the cursor's bucket goes to the front if no more events than this come before it there.
const NEAR: usize = 8;

/// Cancelled events are swept out when there are at least this many, and more of them than of live ones.
const SWEEP_FROM: usize = 1024;

/// An event in the slab, in a list of its bucket or in the list of free slots.
#[derive(Debug)]
struct Node<E> {
    time: u64,
    sequence: u64,
    /// `None`: cancelled, or a free slot.
    event: Option<E>,
    next: u32,
}

/// What the order is made of, and where the event is. The sequence is unique, so `slot` never decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    time: u64,
    sequence: u64,
    slot: u32,
}

/// A clock and a queue of future events of type `E`; see the [module](super) for the order and the method.
#[derive(Debug)]
pub struct Engine<E> {
    now: u64,
    sequence: u64,
    live: usize,
    cancelled: usize,

    nodes: Vec<Node<E>>,
    free: u32,

    geometry: Geometry,
    /// Number (time >> shift) of the bucket that was drained last. Every event in the wheel lies in a bucket after it
    /// and less than a turn away; every event in a bucket up to it is in `front` or `late`.
    cursor: u64,
    heads: Vec<u32>,
    occupied: Occupancy,
    /// Events of the cursor's bucket, last first.
    front: Vec<Key>,
    late: BinaryHeap<Reverse<Key>>,
    far: BinaryHeap<Reverse<Key>>,
    /// Bucket of the first in `far`; the largest number if there is none.
    far_bucket: u64,
    tuner: Tuner,
}

impl<E> Default for Engine<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> Engine<E> {
    /// An empty queue at time zero.
    pub fn new() -> Self {
        let geometry = Geometry::START;
        Engine {
            now: 0,
            sequence: 0,
            live: 0,
            cancelled: 0,
            nodes: Vec::new(),
            free: NIL,
            geometry,
            cursor: 0,
            heads: vec![NIL; geometry.buckets],
            occupied: Occupancy::new(geometry.buckets),
            front: Vec::new(),
            late: BinaryHeap::new(),
            far: BinaryHeap::new(),
            far_bucket: u64::MAX,
            tuner: Tuner::new(),
        }
    }

    /// Virtual time: the time of the last event taken out, zero before.
    #[inline]
    pub fn now(&self) -> Nanos {
        Nanos(self.now)
    }

    /// Number of scheduled events, without the cancelled ones.
    #[inline]
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether nothing is scheduled.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Number of places for events that the queue holds memory for, used or not.
    pub fn slots(&self) -> usize {
        self.nodes.len()
    }

    /// Adds an event at the instant `at`, after all those already scheduled for that instant.
    ///
    /// `at` may be [`Nanos::MAX`] ("never"): the event is kept, and comes out after all others.
    ///
    /// # Panics
    /// An `at` before [`now`](Self::now) is a mistake of the model: it panics where debug assertions are on. In a
    /// release build the event happens now, because a clock that runs backwards would do more harm.
    #[inline]
    pub fn schedule(&mut self, at: Nanos, event: E) -> EventId {
        debug_assert!(at.0 >= self.now, "scheduled at {at}, which is before now, {}", self.now());
        let key = self.store(at.0.max(self.now), event);
        self.live += 1;
        self.place(key);
        EventId { sequence: key.sequence, slot: key.slot }
    }

    /// Adds an event `delay` after now; a sum too large for the clock is [`Nanos::MAX`].
    #[inline]
    pub fn schedule_in(&mut self, delay: Nanos, event: E) -> EventId {
        self.schedule(self.now() + delay, event)
    }

    /// Takes out the first event and sets the clock to its time; `None` if nothing is scheduled (the clock stays).
    ///
    /// Not an `Iterator`, though it reads like one: the loop that drives it has to schedule meanwhile.
    #[inline]
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<(Nanos, E)> {
        loop {
            let key = self.pop_key()?;
            let Some(event) = self.release(key.slot) else {
                self.cancelled -= 1;
                continue;
            };
            self.now = key.time;
            self.live -= 1;
            if self.tuner.count_event() {
                self.retune();
            }
            return Some((Nanos(key.time), event));
        }
    }

    /// Time of the first event, if there is one. Takes `&mut self` because it may sort a bucket and sweep out cancelled
    /// events on the way; nothing that the caller sees changes.
    pub fn peek_time(&mut self) -> Option<Nanos> {
        loop {
            let key = self.pop_key()?;
            if self.nodes[key.slot as usize].event.is_some() {
                // It goes back to where late-comers go; order is by key, wherever a key lies.
                self.late.push(Reverse(key));
                return Some(Nanos(key.time));
            }
            self.release(key.slot);
            self.cancelled -= 1;
        }
    }

    /// Takes back a scheduled event; `None` if it has happened or been cancelled before.
    ///
    /// Costs the others nothing: the place in the queue stays, empty, and is swept out when its time comes, or when
    /// empty places are in the majority.
    pub fn cancel(&mut self, id: EventId) -> Option<E> {
        let node = self.nodes.get_mut(id.slot as usize).filter(|node| node.sequence == id.sequence)?;
        let event = node.event.take()?;
        self.live -= 1;
        self.cancelled += 1;
        if self.cancelled >= SWEEP_FROM && self.cancelled > self.live {
            self.rebuild(self.geometry);
        }
        Some(event)
    }

    /// Puts the event into a slot of the slab, under the next sequence number.
    #[inline]
    fn store(&mut self, time: u64, event: E) -> Key {
        let sequence = self.sequence;
        self.sequence += 1;
        let node = Node { time, sequence, event: Some(event), next: NIL };
        let slot = self.free;
        if let Some(vacant) = self.nodes.get_mut(slot as usize) {
            self.free = vacant.next;
            *vacant = node;
            return Key { time, sequence, slot };
        }
        let slot = u32::try_from(self.nodes.len()).ok().filter(|&slot| slot != NIL);
        self.nodes.push(node);
        Key { time, sequence, slot: slot.expect("fewer than 2^32 - 1 events are pending") }
    }

    /// Frees a slot; what was in it, unless it was cancelled.
    #[inline]
    fn release(&mut self, slot: u32) -> Option<E> {
        let node = &mut self.nodes[slot as usize];
        node.next = self.free;
        self.free = slot;
        node.event.take()
    }

    /// Puts a stored event where the geometry wants it.
    #[inline]
    fn place(&mut self, key: Key) {
        let bucket = key.time >> self.geometry.shift;
        if bucket <= self.cursor {
            self.place_late(key);
        } else if bucket - self.cursor < self.geometry.buckets as u64 {
            self.link(key.slot, bucket);
        } else {
            self.place_far(key, bucket);
        }
    }

    #[cold]
    fn place_far(&mut self, key: Key, bucket: u64) {
        self.tuner.count_far();
        self.far_bucket = self.far_bucket.min(bucket);
        self.far.push(Reverse(key));
    }

    // Out of line, like its counterpart: the common path stays small enough to be inlined into the caller's loop.
    #[inline(never)]
    fn pop_late(&mut self) -> Option<Key> {
        self.late.pop().map(|Reverse(key)| key)
    }

    #[inline(never)]
    fn place_late(&mut self, key: Key) {
        // Mostly it is among the next few to come.
        let mut place = self.front.len();
        while place > 0 && self.front[place - 1] < key {
            if self.front.len() - place == NEAR {
                return self.late.push(Reverse(key));
            }
            place -= 1;
        }
        self.front.insert(place, key);
    }

    /// Adds a stored event to the list of its bucket.
    #[inline]
    fn link(&mut self, slot: u32, bucket: u64) {
        let position = self.position(bucket);
        self.nodes[slot as usize].next = self.heads[position];
        self.heads[position] = slot;
        self.occupied.insert(position);
    }

    /// Where a bucket is in `heads`.
    #[inline]
    fn position(&self, bucket: u64) -> usize {
        // `heads.len()` and not `geometry.buckets`, though they are equal: the compiler then sees the index in range.
        bucket as usize & (self.heads.len() - 1)
    }

    /// Takes the first key, be its event live or cancelled.
    #[inline]
    fn pop_key(&mut self) -> Option<Key> {
        if let Some(Reverse(late)) = self.late.peek()
            && self.front.last().is_none_or(|front| late < front)
        {
            return self.pop_late();
        }
        self.front.pop().or_else(|| self.advance())
    }

    /// Takes the first event beyond the cursor, whose bucket becomes the cursor's; the rest of it goes to the front,
    /// which must be empty, like `late`.
    #[inline]
    fn advance(&mut self) -> Option<Key> {
        let turn = self.heads.len() as u64;
        let here = self.position(self.cursor);
        // The cursor's own bucket is never occupied, so a distance of zero can't be.
        let found = self.occupied.next_from((here + 1) & (self.heads.len() - 1));
        let position = found.unwrap_or(here);
        let distance = position.wrapping_sub(here) as u64 & (turn - 1);
        // The far heap has something to say if its first bucket is the next one, or within a turn of it.
        if found.is_none() || self.far_bucket - self.cursor < distance + turn {
            return self.advance_with_far(found.map(|_| self.cursor + distance));
        }
        self.cursor += distance;
        let slot = self.unlink_all(position);
        let node = &self.nodes[slot as usize];
        let key = Key { time: node.time, sequence: node.sequence, slot };
        if node.next == NIL {
            return Some(key);
        }
        self.advance_into_list(slot)
    }

    /// The end of [`advance`](Self::advance) for a bucket of several.
    #[inline(never)]
    fn advance_into_list(&mut self, slot: u32) -> Option<Key> {
        self.collect(slot);
        self.sort_front();
        self.front.pop()
    }

    /// [`advance`](Self::advance) when the far heap takes part; `in_wheel` is the next occupied bucket of the wheel.
    #[cold]
    fn advance_with_far(&mut self, in_wheel: Option<u64>) -> Option<Key> {
        let turn = self.heads.len() as u64;
        let in_far = self.far.peek().map(|_| self.far_bucket);
        self.cursor = in_wheel.into_iter().chain(in_far).min()?;
        if in_wheel == Some(self.cursor) {
            let slot = self.unlink_all(self.position(self.cursor));
            self.collect(slot);
        }
        // The turn has moved on: what now lies within it comes over.
        while let Some(&Reverse(key)) = self.far.peek() {
            let bucket = key.time >> self.geometry.shift;
            if bucket - self.cursor >= turn {
                break;
            }
            self.far.pop();
            if bucket == self.cursor {
                self.front.push(key);
            } else {
                self.link(key.slot, bucket);
            }
        }
        self.far_bucket = self.far.peek().map_or(u64::MAX, |Reverse(key)| key.time >> self.geometry.shift);
        self.sort_front();
        self.front.pop()
    }

    /// Empties a bucket; the first slot of its list.
    #[inline]
    fn unlink_all(&mut self, position: usize) -> u32 {
        self.occupied.remove(position);
        std::mem::replace(&mut self.heads[position], NIL)
    }

    /// Adds a list to the front.
    #[inline]
    fn collect(&mut self, mut slot: u32) {
        while let Some(node) = self.nodes.get(slot as usize) {
            self.front.push(Key { time: node.time, sequence: node.sequence, slot });
            slot = node.next;
        }
    }

    #[inline]
    fn sort_front(&mut self) {
        self.front.sort_unstable_by_key(|key| Reverse((key.time, key.sequence)));
    }

    #[cold]
    fn retune(&mut self) {
        if let Some(geometry) = self.tuner.tune(self.now, self.live, self.geometry) {
            self.rebuild(geometry);
        }
    }

    /// Puts every live event into a wheel of the given geometry, and frees the slots of the cancelled ones.
    #[cold]
    fn rebuild(&mut self, geometry: Geometry) {
        self.geometry = geometry;
        self.cursor = self.now >> geometry.shift;
        self.heads.clear();
        self.heads.resize(geometry.buckets, NIL);
        self.occupied = Occupancy::new(geometry.buckets);
        self.front.clear();
        self.late.clear();
        self.far.clear();
        self.far_bucket = u64::MAX;
        self.cancelled = 0;
        self.free = NIL;
        for slot in 0..self.nodes.len() {
            let node = &mut self.nodes[slot];
            let key = Key { time: node.time, sequence: node.sequence, slot: slot as u32 };
            if node.event.is_some() {
                self.place(key);
            } else {
                node.next = self.free;
                self.free = slot as u32;
            }
        }
        self.tuner.restart(self.now, self.live, geometry);
    }
}

impl<E> EventQueue<E> for Engine<E> {
    #[inline]
    fn now(&self) -> Nanos {
        Engine::now(self)
    }
    #[inline]
    fn schedule(&mut self, at: Nanos, event: E) {
        Engine::schedule(self, at, event);
    }
    #[inline]
    fn next(&mut self) -> Option<(Nanos, E)> {
        Engine::next(self)
    }
}
