//! What can be offered is: to each target all at once, and the sessions of one address to the same.

use std::collections::HashMap;
use std::net::SocketAddrV4;

use backdoor_core::takeover::{Action, Offer, PartyId};
use backdoor_core::transport::Transport;
use backdoor_host::clock;

use super::super::milestone::Milestone;
use super::super::offers::{OfferHead, Offered};
use super::super::party;
use super::super::rescued::Rescued;
use super::{Batch, Memory, Rescue, Surroundings};

impl<T: Transport, S: Surroundings> Rescue<'_, T, S> {
    /// Offers what can be offered, to each target all at once.
    pub(super) fn offer_all(&mut self) {
        let mut to_offer = std::mem::take(&mut self.to_offer);
        if to_offer.is_empty() {
            return;
        }
        self.surroundings.reached(Milestone::Offering);
        self.aim(&mut to_offer);
        // Of those with the same address, for that comes with the last of them; whoever has no client is not waited for.
        let mut all: HashMap<Option<SocketAddrV4>, u64> = HashMap::new();
        for rescued in self.rescued.iter().filter(|rescued| rescued.goes_on() && rescued.has_client) {
            *all.entry(rescued.address).or_default() += 1;
        }
        let mut batches: Vec<(Vec<usize>, Batch<'_>)> = Vec::new();
        let mut too_large = Vec::new();
        for (at, to, offer) in to_offer {
            let rescued = &self.rescued[at];
            let all = all.get(&rescued.address).copied().unwrap_or(0);
            let one = Offered {
                head: head(self.plan.memory, rescued, &offer, all),
                payload: &rescued.payload,
                queues: rescued.queues.as_ref(),
            };
            match (one.too_large(), batches.iter_mut().find(|(_, batch)| batch.to == to)) {
                (Some(why), _) => too_large.push((at, to, why)),
                (None, Some((members, batch))) => {
                    members.push(at);
                    batch.offered.push(one);
                }
                (None, None) => batches.push((vec![at], Batch { to, offered: vec![one] })),
            }
        }
        for (_, batch) in &mut batches {
            for (more, one) in batch.offered.iter_mut().rev().enumerate() {
                one.head.more = more as u32;
            }
        }
        let (members, batches): (Vec<Vec<usize>>, Vec<Batch<'_>>) = batches.into_iter().unzip();
        let made = self.surroundings.offer(&batches);
        let targets: Vec<PartyId> = batches.iter().map(|batch| batch.to).collect();
        drop(batches);
        too_large.into_iter().for_each(|(at, to, why)| self.decline(at, to, why));
        for ((members, to), made) in members.into_iter().zip(targets).zip(made) {
            for at in members {
                match &made {
                    Ok(()) => self.rescued[at].offered(to),
                    Err(why) => self.decline(at, to, format!("{}: {why}", party::name(to.number()))),
                }
            }
        }
        self.surroundings.reached(Milestone::Offered);
    }

    /// Sees to it that what is offered for the first time goes where the sessions with the same address go.
    fn aim(&mut self, to_offer: &mut [(usize, PartyId, Offer)]) {
        let Rescue { rescued, aims, plan, .. } = self;
        let going_on = rescued.iter().filter(|rescued| rescued.goes_on() && rescued.has_client);
        aims.decide(going_on.filter_map(|rescued| rescued.address), &plan.targets);
        for (at, to, offer) in to_offer {
            let rescued = &mut rescued[*at];
            let order = rescued.address.and_then(|address| aims.of(address));
            let (Some(order), false) = (order, std::mem::replace(&mut rescued.is_aimed, true)) else { continue };
            let mut actions = Vec::new();
            rescued.takeover.aim(clock::now(), order, &mut actions);
            if let Some(Action::Offer { to: first, offer: same }) = actions.pop() {
                (*to, *offer) = (first, same);
            }
        }
    }
}

/// What is said of an offer, of `all` that are expected at the session's address.
fn head(memory: Memory, rescued: &Rescued, offer: &Offer, all: u64) -> OfferHead {
    let record = &rescued.session.record;
    let claim = record.claim_word();
    let mut head = OfferHead::new(offer, memory.claims, claim, &record.name.to_string(), record.deadline.0);
    (head.agent, head.all) = (memory.agent, all);
    head
}
