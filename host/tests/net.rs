//! Namespaces, links and announcements, with the kernel's own bridge, ARP and TCP. As root; others skip these tests.

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::{Duration, Instant};

use backdoor_host::net::{Announcer, Cause, Links, NetError, NetworkNamespace};
use common::lan::{A_PORT, B_PORT, LINK, Lan, Member, SERVICE, able, apart};
use common::wait_for;
use rustix::thread::CapabilitySet;

const PORT: u16 = 7000;

/// For one try to connect: what is lost is sent again, after a second for the first time.
const PATIENCE: Duration = Duration::from_secs(10);

fn listen(member: &Member) -> TcpListener {
    let listener = member.namespace.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))).unwrap().unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

fn connect(from: &Member, to: Ipv4Addr) -> std::io::Result<TcpStream> {
    let to = SocketAddrV4::new(to, PORT).into();
    from.namespace.enter(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap()
}

/// A connection from `from` to `to`, of which `listener` gets the other end.
fn connected(from: &Member, to: Ipv4Addr, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = connect(from, to).unwrap();
    let mut server = None;
    wait_for("the connection arrives at the listener", || {
        server = listener.accept().ok();
        server.is_some()
    });
    let (server, _) = server.unwrap();
    server.set_nonblocking(false).unwrap();
    (client, server)
}

fn udp(member: &Member) -> UdpSocket {
    member.namespace.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))).unwrap().unwrap()
}

#[test]
fn three_namespaces_on_a_bridge_talk_tcp() {
    if !able() {
        return;
    }
    let lan = Lan::new();
    for (from, to) in [(&lan.client, &lan.a), (&lan.client, &lan.b), (&lan.a, &lan.b)] {
        let listener = listen(to);
        let (mut client, mut server) = connected(from, to.address, &listener);
        assert_eq!(client.peer_addr().unwrap(), SocketAddrV4::new(to.address, PORT).into());
        assert_eq!(server.peer_addr().unwrap().ip(), from.address);
        client.write_all(b"request").unwrap();
        let mut request = [0; 7];
        server.read_exact(&mut request).unwrap();
        assert_eq!(&request, b"request");
    }
}

#[test]
fn who_hears_an_announcement_connects_to_where_the_address_is_now() {
    if !able() {
        return;
    }
    let mut lan = Lan::new();
    let (on_a, on_b) = (listen(&lan.a), listen(&lan.b));
    let announcer = Announcer::open(&lan.b.namespace, LINK).unwrap();
    let at = [&mut lan.a, &mut lan.b].map(|node| Some(node.hardware().to_string()));

    lan.a.links.add_address(LINK, SERVICE, 32).unwrap();
    let _held = connected(&lan.client, SERVICE, &on_a);
    assert_eq!(lan.client.neighbour(SERVICE), at[0]);

    lan.a.links.remove_address(LINK, SERVICE, 32).unwrap();
    lan.b.links.add_address(LINK, SERVICE, 32).unwrap();
    assert_eq!(lan.client.neighbour(SERVICE), at[0], "nobody has told the client");
    announcer.announce(SERVICE).unwrap();
    wait_for("the client hears of it", || lan.client.neighbour(SERVICE) == at[1]);
    let reached = (0..3).find_map(|_| connect(&lan.client, SERVICE).ok()).expect("one of three tries succeeds");
    let mut accepted = None;
    wait_for("it arrives at B", || {
        accepted = on_b.accept().ok();
        accepted.is_some()
    });
    assert_eq!(accepted.unwrap().1, reached.local_addr().unwrap());
    assert!(on_a.accept().is_err());
}

