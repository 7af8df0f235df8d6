//! A listening socket that hears nothing yet.
//!
//! A segment that belongs to no connection is answered by a reset, which ends a connection that is yet to be made anew
//! here. Whoever listens at the segment's address and port gets to see it first, and a filter of that socket may drop it.
//! So a listener that drops everything keeps the kernel silent about all connections at that address that it doesn't
//! know, while those that it knows go on: their clients send again, and find them.

use std::io;
use std::net::{SocketAddrV4, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::sockopt::{set_ip_freebind, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::options;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// A listener whose kernel drops, unanswered, what comes for it: new clients' requests, and whatever is of a connection
/// to its address and port that does not exist.
#[derive(Debug)]
pub struct DeafListener {
    socket: OwnedFd,
}

impl DeafListener {
    /// At `address`, which need not be here yet: so there is no moment at which the address is here and the listener is
    /// not.
    ///
    /// # Errors
    /// EADDRINUSE if somebody listens there, and what else the system says.
    pub fn bind(address: SocketAddrV4) -> io::Result<Self> {
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        set_socket_reuseaddr(&socket, true)?;
        set_ip_freebind(&socket, true)?;
        rustix::net::bind(&socket, &address)?;
        options::drop_all(socket.as_fd())?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(DeafListener { socket })
    }

    /// Hears from now on. What is of no connection is answered by a reset again.
    pub fn hear(self) -> io::Result<TcpListener> {
        options::drop_nothing(self.socket.as_fd())?;
        Ok(TcpListener::from(self.socket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpStream};
    use std::time::Duration;

    #[test]
    fn nobody_is_answered_until_it_hears() {
        // An address of the loopback network, for the port must be known before.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let Ok(std::net::SocketAddr::V4(address)) = free.local_addr() else { panic!("not IPv4") };
        drop(free);
        let deaf = DeafListener::bind(address).unwrap();
        let refused = TcpStream::connect_timeout(&address.into(), Duration::from_millis(100)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut, "neither taken in nor reset");
        let listener = deaf.hear().unwrap();
        let client = TcpStream::connect(address).unwrap();
        assert_eq!(listener.accept().unwrap().1, client.local_addr().unwrap());
    }

    #[test]
    fn the_address_need_not_be_here() {
        // 192.0.2.0/24 is nobody's (RFC 5737).
        DeafListener::bind(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 8080)).unwrap();
    }
}
