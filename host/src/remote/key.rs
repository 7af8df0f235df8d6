//! The key that a node and its monitors share: a file, made on the node, copied to every machine that may watch it.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::rand::GetRandomFlags;
use zeroize::{Zeroize, Zeroizing};

/// Length of a key in bytes.
pub const KEY_BYTES: usize = 32;

/// More than a key file holds: two digits a byte and a newline, with room for blanks.
const MAX_FILE_BYTES: u64 = 4 * KEY_BYTES as u64;

/// Tells apart the unfinished files of one process.
static ATTEMPTS: AtomicU32 = AtomicU32::new(0);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No such file.
    #[error("there is no key at {path}: copy it from the node, where the agent keeps one, to this machine")]
    Missing {
        /// The file.
        path: String,
    },
    /// Others can read it, so they may know it.
    #[error(
        "the key at {path} is open to others (mode {mode:04o}) and must be taken as known to them: `chmod 600 {path}` \
         if nobody else uses this machine; otherwise remove it, and have a new one made"
    )]
    Exposed {
        /// The file.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
    /// Not what [`SetupKey::load_or_create`] writes.
    #[error("{path} holds no key: it must be {} hexadecimal digits and a newline", 2 * KEY_BYTES)]
    Malformed {
        /// The file.
        path: String,
    },
    /// The file system failed.
    #[error("can't {doing} the key at {path}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// A key of 32 bytes. Never shown, and wiped from memory when dropped.
#[derive(Clone)]
pub struct SetupKey(Zeroizing<[u8; KEY_BYTES]>);

impl SetupKey {
    /// From the bytes themselves.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        SetupKey(Zeroizing::new(bytes))
    }

    /// A new one, of the kernel's random numbers.
    pub fn random() -> io::Result<Self> {
        let mut key = SetupKey::from_bytes([0; KEY_BYTES]);
        let mut filled = 0;
        while filled < KEY_BYTES {
            // Waits while the kernel has not gathered enough, soon after the machine's start.
            filled +=
                rustix::io::retry_on_intr(|| rustix::rand::getrandom(&mut key.0[filled..], GetRandomFlags::empty()))?;
        }
        Ok(key)
    }

    /// Reads a key file. Refuses one that others than its owner can read or write.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let shown = || path.display().to_string();
        let system = |source| KeyError::System { doing: "read", path: shown(), source };
        // Without waiting, because it may be a pipe.
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let file = match OpenOptions::new().read(true).custom_flags(nonblocking).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(KeyError::Missing { path: shown() }),
            file => file.map_err(system)?,
        };
        let metadata = file.metadata().map_err(system)?;
        if !metadata.is_file() {
            return Err(KeyError::Malformed { path: shown() });
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path: shown(), mode });
        }
        let mut text = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES as usize));
        file.take(MAX_FILE_BYTES).read_to_end(&mut text).map_err(system)?;
        from_hex(text.trim_ascii()).ok_or_else(|| KeyError::Malformed { path: shown() })
    }

    /// Reads a key file; if there is none, makes one for its owner only, and the directories that it lies in.
    ///
    /// Whoever else does the same at this moment gets the same key: the file appears whole or not at all, and never
    /// replaces another.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        match SetupKey::load(path) {
            Err(KeyError::Missing { .. }) => {}
            result => return result,
        }
        let create = || {
            if let Some(directory) = path.parent() {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            }
            let key = SetupKey::random()?;
            let text = key.to_hex();
            let mut partial = path.as_os_str().to_owned();
            let attempt = ATTEMPTS.fetch_add(1, Ordering::Relaxed);
            partial.push(format!(".{}-{attempt}", std::process::id()));
            let partial = PathBuf::from(partial);
            let result = write_private(&partial, &text).and_then(|()| fs::hard_link(&partial, path));
            let _ = fs::remove_file(&partial);
            result
        };
        match create() {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(KeyError::System { doing: "make", path: path.display().to_string(), source: error })
            }
            // What counts is what is there now, whoever made it.
            _ => SetupKey::load(path),
        }
    }

    /// Where the key is, unless somebody says otherwise: `backdoor/key` in `$XDG_CONFIG_HOME` or in `~/.config`; of a
    /// user without a home, `/etc/backdoor/key`.
    pub fn default_path() -> PathBuf {
        default_path_for(|name| std::env::var_os(name).map(PathBuf::from))
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    fn to_hex(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(2 * KEY_BYTES + 1));
        for nibble in self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]) {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
        text.push('\n');
        text
    }
}

