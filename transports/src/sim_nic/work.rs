//! One piece of work between posting and completion, and what it does at the node.

use std::ops::Range;

use backdoor_core::Nanos;
use backdoor_core::transport::{BufferId, Done, LocalSlice, Operation, RemoteSlice, Rights, TransportError, WorkId};
use backdoor_core::words::{AtomicU64, Ordering};

use super::node::{Access, SimNode};
use crate::buffers::Buffers;

/// What the card is to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Task {
    /// Posted work.
    Operation(Operation),
    /// Its own: to set up the connection. Alone in the queue; yields no completion.
    Connect,
}

/// A piece of work under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    pub(super) id: WorkId,
    pub(super) task: Task,
    /// When the request gets to the node; `None` if it was lost.
    pub(super) arrives: Option<Nanos>,
    /// Words moved so far.
    moved: u64,
    /// What came of it at the node.
    pub(super) outcome: Option<Result<Done, TransportError>>,
    /// When the answer gets back; `None` before it was sent, and if it was lost.
    pub(super) answered: Option<Nanos>,
}

impl Work {
    pub(super) fn new(id: WorkId, task: Task) -> Self {
        Work { id, task, arrives: None, moved: 0, outcome: None, answered: None }
    }

    /// Words of data in the request.
    pub(super) fn request_words(&self) -> u64 {
        match self.task {
            Task::Operation(Operation::Write { to, .. }) => to.words,
            Task::Operation(Operation::CompareSwap { .. }) => 2,
            Task::Operation(Operation::Read { .. }) | Task::Connect => 0,
        }
    }

    /// Words of data in the answer.
    pub(super) fn answer_words(&self) -> u64 {
        match (self.task, self.outcome) {
            (Task::Operation(Operation::Read { from, .. }), Some(Ok(_))) => from.words,
            (Task::Operation(Operation::CompareSwap { .. }), Some(Ok(_))) => 1,
            _ => 0,
        }
    }

    /// The buffer that the work holds.
    pub(super) fn buffer(&self) -> Option<BufferId> {
        match self.task {
            Task::Operation(operation) => operation.local().map(|(local, _)| local.buffer),
            Task::Connect => None,
        }
    }

    /// The card sends the request again. What changed the node is not done twice: its card remembers the answer.
    pub(super) fn begin_again(&mut self, arrives: Option<Nanos>) {
        self.arrives = arrives;
        self.answered = None;
        let changed_the_node = matches!(self.outcome, Some(Ok(Done::Written | Done::CompareSwapped { .. })));
        if !changed_the_node {
            self.outcome = None;
            self.moved = 0;
        }
    }

    /// One instant at the node: at most `chunk_words` are moved. Whether the work is done there.
    pub(super) fn execute(&mut self, node: &SimNode, buffers: &mut Buffers, chunk_words: u64) -> bool {
        if self.outcome.is_some() {
            return true;
        }
        let Task::Operation(operation) = self.task else { return true };
        self.outcome = match operation {
            Operation::Read { from, into } => {
                let (access, part) = self.next_part(from, Rights::READ, chunk_words);
                let result = node.with_words(access, part.clone(), |words| {
                    let copy = &mut buffers.held_mut(into.buffer)[local_range(into, &part)];
                    for (copy, word) in copy.iter_mut().zip(words) {
                        *copy = word.load(Ordering::Relaxed);
                    }
                });
                self.after_part(result, part.end, from.words, Done::Read)
            }
            Operation::Write { from, to } => {
                let (access, part) = self.next_part(to, Rights::WRITE, chunk_words);
                let result = node.with_words(access, part.clone(), |words| {
                    let copy = &buffers.held_mut(from.buffer)[local_range(from, &part)];
                    for (copy, word) in copy.iter().zip(words) {
                        word.store(*copy, Ordering::Relaxed);
                    }
                });
                self.after_part(result, part.end, to.words, Done::Written)
            }
            Operation::CompareSwap { key, offset, expected, new } => {
                let access = Access { key, offset, words: 1, needs: Rights::COMPARE_SWAP };
                let result = node.with_words(access, 0..1, |words| swap(&words[0], expected, new));
                Some(result.map(|previous| Done::CompareSwapped { previous }))
            }
        };
        self.outcome.is_some()
    }

    fn next_part(&self, slice: RemoteSlice, needs: Rights, chunk_words: u64) -> (Access, Range<u64>) {
        let access = Access { key: slice.key, offset: slice.offset, words: slice.words, needs };
        (access, self.moved..slice.words.min(self.moved.saturating_add(chunk_words)))
    }

    fn after_part(
        &mut self,
        result: Result<(), TransportError>,
        moved: u64,
        of: u64,
        done: Done,
    ) -> Option<Result<Done, TransportError>> {
        self.moved = moved;
        match result {
            Err(error) => Some(Err(error)),
            Ok(()) => (moved == of).then_some(Ok(done)),
        }
    }
}

/// Lies within the buffer: that was checked when the work was posted.
fn local_range(local: LocalSlice, part: &Range<u64>) -> Range<usize> {
    local.offset + part.start as usize..local.offset + part.end as usize
}

fn swap(word: &AtomicU64, expected: u64, new: u64) -> u64 {
    match word.compare_exchange(expected, new, Ordering::AcqRel, Ordering::Acquire) {
        Ok(previous) | Err(previous) => previous,
    }
}
