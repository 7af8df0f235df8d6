//! The orchestrator's side of a stage: one connection, and the parts at the other end of it.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_host::clock;
use rustix::net::sockopt;

use super::offset::{ClockOffset, Exchange};
use super::protocol::{Answer, Greeting, LineError, Lines, MAX_GREETING, MAX_LINE, Request, write_line};
use crate::live::parts::{PartSignal, Role};

/// How long a connection may take to be made, and each greeting to arrive.
const GREETING: Duration = Duration::from_secs(5);
/// How long an order may take. The longest is to end a part that has things to clean up.
const ORDER: Duration = Duration::from_secs(15);
/// Most messages that wait to be read: a stage's parts say a line now and then.
const UNREAD: usize = 1024;
/// Exchanges for one estimate of the clock's offset.
const EXCHANGES: usize = 16;

/// Why a stage does not do its part.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// Nobody answers there.
    #[error("can't reach a stage at {address}: {}", crate::plain(.source))]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Somebody answers, and is something else.
    #[error("what answers at {address} is not a stage: it said {said}")]
    NoStage {
        /// Where.
        address: SocketAddr,
        /// What was heard from it.
        said: LineError,
    },
    /// It is a stage of another version.
    #[error("can't work with the stage at {address}: {why}")]
    Version {
        /// Where.
        address: SocketAddr,
        /// Which versions there are.
        why: String,
    },
    /// It does not want to.
    #[error("the stage at {address} refused: {why}")]
    Refused {
        /// Where.
        address: SocketAddr,
        /// What it said.
        why: String,
    },
    /// The connection to it has ended.
    #[error("the stage at {address} is gone: {why}")]
    Gone {
        /// Where.
        address: SocketAddr,
        /// How it ended.
        why: String,
    },
}

impl StageError {
    /// Whether it may be otherwise when the machine has started again.
    pub fn may_pass(&self) -> bool {
        // A stage on a machine that was stopped within a greeting says half of it.
        !matches!(self, StageError::Version { .. })
    }
}

/// What the thread that reads shares with who asks.
#[derive(Debug, Default)]
struct Shared {
    parts: Mutex<HashMap<u32, SyncSender<String>>>,
    /// Why no more answers come.
    lost: OnceLock<String>,
}

impl Shared {
    fn parts(&self) -> MutexGuard<'_, HashMap<u32, SyncSender<String>>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self, why: String) {
        // The first reason is the reason.
        let _ = self.lost.set(why);
        self.parts().clear();
    }
}

/// A connection to a stage. Its end is the end of all parts on that stage.
#[derive(Debug)]
pub struct StageConnection {
    stream: TcpStream,
    peer: SocketAddr,
    local: SocketAddr,
    is_this_machine: bool,
    answers: Receiver<Answer>,
    shared: Arc<Shared>,
    next_part: Cell<u32>,
}

impl StageConnection {
    /// Connects to the stage at `peer`. If an earlier connection of this process still holds the stage, because the
    /// stage could not see it end, this one takes its place.
    pub fn open(peer: SocketAddr) -> Result<Self, StageError> {
        let connect_error = |source| StageError::Connect { address: peer, source };
        let stream = TcpStream::connect_timeout(&peer, GREETING).map_err(connect_error)?;
        watch_over(&stream).map_err(connect_error)?;
        stream.set_read_timeout(Some(GREETING)).map_err(connect_error)?;
        stream.set_write_timeout(Some(ORDER)).map_err(connect_error)?;
        let local = stream.local_addr().map_err(connect_error)?;
        let mut lines = Lines::new(stream.try_clone().map_err(connect_error)?);
        let no_stage = |said| StageError::NoStage { address: peer, said };
        let theirs: Greeting = lines.next(MAX_GREETING).map_err(no_stage)?;
        if let Some(why) = theirs.mismatch() {
            return Err(StageError::Version { address: peer, why });
        }
        let ours = Greeting::ours(this_process());
        write_line(&mut &stream, &ours).map_err(connect_error)?;
        // It may have to end what a lost connection of ours has left.
        stream.set_read_timeout(Some(ORDER)).map_err(connect_error)?;
        match lines.next(MAX_LINE).map_err(no_stage)? {
            Answer::Welcome => {}
            Answer::Failed { why } => return Err(StageError::Refused { address: peer, why }),
            _ => return Err(no_stage(LineError::Nonsense { line: "an answer to no question".into() })),
        }
        stream.set_read_timeout(None).map_err(connect_error)?;
        let (shared, (sender, answers)) = (Arc::new(Shared::default()), mpsc::sync_channel(UNREAD));
        let reads = Arc::clone(&shared);
        let read = move || {
            let why = listen(&mut lines, &reads, &sender);
            reads.lose(why.to_string());
        };
        std::thread::Builder::new().name("stage".into()).spawn(read).map_err(connect_error)?;
        let is_this_machine = !ours.boot_id.is_empty() && ours.boot_id == theirs.boot_id;
        Ok(StageConnection { stream, peer, local, is_this_machine, answers, shared, next_part: 0.into() })
    }

