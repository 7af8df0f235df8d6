//! Ordinary clients at work.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use backdoor_host::net::NetworkNamespace;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::line::{Line, Lines};
use super::requests::{browse, count};
use super::roles::{SERVICE, service_address};
use super::seen::Seen;
use crate::live::parts::Role;
use crate::live::two_locks::lock;
use crate::live::web::content;
use crate::live::web::state::hex;

/// Who talks to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ClientKind {
    /// curl, downloading.
    Curl,
    /// curl, uploading.
    CurlUpload,
    /// A client whose every request counts, and would show if it were done twice or not at all.
    Requests,
    /// Hundreds of those at once.
    Many,
    /// One connection that stays open for one object after the other, as a browser's does.
    KeepAlive,
}

impl ClientKind {
    /// The name used on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            ClientKind::Curl => "curl",
            ClientKind::CurlUpload => "curl-upload",
            ClientKind::Requests => "requests",
            ClientKind::Many => "many",
            ClientKind::KeepAlive => "keep-alive",
        }
    }

    /// Whether a pair's worker has something to do for it: it counts requests.
    pub(super) const fn asks_the_worker(self) -> bool {
        matches!(self, ClientKind::Requests | ClientKind::Many)
    }

    /// Whether it sends more than what begins its transfer, so that input may be lost.
    pub(super) const fn sends(self) -> bool {
        !matches!(self, ClientKind::Curl | ClientKind::KeepAlive)
    }

    /// Whether it is the program curl.
    pub const fn is_curl(self) -> bool {
        matches!(self, ClientKind::Curl | ClientKind::CurlUpload)
    }
}

impl ClientKind {
    /// Whether it can connect again when it hears that its session has ended.
    pub const fn connects_again(self) -> bool {
        matches!(self, ClientKind::Requests | ClientKind::Many)
    }
}

/// Whether curl can be started; why not, if it can't.
pub(super) fn find_curl() -> Result<(), String> {
    let started = Command::new("curl").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    started.map(drop).map_err(|error| format!("can't start curl: {}", crate::plain(&error)))
}

/// What a client is to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Errand {
    pub(super) kind: ClientKind,
    /// Bytes to be moved, all connections together.
    pub(super) bytes: u64,
    /// Connections at once.
    pub(super) connections: u64,
    /// Addresses of the service, by turns; who has one connection uses the first.
    pub(super) addresses: u32,
    /// Whether it connects again when a connection has ended.
    pub(super) connects_again: bool,
    pub(super) seed: u64,
}

/// How often a program's progress is looked at.
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// A client at work. Dropping it ends it, and waits for that.
pub(super) struct Client {
    pub(super) seen: Arc<Seen>,
    program: PathBuf,
    errand: Errand,
    work: Vec<JoinHandle<Result<bool, String>>>,
    curl: Option<Arc<Mutex<Child>>>,
    lines: Arc<Lines>,
    /// Connections that were begun with.
    connections: u64,
}

impl Client {
    /// Sends it off, in its namespace. `program` is the `backdoor` binary.
    pub(super) fn start(program: &Path, errand: Errand, namespace: &NetworkNamespace) -> Result<Self, String> {
        let seen = Arc::default();
        let (program, lines) = (program.to_owned(), Arc::default());
        let mut client = Client { seen, program, errand, work: Vec::new(), curl: None, lines, connections: 0 };
        match errand.kind {
            ClientKind::Curl => client.download(namespace)?,
            ClientKind::CurlUpload => client.upload(namespace)?,
            ClientKind::Requests | ClientKind::Many | ClientKind::KeepAlive => {
                client.connect(errand.connections, namespace)?;
            }
        }
        Ok(client)
    }

    /// Begins with so many more connections.
    pub(super) fn connect(&mut self, connections: u64, namespace: &NetworkNamespace) -> Result<(), String> {
        let errand = self.errand;
        for _ in 0..connections {
            let (seen, number) = (Arc::clone(&self.seen), self.connections);
            self.connections += 1;
            let address = service_address((number % u64::from(errand.addresses)) as u32);
            let line = Line::connect(address, namespace, &self.lines, errand.connects_again)?;
            self.spawn(move || {
                let flow = seen.flow();
                let result = match errand.kind {
                    ClientKind::KeepAlive => browse(line, errand, &seen, &flow),
                    _ => count(line, errand, number, &seen, &flow),
                };
                flow.ends();
                result
            })?;
        }
        Ok(())
    }

    fn spawn(&mut self, work: impl FnOnce() -> Result<bool, String> + Send + 'static) -> Result<(), String> {
        let thread = std::thread::Builder::new().name("client".into()).stack_size(256 << 10).spawn(work);
        self.work.push(thread.map_err(|error| format!("can't start a client: {error}"))?);
        Ok(())
    }

    /// curl, which the kernel ends with the calling thread.
    fn curl(
        &mut self,
        namespace: &NetworkNamespace,
        arguments: &[&str],
        input: Stdio,
    ) -> Result<(Arc<Mutex<Child>>, impl Read + use<>), String> {
        let mut all: Vec<String> =
            ["--silent", "--show-error", "--fail", "--max-time", "120"].map(str::to_owned).into();
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let mut command = Role::Curl { arguments: all }.command(&self.program).map_err(|error| error.to_string())?;
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = namespace.enter_here(|| command.spawn()).map_err(|error| error.to_string())?;
        let mut child = child.map_err(|error| format!("can't start curl: {error}"))?;
        let output = child.stdout.take().ok_or("curl has no output")?;
        let child = Arc::new(Mutex::new(child));
        self.curl = Some(Arc::clone(&child));
        Ok((child, output))
    }

