//! The books of work under way: what was posted, what the card reports of it, and what that means. No card is needed for
//! any of this.
//!
//! Work is numbered in the order of posting, from 1. A card reports in that order, too, but not everything: of a batch
//! only the end, and every failure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use backdoor_core::transport::{Operation, PostError, RemoteSlice, TransportError, WorkRequest};
use sideway::ibverbs::completion::WorkCompletionStatus as Status;

/// Words of one request: the longest message that every card takes is not known here, and 8 MiB is what Soft-RoCE takes.
/// A longer operation is posted in parts.
const PART_WORDS: u64 = 1 << 20;

/// Work under way, in the order of posting.
#[derive(Debug)]
pub(super) struct InFlight {
    depth: usize,
    posted: VecDeque<Posted>,
    /// That the card was given for all of it.
    requests: usize,
    next: u64,
}

#[derive(Debug)]
struct Posted {
    sequence: u64,
    work: WorkRequest,
    requests: usize,
}

impl InFlight {
    /// For a queue of `depth` requests.
    pub(super) fn new(depth: usize) -> Self {
        InFlight { depth, posted: VecDeque::new(), requests: 0, next: 1 }
    }

    /// Whether there is room for all of the batch.
    pub(super) fn check(&self, batch: &[WorkRequest]) -> Result<(), PostError> {
        let needed = batch.iter().fold(0usize, |sum, work| sum.saturating_add(requests(&work.operation)));
        if needed > self.depth - self.requests { Err(PostError::QueueFull { depth: self.depth }) } else { Ok(()) }
    }

    /// Takes in work for which there is room; answers its number.
    pub(super) fn add(&mut self, work: WorkRequest) -> u64 {
        let (sequence, requests) = (self.next, requests(&work.operation));
        self.next += 1;
        self.requests += requests;
        self.posted.push_back(Posted { sequence, work, requests });
        sequence
    }

    pub(super) fn is_empty(&self) -> bool {
        self.posted.is_empty()
    }

    pub(super) fn oldest(&self) -> Option<&WorkRequest> {
        self.posted.front().map(|posted| &posted.work)
    }

    /// The oldest work and its number, if it is done when everything up to `sequence` is; it is under way no longer.
    pub(super) fn take_done(&mut self, sequence: u64) -> Option<(u64, WorkRequest)> {
        self.posted.front().filter(|posted| posted.sequence <= sequence)?;
        let Posted { sequence, work, requests } = self.posted.pop_front()?;
        self.requests -= requests;
        Some((sequence, work))
    }

    /// All of it, which is under way no longer.
    pub(super) fn give_up(&mut self) -> impl Iterator<Item = WorkRequest> {
        self.requests = 0;
        self.posted.drain(..).map(|posted| posted.work)
    }

    /// A place below `depth` that no other work under way has: numbers are consecutive, and no more than `depth`.
    pub(super) fn place(&self, sequence: u64) -> usize {
        (sequence % self.depth as u64) as usize
    }
}

/// What one look into the completion queue brought.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reports {
    done: u64,
    /// The first failure, and its status.
    failed: Option<(u64, u32)>,
}

impl Reports {
    /// The next report; what comes behind a failure says nothing more.
    pub(super) fn add(&mut self, sequence: u64, status: u32) {
        match (self.failed, status) {
            (Some(_), _) => {}
            (None, 0) => self.done = sequence,
            (None, _) => self.failed = Some((sequence, status)),
        }
    }

    /// Everything up to this number is done: what was posted before work that failed, reported or not. 0 for nothing.
    pub(super) fn done(&self) -> u64 {
        self.failed.map_or(self.done, |(sequence, _)| sequence.saturating_sub(1))
    }

    /// The status of the work after that.
    pub(super) fn failure(&self) -> Option<u32> {
        self.failed.map(|(_, status)| status)
    }
}

/// How long the oldest work has been waited for. The clock is not read on the fast path, for it can cost as much as a
/// request does: only now and then, while polls bring nothing.
#[derive(Debug, Default)]
pub(super) struct Wait {
    polls: u32,
    since: Option<Instant>,
}

