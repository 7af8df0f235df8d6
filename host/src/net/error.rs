//! What was attempted with the network, and why it failed.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;

use rustix::io::Errno;

/// Something that could not be done: one sentence that says what, on which link, and why.
#[derive(Debug, thiserror::Error)]
#[error("could not {attempt}: {cause}")]
pub struct NetError {
    attempt: String,
    cause: Cause,
}

impl NetError {
    pub(crate) fn new(attempt: impl fmt::Display, cause: impl Into<Cause>) -> Self {
        NetError { attempt: attempt.to_string(), cause: cause.into() }
    }

    /// Why it failed.
    pub fn cause(&self) -> &Cause {
        &self.cause
    }
}

/// Why something could not be done with the network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The kernel would refuse the name, or make another one of it.
    #[error("{0:?} can't be the name of a link (1 to 15 bytes without blanks, '/', ':' and '%')")]
    Name(String),
    /// EEXIST, of a link.
    #[error("there is a link {0} already")]
    LinkExists(String),
    /// ENODEV.
    #[error("there is no link {0}")]
    NoLink(String),
    /// EEXIST, of an address.
    #[error("link {link} has the address {address} already")]
    AddressExists {
        /// The link.
        link: String,
        /// The address.
        address: Ipv4Addr,
    },
    /// EADDRNOTAVAIL.
    #[error("link {link} does not have the address {address}, or not with this prefix")]
    NoAddress {
        /// The link.
        link: String,
        /// The address.
        address: Ipv4Addr,
    },
    /// The link's hardware address is not one of Ethernet, so its neighbours are not told by ARP over Ethernet.
    #[error("link {0} is no Ethernet link")]
    NoEthernet(String),
    /// EPERM.
    #[error("this takes the privilege {0} (root has it, unless it was taken away)")]
    Privilege(&'static str),
    /// The kernel's answer was cut off, malformed, or none at all.
    #[error("the kernel's answer can't be understood: {0}")]
    Answer(String),
    /// Anything else that the system said.
    #[error("{0}")]
    System(io::Error),
}

impl Cause {
    /// Of a call that takes this privilege.
    pub(super) fn of_call(errno: Errno, privilege: &'static str) -> Self {
        match errno {
            Errno::PERM | Errno::ACCESS => Cause::Privilege(privilege),
            errno => Cause::System(errno.into()),
        }
    }
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        Cause::System(error)
    }
}
