//! Requests as clients write them: as much HTTP/1.1 (RFC 9112) as they need, over connections that stay open.
//!
//! | request | what it does |
//! |---|---|
//! | `GET /bytes/N?seed=S` | answers with N bytes of the content of seed S |
//! | `POST /count` | adds one to the session's count and answers with it: done twice, it would show |
//! | `PUT /upload` | takes a body of any length and answers with its SHA-256 |

/// Longest head of a request.
pub const MAX_HEAD_BYTES: usize = 4 << 10;
/// Most bytes that a client may ask for.
pub const MAX_CONTENT_BYTES: u64 = 1 << 40;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Content.
    Content {
        /// So many bytes.
        bytes: u64,
        /// Of this seed.
        seed: u64,
    },
    /// One more.
    Count,
    /// The hash of what comes.
    Upload {
        /// So many bytes of it.
        bytes: u64,
        /// Whether its client waits to be told that it may send them.
        asks_first: bool,
    },
}

/// The request whose head `input` begins with, and the length of that; `None` if it is not whole.
///
/// # Errors
/// Why it can't be understood.
pub fn parse(input: &[u8]) -> Result<Option<(Request, usize)>, String> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(input) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let header = |name: &str| {
        let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok()
    };
    let request = match (request.method.unwrap_or(""), request.path.unwrap_or("")) {
        ("GET", path) => {
            let (bytes, seed) = asked_for(path).ok_or("there is no such thing here")?;
            Request::Content { bytes, seed }
        }
        ("POST", "/count") if matches!(header("content-length"), None | Some("0")) => Request::Count,
        ("PUT", "/upload") => {
            let bytes = header("content-length").and_then(|length| length.trim().parse().ok());
            let asks_first = header("expect").is_some_and(|expect| expect.eq_ignore_ascii_case("100-continue"));
            Request::Upload { bytes: bytes.ok_or("an upload without its length")?, asks_first }
        }
        _ => return Err("there is no such thing to do here".into()),
    };
    Ok(Some((request, length)))
}

/// Length and seed in `/bytes/N?seed=S`.
fn asked_for(path: &str) -> Option<(u64, u64)> {
    let (bytes, query) =
        path.strip_prefix("/bytes/")?.split_once('?').unwrap_or((path.strip_prefix("/bytes/")?, "seed=0"));
    let bytes = bytes.parse().ok().filter(|bytes| *bytes <= MAX_CONTENT_BYTES)?;
    Some((bytes, query.strip_prefix("seed=")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_what_its_head_says() {
        for (head, expected) in [
            ("GET /bytes/12?seed=5 HTTP/1.1\r\n\r\n", Request::Content { bytes: 12, seed: 5 }),
            ("GET /bytes/0 HTTP/1.1\r\nHost: service\r\n\r\n", Request::Content { bytes: 0, seed: 0 }),
            ("POST /count HTTP/1.1\r\ncontent-length: 0\r\n\r\n", Request::Count),
            ("PUT /upload HTTP/1.1\r\nContent-Length: 7\r\n\r\n", Request::Upload { bytes: 7, asks_first: false }),
            (
                "PUT /upload HTTP/1.1\r\nContent-Length: 7\r\nExpect: 100-Continue\r\n\r\n",
                Request::Upload { bytes: 7, asks_first: true },
            ),
        ] {
            let with_more = format!("{head}and more");
            assert_eq!(parse(with_more.as_bytes()), Ok(Some((expected, head.len()))), "{head}");
            assert_eq!(parse(&head.as_bytes()[..head.len() - 1]), Ok(None), "{head}");
        }
    }
}
