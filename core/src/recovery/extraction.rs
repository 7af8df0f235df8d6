//! Reading State Boxes out of a failed node.
//!
//! A small box is read whole, in one round trip. Of a large one first the header and both slots' headers are read, then
//! just the committed payload, so that the bytes that cross the wire are those of the state and little more. Whatever
//! comes back is checked as a whole; a version that is not (its writer still runs) is read again, a few times.

use std::collections::VecDeque;
use std::ops::Range;

use super::plan::SessionToRecover;
use crate::state_box::{BoxLayout, Committed, StateBoxError, StateBoxView};
use crate::transport::{
    BufferId, ChannelState, Completion, LocalSlice, Operation, PostError, RemoteSlice, Transport, TransportError,
    WorkId, WorkRequest,
};
use crate::words::WORD_BYTES;

/// How to extract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtractionConfig {
    /// State Boxes read at the same time, each into a buffer of its own.
    pub window: usize,
    /// Boxes up to this many words are read whole.
    pub whole_up_to_words: usize,
    /// How often a box is read before a version that is not whole is given up, and how often its READs may be refused by
    /// a queue that nothing of the extraction is in.
    pub attempts: u32,
}

impl Default for ExtractionConfig {
    fn default() -> Self {
        ExtractionConfig { window: 16, whole_up_to_words: 1024, attempts: 16 }
    }
}

/// Why a session's state could not be had. The other sessions are not affected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum StateError {
    /// The State Box is empty, corrupt, or kept being written.
    #[error(transparent)]
    StateBox(#[from] StateBoxError),
    /// The box belongs to another session than the directory says.
    #[error("State Box of session {found} where session {expected} was expected")]
    WrongSession {
        /// What the directory says.
        expected: u64,
        /// What the box says.
        found: u64,
    },
    /// The directory names no State Box, or one outside the node's recovery memory, or of an impossible length.
    #[error("the directory names no State Box inside the recovery memory")]
    BadLocation,
    /// The memory could not be read.
    #[error("State Box could not be read: {0}")]
    Transport(#[from] TransportError),
    /// The transport never took the READs.
    #[error("State Box could not be read: {0}")]
    NotPosted(#[from] PostError),
    /// This side has no memory for the READ.
    #[error("no local buffer of {words} words for the State Box")]
    NoBuffer {
        /// Words needed.
        words: usize,
    },
}

/// A session's state as extracted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionState<'a> {
    /// Session number.
    pub session: u64,
    /// Incarnation of its State Box.
    pub incarnation: u64,
    /// Value of its claim word while nobody has taken it over.
    pub unclaimed: u64,
    /// Its last committed version.
    pub committed: Committed<'a>,
}

/// Takes a session's state, or the reason why there is none. The state lies in the transport's own memory, so it is
/// handed out for the length of the call.
pub type Answer<'a> = dyn FnMut(&SessionToRecover, Result<SessionState<'_>, StateError>) + 'a;

/// What an extraction has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtractionStats {
    /// READs posted.
    pub reads: u64,
    /// Bytes asked for.
    pub bytes_read: u64,
    /// Boxes read again because no whole version was found.
    pub retries: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Whole,
    Headers,
    Payload,
}

/// A session whose box is being read.
#[derive(Debug)]
struct Job {
    session: SessionToRecover,
    memory: RemoteSlice,
    layout: BoxLayout,
    buffer: BufferId,
    phase: Phase,
    attempts: u32,
    /// How often the queue was full although nothing of this extraction was in it.
    refusals: u32,
    /// Number of the last batch, and how much of it has not completed; with nothing under way, the next waits to be
    /// posted.
    batch: u64,
    under_way: usize,
    failed: Option<TransportError>,
}

/// Extracts the state of many sessions through one transport.
#[derive(Debug)]
pub struct Extraction {
    config: ExtractionConfig,
    memory: RemoteSlice,
    waiting: VecDeque<SessionToRecover>,
    jobs: Vec<Job>,
    idle_buffers: Vec<(BufferId, usize)>,
    batches: u64,
    completions: Vec<Completion>,
    stats: ExtractionStats,
}

/// Work identifiers of extractions have the highest bit set, which a monitor's never have; the rest is the number of the
/// batch. Both poll all completions of their transport, so each needs a channel of its own while the other works.
const EXTRACTION_WORK: u64 = 1 << 63;

impl Extraction {
    /// An extraction of `sessions`, whose State Boxes lie in the node's recovery hook `memory`.
    pub fn new(
        config: ExtractionConfig,
        memory: RemoteSlice,
        sessions: impl IntoIterator<Item = SessionToRecover>,
    ) -> Self {
        Extraction {
            config,
            memory,
            waiting: sessions.into_iter().collect(),
            jobs: Vec::new(),
            idle_buffers: Vec::new(),
            batches: 0,
            completions: Vec::new(),
            stats: ExtractionStats::default(),
        }
    }

