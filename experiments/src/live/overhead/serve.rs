//! The service that is measured: counters, to which clients add one. The same with State Boxes and without.

use std::error::Error;
use std::io::{self, BufRead, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;

use backdoor_core::Nanos;
use backdoor_core::takeover::TakeoverConfig;
use backdoor_host::app::{App, Node};
use backdoor_host::serve::{Retain, SessionConfig, TcpSession};
use serde::{Deserialize, Serialize};

use super::placement::place;

/// The application's name in the Progress Box.
const SERVICE_NAME: &str = "counters";
/// Most requests that a client has under way at once.
pub(super) const MAX_UNDER_WAY: usize = 64;
/// Bytes of a request: which of a session's counters one is added to, little-endian.
pub(super) const REQUEST_BYTES: usize = 8;
/// Bytes of an answer: what the counter is now, little-endian.
pub(super) const ANSWER_BYTES: usize = 8;

/// How a service is to serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// The socket of its node's agent, with which it keeps its sessions in State Boxes; `None`: it keeps them to itself,
    /// and nobody watches it.
    pub agent: Option<PathBuf>,
    /// Bytes of a session's state: a counter takes eight.
    pub state_bytes: usize,
    /// Deadline of the application and of each session, in ns.
    pub deadline_ns: u64,
    /// Whether the thread that serves a client shares that client's processor.
    pub pinned: bool,
}

/// What it says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountersReady {
    /// Where it waits for clients, on the loopback interface.
    pub port: u16,
}

/// A session's state, as it is saved.
#[derive(Debug)]
struct State(Vec<u8>);

impl State {
    /// Adds one to the counter that a request names, round the end; answers what it is now.
    fn add(&mut self, request: [u8; REQUEST_BYTES]) -> [u8; ANSWER_BYTES] {
        let counters = self.0.len() / 8;
        let at = 8 * (u64::from_le_bytes(request) as usize % counters);
        let counter = &mut self.0[at..at + 8];
        let answer = (u64::from_le_bytes(counter.try_into().unwrap_or_default()) + 1).to_le_bytes();
        counter.copy_from_slice(&answer);
        answer
    }

    /// Acts on every whole request of `input`; answers how many bytes those were.
    fn act(&mut self, input: &[u8], answers: &mut Vec<u8>) -> usize {
        answers.clear();
        let requests = input.as_chunks::<REQUEST_BYTES>().0;
        requests.iter().for_each(|request| answers.extend(self.add(*request)));
        requests.len() * REQUEST_BYTES
    }
}

/// Serves until the process ends.
pub(in crate::live) fn play(
    settings: &Counters,
    tell: impl FnOnce(CountersReady) -> io::Result<()>,
) -> Result<(), Box<dyn Error>> {
    let app = match &settings.agent {
        Some(agent) => Some(Node::connect(agent)?.register(SERVICE_NAME, Nanos(settings.deadline_ns))?),
        None => None,
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    tell(CountersReady { port: listener.local_addr()?.port() })?;
    let settings = settings.clone();
    std::thread::spawn(move || {
        if let Some(app) = &app {
            // It waits for clients for as long as they take.
            app.progress().idle();
        }
        for (number, stream) in listener.incoming().enumerate() {
            if let Err(error) =
                stream.map_err(Into::into).and_then(|stream| welcome(app.as_ref(), stream, number, &settings))
            {
                crate::say::err(&format!("a client is not served: {error}"));
            }
        }
    });
    // Until the parent closes the pipe.
    io::stdin().lock().lines().for_each(drop);
    Ok(())
}

/// What a session is opened with that keeps so many bytes of counters.
pub(super) fn session_config(deadline: Nanos, state_bytes: usize) -> SessionConfig {
    SessionConfig {
        deadline,
        patience: TakeoverConfig::default().patience,
        application_bytes: state_bytes,
        input_bytes: MAX_UNDER_WAY * REQUEST_BYTES,
        // Answers are their counters' values, so they could not be made again.
        retain: Retain::Bytes(2 * MAX_UNDER_WAY * ANSWER_BYTES),
    }
}

fn welcome(app: Option<&App>, stream: TcpStream, number: usize, settings: &Counters) -> Result<(), Box<dyn Error>> {
    stream.set_nodelay(true)?;
    let state = State(vec![0; settings.state_bytes]);
    let pinned = settings.pinned;
    match app {
        Some(app) => {
            let config = session_config(Nanos(settings.deadline_ns), settings.state_bytes);
            let session = TcpSession::accept(app, stream, &format!("client {number}"), config)?;
            std::thread::spawn(move || place(number, pinned).map(|()| drop(serve_saved(session, state))));
        }
        None => drop(std::thread::spawn(move || place(number, pinned).and_then(|()| serve_plain(stream, state)))),
    }
    Ok(())
}

fn serve_plain(mut stream: TcpStream, mut state: State) -> io::Result<()> {
    let (mut buffer, mut held, mut answers) = ([0; MAX_UNDER_WAY * REQUEST_BYTES], 0, Vec::new());
    loop {
        let read = stream.read(&mut buffer[held..])?;
        if read == 0 {
            return Ok(());
        }
        held += read;
        let taken = state.act(&buffer[..held], &mut answers);
        stream.write_all(&answers)?;
        buffer.copy_within(taken..held, 0);
        held -= taken;
    }
}

fn serve_saved(mut session: TcpSession, mut state: State) -> Result<(), Box<dyn Error>> {
    let (mut buffer, mut held, mut answers) = ([0; MAX_UNDER_WAY * REQUEST_BYTES], 0, Vec::new());
    loop {
        session.idle();
        let read = session.read(&mut buffer[held..])?;
        if read == 0 {
            return Ok(());
        }
        held += read;
        let taken = state.act(&buffer[..held], &mut answers);
        session.commit_and_send(&state.0, taken, &answers)?;
        buffer.copy_within(taken..held, 0);
        held -= taken;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_requests_are_acted_upon_in_order() {
        let mut state = State(vec![0; 24]);
        let requests: Vec<u8> = [1u64, 1, 4, 2].into_iter().flat_map(u64::to_le_bytes).collect();
        let mut answers = Vec::new();
        assert_eq!(state.act(&requests[..27], &mut answers), 24);
        let answers: Vec<u64> = answers.as_chunks().0.iter().map(|answer| u64::from_le_bytes(*answer)).collect();
        assert_eq!(answers, [1, 2, 3], "counter 4 of three is counter 1");
    }
}