    /// Where the stage is.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// This machine's end of the connection.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether the stage is on this very machine.
    pub fn is_this_machine(&self) -> bool {
        self.is_this_machine
    }

    /// Fails if the connection has ended.
    pub fn check(&self) -> Result<(), StageError> {
        match self.shared.lost.get() {
            None => Ok(()),
            Some(why) => Err(StageError::Gone { address: self.peer, why: why.clone() }),
        }
    }

    /// From here on nothing is asked of the stage, which may be unable to answer; what runs there runs on.
    pub fn give_up(&self) {
        self.shared.lose("its machine was made to fail".into());
    }

    /// Gives an order whose answer may never come: the last one.
    fn last_order(&self, request: &Request) -> Result<(), StageError> {
        self.check()?;
        let sent = write_line(&mut &self.stream, request);
        sent.map_err(|error| self.lost(crate::plain(&error)))?;
        self.give_up();
        Ok(())
    }

    /// How far the stage's clock is ahead.
    pub fn clock(&self) -> Result<ClockOffset, StageError> {
        // One machine, one clock.
        if self.is_this_machine { Ok(ClockOffset::NONE) } else { self.estimate_offset() }
    }

    fn estimate_offset(&self) -> Result<ClockOffset, StageError> {
        let exchanges = (0..EXCHANGES).map(|_| {
            let sent = clock::now();
            match self.order(&Request::Clock)? {
                Answer::Clock { at_ns } => Ok(Exchange { sent, there: Nanos(at_ns), received: clock::now() }),
                other => Err(self.confused(&other)),
            }
        });
        let exchanges = exchanges.collect::<Result<Vec<_>, _>>()?;
        Ok(ClockOffset::estimate(exchanges).unwrap_or(ClockOffset::NONE))
    }

    /// Gives an order and waits for its answer.
    fn order(&self, request: &Request) -> Result<Answer, StageError> {
        self.check()?;
        let sent = write_line(&mut &self.stream, request).map_err(|error| crate::plain(&error));
        match sent.map(|()| self.answers.recv_timeout(ORDER)) {
            Ok(Ok(Answer::Failed { why })) => Err(StageError::Refused { address: self.peer, why }),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(mpsc::RecvTimeoutError::Timeout)) => {
                // An answer that came later would be taken for that to another question.
                Err(self.lost(format!("it did not answer for {} s", ORDER.as_secs())))
            }
            Ok(Err(mpsc::RecvTimeoutError::Disconnected)) => Err(self.lost("the connection was closed".into())),
            Err(why) => Err(self.lost(why)),
        }
    }

    fn confused(&self, answer: &Answer) -> StageError {
        self.lost(format!("it answered another question: {answer:?}").chars().take(120).collect())
    }

    fn lost(&self, why: String) -> StageError {
        self.shared.lose(why.clone());
        let _ = self.stream.shutdown(Shutdown::Both);
        let why = self.shared.lost.get().cloned().unwrap_or(why);
        StageError::Gone { address: self.peer, why }
    }
}

impl Drop for StageConnection {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Tells this process from all others, on any machine. It is no secret.
fn this_process() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("{}-{}-{}", Greeting::ours("").boot_id, std::process::id(), clock::now().0))
}

/// Lets the kernel look whether the other side is still there: a machine that crashed closes nothing.
pub(super) fn watch_over(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(3))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(1))?;
    sockopt::set_tcp_keepcnt(stream, 7)?;
    // What was sent and not taken in counts, too.
    sockopt::set_tcp_user_timeout(stream, 10_000)?;
    Ok(())
}

