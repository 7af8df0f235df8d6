//! Clients that ask as fast as they are answered, and check every answer.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::serve::{ANSWER_BYTES, MAX_UNDER_WAY, REQUEST_BYTES};

/// One connection, and what its counters must be.
#[derive(Debug)]
pub(super) struct Client {
    stream: TcpStream,
    counters: Vec<u64>,
    next: u64,
}

/// What one client did in one turn.
#[derive(Clone, Debug, Default)]
pub(super) struct Turn {
    pub(super) requests: u64,
    /// From sending some requests to the last of their answers, in ns.
    pub(super) latencies: Vec<u64>,
}

impl Client {
    pub(super) fn connect(port: u16, state_bytes: usize) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        // An answer takes microseconds; this is for a service that has died.
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Client { stream, counters: vec![0; state_bytes / 8], next: 0 })
    }

    /// Asks until `stop`, with `under_way` requests at once. Fails if an answer is wrong.
    pub(super) fn ask(&mut self, under_way: usize, stop: &AtomicBool) -> io::Result<Turn> {
        let mut turn = Turn::default();
        let (mut requests, mut answers) = ([0; MAX_UNDER_WAY * REQUEST_BYTES], [0; MAX_UNDER_WAY * ANSWER_BYTES]);
        let under_way = under_way.min(MAX_UNDER_WAY);
        let (requests, answers) =
            (&mut requests[..under_way * REQUEST_BYTES], &mut answers[..under_way * ANSWER_BYTES]);
        while !stop.load(Ordering::Relaxed) {
            for request in requests.as_chunks_mut::<REQUEST_BYTES>().0 {
                *request = self.next.to_le_bytes();
                self.next += 1;
            }
            let asked = Instant::now();
            self.stream.write_all(requests)?;
            self.stream.read_exact(answers)?;
            turn.latencies.push(asked.elapsed().as_nanos() as u64);
            turn.requests += under_way as u64;
            for (request, answer) in requests.as_chunks().0.iter().zip(answers.as_chunks().0) {
                let at = (u64::from_le_bytes(*request) % self.counters.len() as u64) as usize;
                self.counters[at] += 1;
                if u64::from_le_bytes(*answer) != self.counters[at] {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer is wrong"));
                }
            }
        }
        Ok(turn)
    }
}
