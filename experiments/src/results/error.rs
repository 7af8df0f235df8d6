//! What can go wrong with a results directory, each as one sentence that names the path and says what to do.

use std::io;
use std::path::{Path, PathBuf};

/// A results directory that can't be used, or a file in it that can't be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResultsError {
    /// The operating system refused: not writable, disk full, not found, …
    #[error("cannot {action} {}: {}", path.display(), cause(source))]
    Io {
        /// What was tried, as a verb: `write`, `create`, `read`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The directory holds something, and it is not a results directory.
    #[error("{} is not empty and holds no results of ours; nothing was changed, choose another --out", .0.display())]
    NotOurs(PathBuf),
    /// The directory holds results of the same config and seed, and resuming was not asked for.
    #[error("{} already holds results of this config and seed; continue them with --resume, or choose another --out", .0.display())]
    Exists(PathBuf),
    /// The directory holds results of something else.
    #[error("{} holds results of another run ({difference}); nothing was changed, choose another --out", path.display())]
    OtherRun {
        /// The directory.
        path: PathBuf,
        /// The first difference found, such as `seed 1, not 2`.
        difference: String,
    },
    /// Another process has the directory open.
    #[error("{} is in use by another run; wait for it to end, or choose another --out", .0.display())]
    InUse(PathBuf),
    /// There is nothing to resume or to plot.
    #[error("{} holds no results: it has no manifest.json", .0.display())]
    NoResults(PathBuf),
    /// A file that should be ours can't be understood.
    #[error("cannot understand {}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A name that would leave the directory or hide a file.
    #[error("'{0}' is no name for a result: use letters, digits, '-', '_' and '.', not starting with '.'")]
    BadName(String),
}

impl ResultsError {
    /// Wraps an I/O error; made to be used in `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ResultsError {
        move |source| ResultsError::Io { action, path: path.to_path_buf(), source }
    }

    /// Whether the disk (or the quota) is full: the run can be resumed once there is room.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, ResultsError::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

/// The reason in plain words, without the error number that the standard library appends.
fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull => "the disk is full; free some space and continue with --resume".to_string(),
        io::ErrorKind::QuotaExceeded => "the disk quota is used up".to_string(),
        io::ErrorKind::PermissionDenied => "permission denied".to_string(),
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only".to_string(),
        io::ErrorKind::NotADirectory => "a part of the path is not a directory".to_string(),
        _ => {
            let text = error.to_string();
            text.split(" (os error").next().unwrap_or(&text).to_lowercase()
        }
    }
}
