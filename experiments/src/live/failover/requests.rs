//! Clients that ask and are answered, request by request, and check every answer.

use std::io::{self, BufRead};
use std::time::Duration;

use super::client::{ClientKind, Errand};
use super::line::Line;
use super::seen::{Flow, Seen};
use crate::live::web::content;

/// Requests a second of many clients together: each thinks in between, or two processors would see to nothing else.
const REQUESTS_PER_S: u64 = 4000;
/// Bytes of a browser's objects, by turns.
const OBJECTS: [u64; 4] = [2_000, 150_000, 30_000, 900];

/// An answer: bytes of its head, and its body.
fn answer(from: &mut impl BufRead, seen: &Seen, flow: &Flow) -> Result<(u64, Vec<u8>), String> {
    let error = |error: io::Error| format!("the connection broke: {error}");
    let mut line = String::new();
    let mut head = from.read_line(&mut line).map_err(error)?;
    if line != "HTTP/1.1 200 OK\r\n" {
        // Without a line it was closed.
        if !line.is_empty() {
            seen.has_erred();
        }
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
pub(super) fn count(mut line: Line, errand: Errand, number: u64, seen: &Seen, flow: &Flow) -> Result<bool, String> {
    let think = Duration::from_micros(match errand.kind {
        ClientKind::Many => errand.connections * 1_000_000 / REQUESTS_PER_S,
        _ => 0,
    });
    let (mut moved, mut request) = (0, 0);
    // Not all at once.
    let place = number % errand.connections;
    std::thread::sleep(think.mul_f64(place as f64 / errand.connections as f64));
    while moved < errand.bytes / errand.connections {
        if request == 1 && line.is_first() {
            seen.has_begun();
        }
        request += 1;
        let asked = line.ask(b"POST /count HTTP/1.1\r\nHost: service\r\nContent-Length: 0\r\n\r\n");
        let (head, body) = match asked.and_then(|from| answer(from, seen, flow)) {
            Ok(answer) => answer,
            Err(why) => {
                line.again(why)?;
                // Nobody knows any more what came before.
                request = 0;
                seen.has_lost();
                continue;
            }
        };
        moved += head + body.len() as u64;
        if body != format!("{request}\n").as_bytes() {
            seen.has_erred();
            let body = String::from_utf8_lossy(&body).trim().to_owned();
            return Err(format!("client {number}: request {request} was answered as the one of number {body}"));
        }
        std::thread::sleep(think);
    }
    Ok(true)
}

/// One object after the other.
pub(super) fn browse(mut line: Line, errand: Errand, seen: &Seen, flow: &Flow) -> Result<bool, String> {
    let (mut moved, mut object) = (0, 0);
    let mut right = true;
    while moved < errand.bytes {
        if object == 1 {
            seen.has_begun();
        }
        let (bytes, seed) = (OBJECTS[object % OBJECTS.len()], errand.seed.wrapping_add(object as u64));
        let request = format!("GET /bytes/{bytes}?seed={seed} HTTP/1.1\r\nHost: service\r\n\r\n");
        let (_, body) = answer(line.ask(request.as_bytes())?, seen, flow)?;
        let mut expected = vec![0; bytes as usize];
        content::fill(seed, 0, &mut expected);
        if body != expected {
            right = false;
            seen.has_erred();
        }
        moved += bytes;
        object += 1;
    }
    Ok(right)
}
