//! A session of the service, as its State Box holds it: what its client asked for, and what it was promised. No I/O.
//!
//! The service speaks as much HTTP/1.1 (RFC 9112) as its clients need, over connections that stay open:
//!
//! | request | what it does |
//! |---|---|
//! | `GET /bytes/N?seed=S` | answers with N bytes of the content of seed S |
//! | `POST /count` | adds one to the session's count and answers with it: done twice, it would show |
//! | `PUT /upload` | takes a body of any length and answers with its SHA-256 |
//!
//! Output is promised before it is sent. What was promised can be made again, from any byte that the client has not
//! acknowledged; so is what a successor replays.

use std::collections::VecDeque;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest, Sha256};

use super::content;

/// Most bytes of content that are promised at once: what is sent between two commits.
pub const CHUNK_BYTES: u64 = 64 << 10;
/// Longest head of a request.
pub const MAX_HEAD_BYTES: usize = 8 << 10;
/// Most bytes that a client may ask for.
pub const MAX_CONTENT_BYTES: u64 = 1 << 40;

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

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Promised {
    Text(String),
    Content { seed: u64, at: u64, length: u64 },
}

impl Promised {
    fn length(&self) -> u64 {
        match self {
            Promised::Text(text) => text.len() as u64,
            Promised::Content { length, .. } => *length,
        }
    }
}

impl WebState {
    /// Reads a state back. None at all is that of a session that has done nothing yet.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WebError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let state: WebState = serde_json::from_slice(bytes).map_err(|error| WebError::State(error.to_string()))?;
        state.check()?;
        Ok(state)
    }

    /// Writes it into `bytes`, which are overwritten.
    pub fn to_bytes(&self, bytes: &mut Vec<u8>) {
        bytes.clear();
        // Integers, text, and no maps: nothing that JSON can't hold.
        let _ = serde_json::to_writer(bytes, self);
    }

    fn check(&self) -> Result<(), WebError> {
        let wrong = |what: &str| Err(WebError::State(what.into()));
        let kept = self.promised.iter().try_fold(self.kept_from, |at, promised| at.checked_add(promised.length()));
        if kept.is_none() {
            return wrong("more was promised than can be counted");
        }
        let past_the_end = |promised: &Promised| match promised {
            Promised::Content { at, length, .. } => at.checked_add(*length).is_none_or(|end| end > MAX_CONTENT_BYTES),
            Promised::Text(_) => false,
        };
        if self.promised.iter().any(past_the_end) {
            return wrong("content past its end was promised");
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

    /// Whether a request was begun and not answered.
    pub fn is_busy(&self) -> bool {
        self.doing != Doing::Nothing
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

    /// Takes in what it can of `input`, the bytes behind those taken before; answers how many that were. None of one
    /// request are taken until its head is whole, and none of the next while there is content to be promised or a worker asked.
    pub fn take(&mut self, input: &[u8]) -> Result<usize, WebError> {
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
                Doing::Nothing => match self.take_head(rest)? {
                    0 => return Ok(taken),
                    length => taken += length,
                },
            }
        }
    }

    fn take_head(&mut self, input: &[u8]) -> Result<usize, WebError> {
        let bad = |why: &str| WebError::Request(why.into());
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        let length = match request.parse(input) {
            Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD_BYTES => length,
            Ok(httparse::Status::Partial) if input.len() < MAX_HEAD_BYTES => return Ok(0),
            Ok(_) => return Err(bad("its head is too long")),
            Err(error) => return Err(bad(&error.to_string())),
        };
        let header = |name: &str| {
            let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(found.value).ok()
        };
        match (request.method.unwrap_or(""), request.path.unwrap_or("")) {
            ("GET", path) => {
                let (bytes, seed) = asked_for(path).ok_or_else(|| bad("there is no such thing here"))?;
                self.say(format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {bytes}\r\n\r\n"
                ));
                if bytes > 0 {
                    self.doing = Doing::Sending { seed, at: 0, end: bytes };
                }
            }
            ("POST", "/count") if matches!(header("content-length"), None | Some("0")) => {
                if self.asks {
                    self.doing = Doing::Asking;
                } else {
                    self.count += 1;
                    self.answer(&format!("{}\n", self.count));
                }
            }
            ("PUT", "/upload") => {
                let left = header("content-length").and_then(|length| length.trim().parse().ok());
                let left = left.ok_or_else(|| bad("an upload without its length"))?;
                if header("expect").is_some_and(|expect| expect.eq_ignore_ascii_case("100-continue")) {
                    self.say("HTTP/1.1 100 Continue\r\n\r\n".into());
                }
                self.doing = Doing::Receiving { left, hash: Sha256::new().serialize().to_vec() };
            }
            _ => return Err(bad("there is no such thing to do here")),
        }
        Ok(length)
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
                match promised {
                    Promised::Text(text) => {
                        into.copy_from_slice(&text.as_bytes()[(from - at) as usize..(to - at) as usize]);
                    }
                    Promised::Content { seed, at: start, .. } => content::fill(*seed, start + (from - at), into),
                }
            }
            at += length;
        }
        Ok(output)
    }
}

