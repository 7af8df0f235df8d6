//! What an orchestrator and a stage say to each other: one JSON object a line, over TCP.
//!
//! ```text
//!  stage:         {"backdoor_stage":1,"program":"0.1.0","boot_id":"…"}      at once
//!  orchestrator:  {"backdoor_stage":1,"program":"0.1.0","boot_id":"…","experiment":"…"}
//!  stage:         {"answer":"welcome"}                                      or {"answer":"failed","why":"…"}
//!  orchestrator:  a Request
//!  stage:         the Answer to it; between answers, Said and Closed as the parts speak and fall silent
//! ```
//!
//! The version stands for everything that follows the greetings, so it must change with [`Role`], too. A connection
//! that says anything else is closed.

use std::io::{self, BufRead, BufReader, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::live::parts::{PartSignal, Role};

/// Version of the protocol.
pub const VERSION: u32 = 5;
/// Longest line, its end included.
pub const MAX_LINE: usize = 64 << 10;
/// Longest greeting.
pub const MAX_GREETING: usize = 1 << 10;

/// First line of either side. All but the version may be missing: it must be understood whatever version it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// Version of the protocol that it speaks.
    pub backdoor_stage: u32,
    /// Version of its program.
    #[serde(default)]
    pub program: String,
    /// Names the machine and its last start: whoever has the same runs on the same machine.
    #[serde(default)]
    pub boot_id: String,
    /// Names the experiment, in the orchestrator's greeting. Whoever comes back after a failure takes the place that
    /// its own lost connection may still hold.
    #[serde(default)]
    pub experiment: String,
}

impl Greeting {
    /// That of this program on this machine.
    pub fn ours(experiment: &str) -> Self {
        // Without one, no machine is taken for another.
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Greeting {
            backdoor_stage: VERSION,
            program: env!("CARGO_PKG_VERSION").into(),
            boot_id: boot_id.trim().into(),
            experiment: experiment.into(),
        }
    }

    /// Why the two can't work together, if they can't.
    pub fn mismatch(&self) -> Option<String> {
        (self.backdoor_stage != VERSION).then(|| {
            let program = if self.program.is_empty() { "of unknown version" } else { &self.program };
            format!(
                "it speaks version {} of the protocol (backdoor {program}), this one version {VERSION} (backdoor {}); \
                 use the same program on both machines",
                self.backdoor_stage,
                env!("CARGO_PKG_VERSION")
            )
        })
    }
}

/// What the orchestrator asks for. Parts go by numbers that it chooses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Start a part. Answered by [`Answer::Started`].
    Start {
        /// Its number.
        part: u32,
        /// What it plays.
        role: Box<Role>,
    },
    /// Hand a line to a part. Answered by [`Answer::Done`].
    Say {
        /// Its number.
        part: u32,
        /// The line, without its end.
        line: String,
    },
    /// Close a part's standard input. Answered by [`Answer::Done`].
    Close {
        /// Its number.
        part: u32,
    },
    /// Send a part a signal. Answered by [`Answer::Signalled`].
    Signal {
        /// Its number.
        part: u32,
        /// Which.
        signal: PartSignal,
    },
    /// Tell the state of a part's process. Answered by [`Answer::State`].
    State {
        /// Its number.
        part: u32,
    },
    /// Tell how a part ended that has closed its output. Answered by [`Answer::How`].
    How {
        /// Its number.
        part: u32,
    },
    /// End a part and wait until it has ended. Answered by [`Answer::Done`].
    End {
        /// Its number.
        part: u32,
    },
    /// Tell the time. Answered by [`Answer::Clock`].
    Clock,
}

