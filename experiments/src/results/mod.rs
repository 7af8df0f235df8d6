//! A results directory: one run, whole files only, resumable after anything.
//!
//! ```text
//! DIR/manifest.json        what was run, when, where (the only place with times and host)
//! DIR/NAME.csv             tidy tables: one row per point, units in the column names
//! DIR/figures/NAME.svg     and .png, drawn from the CSV files alone
//! DIR/report.html          one self-contained file
//! DIR/journal/NAME.jsonl   finished points, for resuming; not a result
//! DIR/soft-roce/           what the virtual machines of Soft-RoCE left, if they ran: logs, consoles; not a result
//! DIR/.lock                held while a process uses the directory
//! ```
//!
//! A directory belongs to one identity: experiments with configs, seed, version. Anything else in the way is refused
//! before a byte is changed.
//!
//! ```
//! use backdoor_experiments::results::{Manifest, ResultsDir, Table};
//! # let place = tempfile::tempdir().unwrap();
//! # let out = place.path().join("out");
//! let manifest = Manifest::new(std::env::args(), 7, [("qos", "deadline = '20ms'")]);
//! let mut dir = ResultsDir::create(&out, &manifest)?;
//! let mut table = Table::new(["deadline_s", "mistakes_per_s"]);
//! table.row().number(0.02).number(0.5);
//! dir.write_csv("qos", &table)?;
//! dir.finish()?;
//! # Ok::<(), backdoor_experiments::results::ResultsError>(())
//! ```

mod atomic;
mod error;
mod journal;
mod manifest;
mod table;

pub(crate) use atomic::write as write_whole;
pub use error::ResultsError;
pub use journal::Journal;
pub(crate) use manifest::now_unix_s;
pub use manifest::{ExperimentConfig, Host, Manifest, SoftRoce, sha256_hex};
pub use table::{Row, Table};

use std::fs::{self, File, TryLockError};
use std::path::{Component, Path, PathBuf};

const MANIFEST: &str = "manifest.json";
const LOCK: &str = ".lock";

/// An open results directory; locked against other processes until dropped.
#[derive(Debug)]
pub struct ResultsDir {
    path: PathBuf,
    manifest: Manifest,
    /// Held, not read: closing it releases the lock, and so does dying.
    _lock: File,
}

/// What a path holds, found out without changing anything.
enum Found {
    Nothing,
    Empty,
    Results(Box<Manifest>),
}

impl ResultsDir {
    /// Starts a run in a new or empty directory.
    ///
    /// # Errors
    /// Refuses a directory that holds anything: [`ResultsError::Exists`] when the same run could be resumed there,
    /// [`ResultsError::OtherRun`], [`ResultsError::NotOurs`] and [`ResultsError::InUse`] otherwise.
    pub fn create(path: impl AsRef<Path>, manifest: &Manifest) -> Result<Self, ResultsError> {
        let path = path.as_ref();
        look(path)?;
        fs::create_dir_all(path).map_err(ResultsError::io("create", path))?;
        let lock = lock(path)?;
        // Once more under the lock: another process may have been first.
        if let Found::Results(found) = look(path)? {
            return Err(match found.difference(manifest) {
                Some(difference) => ResultsError::OtherRun { path: path.to_path_buf(), difference },
                None => ResultsError::Exists(path.to_path_buf()),
            });
        }
        Self::start(path, manifest.clone(), lock)
    }

    /// Continues a run in its directory, wherever it was interrupted; an empty directory is a run interrupted at once.
    ///
    /// # Errors
    /// [`ResultsError::NoResults`] when there is no such directory, [`ResultsError::OtherRun`] when the config, the
    /// seed or the version differ, [`ResultsError::InUse`], [`ResultsError::NotOurs`].
    pub fn resume(path: impl AsRef<Path>, manifest: &Manifest) -> Result<Self, ResultsError> {
        let path = path.as_ref();
        if matches!(look(path)?, Found::Nothing) {
            return Err(ResultsError::NoResults(path.to_path_buf()));
        }
        let lock = lock(path)?;
        let mut manifest = manifest.clone();
        if let Found::Results(found) = look(path)? {
            if let Some(difference) = found.difference(&manifest) {
                return Err(ResultsError::OtherRun { path: path.to_path_buf(), difference });
            }
            manifest.resumed = found.resumed + 1;
            manifest.soft_roce = found.soft_roce;
        }
        Self::start(path, manifest, lock)
    }

