//! The end of a process that was started in another's place: sessions that the dead one left go on in the State Boxes that
//! they have, over the sockets that they have. Nothing is made anew, and their clients notice a pause at most.

use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::AsFd;

use backdoor_core::channels::{Channel, GoOn, Output, SessionPayload, go_on};

use super::intake::Intake;
use super::progress::Progress;
use super::{CLIENT, Retain, ServeError, SessionConfig, TcpSession};
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
    /// written, or is to be retained, by offsets, if the session didn't retain it.
    ///
    /// What the dead process had taken out of the socket and not acted upon is [read](TcpSession::read) first, and no poll of
    /// the stream tells of it.
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
        let GoOn { unwritten, taken } = go_on(&state, tcp::standing(&socket)?)?;
        // `go_on` begins no earlier than at `acknowledged`; what is retained begins there.
        let (from, output) = match state.output {
            Output::Retained(bytes) => (state.acknowledged, bytes.to_vec()),
            Output::Regenerated => {
                let from = if config.retain == Retain::Regenerated { unwritten.start } else { state.acknowledged };
                (from, if from == unwritten.end { Vec::new() } else { replay(from..unwritten.end) })
            }
        };
        let (needed, found) = (unwritten.end - from, output.len());
        if needed != found as u64 {
            return Err(TcpError::WrongReplay { needed, found }.into());
        }
        let first_unwritten = output[(unwritten.start - from) as usize..].to_vec();
        let retained = if config.retain == Retain::Regenerated { Vec::new() } else { output };
        let intake = Intake::left(session.input(), &state, taken)?;
        let stream = TcpStream::from(socket);
        // The end that an heir was told of does not come to its socket again.
        let waiting = rustix::io::ioctl_fionread(&stream).map_err(|errno| ServeError::Client(errno.into()))?;
        let input_end = state.input_ended.then_some(state.consumed + taken + waiting);
        let progress = Progress::new(&state, config.retain, retained);
        let session = TcpSession { stream, session, config, progress, intake, input_end };
        Ok(ReadoptedSession { session, unwritten: first_unwritten })
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
