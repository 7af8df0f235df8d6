use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const SERVICE: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::new(10, 0, 0, 10), 80);

fn client(number: u16) -> SocketAddrV4 {
    SocketAddrV4::new(std::net::Ipv4Addr::new(10, 0, 0, 1), number)
}

/// The input, in which no two neighbourhoods look alike.
fn stream(bytes: u64) -> Vec<u8> {
    (0..bytes).map(|n| (n ^ n >> 7).wrapping_mul(167) as u8).collect()
}

/// A connection whose every packet is made here; input begins with number `input`, output with number `output`.
struct Talk {
    streams: Streams,
    client: SocketAddrV4,
    input: u32,
    output: u32,
}

impl Talk {
    fn begin(input: u32, output: u32, limits: Limits) -> Self {
        let mut talk = Talk { streams: Streams::new(SERVICE, limits), client: client(1), input, output };
        talk.agree(1);
        talk
    }

    fn small() -> Self {
        let limits = Limits { connection_bytes: 1000, bytes: 4000, connections: 8 };
        Talk::begin(u32::MAX - 3, 700, limits)
    }

    /// The handshake of a client.
    fn agree(&mut self, number: u16) {
        self.client = client(number);
        let agreed = Segment { sequence: self.output.wrapping_sub(1), syn: true, ..self.of_node(0) };
        self.streams.pass(&agreed);
        self.client_sends(0, b"");
    }

    fn of_node(&self, acknowledged: u64) -> Segment<'static> {
        let acknowledges = Some(self.input.wrapping_add(acknowledged as u32));
        Segment { from: SERVICE, to: self.client, sequence: self.output, acknowledges, ..Segment::EMPTY }
    }

    fn of_client<'a>(&self, at: u64, bytes: &'a [u8]) -> Segment<'a> {
        Segment {
            from: self.client,
            to: SERVICE,
            sequence: self.input.wrapping_add(at as u32),
            acknowledges: Some(self.output),
            length: bytes.len() as u32,
            payload: bytes,
            ..Segment::EMPTY
        }
    }

    fn client_sends(&mut self, at: u64, bytes: &[u8]) {
        self.streams.pass(&self.of_client(at, bytes));
    }

    fn node_acknowledges(&mut self, bytes: u64) {
        self.streams.pass(&self.of_node(bytes));
    }

    fn queues(&self, consumed: u64) -> Result<Mirrored, MirrorError> {
        self.streams.queues(self.client, self.input.wrapping_add(consumed as u32))
    }

    fn unread(&self, consumed: u64) -> Result<Vec<u8>, MirrorError> {
        self.queues(consumed).map(|queues| queues.unread)
    }
}

#[test]
fn input_is_put_in_order_and_told_from_any_place_on() {
    let mut talk = Talk::small();
    talk.client_sends(0, b"abcd");
    talk.client_sends(8, b"ijkl");
    assert_eq!(talk.unread(2), Ok(b"cd".to_vec()));
    talk.client_sends(2, b"cdefg");
    talk.client_sends(6, b"gh");
    assert_eq!(talk.unread(0), Ok(b"abcdefghijkl".to_vec()));
    assert_eq!(talk.queues(12).unwrap().received, 8, "the numbers wrap");
    assert_eq!(talk.unread(13), Err(MirrorError::Gap), "nobody can have consumed what nobody sent");
}

#[test]
fn the_output_is_known_by_what_both_sides_say_of_it() {
    let mut talk = Talk::small();
    let output = |talk: &Talk| talk.queues(0).map(|queues| (queues.acknowledged, queues.sent));
    assert_eq!(output(&talk), Ok((700, 700)));
    talk.streams.pass(&Segment { length: 50, ..talk.of_node(0) });
    talk.streams.pass(&Segment { sequence: 750, length: 50, ..talk.of_node(0) });
    talk.streams.pass(&Segment { acknowledges: Some(760), ..talk.of_client(0, b"") });
    talk.streams.pass(&Segment { acknowledges: Some(740), ..talk.of_client(0, b"") });
    assert_eq!(output(&talk), Ok((760, 800)), "not what is old");
    talk.streams.pass(&Segment { acknowledges: Some(801), ..talk.of_client(0, b"") });
    assert_eq!(output(&talk), Err(MirrorError::Missed), "or the client makes it up");
    talk.streams.pass(&Segment { sequence: 801, ..talk.of_node(0) });
    assert_eq!(output(&talk), Ok((760, 801)));
}

