//! All connections of a service.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;

use super::connection::Connection;
use super::{Limits, MirrorError, Mirrored, Segment};

/// The connections between clients and the service at one address.
#[derive(Debug)]
pub struct Streams {
    service: SocketAddrV4,
    limits: Limits,
    connections: BTreeMap<SocketAddrV4, Connection>,
    /// Segments so far.
    passed: u64,
}

impl Streams {
    /// None yet, of the service at this address.
    pub fn new(service: SocketAddrV4, limits: Limits) -> Self {
        Streams { service, limits, connections: BTreeMap::new(), passed: 0 }
    }

    /// A segment passes. Those that are not about the service are not looked at. A connection is known from the first that
    /// the node says on it: what clients make up takes no memory.
    pub fn pass(&mut self, segment: &Segment<'_>) {
        self.passed += 1;
        let (client, from_node) = match (segment.from, segment.to) {
            (from, to) if to == self.service => (from, false),
            (from, to) if from == self.service => (to, true),
            _ => return,
        };
        if from_node && let Some(acknowledges) = segment.acknowledges.filter(|_| !segment.rst) {
            let known = self.connections.get(&client);
            if known.is_none_or(|known| known.is_succeeded_by(segment, acknowledges)) {
                self.begin(client, Connection::of(segment, acknowledges));
            }
        }
        let room = self.room();
        let Some(connection) = self.connections.get_mut(&client) else { return };
        connection.heard = self.passed;
        if from_node {
            connection.node_says(segment, room);
        } else {
            connection.client_says(segment, room);
        }
        if connection.over {
            connection.input.shrink(0);
        }
    }

    /// Segments passed unseen, at any time up to now.
    pub fn missed(&mut self) {
        self.connections.values_mut().for_each(Connection::missed);
    }

    /// Where the connection of a client stands, with its input from the byte with number `consumed` on. To be asked when the
    /// node is cut off and all that passed before is [in](Self::pass).
    ///
    /// # Errors
    /// [`MirrorError`]: it is not known exactly.
    pub fn queues(&self, client: SocketAddrV4, consumed: u32) -> Result<Mirrored, MirrorError> {
        self.connections.get(&client).ok_or(MirrorError::Unknown)?.queues(consumed)
    }

    fn begin(&mut self, client: SocketAddrV4, connection: Connection) {
        self.connections.insert(client, connection);
        if self.connections.len() > self.limits.connections.max(1) {
            let others = self.connections.iter().filter(|(other, _)| **other != client);
            let least = others.min_by_key(|(_, connection)| (!connection.over, connection.heard));
            if let Some(least) = least.map(|(other, _)| *other) {
                self.connections.remove(&least);
            }
        }
        let room = self.room();
        if room < self.limits.connection_bytes {
            self.connections.values_mut().for_each(|connection| connection.input.shrink(room));
        }
    }

    /// Bytes that each connection may keep.
    fn room(&self) -> usize {
        self.limits.connection_bytes.min(self.limits.bytes / self.connections.len().max(1))
    }
}

#[cfg(all(test, not(loom)))]
#[path = "tests.rs"]
mod tests;
