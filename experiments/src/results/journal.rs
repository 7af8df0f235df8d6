//! The journal: one line per finished point, so that an interrupted run loses only the points it was working on.
//!
//! A line is the CRC-32 of the JSON in eight hex digits, a space, the JSON. Lines are appended with one write each. A
//! process killed between or within writes leaves at most one torn line; a power cut may leave worse, and any line
//! whose checksum fails is dropped and its point computed again. The first line tells whose journal it is.
//!
//! Rows are kept as the JSON text that was written, and results are always made from that text, in a fresh run too.
//! So a resumed run can't differ from an uninterrupted one by a float's last digit.

use super::{ResultsError, atomic};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long finished points may stay in the kernel's cache before they are forced to disk. Only a power cut can lose
/// them there; a killed process can't.
const SYNC_EVERY: Duration = Duration::from_secs(2);

/// Whose journal it is.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    experiment: String,
    config_sha256: String,
    seed: u64,
    points: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line<'a> {
    point: usize,
    #[serde(borrow)]
    row: &'a serde_json::value::RawValue,
}

/// The finished points of one experiment; shared by the threads that finish more.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    points: usize,
    dropped: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    rows: BTreeMap<usize, String>,
    synced: Instant,
}

impl Journal {
    /// Opens or starts the journal of `points` points at `path`.
    ///
    /// # Errors
    /// I/O, or a journal of another experiment, config, seed or grid.
    pub fn open(
        path: &Path,
        experiment: &str,
        config_sha256: &str,
        seed: u64,
        points: usize,
    ) -> Result<Self, ResultsError> {
        let head = Head { experiment: experiment.into(), config_sha256: config_sha256.into(), seed, points };
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(ResultsError::io("read", path)(error)),
        };
        let (rows, dropped, head_found) = read(path, &bytes, &head)?;
        if dropped > 0 || !head_found {
            // Appending after a torn line would spoil the next one, so the good lines are written anew.
            let mut text = seal(&serde_json::to_string(&head).expect("plain data"));
            for (point, row) in &rows {
                text.push_str(&line(*point, row));
            }
            atomic::write(path, text.as_bytes())?;
        }
        let file = OpenOptions::new().append(true).open(path).map_err(ResultsError::io("write", path))?;
        let state = Mutex::new(State { file, rows, synced: Instant::now() });
        Ok(Journal { path: path.to_path_buf(), points, dropped, state })
    }

    /// Number of points of the experiment.
    pub fn points(&self) -> usize {
        self.points
    }

    /// Number of lines that were torn or corrupt when the journal was opened; their points are computed again.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// Number of points finished so far.
    pub fn finished(&self) -> usize {
        self.lock().rows.len()
    }

    /// The row of a finished point, as JSON.
    pub fn row(&self, point: usize) -> Option<String> {
        self.lock().rows.get(&point).cloned()
    }

    /// Notes that a point is finished.
    ///
    /// # Errors
    /// I/O. A disk that is full leaves the journal readable: the torn line is cut off, or dropped at the next opening.
    pub fn append(&self, point: usize, row: String) -> Result<(), ResultsError> {
        assert!(point < self.points, "point {point} of an experiment of {} points", self.points);
        let text = line(point, &row);
        let mut state = self.lock();
        let before = state.file.metadata().map(|data| data.len());
        let result = state.file.write_all(text.as_bytes());
        if let Err(error) = result {
            if let Ok(length) = before {
                let _ = state.file.set_len(length);
            }
            return Err(ResultsError::io("write", &self.path)(error));
        }
        state.rows.insert(point, row);
        if state.synced.elapsed() >= SYNC_EVERY {
            state.file.sync_data().map_err(ResultsError::io("write", &self.path))?;
            state.synced = Instant::now();
        }
        Ok(())
    }

    /// Forces everything to disk.
    ///
    /// # Errors
    /// I/O.
    pub fn sync(&self) -> Result<(), ResultsError> {
        self.lock().file.sync_data().map_err(ResultsError::io("write", &self.path))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A thread that panicked while holding it left at worst a torn line, which is what the format is made for.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The good rows, how many lines were dropped, and whether the first line was ours.
fn read(path: &Path, bytes: &[u8], head: &Head) -> Result<(BTreeMap<usize, String>, usize, bool), ResultsError> {
    let (mut rows, mut dropped) = (BTreeMap::new(), 0);
    let mut head_found = false;
    for (number, text) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let Some(json) = unseal(text) else {
            dropped += 1;
            continue;
        };
        if number == 0 {
            let found: Head = serde_json::from_str(json).map_err(|_| not_ours(path, "its first line is not a head"))?;
            if found != *head {
                return Err(not_ours(path, "it is the journal of another config, seed or grid"));
            }
            head_found = true;
        } else if head_found
            && let Ok(line) = serde_json::from_str::<Line<'_>>(json)
            && line.point < head.points
        {
            rows.insert(line.point, line.row.get().to_string());
        } else {
            dropped += 1;
        }
    }
    Ok((rows, dropped, head_found))
}

