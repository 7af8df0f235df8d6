//! The stage: takes one orchestrator at a time, and plays for it.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use backdoor_host::clock;

use super::connection::watch_over;
use super::protocol::{Answer, Greeting, Lines, MAX_GREETING, MAX_LINE, Request, write_line};
use crate::interrupt::Interrupt;
use crate::live::parts::{ChildPart, Role};
use crate::live::reach::{Card, Offer};
use crate::live::two_locks::lock;
use crate::live::web::serve::{Duty, Serve, ServicePart};

/// How long a greeting may take.
const GREETING: Duration = Duration::from_secs(5);
/// How long the other side may leave unread what it is told.
const UNREAD: Duration = Duration::from_secs(10);
/// How long the parts of an experiment may take to end.
const ENDING: Duration = Duration::from_secs(10);
/// Pause between two looks for somebody who comes. The machine is one to measure on.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Most connections at once, those that have not greeted yet and those that are about to be refused included.
const MAX_CONNECTIONS: usize = 16;
/// Most parts at once.
const MAX_PARTS: usize = 1100;

/// How to serve.
#[derive(Clone, Debug)]
pub struct StageConfig {
    /// The `backdoor` binary.
    pub program: PathBuf,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Whether experiments may crash this machine and take its network down.
    pub allow_crash: bool,
    /// Which of its network cards a monitor of transport `verbs` reaches it through.
    pub card: Card,
}

/// A stage that listens.
#[derive(Debug)]
pub struct Stage {
    listener: TcpListener,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: StageConfig,
    connections: AtomicUsize,
    place: Mutex<Holder>,
    freed: Condvar,
}

/// Who plays.
#[derive(Debug)]
enum Holder {
    Nobody,
    Experiment {
        name: String,
        peer: SocketAddr,
        stream: TcpStream,
    },
    /// The stage is about to end.
    Closed,
}

impl Stage {
    /// Begins to listen.
    pub fn bind(config: StageConfig) -> io::Result<Self> {
        let listener = TcpListener::bind(config.listen)?;
        listener.set_nonblocking(true)?;
        let connections = AtomicUsize::new(0);
        let shared = Shared { config, connections, place: Mutex::new(Holder::Nobody), freed: Condvar::new() };
        Ok(Stage { listener, shared: Arc::new(shared) })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is asked to stop, then ends what runs. `log` gets a line for people about what happens.
    pub fn serve(&self, interrupt: &Interrupt, log: fn(&str)) {
        while !interrupt.requested() {
            let Ok((stream, peer)) = self.listener.accept() else {
                std::thread::sleep(LOOK_EVERY);
                continue;
            };
            let shared = Arc::clone(&self.shared);
            if shared.connections.fetch_add(1, Ordering::AcqRel) >= MAX_CONNECTIONS {
                shared.connections.fetch_sub(1, Ordering::AcqRel);
                continue;
            }
            // The thread starts the parts, so it lives as long as they do.
            let thread = std::thread::Builder::new().name("connection".into()).spawn(move || {
                if let Err(why) = shared.host(&stream, peer) {
                    log(&format!("turned {peer} away: {why}"));
                    let _ = write_line(&mut &stream, &Answer::Failed { why });
                }
                shared.connections.fetch_sub(1, Ordering::AcqRel);
            });
            if thread.is_err() {
                self.shared.connections.fetch_sub(1, Ordering::AcqRel);
            }
        }
        self.shared.close();
    }
}

impl Shared {
    /// Talks to whoever came, to the end. Fails with a sentence for them.
    fn host(&self, stream: &TcpStream, peer: SocketAddr) -> Result<(), String> {
        let broken = |error: io::Error| crate::plain(&error);
        watch_over(stream).map_err(broken)?;
        stream.set_read_timeout(Some(GREETING)).map_err(broken)?;
        stream.set_write_timeout(Some(UNREAD)).map_err(broken)?;
        write_line(&mut &*stream, &Greeting::ours("")).map_err(broken)?;
        let mut lines = Lines::new(stream.try_clone().map_err(broken)?);
        let greeting: Greeting = lines.next(MAX_GREETING).map_err(|said| format!("that is no greeting: {said}"))?;
        if let Some(why) = greeting.mismatch() {
            return Err(why.replacen("it speaks", "you speak", 1).replacen("this one", "this stage", 1));
        }
        let _place = self.take_place(greeting.experiment, peer, stream.try_clone().map_err(broken)?)?;
        write_line(&mut &*stream, &Answer::Welcome).map_err(broken)?;
        stream.set_read_timeout(None).map_err(broken)?;
        let local = stream.local_addr().map_err(broken)?.ip().to_canonical();
        let writer = Arc::new(Mutex::new(stream.try_clone().map_err(broken)?));
        let mut session = Session { config: &self.config, local, writer, parts: BTreeMap::new() };
        // Whatever is wrong with what comes: there is no use in going on.
        while let Ok(request) = lines.next::<Request>(MAX_LINE) {
            let answer = session.answer(request).unwrap_or_else(|why| Answer::Failed { why });
            if write_line(&mut *lock(&session.writer), &answer).is_err() {
                break;
            }
        }
        let _ = stream.shutdown(Shutdown::Both);
        Ok(())
    }

