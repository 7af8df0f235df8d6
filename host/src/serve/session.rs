//! The owner's end.

use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

use backdoor_core::channels::{Channel, ChannelId, Output, SessionPayload, TcpState, encoded_len};
use backdoor_core::takeover::Ownership;
use rustix::net::RecvFlags;

use super::{CLIENT, Retain, ServeError, SessionConfig};
use crate::app::{App, Session};
use crate::tcp;
use crate::wire::has_hung_up;

/// A session, its connection, and how far the two have come.
///
/// Dropped, it closes the connection as usual; in silence if the session is another's now.
#[derive(Debug)]
pub struct TcpSession {
    pub(super) session: Session,
    /// `None` only while it is dropped.
    pub(super) stream: Option<TcpStream>,
    pub(super) progress: Progress,
    /// Input that was handed out and not yet acted upon; it is still in the kernel.
    read: usize,
    /// Offset after the last byte of input, if it is known that none follows.
    pub(super) input_end: Option<u64>,
    /// What the kernel has waited for last.
    low_water: usize,
    peeked: Vec<u8>,
}

/// How far the connection has come, and what is committed of it.
#[derive(Debug)]
pub(super) struct Progress {
    /// Its output is not looked at: `retained` is.
    state: TcpState<'static>,
    retain: Retain,
    /// Output from `state.acknowledged` to `state.intent`.
    retained: Vec<u8>,
    payload: Vec<u8>,
}

impl Progress {
    pub(super) fn new(state: &TcpState<'_>, retain: Retain, retained: Vec<u8>) -> Self {
        let state = TcpState { output: Output::Regenerated, ..*state };
        Progress { state, retain, retained, payload: Vec::new() }
    }

    /// Bytes of State Box that it takes.
    pub(super) fn state_bytes(&self, application_bytes: usize) -> usize {
        let most = match self.retain {
            Retain::Bytes(bytes) => bytes,
            Retain::Regenerated => 0,
        };
        encoded_len(application_bytes, &[(CLIENT, Channel::Tcp(self.state))]) + most
    }

