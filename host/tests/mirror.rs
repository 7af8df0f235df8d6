//! What a mirror tells of a connection, beside what the node's own kernel tells of it.
//!
//! Namespaces and repair mode need privileges: as root these tests never skip.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use backdoor_core::channels::mirror::{Limits, MirrorError};
use backdoor_core::channels::{Output, TcpState};
use backdoor_host::mirror::Mirror;
use backdoor_host::net::{Links, NetError, NetworkNamespace};
use backdoor_host::tcp::{Queues, birth, queues};

const SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 10), 80);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("not tested: network namespaces need root");
    }
    is_root
}

/// A client and a node, and a link between them with a mirror on the client's end.
struct Place {
    client: NetworkNamespace,
    node: NetworkNamespace,
    listener: TcpListener,
}

impl Place {
    fn make() -> Result<Self, NetError> {
        let (client, node) = (NetworkNamespace::new()?, NetworkNamespace::new()?);
        let mut links = Links::of(&client)?;
        links.add_veth("eth0", "eth0", &node)?;
        links.add_address("eth0", CLIENT, 24)?;
        links.set_up("eth0")?;
        let mut links = Links::of(&node)?;
        links.add_address("eth0", *SERVICE.ip(), 24)?;
        links.set_up("eth0")?;
        let listener = node.enter(|| TcpListener::bind(SERVICE))?.unwrap();
        Ok(Place { client, node, listener })
    }

    fn mirror(&self) -> Mirror {
        Mirror::open(&self.client, "eth0", SERVICE, Limits::default()).unwrap()
    }

    fn connection(&self) -> (TcpStream, TcpStream) {
        let client = self.client.enter(|| TcpStream::connect(SERVICE)).unwrap().unwrap();
        (client, self.listener.accept().unwrap().0)
    }
}

/// Part of a stream in which no two neighbourhoods look alike.
fn bytes(from: u64, length: usize) -> Vec<u8> {
    (from..from + length as u64).map(|n| (n ^ n >> 8 ^ n >> 16).wrapping_mul(167) as u8).collect()
}

/// Waits until the node's kernel has so much unread input.
fn wait_for_input(server: &TcpStream, amount: u64) {
    let start = Instant::now();
    while rustix::io::ioctl_fionread(server).unwrap() < amount {
        assert!(start.elapsed() < Duration::from_secs(10), "the input never came");
        std::thread::yield_now();
    }
}

#[test]
fn the_mirror_tells_what_the_kernel_tells() {
    if !is_root() {
        return;
    }
    let place = Place::make().unwrap();
    let mirror = place.mirror();
    for (unread, consumed, output, ends) in
        [(0, 0, 0, false), (5, 3, 70, false), (20_000, 0, 30_000, false), (30_000, 100_000, 9, true)]
    {
        let (mut client, mut server) = place.connection();
        let state = TcpState::new(birth(&server).unwrap(), Output::Regenerated);
        let mut taken = vec![0; consumed];
        std::thread::scope(|scope| {
            scope.spawn(|| client.write_all(&bytes(0, consumed + unread)).unwrap());
            server.read_exact(&mut taken).unwrap();
        });
        server.write_all(&bytes(7, output)).unwrap();
        let mut half = vec![0; output / 2];
        client.read_exact(&mut half).unwrap();
        if ends {
            client.shutdown(Shutdown::Write).unwrap();
        }
        wait_for_input(&server, unread as u64);
        // All that is delayed has been said, too.
        std::thread::sleep(Duration::from_millis(250));
        let known = queues(&server).unwrap();
        let state = TcpState { consumed: consumed as u64, intent: output as u64, ..state };
        let told = mirror.queues(&state).unwrap();
        assert_eq!(told.unread, bytes(consumed as u64, unread));
        assert_eq!(told, Queues { unacknowledged: Vec::new(), ..known });
        assert_eq!(told.ended, ends);
    }
    assert_eq!(mirror.counts().missed, 0);
}

#[test]
fn a_link_that_is_cut_takes_nothing_of_what_passed_before() {
    if !is_root() {
        return;
    }
    let place = Place::make().unwrap();
    let mirror = place.mirror();
    let (mut client, server) = place.connection();
    let state = TcpState::new(birth(&server).unwrap(), Output::Regenerated);
    client.write_all(&bytes(0, 30_000)).unwrap();
    wait_for_input(&server, 30_000);
    Links::of(&place.client).unwrap().set_down("eth0").unwrap();
    assert_eq!(mirror.queues(&state).unwrap().unread, bytes(0, 30_000));
    // And it goes on when the link does.
    Links::of(&place.client).unwrap().set_up("eth0").unwrap();
    client.write_all(&bytes(30_000, 5_000)).unwrap();
    wait_for_input(&server, 35_000);
    assert_eq!(mirror.queues(&state).unwrap().unread, bytes(0, 35_000));
}

#[test]
fn a_mirror_that_came_late_or_stands_elsewhere_says_so() {
    if !is_root() {
        return;
    }
    let place = Place::make().unwrap();
    let (mut client, mut server) = place.connection();
    let state = TcpState::new(birth(&server).unwrap(), Output::Regenerated);
    client.write_all(&bytes(0, 1000)).unwrap();
    wait_for_input(&server, 1000);
    let mirror = place.mirror();
    assert_eq!(mirror.queues(&state), Err(MirrorError::Unknown));
    server.write_all(b"more?").unwrap();
    client.write_all(&bytes(1000, 1000)).unwrap();
    wait_for_input(&server, 2000);
    assert_eq!(mirror.queues(&state), Err(MirrorError::Gap));
    let state = TcpState { consumed: 1000, ..state };
    assert_eq!(mirror.queues(&state).unwrap().unread, bytes(1000, 1000));

    let elsewhere = Mirror::open(&place.node, "lo", SERVICE, Limits::default());
    assert!(elsewhere.is_ok_and(|mirror| mirror.queues(&state) == Err(MirrorError::Unknown)));
    let missing = Mirror::open(&place.node, "eth9", SERVICE, Limits::default()).unwrap_err();
    assert!(missing.to_string().contains("eth9"), "{missing}");
}

#[test]
#[ignore = "a measurement: cargo test --release -p backdoor-host --test mirror -- --ignored --nocapture"]
fn what_it_keeps_up_with() {
    const PIECE_BYTES: usize = 1 << 20;
    let place = Place::make().unwrap();
    // As fast as it goes without a mirror, and with one; then slower.
    for (mirrored, most) in [(false, f64::INFINITY), (true, f64::INFINITY), (true, 8e8), (true, 4e8), (true, 2e8)] {
        let mirror = mirrored.then(|| place.mirror());
        let (mut client, mut server) = place.connection();
        let pieces = (2.0 * most.min(1e9)) as usize / PIECE_BYTES;
        let start = Instant::now();
        let sender = std::thread::spawn(move || {
            let piece = vec![7; PIECE_BYTES];
            for number in 0..pieces {
                let due = Duration::from_secs_f64((number * PIECE_BYTES) as f64 / most);
                std::thread::sleep(due.saturating_sub(start.elapsed()));
                client.write_all(&piece).unwrap();
            }
        });
        let (mut all, mut into) = (0, vec![0; PIECE_BYTES]);
        loop {
            match server.read(&mut into).unwrap() {
                0 => break,
                length => all += length,
            }
        }
        sender.join().unwrap();
        let rate = all as f64 / start.elapsed().as_secs_f64() / 1e6;
        println!("{all} bytes, {rate:.0} MB/s, {:?}", mirror.map(|mirror| mirror.counts()));
    }
}