    /// Takes the only place. An experiment that comes back takes it from its own lost connection.
    fn take_place(&self, name: String, peer: SocketAddr, stream: TcpStream) -> Result<Taken<'_>, String> {
        let mut place = lock(&self.place);
        loop {
            match &*place {
                Holder::Nobody => {
                    *place = Holder::Experiment { name, peer, stream };
                    return Ok(Taken(self));
                }
                Holder::Closed => return Err("it is about to end".into()),
                Holder::Experiment { name: holder, stream: old, .. } if !name.is_empty() && *holder == name => {
                    let _ = old.shutdown(Shutdown::Both);
                    let (freed, waited) =
                        self.freed.wait_timeout(place, ENDING).unwrap_or_else(PoisonError::into_inner);
                    place = freed;
                    if waited.timed_out() {
                        return Err("the parts of your last experiment do not end".into());
                    }
                }
                Holder::Experiment { peer, .. } => {
                    return Err(format!("it plays for {peer}; one experiment at a time"));
                }
            }
        }
    }

    fn close(&self) {
        let mut place = lock(&self.place);
        if let Holder::Experiment { stream, .. } = &*place {
            let _ = stream.shutdown(Shutdown::Both);
            let free = |holder: &mut Holder| matches!(holder, Holder::Experiment { .. });
            let waited = self.freed.wait_timeout_while(place, ENDING, free);
            place = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *place = Holder::Closed;
    }
}

/// Holds the place.
struct Taken<'a>(&'a Shared);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *lock(&self.0.place) = Holder::Nobody;
        self.0.freed.notify_all();
    }
}

/// An experiment.
struct Session<'a> {
    config: &'a StageConfig,
    /// This machine's address, as the orchestrator reaches it.
    local: IpAddr,
    writer: Arc<Mutex<TcpStream>>,
    parts: BTreeMap<u32, ChildPart>,
}

impl Session<'_> {
    fn answer(&mut self, request: Request) -> Result<Answer, String> {
        match request {
            Request::Clock => Ok(Answer::Clock { at_ns: clock::now().0 }),
            Request::Start { part, role } => self.start(part, *role),
            Request::Say { part, line } => {
                let closed = |error: io::Error| crate::plain(&error);
                if line.contains('\n') {
                    return Err("that is more than a line".into());
                }
                self.part(part)?.say(&line).map(|()| Answer::Done).map_err(closed)
            }
            Request::Close { part } => {
                self.part(part)?.close();
                Ok(Answer::Done)
            }
            Request::Signal { part, signal } => match self.part(part)?.signal(signal) {
                Ok((before, after)) => Ok(Answer::Signalled { before_ns: before.0, after_ns: after.0 }),
                Err(error) => Err(crate::plain(&error)),
            },
            Request::State { part } => Ok(Answer::State { state: self.part(part)?.state() }),
            Request::How { part } => Ok(Answer::How { how: self.part(part)?.how() }),
            Request::End { part } => {
                // Dropping it ends it.
                self.parts.remove(&part);
                Ok(Answer::Done)
            }
        }
    }

    fn part(&mut self, part: u32) -> Result<&mut ChildPart, String> {
        self.parts.get_mut(&part).ok_or_else(|| format!("there is no part {part}"))
    }

    fn start(&mut self, part: u32, mut role: Role) -> Result<Answer, String> {
        match &mut role {
            Role::Load { .. } => {}
            Role::Agent { offer, .. } => {
                *offer = offer.take().map(|_| Offer { listen: self.local, card: self.config.card.clone() });
            }
            Role::Worker { listen, .. } => *listen = self.local,
            Role::Monitor { .. } => return Err("the monitor's place is not on the stage".into()),
            Role::Web(Serve { duty: Duty::Serve, service: ServicePart::Whole, .. }) => {}
            Role::Web(_) => return Err("of a failover, the service that fails is on the stage, and no other".into()),
            Role::Taker(_) => return Err("the taker's place is not on the stage".into()),
            Role::Supervisor(_) => return Err("the supervisor's place is not on the stage".into()),
            Role::Counters(_) => return Err("what is measured for its cost is all on one machine".into()),
            Role::Curl { .. } => return Err("the client's place is not on the stage".into()),
            Role::Saboteur { .. } if !self.config.allow_crash => {
                return Err("it was not started with --allow-crash, so its machine and network are left alone".into());
            }
            Role::Saboteur { fault } => fault.happens_at(self.local),
        }
        if self.parts.len() >= MAX_PARTS || self.parts.contains_key(&part) {
            return Err(format!("{MAX_PARTS} parts at most, each with a number of its own"));
        }
        let writer = Arc::clone(&self.writer);
        let said = move |line| {
            let message = match line {
                Some(line) => Answer::Said { part, line },
                None => Answer::Closed { part },
            };
            let mut stream = lock(&writer);
            let told = write_line(&mut *stream, &message).is_ok();
            if !told {
                // Half a line may have gone out.
                let _ = stream.shutdown(Shutdown::Both);
            }
            told
        };
        let child = ChildPart::start(&self.config.program, role, said).map_err(|error| crate::plain(&error))?;
        let process = child.id();
        self.parts.insert(part, child);
        Ok(Answer::Started { process })
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // The agent was started first, and is to go last.
        while self.parts.pop_last().is_some() {}
    }
}
