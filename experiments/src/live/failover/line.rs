//! A client's line to the service: a connection, and another one when it hears that the first has ended, if it is one that
//! connects again.

use std::io::{self, BufReader, Write};
use std::net::{Shutdown, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backdoor_host::net::NetworkNamespace;

use crate::live::two_locks::lock;

/// How long a client waits for an answer, at most.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long it waits for its first connection.
const FIRST_WITHIN: Duration = Duration::from_secs(5);
/// How long it waits for a new connection before it tries once more, and the pause before that.
const CONNECTS_WITHIN: Duration = Duration::from_millis(100);
const AGAIN: Duration = Duration::from_millis(10);

/// All connections, so that they can be ended whoever waits for what.
#[derive(Debug, Default)]
pub(super) struct Lines {
    streams: Mutex<Vec<TcpStream>>,
    are_over: AtomicBool,
}

impl Lines {
    fn take_in(&self, stream: &TcpStream) -> io::Result<()> {
        lock(&self.streams).push(stream.try_clone()?);
        // Ended meanwhile: whoever ended them did not see this one.
        if self.are_over.load(Ordering::Acquire) { stream.shutdown(Shutdown::Both) } else { Ok(()) }
    }

    /// Ends them, for good.
    pub(super) fn end(&self) {
        self.are_over.store(true, Ordering::Release);
        for stream in &*lock(&self.streams) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// A connection to the service.
#[derive(Debug)]
pub(super) struct Line {
    address: SocketAddrV4,
    from: BufReader<TcpStream>,
    lines: Arc<Lines>,
    /// Where it connects again, if it does.
    again: Option<NetworkNamespace>,
    is_first: bool,
}

impl Line {
    /// Connects to `address`, from this namespace; `connects_again`: whenever it hears that the connection has ended.
    pub(super) fn connect(
        address: SocketAddrV4,
        namespace: &NetworkNamespace,
        lines: &Arc<Lines>,
        connects_again: bool,
    ) -> Result<Self, String> {
        let connect = || TcpStream::connect_timeout(&address.into(), FIRST_WITHIN);
        let stream = namespace.enter(connect).map_err(|error| error.to_string())?;
        let from = stream
            .and_then(|stream| ready(stream, lines))
            .map_err(|error| format!("can't connect: {}", crate::plain(&error)))?;
        let here =
            || namespace.enter(NetworkNamespace::current).and_then(|here| here).map_err(|error| error.to_string());
        let again = connects_again.then(here).transpose()?;
        Ok(Line { address, from, lines: Arc::clone(lines), again, is_first: true })
    }

    /// Sends a request; what comes back is to be read from it.
    pub(super) fn ask(&mut self, request: &[u8]) -> Result<&mut BufReader<TcpStream>, String> {
        self.from.get_mut().write_all(request).map_err(|error| format!("the connection broke: {error}"))?;
        Ok(&mut self.from)
    }

    /// Whether it is the connection that it began with.
    pub(super) fn is_first(&self) -> bool {
        self.is_first
    }

    /// The connection has ended, because of `why`: makes another one, at once and for as long as it takes.
    ///
    /// # Errors
    /// `why`, if it does not, or not any more.
    pub(super) fn again(&mut self, why: String) -> Result<(), String> {
        let Some(namespace) = &self.again else { return Err(why) };
        loop {
            if self.lines.are_over.load(Ordering::Acquire) {
                return Err(why);
            }
            let connect = || TcpStream::connect_timeout(&self.address.into(), CONNECTS_WITHIN);
            let stream = namespace.enter_here(connect).map_err(|error| error.to_string())?;
            match stream.and_then(|stream| ready(stream, &self.lines)) {
                Ok(from) => {
                    (self.from, self.is_first) = (from, false);
                    return Ok(());
                }
                Err(_) => std::thread::sleep(AGAIN),
            }
        }
    }
}

fn ready(stream: TcpStream, lines: &Lines) -> io::Result<BufReader<TcpStream>> {
    lines.take_in(&stream)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}