    fn download(&mut self, namespace: &NetworkNamespace) -> Result<(), String> {
        let Errand { bytes, seed, .. } = self.errand;
        let url = format!("http://{SERVICE}/bytes/{bytes}?seed={seed}");
        let (child, mut output) = self.curl(namespace, &[&url], Stdio::null())?;
        let seen = Arc::clone(&self.seen);
        self.spawn(move || {
            let (mut found, mut buffer, mut at) = (Sha256::new(), vec![0; 64 << 10], 0);
            let (mut expected, flow) = (buffer.clone(), seen.flow());
            loop {
                match output.read(&mut buffer).map_err(|error| error.to_string())? {
                    0 => break,
                    length => {
                        if at == 0 {
                            seen.has_begun();
                        }
                        seen.note(&flow, length as u64);
                        found.update(&buffer[..length]);
                        // At once, for a transfer that never ends has no hash.
                        content::fill(seed, at, &mut expected[..length]);
                        at += length as u64;
                        if buffer[..length] != expected[..length] {
                            seen.has_erred();
                        }
                    }
                }
            }
            flow.ends();
            let ended_well = ended_well(&child)?;
            Ok(ended_well && found.finalize() == hash_of_content(seed, bytes))
        })
    }

    fn upload(&mut self, namespace: &NetworkNamespace) -> Result<(), String> {
        let Errand { bytes, seed, .. } = self.errand;
        let error = |error: io::Error| format!("can't make a file to upload: {error}");
        // It has no name, so nothing of it is left whatever happens; curl asks for its length by the descriptor's.
        let mut file = tempfile::tempfile().map_err(error)?;
        each_piece(seed, bytes, |piece| file.write_all(piece)).map_err(error)?;
        let url = format!("http://{SERVICE}/upload");
        let (child, mut output) = self.curl(namespace, &["--upload-file", "/proc/self/fd/0", &url], file.into())?;
        let id = lock(&child).id();
        let (seen, flow) = (Arc::clone(&self.seen), self.seen.flow());
        let reading = Arc::clone(&flow);
        // What curl has read of its file, it has handed to its socket.
        self.spawn(move || {
            let (mut before, mut begun) = (None, false);
            while !reading.is_over() {
                let io = std::fs::read_to_string(format!("/proc/{id}/io")).unwrap_or_default();
                let read = io.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse::<u64>().ok());
                if let (Some(read), Some(last)) = (read, before)
                    && read > last
                {
                    if !std::mem::replace(&mut begun, true) {
                        seen.has_begun();
                    }
                    seen.note(&reading, read - last);
                }
                before = read.or(before);
                std::thread::sleep(LOOK_EVERY);
            }
            Ok(true)
        })?;
        let seen = Arc::clone(&self.seen);
        self.spawn(move || {
            let mut answer = String::new();
            let result = output.read_to_string(&mut answer);
            seen.note(&flow, 0);
            flow.ends();
            result.map_err(|error| error.to_string())?;
            Ok(ended_well(&child)? && answer.trim() == hex(&hash_of_content(seed, bytes)))
        })
    }

    /// Whether all of it is done.
    pub(super) fn is_done(&self) -> bool {
        self.work.iter().all(JoinHandle::is_finished)
    }

    /// Whether everything that it got was right; why not, if that can be told. To be asked when it is done.
    pub(super) fn verdict(mut self) -> Result<bool, String> {
        let mut all = true;
        for thread in std::mem::take(&mut self.work) {
            all &= thread.join().map_err(|_| "a client's thread panicked".to_owned())??;
        }
        Ok(all)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(curl) = &self.curl {
            let _ = lock(curl).kill();
        }
        self.lines.end();
        for thread in self.work.drain(..) {
            let _ = thread.join();
        }
        if let Some(curl) = &self.curl {
            let _ = lock(curl).wait();
        }
    }
}

/// Whether curl did what it was to do; what it says if not.
fn ended_well(child: &Mutex<Child>) -> Result<bool, String> {
    // Its output is closed, so it ends; whoever wants it to end sooner needs the lock.
    let status = loop {
        match lock(child).try_wait().map_err(|error| error.to_string())? {
            Some(status) => break status,
            None => std::thread::sleep(LOOK_EVERY),
        }
    };
    if status.success() {
        return Ok(true);
    }
    let mut said = String::new();
    let errors = lock(child).stderr.take();
    if let Some(mut errors) = errors {
        let _ = errors.read_to_string(&mut said);
    }
    Err(said.lines().last().map_or_else(|| format!("curl ended with {status}"), str::to_owned))
}

fn each_piece(seed: u64, bytes: u64, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let (mut piece, mut at) = (vec![0; 64 << 10], 0);
    while at < bytes {
        let length = (bytes - at).min(piece.len() as u64) as usize;
        content::fill(seed, at, &mut piece[..length]);
        take(&piece[..length])?;
        at += length as u64;
    }
    Ok(())
}

fn hash_of_content(seed: u64, bytes: u64) -> sha2::digest::Output<Sha256> {
    let mut hash = Sha256::new();
    // Hashing can't fail.
    let _ = each_piece(seed, bytes, |piece| {
        hash.update(piece);
        Ok(())
    });
    hash.finalize()
}