#[test]
fn behind_the_fence_nothing_is_heard_of_a_node_and_others_go_on() {
    if !able() {
        return;
    }
    const ROUNDS: usize = 20;
    let mut lan = Lan::new();
    let client = udp(&lan.client);
    let [from_a, from_b] = [&lan.a, &lan.b].map(udp);
    let announcer_of_a = Announcer::open(&lan.a.namespace, LINK).unwrap();
    let to = SocketAddrV4::new(lan.client.address, PORT);
    let [a, b] = [lan.a.address, lan.b.address];
    // Both send; what has come when B's last datagram is there.
    let heard = |expected_of_a: bool| {
        let mut sent_by_a = 0;
        for round in 0..ROUNDS {
            sent_by_a += usize::from(from_a.send_to(&[round as u8], to).is_ok());
            from_b.send_to(&[round as u8], to).unwrap();
        }
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut counts = [0, 0];
        while counts[1] < ROUNDS || expected_of_a && counts[0] < sent_by_a {
            let (_, from) = client.recv_from(&mut [0; 8]).expect("datagrams arrive");
            counts[usize::from(from.ip() == b)] += 1;
            assert!([a, b].map(Into::into).contains(&from.ip()));
        }
        counts
    };
    assert_eq!(heard(true), [ROUNDS, ROUNDS]);

    lan.ports.set_down(A_PORT).unwrap();
    assert_eq!([A_PORT, B_PORT].map(|port| lan.ports.is_up(port).unwrap()), [false, true]);
    assert_eq!(heard(false), [0, ROUNDS]);

    // A, which knows nothing of it, goes on claiming the address, and the client doesn't believe it.
    lan.a.links.add_address(LINK, SERVICE, 32).unwrap();
    lan.b.links.add_address(LINK, SERVICE, 32).unwrap();
    let on_b = listen(&lan.b);
    let _held = connected(&lan.client, SERVICE, &on_b);
    for _ in 0..ROUNDS {
        let _ = announcer_of_a.announce(SERVICE);
    }
    assert_eq!(heard(false), [0, ROUNDS]);
    assert_eq!(lan.client.neighbour(SERVICE), Some(lan.b.hardware().to_string()));

    // It was the fence that silenced A, and nothing else.
    lan.ports.set_up(A_PORT).unwrap();
    wait_for("A is heard again", || {
        let _ = announcer_of_a.announce(SERVICE);
        lan.client.neighbour(SERVICE) == Some(lan.a.hardware().to_string())
    });
}

#[test]
fn what_can_not_be_done_is_named() {
    if !able() {
        return;
    }
    let [here, there] = [(); 2].map(|()| apart());
    let mut links = Links::of(&here).unwrap();
    let address = Ipv4Addr::new(10, 77, 0, 9);
    links.add_bridge("bridge").unwrap();
    links.add_veth("port", "end", &there).unwrap();
    links.add_address("port", address, 24).unwrap();
    assert!(!links.is_up("port").unwrap());
    links.set_up("port").unwrap();
    assert!(links.is_up("port").unwrap() && !links.is_running("port").unwrap(), "its other end is down");
    links.set_down("port").unwrap();
    let said = |result: Result<(), NetError>| result.unwrap_err().to_string();
    let expected = [
        (links.set_up("nothing"), "could not set link nothing up: there is no link nothing"),
        (links.set_down("nothing"), "could not set link nothing down: there is no link nothing"),
        (links.delete("nothing"), "could not delete link nothing: there is no link nothing"),
        (links.is_up("nothing").map(drop), "could not look at link nothing: there is no link nothing"),
        (links.attach("nothing", "bridge"), "could not attach link nothing to bridge bridge: there is no link nothing"),
        (links.attach("port", "nothing"), "could not attach link port to bridge nothing: there is no link nothing"),
        (links.add_bridge("bridge"), "could not add bridge bridge: there is a link bridge already"),
        (
            links.add_veth("port", "other", &there),
            "could not add link port with other end other: there is a link port already",
        ),
        (
            links.add_veth("other", "end", &there),
            "could not add link other with other end end: there is a link end already",
        ),
        (
            links.add_address("port", address, 24),
            "could not add address 10.77.0.9/24 to link port: link port has the address 10.77.0.9 already",
        ),
        (
            links.remove_address("port", SERVICE, 32),
            "could not remove address 10.77.0.100/32 from link port: link port does not have the address 10.77.0.100, \
             or not with this prefix",
        ),
        (
            links.add_address("nothing", address, 24),
            "could not add address 10.77.0.9/24 to link nothing: there is no link nothing",
        ),
        (
            Announcer::open(&here, "nothing").map(drop),
            "could not open a packet socket on link nothing: there is no link nothing",
        ),
    ];
    for (result, sentence) in expected {
        assert_eq!(said(result), sentence);
    }
    for name in ["", "sixteen-letters-", "two words", "a/b", "link%d", "."] {
        let error = links.add_bridge(name).unwrap_err();
        assert!(matches!(error.cause(), Cause::Name(_)), "{error}");
    }
    let other = [
        links.attach("port", "lo"),
        links.add_address("port", SERVICE, 33),
        Announcer::open(&here, "port").unwrap().announce(SERVICE),
    ];
    for (result, sentence) in other.into_iter().zip([
        "could not attach link port to bridge lo: Operation not supported (os error 95)",
        "could not add address 10.77.0.100/33 to link port: Invalid argument (os error 22)",
        "could not announce 10.77.0.100 on link port: Network is down (os error 100)",
    ]) {
        assert_eq!(said(result), sentence);
    }
}

