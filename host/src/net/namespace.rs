//! Network namespaces without a name: they end with their last user.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::resume_unwind;
use std::thread;

use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::error::{Cause, NetError};
use super::links::Links;
use super::system;

/// The namespace of the thread that looks, whichever thread that is.
const OF_THIS_THREAD: &str = "/proc/thread-self/ns/net";

/// An anonymous network namespace: links, addresses, routes, neighbours and sockets apart from all others.
///
/// It ends, and all its virtual links with it, soon after the last process, thread, socket and descriptor in it or of it
/// is gone, however that went. Dropping this is letting go of one such descriptor.
#[derive(Debug)]
pub struct NetworkNamespace {
    file: OwnedFd,
}

impl NetworkNamespace {
    /// A new one, which has a loopback link, and nothing else. No thread of the caller's moves.
    ///
    /// # Errors
    ///
    /// [`Cause::Privilege`] without CAP_SYS_ADMIN or CAP_NET_ADMIN, and whatever else the system says.
    pub fn new() -> Result<Self, NetError> {
        let made = on_a_thread(|| {
            let failed = |cause| NetError::new("make a network namespace", cause);
            system::unshare_network().map_err(|errno| failed(Cause::of_call(errno, "CAP_SYS_ADMIN")))?;
            Links::here()?.set_up("lo")?;
            Self::current()
        });
        made?
    }

    /// That of the calling thread.
    ///
    /// # Errors
    ///
    /// What the system says if it can't be opened, for example because there is no /proc.
    pub fn current() -> Result<Self, NetError> {
        let opened = rustix::fs::open(OF_THIS_THREAD, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let failed = |errno| NetError::new(format!("open {OF_THIS_THREAD}"), Cause::System(errno));
        opened.map(|file| NetworkNamespace { file }).map_err(|errno| failed(errno.into()))
    }

    /// Runs `work` on a thread inside, and waits for it. Sockets and processes that are begun there are part of the
    /// namespace from then on, wherever they are used. A panic in there is a panic here.
    ///
    /// # Errors
    ///
    /// [`Cause::Privilege`] without CAP_SYS_ADMIN, unless the caller is in this namespace already, and whatever else the
    /// system says. Then `work` was not begun.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetError> {
        let done = on_a_thread(|| {
            if !self.is_current()? {
                self.move_here("enter a network namespace")?;
            }
            Ok(work())
        });
        done?
    }

    /// The same on the calling thread, which moves there and back: for what must not outlive the thread that begins it,
    /// such as a process that the kernel ends with that thread (`PR_SET_PDEATHSIG`).
    ///
    /// # Errors
    ///
    /// As [`enter`](Self::enter). If the thread can't go back, `work` was done all the same, and its result is dropped.
    pub fn enter_here<T>(&self, work: impl FnOnce() -> T) -> Result<T, NetError> {
        /// Goes back however `work` ends.
        struct Home(Option<NetworkNamespace>);
        impl Home {
            fn go(&mut self) -> Result<(), NetError> {
                self.0.take().map_or(Ok(()), |home| home.move_here("go back to a network namespace"))
            }
        }
        impl Drop for Home {
            fn drop(&mut self) {
                let _ = self.go();
            }
        }
        if self.is_current()? {
            return Ok(work());
        }
        let mut home = Home(Some(Self::current()?));
        self.move_here("enter a network namespace")?;
        let result = work();
        home.go().map(|()| result)
    }

    fn move_here(&self, attempt: &'static str) -> Result<(), NetError> {
        let moved = move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network));
        moved.map_err(|errno| NetError::new(attempt, Cause::of_call(errno, "CAP_SYS_ADMIN")))
    }

    /// Whether the calling thread is in it.
    fn is_current(&self) -> Result<bool, NetError> {
        let failed =
            |errno: rustix::io::Errno| NetError::new("compare network namespaces", Cause::System(errno.into()));
        let here = rustix::fs::stat(OF_THIS_THREAD).map_err(failed)?;
        let there = rustix::fs::fstat(&self.file).map_err(failed)?;
        Ok((here.st_dev, here.st_ino) == (there.st_dev, there.st_ino))
    }
}

impl AsFd for NetworkNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A thread that has moved to another namespace must not serve anybody else, so it is one for this work alone.
fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, NetError> {
    thread::scope(|scope| {
        let begun = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work);
        let thread = begun.map_err(|error| NetError::new("start a thread for a network namespace", error))?;
        thread.join().map_or_else(|panic| resume_unwind(panic), Ok)
    })
}
