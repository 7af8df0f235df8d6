//! The file that a trace is written to, while the monitor goes on.
//!
//! Lines are handed, some times a second and in blocks, to a thread that writes them: a disk that is slow for a moment
//! holds up no poll. If it is slow for longer, the recorder waits, and the trace says by its gaps that it did. A block is
//! written by one call, so that a recorder that is killed leaves whole lines, and at most its last one torn.
//!
//! Nothing waits until it lies on the disk: behind what others write, that may take a minute, and the system has it.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, SyncSender};
use std::thread::JoinHandle;

use backdoor_core::Nanos;

use super::RecordError;
use super::format::{Row, head};

/// How long lines wait to be handed over, at most, as long as more come.
const HAND_OVER_EVERY: Nanos = Nanos::from_millis(200);
/// Or this many bytes.
const BLOCK: usize = 1 << 18;
/// Blocks that wait to be written, at most.
const BACKLOG: usize = 16;

/// A trace that is being written.
#[derive(Debug)]
pub struct TraceFile {
    path: PathBuf,
    block: Vec<u8>,
    handed_over: Nanos,
    lines: u64,
    blocks: Option<SyncSender<Vec<u8>>>,
    writer: Option<JoinHandle<io::Result<()>>>,
}

impl TraceFile {
    /// Creates the file, with its head line. Only with `force` is a file that is there overwritten.
    ///
    /// # Errors
    /// [`RecordError::Exists`], [`RecordError::Write`].
    pub fn create(path: &Path, force: bool) -> Result<Self, RecordError> {
        let mut options = OpenOptions::new();
        if force {
            options.create(true).truncate(true);
        } else {
            options.create_new(true);
        }
        let file = options.write(true).open(path).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => RecordError::Exists(path.into()),
            _ => RecordError::write(path)(error),
        })?;
        let mut trace = Self::over(file, path)?;
        trace.block.extend_from_slice(head().as_bytes());
        trace.hand_over()?;
        Ok(trace)
    }

    fn over(mut file: File, path: &Path) -> Result<Self, RecordError> {
        let (blocks, to_write) = mpsc::sync_channel::<Vec<u8>>(BACKLOG);
        let write_all = move || {
            let mut whole = 0;
            for block in to_write {
                if let Err(error) = file.write_all(&block) {
                    // What came of the block is half a line, mostly.
                    let _ = file.set_len(whole);
                    return Err(error);
                }
                whole += block.len() as u64;
            }
            Ok(())
        };
        let writer = std::thread::Builder::new().name("trace".into()).spawn(write_all);
        let writer = Some(writer.map_err(RecordError::write(path))?);
        let path = path.to_owned();
        Ok(TraceFile { path, block: Vec::new(), handed_over: Nanos::ZERO, lines: 0, blocks: Some(blocks), writer })
    }

    /// Appends a line.
    pub fn push(&mut self, row: &Row) {
        row.write(&mut self.block);
        self.lines += 1;
    }

    /// Lines so far, the head line not counted.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Hands the lines over if it is time to.
    ///
    /// # Errors
    /// [`RecordError::Write`]: an earlier block could not be written.
    pub fn flush(&mut self, now: Nanos) -> Result<(), RecordError> {
        if self.block.is_empty() || (self.block.len() < BLOCK && now < self.handed_over + HAND_OVER_EVERY) {
            return Ok(());
        }
        self.handed_over = now;
        self.hand_over()
    }

    fn hand_over(&mut self) -> Result<(), RecordError> {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK + BLOCK / 4));
        match &self.blocks {
            Some(blocks) if blocks.send(block).is_ok() => Ok(()),
            _ => self.end(),
        }
    }

    /// Writes what is left. Answers the number of lines.
    ///
    /// # Errors
    /// [`RecordError::Write`].
    pub fn finish(mut self) -> Result<u64, RecordError> {
        self.hand_over()?;
        self.end()?;
        Ok(self.lines)
    }

    fn end(&mut self) -> Result<(), RecordError> {
        self.blocks = None;
        let outcome = self.writer.take().map(JoinHandle::join);
        let gone = || Err(io::Error::other("its writer has ended"));
        outcome.unwrap_or_else(|| Ok(gone())).unwrap_or_else(|_| gone()).map_err(RecordError::write(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backdoor_core::progress_box::{EntityState, FailureLevel};

    fn row(count: u64) -> Row {
        let at = Nanos::from_millis(count);
        Row {
            watch: 0,
            entity: "worker".into(),
            level: FailureLevel::Application,
            deadline: Nanos::from_millis(20),
            seen: at,
            unmoved: at,
            earliest: at,
            latest: at,
            state: EntityState::Active,
            count,
        }
    }

    #[test]
    fn lines_reach_the_file_while_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.csv");
        let mut trace = TraceFile::create(&path, false).unwrap();
        trace.push(&row(1));
        trace.flush(HAND_OVER_EVERY).unwrap();
        while std::fs::read_to_string(&path).unwrap().lines().count() < 2 {
            std::thread::yield_now();
        }
        trace.push(&row(2));
        trace.flush(HAND_OVER_EVERY).unwrap();
        assert_eq!(trace.finish().unwrap(), 2);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 3);
        assert!(text.ends_with(",active,2\n"), "{text}");
    }

    #[test]
    fn nothing_is_overwritten_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.csv");
        std::fs::write(&path, "dear").unwrap();
        let refused = TraceFile::create(&path, false).unwrap_err().to_string();
        assert!(refused.contains("--force"), "{refused}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "dear");
        TraceFile::create(&path, true).unwrap().finish().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), head());
    }

    #[test]
    fn a_full_disk_is_one_sentence() {
        let path = Path::new("/dev/full");
        let mut trace = TraceFile::create(path, true).unwrap();
        let outcome = loop {
            trace.push(&row(1));
            if let Err(error) = trace.hand_over() {
                break error;
            }
        };
        assert_eq!(outcome.to_string(), "cannot write /dev/full: no space left on device");
        assert!(trace.finish().is_err());
    }
}