#[test]
fn two_versions_of_what_was_not_acknowledged_are_not_chosen_between() {
    let mut talk = Talk::small();
    talk.client_sends(0, b"abcd");
    talk.node_acknowledges(2);
    talk.client_sends(0, b"xycd");
    assert_eq!(talk.unread(0), Ok(b"abcd".to_vec()), "what was acknowledged is never changed");
    talk.client_sends(2, b"cX");
    assert_eq!(talk.unread(0), Err(MirrorError::Contradiction));

    let mut talk = Talk::small();
    talk.client_sends(4, b"efgh");
    talk.client_sends(4, b"eFg");
    assert_eq!(talk.unread(0), Err(MirrorError::Contradiction), "ahead of a gap");
    let mut talk = Talk::small();
    talk.client_sends(4, b"efgh");
    talk.client_sends(0, b"abcdEf");
    assert_eq!(talk.unread(0), Err(MirrorError::Contradiction), "when the gap is closed");
}

#[test]
fn the_end_is_known_and_no_byte() {
    let mut talk = Talk::small();
    talk.client_sends(0, b"ab");
    talk.streams.pass(&Segment { fin: true, ..talk.of_client(4, b"ef") });
    assert!(!talk.queues(0).unwrap().ended, "there is a gap before it");
    talk.client_sends(2, b"cd");
    talk.node_acknowledges(7);
    let queues = talk.queues(1).unwrap();
    assert_eq!((queues.ended, queues.received, &queues.unread[..]), (true, 2, &b"bcdef"[..]));
}

#[test]
fn what_passed_unseen_is_a_gap_for_good_and_no_more_than_that() {
    let mut talk = Talk::small();
    talk.client_sends(0, b"abcd");
    talk.client_sends(8, b"ijkl");
    talk.streams.missed();
    assert_eq!(talk.unread(0), Err(MirrorError::Missed));
    talk.client_sends(12, b"mn");
    assert_eq!(talk.unread(0), Err(MirrorError::Missed), "the client doesn't know what the node has");
    talk.node_acknowledges(12);
    assert_eq!((talk.unread(3), talk.unread(9)), (Err(MirrorError::Gap), Ok(b"jklmn".to_vec())));
    talk.node_acknowledges(20);
    assert_eq!((talk.unread(9), talk.unread(20)), (Err(MirrorError::Gap), Ok(vec![])));
}

#[test]
fn a_repetition_does_not_tell_what_the_node_sent_last() {
    let mut talk = Talk::small();
    talk.streams.pass(&Segment { length: 100, ..talk.of_node(0) });
    talk.streams.missed();
    talk.streams.pass(&Segment { length: 50, ..talk.of_node(0) });
    assert_eq!(talk.unread(0), Err(MirrorError::Missed));
    talk.streams.pass(&Segment { sequence: 800, ..talk.of_node(0) });
    assert_eq!(talk.queues(0).map(|queues| queues.sent), Ok(800));
}

