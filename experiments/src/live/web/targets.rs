//! The taker's end of offers: connections to those who may carry sessions on, made again when they broke.

use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;

use backdoor_core::takeover::PartyId;

use super::offers::{self, AnswerHead, Offered};

/// What is heard of a target, and whose it is.
pub type Heard = (PartyId, FromTarget);

/// What is heard of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromTarget {
    /// What came of an offer.
    Answer(AnswerHead),
    /// It closed the connection: nothing more is answered of what it was offered before.
    Gone,
}

/// Where sessions are offered.
#[derive(Debug)]
pub(super) struct Target {
    party: PartyId,
    path: PathBuf,
    stream: Option<UnixStream>,
    heard: Sender<Heard>,
}

impl Target {
    /// Is connected to when there is something to offer.
    pub(super) fn new(party: PartyId, path: &Path, heard: Sender<Heard>) -> Self {
        Target { party, path: path.to_owned(), stream: None, heard }
    }

    pub(super) fn party(&self) -> PartyId {
        self.party
    }

    /// Connects unless it is connected, so that it costs nothing later.
    pub(super) fn connect(&mut self) -> io::Result<&mut UnixStream> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect_anew()?,
        };
        Ok(self.stream.insert(stream))
    }

    fn connect_anew(&self) -> io::Result<UnixStream> {
        let stream = offers::connect(&self.path)?;
        let (mut reader, heard, party) = (BufReader::new(stream.try_clone()?), self.heard.clone(), self.party);
        // Ends with the connection, or when nobody listens.
        std::thread::Builder::new().name("answers".into()).spawn(move || {
            while let Ok(Some(answer)) = offers::receive::<AnswerHead>(&mut reader) {
                if heard.send((party, FromTarget::Answer(answer))).is_err() {
                    return;
                }
            }
            let _ = heard.send((party, FromTarget::Gone));
        })?;
        Ok(stream)
    }

    /// Makes offers that belong together. Over a connection that broke meanwhile, because the target was started anew, say,
    /// they are made once more.
    pub(super) fn offer(&mut self, batch: &[Offered<'_>]) -> io::Result<()> {
        let was_connected = self.stream.is_some();
        match self.send(batch) {
            Err(error) if was_connected && is_over(&error) => self.send(batch),
            result => result,
        }
    }

    fn send(&mut self, batch: &[Offered<'_>]) -> io::Result<()> {
        let mut into = BufWriter::new(&*self.connect()?);
        let sent = batch.iter().try_for_each(|offered| offers::send_offer(&mut into, offered));
        let sent = sent.and_then(|()| into.flush());
        // What is left in it is not to be written any more.
        drop(into.into_parts());
        if sent.is_err() {
            // A frame may be half out, and the answers to the others are not waited for any more.
            if let Some(stream) = self.stream.take() {
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
        }
        sent.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "it takes no bytes"),
            _ => error,
        })
    }
}

/// Whether the connection had ended before.
fn is_over(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected)
}
