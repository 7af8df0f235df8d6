//! A packet socket on one link: frames go out, and come in, as they are.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::error::{Cause, NetError};
use super::links::{HardwareAddress, Links};
use super::namespace::NetworkNamespace;
use super::system::PacketAddress;

/// Keeps the link's namespace alive.
#[derive(Debug)]
pub(super) struct PacketSocket {
    socket: OwnedFd,
    pub(super) link: String,
    pub(super) hardware: HardwareAddress,
}

impl PacketSocket {
    /// On `link` of `namespace`; hears frames of this protocol, or, of protocol 0, none.
    ///
    /// # Errors
    /// [`Cause::NoLink`]; [`Cause::NoEthernet`]; [`Cause::Privilege`] without CAP_NET_RAW in the namespace; those of
    /// [`NetworkNamespace::enter`].
    pub(super) fn open(namespace: &NetworkNamespace, link: &str, protocol: u16) -> Result<Self, NetError> {
        Self::prepared(namespace, link, protocol, |_| Ok(()))
    }

    /// The same; `prepare` gets the socket before it hears anything.
    pub(super) fn prepared(
        namespace: &NetworkNamespace,
        link: &str,
        protocol: u16,
        prepare: impl FnOnce(BorrowedFd<'_>) -> Result<(), Cause> + Send,
    ) -> Result<Self, NetError> {
        let opened = namespace.enter(|| {
            let found = Links::here()?.find(link).and_then(|found| Ok((found.index, found.ethernet(link)?)));
            found
                .and_then(|(index, hardware)| {
                    Ok(PacketSocket { socket: bound(index, protocol, prepare)?, link: link.to_owned(), hardware })
                })
                .map_err(|cause| NetError::new(format_args!("open a packet socket on link {link}"), cause))
        });
        opened?
    }

    pub(super) fn send(&self, frame: &[u8]) -> Result<(), Cause> {
        let sent = retry_on_intr(|| rustix::net::send(&self.socket, frame, SendFlags::empty()));
        sent.map(drop).map_err(|errno| Cause::of_call(errno, "CAP_NET_RAW"))
    }

    /// Takes a frame that has come, or as much of it as there is room for. Waits for none.
    pub(super) fn hear(&self, frame: &mut [u8]) -> Result<(), Errno> {
        retry_on_intr(|| rustix::net::recv(&self.socket, &mut *frame, RecvFlags::DONTWAIT)).map(drop)
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A packet socket that begins to hear only when it is prepared.
fn bound(
    index: u32,
    protocol: u16,
    prepare: impl FnOnce(BorrowedFd<'_>) -> Result<(), Cause>,
) -> Result<OwnedFd, Cause> {
    let failed = |errno| Cause::of_call(errno, "CAP_NET_RAW");
    let socket = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None);
    let socket = socket.map_err(failed)?;
    prepare(socket.as_fd())?;
    rustix::net::bind(&socket, &PacketAddress::on(index, protocol)).map_err(failed)?;
    Ok(socket)
}
