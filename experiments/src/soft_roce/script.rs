//! Running the script: a child process of minutes, with virtual machines of its own.
//!
//! It gets a process group of its own, so that a Ctrl-C at the terminal reaches it once, by us, and it can clean up in
//! peace; we wait until it has. Should this process die without a chance to pass anything on, the kernel tells the
//! script (`setpriv`, a program that the script needs anyway).

use super::here::{self, Ready};
use crate::interrupt::Interrupt;
use crate::progress::Bar;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often we look.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long it may clean up after it was told to stop.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much of what it said is looked at.
const TAIL: u64 = 16 << 10;

/// How the script ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// Every case ran and held.
    Held,
    /// A case failed; its results are there.
    Failed,
    /// Something is missing: what it said.
    CouldNotBegin(String),
    /// In none of the ways that it promises: which one.
    Other(String),
}

/// Why it didn't come to an end of its own.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// Somebody asked to stop. The script has ended.
    #[error("interrupted")]
    Interrupted,
    /// It could not be started or watched.
    #[error("{}", crate::plain(.0))]
    Io(#[from] io::Error),
}

/// Runs `cases` with `out` as the script's output directory and `log` for its words; waits for its end, whatever
/// happens.
///
/// # Errors
/// An interruption, or a script that can't be started.
pub fn run(
    ready: &Ready,
    cases: &[String],
    out: &Path,
    log: &Path,
    interrupt: &Interrupt,
    bar: &Bar,
) -> Result<End, ScriptError> {
    let said = File::create(log)?;
    let mut script = Script(
        Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--"])
            .arg(&ready.script)
            .args(["--no-install", "--no-build", "--out"])
            .arg(std::path::absolute(out)?)
            .args(cases)
            .env("CARGO_TARGET_DIR", &ready.target)
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said)
            .process_group(0)
            .spawn()?,
    );
    let mut begun = Begun { log: File::open(log)?, line: Vec::new(), cases, count: 0 };
    let status = loop {
        if let Some(status) = script.0.try_wait()? {
            break status;
        }
        if interrupt.requested() {
            return Err(ScriptError::Interrupted);
        }
        begun.look(bar)?;
        std::thread::sleep(LOOK_EVERY);
    };
    // Signals at the same moment may have reached it by other ways than by us.
    if interrupt.requested() {
        return Err(ScriptError::Interrupted);
    }
    begun.look(bar)?;
    if begun.count > 0 && matches!(status.code(), Some(0 | 1)) {
        bar.point_finished();
    }
    end(status, log)
}

fn end(status: ExitStatus, log: &Path) -> Result<End, ScriptError> {
    Ok(match status.code() {
        Some(0) => End::Held,
        Some(1) => End::Failed,
        Some(here::COULD_NOT_BEGIN) => End::CouldNotBegin(here::sentence(&tail(log)?)),
        Some(code) => End::Other(format!("status {code}")),
        None => End::Other(status.to_string()),
    })
}

fn tail(log: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut text = Vec::new();
    file.take(TAIL).read_to_end(&mut text)?;
    Ok(text)
}

/// The running script. However we leave, it is told to stop, and has ended afterwards.
struct Script(Child);

impl Drop for Script {
    fn drop(&mut self) {
        let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) else { return };
        let mut ended = || !matches!(self.0.try_wait(), Ok(None));
        if ended() {
            return;
        }
        // Not SIGINT: a shell that was started with that one ignored can't trap it.
        let _ = kill_process(pid, Signal::TERM);
        let end = Instant::now() + PATIENCE;
        while !ended() {
            if Instant::now() >= end {
                // Its virtual machines die with it.
                let _ = kill_process_group(pid, Signal::KILL);
                let _ = self.0.wait();
                return;
            }
            std::thread::sleep(LOOK_EVERY / 10);
        }
    }
}

/// Which cases have begun: the script says the name of each.
struct Begun<'a> {
    log: File,
    line: Vec<u8>,
    cases: &'a [String],
    count: usize,
}

impl Begun<'_> {
    /// Takes in what was said since the last look. A case that begins ends the one before.
    fn look(&mut self, bar: &Bar) -> io::Result<()> {
        let mut chunk = [0; 4096];
        // Bounded: a script that never stops talking must not keep us from looking at anything else.
        for _ in 0..64 {
            let length = self.log.read(&mut chunk)?;
            if length == 0 {
                return Ok(());
            }
            for byte in &chunk[..length] {
                match byte {
                    b'\n' => self.take_line(bar),
                    byte if self.line.len() < 256 => self.line.push(*byte),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn take_line(&mut self, bar: &Bar) {
        let line = std::mem::take(&mut self.line);
        let name = line.strip_prefix(b"soft-roce: ");
        if self.cases.get(self.count).is_some_and(|case| name == Some(case.as_bytes())) {
            self.count += 1;
            if self.count > 1 {
                bar.point_finished();
            }
        }
    }
}
