//! From a frame to the TCP segment in it.

use std::net::SocketAddrV4;

use backdoor_core::channels::mirror::Segment;
use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};

/// What a frame says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    /// A segment of a connection over IPv4.
    Segment(Segment<'a>),
    /// Nothing that its receiver would heed: no TCP, malformed, or damaged on the way.
    Nothing,
    /// Something that can't be read here.
    Unreadable,
}

/// Reads a frame that may be cut off anywhere. Its checksum is not looked at if that is `checksum_settled`, or if the frame
/// is cut off.
pub(super) fn read(frame: &[u8], checksum_settled: bool) -> Said<'_> {
    let Ok(packet) = LaxSlicedPacket::from_ethernet(frame) else { return Said::Nothing };
    let Some(LaxNetSlice::Ipv4(ip)) = &packet.net else { return Said::Nothing };
    let header = ip.header();
    if header.total_len() == 0 {
        // Longer than IPv4 can say, between two that agreed on it (Linux: `gso_ipv4_max_size`).
        return Said::Unreadable;
    }
    let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { return Said::Nothing };
    let header_bytes = usize::from(header.ihl()) * 4 + tcp.header_slice().len();
    let Some(length) = usize::from(header.total_len()).checked_sub(header_bytes) else { return Said::Nothing };
    let payload = tcp.payload();
    let is_whole = payload.len() == length;
    if is_whole && !checksum_settled {
        let right = tcp.calc_checksum_ipv4(header.source(), header.destination());
        if right != Ok(tcp.checksum()) {
            return Said::Nothing;
        }
    }
    Said::Segment(Segment {
        from: SocketAddrV4::new(header.source_addr(), tcp.source_port()),
        to: SocketAddrV4::new(header.destination_addr(), tcp.destination_port()),
        sequence: tcp.sequence_number(),
        acknowledges: tcp.ack().then(|| tcp.acknowledgment_number()),
        syn: tcp.syn(),
        fin: tcp.fin(),
        rst: tcp.rst(),
        // Within the length of an IPv4 packet.
        length: length as u32,
        payload,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TCP_AT: usize = 14 + 20;

    /// A segment of the node's, with this payload and a right checksum.
    fn frame(payload: &[u8]) -> Vec<u8> {
        let length = (40 + payload.len()) as u16;
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0]);
        frame.extend(length.to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 10, 10, 0, 0, 1]);
        // Ports, sequence, acknowledgement, header of 20 bytes with ACK and FIN.
        frame.extend([0, 80, 0x13, 0x88, 0, 0, 0, 7, 0, 0, 0, 9, 0x50, 0x11, 1, 0, 0, 0, 0, 0]);
        frame.extend(payload);
        let tcp = etherparse::TcpSlice::from_slice(&frame[TCP_AT..]).unwrap();
        let checksum = tcp.calc_checksum_ipv4([10, 0, 0, 10], [10, 0, 0, 1]).unwrap();
        frame[TCP_AT + 16..TCP_AT + 18].copy_from_slice(&checksum.to_be_bytes());
        frame
    }

    fn segment(payload: &[u8], length: u32) -> Said<'_> {
        Said::Segment(Segment {
            from: "10.0.0.10:80".parse().unwrap(),
            to: "10.0.0.1:5000".parse().unwrap(),
            sequence: 7,
            acknowledges: Some(9),
            syn: false,
            fin: true,
            rst: false,
            length,
            payload,
        })
    }

    #[test]
    fn a_segment_is_read_whole_padded_or_cut_off() {
        let mut whole = frame(b"payload");
        assert_eq!(read(&whole, false), segment(b"payload", 7));
        assert_eq!(read(&whole[..TCP_AT + 20], false), segment(b"", 7));
        whole.extend([0; 6]);
        assert_eq!(read(&whole, false), segment(b"payload", 7), "what Ethernet fills up is no payload");
        whole[16..18].fill(0);
        assert_eq!(read(&whole, false), Said::Unreadable, "too long for IPv4");
    }

    #[test]
    fn what_was_damaged_is_not_heeded_unless_its_checksum_is_yet_to_be_made() {
        let mut damaged = frame(b"payload");
        damaged[TCP_AT + 22] ^= 1;
        assert_eq!(read(&damaged, false), Said::Nothing);
        assert_eq!(read(&damaged, true), segment(b"paxload", 7));
    }

    proptest! {
        #[test]
        fn nothing_that_passes_is_a_reason_to_panic(
            payload in proptest::collection::vec(any::<u8>(), 0..80), changes in proptest::collection::vec((0usize..140, any::<u8>()), 0..6),
            cut in 0usize..140, settled: bool, noise in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut frame = frame(&payload);
            for (at, byte) in changes {
                if let Some(place) = frame.get_mut(at) { *place = byte }
            }
            for frame in [&frame[..cut.min(frame.len())], &noise] {
                if let Said::Segment(segment) = read(frame, settled) {
                    prop_assert!(segment.payload.len() <= segment.length as usize);
                }
            }
        }
    }
}
