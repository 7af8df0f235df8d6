//! Frames that tell the neighbours where an IPv4 address is: ARP over Ethernet (RFC 826).

use std::net::Ipv4Addr;

use super::links::HardwareAddress;

/// Ethernet header and ARP packet, without the padding that the kernel or the card adds.
pub(super) const FRAME_BYTES: usize = 14 + 28;

const BROADCAST: HardwareAddress = HardwareAddress([0xff; 6]);
const NOBODY: HardwareAddress = HardwareAddress([0; 6]);

/// Protocol numbers of Ethernet.
pub(super) const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;

/// RFC 826: `ar$hrd`, and the two of `ar$op`.
const ETHERNET: u16 = 1;
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// Announces that `address` is at `hardware`, in both forms: some neighbours heed only the one, some only the other.
///
/// The request is the announcement of RFC 5227, section 2.3: sender and target are the address, and the target's hardware
/// address is zero. In the reply it is the sender's (RFC 5944, section 4.6); Linux takes no other for gratuitous.
pub(super) fn announcements(address: Ipv4Addr, hardware: HardwareAddress) -> [[u8; FRAME_BYTES]; 2] {
    let is_at = |operation, target| frame(operation, address, hardware, target, address);
    [is_at(REQUEST, NOBODY), is_at(REPLY, hardware)]
}

/// Asks who has `address`, on behalf of nobody yet, so that no neighbour learns anything (RFC 5227, section 1.1).
pub(super) fn probe(address: Ipv4Addr, hardware: HardwareAddress) -> [u8; FRAME_BYTES] {
    frame(REQUEST, Ipv4Addr::UNSPECIFIED, hardware, NOBODY, address)
}

/// Who says where it is, in any frame of ARP over Ethernet.
pub(super) fn sender(frame: &[u8; FRAME_BYTES]) -> Option<(Ipv4Addr, HardwareAddress)> {
    let is_arp = frame[12..14] == ARP.to_be_bytes() && frame[14..16] == ETHERNET.to_be_bytes();
    let [hardware, address] = [frame.get(22..28)?, frame.get(28..32)?];
    let address: [u8; 4] = address.try_into().ok()?;
    is_arp.then_some((address.into(), HardwareAddress(hardware.try_into().ok()?)))
}

/// Who asks for which address to have it, if the frame is a [`probe`].
pub(super) fn prober(frame: &[u8; FRAME_BYTES]) -> Option<(Ipv4Addr, HardwareAddress)> {
    let (_, hardware) = sender(frame).filter(|(address, _)| address.is_unspecified())?;
    let asked: [u8; 4] = frame.get(38..42)?.try_into().ok()?;
    (frame[20..22] == REQUEST.to_be_bytes()).then_some((asked.into(), hardware))
}

/// Broadcast: `address` is at `hardware`; about `asked`.
fn frame(
    operation: u16,
    address: Ipv4Addr,
    hardware: HardwareAddress,
    target: HardwareAddress,
    asked: Ipv4Addr,
) -> [u8; FRAME_BYTES] {
    let mut frame = [0; FRAME_BYTES];
    let mut rest = frame.as_mut_slice();
    let mut put = |field: &[u8]| {
        let (place, after) = std::mem::take(&mut rest).split_at_mut(field.len());
        place.copy_from_slice(field);
        rest = after;
    };
    put(&BROADCAST.0);
    put(&hardware.0);
    put(&ARP.to_be_bytes());
    put(&ETHERNET.to_be_bytes());
    put(&IPV4.to_be_bytes());
    put(&[6, 4]);
    put(&operation.to_be_bytes());
    put(&hardware.0);
    put(&address.octets());
    put(&target.0);
    put(&asked.octets());
    debug_assert!(rest.is_empty());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_laid_out_as_the_rfcs_say() {
        let hardware = HardwareAddress([0x02, 0x11, 0x22, 0x33, 0x44, 0x55]);
        let [request, reply] = announcements(Ipv4Addr::new(10, 77, 0, 100), hardware);
        let fields: [(&str, std::ops::Range<usize>, &[u8]); 11] = [
            ("Ethernet: to everybody", 0..6, &[0xff; 6]),
            ("Ethernet: from", 6..12, &[0x02, 0x11, 0x22, 0x33, 0x44, 0x55]),
            ("Ethernet: ARP", 12..14, &[0x08, 0x06]),
            ("hrd: Ethernet", 14..16, &[0, 1]),
            ("pro: IPv4", 16..18, &[0x08, 0x00]),
            ("hln, pln", 18..20, &[6, 4]),
            ("op: request", 20..22, &[0, 1]),
            ("sha", 22..28, &[0x02, 0x11, 0x22, 0x33, 0x44, 0x55]),
            ("spa", 28..32, &[10, 77, 0, 100]),
            ("tha: zero", 32..38, &[0; 6]),
            ("tpa", 38..42, &[10, 77, 0, 100]),
        ];
        for (name, range, bytes) in fields {
            assert_eq!(&request[range], bytes, "{name}");
        }
        let mut expected = request;
        expected[20..22].copy_from_slice(&[0, 2]);
        expected[32..38].copy_from_slice(&hardware.0);
        assert_eq!(reply, expected);
    }

    #[test]
    fn who_says_where_it_is_is_read_back_and_a_probe_says_nothing() {
        let (address, hardware) = (Ipv4Addr::new(10, 77, 0, 100), HardwareAddress([2, 1, 1, 1, 1, 1]));
        for said in announcements(address, hardware) {
            assert_eq!((sender(&said), prober(&said)), (Some((address, hardware)), None));
        }
        let probe = probe(address, hardware);
        assert_eq!(sender(&probe), Some((Ipv4Addr::UNSPECIFIED, hardware)));
        assert_eq!(prober(&probe), Some((address, hardware)));
        assert_eq!((sender(&[0; FRAME_BYTES]), prober(&[0; FRAME_BYTES])), (None, None));
    }
}
