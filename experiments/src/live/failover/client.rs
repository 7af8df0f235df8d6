//! Ordinary clients, and what they notice of a failover: when bytes came, and whether they were right.

use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_host::clock;
use backdoor_host::net::NetworkNamespace;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::line::{Line, Lines};
use super::world::{SERVICE, service_address};
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

/// Requests a second of many clients together: each thinks in between, or two processors would see to nothing else.
const REQUESTS_PER_S: u64 = 4000;
/// Bytes of a browser's objects, by turns.
const OBJECTS: [u64; 4] = [2_000, 150_000, 30_000, 900];
/// How often a program's progress is looked at.
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// When bytes moved over one connection.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// In order, as good as.
    moments: Mutex<Vec<Nanos>>,
    /// Whether nothing more is to move.
    is_over: AtomicBool,
}

impl Flow {
    /// The longest time without any; up to `now`, if there is more to come.
    fn longest_silence(&self, now: Nanos) -> Option<Nanos> {
        let mut moments = lock(&self.moments).clone();
        moments.extend((!self.is_over.load(Ordering::Acquire) && !moments.is_empty()).then_some(now));
        moments.sort_unstable();
        moments.windows(2).map(|pair| pair[1] - pair[0]).max()
    }
}

/// What happened at the client so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    flows: Mutex<Vec<Arc<Flow>>>,
    bytes: AtomicU64,
    /// Connections that have been answered once.
    begun: AtomicU64,
    /// Whether any byte was another one than it should have been.
    wrong: AtomicBool,
    /// Connections that ended before all was done, after which another one was made.
    lost: AtomicU64,
}

impl Seen {
    fn flow(&self) -> Arc<Flow> {
        let flow = Arc::default();
        lock(&self.flows).push(Arc::clone(&flow));
        flow
    }