/// What the stage says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// The greeting was understood, and the stage is free.
    Welcome,
    /// It can't do that.
    Failed {
        /// Why not, in a sentence.
        why: String,
    },
    /// It is done.
    Done,
    /// The part runs.
    Started {
        /// Number of its process on the stage's machine.
        process: u32,
    },
    /// The signal was sent between these two instants of the stage's monotonic clock.
    Signalled {
        /// Before, in ns.
        before_ns: u64,
        /// After, in ns.
        after_ns: u64,
    },
    /// State of the process as the kernel tells it; none if it is gone.
    State {
        /// A letter.
        state: Option<char>,
    },
    /// How a part ended.
    How {
        /// In words.
        how: String,
    },
    /// The stage's monotonic clock.
    Clock {
        /// In ns.
        at_ns: u64,
    },
    /// Unasked for: a part said a line.
    Said {
        /// Its number.
        part: u32,
        /// The line, without its end.
        line: String,
    },
    /// Unasked for: a part says no more.
    Closed {
        /// Its number.
        part: u32,
    },
}

/// Why there is no next message.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The connection failed, or ended within a line.
    #[error("{}", crate::plain(.0))]
    Connection(#[source] io::Error),
    /// The connection ended.
    #[error("the connection was closed")]
    Closed,
    /// Nothing came for as long as it was waited for.
    #[error("nothing, or half a line")]
    Silent,
    /// The line is longer than is allowed.
    #[error("a line of more than {limit} bytes")]
    TooLong {
        /// How much is.
        limit: usize,
    },
    /// The line says something else.
    #[error("'{line}'")]
    Nonsense {
        /// How it begins, printable.
        line: String,
    },
}

/// Reads messages from what may be anything.
#[derive(Debug)]
pub struct Lines<R>(BufReader<R>);

impl<R: Read> Lines<R> {
    /// Messages from a stream.
    pub fn new(stream: R) -> Self {
        Lines(BufReader::new(stream))
    }

    /// The next message, of at most `limit` bytes.
    pub fn next<T: DeserializeOwned>(&mut self, limit: usize) -> Result<T, LineError> {
        let mut line = Vec::new();
        (&mut self.0).take(limit as u64).read_until(b'\n', &mut line).map_err(|error| match error.kind() {
            // What a read that waited for long enough ends with. (TimedOut is how a connection ends.)
            io::ErrorKind::WouldBlock => LineError::Silent,
            _ => LineError::Connection(error),
        })?;
        match line.last() {
            None => Err(LineError::Closed),
            Some(b'\n') => serde_json::from_slice(&line).map_err(|_| LineError::Nonsense { line: printable(&line) }),
            Some(_) if line.len() == limit => Err(LineError::TooLong { limit }),
            Some(_) => Err(LineError::Connection(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

/// Writes a message.
pub fn write_line(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// The beginning of a line, without what could do something to a terminal.
fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    text.trim_end().chars().take(60).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &[u8]) -> Result<Request, LineError> {
        Lines::new(text).next(64)
    }

    #[test]
    fn messages_come_back_from_their_lines() {
        let mut line = Vec::new();
        write_line(&mut line, &Request::Clock).unwrap();
        assert_eq!(read(&line).unwrap(), Request::Clock);
    }

    #[test]
    fn what_is_no_message_is_told_apart() {
        assert!(matches!(read(b""), Err(LineError::Closed)));
        assert!(matches!(read(b"{\"request\":\"clock\"}"), Err(LineError::Connection(_))));
        assert!(matches!(read(&[b'x'; 1000]), Err(LineError::TooLong { limit: 64 })));
        let error = read(b"GET /\x1b[31m HTTP/1.1\r\n").unwrap_err();
        assert_eq!(error.to_string(), "'GET /?[31m HTTP/1.1'");
    }

    #[test]
    fn a_greeting_of_another_version_is_understood() {
        let future: Greeting = Lines::new(&b"{\"backdoor_stage\":7,\"x\":[1]}\n"[..]).next(MAX_GREETING).unwrap();
        assert!(future.mismatch().unwrap().contains("version 7"), "{future:?}");
        assert_eq!(Greeting::ours("").mismatch(), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = read(&bytes);
            let _ = Lines::new(&bytes[..]).next::<Greeting>(32);
        }
    }
}
