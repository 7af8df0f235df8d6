//! Reading files that might hold anything.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Longest file that is taken for a value; those of sysfs are at most a page.
const MAX_VALUE_BYTES: u64 = 4096;
/// Longest value that is shown.
const MAX_SHOWN_CHARS: usize = 80;
/// Most entries of a directory that are looked at.
const MAX_ENTRIES: usize = 4096;

/// A path under `root`, whether or not it is written as an absolute one.
pub(super) fn under(root: &Path, path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The text of a small file, without white space around it. `Ok(None)`: there is no such file. `Err`: why it can't be
/// understood, as the end of a sentence that begins with its name.
pub(super) fn value(path: &Path) -> Result<Option<String>, String> {
    text(path, MAX_VALUE_BYTES).map(|text| text.map(|text| text.trim().to_owned()))
}

/// The text of a file of at most `limit` bytes.
pub(super) fn text(path: &Path, limit: u64) -> Result<Option<String>, String> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("can't be read: {}", crate::plain(&error))),
    };
    // Opening a pipe would wait for somebody to write into it.
    if !metadata.is_file() {
        return Err("is no file".into());
    }
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        return Err(format!("can't be read: {}", crate::plain(&error)));
    }
    if bytes.len() as u64 > limit {
        return Err(format!("is longer than {limit} bytes"));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| "is not text".into())
}

/// Names of what a directory holds, sorted; numbers within names count as numbers. None if there is no directory.
pub(super) fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.take(MAX_ENTRIES).filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort_by_key(|name| {
        let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
        let (stem, number) = name.split_at(name.len() - digits);
        (stem.to_owned(), number.parse::<u64>().unwrap_or(0), name.clone())
    });
    names
}

/// Without what would do something to a terminal, and not longer than a line.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String =
        text.chars().take(MAX_SHOWN_CHARS).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(MAX_SHOWN_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

/// A name that can stand in a command without quotes and leads nowhere else.
pub(super) fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(['.', '-'])
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._+-".contains(c))
}

/// A name to put into a command for somebody to copy, or what stands for it.
pub(super) fn word<'a>(name: &'a str, otherwise: &'a str) -> &'a str {
    if is_plain(name) { name } else { otherwise }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_file_is_there_is_an_answer() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("good"), " 4: ACTIVE\n").unwrap();
        fs::write(path("binary"), [0xff, 0xfe, 0]).unwrap();
        fs::write(path("long"), [b'1'; 5000]).unwrap();
        fs::create_dir(path("directory")).unwrap();
        std::os::unix::fs::symlink("loop", path("loop")).unwrap();
        assert_eq!(value(&path("good")), Ok(Some("4: ACTIVE".into())));
        assert_eq!(value(&path("absent")), Ok(None));
        assert_eq!(value(&path("binary")), Err("is not text".into()));
        assert_eq!(value(&path("long")), Err("is longer than 4096 bytes".into()));
        assert_eq!(value(&path("directory")), Err("is no file".into()));
        assert!(value(&path("loop")).unwrap_err().starts_with("can't be read: "));
        assert!(value(&path("good/below")).is_err());
    }

    #[test]
    fn names_come_in_the_order_in_which_people_count() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["mlx5_10", "mlx5_9", "10", "9", "99999999999999999999999"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        assert_eq!(names(directory.path()), ["99999999999999999999999", "9", "10", "mlx5_9", "mlx5_10"]);
        assert!(names(&directory.path().join("absent")).is_empty());
    }

    #[test]
    fn nothing_is_shown_that_a_terminal_would_obey() {
        assert_eq!(shown("\x1b[2Jeth0\n"), "\u{fffd}[2Jeth0\u{fffd}");
        assert_eq!(shown(&"x".repeat(1000)).chars().count(), MAX_SHOWN_CHARS + 1);
    }

    #[test]
    fn nothing_is_put_into_a_command_that_a_shell_would_obey() {
        assert_eq!(word("mlx5_0", "DEVICE"), "mlx5_0");
        for bad in ["", "$(reboot)", "a;b", "../x", "-rf", "a b", "é"] {
            assert_eq!(word(bad, "DEVICE"), "DEVICE", "{bad}");
        }
    }
}
