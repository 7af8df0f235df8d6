//! A part as a child process of this one.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::time::{Duration, Instant};

use backdoor_core::Nanos;
use backdoor_host::clock;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::Role;

/// How long a part may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(2);

/// A signal that a part may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartSignal {
    /// All its threads stop.
    Stop,
    /// They go on.
    Continue,
    /// It ends.
    Kill,
}

impl PartSignal {
    /// The name that everybody knows it by.
    pub const fn name(self) -> &'static str {
        match self {
            PartSignal::Stop => "SIGSTOP",
            PartSignal::Continue => "SIGCONT",
            PartSignal::Kill => "SIGKILL",
        }
    }

    /// The states of a process that has minded it.
    pub const fn leads_to(self) -> &'static str {
        match self {
            PartSignal::Stop => "T",
            PartSignal::Continue => "RSD",
            PartSignal::Kill => "ZX",
        }
    }
}

/// A process that plays a part. Dropping it ends it, and waits until it has ended.
#[derive(Debug)]
pub(in crate::live) struct ChildPart {
    child: Child,
    stdin: Option<ChildStdin>,
    ends_by_itself: bool,
}

impl ChildPart {
    /// Starts a part from `program`. What it says goes to `said` in a thread of its own, line by line, until that
    /// answers that nobody listens; `None` is the end.
    ///
    /// The calling thread must outlive the part: the kernel takes the end of the thread that started a process for the
    /// end of its parent.
    pub(in crate::live) fn start(
        program: &Path,
        role: Role,
        mut said: impl FnMut(Option<String>) -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let ends_by_itself = role.ends_by_itself();
        let mut child = role.command(program)?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take();
        if let Some(stdout) = child.stdout.take() {
            // Ends with the part, whose end closes the pipe.
            std::thread::spawn(move || {
                let listens = BufReader::new(stdout).lines().map_while(Result::ok).all(|line| said(Some(line)));
                if listens {
                    said(None);
                }
            });
        }
        Ok(ChildPart { child, stdin, ends_by_itself })
    }

    /// Number of its process.
    pub(in crate::live) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Hands it a line.
    pub(in crate::live) fn say(&mut self, line: &str) -> io::Result<()> {
        let stdin = self.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        stdin.write_all(format!("{line}\n").as_bytes())
    }

    /// Closes its standard input.
    pub(in crate::live) fn close(&mut self) {
        self.stdin = None;
    }

    /// Sends it a signal; answers the clock right before and after.
    pub(in crate::live) fn signal(&self, signal: PartSignal) -> io::Result<(Nanos, Nanos)> {
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        let signal = match signal {
            PartSignal::Stop => Signal::STOP,
            PartSignal::Continue => Signal::CONT,
            PartSignal::Kill => Signal::KILL,
        };
        let before = clock::now();
        // It has not been waited for, so its number is still its own.
        kill_process(pid, signal)?;
        Ok((before, clock::now()))
    }

    /// State of its process as the kernel tells it: `R`, `S`, `T` (stopped), `Z` (ended), …; `None` if it is gone.
    pub(in crate::live) fn state(&self) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).ok()?;
        // The name before it is in parentheses, and may hold any character.
        stat.rsplit_once(')')?.1.trim_start().chars().next()
    }

    /// How it ended, given that it closed its output.
    pub(in crate::live) fn how(&mut self) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return status.to_string(),
                Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
                Ok(None) => return "it closed its output".into(),
                Err(error) => return error.to_string(),
            }
        }
    }
}

impl Drop for ChildPart {
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