impl Wait {
    /// Fruitless polls from one look at the clock to the next.
    const POLLS_PER_LOOK: u32 = 32;

    /// Something came.
    pub(super) fn end(&mut self) {
        *self = Wait::default();
    }

    /// Nothing came; answers whether that has been so for longer than `patience`.
    pub(super) fn is_too_long(&mut self, patience: Duration) -> bool {
        self.polls += 1;
        if self.polls < Self::POLLS_PER_LOOK {
            return false;
        }
        self.polls = 0;
        self.since.get_or_insert_with(Instant::now).elapsed() > patience
    }
}

/// What a failure with this status means for an operation inside of its region, or not.
pub(super) fn failure(status: u32, is_inside: bool) -> TransportError {
    const REFUSED: [Status; 3] =
        [Status::RemoteAccessError, Status::RemoteInvalidRequestError, Status::RemoteOperationError];
    const UNANSWERED: [Status; 3] = [
        Status::RetryCounterExceededError,
        Status::ResponderNotReadyRetryCounterExceededError,
        Status::ResponseTimeoutError,
    ];
    // Compared as numbers: a status that the library does not know must not end the program.
    let is = |known: &Status| *known as u32 == status;
    if REFUSED.iter().any(is) {
        if is_inside { TransportError::Refused } else { TransportError::OutOfBounds }
    } else if UNANSWERED.iter().any(is) {
        TransportError::Unreachable
    } else if is(&Status::WorkRequestFlushedError) {
        TransportError::Flushed
    } else {
        TransportError::LocalFault
    }
}

/// The words of the node that an operation is about.
pub(super) fn remote(operation: &Operation) -> RemoteSlice {
    match *operation {
        Operation::Read { from, .. } => from,
        Operation::Write { to, .. } => to,
        Operation::CompareSwap { key, offset, .. } => RemoteSlice { key, offset, words: 1 },
    }
}

/// Requests that an operation takes.
fn requests(operation: &Operation) -> usize {
    usize::try_from(parts_in(remote(operation).words)).unwrap_or(usize::MAX)
}

/// Even no words take a request.
fn parts_in(words: u64) -> u64 {
    words.div_ceil(PART_WORDS).max(1)
}

