//! The input of one connection, put in order.

use std::collections::{BTreeMap, VecDeque};

use super::super::sequence::{offset_near, sequence_at};

/// What a piece ahead of a gap costs beside its bytes, about.
const PIECE_BYTES: usize = 64;

/// The last input of a connection. Offsets count from the first byte that was seen.
#[derive(Debug)]
pub(super) struct Input {
    /// Number of the byte at offset 0.
    base: u32,
    /// In order, up to `end`.
    kept: VecDeque<u8>,
    /// Offset after the last byte before which nothing is missing.
    end: u64,
    /// What came after a gap, by offset. Pieces may overlap.
    ahead: BTreeMap<u64, Vec<u8>>,
    ahead_bytes: usize,
    /// All before this offset was acknowledged, so that it never changes again.
    acknowledged: u64,
    /// Offset after the last byte of all.
    last: Option<u64>,
    contradicts: bool,
}

/// The two versions of one byte.
#[derive(Debug)]
struct Contradiction;

impl Input {
    /// A stream of which the byte with this number is the first that matters.
    pub(super) fn from(base: u32) -> Self {
        Input {
            base,
            kept: VecDeque::new(),
            end: 0,
            ahead: BTreeMap::new(),
            ahead_bytes: 0,
            acknowledged: 0,
            last: None,
            contradicts: false,
        }
    }

    /// Number of the first byte that is missing.
    pub(super) fn received(&self) -> u32 {
        sequence_at(self.base, self.end)
    }

    /// Whether the client ends the stream there.
    pub(super) fn ended(&self) -> bool {
        self.last == Some(self.end)
    }

    /// Whether the same byte was seen in two versions.
    pub(super) fn contradicts(&self) -> bool {
        self.contradicts
    }

    /// All from the byte with this number on; `None` if it isn't there.
    pub(super) fn since(&self, number: u32) -> Option<Vec<u8>> {
        let from = offset_near(self.base, number, self.end)?;
        let length = usize::try_from(self.end.checked_sub(from)?).ok()?;
        let skipped = self.kept.len().checked_sub(length)?;
        Some(self.kept.range(skipped..).copied().collect())
    }

    /// The client sent `bytes` from this number on, and nothing after them if `is_last`. At most `room` bytes are kept.
    pub(super) fn sent(&mut self, number: u32, bytes: &[u8], is_last: bool, room: usize) {
        // From before anything that matters, it is a repetition.
        let Some(from) = offset_near(self.base, number, self.end) else { return };
        let after = from + bytes.len() as u64;
        if is_last && after >= self.end {
            self.last = Some(after);
        }
        if from > self.end {
            self.put_ahead(from, bytes, room);
        } else if self.append(from, bytes, room).and_then(|()| self.close_gap(room)).is_err() {
            self.contradicts = true;
        }
    }

    /// The node has all before this number.
    pub(super) fn acknowledge(&mut self, number: u32, room: usize) {
        let Some(mut until) = offset_near(self.base, number, self.end) else { return };
        // The end of the stream has a number, too.
        if self.last.is_some_and(|last| until == last + 1) {
            until -= 1;
        }
        // Whatever is missing before that passed unseen, and will not pass again.
        while self.end < until {
            self.kept.clear();
            let next = self.ahead.first_key_value().map_or(until, |(from, _)| until.min(*from));
            self.end = next;
            if self.close_gap(room).is_err() {
                self.contradicts = true;
                self.end = self.end.max(until);
                self.kept.clear();
            }
        }
        self.acknowledged = self.acknowledged.max(until);
    }

    /// Lets go of what came first, and of what is ahead, until no more than `room` bytes are kept.
    pub(super) fn shrink(&mut self, room: usize) {
        if self.ahead_bytes > room {
            self.ahead.clear();
            self.ahead_bytes = 0;
        }
        let surplus = self.kept.len().saturating_sub(room - self.ahead_bytes);
        self.kept.drain(..surplus);
        if surplus > 0 {
            self.kept.shrink_to(room);
        }
    }

    /// Bytes that are kept.
    #[cfg(all(test, not(loom)))]
    pub(super) fn bytes(&self) -> usize {
        self.kept.len() + self.ahead_bytes
    }

    /// Appends what of `bytes` is new. They begin no later than `end`.
    fn append(&mut self, from: u64, bytes: &[u8], room: usize) -> Result<(), Contradiction> {
        let known = ((self.end - from) as usize).min(bytes.len());
        let (again, new) = bytes.split_at(known);
        self.compare(from, again)?;
        let room = room.saturating_sub(self.ahead_bytes);
        let new_kept = &new[new.len().saturating_sub(room)..];
        let surplus = (self.kept.len() + new_kept.len()).saturating_sub(room);
        self.kept.drain(..surplus);
        // Doubled like any other, but never to more than there is room for.
        let (length, needed) = (self.kept.len(), self.kept.len() + new_kept.len());
        if needed > self.kept.capacity() {
            let capacity = needed.max((2 * self.kept.capacity()).min(room));
            self.kept.reserve_exact(capacity - length);
        }
        self.kept.extend(new_kept);
        self.end += new.len() as u64;
        Ok(())
    }

    /// What is sent again must be the same; what was acknowledged can't change any more, whatever is sent.
    fn compare(&self, from: u64, again: &[u8]) -> Result<(), Contradiction> {
        let start = self.end - self.kept.len() as u64;
        let skipped = self.acknowledged.max(start).saturating_sub(from).min(again.len() as u64);
        let again = &again[skipped as usize..];
        if again.is_empty() {
            return Ok(());
        }
        let at = (from + skipped - start) as usize;
        let same = self.kept.range(at..at + again.len()).eq(again);
        if same { Ok(()) } else { Err(Contradiction) }
    }

    fn put_ahead(&mut self, from: u64, bytes: &[u8], room: usize) {
        if let Some(known) = self.ahead.get(&from) {
            let common = known.len().min(bytes.len());
            self.contradicts |= known[..common] != bytes[..common];
            if known.len() >= bytes.len() {
                return;
            }
        }
        let cost = bytes.len() + PIECE_BYTES;
        // Without it there is a gap, which is noticed if the node acknowledges it.
        if bytes.is_empty() || self.ahead_bytes + cost > room {
            return;
        }
        self.ahead_bytes += cost;
        if let Some(shorter) = self.ahead.insert(from, bytes.to_vec()) {
            self.ahead_bytes -= shorter.len() + PIECE_BYTES;
        }
        self.shrink(room);
    }

    /// Takes what was ahead into the order, as far as nothing is missing before it.
    fn close_gap(&mut self, room: usize) -> Result<(), Contradiction> {
        while let Some(piece) = self.ahead.first_entry().filter(|piece| *piece.key() <= self.end) {
            let (from, bytes) = piece.remove_entry();
            self.ahead_bytes -= bytes.len() + PIECE_BYTES;
            self.append(from, &bytes, room)?;
        }
        Ok(())
    }
}
