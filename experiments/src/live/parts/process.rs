//! Starting a part, talking to it, and seeing to its end, wherever it runs.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use backdoor_core::Nanos;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Role;
use super::child::{ChildPart, PartSignal};
use crate::live::stage::connection::{StageConnection, StageError, StagedPart};
use crate::live::stage::offset::ClockOffset;

/// What went wrong with a part.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// It could not be started.
    #[error("can't start the {part} process from {program}: {source}")]
    Start {
        /// Which.
        part: &'static str,
        /// This program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// An agent listens at a socket, of which there can be none.
    #[error("no socket can be in {directory}: {why}")]
    NoSocket {
        /// Where it was to be.
        directory: String,
        /// Why not.
        why: String,
    },
    /// It ended, and should not have.
    #[error("the {part} process ended early ({how})")]
    Ended {
        /// Which.
        part: &'static str,
        /// How.
        how: String,
    },
    /// It did not answer.
    #[error("the {part} process said nothing for {} s", waited.as_secs_f64())]
    Silent {
        /// Which.
        part: &'static str,
        /// How long it was waited for.
        waited: Duration,
    },
    /// It said what makes no sense.
    #[error("the {part} process said '{line}': {source}")]
    Nonsense {
        /// Which.
        part: &'static str,
        /// What it said.
        line: String,
        /// Why that is nonsense.
        source: serde_json::Error,
    },
    /// It could not be sent a signal.
    #[error("can't send {signal} to the {part} process: {source}")]
    Signal {
        /// Which.
        part: &'static str,
        /// The signal.
        signal: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The stage that it is on does not do its own part.
    #[error(transparent)]
    Stage(#[from] StageError),
}

/// Where parts are started.
#[derive(Clone, Debug)]
pub enum Place {
    /// This machine, from this program: this one, wherever the parts are subcommands of it. The thread that starts a
    /// part must outlive it.
    Here(PathBuf),
    /// A stage.
    Stage(Rc<StageConnection>),
}

impl Place {
    /// Starts a part.
    pub fn start(&self, role: Role) -> Result<Part, PartError> {
        match self {
            Place::Here(program) => Part::here(program, role),
            Place::Stage(stage) => {
                let name = role.name();
                let (staged, lines) = StagedPart::start(stage, role)?;
                Ok(Part { name, lines, process: Process::Staged(staged) })
            }
        }
    }

    /// The address at which services on it are found.
    pub fn host(&self) -> IpAddr {
        match self {
            Place::Here(_) => Ipv4Addr::LOCALHOST.into(),
            Place::Stage(stage) => stage.peer().ip(),
        }
    }

    /// Whether it is on this machine.
    pub fn is_this_machine(&self) -> bool {
        match self {
            Place::Here(_) => true,
            Place::Stage(stage) => stage.is_this_machine(),
        }
    }

    /// How far its clock is ahead of this machine's.
    pub fn clock(&self) -> Result<ClockOffset, PartError> {
        match self {
            Place::Here(_) => Ok(ClockOffset::NONE),
            Place::Stage(stage) => Ok(stage.clock()?),
        }
    }

    /// Fails if the way to it is broken.
    pub fn check(&self) -> Result<(), PartError> {
        match self {
            Place::Here(_) => Ok(()),
            Place::Stage(stage) => Ok(stage.check()?),
        }
    }

    /// From here on nothing is asked of it or of its parts, as it may be unable to answer; what runs there runs on
    /// until the last part and the place itself are dropped.
    pub fn give_up(&self) {
        if let Place::Stage(stage) = self {
            stage.give_up();
        }
    }

    /// This machine's address on the way there.
    pub fn own_address(&self) -> IpAddr {
        match self {
            Place::Here(_) => Ipv4Addr::LOCALHOST.into(),
            Place::Stage(stage) => stage.local().ip(),
        }
    }
}

/// A running part. Dropping it ends its process and waits until it has ended.
#[derive(Debug)]
pub struct Part {
    name: &'static str,
    lines: Receiver<String>,
    process: Process,
}

#[derive(Debug)]
enum Process {
    Child(ChildPart),
    Staged(StagedPart),
}

impl Part {
    fn here(program: &Path, role: Role) -> Result<Self, PartError> {
        if matches!(role, Role::Agent { .. }) {
            super::agent::check_place()?;
        }
        let name = role.name();
        let (sender, lines) = mpsc::channel();
        let said = move |line: Option<String>| line.is_some_and(|line| sender.send(line).is_ok());
        match ChildPart::start(program, role, said) {
            Ok(child) => Ok(Part { name, lines, process: Process::Child(child) }),
            Err(source) => Err(PartError::Start { part: name, program: program.display().to_string(), source }),
        }
    }

    /// Number of its process, on the machine where it runs.
    pub fn id(&self) -> u32 {
        match &self.process {
            Process::Child(child) => child.id(),
            Process::Staged(staged) => staged.id(),
        }
    }

    /// Sends it a line.
    pub fn send(&mut self, message: &impl Serialize) -> Result<(), PartError> {
        let line = serde_json::to_string(message).unwrap_or_default();
        let sent = match &mut self.process {
            Process::Child(child) => child.say(&line).is_ok(),
            Process::Staged(staged) => staged.say(line)?,
        };
        if sent { Ok(()) } else { Err(self.ended()) }
    }

    /// Sends it a line whose effect may be the end of the machine where it runs. That is given up with it.
    pub fn send_last(&mut self, message: &impl Serialize) -> Result<(), PartError> {
        match &mut self.process {
            Process::Child(_) => self.send(message),
            Process::Staged(staged) => Ok(staged.say_last(serde_json::to_string(message).unwrap_or_default())?),
        }
    }

    /// What it says next; `None` if it says nothing for `patience`.
    pub fn receive<T: DeserializeOwned>(&mut self, patience: Duration) -> Result<Option<T>, PartError> {
        let line = match self.lines.recv_timeout(patience) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => return Ok(None),
            Err(RecvTimeoutError::Disconnected) => return Err(self.ended()),
        };
        match serde_json::from_str(&line) {
            Ok(message) => Ok(Some(message)),
            Err(source) => {
                let line = line.chars().take(80).collect();
                Err(PartError::Nonsense { part: self.name, line, source })
            }
        }
    }

    /// The same, where silence is an error.
    pub fn expect<T: DeserializeOwned>(&mut self, patience: Duration) -> Result<T, PartError> {
        self.receive(patience)?.ok_or(PartError::Silent { part: self.name, waited: patience })
    }

    /// Closes its standard input: it is asked to end.
    pub fn ask_to_end(&mut self) {
        match &mut self.process {
            Process::Child(child) => child.close(),
            Process::Staged(staged) => staged.close(),
        }
    }

    /// Sends it a signal; answers the clock right before and right after, on the machine where it runs.
    pub fn signal(&self, signal: PartSignal) -> Result<(Nanos, Nanos), PartError> {
        match &self.process {
            Process::Child(child) => child.signal(signal).map_err(|source| PartError::Signal {
                part: self.name,
                signal: signal.name(),
                source,
            }),
            Process::Staged(staged) => Ok(staged.signal(signal)?),
        }
    }

    /// State of its process as the kernel tells it: `R`, `S`, `T` (stopped), `Z` (ended), …; `None` if it is gone.
    pub fn state(&self) -> Result<Option<char>, PartError> {
        match &self.process {
            Process::Child(child) => Ok(child.state()),
            Process::Staged(staged) => Ok(staged.state()?),
        }
    }

    /// Whether its process has ended.
    pub(in crate::live) fn has_ended(&self) -> Result<bool, PartError> {
        Ok(self.state()?.is_none_or(|state| "ZX".contains(state)))
    }

    fn ended(&mut self) -> PartError {
        let how = match &mut self.process {
            Process::Child(child) => Ok(child.how()),
            Process::Staged(staged) => staged.how(),
        };
        match how {
            Ok(how) => PartError::Ended { part: self.name, how },
            Err(error) => error.into(),
        }
    }
}