#[test]
fn a_missing_privilege_is_named() {
    if !able() {
        return;
    }
    let namespace = apart();
    // Privileges are a thread's, and those that it begins get them from it.
    type Attempt<'a> = &'a (dyn Fn() -> Result<(), NetError> + Sync);
    let without = |privilege: CapabilitySet, attempt: Attempt| {
        std::thread::scope(|scope| {
            let attempt = scope.spawn(move || {
                let mut sets = rustix::thread::capabilities(None).unwrap();
                sets.effective.remove(privilege);
                rustix::thread::set_capabilities(None, sets).unwrap();
                attempt().unwrap_err()
            });
            attempt.join().unwrap()
        })
    };
    let cases: [(CapabilitySet, &str, Attempt); 5] = [
        (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN", &|| NetworkNamespace::new().map(drop)),
        (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN", &|| NetworkNamespace::new().map(drop)),
        (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN", &|| namespace.enter(|| panic!("not begun"))),
        (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN", &|| Links::of(&namespace)?.set_down("lo")),
        (CapabilitySet::NET_RAW, "CAP_NET_RAW", &|| Announcer::open(&namespace, "lo").map(drop)),
    ];
    for (privilege, name, attempt) in cases {
        let error = without(privilege, attempt);
        assert!(matches!(error.cause(), Cause::Privilege(missing) if *missing == name), "{name}: {error}");
    }
    // One's own namespace needs no entering.
    let error = without(CapabilitySet::SYS_ADMIN, &|| {
        let mut links = Links::of(&NetworkNamespace::current()?)?;
        assert!(links.hardware_address("lo").is_ok());
        links.set_up("nothing")
    });
    assert!(matches!(error.cause(), Cause::NoLink(_)), "{error}");
}

#[test]
fn what_begins_inside_is_inside() {
    if !able() {
        return;
    }
    let which = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let namespace = apart();
    let inside = namespace.enter(which).unwrap();
    assert_ne!(inside, which());
    assert_eq!(NetworkNamespace::current().unwrap().enter(which).unwrap(), which());
    let command = || Command::new("readlink").arg("/proc/self/ns/net").output().unwrap().stdout;
    let child = namespace.enter(command).unwrap();
    assert_eq!(String::from_utf8(child).unwrap().trim(), inside.to_str().unwrap());
    // Its loopback is up, and its ports are its own.
    let loopback = || TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).unwrap();
    let [one, _two] = [namespace.enter(loopback).unwrap(), apart().enter(loopback).unwrap()];
    namespace.enter(|| TcpStream::connect(one.local_addr().unwrap()).unwrap()).unwrap();
}

#[test]
fn a_panic_inside_is_a_panic_outside() {
    if !able() {
        return;
    }
    let namespace = apart();
    let panic = catch_unwind(AssertUnwindSafe(|| namespace.enter(|| panic!("in there")))).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"in there"));
    assert_eq!(namespace.enter(|| 7).unwrap(), 7);
}

#[test]
fn a_namespace_ends_with_its_last_user() {
    if !able() {
        return;
    }
    let outside = apart();
    let mut links = Links::of(&outside).unwrap();
    // The other end of a link in a namespace is there as long as that is.
    let ended = |links: &mut Links| {
        matches!(links.is_up("end").map_err(|error| error.to_string()), Err(error)
        if error == "could not look at link end: there is no link end")
    };
    let inside = |links: &mut Links| {
        let namespace = apart();
        links.add_veth("end", LINK, &namespace).unwrap();
        namespace
    };

    let namespace = inside(&mut links);
    let socket = namespace.enter(|| TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).unwrap()).unwrap();
    drop(namespace);
    // Long enough for one without users to end.
    let unused = apart();
    links.add_veth("witness", LINK, &unused).unwrap();
    drop(unused);
    wait_for("the unused one ends", || links.is_up("witness").is_err());
    assert!(!ended(&mut links), "a socket is in it");
    drop(socket);
    wait_for("it ends with its last socket", || ended(&mut links));

    // Killed in there, a process leaves nothing behind.
    let namespace = inside(&mut links);
    let mut child = namespace.enter(|| Command::new("sleep").arg("1000").spawn().unwrap()).unwrap();
    drop(namespace);
    assert!(!ended(&mut links), "a process is in it");
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for("it ends with its last process", || ended(&mut links));

    // With one end of a link, the other one goes.
    let namespace = inside(&mut links);
    links.delete("end").unwrap();
    assert!(Links::of(&namespace).unwrap().is_up(LINK).is_err());
}

