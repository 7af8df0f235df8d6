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
