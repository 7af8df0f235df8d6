//! Reading State Boxes out of a failed node.
//!
//! A small box is read whole, in one round trip. Of a large one first the head is read, then just the committed payload,
//! so that the bytes that cross the wire are those of the state and little more. Whatever comes back is checked as a
//! whole; a version that is not (its writer still runs) is read again, a few times.

use std::collections::VecDeque;

use super::plan::SessionToRecover;
use crate::progress_box::StateBoxLocation;
use crate::state_box::{
    Committed, CommittedVersion, HEAD_WORDS, MAX_PAYLOAD_BYTES, StateBoxError, StateBoxHead, words_needed,
};
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

impl ExtractionConfig {
    /// Whether a box of that many words is read whole, and not its head first.
    pub fn reads_whole(&self, box_words: usize) -> bool {
        box_words <= self.whole_up_to_words
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

/// What a job's READ is to bring.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Whole,
    Head,
    Payload(Head),
}

/// What a session's head has said.
#[derive(Clone, Copy, Debug)]
struct Head {
    incarnation: u64,
    unclaimed: u64,
    version: CommittedVersion,
}

/// A session whose box is being read, in a place of the window.
#[derive(Debug)]
struct Job {
    /// Which of the extraction's sessions.
    session: usize,
    memory: RemoteSlice,
    /// Words of the memory.
    words: usize,
    buffer: BufferId,
    /// Words of the buffer.
    room: usize,
    phase: Phase,
    attempts: u32,
    /// How often the queue was full although nothing of this extraction was in it.
    refusals: u32,
    /// The READ under way.
    read: Option<WorkId>,
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
    completions: Vec<Completion>,
    stats: ExtractionStats,
}

/// Work identifiers of extractions have the highest bit set, which a monitor's never have; the rest is the number of the
/// READ, above the job's place. Both poll all completions of their transport, so each needs a channel of its own while
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
        let Some(job) = self.jobs.get_mut(at).filter(|job| job.read == Some(completion.id)) else {
            return;
        };
        job.read = None;
        let found = match completion.result {
            Ok(_) => look(job, &self.sessions[job.session], transport),
            Err(error) => Err(StateError::Transport(error)),
        };
        let error = match found {
            Ok(Found::State(state)) => return self.end(at, Ok(state), answer),
            Ok(Found::Head(head)) => {
                job.phase = Phase::Payload(head);
                if !self.advance(at, transport, answer) {
                    self.ready.push_back(at);
                }
                return;
            }
            Err(error) => error,
        };
        let torn =
            matches!(error, StateError::StateBox(StateBoxError::NoWholeVersion { .. } | StateBoxError::Format(_)));
        if torn && job.attempts < self.config.attempts {
            self.stats.retries += 1;
            if let Phase::Payload(_) = job.phase {
                job.phase = Phase::Head;
            }
            return self.ready.push_back(at);
        }
        self.end(at, Err(error), answer);
    }

    #[inline]
    fn end(&mut self, at: usize, state: Result<SessionState<'_>, StateError>, answer: &mut Answer<'_>) {
        let job = &self.jobs[at];
        answer(&self.sessions[job.session], state);
        self.idle_buffers.push((job.buffer, job.room));
        self.over.push(at);
    }

    /// Posts what the queue has room for: what has begun first, then new sessions. Answers whether anything was posted.
    fn post_ready<T: Transport>(&mut self, transport: &mut T, answer: &mut Answer<'_>) -> bool {
        let before = self.stats.reads;
        while let Some(at) = self.ready.pop_front().or_else(|| self.begin_next(transport, answer)) {
            if !self.advance(at, transport, answer) {
                self.ready.push_front(at);
                break;
            }
        }
        self.stats.reads > before
    }

    /// Posts a job's READ, or ends a job that can't be; answers `false` if there is no room now.
    fn advance<T: Transport>(&mut self, at: usize, transport: &mut T, answer: &mut Answer<'_>) -> bool {
        self.post(at, transport).unwrap_or_else(|error| {
            self.end(at, Err(error), answer);
            true
        })
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
        let words = usize::try_from(memory.words).map_err(|_| StateError::BadLocation)?;
        if !(words_needed(1)..=words_needed(MAX_PAYLOAD_BYTES)).contains(&words) {
            return Err(StateError::BadLocation);
        }
        // Of a box that is not read whole, there is never more in the buffer than its head, or the payload of one slot.
        let (phase, room) = if self.config.reads_whole(words) {
            (Phase::Whole, words)
        } else {
            (Phase::Head, HEAD_WORDS.max((words - HEAD_WORDS) / 2))
        };
        let buffer = self.buffer_for(room, transport)?;
        let job = Job { session, memory, words, buffer, room, phase, attempts: 0, refusals: 0, read: None };
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

    /// Posts a job's READ; answers whether there was room for it.
    fn post<T: Transport>(&mut self, at: usize, transport: &mut T) -> Result<bool, StateError> {
        // Besides this job, all that have begun are ready: none is under way.
        let alone = self.begun() == self.ready.len() + 1;
        let job = &mut self.jobs[at];
        let id = WorkId(EXTRACTION_WORK | (self.stats.reads + 1) << PLACE_BITS | at as u64);
        let range = match &job.phase {
            Phase::Whole => 0..job.words,
            Phase::Head => 0..HEAD_WORDS,
            Phase::Payload(head) => head.version.range(),
        };
        let from = job.memory.part(range.start as u64, range.len() as u64).ok_or(StateError::BadLocation)?;
        let operation = Operation::Read { from, into: LocalSlice::start_of(job.buffer) };
        match transport.post(&[WorkRequest { id, operation }]) {
            Ok(()) => {}
            Err(PostError::NotOpen) => return Ok(false),
            Err(error @ PostError::QueueFull { .. }) => {
                job.refusals += u32::from(alone);
                return if job.refusals > self.config.attempts { Err(error.into()) } else { Ok(false) };
            }
            Err(error) => return Err(error.into()),
        }
        self.stats.reads += 1;
        self.stats.bytes_read += (range.len() * WORD_BYTES) as u64;
        job.attempts += u32::from(!matches!(job.phase, Phase::Payload(_)));
        job.read = Some(id);
        Ok(true)
    }
}

