//! Arbitrary packets that a mirror sees pass: frames of any bytes, and segments of a client and its service with any
//! numbers. It tells no byte that the client did not send at that place.
#![no_main]

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddrV4};

use backdoor_core::channels::mirror::{Limits, Streams};
use libfuzzer_sys::fuzz_target;

// The only part of `host` that reads packets, and it needs no more than its bytes.
#[path = "../../host/src/mirror/frame.rs"]
mod frame;

const SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 10), 80);
const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 5000);
/// Both streams begin near the end of the numbers.
const BASE: u32 = u32::MAX - 20;
const LIMITS: Limits = Limits { connection_bytes: 200, bytes: 300, connections: 2 };

/// What an input's bytes say of the next packet.
mod choice {
    pub const RAW: u8 = 1;
    pub const FROM_SERVICE: u8 = 2;
    pub const CHECKSUM_SETTLED: u8 = 4;
    pub const MISSED: u8 = 8;
}

fuzz_target!(|bytes: &[u8]| {
    let mut streams = Streams::new(SERVICE, LIMITS);
    let mut were_sent = HashSet::new();
    let mut rest = bytes;
    while let Some((&[choice, length], after)) = rest.split_first_chunk() {
        let (packet, after) = after.split_at(after.len().min(usize::from(length)));
        rest = after;
        let chosen = |bit: u8| choice & bit != 0;
        if chosen(choice::MISSED) {
            streams.missed();
        }
        let (frame, settled) = if chosen(choice::RAW) {
            (packet.to_vec(), chosen(choice::CHECKSUM_SETTLED))
        } else {
            let Some(frame) = segment(packet, chosen(choice::FROM_SERVICE)) else { continue };
            (frame, true)
        };
        let frame::Said::Segment(segment) = frame::read(&frame, settled) else { continue };
        assert!(segment.payload.len() <= segment.length as usize);
        if (segment.from, segment.to) == (CLIENT, SERVICE) {
            let numbered = (0..).zip(segment.payload);
            were_sent.extend(numbered.map(|(at, byte)| (segment.sequence.wrapping_add(at), *byte)));
        }
        streams.pass(&segment);
        for consumed in (0..=u8::MAX).map(|at| BASE.wrapping_add(u32::from(at))) {
            let Ok(told) = streams.queues(CLIENT, consumed) else { continue };
            assert!(told.unread.len() <= LIMITS.connection_bytes);
            assert_eq!(consumed.wrapping_add(told.unread.len() as u32), told.received);
            for (at, byte) in (0..).zip(&told.unread) {
                assert!(were_sent.contains(&(consumed.wrapping_add(at), *byte)), "nobody sent it");
            }
        }
    }
});

/// A frame with a segment between client and service: two bytes for its numbers, one for its flags, then what it carries.
fn segment(bytes: &[u8], from_service: bool) -> Option<Vec<u8>> {
    let (&[sequence, acknowledges, flags], payload) = bytes.split_first_chunk()?;
    let (from, to) = if from_service { (SERVICE, CLIENT) } else { (CLIENT, SERVICE) };
    let mut frame = vec![0; 12];
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((40 + payload.len() as u16).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend(from.ip().octets());
    frame.extend(to.ip().octets());
    frame.extend(from.port().to_be_bytes());
    frame.extend(to.port().to_be_bytes());
    for number in [sequence, acknowledges] {
        frame.extend(BASE.wrapping_add(u32::from(number)).to_be_bytes());
    }
    frame.extend([0x50, flags, 1, 0, 0, 0, 0, 0]);
    frame.extend(payload);
    Some(frame)
}
