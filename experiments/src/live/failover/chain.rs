//! A second failure: node B, which has taken node A's sessions over, fails in turn, and a third node stands by for its.
//!
//! To whoever watches it, node B is a node like any other: the sessions that it took over lie in State Boxes of its own, with
//! claim words of their own, and its own agent keeps their connections. The monitor of node B begins when the takeover of
//! node A is over. So it finds nothing there that node B has got ready and does not own.

use std::path::{Path, PathBuf};

use backdoor_core::Nanos;
use backdoor_host::clock;

use super::network::Network;
use super::world::{PATIENCE, SERVICE, World, agent_role, begun, boxes, front, service, start};
use super::{FailoverConfig, FailoverError, FailoverFailure};
use crate::live::parts::{Part, PartSignal, Ready, Role};
use crate::live::reach::NodeAddress;
use crate::live::web::remedy::Choice;
use crate::live::web::serve::{Duty, WebOrder};
use crate::live::web::taker::{Taker, TakerOrder, TakerReport};

/// Numbers of the parties of the second takeover.
const TAKER: u32 = 101;
const TARGET: u32 = 102;

/// Node C.
pub(super) struct Third {
    /// The process that stands by there.
    pub(super) heir: Part,
    agent: PathBuf,
    _agent: Part,
}

impl Third {
    /// Adds it to the network, to stand by for the sessions of node B, whose agent has this socket.
    pub(super) fn start(config: &FailoverConfig, network: &mut Network, agent_b: &Path) -> Result<Self, FailoverError> {
        network.add_third()?;
        let namespace = network.third.as_ref().ok_or_else(|| FailoverError::Unexpected("there is no node C".into()))?;
        let mut agent_part = start(config, namespace, agent_role(config, boxes(config) + 1, None))?;
        let ready: Ready = agent_part.expect(PATIENCE)?;
        let socket = PathBuf::from(ready.socket);
        let duty = Duty::StandBy {
            party: TARGET,
            offers: offers(&socket),
            old_owner: NodeAddress::Local(agent_b.to_owned()),
            link: Network::THIRDS_LINK.into(),
            dies_after_taking: false,
        };
        let heir = begun(start(config, namespace, service(config, &socket, duty, front(config, &socket)))?)?;
        Ok(Third { heir, agent: socket, _agent: agent_part })
    }

    /// Its agent's directory.
    pub(super) fn directory(&self) -> Option<&Path> {
        self.agent.parent()
    }
}

/// Where node C takes offers: beside its agent's socket.
fn offers(agent: &Path) -> PathBuf {
    agent.with_file_name("offers")
}

impl World {
    /// Begins to watch node B, for node C.
    pub(super) fn watch_heir(&self, failure: FailoverFailure) -> Result<Part, FailoverError> {
        let World { config, network, heirs, third, .. } = self;
        let missing = |which| FailoverError::Unexpected(format!("there is no node {which}"));
        let third = third.as_ref().ok_or_else(|| missing('C'))?;
        let agent_b = heirs.first().ok_or_else(|| missing('B'))?.agent();
        let taker = Taker {
            node: NodeAddress::Local(agent_b.to_owned()),
            party: TAKER,
            targets: vec![(TARGET, offers(&third.agent))],
            port: Network::HEIRS_PORT.into(),
            agent: failure.leaves_the_agent_in_reach().then(|| agent_b.to_owned()),
            mirror: config.mirror.then(|| (network.clients_port.into(), vec![SERVICE])),
            remedy: Choice::Takeover,
            supervisor: None,
            can_reboot: false,
            poll_ns: config.poll.0,
            detector: config.detector,
            limit_ns: config.limit.0 / 4 * 3,
            halts_at: None,
        };
        let mut taker = start(config, &network.switch, Role::Taker(taker))?;
        match taker.expect(PATIENCE)? {
            TakerReport::Ready => Ok(taker),
            other => Err(FailoverError::Unexpected(format!("the second taker began with {other:?}"))),
        }
    }

    /// Makes node B fail at once; answers when it had, or by which order it is to fail by itself.
    pub(super) fn fail_heir(
        &mut self,
        failure: FailoverFailure,
        taker: &mut Part,
    ) -> Result<Result<Nanos, WebOrder>, FailoverError> {
        let signal = |world: &World, signal| world.heirs[0].standing_by.signal(signal).map(|(_, at)| at);
        Ok(Ok(match failure {
            FailoverFailure::Sigstop | FailoverFailure::Zombie => signal(self, PartSignal::Stop)?,
            FailoverFailure::Sigkill => signal(self, PartSignal::Kill)?,
            FailoverFailure::Cut => {
                let at = signal(self, PartSignal::Stop)?;
                self.network.cut_off_heir()?;
                at
            }
            FailoverFailure::Wrong => {
                let now = clock::now();
                taker.send(&TakerOrder::Suspect)?;
                now
            }
            FailoverFailure::Deadlock => return Ok(Err(WebOrder::Deadlock)),
            FailoverFailure::SessionStuck => return Ok(Err(WebOrder::Stick)),
        }))
    }
}
