//! To which node a session goes. An address is at one node, so all sessions with one address go to the same; core's
//! [`spread_groups`] decides to which, by how many sessions the addresses have.
//!
//! Takers that decide by themselves may count differently, and a target that is late may take what was offered to the next one
//! meanwhile. So a target looks, too, before it takes a session, whether its address is anybody else's.

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::sync::Arc;

use backdoor_core::channels::{Channel, SessionPayload};
use backdoor_core::recovery::policy::{Group, Room, spread_groups};
use backdoor_core::takeover::PartyId;
use backdoor_host::serve::CLIENT;

/// The address at which a session's client finds it, if the payload of its State Box tells.
pub(super) fn client_address(payload: &SessionPayload<'_>) -> Option<SocketAddrV4> {
    match payload.channel(CLIENT)? {
        Channel::Tcp(state) => Some(state.birth.local),
        Channel::Ipc(_) => None,
    }
}

/// Which targets the sessions of each address are offered to, the first one first.
#[derive(Debug, Default)]
pub(super) struct Aims(HashMap<SocketAddrV4, Arc<[PartyId]>>);

impl Aims {
    /// Decides for addresses for which it has not been decided yet, given the address of every session. How much room targets
    /// have is not known before they are asked, so it counts as enough.
    pub(super) fn decide(&mut self, addresses: impl Iterator<Item = SocketAddrV4>, targets: &[PartyId]) {
        let mut sessions: HashMap<SocketAddrV4, u64> = HashMap::new();
        addresses.for_each(|address| *sessions.entry(address).or_default() += 1);
        if sessions.keys().all(|address| self.0.contains_key(address)) {
            return;
        }
        let all: u64 = sessions.values().sum();
        let targets: Vec<Room> = targets.iter().map(|party| Room { party: *party, free: all }).collect();
        let (addresses, groups): (Vec<SocketAddrV4>, Vec<Group>) =
            sessions.into_iter().map(|(address, sessions)| (address, Group { key: key(address), sessions })).unzip();
        for (address, order) in addresses.into_iter().zip(spread_groups(&groups, &targets)) {
            self.0.entry(address).or_insert_with(|| order.into());
        }
    }

    /// What was decided.
    pub(super) fn of(&self, address: SocketAddrV4) -> Option<Arc<[PartyId]>> {
        self.0.get(&address).cloned()
    }
}

/// The same for every taker.
fn key(address: SocketAddrV4) -> u64 {
    u64::from(address.ip().to_bits()) << 16 | u64::from(address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u8) -> SocketAddrV4 {
        SocketAddrV4::new([10, 0, 0, number].into(), 80)
    }

    #[test]
    fn addresses_are_spread_over_targets_and_stay_where_they_are() {
        let targets = [5, 6].map(|number| PartyId::new(number).unwrap());
        let mut aims = Aims::default();
        aims.decide([11, 10, 11, 12, 11].map(at).into_iter(), &targets);
        let of = |aims: &Aims, number| aims.of(at(number)).unwrap()[0].number();
        assert_eq!([10, 11, 12].map(|number| of(&aims, number)), [6, 5, 6]);
        // By their numbers, others would be elsewhere now.
        aims.decide([10, 10, 10, 10, 11, 12, 13].map(at).into_iter(), &targets);
        assert_eq!([10, 11, 12].map(|number| of(&aims, number)), [6, 5, 6]);
        assert!(aims.of(at(13)).is_some() && aims.of(at(9)).is_none());
    }
}