    fn note(&self, flow: &Flow, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Release);
        lock(&flow.moments).push(clock::now());
    }

    /// Connections over which anything has moved.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    /// Sessions that ended before all was done, and others were begun in their place.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Acquire)
    }

    /// Bytes moved so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// Whether any byte was another one than it should have been, finished or not.
    pub(super) fn is_wrong(&self) -> bool {
        self.wrong.load(Ordering::Acquire)
    }

    /// The first moment from `from` on at which bytes moved, over any connection.
    pub(super) fn first_after(&self, from: Nanos) -> Option<Nanos> {
        let first = |flow: &Arc<Flow>| lock(&flow.moments).iter().copied().filter(|moment| *moment >= from).min();
        lock(&self.flows).iter().filter_map(first).min()
    }

    /// The longest time without any over one connection; up to `now`, if it was not over by then.
    pub(super) fn longest_silence(&self, now: Nanos) -> Option<Nanos> {
        lock(&self.flows).iter().filter_map(|flow| flow.longest_silence(now)).max()
    }
}

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
                flow.is_over.store(true, Ordering::Release);
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
        command.stdin(input).stdout(Stdio::piped());
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
                        seen.begun.store(1, Ordering::Release);
                        seen.note(&flow, length as u64);
                        found.update(&buffer[..length]);
                        // At once, for a transfer that never ends has no hash.
                        content::fill(seed, at, &mut expected[..length]);
                        at += length as u64;
                        seen.wrong.fetch_or(buffer[..length] != expected[..length], Ordering::AcqRel);
                    }
                }
            }
            flow.is_over.store(true, Ordering::Release);
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
            let mut before = None;
            while !reading.is_over.load(Ordering::Acquire) {
                let io = std::fs::read_to_string(format!("/proc/{id}/io")).unwrap_or_default();
                let read = io.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse::<u64>().ok());
                if let (Some(read), Some(last)) = (read, before)
                    && read > last
                {
                    seen.begun.store(1, Ordering::Release);
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
            flow.is_over.store(true, Ordering::Release);
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

fn ended_well(child: &Mutex<Child>) -> Result<bool, String> {
    // Its output is closed, so it ends; whoever wants it to end sooner needs the lock.
    let status = loop {
        match lock(child).try_wait().map_err(|error| error.to_string())? {
            Some(status) => break status,
            None => std::thread::sleep(LOOK_EVERY),
        }
    };
    if status.success() { Ok(true) } else { Err(format!("curl ended with {status}")) }
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

/// An answer: bytes of its head, and its body.
fn answer(from: &mut impl BufRead, seen: &Seen, flow: &Flow) -> Result<(u64, Vec<u8>), String> {
    let error = |error: io::Error| format!("the connection broke: {error}");
    let mut line = String::new();
    let mut head = from.read_line(&mut line).map_err(error)?;
    if line != "HTTP/1.1 200 OK\r\n" {
        // Without a line it was closed.
        seen.wrong.fetch_or(!line.is_empty(), Ordering::AcqRel);
        return Err(format!("the service answered {line:?}"));
    }
    let mut length = None;
    loop {
        line.clear();
        head += from.read_line(&mut line).map_err(error)?;
        match line.trim_end() {
            "" => break,
            header => length = header.strip_prefix("Content-Length: ").and_then(|text| text.parse().ok()).or(length),
        }
    }
    let mut body = vec![0; length.ok_or("an answer without its length")?];
    seen.note(flow, head as u64);
    let mut filled = 0;
    while filled < body.len() {
        match from.read(&mut body[filled..]).map_err(error)? {
            0 => return Err("the connection was closed in the middle of an answer".into()),
            bytes => {
                filled += bytes;
                seen.note(flow, bytes as u64);
            }
        }
    }
    Ok((head as u64, body))
}

/// Every request must be acted upon exactly once: the answers are 1, 2, 3, …, over each connection anew.
fn count(mut line: Line, errand: Errand, number: u64, seen: &Seen, flow: &Flow) -> Result<bool, String> {
    let think = Duration::from_micros(match errand.kind {
        ClientKind::Many => errand.connections * 1_000_000 / REQUESTS_PER_S,
        _ => 0,
    });
    let (mut moved, mut request) = (0, 0);
    // Not all at once.
    let place = number % errand.connections;
    std::thread::sleep(think.mul_f64(place as f64 / errand.connections as f64));
    while moved < errand.bytes / errand.connections {
        seen.begun.fetch_add(u64::from(request == 1 && line.is_first()), Ordering::Release);
        request += 1;
        let asked = line.ask(b"POST /count HTTP/1.1\r\nHost: service\r\nContent-Length: 0\r\n\r\n");
        let (head, body) = match asked.and_then(|from| answer(from, seen, flow)) {
            Ok(answer) => answer,
            Err(why) => {
                line.again(why)?;
                // Nobody knows any more what came before.
                request = 0;
                seen.lost.fetch_add(1, Ordering::Release);
                continue;
            }
        };
        moved += head + body.len() as u64;
        if body != format!("{request}\n").as_bytes() {
            seen.wrong.store(true, Ordering::Release);
            let body = String::from_utf8_lossy(&body).trim().to_owned();
            return Err(format!("client {number}: request {request} was answered as the one of number {body}"));
        }
        std::thread::sleep(think);
    }
    Ok(true)
}

/// One object after the other.
fn browse(mut line: Line, errand: Errand, seen: &Seen, flow: &Flow) -> Result<bool, String> {
    let (mut moved, mut object) = (0, 0);
    let mut right = true;
    while moved < errand.bytes {
        seen.begun.fetch_add(u64::from(object == 1), Ordering::Release);
        let (bytes, seed) = (OBJECTS[object % OBJECTS.len()], errand.seed.wrapping_add(object as u64));
        let request = format!("GET /bytes/{bytes}?seed={seed} HTTP/1.1\r\nHost: service\r\n\r\n");
        let (_, body) = answer(line.ask(request.as_bytes())?, seen, flow)?;
        let mut expected = vec![0; bytes as usize];
        content::fill(seed, 0, &mut expected);
        right &= body == expected;
        seen.wrong.fetch_or(body != expected, Ordering::AcqRel);
        moved += bytes;
        object += 1;
    }
    Ok(right)
}
