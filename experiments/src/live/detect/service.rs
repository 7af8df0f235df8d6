//! The service of a node: a worker, and the clients that keep its sessions busy.

use std::net::SocketAddr;

use backdoor_sim::streams::Streams;
use rand::Rng;

use super::cast::{NodeParts, PATIENCE};
use super::clients::Clients;
use super::verify::States;
use super::{DetectConfig, DetectError};
use crate::config::Span;
use crate::live::parts::{Part, Report, Role};

/// Fields are dropped in this order: clients notice at once that a worker has ended.
pub(in crate::live) struct Service {
    pub(super) worker: Part,
    pub(super) clients: Clients,
    pub(super) states: States,
}

impl Service {
    /// Starts a worker, and connects its clients.
    pub(in crate::live) fn start(
        config: &DetectConfig,
        node: &NodeParts,
        streams: &Streams,
    ) -> Result<Self, DetectError> {
        let states = States { seed: streams.stream("states").next_u64(), bytes: config.state_bytes };
        let role = Role::Worker {
            socket: node.socket.clone(),
            deadline: Span(config.deadline),
            state_bytes: config.state_bytes,
            seed: states.seed,
            stuck_spins: config.stuck_spins,
            queues: config.queues,
            listen: node.place.host(),
        };
        let mut worker = node.place.start(role)?;
        let Report::Ready { port } = worker.expect(PATIENCE)? else {
            return Err(DetectError::Config("the worker failed before it was told to".into()));
        };
        let address = SocketAddr::new(node.place.host(), port);
        let clients = Clients::connect(address, config.sessions, streams).map_err(DetectError::Client)?;
        Ok(Service { worker, clients, states })
    }

    /// Whether every client has been answered once.
    pub(in crate::live) fn all_served(&self) -> bool {
        self.clients.all_served()
    }
}
