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

    /// Segments of output that are kept.
    pub fn kept(&self) -> usize {
        self.promised.len()
    }

    /// The first byte of output that can still be made.
    pub fn kept_from(&self) -> u64 {
        self.kept_from
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
mod tests {
    use super::super::content;
    use super::*;
    use proptest::prelude::*;

    fn text(state: &WebState) -> String {
        String::from_utf8(state.output(state.kept_from..state.promised()).unwrap()).unwrap()
    }

    #[test]
    fn a_count_is_answered_once() {
        let mut state = WebState::default();
        let request = b"POST /count HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(state.take(&request[..20], STATE_BYTES), Ok(20), "not whole, and not left behind");
        assert_eq!((state.promised(), state.begun.len()), (0, 20));
        assert_eq!(state.take(&request[20..], STATE_BYTES), Ok(request.len() - 20));
        assert!(text(&state).ends_with("\r\n\r\n1\n"), "{}", text(&state));
        let two = [request.as_slice(), request].concat();
        assert_eq!(state.take(&two, STATE_BYTES), Ok(two.len()));
        assert!(text(&state).ends_with("\r\n\r\n3\n"), "{}", text(&state));
    }

    #[test]
    fn a_worker_is_asked_once_and_nothing_is_taken_before_it_answers() {
        let mut state = WebState::default();
        state.ask_a_worker();
        let request = b"POST /count HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
        let two = [request.as_slice(), request].concat();
        assert_eq!((state.take(&two, STATE_BYTES), state.is_asking(), state.promised()), (Ok(request.len()), true, 0));
        let mut bytes = Vec::new();
        state.to_bytes(&mut bytes);
        let mut state = WebState::from_bytes(&bytes).unwrap();
        assert_eq!((state.take(request, STATE_BYTES), state.is_asking()), (Ok(0), true));
        state.counted(41);
        assert!(!state.is_asking() && text(&state).ends_with("\r\n\r\n41\n"), "{}", text(&state));
        state.counted(42);
        assert!(text(&state).ends_with("\r\n\r\n41\n"), "nobody asked");
    }

    #[test]
    fn content_is_promised_in_pieces_and_made_again_from_any_byte() {
        let mut state = WebState::default();
        let length = CHUNK_BYTES + 100;
        state.take(format!("GET /bytes/{length}?seed=5 HTTP/1.1\r\n\r\n").as_bytes(), STATE_BYTES).unwrap();
        let head = state.promised();
        assert_eq!(state.take(b"GET /bytes/1 HTTP/1.1\r\n\r\n", STATE_BYTES), Ok(0), "one after the other");
        state.promise_more();
        state.promise_more();
        assert!(!state.has_more());
        assert_eq!(state.promised(), head + length);
        let mut content = vec![0; length as usize];
        content::fill(5, 0, &mut content);
        assert_eq!(state.output(head..head + length).unwrap(), content);
        assert_eq!(state.output(head + 65_530..head + 65_600).unwrap(), content[65_530..65_600], "across pieces");
        state.forget(head + 70);
        assert_eq!(state.kept_from(), head, "the piece is not whole yet");
        assert_eq!(state.output(0..1), Err(WebError::NotKept { from: 0, kept: head }));
        state.forget(head + CHUNK_BYTES);
        assert_eq!(state.kept(), 1);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for request in [
            "GET /secret HTTP/1.1\r\n\r\n",
            "GET /bytes/99999999999999999999 HTTP/1.1\r\n\r\n",
            "DELETE /count HTTP/1.1\r\n\r\n",
            "PUT /upload HTTP/1.1\r\n\r\n",
            "PUT /upload HTTP/1.1\r\nContent-Length: many\r\n\r\n",
            "\u{0}\u{1}\r\n\r\n",
        ] {
            let refused = WebState::default().take(request.as_bytes(), STATE_BYTES);
            assert!(matches!(refused, Err(WebError::Request(_))), "{request:?}: {refused:?}");
        }
        assert!(matches!(WebState::from_bytes(b"{}"), Err(WebError::State(_))), "no line");
        assert_eq!(WebState::from_bytes(b""), Ok(WebState::default()));
        for state in [
            "{}",
            "[1]",
            r#"{"count":18446744073709551615,"doing":"Nothing","promised":[],"kept_from":0}"#,
            r#"{"count":0,"doing":"Nothing","promised":[],"kept_from":18446744073709551615}"#,
            r#"{"count":1,"doing":{"Receiving":{"left":1,"hash":[1]}},"promised":[],"kept_from":0}"#,
            "{\"count\":1,\"doing\":{\"Sending\":{\"seed\":1,\"at\":0,\"end\":9}},\"promised\":[],\"kept_from\":0}\nGET",
            r#"{"count":1,"doing":"Nothing","promised":[{"Content":{"seed":1,"at":9,"length":18446744073709551610}}],"kept_from":0}"#,
        ] {
            let state = format!("{state}\n");
            assert!(matches!(WebState::from_bytes(state.as_bytes()), Err(WebError::State(_))), "{state}");
        }
    }

    #[test]
    fn a_head_of_any_length_is_taken_in_up_to_a_limit() {
        let head = |length: usize| {
            let rest = "POST /count HTTP/1.1\r\nCookie: \r\n\r\n".len();
            format!("POST /count HTTP/1.1\r\nCookie: {}\r\n\r\n", "x".repeat(length - rest)).into_bytes()
        };
        let longest = head(MAX_HEAD_BYTES);
        let mut state = WebState::default();
        for byte in &longest {
            assert_eq!(state.take(std::slice::from_ref(byte), STATE_BYTES), Ok(1));
        }
        assert!(text(&state).ends_with("\r\n\r\n1\n"));
        assert_eq!(WebState::default().take(&longest, STATE_BYTES), Ok(MAX_HEAD_BYTES));
        for pieces in [1, 2] {
            let (too_long, mut state) = (head(MAX_HEAD_BYTES + 1), WebState::default());
            let taken: Result<Vec<_>, _> =
                too_long.chunks(too_long.len().div_ceil(pieces)).map(|piece| state.take(piece, STATE_BYTES)).collect();
            assert_eq!(taken, Err(WebError::Request("its head is too long".into())));
        }
    }

    #[test]
    fn without_room_no_request_is_taken_until_the_client_has_acknowledged_something() {
        let request = b"POST /count HTTP/1.1\r\n\r\n";
        let (mut state, mut bytes) = (WebState::default(), Vec::new());
        let many = request.repeat(1_000);
        let taken = state.take(&many, STATE_BYTES).unwrap();
        assert!(taken < many.len() && taken.is_multiple_of(request.len()) && !state.has_room(STATE_BYTES), "{taken}");
        assert_eq!(state.take(&many[taken..], STATE_BYTES), Ok(0));
        assert!(taken / request.len() > 15, "{taken}");
        state.to_bytes(&mut bytes);
        assert!(bytes.len() + MAX_HEAD_BYTES <= STATE_BYTES);
        let oldest_end = state.oldest_end().unwrap();
        state.forget(oldest_end - 1);
        assert_eq!(state.take(&many[taken..], STATE_BYTES), Ok(0));
        for _ in 0..10 {
            state.forget(state.oldest_end().unwrap());
        }
        assert!(state.take(&many[taken..], STATE_BYTES).unwrap() > 0);
        assert!(
            WebState::default().has_room(LEAST_STATE_BYTES) && !WebState::default().has_room(LEAST_STATE_BYTES - 1)
        );
    }

    #[test]
    fn no_state_that_promised_nothing_takes_more_than_it_is_taken_for() {
        let (left, hash) = (u64::MAX, vec![0xff; Sha256::new().serialize().len()]);
        let doing = Doing::Receiving { left, hash };
        let ballast = Ballast::new(usize::MAX);
        let state = WebState { count: u64::MAX, doing, kept_from: u64::MAX, ballast, ..WebState::default() };
        let mut bytes = Vec::new();
        state.to_bytes(&mut bytes);
        assert!(bytes.len() <= EMPTY_BYTES + ballast.bytes(), "{} bytes", bytes.len());
    }

    proptest! {
        /// Whatever is asked for and acknowledged, in a box of any size: it never outgrows the box.
        #[test]
        fn a_state_fits_its_box(
            asked in proptest::collection::vec((0u8..4, any::<u16>()), 1..80),
            box_bytes in LEAST_STATE_BYTES..2 * STATE_BYTES,
            ballast in prop_oneof![Just(0), 1usize..5000],
        ) {
            let box_bytes = box_bytes + ballast;
            let (mut state, mut bytes) = (WebState { count: u64::MAX >> 1, ..WebState::with_ballast(ballast) }, Vec::new());
            let mut input = Vec::new();
            for (what, number) in asked {
                match what {
                    0 => input.extend(b"POST /count HTTP/1.1\r\nHost: service\r\n\r\n"),
                    1 => input.extend(format!("GET /bytes/{}?seed={} HTTP/1.1\r\n\r\n", u64::from(number) << 4, u64::MAX).bytes()),
                    2 => {
                        let head = "PUT /upload HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: ";
                        input.extend(format!("{head}{}\r\n\r\n", number % 300).bytes());
                        input.extend(vec![b'x'; usize::from(number % 300)]);
                    }
                    _ => state.forget(state.kept_from + u64::from(number)),
                }
                // The last bytes come later.
                let mut come = input.len() - input.len().min(usize::from(number % 40));
                loop {
                    let taken = state.take(&input[..come], box_bytes)?;
                    come -= taken;
                    input.drain(..taken);
                    state.to_bytes(&mut bytes);
                    prop_assert!(bytes.len() <= state.most_bytes() && state.most_bytes() <= box_bytes);
                    prop_assert!(bytes.len() >= ballast);
                    if !state.has_more() || !state.has_room(box_bytes) {
                        break;
                    }
                    state.promise_more();
                }
            }
        }

        /// However the input is cut, whatever is saved and read back in between: the same answer.
        #[test]
        fn an_upload_is_hashed_as_a_whole(
            body in proptest::collection::vec(any::<u8>(), 0..2000),
            cuts in proptest::collection::vec(0usize..2100, 0..6),
            ballast in prop_oneof![Just(0), 1usize..5000],
        ) {
            let mut input = format!("PUT /upload HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
            input.extend(&body);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(input.len())).collect();
            cuts.push(input.len());
            cuts.sort_unstable();
            let (mut state, mut taken, mut bytes) = (WebState::with_ballast(ballast), 0, Vec::new());
            for cut in cuts {
                taken += state.take(&input[taken..cut.max(taken)], STATE_BYTES + ballast)?;
                state.to_bytes(&mut bytes);
                state = WebState::from_bytes(&bytes)?;
            }
            prop_assert_eq!(taken, input.len());
            let whole = hex(&Sha256::digest(&body)) + "\n";
            prop_assert!(text(&state).ends_with(&whole));
        }

        #[test]
        fn garbage_is_no_state(bytes in proptest::collection::vec(any::<u8>(), 1..300)) {
            prop_assert!(WebState::from_bytes(&bytes).is_err());
        }
    }
}