/// Takes in what the stage says until it says no more; answers why.
fn listen(lines: &mut Lines<TcpStream>, shared: &Shared, answers: &SyncSender<Answer>) -> LineError {
    loop {
        match lines.next(MAX_LINE) {
            Ok(Answer::Said { part, line }) => {
                let full = |sender: &SyncSender<String>| matches!(sender.try_send(line), Err(TrySendError::Full(_)));
                if shared.parts().get(&part).is_some_and(full) {
                    return flood();
                }
            }
            Ok(Answer::Closed { part }) => {
                shared.parts().remove(&part);
            }
            Ok(answer) => {
                if answers.try_send(answer).is_err() {
                    return flood();
                }
            }
            Err(error) => return error,
        }
    }
}

fn flood() -> LineError {
    LineError::Connection(io::Error::other("it said more than anybody waits for"))
}

/// A part on a stage. Dropping it ends it there, if the connection still holds.
#[derive(Debug)]
pub(in crate::live) struct StagedPart {
    stage: Rc<StageConnection>,
    part: u32,
    process: u32,
}

impl StagedPart {
    /// Starts it; answers what it says, too.
    pub(in crate::live) fn start(
        stage: &Rc<StageConnection>,
        role: Role,
    ) -> Result<(Self, Receiver<String>), StageError> {
        let (sender, lines) = mpsc::sync_channel(UNREAD);
        let part = stage.next_part.get();
        stage.next_part.set(part.wrapping_add(1));
        stage.shared.parts().insert(part, sender);
        match stage.order(&Request::Start { part, role: Box::new(role) })? {
            Answer::Started { process } => Ok((StagedPart { stage: Rc::clone(stage), part, process }, lines)),
            other => Err(stage.confused(&other)),
        }
    }

    pub(in crate::live) fn id(&self) -> u32 {
        self.process
    }

    /// Hands it a line; answers whether it takes any.
    pub(in crate::live) fn say(&mut self, line: String) -> Result<bool, StageError> {
        match self.stage.order(&Request::Say { part: self.part, line }) {
            Ok(_) => Ok(true),
            Err(StageError::Refused { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Hands it a line whose effect may be the end of the stage and its machine.
    pub(in crate::live) fn say_last(&mut self, line: String) -> Result<(), StageError> {
        self.stage.last_order(&Request::Say { part: self.part, line })
    }

    pub(in crate::live) fn close(&mut self) {
        let _ = self.stage.order(&Request::Close { part: self.part });
    }

    /// Sends it a signal; answers the stage's clock before and after.
    pub(in crate::live) fn signal(&self, signal: PartSignal) -> Result<(Nanos, Nanos), StageError> {
        match self.stage.order(&Request::Signal { part: self.part, signal })? {
            Answer::Signalled { before_ns, after_ns } => Ok((Nanos(before_ns), Nanos(after_ns))),
            other => Err(self.stage.confused(&other)),
        }
    }

    pub(in crate::live) fn state(&self) -> Result<Option<char>, StageError> {
        match self.stage.order(&Request::State { part: self.part })? {
            Answer::State { state } => Ok(state),
            other => Err(self.stage.confused(&other)),
        }
    }

    pub(in crate::live) fn how(&mut self) -> Result<String, StageError> {
        match self.stage.order(&Request::How { part: self.part })? {
            Answer::How { how } => Ok(how),
            other => Err(self.stage.confused(&other)),
        }
    }
}

impl Drop for StagedPart {
    fn drop(&mut self) {
        let _ = self.stage.order(&Request::End { part: self.part });
        self.stage.shared.parts().remove(&self.part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interrupt::Interrupt;
    use crate::live::stage::serve::{Stage, StageConfig};

    #[test]
    fn the_offset_to_a_clock_that_is_ones_own_is_nothing_within_its_error() {
        let listen = "127.0.0.1:0".parse().unwrap();
        let stage = Stage::bind(StageConfig {
            program: "/bin/false".into(),
            listen,
            allow_crash: false,
            card: Default::default(),
        })
        .unwrap();
        let (address, interrupt) = (stage.address().unwrap(), Interrupt::new());
        let stop = interrupt.clone();
        let serving = std::thread::spawn(move || stage.serve(&interrupt, |_| ()));
        let connection = StageConnection::open(address).unwrap();
        let offset = connection.estimate_offset().unwrap();
        let now = clock::now();
        let there = offset.to_ours(now);
        assert!((there - now).max(now - there) <= offset.error(), "{offset:?}");
        assert!(offset.error() > Nanos::ZERO);
        assert!(connection.is_this_machine() && connection.clock().unwrap() == ClockOffset::NONE);
        stop.request();
        serving.join().unwrap();
        assert!(matches!(connection.estimate_offset(), Err(StageError::Gone { .. })));
    }
}
