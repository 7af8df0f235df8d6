//! The agent's place in the file system: one live agent per path, and dead ones give way.
//!
//! A lock beside the socket decides who lives: the kernel releases it with its holder, however that died, and it can't
//! be held twice, whereas "connect, and if refused remove" lets two agents remove each other's sockets.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{SocketAddrUnix, SocketFlags};

use super::AgentError;
use crate::wire::{self, is_socket, new_socket};

/// A listening socket, removed with its lock when dropped.
pub(super) struct Listener {
    socket: OwnedFd,
    path: PathBuf,
    lock: Lock,
}

impl Listener {
    /// Listens at `path`, in place of a dead agent if need be. Only this user may connect.
    pub(super) fn bind(path: &Path) -> Result<Self, AgentError> {
        let system = |errno: Errno| AgentError::Socket { path: path.display().to_string(), source: errno.into() };
        let address = match SocketAddrUnix::new(path) {
            Err(Errno::NAMETOOLONG) => return Err(AgentError::TooLong { path: path.display().to_string() }),
            address => address.map_err(system)?,
        };
        let lock = Lock::take(path)?;
        if std::fs::symlink_metadata(path).is_ok() {
            remove_stale(path, &address)?;
        }
        let socket = wire::bind(&address).map_err(system)?;
        let listener = Listener { socket, path: path.to_owned(), lock };
        wire::listen(listener.as_fd()).map_err(system)?;
        Ok(listener)
    }

    /// The next connection that waits, non-blocking; `None` if there is none.
    pub(super) fn accept(&self) -> Result<Option<OwnedFd>, Errno> {
        wire::accept(self.as_fd())
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Nothing can be done about a failure; the next agent copes with what is left.
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_file(&self.lock.path);
    }
}

fn remove_stale(path: &Path, address: &SocketAddrUnix) -> Result<(), AgentError> {
    let shown = path.display().to_string();
    if !is_socket(path) {
        return Err(AgentError::InTheWay { path: shown });
    }
    // The lock says that no agent lives; some other program's socket may all the same.
    let system = |errno: Errno| AgentError::Socket { path: path.display().to_string(), source: errno.into() };
    let probe = new_socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).map_err(system)?;
    match rustix::net::connect(&probe, address) {
        Err(Errno::CONNREFUSED) => {
            std::fs::remove_file(path).map_err(|source| AgentError::Socket { path: shown, source })
        }
        _ => Err(AgentError::AlreadyRunning { path: shown }),
    }
}

/// The lock beside a socket.
struct Lock {
    path: PathBuf,
    _held: OwnedFd,
}

impl Lock {
    fn take(socket: &Path) -> Result<Self, AgentError> {
        let shown = socket.display().to_string();
        let system = |errno: Errno| AgentError::Socket { path: socket.display().to_string(), source: errno.into() };
        let mut path = socket.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let held = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(system)?;
            match rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(AgentError::AlreadyRunning { path: shown }),
                Err(errno) => return Err(system(errno)),
            }
            // An agent that just ended may have removed the file between our opening and our locking it; then the lock
            // is on a file that nobody else will find.
            let opened = rustix::fs::fstat(&held).map_err(system)?;
            match rustix::fs::stat(&path) {
                Ok(there) if (there.st_dev, there.st_ino) == (opened.st_dev, opened.st_ino) => {
                    return Ok(Lock { path, _held: held });
                }
                _ => continue,
            }
        }
    }
}
