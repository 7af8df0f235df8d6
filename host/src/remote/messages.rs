//! What a monitor and an agent on different machines say to each other over their [`Channel`](super::Channel).

use std::collections::BTreeSet;

use backdoor_core::words::WORD_BYTES;
use backdoor_transports::verbs::{Endpoint, RemoteRegion};
use serde::{Deserialize, Serialize};

/// Longest name of a monitor, in bytes; the rest is cut off.
pub const MAX_NAME_BYTES: usize = 64;
/// Most regions of one node.
pub const MAX_REGIONS: usize = 32;

/// What a monitor asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Connect a queue pair of yours to mine.
    Connect {
        /// The monitor's queue pair.
        endpoint: Endpoint,
        /// The machine that the monitor runs on, for people.
        monitor: String,
    },
}

/// What an agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// The node's queue pair is ready, and stays so until this connection is closed.
    Connected {
        /// The node's queue pair.
        endpoint: Endpoint,
        /// Which start of the agent this is.
        incarnation: u64,
        /// What can be reached through it. A region that was revoked is not among them.
        regions: Vec<RemoteRegion>,
    },
    /// There is none.
    Refused {
        /// For programs.
        reason: Reason,
        /// For people.
        message: String,
    },
}

/// Why an agent refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It serves as many monitors as it may.
    TooManyMonitors,
    /// The two network cards are on different kinds of network.
    OtherLink,
    /// The monitor described its queue pair by values that can't be.
    Invalid,
    /// The node's network card failed.
    Device,
}

/// Checks what an agent says of its regions: a card would refuse nonsense, but whoever computes with it may not.
pub(crate) fn check_regions(regions: &[RemoteRegion]) -> Result<(), String> {
    if regions.len() > MAX_REGIONS {
        return Err(format!("it described {} regions; at most {MAX_REGIONS} are possible", regions.len()));
    }
    let mut keys = BTreeSet::new();
    for region in regions {
        let bytes = region.words.checked_mul(WORD_BYTES as u64);
        let end = bytes.and_then(|bytes| region.address.checked_add(bytes));
        // A card compares and swaps words only where words are.
        let is_aligned = region.address.is_multiple_of(WORD_BYTES as u64);
        if end.is_none() || !is_aligned || region.rights().is_none() || !keys.insert(region.key) {
            return Err(format!("it described an impossible region: {region:?}"));
        }
    }
    Ok(())
}

/// The name of this machine.
pub(crate) fn machine_name() -> String {
    let system = rustix::system::uname();
    let name = system.nodename().to_string_lossy();
    let end = (0..=name.len().min(MAX_NAME_BYTES)).rev().find(|end| name.is_char_boundary(*end));
    name[..end.unwrap_or(0)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::MAX_MESSAGE_BYTES;
    use backdoor_transports::verbs::Link;

    fn region(key: u32) -> RemoteRegion {
        RemoteRegion { key, rkey: u32::MAX, address: u64::MAX - 4095, words: 8, rights: 1 }
    }

    #[test]
    fn regions_that_can_not_be_are_refused() {
        assert_eq!(check_regions(&[region(1), region(2)]), Ok(()));
        assert!(check_regions(&[region(1), region(1)]).is_err(), "one key twice");
        assert!(check_regions(&[RemoteRegion { rights: 8, ..region(1) }]).is_err());
        assert!(check_regions(&[RemoteRegion { address: 0x7004, ..region(1) }]).is_err(), "between two words");
        for words in [512, 1 << 61, u64::MAX] {
            assert!(check_regions(&[RemoteRegion { words, ..region(1) }]).is_err(), "{words}");
        }
        let many: Vec<_> = (0..MAX_REGIONS as u32 + 1).map(region).collect();
        assert!(check_regions(&many).is_err());
    }

    #[test]
    fn the_longest_messages_fit_and_come_back() {
        let endpoint = Endpoint {
            link: Link::Ethernet,
            gid: [255; 16],
            lid: u16::MAX,
            mtu: 4096,
            queue_pair: u32::MAX,
            first_packet: u32::MAX,
            reads: 255,
        };
        let regions = (0..MAX_REGIONS as u32).map(|key| region(u32::MAX - key)).collect();
        let answer = Answer::Connected { endpoint, incarnation: u64::MAX, regions };
        let text = serde_json::to_vec(&answer).unwrap();
        assert!(text.len() < MAX_MESSAGE_BYTES, "{}", text.len());
        assert_eq!(serde_json::from_slice::<Answer>(&text).unwrap(), answer);
        let request = Request::Connect { endpoint, monitor: "\u{1}".repeat(MAX_NAME_BYTES) };
        assert!(serde_json::to_vec(&request).unwrap().len() < MAX_MESSAGE_BYTES);
    }

    #[test]
    fn this_machine_has_a_name() {
        assert!((1..=MAX_NAME_BYTES).contains(&machine_name().len()));
    }
}