#[test]
#[ignore = "a measurement: cargo test --release -p backdoor-host --test net -- --ignored --nocapture"]
fn what_fencing_and_announcing_cost() {
    const ROUNDS: usize = 300;
    assert!(able());
    let mut lan = Lan::new();
    let report = |what: &str, mut times: Vec<Duration>| {
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e6;
        let (low, middle, high, most) = (at(5), at(50), at(95), at(100));
        println!("{what:<28} {low:9.1} us at 5%, {middle:9.1} at 50%, {high:9.1} at 95%, {most:9.1} at most");
    };
    let times = |rounds: usize, work: &mut dyn FnMut()| -> Vec<Duration> {
        let timed = (0..rounds).map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        });
        timed.collect()
    };
    let mut fences = Vec::new();
    let mut openings = Vec::new();
    for _ in 0..ROUNDS {
        fences.extend(times(1, &mut || lan.ports.set_down(A_PORT).unwrap()));
        openings.extend(times(1, &mut || lan.ports.set_up(A_PORT).unwrap()));
    }
    report("set_down of a port", fences);
    report("set_up of a port", openings);
    let (mut adding, mut removing) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        adding.extend(times(1, &mut || lan.b.links.add_address(LINK, SERVICE, 32).unwrap()));
        removing.extend(times(1, &mut || lan.b.links.remove_address(LINK, SERVICE, 32).unwrap()));
    }
    report("add_address", adding);
    report("remove_address", removing);
    let announcer = Announcer::open(&lan.b.namespace, LINK).unwrap();
    report("announce", times(ROUNDS, &mut || announcer.announce(SERVICE).unwrap()));
    let mut announcers = Vec::new();
    report("Announcer::open", times(50, &mut || announcers.push(Announcer::open(&lan.b.namespace, LINK).unwrap())));
    report("Announcer, dropped", times(50, &mut || drop(announcers.pop())));
    report("enter", times(ROUNDS, &mut || lan.b.namespace.enter(|| ()).unwrap()));
    report("NetworkNamespace::new", times(50, &mut || drop(NetworkNamespace::new().unwrap())));
}

#[test]
fn a_thread_goes_there_and_back() {
    if !able() {
        return;
    }
    let lan = Lan::new();
    let inode = || std::fs::metadata("/proc/thread-self/ns/net").map(|file| std::os::unix::fs::MetadataExt::ino(&file));
    let home = inode().unwrap();
    let there = lan.client.namespace.enter_here(inode).unwrap().unwrap();
    assert_ne!(there, home);
    assert_eq!(there, lan.client.namespace.enter(inode).unwrap().unwrap());
    assert_eq!(inode().unwrap(), home, "back");
    let panicked = catch_unwind(AssertUnwindSafe(|| lan.client.namespace.enter_here(|| panic!("on purpose"))));
    assert!(panicked.is_err());
    assert_eq!(inode().unwrap(), home, "back, also by a panic");
}