    /// Opens finished or interrupted results of whatever config, to draw figures or a report from them.
    ///
    /// # Errors
    /// [`ResultsError::NoResults`], [`ResultsError::InUse`], [`ResultsError::NotOurs`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ResultsError> {
        let path = path.as_ref();
        let Found::Results(manifest) = look(path)? else {
            return Err(ResultsError::NoResults(path.to_path_buf()));
        };
        Ok(ResultsDir { path: path.to_path_buf(), manifest: *manifest, _lock: lock(path)? })
    }

    fn start(path: &Path, manifest: Manifest, lock: File) -> Result<Self, ResultsError> {
        let dir = ResultsDir { path: path.to_path_buf(), manifest, _lock: lock };
        dir.write_manifest()?;
        Ok(dir)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is being run.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The journal of one experiment of `points` points, with what earlier runs finished.
    ///
    /// # Errors
    /// I/O, and a journal that belongs to another config, seed or number of points.
    pub fn journal(&self, experiment: &str, points: usize) -> Result<Journal, ResultsError> {
        let path = self.target(&format!("journal/{experiment}.jsonl"))?;
        let config = self.manifest.experiment(experiment).map_or("", |found| &found.config_sha256);
        Journal::open(&path, experiment, config, self.manifest.seed, points)
    }

    /// Writes `NAME.csv`.
    ///
    /// # Errors
    /// I/O, or a name that is none.
    pub fn write_csv(&self, name: &str, table: &Table) -> Result<PathBuf, ResultsError> {
        self.write(&format!("{name}.csv"), table.to_csv().as_bytes())
    }

    /// Reads `NAME.csv` back.
    ///
    /// # Errors
    /// I/O, or a file that is no CSV.
    pub fn read_csv(&self, name: &str) -> Result<Table, ResultsError> {
        Table::read(&self.checked(&format!("{name}.csv"))?)
    }

    /// Writes a file such as `report.html` or `figures/qos.svg`, whole or not at all; makes missing directories.
    ///
    /// # Errors
    /// I/O, or a name that would leave the directory or hide a file.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, ResultsError> {
        let path = self.target(name)?;
        atomic::write(&path, bytes)?;
        Ok(path)
    }

    /// Notes in the manifest that the run is complete.
    ///
    /// # Errors
    /// I/O.
    pub fn finish(&mut self) -> Result<(), ResultsError> {
        self.manifest.finished_unix_s = Some(manifest::now_unix_s());
        self.write_manifest()
    }

    /// Notes in the manifest what became of the measurements over Soft-RoCE.
    ///
    /// # Errors
    /// I/O.
    pub fn note_soft_roce(&mut self, outcome: SoftRoce) -> Result<(), ResultsError> {
        self.manifest.soft_roce = Some(outcome);
        self.write_manifest()
    }

    fn write_manifest(&self) -> Result<(), ResultsError> {
        let mut text = serde_json::to_string_pretty(&self.manifest).expect("a manifest is plain data");
        text.push('\n');
        atomic::write(&self.path.join(MANIFEST), text.as_bytes())
    }

    /// The path of a file about to be written; its directory exists afterwards.
    fn target(&self, name: &str) -> Result<PathBuf, ResultsError> {
        let path = self.checked(name)?;
        let parent = path.parent().unwrap_or(&self.path);
        fs::create_dir_all(parent).map_err(ResultsError::io("create", parent))?;
        Ok(path)
    }

    /// The path of a name, if it stays inside the directory and collides with nothing of ours.
    fn checked(&self, name: &str) -> Result<PathBuf, ResultsError> {
        let good = Path::new(name).components().all(|component| match component {
            Component::Normal(part) => part.to_str().is_some_and(is_name),
            _ => false,
        });
        if good && !name.is_empty() && name != MANIFEST {
            Ok(self.path.join(name))
        } else {
            Err(ResultsError::BadName(name.to_string()))
        }
    }
}

/// Whether something may be called so, in a results directory and in the manifest.
pub(crate) fn is_name(name: &str) -> bool {
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && !name.starts_with('.') && name.chars().all(letters)
}

fn look(path: &Path) -> Result<Found, ResultsError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(ResultsError::io("read", path)(error)),
    };
    let mut empty = true;
    for entry in entries {
        let name = entry.map_err(ResultsError::io("read", path))?.file_name().to_string_lossy().into_owned();
        if name == MANIFEST {
            let file = path.join(MANIFEST);
            let text = fs::read(&file).map_err(ResultsError::io("read", &file))?;
            return match manifest::read(&text) {
                Ok(manifest) => Ok(Found::Results(Box::new(manifest))),
                // Half a manifest can't be one of ours: we rename whole ones into place.
                Err(manifest::Unreadable::Foreign) => Err(ResultsError::NotOurs(path.to_path_buf())),
                Err(manifest::Unreadable::OtherFormat(found)) => {
                    Err(ResultsError::OtherFormat { path: path.to_path_buf(), found, expected: manifest::FORMAT })
                }
                Err(manifest::Unreadable::Damaged(reason)) => Err(ResultsError::Damaged { path: file, reason }),
            };
        }
        empty &= name == LOCK || atomic::is_leftover(&name);
    }
    if empty { Ok(Found::Empty) } else { Err(ResultsError::NotOurs(path.to_path_buf())) }
}

fn lock(path: &Path) -> Result<File, ResultsError> {
    let file = path.join(LOCK);
    let lock = File::create(&file).map_err(ResultsError::io("create", &file))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(ResultsError::InUse(path.to_path_buf())),
        Err(TryLockError::Error(error)) => Err(ResultsError::io("lock", &file)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        let place = tempfile::tempdir().unwrap();
        let manifest = Manifest::new(std::iter::empty(), 1, [("e", "")]);
        let dir = ResultsDir::create(place.path().join("out"), &manifest).unwrap();
        for bad in ["", "../x", "/etc/x", ".lock", "a/../b", "manifest.json", "a b", "figures/.x", "a\\b"] {
            assert!(matches!(dir.write(bad, b""), Err(ResultsError::BadName(_))), "{bad}");
        }
        assert!(dir.write("figures/a-1_b.svg", b"x").unwrap().exists());
    }
}
