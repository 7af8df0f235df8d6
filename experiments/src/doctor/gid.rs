//! Which of a port's addresses to use.
//!
//! On Ethernet a port has an entry in its GID table for each of its addresses and each version of RoCE, in an order
//! that depends on which address was configured first. An index that is right on one machine is wrong on the next, so
//! it is chosen by what the entry is.

use std::net::Ipv6Addr;

use serde::{Serialize, Serializer};

/// What carries the RDMA packets of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkLayer {
    /// Ethernet: RoCE.
    Ethernet,
    /// InfiniBand.
    Infiniband,
}

/// What kind of packets an entry stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum GidType {
    /// InfiniBand, or RoCE v1: the kernel's name is the same.
    #[serde(rename = "IB/RoCE v1")]
    IbOrRoceV1,
    /// RoCE v2, in UDP packets that routers forward.
    #[serde(rename = "RoCE v2")]
    RoceV2,
}

impl GidType {
    /// The kernel's name for it.
    pub fn name(self) -> &'static str {
        match self {
            GidType::IbOrRoceV1 => "IB/RoCE v1",
            GidType::RoceV2 => "RoCE v2",
        }
    }

    /// From the kernel's name; `None` for one that nobody knows yet.
    pub fn parse(name: &str) -> Option<Self> {
        [GidType::IbOrRoceV1, GidType::RoceV2].into_iter().find(|kind| kind.name() == name)
    }
}

/// An entry of a port's GID table that is in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GidEntry {
    /// Its place in the table.
    pub index: u32,
    /// The address.
    #[serde(serialize_with = "as_text")]
    pub gid: Ipv6Addr,
    /// What kind of packets it stands for, if the kernel says so in a way that we know.
    #[serde(rename = "type")]
    pub kind: Option<GidType>,
    /// The network device that the address belongs to.
    pub netdev: Option<String>,
}

/// The entry to use for connections. On Ethernet: RoCE v2, an IPv4 address before a routable IPv6 address before a
/// link-local one, the lowest index among equals. On InfiniBand: index 0.
pub fn choose(link_layer: LinkLayer, entries: &[GidEntry]) -> Option<&GidEntry> {
    match link_layer {
        LinkLayer::Infiniband => entries.iter().find(|entry| entry.index == 0),
        LinkLayer::Ethernet => entries
            .iter()
            .filter(|entry| entry.kind == Some(GidType::RoceV2))
            .min_by_key(|entry| (reach(entry.gid), entry.index)),
    }
}

/// Smaller is better.
fn reach(gid: Ipv6Addr) -> u8 {
    match gid {
        _ if gid.to_ipv4_mapped().is_some() => 0,
        _ if gid.is_unicast_link_local() => 2,
        _ => 1,
    }
}

fn as_text<S: Serializer>(gid: &Ipv6Addr, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(gid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: Option<GidType> = Some(GidType::IbOrRoceV1);
    const V2: Option<GidType> = Some(GidType::RoceV2);

    fn entry(index: u32, gid: &str, kind: Option<GidType>) -> GidEntry {
        GidEntry { index, gid: gid.parse().unwrap(), kind, netdev: None }
    }

    fn chosen(link_layer: LinkLayer, entries: &[GidEntry]) -> Option<u32> {
        choose(link_layer, entries).map(|entry| entry.index)
    }

    #[test]
    fn on_ethernet_the_address_that_reaches_farthest_in_roce_v2() {
        let mut table = vec![
            entry(0, "fe80::1", V1),
            entry(1, "fe80::1", V2),
            entry(2, "::ffff:10.0.0.5", V1),
            entry(4, "2001:db8::5", V2),
            entry(7, "::ffff:10.0.0.6", V2),
            entry(5, "::ffff:10.0.0.5", V2),
            entry(6, "::ffff:10.0.0.7", None),
        ];
        assert_eq!(chosen(LinkLayer::Ethernet, &table), Some(5));
        table.retain(|entry| ![5, 7].contains(&entry.index));
        assert_eq!(chosen(LinkLayer::Ethernet, &table), Some(4));
        table.retain(|entry| entry.index != 4);
        assert_eq!(chosen(LinkLayer::Ethernet, &table), Some(1));
        table.retain(|entry| entry.index != 1);
        assert_eq!(chosen(LinkLayer::Ethernet, &table), None);
    }

    #[test]
    fn on_infiniband_the_first() {
        let table = [entry(1, "fec0::1", V1), entry(0, "fe80::1", V1)];
        assert_eq!(chosen(LinkLayer::Infiniband, &table), Some(0));
        assert_eq!(chosen(LinkLayer::Infiniband, &table[..1]), None);
        assert_eq!(chosen(LinkLayer::Infiniband, &[]), None);
    }

    #[test]
    fn types_have_the_names_of_the_kernel() {
        assert_eq!(GidType::parse("RoCE v2"), V2);
        assert_eq!(GidType::parse("IB/RoCE v1"), V1);
        assert_eq!(GidType::parse("RoCE v3"), None);
    }
}
