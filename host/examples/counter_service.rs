//! A service that is watched and can be carried on elsewhere: each client has a counter of its own.
//!
//! ```text
//! backdoor node --socket /tmp/node.sock                         # the agent of this machine
//! cargo run -p backdoor-host --example counter_service -- /tmp/node.sock 127.0.0.1:7070
//! printf 'add 5\nadd 2\nget\nquit\n' | nc 127.0.0.1 7070        # answers 5, 7, 7
//! ```
//!
//! What makes it recoverable is the order in `serve_client`: change the state, commit it, and only then answer. A client
//! that got an answer finds that answer's state in the State Box, whatever happens to this process afterwards.
//!
//! A session that is idle is not suspected, unless bytes wait in its connection: that is the kernel's word, by way of the
//! agent (`watch_queue`). The agent's duplicate of a connection is closed when its session is dropped.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use backdoor_core::Nanos;
use backdoor_host::app::{App, Node, Session};

/// Silence longer than this, while there is work, is a failure.
const DEADLINE: Nanos = Nanos::from_millis(500);
/// How long monitors wait for each other when they take over a session.
const PATIENCE: Nanos = Nanos::from_secs(2);
/// Longest request; a client that sends more is disconnected.
const MAX_LINE_BYTES: u64 = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, address] = &arguments[..] else {
        return Err("usage: counter_service SOCKET_OF_THE_AGENT ADDRESS:PORT".into());
    };
    let node = Node::connect(socket)?;
    serve(&node, &TcpListener::bind(address)?)
}

/// Serves every client on a thread of its own, for ever.
pub(crate) fn serve(node: &Node, listener: &TcpListener) -> Result<(), Box<dyn Error>> {
    let app = node.register("counter", DEADLINE)?;
    // Idle is no excuse while clients wait.
    app.watch_queue(listener)?;
    loop {
        // To wait for clients is no failure, however long it takes.
        app.progress().idle();
        let (stream, _) = listener.accept()?;
        app.progress().advance();
        if let Err(error) = welcome(&app, stream) {
            eprintln!("a client was turned away: {error}");
        }
    }
}

fn welcome(app: &App, mut stream: TcpStream) -> Result<(), Box<dyn Error>> {
    let name = format!("counter of {}", stream.peer_addr()?);
    match app.open_session(&name, DEADLINE, size_of::<i64>()) {
        Ok(session) => {
            // Nor while this one does. Without it, a session that misses its client's request would pass for idle.
            if let Err(error) = session.watch_queue(&stream) {
                eprintln!("served without: {error}");
            }
            std::thread::Builder::new().name(name).spawn(move || {
                // Dropping the session at the end tells everybody that it ended as it should.
                if let Err(error) = serve_client(session, stream) {
                    eprintln!("a session ended early: {error}");
                }
            })?;
            Ok(())
        }
        Err(error) => {
            writeln!(stream, "error: {error}")?;
            Err(error.into())
        }
    }
}

fn serve_client(mut session: Session, mut stream: TcpStream) -> Result<(), Box<dyn Error>> {
    let mut requests = BufReader::new(stream.try_clone()?);
    let mut counter: i64 = 0;
    // Committed before the first request, so that a heir finds the client from the start.
    session.commit(&counter.to_le_bytes())?;
    loop {
        session.idle();
        let mut line = String::new();
        if (&mut requests).take(MAX_LINE_BYTES).read_line(&mut line)? == 0 {
            return Ok(());
        }
        session.progress();
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["add", number] if line.ends_with('\n') => match number.parse::<i64>() {
                Ok(number) => counter = counter.wrapping_add(number),
                Err(error) => {
                    writeln!(stream, "error: {error}")?;
                    continue;
                }
            },
            ["get"] => {}
            ["quit"] => return Ok(()),
            _ => {
                writeln!(stream, "error: 'add NUMBER', 'get' or 'quit'")?;
                continue;
            }
        }
        // Waits while a monitor makes sure that this session has failed. Fails if somebody took it over: then the client
        // is theirs, and gets no answer from here.
        session.commit_or_wait(&counter.to_le_bytes(), PATIENCE)?;
        writeln!(stream, "{counter}")?;
    }
}