    /// Adds a session, which is read in its turn; one that is being read already is read again.
    pub fn add(&mut self, session: SessionToRecover) {
        self.waiting.push_back(session);
    }

    /// What it has cost so far.
    pub fn stats(&self) -> ExtractionStats {
        self.stats
    }

    /// Whether every session has been answered.
    pub fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.jobs.is_empty()
    }

    /// Takes in what has completed and posts what can be posted. Hands every session to `answer` once. To be called
    /// until [`is_done`](Self::is_done).
    ///
    /// A broken channel fails the sessions that were under way; the others wait until the caller has opened it again, as
    /// they wait for room in a full queue.
    pub fn step<T: Transport>(&mut self, transport: &mut T, answer: &mut Answer<'_>) {
        self.collect(transport, answer);
        while self.post_waiting(transport, answer) | self.start_jobs(transport, answer) {
            self.collect(transport, answer);
        }
        if self.is_done() {
            for (buffer, _) in self.idle_buffers.drain(..) {
                let _ = transport.release(buffer);
            }
        }
    }

    fn collect<T: Transport>(&mut self, transport: &mut T, answer: &mut Answer<'_>) {
        let mut completions = std::mem::take(&mut self.completions);
        loop {
            completions.clear();
            transport.poll(&mut completions);
            if completions.is_empty() {
                break;
            }
            for completion in &completions {
                self.complete(completion, transport, answer);
            }
        }
        self.completions = completions;
    }

    fn complete<T: Transport>(&mut self, completion: &Completion, transport: &mut T, answer: &mut Answer<'_>) {
        let Some(at) = self.jobs.iter().position(|job| completion.id == WorkId(EXTRACTION_WORK | job.batch)) else {
            return;
        };
        let job = &mut self.jobs[at];
        job.under_way = job.under_way.saturating_sub(1);
        if let Err(error) = completion.result {
            job.failed.get_or_insert(error);
        }
        if job.under_way > 0 {
            return;
        }
        let (failed, phase) = (job.failed, job.phase);
        let next = match (failed, phase) {
            (Some(error), _) => return self.end(at, Err(StateError::Transport(error)), answer),
            (None, Phase::Headers) => Phase::Payload,
            (None, phase) => {
                // Checked once: that takes as long as the copy.
                let state = read_state(job, transport);
                let torn = matches!(
                    state,
                    Err(StateError::StateBox(StateBoxError::NoWholeVersion { .. } | StateBoxError::Format(_)))
                );
                if !torn || job.attempts >= self.config.attempts {
                    return self.end(at, state, answer);
                }
                self.stats.retries += 1;
                if phase == Phase::Whole { Phase::Whole } else { Phase::Headers }
            }
        };
        self.jobs[at].phase = next;
        self.post_or_end(at, transport, answer);
    }

    fn end(&mut self, at: usize, state: Result<SessionState<'_>, StateError>, answer: &mut Answer<'_>) {
        let job = self.jobs.swap_remove(at);
        answer(&job.session, state);
        self.idle_buffers.push((job.buffer, job.layout.total_words()));
    }

    /// Posts what found no room before; answers whether anything was posted.
    fn post_waiting<T: Transport>(&mut self, transport: &mut T, answer: &mut Answer<'_>) -> bool {
        let mut posted = false;
        // From the last to the first: one that ends gives its place to the last.
        for at in (0..self.jobs.len()).rev() {
            posted |= self.jobs[at].under_way == 0 && self.post_or_end(at, transport, answer);
        }
        posted
    }

    fn post_or_end<T: Transport>(&mut self, at: usize, transport: &mut T, answer: &mut Answer<'_>) -> bool {
        match self.post(at, transport) {
            Ok(posted) => posted,
            Err(error) => {
                self.end(at, Err(error), answer);
                false
            }
        }
    }

    /// Starts as many sessions as the window and the queue allow; answers whether any was started.
    fn start_jobs<T: Transport>(&mut self, transport: &mut T, answer: &mut Answer<'_>) -> bool {
        let mut started = false;
        while self.jobs.len() < self.config.window.max(1) && transport.channel() == ChannelState::Open {
            let Some(session) = self.waiting.pop_front() else { break };
            match self.start(session, transport) {
                Ok(true) => started = true,
                Ok(false) => break,
                Err(error) => answer(&session, Err(error)),
            }
        }
        started
    }

    /// Begins with a session; answers whether its first READs were posted.
    fn start<T: Transport>(&mut self, session: SessionToRecover, transport: &mut T) -> Result<bool, StateError> {
        let location = session.record.state_box.ok_or(StateError::BadLocation)?;
        let memory = self.memory.part(location.offset, location.words).ok_or(StateError::BadLocation)?;
        let layout = usize::try_from(memory.words).ok().and_then(BoxLayout::of_words).ok_or(StateError::BadLocation)?;
        let words = layout.total_words();
        let buffer = self.buffer_for(words, transport)?;
        let phase = if words <= self.config.whole_up_to_words { Phase::Whole } else { Phase::Headers };
        let (attempts, refusals, batch, under_way, failed) = (0, 0, 0, 0, None);
        self.jobs.push(Job { session, memory, layout, buffer, phase, attempts, refusals, batch, under_way, failed });
        let at = self.jobs.len() - 1;
        self.post(at, transport).inspect_err(|_| {
            self.jobs.truncate(at);
            self.idle_buffers.push((buffer, words));
        })
    }

    /// A buffer of that length. Lengths are the node's choice, so those that don't fit are given back rather than kept:
    /// there are never more buffers than the window allows.
    fn buffer_for<T: Transport>(&mut self, words: usize, transport: &mut T) -> Result<BufferId, StateError> {
        if let Some(at) = self.idle_buffers.iter().position(|(_, room)| *room == words) {
            return Ok(self.idle_buffers.swap_remove(at).0);
        }
        let idle = self.config.window.saturating_sub(self.jobs.len() + 1);
        for (buffer, _) in self.idle_buffers.drain(idle.min(self.idle_buffers.len())..) {
            let _ = transport.release(buffer);
        }
        transport.allocate(words).map_err(|_| StateError::NoBuffer { words })
    }

    /// Posts the READs of a job's phase as one batch; answers whether there was room for it.
    fn post<T: Transport>(&mut self, at: usize, transport: &mut T) -> Result<bool, StateError> {
        let alone = self.jobs.iter().all(|job| job.under_way == 0);
        let job = &mut self.jobs[at];
        let whole = 0..job.layout.total_words();
        let (ranges, count) = match job.phase {
            Phase::Whole => ([whole, 0..0, 0..0], 1),
            Phase::Headers => (job.layout.header_ranges(), 3),
            Phase::Payload => {
                let copy = transport.buffer(job.buffer).ok();
                let range = copy.and_then(|copy| job.layout.committed_range(copy)).unwrap_or(whole);
                // An empty payload is there already; a word more keeps every phase at one READ or more.
                ([range.start..range.end.max(range.start + 1), 0..0, 0..0], 1)
            }
        };
        let ranges = &ranges[..count];
        let id = WorkId(EXTRACTION_WORK | (self.batches + 1));
        let request = |range: &Range<usize>| {
            let from = job.memory.part(range.start as u64, range.len() as u64).ok_or(StateError::BadLocation)?;
            let into = LocalSlice { buffer: job.buffer, offset: range.start };
            Ok::<_, StateError>(WorkRequest { id, operation: Operation::Read { from, into } })
        };
        let mut batch = [request(&ranges[0])?; 3];
        for (place, range) in batch.iter_mut().zip(ranges).skip(1) {
            *place = request(range)?;
        }
        let batch = &batch[..count];
        match transport.post(batch) {
            Ok(()) => {}
            Err(PostError::NotOpen) => return Ok(false),
            Err(error @ PostError::QueueFull { .. }) => {
                job.refusals += u32::from(alone);
                return if job.refusals > self.config.attempts { Err(error.into()) } else { Ok(false) };
            }
            Err(error) => return Err(error.into()),
        }
        self.batches += 1;
        self.stats.reads += batch.len() as u64;
        self.stats.bytes_read += ranges.iter().map(|range| (range.len() * WORD_BYTES) as u64).sum::<u64>();
        job.attempts += u32::from(job.phase != Phase::Payload);
        job.batch = self.batches;
        job.under_way = batch.len();
        Ok(true)
    }
}

fn read_state<'t, T: Transport>(job: &Job, transport: &'t T) -> Result<SessionState<'t>, StateError> {
    let words = job.layout.total_words();
    let copy = transport.buffer(job.buffer).map_err(|_| StateError::NoBuffer { words })?;
    let view = StateBoxView::read(copy).map_err(StateBoxError::from)?;
    let (expected, found) = (job.session.record.session, view.session());
    if expected != found {
        return Err(StateError::WrongSession { expected, found });
    }
    let (incarnation, unclaimed) = (view.incarnation(), view.unclaimed());
    Ok(SessionState { session: found, incarnation, unclaimed, committed: view.committed()? })
}
