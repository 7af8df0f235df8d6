//! A session of the service, as its State Box holds it: what its client asked for, and what it was promised. No I/O.
//!
//! Output is promised before it is sent. What was promised can be made again, from any byte that the client has not
//! acknowledged; so is what a successor replays. Input is taken in as it comes, the first half of a request's head, too; so
//! nothing stays in the session's socket that it can do nothing about.
//!
//! A State Box holds a state that [has room](WebState::has_room) whatever its client does next, in [`STATE_BYTES`]. Without
//! room no further request is taken in, until the client has acknowledged some of what it was answered.
//!
//! In the box it is one line of JSON, then the bytes of the head that was begun, and then [ballast](super::ballast), if an
//! experiment wants larger states.

use std::collections::VecDeque;
use std::ops::Range;

use backdoor_host::tcp::MAX_REFILL_BYTES;
use serde::{Deserialize, Serialize};
use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest, Sha256};

use super::ballast::Ballast;
use super::promised::Promised;
use super::request::{self, MAX_CONTENT_BYTES, MAX_HEAD_BYTES, Request};

/// Most bytes of content that are promised at once: what is sent between two commits.
pub const CHUNK_BYTES: u64 = 64 << 10;
/// Bytes of a State Box with room for any state and some twenty answers that are on their way.
pub const STATE_BYTES: usize = 8 << 10;
/// Fewest bytes of a State Box in which a session gets on, one answer at a time.
pub const LEAST_STATE_BYTES: usize = EMPTY_BYTES + MAX_HEAD_BYTES + NEXT_BYTES;

/// Most bytes of a state that has promised nothing and begun no head: numbers, names, and a hash.
const EMPTY_BYTES: usize = 640;
/// Most bytes by which a state grows by the next request or piece of content, beside its head.
const NEXT_BYTES: usize = 512;

/// Why a session ends: its client asks for what makes no sense, or a state is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebError {
    /// The request can't be understood.
    #[error("a request can't be understood: {0}")]
    Request(String),
    /// The state can't be carried on.
    #[error("the session's state can't be carried on: {0}")]
    State(String),
    /// Bytes are to be replayed that were not kept.
    #[error("output from byte {from} on is to be replayed, and is kept from byte {kept} on")]
    NotKept {
        /// The first of them.
        from: u64,
        /// The first that is kept.
        kept: u64,
    },
}

/// One client's session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebState {
    /// Requests to count that were acted upon here.
    count: u64,
    /// Whether a worker counts, and is to be asked.
    #[serde(skip)]
    asks: bool,
    doing: Doing,
    /// Output that the client may not have acknowledged, in order, without gaps.
    promised: VecDeque<Promised>,
    /// Place in the output of the first byte of `promised`.
    kept_from: u64,
    /// The first bytes of a request whose head is not whole.
    #[serde(skip)]
    begun: Vec<u8>,
    /// What it carries along.
    #[serde(default, skip_serializing_if = "Ballast::is_none")]
    ballast: Ballast,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Doing {
    #[default]
    Nothing,
    /// So many bytes of content are still to be promised.
    Sending { seed: u64, at: u64, end: u64 },
    /// A worker was asked to count.
    Asking,
    /// So many bytes of a body are still to come; the hash of those before.
    Receiving { left: u64, hash: Vec<u8> },
}

impl WebState {
    /// One that has done nothing yet, and carries so many bytes along; no more than
    /// [`MAX_BALLAST_BYTES`](super::ballast::MAX_BALLAST_BYTES).
    pub fn with_ballast(bytes: usize) -> Self {
        WebState { ballast: Ballast::new(bytes), ..WebState::default() }
    }

