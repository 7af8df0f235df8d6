//! What can go wrong with a results directory, each as one sentence that names the path and says what to do.

use std::io;
use std::path::{Path, PathBuf};

/// A results directory that can't be used, or a file in it that can't be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResultsError {
    /// The operating system refused: not writable, disk full, not found, …
    #[error("cannot {action} {}: {}", path.display(), cause(reason))]
    Io {
        /// What was tried, as a verb: `write`, `create`, `read`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason. Its words are part of the sentence already, so it is no further cause.
        reason: io::Error,
    },
    /// The directory holds something, and it is not a results directory.
    #[error("{} is not empty and holds no results of ours; nothing was changed, choose another directory", .0.display())]
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
    /// The directory holds results in a layout that this program doesn't know.
    #[error("{} holds results of format '{found}', this program knows '{expected}'; nothing was changed", path.display())]
    OtherFormat {
        /// The directory.
        path: PathBuf,
        /// Format found.
        found: String,
        /// Format that this program reads and writes.
        expected: &'static str,
    },
    /// The directory's manifest is damaged.
    #[error("{} is damaged: {reason}; nothing was changed, choose another directory", path.display())]
    Damaged {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A run that was interrupted has no tables yet.
    #[error("the run in {} was not finished; go on with it by --resume first", .0.display())]
    Unfinished(PathBuf),
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
        move |reason| ResultsError::Io { action, path: path.to_path_buf(), reason }
    }

    /// Whether the disk (or the quota) is full: the run can be resumed once there is room.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, ResultsError::Io { reason, .. }
            if matches!(reason.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

/// The reason in plain words, and what to do about it.
fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull => "the disk is full; free some space and continue with --resume".to_string(),
        io::ErrorKind::QuotaExceeded => "the disk quota is used up".to_string(),
        io::ErrorKind::PermissionDenied => "permission denied".to_string(),
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only".to_string(),
        io::ErrorKind::NotADirectory => "a part of the path is not a directory".to_string(),
        _ => crate::plain(error),
    }
}
