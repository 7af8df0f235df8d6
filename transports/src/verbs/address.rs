//! What two ends tell each other to be connected, as plain data.

use backdoor_core::transport::{RegionKey, RemoteSlice, Rights};
use backdoor_core::words::WORD_BYTES;
use serde::{Deserialize, Serialize};

/// The kind of network that a port is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// RoCE v2: peers are found by their IP address.
    Ethernet,
    /// InfiniBand: peers are found by their local identifier.
    InfiniBand,
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Link::Ethernet => "Ethernet (RoCE v2)",
            Link::InfiniBand => "InfiniBand",
        })
    }
}

/// One end of a connection to be: what its peer must know of a queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The kind of network.
    pub link: Link,
    /// Global identifier of the port; on RoCE v2 an IPv6 address, or an IPv4 address in IPv6 form.
    pub gid: [u8; 16],
    /// Local identifier of the port; 0 on Ethernet.
    pub lid: u16,
    /// Largest packet, in bytes.
    pub mtu: u16,
    /// Number of the queue pair: 24 bits.
    pub queue_pair: u32,
    /// Number of the first packet that it sends: 24 bits.
    pub first_packet: u32,
    /// READs and compare-and-swaps that it serves at once.
    pub reads: u8,
}

/// A region of the node, as its network card knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteRegion {
    /// The key under which hooks name it.
    pub key: u32,
    /// The card's key.
    pub rkey: u32,
    /// Where its first word lies for the card.
    pub address: u64,
    /// Its length in words.
    pub words: u64,
    /// What the card lets remote operations do; see [`Rights::bits`].
    pub rights: u8,
}

impl RemoteRegion {
    /// The key under which hooks name it.
    pub fn region_key(&self) -> RegionKey {
        RegionKey(self.key)
    }

    /// What the node says that remote operations may do; `None` if it says nonsense.
    pub fn rights(&self) -> Option<Rights> {
        Rights::from_bits(self.rights)
    }

    /// Whether the slice lies inside.
    pub(super) fn holds(&self, slice: RemoteSlice) -> bool {
        slice.offset.checked_add(slice.words).is_some_and(|end| end <= self.words)
    }

    /// The card's address of a word; `None` if there is no such address.
    pub(super) fn address_of(&self, offset: u64) -> Option<u64> {
        self.address.checked_add(offset.checked_mul(WORD_BYTES as u64)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_never_wrap_around() {
        let region = RemoteRegion { key: 1, rkey: 2, address: 0x7000, words: 8, rights: 1 };
        assert_eq!(region.address_of(8), Some(0x7040));
        for offset in [1 << 61, u64::MAX, u64::MAX / 8] {
            assert_eq!(region.address_of(offset), None, "{offset}");
        }
        let slice = |offset, words| RemoteSlice { key: RegionKey(1), offset, words };
        assert!(region.holds(slice(0, 8)) && region.holds(slice(8, 0)));
        assert!(!region.holds(slice(u64::MAX, 2)) && !region.holds(slice(7, 2)));
    }
}
