//! Starting a part, talking to it, and seeing to its end.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Role, SUBCOMMAND, Task};

/// How long a part may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(2);

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
}

/// A running part. Dropping it ends its process and waits until it has ended.
#[derive(Debug)]
pub struct Part {
    name: &'static str,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    /// Whether it ends by itself when its standard input closes, having something to clean up.
    ends_by_itself: bool,
}

impl Part {
    /// Starts a part from `program`, which is this program wherever the parts are subcommands of it.
    ///
    /// The calling thread must outlive the part: the kernel takes the end of the thread that started a process for the
    /// end of its parent.
    pub fn start(program: &Path, role: Role) -> Result<Self, PartError> {
        let (name, ends_by_itself) = match role {
            Role::Agent { .. } => ("agent", true),
            Role::Worker { .. } => ("worker", false),
            Role::Load { .. } => ("load", false),
            Role::Monitor { .. } => ("monitor", false),
        };
        let error = |source| PartError::Start { part: name, program: program.display().to_string(), source };
        let task = Task { parent: std::process::id(), role };
        let task = serde_json::to_string(&task).map_err(|source| error(source.into()))?;
        let mut child = Command::new(program)
            .args(["live", SUBCOMMAND, &task])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(error)?;
        let stdin = child.stdin.take();
        let (sender, lines) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            // Ends with the part, whose end closes the pipe.
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines() {
                    let Ok(line) = line else { break };
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Part { name, child, stdin, lines, ends_by_itself })
    }

    /// Number of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a line.
    pub fn send(&mut self, message: &impl Serialize) -> Result<(), PartError> {
        let line = serde_json::to_string(message).unwrap_or_default() + "\n";
        let sent = self.stdin.as_mut().is_some_and(|stdin| stdin.write_all(line.as_bytes()).is_ok());
        if sent { Ok(()) } else { Err(self.ended()) }
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
        self.stdin = None;
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal, name: &'static str) -> Result<(), PartError> {
        let error = |source| PartError::Signal { part: self.name, signal: name, source };
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| error(std::io::ErrorKind::NotFound.into()))?;
        // It has not been waited for, so its number is still its own.
        rustix::process::kill_process(pid, signal).map_err(|errno| error(errno.into()))
    }

    /// State of its process as the kernel tells it: `R`, `S`, `T` (stopped), `Z` (ended), …; `None` if it is gone.
    pub fn state(&self) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).ok()?;
        // The name before it is in parentheses, and may hold any character.
        stat.rsplit_once(')')?.1.trim_start().chars().next()
    }

    fn ended(&mut self) -> PartError {
        let end = Instant::now() + PATIENCE;
        let how = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status.to_string(),
                Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
                Ok(None) => break "it closed its output".into(),
                Err(error) => break error.to_string(),
            }
        };
        PartError::Ended { part: self.name, how }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.stdin = None;
        let end = Instant::now() + PATIENCE;
        while self.ends_by_itself && Instant::now() < end {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