    /// Commits that `output` is promised and `consumed` more bytes were acted upon. If that fails, all is as before.
    pub(super) fn commit(
        &mut self,
        session: &mut Session,
        application: &[u8],
        others: &[(ChannelId, Channel<'_>)],
        consumed: usize,
        output: &[u8],
        acknowledged: u64,
    ) -> Result<(), ServeError> {
        let mut next = self.state;
        next.intent += output.len() as u64;
        next.consumed += consumed as u64;
        next.acknowledged = next.acknowledged.max(acknowledged);
        if let Retain::Bytes(room) = self.retain {
            // Never negative: the client acknowledges no more than was promised.
            let known = (next.acknowledged - self.state.acknowledged) as usize;
            let needed = self.retained.len() - known + output.len();
            if needed > room {
                return Err(ServeError::NoRoom { needed, room });
            }
            self.retained.drain(..known);
            self.state.acknowledged = next.acknowledged;
            self.retained.extend(output);
            next.output = Output::Retained(&[]);
        }
        let outcome = self.write(&next, application, others).and_then(|()| Ok(session.commit(&self.payload)?));
        match outcome {
            Ok(_) => self.state = TcpState { output: Output::Regenerated, ..next },
            Err(_) => self.retained.truncate(self.retained.len() - output.len().min(self.retained.len())),
        }
        outcome.map(|_| ())
    }

    fn write(
        &mut self,
        next: &TcpState<'static>,
        application: &[u8],
        others: &[(ChannelId, Channel<'_>)],
    ) -> Result<(), ServeError> {
        let output = match self.retain {
            Retain::Bytes(_) => Output::Retained(&self.retained),
            Retain::Regenerated => Output::Regenerated,
        };
        let tcp = TcpState { output, ..*next };
        let channels: Vec<_> = std::iter::once((CLIENT, Channel::Tcp(tcp))).chain(others.iter().copied()).collect();
        Ok(SessionPayload::encode(application, &channels, &mut self.payload)?)
    }
}

impl TcpSession {
    /// Opens a session for a connection that was just accepted, and lets the agent keep a duplicate of it: so the queues
    /// can be read when this process is dead, and its death does not end the connection.
    pub fn accept(app: &App, stream: TcpStream, name: &str, config: SessionConfig) -> Result<Self, ServeError> {
        let state = TcpState::new(tcp::birth(&stream)?, Output::Regenerated);
        let mut progress = Progress::new(&state, config.retain, Vec::new());
        let mut session = app.open_session(name, config.deadline, progress.state_bytes(config.application_bytes))?;
        progress.commit(&mut session, b"", &[], 0, b"", 0)?;
        TcpSession::speaking(session, stream, progress)
    }

    /// With a state that is committed.
    pub(super) fn speaking(session: Session, stream: TcpStream, progress: Progress) -> Result<Self, ServeError> {
        session.keep_connection(&stream)?;
        Ok(TcpSession {
            session,
            stream: Some(stream),
            progress,
            read: 0,
            input_end: None,
            low_water: 1,
            peeked: Vec::new(),
        })
    }

    /// Reads input that comes after all that was read before; 0 at its end. It stays in the kernel until it is
    /// [acted upon](Self::commit_and_send), so each call copies what is not acted upon yet once more.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if the stream doesn't wait, or no longer.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.input_end == Some(self.progress.state.consumed + self.read as u64) || into.is_empty() {
            return Ok(0);
        }
        let low_water = self.read + 1;
        if self.low_water != low_water {
            tcp::wait_for_bytes(self.stream(), low_water)?;
            self.low_water = low_water;
        }
        let mut peeked = std::mem::take(&mut self.peeked);
        peeked.resize(self.read + into.len(), 0);
        let outcome = rustix::io::retry_on_intr(|| {
            rustix::net::recv(self.stream(), &mut peeked[..], RecvFlags::PEEK).map(|(_, length)| length)
        });
        let read = outcome.map_err(io::Error::from).and_then(|length| match length.checked_sub(self.read) {
            Some(new) if new > 0 => {
                into[..new].copy_from_slice(&peeked[self.read..length]);
                Ok(new)
            }
            _ if has_hung_up(self.stream().as_fd()) => Ok(0),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        });
        self.peeked = peeked;
        match read {
            Ok(0) => self.progress.state.input_ended = true,
            Ok(new) => self.read += new,
            Err(_) => {}
        }
        read
    }

    /// Commits the application's state with the promise of `output`, and that the next `consumed` bytes of what was read
    /// are acted upon; then sends `output`. Waits while the connection's buffers are full.
    ///
    /// # Errors
    /// [`ServeError::Commit`], [`ServeError::NotRead`] and [`ServeError::NoRoom`]: nothing was committed nor sent.
    /// [`ServeError::Client`]: it is committed, and the client is gone.
    pub fn commit_and_send(&mut self, application: &[u8], consumed: usize, output: &[u8]) -> Result<(), ServeError> {
        self.commit_and_send_with(application, &[], consumed, output)
    }

    /// The same for a session with channels to other processes: all of them, by ascending id. What isn't given here is no
    /// longer part of the session.
    pub fn commit_and_send_with(
        &mut self,
        application: &[u8],
        others: &[(ChannelId, Channel<'_>)],
        consumed: usize,
        output: &[u8],
    ) -> Result<(), ServeError> {
        if consumed > self.read {
            return Err(ServeError::NotRead { consumed, read: self.read });
        }
        let outstanding = tcp::unacknowledged(self.stream()).map_err(ServeError::Client)?;
        let acknowledged = self.progress.state.intent.saturating_sub(u64::from(outstanding));
        self.progress.commit(&mut self.session, application, others, consumed, output, acknowledged)?;
        self.session.progress();
        self.take(consumed).map_err(ServeError::Client)?;
        // A client that takes its time is no failure of this side's.
        self.session.idle();
        self.stream().write_all(output).map_err(ServeError::Client)?;
        self.session.progress();
        Ok(())
    }

    /// Takes input out of the kernel that was acted upon.
    fn take(&mut self, consumed: usize) -> io::Result<()> {
        let mut left = consumed;
        while left > 0 {
            let peeked = &mut self.peeked[..left];
            let stream = self.stream.as_ref().map(AsFd::as_fd).ok_or(io::ErrorKind::NotConnected)?;
            left -= match rustix::io::retry_on_intr(|| rustix::net::recv(stream, &mut *peeked, RecvFlags::DONTWAIT))?.1
            {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                taken => taken,
            };
        }
        self.read -= consumed;
        Ok(())
    }

    /// It waits for its client: silence from here on is expected.
    pub fn idle(&mut self) {
        self.session.idle();
    }

    /// How far the connection has come. What is retained is not in it.
    pub fn state(&self) -> &TcpState<'static> {
        &self.progress.state
    }

    /// The session.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// The connection. What is read or written there past this session is not carried on.
    pub fn stream(&self) -> &TcpStream {
        self.stream.as_ref().expect("it is there until the session is dropped")
    }
}

impl AsFd for TcpSession {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream().as_fd()
    }
}

impl Drop for TcpSession {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take().filter(|_| self.session.ownership() != Ownership::Mine) {
            let _ = tcp::silence(stream);
        }
    }
}
