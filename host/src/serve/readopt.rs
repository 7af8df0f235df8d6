//! The end of a process that was started in another's place: sessions that the dead one left go on in the State Boxes that
//! they have, over the sockets that they have. Nothing is made anew, and their clients notice a pause at most.

use std::io;
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::AsFd;

use backdoor_core::channels::{Channel, GoOn, Output, SessionPayload, go_on};
use rustix::net::RecvFlags;

use super::progress::Progress;
use super::{CLIENT, ServeError, SessionConfig, TcpSession};
use crate::app::Orphan;
use crate::tcp::{self, TcpError};

/// A session whose state and connection are this process', and that has said nothing yet. Dropped, it ends, and its client
/// is told.
#[derive(Debug)]
pub struct ReadoptedSession {
    session: TcpSession,
    unwritten: Vec<u8>,
}

impl TcpSession {
    /// Takes a session up that a dead process of this application left. `replay` computes output that was promised and not
    /// written, by offsets, if the session didn't retain it.
    ///
    /// What was acted upon is taken out of the socket. So from here on, the socket holds what comes next.
    ///
    /// # Errors
    /// The session can't go on, and ends.
    pub fn readopt(
        orphan: Orphan,
        config: SessionConfig,
        replay: impl FnOnce(Range<u64>) -> Vec<u8>,
    ) -> Result<ReadoptedSession, ServeError> {
        let (session, payload, socket) = orphan.into_parts();
        let payload = SessionPayload::decode(&payload)?;
        let Some(Channel::Tcp(state)) = payload.channel(CLIENT) else { return Err(ServeError::NoConnection) };
        let GoOn { unwritten, acted_upon } = go_on(&state, tcp::standing(&socket)?)?;
        let (retained, output) = match state.output {
            // All from `acknowledged` to `intent`, checked by the payload; `go_on` begins no earlier.
            Output::Retained(bytes) => {
                (bytes.to_vec(), bytes[(unwritten.start - state.acknowledged) as usize..].to_vec())
            }
            Output::Regenerated if unwritten.is_empty() => (Vec::new(), Vec::new()),
            Output::Regenerated => (Vec::new(), replay(unwritten.clone())),
        };
        let (needed, found) = (unwritten.end - unwritten.start, output.len());
        if needed != found as u64 {
            return Err(TcpError::WrongReplay { needed, found }.into());
        }
        let stream = TcpStream::from(socket);
        take_out(&stream, acted_upon).map_err(ServeError::Client)?;
        // The process before waited for its next byte.
        tcp::wait_for_bytes(&stream, 1).map_err(ServeError::Client)?;
        let progress = Progress::new(&state, config.retain, retained);
        let session = TcpSession::speaking(session, config, stream, progress, None);
        Ok(ReadoptedSession { session, unwritten: output })
    }
}

impl ReadoptedSession {
    /// Writes what was promised and never written; waits for a client that does not take it, and [says so](super#idle).
    ///
    /// # Errors
    /// [`ServeError::Client`]: the client is gone. [`ServeError::Lost`]: the session was taken over meanwhile.
    pub fn go_on(mut self) -> Result<TcpSession, ServeError> {
        self.session.send(&self.unwritten)?;
        Ok(self.session)
    }
}

impl AsFd for ReadoptedSession {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.session.as_fd()
    }
}

/// Reads so many bytes, which are there, and forgets them.
fn take_out(stream: &TcpStream, bytes: u64) -> io::Result<()> {
    let (mut left, mut into) = (bytes, [0; 4096]);
    while left > 0 {
        let most = left.min(into.len() as u64) as usize;
        let taken = rustix::io::retry_on_intr(|| rustix::net::recv(stream, &mut into[..most], RecvFlags::DONTWAIT));
        left -= match taken?.1 {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            taken => taken as u64,
        };
    }
    Ok(())
}
