//! Whole files or none: write beside the target, sync, rename.

use super::ResultsError;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What temporary names end in; such files are left-overs of a killed run and belong to nobody.
const SUFFIX: &str = ".partial";

/// Writes `bytes` to `path` so that a reader sees the old file or the new one, never a part.
///
/// The temporary name is fixed, not random: a run that is killed again and again leaves one left-over, not many. Two
/// writers can't meet on it, because a results directory is locked by its run.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), ResultsError> {
    let temporary = temporary_name(path);
    let attempt = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    attempt().map_err(|error| {
        // On a full disk even the part that was written is worth giving back.
        let _ = fs::remove_file(&temporary);
        ResultsError::io("write", path)(error)
    })?;
    sync_directory(path);
    Ok(())
}

/// Whether a file is the left-over of a write that was killed.
pub(crate) fn is_leftover(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(SUFFIX)
}

fn temporary_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}{SUFFIX}"))
}

/// Makes the rename itself survive a power cut. Some file systems can't sync a directory; the file is whole anyway.
fn sync_directory(path: &Path) {
    if let Some(parent) = path.parent()
        && let Ok(directory) = File::open(parent)
    {
        let _ = directory.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_a_file_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.csv");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_keeps_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.csv");
        write(&path, b"one").unwrap();
        // The temporary name is taken by a directory, so the write can't even start.
        fs::create_dir(temporary_name(&path)).unwrap();
        let error = write(&path, b"two").unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot write {}: ", path.display())), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert!(is_leftover(".a.csv.partial") && !is_leftover("a.csv") && !is_leftover(".lock"));
    }
}