fn not_ours(path: &Path, reason: &str) -> ResultsError {
    ResultsError::Malformed { path: path.to_path_buf(), reason: reason.to_string() }
}

fn line(point: usize, row: &str) -> String {
    seal(&format!("{{\"point\":{point},\"row\":{row}}}"))
}

fn seal(json: &str) -> String {
    format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()))
}

fn unseal(line: &[u8]) -> Option<&str> {
    let line = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
    let (crc, json) = line.split_once(' ')?;
    let crc = (crc.len() == 8).then(|| u32::from_str_radix(crc, 16).ok())??;
    (crc == crc32fast::hash(json.as_bytes())).then_some(json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn open(path: &Path) -> Result<Journal, ResultsError> {
        Journal::open(path, "e", "abc", 1, 10)
    }

    fn filled(path: &Path) -> Vec<u8> {
        let journal = open(path).unwrap();
        for point in [3, 0, 7, 1] {
            journal.append(point, format!("{{\"x\":{point}.5}}")).unwrap();
        }
        fs::read(path).unwrap()
    }

    #[test]
    fn keeps_what_was_finished() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("e.jsonl");
        filled(&path);
        let journal = open(&path).unwrap();
        assert_eq!((journal.finished(), journal.dropped(), journal.points()), (4, 0, 10));
        assert_eq!(journal.row(7).as_deref(), Some("{\"x\":7.5}"));
        assert_eq!(journal.row(2), None);
    }

    #[test]
    fn another_config_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("e.jsonl");
        filled(&path);
        for other in [
            Journal::open(&path, "e", "abd", 1, 10),
            Journal::open(&path, "e", "abc", 2, 10),
            Journal::open(&path, "e", "abc", 1, 11),
        ] {
            assert!(matches!(other, Err(ResultsError::Malformed { .. })));
        }
    }

    #[test]
    fn a_full_device_is_one_sentence() {
        // Every write to /dev/full fails with "no space left".
        let state = State {
            file: OpenOptions::new().append(true).open("/dev/full").unwrap(),
            rows: BTreeMap::new(),
            synced: Instant::now(),
        };
        let journal = Journal { path: "/dev/full".into(), points: 1, dropped: 0, state: Mutex::new(state) };
        let error = journal.append(0, "1".into()).unwrap_err();
        assert!(error.is_disk_full());
        assert_eq!(
            error.to_string(),
            "cannot write /dev/full: the disk is full; free some space and continue with --resume"
        );
        assert_eq!(journal.finished(), 0);
    }

    proptest! {
        /// Cut anywhere and flip any byte: what is read is a subset of what was written, and appending works again.
        #[test]
        fn torn_and_corrupt_lines_are_dropped(cut in 0usize..400, flip in 0usize..400, bit in 0u8..8) {
            let place = tempfile::tempdir().unwrap();
            let path = place.path().join("e.jsonl");
            let mut bytes = filled(&path);
            bytes.truncate(cut);
            if let Some(byte) = bytes.get_mut(flip) {
                *byte ^= 1 << bit;
            }
            fs::write(&path, &bytes).unwrap();
            let journal = open(&path).unwrap();
            for point in 0..10 {
                if let Some(row) = journal.row(point) {
                    prop_assert_eq!(row, format!("{{\"x\":{point}.5}}"));
                }
            }
            let before = journal.finished();
            journal.append(9, "9".into()).unwrap();
            drop(journal);
            let again = open(&path).unwrap();
            prop_assert_eq!((again.finished(), again.dropped()), (before + 1, 0));
        }
    }
}
