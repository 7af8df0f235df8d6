//! One end of a link, and its connection.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_core::channels::{
    Arrival, Channel, ChannelId, Frame, FrameError, Greeting, IpcEnd, IpcState, LinkId, MAX_FRAME_BYTES,
    MAX_MESSAGE_BYTES, encoded_len,
};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags};

use super::{Greeted, IpcError, PEER};
use crate::clock;
use crate::wire::{new_socket, send};

/// What came over a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A message that was not acted upon yet. What comes of it is to be committed.
    Message(Vec<u8>),
    /// Nothing in time.
    Nothing,
    /// The other process has closed the connection, or died. What it had committed comes again over the next one.
    Disconnected,
    /// The other process is done with the link for good.
    Bye,
}

/// One end of a link: what is kept of it, and its connection, if it has one.
#[derive(Debug)]
pub struct IpcChannel {
    end: IpcEnd,
    /// Bytes of unacknowledged messages that its State Box has room for.
    room: usize,
    socket: Option<OwnedFd>,
    packet: Vec<u8>,
}

impl IpcChannel {
    /// Of a link that is new. `room` is how many bytes of messages it can keep, each with 4 bytes for its length.
    pub fn new(link: LinkId, room: usize) -> Self {
        Self::of(IpcEnd::new(link), room)
    }

    /// Of a link that is carried on. Its state is to be committed here before the channel is connected.
    pub fn resume(state: &IpcState<'_>, room: usize) -> Self {
        Self::of(IpcEnd::resume(state), room)
    }

    fn of(end: IpcEnd, room: usize) -> Self {
        IpcChannel { end, room, socket: None, packet: Vec::new() }
    }

    /// Bytes that a channel takes in a State Box.
    pub fn state_bytes(room: usize) -> usize {
        let end = IpcEnd::new(LinkId(0));
        encoded_len(0, &[(PEER, Channel::Ipc(end.state()))]) - encoded_len(0, &[]) + room
    }

    /// Which link.
    pub fn link(&self) -> LinkId {
        self.end.link()
    }

    /// What is to be committed of it, with what came of the messages received.
    pub fn state(&self) -> (ChannelId, Channel<'_>) {
        (PEER, Channel::Ipc(self.end.state()))
    }

    /// What [`state`](Self::state) told is committed.
    pub fn committed(&mut self) {
        self.end.committed();
    }

    /// Takes a message, to be sent by the first [`flush`](Self::flush) after it is committed.
    ///
    /// # Errors
    /// [`IpcError::TooLong`] and [`IpcError::NoRoom`]; the message is not taken.
    pub fn push(&mut self, message: &[u8]) -> Result<(), IpcError> {
        let (bytes, room) = (message.len(), self.room);
        if bytes > MAX_MESSAGE_BYTES {
            return Err(IpcError::TooLong { bytes });
        }
        let needed = self.end.outbox_bytes() + 4 + bytes;
        if needed > room {
            return Err(IpcError::NoRoom { needed, room });
        }
        self.end.push(message);
        Ok(())
    }

    /// Whether there is a connection, as far as is known.
    pub fn is_connected(&self) -> bool {
        self.socket.is_some()
    }