#[test]
fn a_connection_is_begun_by_the_node_and_ended_by_either() {
    let mut talk = Talk::small();
    talk.client = client(2);
    talk.client_sends(0, b"out of nowhere");
    assert_eq!((talk.streams.connections.len(), talk.unread(0)), (1, Err(MirrorError::Unknown)));
    // Already at work when it is seen first.
    talk.node_acknowledges(5);
    assert_eq!(talk.unread(5), Err(MirrorError::ClientUnheard));
    talk.client_sends(5, b"f");
    assert_eq!(talk.unread(5), Ok(b"f".to_vec()));
    talk.streams.pass(&Segment { rst: true, ..talk.of_client(3, b"") });
    assert_eq!(talk.unread(5), Ok(b"f".to_vec()), "of no number that counts");
    talk.streams.pass(&Segment { rst: true, ..talk.of_client(6, b"") });
    assert_eq!(talk.unread(6), Err(MirrorError::Over));
    // The same addresses again, and the answer to their handshake twice.
    talk.input = 5;
    talk.agree(2);
    talk.client_sends(0, b"ab");
    talk.agree(2);
    assert_eq!(talk.unread(0), Ok(b"ab".to_vec()));
    talk.streams.pass(&Segment { fin: true, ..talk.of_node(2) });
    assert_eq!(talk.unread(0), Err(MirrorError::Over));
}

#[test]
fn memory_is_bounded_and_what_was_let_go_of_is_said_to_be_missing() {
    let mut talk = Talk::small();
    let all = stream(3000);
    for at in (0..3000).step_by(100) {
        talk.client_sends(at, &all[at as usize..][..100]);
    }
    assert_eq!((talk.unread(1999), talk.unread(2000)), (Err(MirrorError::Gap), Ok(all[2000..].to_vec())));
    // More connections share what there is for all.
    for number in 2..=8 {
        talk.agree(number);
    }
    talk.client = client(1);
    assert_eq!((talk.unread(2499), talk.unread(2500)), (Err(MirrorError::Gap), Ok(all[2500..].to_vec())));
    // One more than there may be: of those that are open, the one that was silent for longest goes.
    talk.client_sends(2900, &all[2900..]);
    talk.agree(9);
    talk.client = client(1);
    assert_eq!((talk.streams.connections.len(), talk.unread(2600)), (8, Ok(all[2600..].to_vec())));
    talk.client = client(2);
    assert_eq!(talk.unread(0), Err(MirrorError::Unknown));
}

/// What happens to a connection, and whether the mirror sees it.
#[derive(Clone, Debug)]
enum Event {
    /// The client sends some of its stream, again or for the first time.
    Input { at: u64, bytes: u64 },
    /// The node acknowledges what it has.
    Acknowledgement,
    /// The node sends more output.
    Output { bytes: u32 },
    /// The client acknowledges all of it.
    OutputAcknowledged,
}

const STREAM_BYTES: u64 = 2500;
/// Room for all of it, and for every piece ahead of a gap.
const ENOUGH: usize = 100_000;

fn any_events() -> impl Strategy<Value = Vec<(Event, bool)>> {
    let event = prop_oneof![
        5 => (0..STREAM_BYTES, 0u64..900).prop_map(|(at, bytes)| Event::Input { at, bytes }),
        3 => Just(Event::Acknowledgement),
        1 => (0u32..5000).prop_map(|bytes| Event::Output { bytes }),
        1 => Just(Event::OutputAcknowledged),
    ];
    proptest::collection::vec((event, prop_oneof![9 => Just(true), 1 => Just(false)]), 0..60)
}