/// What is there after a READ.
enum Found<'t> {
    /// Only the head, which says where the payload lies.
    Head(Head),
    State(SessionState<'t>),
}

fn look<'t, T: Transport>(job: &Job, session: &SessionToRecover, transport: &'t T) -> Result<Found<'t>, StateError> {
    let copy = transport.buffer(job.buffer).map_err(|_| StateError::NoBuffer { words: job.room })?;
    let (head, payload) = match job.phase {
        Phase::Whole => {
            let head = Head::read(copy, job, session)?;
            (head, &copy[head.version.range()])
        }
        Phase::Head => {
            let head = Head::read(copy, job, session)?;
            if !head.version.range().is_empty() {
                return Ok(Found::Head(head));
            }
            (head, &copy[..0])
        }
        Phase::Payload(head) => (head, copy),
    };
    let Head { incarnation, unclaimed, version } = head;
    let committed = version.read(payload)?;
    Ok(Found::State(SessionState { session: session.record.session, incarnation, unclaimed, committed }))
}

impl Head {
    #[inline]
    fn read(copy: &[u64], job: &Job, session: &SessionToRecover) -> Result<Self, StateError> {
        let head = StateBoxHead::read(copy, job.words).map_err(StateBoxError::from)?;
        let (expected, found) = (session.record.session, head.session());
        if expected != found {
            return Err(StateError::WrongSession { expected, found });
        }
        Ok(Head { incarnation: head.incarnation(), unclaimed: head.unclaimed(), version: head.committed()? })
    }
}
