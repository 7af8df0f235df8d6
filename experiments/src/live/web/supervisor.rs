//! Whoever can start the service again on its own node: asked over a Unix socket, it ends the process that is suspected, if
//! that hasn't ended, and starts another in its place, which re-adopts the sessions.
//!
//! Asked twice about the same process, say by two takers, it does so once, and tells both what came of it. A process that
//! serves for less than its deadline can't be suspected rightly yet: who does has the one before in mind.

use std::error::Error;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_host::app::Node;
use backdoor_host::{clock, process};
use serde::{Deserialize, Serialize};

use super::around::AGENT_ALONE_PATIENCE;
use super::offers;
use super::serve::{Duty, Serve, WebReport};
use crate::live::parts::{ChildPart, Role};

/// How long a process may take to end, and another to have taken up what it left.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long whoever asks waits for the answer, which is longer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(12);

/// Whom to supervise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supervise {
    /// Where it is asked.
    pub requests: PathBuf,
    /// The process that serves now.
    pub process: u32,
    /// What is started in its place.
    pub service: Serve,
}

/// What it says to whoever started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SupervisorReport {
    /// It may be asked.
    Ready,
}

/// What it is asked: the service's process is to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Request {
    /// Which one, by its number.
    process: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarted {
    /// When the new one had taken up all that it could.
    pub readopted_ns: u64,
    /// Sessions that go on.
    pub readopted: u64,
    /// Sessions that could not go on, and have ended.
    pub lost: u64,
    /// Sessions that were left where they are: claimed by somebody, or without a connection.
    pub withheld: u64,
    /// What went wrong, if something did.
    pub why: Option<String>,
}

impl Restarted {
    /// Whether the sessions go on, as far as any can.
    pub fn helped(&self) -> bool {
        self.why.is_none() && self.withheld == 0
    }
}

/// Supervises until the process ends.
pub fn play(
    settings: &Supervise,
    mut tell: impl FnMut(SupervisorReport) -> io::Result<()>,
) -> Result<(), Box<dyn Error>> {
    let listener = UnixListener::bind(&settings.requests)?;
    let program = std::env::current_exe()?;
    let mut supervised = Supervised { settings, program, process: settings.process, child: None, before: None };
    tell(SupervisorReport::Ready)?;
    loop {
        let (stream, _) = listener.accept()?;
        // Who can't say what is wanted is not heard.
        let _ = supervised.answer(stream);
    }
}

struct Supervised<'a> {
    settings: &'a Supervise,
    /// What the service is started from.
    program: PathBuf,
    /// The process that serves now.
    process: u32,
    /// The same, if it was started here.
    child: Option<ChildPart>,
    /// The one before, and what came of its end.
    before: Option<(u32, Restarted)>,
}

impl Supervised<'_> {
    fn answer(&mut self, mut stream: UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(offers::PATIENCE))?;
        stream.set_write_timeout(Some(offers::PATIENCE))?;
        let asked = offers::receive::<Request>(&mut stream)?;
        let Request { process } = asked.ok_or(io::ErrorKind::UnexpectedEof)?;
        let answer = match &self.before {
            Some((_, restarted)) if process == u64::from(self.process) && self.is_young(restarted) => restarted.clone(),
            _ if process == u64::from(self.process) => {
                let restarted = self.restart();
                self.before = Some((process as u32, restarted.clone()));
                restarted
            }
            Some((before, restarted)) if u64::from(*before) == process => restarted.clone(),
            _ => Restarted { why: Some(format!("process {process} is not the service's")), ..Restarted::default() },
        };
        offers::send(&mut stream, &answer, &[])
    }

    fn is_young(&self, restarted: &Restarted) -> bool {
        clock::now() < Nanos(restarted.readopted_ns) + Nanos(self.settings.service.deadline_ns)
    }

    fn restart(&mut self) -> Restarted {
        let mut restarted = Restarted::default();
        // Nobody else keeps the connections when the process ends.
        if let Err(error) =
            Node::connect_within(&self.settings.service.agent, AGENT_ALONE_PATIENCE).and_then(|node| node.status())
        {
            restarted.why = Some(format!("the service is not started again, for its sessions would end: {error}"));
            return restarted;
        }
        if let Err(error) = process::end(self.process, Nanos(PATIENCE.as_nanos() as u64)) {
            restarted.why = Some(format!("the service's process {} does not end: {error}", self.process));
            return restarted;
        }
        if let Err(why) = self.start(&mut restarted) {
            restarted.why = Some(why);
        }
        restarted
    }

    fn start(&mut self, restarted: &mut Restarted) -> Result<(), String> {
        // The one before, which has ended, is waited for here.
        self.child = None;
        let service = Serve { duty: Duty::ServeAgain, ..self.settings.service.clone() };
        let (said, heard) = mpsc::channel();
        let child = ChildPart::start(&self.program, Role::Web(service), move |line| said.send(line).is_ok());
        let child = child.map_err(|error| format!("the service can't be started again: {error}"))?;
        self.process = child.id();
        self.child = Some(child);
        match next(&heard)? {
            WebReport::Readopted { at_ns, sessions, lost, withheld } => {
                (restarted.readopted_ns, restarted.readopted) = (at_ns, sessions);
                (restarted.lost, restarted.withheld) = (lost, withheld);
                Ok(())
            }
            other => Err(format!("the service that was started again said {other:?}")),
        }
    }
}

