//! Reading State Boxes out of a failed node.
//!
//! A small box is read whole, in one round trip. Of a large one first the header and both slots' headers are read, then
//! just the committed payload, so that the bytes that cross the wire are those of the state and little more. Whatever
//! comes back is checked as a whole; a version that is not (its writer still runs) is read again, a few times.

use std::collections::VecDeque;
use std::ops::Range;

use super::plan::SessionToRecover;
use crate::progress_box::StateBoxLocation;
use crate::state_box::{BoxLayout, Committed, StateBoxError, StateBoxView};
use crate::transport::{
    BufferId, ChannelState, Completion, LocalSlice, Operation, PostError, RemoteSlice, Transport, TransportError,
    WorkId, WorkRequest,
};
use crate::words::WORD_BYTES;

/// How to extract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtractionConfig {
    /// State Boxes read at the same time, each into a buffer of its own; at most 65,536.
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

/// A session whose box is being read, in a place of the window.
#[derive(Debug)]
struct Job {
    /// Which of the extraction's sessions.
    session: usize,
    memory: RemoteSlice,
    layout: BoxLayout,
    /// As long as the box.
    buffer: BufferId,
    phase: Phase,
    attempts: u32,
    /// How often the queue was full although nothing of this extraction was in it.
    refusals: u32,
    /// The batch posted last, how many of its READs have not completed, and the first error among those that have.
    batch: WorkId,
    under_way: usize,
    failed: Option<TransportError>,
}

/// Extracts the state of many sessions through one transport.
#[derive(Debug)]
pub struct Extraction {
    config: ExtractionConfig,
    memory: RemoteSlice,
    /// Kept in one place until all are answered; those from `next` on have not been begun.
    sessions: Vec<SessionToRecover>,
    next: usize,
    /// Jobs by their place in the window, where they stay. The READs of those that are neither `over` nor `ready` are
    /// under way.
    jobs: Vec<Job>,
    /// Places of jobs whose sessions have been answered: free.
    over: Vec<usize>,
    /// Places of jobs whose READs wait to be posted, in this order.
    ready: VecDeque<usize>,
    idle_buffers: Vec<(BufferId, usize)>,
    batches: u64,
    batch: Vec<WorkRequest>,
    completions: Vec<Completion>,
    stats: ExtractionStats,
}