    /// Reads a state back. None at all is that of a session that has done nothing yet.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WebError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let line = bytes.iter().position(|byte| *byte == b'\n');
        let line = line.ok_or_else(|| WebError::State("its first line does not end".into()))?;
        let (json, rest) = (&bytes[..line], &bytes[line + 1..]);
        let state: WebState = serde_json::from_slice(json).map_err(|error| WebError::State(error.to_string()))?;
        let begun = state.ballast.split_off(state.promised(), rest)?.to_vec();
        let state = WebState { begun, ..state };
        state.check()?;
        Ok(state)
    }

    /// Writes it into `bytes`, which are overwritten.
    pub fn to_bytes(&self, bytes: &mut Vec<u8>) {
        bytes.clear();
        // Integers, text, and no maps: nothing that JSON can't hold.
        let _ = serde_json::to_writer(&mut *bytes, self);
        bytes.push(b'\n');
        bytes.extend(&self.begun);
        self.ballast.append(self.promised(), bytes);
    }

    fn check(&self) -> Result<(), WebError> {
        let wrong = |what: &str| Err(WebError::State(what.into()));
        let kept = self.promised.iter().try_fold(self.kept_from, |at, promised| at.checked_add(promised.length()));
        // Half of what can be counted is left for what comes.
        if kept.is_none_or(|end| end > u64::MAX / 2) || self.count > u64::MAX / 2 {
            return wrong("more was promised than can be counted");
        }
        if !self.promised.iter().all(Promised::is_possible) {
            return wrong("content past its end was promised");
        }
        if self.begun.len() >= MAX_HEAD_BYTES || self.doing != Doing::Nothing && !self.begun.is_empty() {
            return wrong("a head was begun that can't be");
        }
        match &self.doing {
            Doing::Sending { at, end, .. } if at > end || *end > MAX_CONTENT_BYTES => wrong("it sends past an end"),
            Doing::Receiving { hash, .. } => resume_hash(hash).map(drop),
            _ => Ok(()),
        }
    }

    /// Bytes of output promised so far.
    pub fn promised(&self) -> u64 {
        self.promised.iter().fold(self.kept_from, |at, promised| at.saturating_add(promised.length()))
    }

    /// Whether it can go on without the client: there is content to be promised.
    pub fn has_more(&self) -> bool {
        matches!(self.doing, Doing::Sending { .. })
    }

    /// Has a worker count from now on.
    pub fn ask_a_worker(&mut self) {
        self.asks = true;
    }

    /// Whether a worker is to answer before it can go on.
    pub fn is_asking(&self) -> bool {
        self.doing == Doing::Asking
    }

    /// The worker has counted: answers with that.
    pub fn counted(&mut self, count: u64) {
        if self.is_asking() {
            self.doing = Doing::Nothing;
            self.answer(&format!("{count}\n"));
        }
    }

    /// Whether a box of so many bytes holds it after one more request or piece of content, and any part of a head.
    pub fn has_room(&self, box_bytes: usize) -> bool {
        self.most_bytes() + NEXT_BYTES <= box_bytes
    }

    /// Most bytes that it takes, with any part of a head.
    fn most_bytes(&self) -> usize {
        EMPTY_BYTES
            + MAX_HEAD_BYTES
            + self.ballast.bytes()
            + self.promised.iter().map(Promised::state_bytes).sum::<usize>()
    }

    /// Promises the next piece of content.
    pub fn promise_more(&mut self) {
        let Doing::Sending { seed, at, end } = &mut self.doing else { return };
        let length = CHUNK_BYTES.min(*end - *at);
        let piece = Promised::Content { seed: *seed, at: *at, length };
        *at += length;
        if at == end {
            self.doing = Doing::Nothing;
        }
        self.promised.push_back(piece);
    }

    /// Takes in what it can of `input`, the bytes behind those taken before; answers how many that were. That is all of it,
    /// unless there is content to be promised or a worker to be asked first, or a box of `box_bytes` bytes has no room.
    pub fn take(&mut self, input: &[u8], box_bytes: usize) -> Result<usize, WebError> {
        let mut taken = 0;
        loop {
            let rest = &input[taken..];
            match &mut self.doing {
                Doing::Sending { .. } | Doing::Asking => return Ok(taken),
                Doing::Receiving { left, hash } => {
                    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    let mut hasher = resume_hash(hash)?;
                    hasher.update(&rest[..length]);
                    taken += length;
                    *left -= length as u64;
                    if *left > 0 {
                        *hash = hasher.serialize().to_vec();
                        return Ok(taken);
                    }
                    self.doing = Doing::Nothing;
                    self.answer(&format!("{}\n", hex(&hasher.finalize())));
                }
                Doing::Nothing => {
                    if rest.is_empty() || !self.has_room(box_bytes) {
                        return Ok(taken);
                    }
                    taken += self.take_head(rest)?;
                }
            }
        }
    }

    /// Takes in a head, or as much of it as there is.
    fn take_head(&mut self, input: &[u8]) -> Result<usize, WebError> {
        let before = self.begun.len();
        let more = input.len().min(MAX_HEAD_BYTES - before);
        let mut head = std::mem::take(&mut self.begun);
        head.extend(&input[..more]);
        match request::parse(&head).map_err(WebError::Request)? {
            Some((request, length)) => {
                self.act_upon(request);
                Ok(length - before)
            }
            None if head.len() < MAX_HEAD_BYTES => {
                self.begun = head;
                Ok(more)
            }
            None => Err(WebError::Request("its head is too long".into())),
        }
    }

    fn act_upon(&mut self, request: Request) {
        match request {
            Request::Content { bytes, seed } => {
                self.say(format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {bytes}\r\n\r\n"
                ));
                if bytes > 0 {
                    self.doing = Doing::Sending { seed, at: 0, end: bytes };
                }
            }
            Request::Count if self.asks => self.doing = Doing::Asking,
            Request::Count => {
                self.count += 1;
                self.answer(&format!("{}\n", self.count));
            }
            Request::Upload { bytes, asks_first } => {
                if asks_first {
                    self.say("HTTP/1.1 100 Continue\r\n\r\n".into());
                }
                self.doing = Doing::Receiving { left: bytes, hash: Sha256::new().serialize().to_vec() };
            }
        }
    }

    fn answer(&mut self, body: &str) {
        self.say(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
    }

    fn say(&mut self, text: String) {
        self.promised.push_back(Promised::Text(text));
    }

    /// Forgets output before `acknowledged`, which the client has.
    pub fn forget(&mut self, acknowledged: u64) {
        while let Some(first) = self.promised.front()
            && self.kept_from + first.length() <= acknowledged
        {
            self.kept_from += first.length();
            self.promised.pop_front();
        }
    }

    /// Until which byte the client must acknowledge output for one segment to be forgotten; `None` if none is kept.
    pub fn oldest_end(&self) -> Option<u64> {
        self.promised.front().map(|oldest| self.kept_from + oldest.length())
    }

    /// Makes output again that a client asks for; nothing if it can't be made, which whoever counts its bytes misses.
    pub(super) fn replay(&self, range: Range<u64>) -> Vec<u8> {
        match range.end.checked_sub(range.start) {
            Some(bytes) if bytes <= MAX_REFILL_BYTES as u64 => self.output(range).unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// Makes output again.
    pub fn output(&self, range: Range<u64>) -> Result<Vec<u8>, WebError> {
        if range.start < self.kept_from {
            return Err(WebError::NotKept { from: range.start, kept: self.kept_from });
        }
        let mut output = vec![0; (range.end.min(self.promised()).saturating_sub(range.start)) as usize];
        let mut at = self.kept_from;
        for promised in &self.promised {
            let length = promised.length();
            let (from, to) = (range.start.max(at), range.end.min(at + length));
            if from < to {
                let into = &mut output[(from - range.start) as usize..(to - range.start) as usize];
                promised.write(from - at, into);
            }
            at += length;
        }
        Ok(output)
    }
}

fn resume_hash(bytes: &[u8]) -> Result<Sha256, WebError> {
    let no_hash = || WebError::State("a hash that is none".into());
    let state = bytes.try_into().map_err(|_| no_hash())?;
    Sha256::deserialize(state).map_err(|_| no_hash())
}

/// Bytes as text.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
