//! A second failure: node B, which has taken node A's sessions over, fails in turn, and a third node stands by for its.
//!
//! To whoever watches it, node B is a node like any other: the sessions that it took over lie in State Boxes of its own, with
//! claim words of their own, and its own agent keeps their connections. The monitor of node B begins when the takeover of
//! node A is over. So it finds nothing there that node B has got ready and does not own.

use backdoor_core::Nanos;
use backdoor_host::clock;

use super::network::port_of_heir;
use super::roles::{taker, watch};
use super::world::World;
use super::{FailoverError, FailoverFailure};
use crate::live::parts::{Part, PartSignal};
use crate::live::reach::NodeAddress;
use crate::live::web::party::TAKER_OF_HEIR;
use crate::live::web::serve::WebOrder;
use crate::live::web::taker::{Taker, TakerOrder};

impl World {
    /// Begins to watch node B, for node C.
    pub(super) fn watch_heir(&self, failure: FailoverFailure) -> Result<Part, FailoverError> {
        let World { config, network, heirs, third, .. } = self;
        let missing = |which| FailoverError::Unexpected(format!("there is no node {which}"));
        let third = third.as_ref().ok_or_else(|| missing('C'))?;
        let agent_b = heirs.first().ok_or_else(|| missing('B'))?.agent().to_owned();
        let node = NodeAddress::Local(agent_b.clone());
        let taker = Taker {
            agent: failure.leaves_the_agent_in_reach().then_some(agent_b),
            ..taker(config, network, node, port_of_heir(0), TAKER_OF_HEIR, third.targets())
        };
        watch(config, network, taker)
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