    /// Connects to the process that listens at `path` and has the link's other end, or is to make it if this `opens` the
    /// link. Waits for its greeting, `patience` at most; then sends what that is missing.
    pub fn connect(&mut self, path: &Path, opens: bool, patience: Duration) -> Result<(), IpcError> {
        self.disconnect();
        let system = |errno: Errno| IpcError::System(errno.into());
        let address = SocketAddrUnix::new(path).map_err(system)?;
        let socket = new_socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).map_err(system)?;
        rustix::net::connect(&socket, &address).map_err(system)?;
        self.socket = Some(socket);
        self.greet(opens)?;
        let mut packet = std::mem::take(&mut self.packet);
        let greeting = hear_greeting(self.socket()?, &mut packet, patience);
        self.packet = packet;
        let greeted = greeting.and_then(|(greeting, _)| Ok(self.end.greeted(greeting)?));
        greeted.map_err(|error| self.refuse(error))?;
        self.flush()
    }

    /// Goes on over a connection that the other end began: greets, and sends what that is missing.
    pub fn answer(&mut self, greeted: Greeted) -> Result<(), IpcError> {
        let Greeted { socket, greeting, .. } = greeted;
        self.disconnect();
        self.socket = Some(socket);
        // Said in any case, so that the other end can tell for itself what does not fit.
        self.greet(false)?;
        self.end.greeted(greeting).map_err(|error| self.refuse(error.into()))?;
        self.flush()
    }

    fn greet(&mut self, opens: bool) -> Result<(), IpcError> {
        let greeting = self.end.greet();
        match self.send(&Frame::Hello { greeting, opens })? {
            true => Ok(()),
            false => {
                self.disconnect();
                Err(IpcError::Closed)
            }
        }
    }

    /// Sends what is committed and not on its way, as far as it can without waiting. Without a connection, nothing.
    pub fn flush(&mut self) -> Result<(), IpcError> {
        if let Some(number) = self.end.acknowledgement()
            && self.send(&Frame::Acknowledged { number })?
        {
            self.end.told(number);
        }
        let (mut packet, mut last, mut outcome) = (Vec::new(), None, Ok(true));
        for (number, message) in self.end.to_send() {
            Frame::Message { number, message }.encode(&mut packet);
            outcome = self.send_bytes(&packet);
            if !matches!(outcome, Ok(true)) {
                break;
            }
            last = Some(number);
        }
        // Also before an error: they are on their way all the same.
        if let Some(last) = last {
            self.end.sent(last);
        }
        outcome.map(drop)
    }

    /// What comes next, within `patience`, or however long it takes. What is to be sent is sent meanwhile.
    ///
    /// # Errors
    /// What came makes no sense, and the connection is over. [`IpcError::Link`]: so is the link, if the states of its ends
    /// contradict each other.
    pub fn receive(&mut self, patience: Option<Duration>) -> Result<Received, IpcError> {
        let until = patience.map(instant_after);
        loop {
            self.flush()?;
            let Some(socket) = &self.socket else { return Ok(Received::Disconnected) };
            let has_more = self.end.to_send().next().is_some() || self.end.acknowledgement().is_some();
            let events = if has_more { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            if !clock::wait_for(socket.as_fd(), events, until)? {
                return Ok(Received::Nothing);
            }
            let mut packet = std::mem::take(&mut self.packet);
            let outcome = receive(socket.as_fd(), &mut packet).and_then(|length| match length {
                None => Ok(None),
                Some(length) => self.take(&packet[..length]),
            });
            self.packet = packet;
            match outcome {
                Ok(None) => {}
                Ok(Some(received)) => {
                    if matches!(received, Received::Disconnected | Received::Bye) {
                        self.disconnect();
                    }
                    return Ok(received);
                }
                Err(error) => return Err(self.refuse(error)),
            }
        }
    }

    fn take(&mut self, packet: &[u8]) -> Result<Option<Received>, IpcError> {
        if packet.is_empty() {
            return Ok(Some(Received::Disconnected));
        }
        Ok(match Frame::decode(packet)? {
            Frame::Message { number, message } => match self.end.arrives(number)? {
                Arrival::New => Some(Received::Message(message.into())),
                Arrival::Again | Arrival::Early => None,
            },
            Frame::Acknowledged { number } => {
                self.end.acknowledged(number)?;
                None
            }
            Frame::Bye => Some(Received::Bye),
            Frame::Refused { why } => return Err(IpcError::Refused { why: why.into() }),
            Frame::Hello { .. } => return Err(IpcError::OutOfTurn("a greeting came again")),
        })
    }

    /// Tells the other end that the link is over, and closes the connection.
    pub fn bye(&mut self) {
        let _ = self.send(&Frame::Bye);
        self.disconnect();
    }

    /// Closes the connection; the link goes on over another one.
    pub fn disconnect(&mut self) {
        self.end.disconnected();
        let Some(socket) = self.socket.take() else { return };
        // Others may hold duplicates, by which the connection would stay, and what is left in it would pass for work.
        let _ = rustix::net::shutdown(&socket, Shutdown::Both);
        while matches!(receive(socket.as_fd(), &mut self.packet), Ok(Some(1..)) | Err(IpcError::Frame(_))) {}
    }

    /// Ends the connection because of `error`; says why, if the other end may not know.
    fn refuse(&mut self, error: IpcError) -> IpcError {
        if let Some(why) = error.told() {
            let _ = self.send(&Frame::Refused { why: &why });
        }
        self.disconnect();
        error
    }

    pub(super) fn socket(&self) -> Result<BorrowedFd<'_>, IpcError> {
        Ok(self.socket.as_ref().ok_or(IpcError::Closed)?.as_fd())
    }

    fn send(&self, frame: &Frame<'_>) -> Result<bool, IpcError> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.send_bytes(&bytes)
    }

    /// Whether it was sent. If not, there is no room now, or no connection.
    fn send_bytes(&self, packet: &[u8]) -> Result<bool, IpcError> {
        let Some(socket) = &self.socket else { return Ok(false) };
        match send(socket.as_fd(), packet, &[], SendFlags::DONTWAIT) {
            Ok(()) => Ok(true),
            // What came before the end can still be received: `receive` finds the end.
            Err(Errno::AGAIN | Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => Ok(false),
            Err(errno) => Err(IpcError::System(errno.into())),
        }
    }
}

fn instant_after(patience: Duration) -> Nanos {
    clock::now() + Nanos(u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX))
}

/// Waits for the other end's greeting, `patience` at most; with it, whether the link is new. `packet` is room for what comes.
pub(super) fn hear_greeting(
    socket: BorrowedFd<'_>,
    packet: &mut Vec<u8>,
    patience: Duration,
) -> Result<(Greeting, bool), IpcError> {
    if !clock::wait_for(socket, PollFlags::IN, Some(instant_after(patience)))? {
        return Err(IpcError::NoAnswer);
    }
    let Some(length @ 1..) = receive(socket, packet)? else { return Err(IpcError::Closed) };
    match Frame::decode(&packet[..length])? {
        Frame::Hello { greeting, opens } => Ok((greeting, opens)),
        Frame::Refused { why } => Err(IpcError::Refused { why: why.into() }),
        _ => Err(IpcError::OutOfTurn("no greeting came first")),
    }
}

/// Receives a packet without waiting: its length, 0 at the end, `None` if there is none. Descriptors that come with it are
/// closed by the kernel.
fn receive(socket: BorrowedFd<'_>, packet: &mut Vec<u8>) -> Result<Option<usize>, IpcError> {
    packet.resize(MAX_FRAME_BYTES, 0);
    let mut next = || {
        rustix::io::retry_on_intr(|| rustix::net::recv(socket, &mut packet[..], RecvFlags::DONTWAIT | RecvFlags::TRUNC))
    };
    let outcome = match next() {
        // Reported once, and before what is still to be received.
        Err(Errno::CONNRESET) => next(),
        outcome => outcome,
    };
    match outcome {
        Ok((_, length)) if length > MAX_FRAME_BYTES => Err(FrameError::TooLong.into()),
        Ok((_, length)) => Ok(Some(length)),
        Err(Errno::AGAIN) => Ok(None),
        Err(Errno::CONNRESET | Errno::PIPE) => Ok(Some(0)),
        Err(errno) => Err(IpcError::System(errno.into())),
    }
}