/// The parts of so many words, one for each request: words that it skips, and its length.
pub(super) fn parts(words: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..parts_in(words)).map(move |part| (part * PART_WORDS, (words - part * PART_WORDS).min(PART_WORDS)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use backdoor_core::transport::{BufferId, LocalSlice, RegionKey, WorkId};
    use proptest::prelude::*;

    fn read(id: u64, words: u64) -> WorkRequest {
        let from = RemoteSlice { key: RegionKey(1), offset: 0, words };
        WorkRequest { id: WorkId(id), operation: Operation::Read { from, into: LocalSlice::start_of(BufferId(0)) } }
    }

    /// The identifiers of what is done when everything up to `sequence` is.
    fn done(books: &mut InFlight, sequence: u64) -> Vec<u64> {
        std::iter::from_fn(|| books.take_done(sequence)).map(|(_, work)| work.id.0).collect()
    }

    #[test]
    fn a_report_stands_for_all_work_before_it() {
        let mut books = InFlight::new(8);
        let numbers: Vec<u64> = (10..14).map(|id| books.add(read(id, 1))).collect();
        assert_eq!(numbers, [1, 2, 3, 4]);
        assert_eq!(done(&mut books, 0), []);
        assert_eq!(done(&mut books, 2), [10, 11]);
        assert_eq!(done(&mut books, 2), [], "each completes once");
        assert_eq!(books.oldest().map(|work| work.id.0), Some(12));
        assert_eq!(books.give_up().map(|work| work.id.0).collect::<Vec<_>>(), [12, 13]);
        assert!(books.is_empty());
        assert_eq!((books.add(read(14, 1)), done(&mut books, 4)), (5, vec![]), "an old number names no new work");
    }

    #[test]
    fn a_failure_says_what_was_done_before_it_and_hides_what_is_behind() {
        let reported = |reports: &[(u64, u32)]| {
            let mut all = Reports::default();
            reports.iter().for_each(|(sequence, status)| all.add(*sequence, *status));
            (all.done(), all.failure())
        };
        assert_eq!(reported(&[]), (0, None));
        assert_eq!(reported(&[(3, 0), (7, 0)]), (7, None));
        assert_eq!(reported(&[(3, 0), (6, 12), (7, 5), (8, 5)]), (5, Some(12)));
        assert_eq!(reported(&[(1, 12)]), (0, Some(12)));
        assert_eq!(reported(&[(0, 12)]), (0, Some(12)), "a number that nobody gave");
    }

    #[test]
    fn statuses_mean_what_the_table_says() {
        for status in [9, 10, 11] {
            assert_eq!(failure(status, true), TransportError::Refused);
            assert_eq!(failure(status, false), TransportError::OutOfBounds);
        }
        for status in [12, 13, 20] {
            assert_eq!(failure(status, false), TransportError::Unreachable);
        }
        assert_eq!(failure(5, true), TransportError::Flushed);
        for status in [1, 2, 4, 6, 8, 19, 21, 99, u32::MAX] {
            assert_eq!(failure(status, false), TransportError::LocalFault, "{status}");
        }
    }

    #[test]
    fn a_batch_fits_if_all_of_its_requests_do() {
        let mut books = InFlight::new(3);
        let long = read(0, PART_WORDS + 1);
        assert_eq!(books.check(&[long, long]), Err(PostError::QueueFull { depth: 3 }));
        assert_eq!(books.check(&[long, read(1, 0)]), Ok(()));
        assert_eq!(books.check(&[read(0, u64::MAX), read(0, u64::MAX)]), Err(PostError::QueueFull { depth: 3 }));
        let number = books.add(long);
        assert!(books.check(&[long]).is_err() && books.check(&[read(1, 1)]).is_ok());
        assert_eq!(done(&mut books, number), [0]);
        assert!(books.check(&[long, read(1, 1)]).is_ok(), "there is room again");
        books.add(long);
        drop(books.give_up());
        assert!(books.check(&[long, read(1, 1)]).is_ok(), "there is room again");
    }

    #[test]
    fn the_clock_is_looked_at_now_and_then_and_anew_after_something_came() {
        let mut wait = Wait::default();
        let mut polls = |patience, times: u32| (0..times).any(|_| wait.is_too_long(patience));
        assert!(!polls(Duration::MAX, 1000));
        assert!(!polls(Duration::ZERO, Wait::POLLS_PER_LOOK - 1 - 1000 % Wait::POLLS_PER_LOOK));
        assert!(polls(Duration::ZERO, 1));
        wait.end();
        assert!(wait.since.is_none() && wait.polls == 0);
    }

    #[test]
    fn parts_cover_all_words_once() {
        let lengths = |words| parts(words).collect::<Vec<_>>();
        assert_eq!(lengths(0), [(0, 0)]);
        assert_eq!(lengths(PART_WORDS), [(0, PART_WORDS)]);
        assert_eq!(lengths(2 * PART_WORDS + 5), [(0, PART_WORDS), (PART_WORDS, PART_WORDS), (2 * PART_WORDS, 5)]);
    }

    proptest! {
        #[test]
        fn no_two_under_way_share_a_place(
            depth in 1usize..6,
            steps in proptest::collection::vec((0u64..3, any::<bool>()), 1..60),
        ) {
            let mut books = InFlight::new(depth);
            let mut under_way = VecDeque::new();
            for (done, breaks) in steps {
                if books.check(&[read(0, 1)]).is_ok() {
                    under_way.push_back(books.add(read(0, 1)));
                }
                let places: std::collections::BTreeSet<_> = under_way.iter().map(|number| books.place(*number)).collect();
                prop_assert!(places.len() == under_way.len() && places.iter().all(|place| *place < depth));
                if breaks {
                    prop_assert_eq!(books.give_up().count(), under_way.drain(..).count());
                } else {
                    for _ in 0..done.min(under_way.len() as u64) {
                        let number = under_way.pop_front().unwrap();
                        prop_assert_eq!(books.take_done(number).map(|(sequence, _)| sequence), Some(number));
                    }
                }
            }
        }
    }
}
