//! TCP connections carried on by another socket, with the kernel's own TCP on both sides: every byte arrives once, in both
//! directions, wherever the connection was cut.
//!
//! Root only, and then never skipped: repair mode needs CAP_NET_ADMIN.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_core::channels::{Output, TcpState, resume};
use backdoor_host::tcp::{TcpError, birth, queues, recreate, silence};

fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (client, listener.accept().unwrap().0)
}

fn now() -> Nanos {
    Nanos(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64)
}

/// Byte `n` of a stream: no two neighbourhoods look alike.
fn byte(n: u64) -> u8 {
    (n ^ n >> 8 ^ n >> 16).wrapping_mul(167) as u8
}

fn bytes(range: std::ops::Range<u64>) -> Vec<u8> {
    range.map(byte).collect()
}

#[test]
fn probe() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (mut client, mut server) = connection();
    let birth = birth(&server).unwrap();
    eprintln!("{birth:?}");
    server.write_all(&bytes(0..1000)).unwrap();
    let mut got = vec![0; 1000];
    client.read_exact(&mut got).unwrap();
    client.write_all(b"hello").unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let q = queues(&server).unwrap();
    eprintln!("{q:?}");
    let state = TcpState { intent: 1000 + 400, acknowledged: 0, ..TcpState::new(birth, Output::Regenerated) };
    for exact in [true, false] {
        let resume = resume(&state, exact.then(|| q.kernel()), now()).unwrap();
        eprintln!("{resume:?}");
    }
    let exact = std::env::var_os("EXACT").is_some();
    let mut resume = resume(&state, Some(q.kernel()), now()).unwrap();
    if !exact {
        resume.replay_from = 0;
        resume.replay_until = 1400;
    }
    silence(server).unwrap();
    let silent = recreate(&resume, &bytes(resume.replay())).unwrap();
    let start = std::time::Instant::now();
    let mut heir = silent.speak().unwrap();
    let mut got = vec![0; 400];
    client.read_exact(&mut got).unwrap();
    eprintln!("client got the missing bytes after {:?}", start.elapsed());
    assert_eq!(got, bytes(1000..1400));
    let mut hello = [0; 5];
    heir.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"hello");
    client.write_all(b"world").unwrap();
    heir.read_exact(&mut hello).unwrap();
    heir.write_all(b"!").unwrap();
    client.read_exact(&mut hello[..1]).unwrap();
    let out = std::process::Command::new("ss").args(["-tinm", "src", &birth.local.to_string()]).output();
    if let Ok(out) = out {
        eprintln!("{}", String::from_utf8_lossy(&out.stdout))
    };
    let _ = heir.as_fd();
    let _: Option<TcpError> = None;
}