/// Work identifiers of extractions have the highest bit set, which a monitor's never have; the rest is the number of the
/// batch, above the job's place. Both poll all completions of their transport, so each needs a channel of its own while
/// the other works.
const EXTRACTION_WORK: u64 = 1 << 63;
const PLACE_BITS: u32 = 16;
const PLACES: usize = 1 << PLACE_BITS;

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
            sessions: sessions.into_iter().collect(),
            next: 0,
            jobs: Vec::new(),
            over: Vec::new(),
            ready: VecDeque::new(),
            idle_buffers: Vec::new(),
            batches: 0,
            batch: Vec::new(),
            completions: Vec::new(),
            stats: ExtractionStats::default(),
        }
    }

    /// Adds a session, which is read in its turn; one that is being read already is read again.
    pub fn add(&mut self, session: SessionToRecover) {
        self.sessions.push(session);
    }

    /// What it has cost so far.
    pub fn stats(&self) -> ExtractionStats {
        self.stats
    }

    /// Whether every session has been answered.
    pub fn is_done(&self) -> bool {
        self.next == self.sessions.len() && self.begun() == 0
    }

    /// How many sessions have begun and not been answered.
    fn begun(&self) -> usize {
        self.jobs.len() - self.over.len()
    }

    /// Takes in what has completed and posts what can be posted. Hands every session to `answer` once. To be called
    /// until [`is_done`](Self::is_done).
    ///
    /// A broken channel fails the sessions that were under way; the others wait until the caller has opened it again, as
    /// they wait for room in a full queue.
    pub fn step<T: Transport>(&mut self, transport: &mut T, answer: &mut Answer<'_>) {
        while self.collect(transport, answer) | self.post_ready(transport, answer) {}
        if self.is_done() {
            self.sessions.clear();
            self.next = 0;
            for (buffer, _) in self.idle_buffers.drain(..) {
                let _ = transport.release(buffer);
            }
        }
    }

    /// Takes in what has completed; answers whether anything has.
    fn collect<T: Transport>(&mut self, transport: &mut T, answer: &mut Answer<'_>) -> bool {
        let mut completions = std::mem::take(&mut self.completions);
        completions.clear();
        transport.poll(&mut completions);
        for completion in &completions {
            self.complete(completion, transport, answer);
        }
        let any = !completions.is_empty();
        self.completions = completions;
        any
    }

    fn complete<T: Transport>(&mut self, completion: &Completion, transport: &mut T, answer: &mut Answer<'_>) {
        let at = completion.id.0 as usize % PLACES;
        let Some(job) = self.jobs.get_mut(at).filter(|job| job.batch == completion.id && job.under_way > 0) else {
            return;
        };
        job.under_way -= 1;
        if let Err(error) = completion.result {
            job.failed.get_or_insert(error);
        }
        if job.under_way > 0 {
            return;
        }
        let state = match (job.failed, job.phase) {
            (Some(error), _) => Err(StateError::Transport(error)),
            (None, Phase::Headers) => {
                job.phase = Phase::Payload;
                return self.ready.push_back(at);
            }
            // Checked once: that takes half as long as the READ.
            (None, Phase::Whole | Phase::Payload) => read_state(job, &self.sessions[job.session], transport),
        };
        let torn =
            matches!(state, Err(StateError::StateBox(StateBoxError::NoWholeVersion { .. } | StateBoxError::Format(_))));
        if torn && job.attempts < self.config.attempts {
            self.stats.retries += 1;
            if job.phase == Phase::Payload {
                job.phase = Phase::Headers;
            }
            return self.ready.push_back(at);
        }
        self.end(at, state, answer);
    }

    #[inline]
    fn end(&mut self, at: usize, state: Result<SessionState<'_>, StateError>, answer: &mut Answer<'_>) {
        let job = &self.jobs[at];
        answer(&self.sessions[job.session], state);
        self.idle_buffers.push((job.buffer, job.layout.total_words()));
        self.over.push(at);
    }

    /// Posts what the queue has room for: what has begun first, then new sessions. Answers whether anything was posted.
    fn post_ready<T: Transport>(&mut self, transport: &mut T, answer: &mut Answer<'_>) -> bool {
        let before = self.batches;
        while let Some(at) = self.ready.pop_front().or_else(|| self.begin_next(transport, answer)) {
            match self.post(at, transport) {
                Ok(true) => {}
                Ok(false) => {
                    self.ready.push_front(at);
                    break;
                }
                Err(error) => self.end(at, Err(error), answer),
            }
        }
        self.batches > before
    }

    /// Begins with the next session that can be, if the window and the channel allow one more; answers its place.
    fn begin_next<T: Transport>(&mut self, transport: &mut T, answer: &mut Answer<'_>) -> Option<usize> {
        let window = self.config.window.clamp(1, PLACES);
        while self.begun() < window && transport.channel() == ChannelState::Open {
            let session = self.next;
            let location = self.sessions.get(session)?.record.state_box;
            self.next += 1;
            match self.begin(session, location, transport) {
                Ok(at) => return Some(at),
                Err(error) => answer(&self.sessions[session], Err(error)),
            }
        }
        None
    }

    fn begin<T: Transport>(
        &mut self,
        session: usize,
        location: Option<StateBoxLocation>,
        transport: &mut T,
    ) -> Result<usize, StateError> {
        let location = location.ok_or(StateError::BadLocation)?;
        let memory = self.memory.part(location.offset, location.words).ok_or(StateError::BadLocation)?;
        let layout = usize::try_from(memory.words).ok().and_then(BoxLayout::of_words).ok_or(StateError::BadLocation)?;
        let words = layout.total_words();
        let phase = if words <= self.config.whole_up_to_words { Phase::Whole } else { Phase::Headers };
        let buffer = self.buffer_for(words, transport)?;
        let (batch, under_way, failed) = (WorkId(EXTRACTION_WORK), 0, None);
        let job = Job { session, memory, layout, buffer, phase, attempts: 0, refusals: 0, batch, under_way, failed };
        match self.over.pop() {
            Some(at) => {
                self.jobs[at] = job;
                Ok(at)
            }
            None => {
                self.jobs.push(job);
                Ok(self.jobs.len() - 1)
            }
        }
    }

    /// A buffer of that length. Lengths are the node's choice, so those that don't fit are given back rather than kept:
    /// there are never more buffers than the window allows.
    fn buffer_for<T: Transport>(&mut self, words: usize, transport: &mut T) -> Result<BufferId, StateError> {
        if let Some(at) = self.idle_buffers.iter().rposition(|(_, room)| *room == words) {
            return Ok(self.idle_buffers.swap_remove(at).0);
        }
        let idle = self.config.window.saturating_sub(self.begun() + 1);
        for (buffer, _) in self.idle_buffers.drain(idle.min(self.idle_buffers.len())..) {
            let _ = transport.release(buffer);
        }
        transport.allocate(words).map_err(|_| StateError::NoBuffer { words })
    }

    /// Posts the READs of a job's phase as one batch; answers whether there was room for it.
    fn post<T: Transport>(&mut self, at: usize, transport: &mut T) -> Result<bool, StateError> {
        // Besides this job, all that have begun are ready: none is under way.
        let alone = self.begun() == self.ready.len() + 1;
        let job = &mut self.jobs[at];
        let id = WorkId(EXTRACTION_WORK | (self.batches + 1) << PLACE_BITS | at as u64);
        let mut words = 0;
        self.batch.clear();
        let mut read = |range: Range<usize>| {
            let from = job.memory.part(range.start as u64, range.len() as u64).ok_or(StateError::BadLocation)?;
            let into = LocalSlice { buffer: job.buffer, offset: range.start };
            words += range.len();
            self.batch.push(WorkRequest { id, operation: Operation::Read { from, into } });
            Ok::<_, StateError>(())
        };
        let whole = 0..job.layout.total_words();
        match job.phase {
            Phase::Whole => read(whole)?,
            Phase::Headers => job.layout.header_ranges().into_iter().try_for_each(read)?,
            Phase::Payload => {
                let copy = transport.buffer(job.buffer).ok();
                let range = copy.and_then(|copy| job.layout.committed_range(copy)).unwrap_or(whole);
                // An empty payload is there already; a word more keeps every phase at one READ or more.
                read(range.start..range.end.max(range.start + 1))?;
            }
        }
        match transport.post(&self.batch) {
            Ok(()) => {}
            Err(PostError::NotOpen) => return Ok(false),
            Err(error @ PostError::QueueFull { .. }) => {
                job.refusals += u32::from(alone);
                return if job.refusals > self.config.attempts { Err(error.into()) } else { Ok(false) };
            }
            Err(error) => return Err(error.into()),
        }
        self.batches += 1;
        self.stats.reads += self.batch.len() as u64;
        self.stats.bytes_read += (words * WORD_BYTES) as u64;
        job.attempts += u32::from(job.phase != Phase::Payload);
        (job.batch, job.under_way) = (id, self.batch.len());
        Ok(true)
    }
}

fn read_state<'t, T: Transport>(
    job: &Job,
    session: &SessionToRecover,
    transport: &'t T,
) -> Result<SessionState<'t>, StateError> {
    let words = job.layout.total_words();
    let copy = transport.buffer(job.buffer).map_err(|_| StateError::NoBuffer { words })?;
    let view = StateBoxView::read(copy).map_err(StateBoxError::from)?;
    let (expected, found) = (session.record.session, view.session());
    if expected != found {
        return Err(StateError::WrongSession { expected, found });
    }
    let (incarnation, unclaimed) = (view.incarnation(), view.unclaimed());
    Ok(SessionState { session: found, incarnation, unclaimed, committed: view.committed()? })
}