proptest! {
    /// In any order, any pieces, more than once; some unseen by the mirror: it tells what is true, or that it doesn't know.
    #[test]
    fn what_is_told_is_true(
        input: u32, output: u32, events in any_events(), all_seen: bool,
        room in prop_oneof![500usize..4000, Just(ENOUGH)],
    ) {
        let limits = Limits { connection_bytes: room, bytes: 1 << 20, connections: 2 };
        let mut talk = Talk::begin(input, output, limits);
        let all = stream(STREAM_BYTES);
        let (mut has, mut node_has, mut acknowledged) = (vec![false; all.len()], 0, 0);
        let (mut sent, mut client_has) = (0u32, 0);
        for (event, seen) in events {
            let seen = seen || all_seen;
            let at = |at: u32| output.wrapping_add(at);
            let segment = match event {
                Event::Input { at: from, bytes } => {
                    let range = from as usize..(from + bytes).min(STREAM_BYTES) as usize;
                    has[range.clone()].fill(true);
                    node_has = has.iter().position(|has| !has).unwrap_or(has.len()) as u64;
                    Segment { acknowledges: Some(at(client_has)), ..talk.of_client(from, &all[range]) }
                }
                Event::Acknowledgement => {
                    acknowledged = node_has;
                    Segment { sequence: at(sent), ..talk.of_node(node_has) }
                }
                Event::Output { bytes } => {
                    acknowledged = node_has;
                    let segment = Segment { sequence: at(sent), length: bytes, ..talk.of_node(node_has) };
                    sent += bytes;
                    segment
                }
                Event::OutputAcknowledged => {
                    client_has = sent;
                    Segment { acknowledges: Some(at(sent)), ..talk.of_client(0, b"") }
                }
            };
            if seen { talk.streams.pass(&segment) } else { talk.streams.missed() }

            // The service may have consumed anything that the node has; what is kept reaches back so far, or not.
            for consumed in [0, node_has / 2, acknowledged, node_has] {
                match talk.queues(consumed) {
                    Ok(told) => {
                        let received = u64::from(told.received.wrapping_sub(input));
                        prop_assert!(received >= acknowledged && received >= consumed);
                        prop_assert!(!all_seen || room < ENOUGH || received >= node_has);
                        prop_assert_eq!(&told.unread, &all[consumed as usize..received as usize]);
                        prop_assert_eq!(told.sent, at(sent));
                        prop_assert!(told.acknowledged.wrapping_sub(output) <= client_has);
                        prop_assert!(!all_seen || told.acknowledged == at(client_has));
                    }
                    Err(MirrorError::Missed) => prop_assert!(!all_seen),
                    Err(error) => {
                        prop_assert_eq!(error, MirrorError::Gap);
                        // Pieces ahead of a gap take room, too.
                        prop_assert!(!all_seen || room < ENOUGH, "lost without a reason");
                    }
                }
            }
        }
    }

    /// Whatever passes: no panic, no more memory than allowed, and no byte that nobody sent.
    #[test]
    fn nothing_is_made_up(
        packets in proptest::collection::vec(
            (0u8..3, 0u32..40, proptest::option::of(0u32..40), any::<[bool; 3]>(),
                proptest::collection::vec(0u8..3, 0..12), 0u32..20),
            0..80),
        base: u32, room in 0usize..300,
    ) {
        let limits = Limits { connection_bytes: room, bytes: 500, connections: 2 };
        let mut streams = Streams::new(SERVICE, limits);
        let mut were_sent = HashSet::new();
        for (who, sequence, acknowledges, [syn, fin, rst], payload, more) in packets {
            let (one, from_node) = (client(u16::from(who & 1) + 1), who & 2 != 0);
            let (from, to) = if from_node { (SERVICE, one) } else { (one, SERVICE) };
            let sequence = base.wrapping_add(sequence);
            let acknowledges = acknowledges.map(|number| base.wrapping_add(number));
            let length = payload.len() as u32 + more / 10;
            if !from_node {
                let numbered = payload.iter().enumerate();
                were_sent.extend(numbered.map(|(at, byte)| (one, sequence.wrapping_add(at as u32), *byte)));
            }
            let fin = fin && more > 15;
            streams.pass(&Segment { from, to, sequence, acknowledges, syn, fin, rst, length, payload: &payload });
            if more == 7 { streams.missed() }
            for consumed in 0..60 {
                let consumed = base.wrapping_add(consumed);
                let Ok(told) = streams.queues(one, consumed) else { continue };
                prop_assert_eq!(consumed.wrapping_add(told.unread.len() as u32), told.received);
                for (at, byte) in told.unread.iter().enumerate() {
                    prop_assert!(were_sent.contains(&(one, consumed.wrapping_add(at as u32), *byte)));
                }
            }
            for connection in streams.connections.values() {
                prop_assert!(connection.input.bytes() <= room);
            }
        }
    }
}