impl fmt::Debug for SetupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SetupKey(..)")
    }
}

impl PartialEq for SetupKey {
    /// Takes as long whatever the keys are.
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0.iter()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

impl Eq for SetupKey {}

fn from_hex(text: &[u8]) -> Option<SetupKey> {
    let mut bytes = [0; KEY_BYTES];
    let (pairs, rest) = text.as_chunks::<2>();
    if pairs.len() != KEY_BYTES || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = (digit(*high)? << 4 | digit(*low)?) as u8;
    }
    let key = SetupKey::from_bytes(bytes);
    bytes.zeroize();
    Some(key)
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    // Left by a process of this number that was killed in between.
    let _ = fs::remove_file(path);
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn default_path_for(variable: impl Fn(&str) -> Option<PathBuf>) -> PathBuf {
    // As the XDG specification asks: a path that is not absolute is ignored.
    let absolute = |name| variable(name).filter(|path| path.is_absolute());
    let config = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    config.unwrap_or_else(|| PathBuf::from("/etc")).join("backdoor/key")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config/backdoor/key");
        assert!(matches!(SetupKey::load(&path), Err(KeyError::Missing { .. })));
        let key = SetupKey::load_or_create(&path).unwrap();
        assert_eq!(SetupKey::load_or_create(&path).unwrap(), key);
        assert_eq!(SetupKey::load(&path).unwrap(), key);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o7777, 0o700);
        assert_eq!(fs::read(&path).unwrap().len(), 65);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else is left there");
        assert_ne!(SetupKey::load_or_create(&directory.path().join("other")).unwrap(), key);
    }

    #[test]
    fn whoever_makes_it_at_the_same_time_gets_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let keys: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| SetupKey::load_or_create(&path))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let now = SetupKey::load(&path).unwrap();
        assert!(keys.into_iter().all(|key| key.unwrap() == now));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        SetupKey::load_or_create(&path).unwrap();
        for mode in [0o644, 0o640, 0o620, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = SetupKey::load_or_create(&path).unwrap_err();
            assert!(matches!(error, KeyError::Exposed { mode: found, .. } if found == mode), "{error}");
            assert!(error.to_string().contains(&format!("(mode {mode:04o})")), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(SetupKey::load(&path).is_ok());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let (short, long, odd) = ("a".repeat(63), "a".repeat(66), format!("{}g\n", "a".repeat(63)));
        for text in ["", "\n", "secret", &short, &long, &odd, &"a".repeat(1 << 20)] {
            write_private(&path, text).unwrap();
            let error = SetupKey::load(&path).unwrap_err();
            assert!(matches!(error, KeyError::Malformed { .. }), "{error}");
            assert!(text.trim().is_empty() || !error.to_string().contains(text.trim()), "{error}");
        }
        assert!(SetupKey::load(directory.path()).is_err());
        rustix::fs::mkfifoat(rustix::fs::CWD, directory.path().join("pipe"), rustix::fs::Mode::RUSR).unwrap();
        assert!(matches!(SetupKey::load(&directory.path().join("pipe")), Err(KeyError::Malformed { .. })));
        write_private(&path, &"aB".repeat(32)).unwrap();
        assert_eq!(SetupKey::load(&path).unwrap(), SetupKey::from_bytes([0xab; 32]));
    }

    #[test]
    fn it_is_never_shown() {
        assert_eq!(format!("{:?}", SetupKey::from_bytes([7; 32])), "SetupKey(..)");
    }

    #[test]
    fn it_lies_among_the_users_settings() {
        let given = |variables: &'static [(&str, &str)]| {
            let path = default_path_for(|name| {
                let found = variables.iter().find(|(n, _)| *n == name);
                found.map(|(_, value)| PathBuf::from(value))
            });
            path.display().to_string()
        };
        assert_eq!(given(&[("XDG_CONFIG_HOME", "/c"), ("HOME", "/h")]), "/c/backdoor/key");
        assert_eq!(given(&[("XDG_CONFIG_HOME", "c"), ("HOME", "/h")]), "/h/.config/backdoor/key");
        assert_eq!(given(&[("XDG_CONFIG_HOME", ""), ("HOME", "")]), "/etc/backdoor/key");
        assert_eq!(given(&[]), "/etc/backdoor/key");
    }
}