fn next(heard: &Receiver<Option<String>>) -> Result<WebReport, String> {
    let line =
        heard.recv_timeout(PATIENCE).map_err(|_| "the service that was started again says nothing".to_owned())?;
    let line = line.ok_or("the service that was started again has ended")?;
    serde_json::from_str(&line).map_err(|error| format!("the service said '{line}': {error}"))
}

/// Asks the supervisor at `path` to replace the service's `process`; returns when that is done.
pub(super) fn ask(path: &Path, process: u64) -> Result<Restarted, String> {
    let asked = || {
        let mut stream = offers::connect(path)?;
        stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
        offers::send(&mut stream, &Request { process }, &[])?;
        offers::receive(&mut stream)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    };
    asked().map_err(|error: io::Error| format!("the supervisor of the node: {error}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use backdoor_host::agent::{Agent, AgentConfig};

    use super::super::serve::ServicePart;
    use super::*;

    fn ask_of(supervised: &mut Supervised<'_>, process: u64) -> Restarted {
        let (mut asker, stream) = UnixStream::pair().unwrap();
        offers::send(&mut asker, &Request { process }, &[]).unwrap();
        supervised.answer(stream).unwrap();
        offers::receive(&mut asker).unwrap().unwrap()
    }

    #[test]
    fn the_process_that_serves_is_ended_once_and_no_other_and_not_without_an_agent() {
        let directory = tempfile::tempdir().unwrap();
        let mut old = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let service = Serve {
            agent: directory.path().join("node.sock"),
            deadline_ns: u64::MAX,
            state_bytes: 0,
            ballast: 0,
            addresses: vec!["127.0.0.1:0".parse().unwrap()],
            duty: Duty::ServeAgain,
            service: ServicePart::Whole,
        };
        let requests = directory.path().join("requests");
        let settings = Supervise { requests, process: old.id(), service };
        // A program that ends at once, and says nothing.
        let program = PathBuf::from("true");
        let mut supervised = Supervised { settings: &settings, program, process: old.id(), child: None, before: None };
        let wrong = ask_of(&mut supervised, u64::from(std::process::id()));
        assert!(wrong.why.unwrap().contains("is not the service's"));
        let without = ask_of(&mut supervised, u64::from(old.id()));
        assert!(!without.helped() && without.why.unwrap().contains("its sessions would end"));
        assert!(old.try_wait().unwrap().is_none(), "it was left alone");

        let _agent = Agent::start(AgentConfig::at(&settings.service.agent)).unwrap();
        supervised.before = None;
        let ended = ask_of(&mut supervised, u64::from(old.id()));
        assert!(!ended.helped(), "{ended:?}");
        assert_eq!(old.wait().unwrap().signal(), Some(9));
        assert_eq!(ask_of(&mut supervised, u64::from(old.id())), ended, "what came of it is told again");
        let young = u64::from(supervised.process);
        assert_eq!(ask_of(&mut supervised, young), ended);
        assert_eq!(u64::from(supervised.process), young, "a young process is left alone");
    }
}