/// Length and seed in `/bytes/N?seed=S`.
fn asked_for(path: &str) -> Option<(u64, u64)> {
    let (bytes, query) =
        path.strip_prefix("/bytes/")?.split_once('?').unwrap_or((path.strip_prefix("/bytes/")?, "seed=0"));
    let bytes = bytes.parse().ok().filter(|bytes| *bytes <= MAX_CONTENT_BYTES)?;
    Some((bytes, query.strip_prefix("seed=")?.parse().ok()?))
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
    use super::*;
    use proptest::prelude::*;

    fn text(state: &WebState) -> String {
        String::from_utf8(state.output(state.kept_from..state.promised()).unwrap()).unwrap()
    }

    #[test]
    fn a_count_is_answered_once() {
        let mut state = WebState::default();
        let request = b"POST /count HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(state.take(&request[..20]), Ok(0), "not whole yet");
        assert_eq!(state.take(request), Ok(request.len()));
        assert!(text(&state).ends_with("\r\n\r\n1\n"), "{}", text(&state));
        let two = [request.as_slice(), request].concat();
        assert_eq!(state.take(&two), Ok(two.len()));
        assert!(text(&state).ends_with("\r\n\r\n3\n"), "{}", text(&state));
    }

    #[test]
    fn a_worker_is_asked_once_and_nothing_is_taken_before_it_answers() {
        let mut state = WebState::default();
        state.ask_a_worker();
        let request = b"POST /count HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
        let two = [request.as_slice(), request].concat();
        assert_eq!((state.take(&two), state.is_asking(), state.promised()), (Ok(request.len()), true, 0));
        let mut bytes = Vec::new();
        state.to_bytes(&mut bytes);
        let mut state = WebState::from_bytes(&bytes).unwrap();
        assert_eq!((state.take(request), state.is_busy()), (Ok(0), true));
        state.counted(41);
        assert!(!state.is_asking() && text(&state).ends_with("\r\n\r\n41\n"), "{}", text(&state));
        state.counted(42);
        assert!(text(&state).ends_with("\r\n\r\n41\n"), "nobody asked");
    }

    #[test]
    fn content_is_promised_in_pieces_and_made_again_from_any_byte() {
        let mut state = WebState::default();
        let length = CHUNK_BYTES + 100;
        state.take(format!("GET /bytes/{length}?seed=5 HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
        let head = state.promised();
        assert_eq!(state.take(b"GET /bytes/1 HTTP/1.1\r\n\r\n"), Ok(0), "one after the other");
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
            let refused = WebState::default().take(request.as_bytes());
            assert!(matches!(refused, Err(WebError::Request(_))), "{request:?}: {refused:?}");
        }
        let endless = vec![b'a'; MAX_HEAD_BYTES + 1];
        assert!(WebState::default().take(&endless).is_err());
        assert_eq!(WebState::from_bytes(b""), Ok(WebState::default()));
        for state in [
            "{}",
            "[1]",
            r#"{"count":1,"doing":{"Receiving":{"left":1,"hash":[1]}},"promised":[],"kept_from":0}"#,
            r#"{"count":1,"doing":"Nothing","promised":[{"Content":{"seed":1,"at":9,"length":18446744073709551610}}],"kept_from":0}"#,
        ] {
            assert!(matches!(WebState::from_bytes(state.as_bytes()), Err(WebError::State(_))), "{state}");
        }
    }

    proptest! {
        /// However the input is cut, whatever is saved and read back in between: the same answer.
        #[test]
        fn an_upload_is_hashed_as_a_whole(body in proptest::collection::vec(any::<u8>(), 0..2000), cuts in proptest::collection::vec(0usize..2100, 0..6)) {
            let mut input = format!("PUT /upload HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
            input.extend(&body);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(input.len())).collect();
            cuts.push(input.len());
            cuts.sort_unstable();
            let (mut state, mut taken, mut bytes) = (WebState::default(), 0, Vec::new());
            for cut in cuts {
                taken += state.take(&input[taken..cut.max(taken)])?;
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
