//! Lines of a file: bounded, whole, and with their numbers, for what is wrong with one.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::TraceError;
use crate::plain;

/// No line of a trace is longer.
const LONGEST_LINE: u64 = 4096;

/// A file, line by line.
pub(super) struct Lines<'p> {
    path: &'p Path,
    reader: BufReader<File>,
    bytes: Vec<u8>,
    /// Of the line that was read last, from 1.
    pub(super) number: u64,
    torn: bool,
    /// What [`peek`](Self::peek) has read already.
    peeked: Option<Option<String>>,
}

impl<'p> Lines<'p> {
    pub(super) fn open(path: &'p Path) -> Result<Self, TraceError> {
        let io = |error: std::io::Error| TraceError::Io { path: path.into(), reason: plain(&error) };
        let file = File::open(path).map_err(io)?;
        if file.metadata().map_err(io)?.is_dir() {
            return Err(TraceError::Io { path: path.into(), reason: "it is a directory".into() });
        }
        let reader = BufReader::with_capacity(1 << 16, file);
        Ok(Lines { path, reader, bytes: Vec::new(), number: 0, torn: false, peeked: None })
    }

    /// An error in the line that was read last.
    pub(super) fn wrong(&self, reason: impl std::fmt::Display) -> TraceError {
        TraceError::Content { path: self.path.into(), reason: format!("line {}: {reason}", self.number) }
    }

    /// The next line that is not empty, without its end; `None` at the end, also at a torn last line.
    pub(super) fn next(&mut self) -> Result<Option<String>, TraceError> {
        if let Some(line) = self.peeked.take() {
            return Ok(line);
        }
        loop {
            self.bytes.clear();
            self.number += 1;
            let read = (&mut self.reader).take(LONGEST_LINE).read_until(b'\n', &mut self.bytes);
            read.map_err(|error| TraceError::Io { path: self.path.into(), reason: plain(&error) })?;
            if self.bytes.is_empty() {
                return Ok(None);
            }
            if self.bytes.last() != Some(&b'\n') {
                if self.bytes.len() as u64 == LONGEST_LINE {
                    return Err(self.wrong(format_args!("is longer than {LONGEST_LINE} bytes")));
                }
                self.torn = true;
                return Ok(None);
            }
            let text = std::str::from_utf8(&self.bytes).map_err(|_| self.wrong("is no text"))?;
            let line = text.trim_end().trim_start_matches('\u{feff}');
            if !line.is_empty() {
                return Ok(Some(line.to_owned()));
            }
        }
    }

    /// The line that is next, which stays to be read: what comes through a pipe can't be opened twice.
    pub(super) fn peek(&mut self) -> Result<Option<&str>, TraceError> {
        let line = self.next()?;
        Ok(self.peeked.insert(line).as_deref())
    }

    /// What is to be said at the end.
    pub(super) fn finish(&self, allow_torn: bool) -> Result<Option<String>, TraceError> {
        if !self.torn {
            return Ok(None);
        }
        let text = format!("line {} has no line end and may be torn", self.number);
        if allow_torn {
            return Ok(Some(format!("{text}; it was left out")));
        }
        Err(TraceError::Content { path: self.path.into(), reason: format!("{text}; --allow-torn uses the rest") })
    }
}
