//! The nodes that stand by: each an agent and a process of the service, or the two of a pair, in a network namespace of its
//! own. They are named B, C, and so on.

use std::path::{Path, PathBuf};

use super::disturbance::Accident;
use super::network::Standby;
use super::roles::{begun, front, links, service, start};
use super::{FailoverConfig, FailoverError, ServiceKind};
use crate::live::parts::{Part, PartSignal};
use crate::live::reach::NodeAddress;
use crate::live::web::party::{HEIRS, WORKER_OF_HEIR, letter};
use crate::live::web::serve::{Duty, ServicePart};

/// A node that stands by, without its agent.
pub(super) struct Heir {
    /// B, C, and so on.
    pub(super) name: char,
    /// Its service.
    pub(super) standing_by: Part,
    /// Its worker.
    worker: Option<Part>,
    number: usize,
    agent: PathBuf,
    old_owner: NodeAddress,
}

impl Heir {
    /// Number `number`, from 0, in its place in the network, whose agent has this socket; for sessions of `old_owner`.
    pub(super) fn start(
        config: &FailoverConfig,
        number: usize,
        place: &Standby,
        agent: &Path,
        old_owner: &NodeAddress,
    ) -> Result<Self, FailoverError> {
        let stands_by = |party, offers, part, dies_after_taking| {
            let (link, old_owner) = (place.link.clone(), old_owner.clone());
            let duty = Duty::StandBy { party, offers, old_owner, link, dies_after_taking };
            begun(start(config, &place.namespace, service(config, agent, duty, part))?)
        };
        let worker = (config.service == ServiceKind::Pair).then(|| {
            stands_by(WORKER_OF_HEIR, worker_offers(agent), ServicePart::Worker { links: links(agent) }, false)
        });
        let worker = worker.transpose()?;
        let dies = number == 0 && config.is_disturbed_by(Accident::HeirDiesTaking);
        Ok(Heir {
            name: letter(number),
            standing_by: stands_by(HEIRS[number], offers(agent), front(config, agent), dies)?,
            worker,
            number,
            agent: agent.to_owned(),
            old_owner: old_owner.clone(),
        })
    }

    /// The same again, when its service has been killed.
    pub(super) fn start_anew(&mut self, config: &FailoverConfig, place: &Standby) -> Result<(), FailoverError> {
        self.standing_by.signal(PartSignal::Kill)?;
        *self = Heir::start(config, self.number, place, &self.agent, &self.old_owner)?;
        Ok(())
    }

    /// The socket of its node's agent.
    pub(super) fn agent(&self) -> &Path {
        &self.agent
    }

    /// Its number among the parties.
    pub(super) fn party(&self) -> u32 {
        HEIRS[self.number]
    }

    /// Where it takes offers, by its numbers among the parties.
    pub(super) fn targets(&self) -> Vec<(u32, PathBuf)> {
        let worker = self.worker.as_ref().map(|_| (WORKER_OF_HEIR, worker_offers(&self.agent)));
        [(self.party(), offers(&self.agent))].into_iter().chain(worker).collect()
    }
}

/// Where offers are taken: beside the agent's socket, whose directory goes when the agent ends.
fn offers(agent: &Path) -> PathBuf {
    agent.with_file_name("offers")
}

/// The longest name of a socket beside an agent's.
pub(super) const LONGEST_SOCKET_NAME: &str = "worker-offers";

/// Where the worker does.
fn worker_offers(agent: &Path) -> PathBuf {
    agent.with_file_name(LONGEST_SOCKET_NAME)
}
