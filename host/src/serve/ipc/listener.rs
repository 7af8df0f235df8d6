//! Where the processes of a node that want to link up come.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use backdoor_core::channels::{Frame, Greeting, LinkId};
use rustix::net::{SendFlags, Shutdown, SocketAddrUnix};

use super::IpcError;
use super::channel::hear_greeting;
use crate::wire::{self, send};

/// A socket at which links begin; removed when dropped.
#[derive(Debug)]
pub struct IpcListener {
    socket: OwnedFd,
    path: PathBuf,
}

impl IpcListener {
    /// Listens at `path`, where nothing may be. Only this user may connect.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path)?;
        let listener = IpcListener { socket: wire::bind(&address)?, path: path.to_owned() };
        wire::listen(listener.as_fd())?;
        Ok(listener)
    }

    /// The next connection that waits; `None` if there is none.
    pub fn accept(&self) -> io::Result<Option<Incoming>> {
        Ok(wire::accept(self.as_fd())?.map(|socket| Incoming { socket }))
    }
}

impl AsFd for IpcListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for IpcListener {
    fn drop(&mut self) {
        // Nothing can be done about a failure.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A connection over which nothing was said yet.
#[derive(Debug)]
pub struct Incoming {
    socket: OwnedFd,
}

impl Incoming {
    /// Waits for the other end's greeting, `patience` at most: it may be anybody who says anything, or nothing.
    pub fn greeting(self, patience: Duration) -> Result<Greeted, IpcError> {
        let Incoming { socket } = self;
        match hear_greeting(socket.as_fd(), &mut Vec::new(), patience) {
            Ok((greeting, opens)) => Ok(Greeted { socket, greeting, opens }),
            Err(error) => {
                if let Some(why) = error.told() {
                    refuse(socket.as_fd(), &why);
                }
                Err(error)
            }
        }
    }
}

/// A connection, and which link it is of.
#[derive(Debug)]
pub struct Greeted {
    pub(super) socket: OwnedFd,
    pub(super) greeting: Greeting,
    opens: bool,
}

impl Greeted {
    /// Which link, as the other end says.
    pub fn link(&self) -> LinkId {
        self.greeting.link
    }

    /// Whether the other end says that the link is new. If not, a process that does not know it must not make it: it may
    /// be on its way here from another node.
    pub fn opens(&self) -> bool {
        self.opens
    }

    /// Says why there is no such link here, and closes the connection.
    pub fn refuse(self, why: &str) {
        refuse(self.socket.as_fd(), why);
    }

    /// What another thread can end the connection by.
    pub fn breaker(&self) -> io::Result<Breaker> {
        self.socket.try_clone().map(Breaker)
    }
}

/// Ends a connection that another thread may be waiting for.
#[derive(Debug)]
pub struct Breaker(OwnedFd);

impl Breaker {
    /// Ends it, as if the other end had closed it.
    pub fn end(&self) {
        // It may have ended already.
        let _ = rustix::net::shutdown(&self.0, Shutdown::Both);
    }
}

fn refuse(socket: BorrowedFd<'_>, why: &str) {
    let mut packet = Vec::new();
    Frame::Refused { why }.encode(&mut packet);
    let _ = send(socket, &packet, &[], SendFlags::DONTWAIT);
}
