//! Every interleaving of the takeover protocol within bounds, on the shipped code: `Takeover`, `Reinstatement`, claim
//! words and the old owner's rule are those of `backdoor_core::takeover`; only what surrounds them is modelled.
//!
//! Two takers, two targets, one session. The old owner lives and is arbitrarily late at each of its steps, or has died, or
//! dies; takers die at every step, for good or to start again without their memory; targets die; swaps, READs, fences,
//! offers and answers take any time, are lost before or after they had their effect, and are repeated by timers that fire
//! too early. How many of these meet in one run is bounded by [`Bounds`]. In a debug build one fault meets a dead owner
//! and none a living one; in a release build it is two and one. Safety is checked by stateright, liveness in `reach`.
//!
//! ```text
//! cargo test --release -p backdoor-core --test takeover_model -- --nocapture                  # prints numbers of states
//! cargo test --release -p backdoor-core --test takeover_model -- --nocapture --ignored        # wider bounds, minutes
//! ```
#![allow(unreachable_pub, missing_docs, reason = "modules of one test")]

mod flaws;
mod reach;
mod world;

use backdoor_core::takeover::{Claim, Outcome, Reason, Stage};
use flaws::Flaw;
use stateright::{Checker, HasDiscoveries, Model, Property};
use world::{Bounds, Event, World, target_id};

/// The protocol in its surroundings.
#[derive(Clone)]
pub struct Protocol(Bounds);

impl Model for Protocol {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        World::initial(&self.0)
    }

    fn actions(&self, world: &World, events: &mut Vec<Event>) {
        world.events(&self.0, events);
    }

    fn next_state(&self, world: &World, event: Event) -> Option<World> {
        world.after(event, &self.0)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let bounds = &self.0;
        let mut properties = vec![
            Property::always(ONE_OWNER, |_, world| one_owner(world)),
            Property::always(NOTHING_LOST, |_, world| nothing_lost(world)),
            Property::always(THE_WORD_KNOWS, |_, world| the_word_knows(world)),
            Property::always(NO_WAY_BACK, |_, world| no_way_back(world)),
            // That the bounds are wide enough to show anything.
            Property::sometimes("moved", |_, world: &World| world.ended(|end| matches!(end, Outcome::Moved { .. }))),
        ];
        if bounds.owner_alive {
            let given_back = |_: &Self, world: &World| world.ended(|end| end == Outcome::GivenBack);
            properties.push(Property::sometimes("given back", given_back));
        }
        if bounds.faults > 0 {
            properties.push(Property::sometimes(
                "taken over from a taker",
                |_, world: &World| matches!(world.claim(), Claim::Moved { epoch, .. } if epoch.0 > 1),
            ));
        }
        if bounds.faults > 0 && bounds.owner_alive {
            properties.push(Property::sometimes("claimed by nobody who knows", |_, world: &World| {
                let nobody = world.takers.iter().all(|taker| taker.machine.is_none());
                nobody && matches!(world.claim(), Claim::Claimed { .. })
            }));
        }
        if bounds.memory_may_vanish {
            properties.push(Property::sometimes("out of reach", |_, world: &World| {
                let out_of_reach = Outcome::Abandoned { why: Reason::OutOfReach(None), fenced: true };
                world.ended(|end| end == out_of_reach)
            }));
        }
        properties
    }
}

const ONE_OWNER: &str = "one owner";
const NOTHING_LOST: &str = "nothing lost";
const THE_WORD_KNOWS: &str = "the word knows";
const NO_WAY_BACK: &str = "no way back from a fence";
const STUCK: &str = "stuck";

/// At most one target serves, and none before the old owner is cut off.
fn one_owner(world: &World) -> bool {
    match world.targets.iter().filter(|target| target.serving.is_some()).count() {
        0 => true,
        1 => world.fenced,
        _ => false,
    }
}

/// Whoever serves has all that the old owner ever answered.
fn nothing_lost(world: &World) -> bool {
    world.targets.iter().filter_map(|target| target.serving).all(|version| version >= world.answered)
}

/// A target serves only what the claim word gives it; and what it gives, the target has, should it die next.
fn the_word_knows(world: &World) -> bool {
    world.targets.iter().enumerate().all(|(index, target)| {
        let given = |epoch| world.claim() == Claim::Moved { to: target_id(index), epoch };
        let mut serving = target.offers.iter().filter(|offer| offer.stage() == Stage::Serving);
        let served = serving.all(|offer| given(offer.offer().epoch));
        let has = match world.claim() {
            Claim::Moved { to, epoch } if to == target_id(index) => {
                target.offers.iter().any(|offer| offer.offer().epoch == epoch && offer.stage() != Stage::Discarded)
            }
            _ => true,
        };
        served && has
    })
}

/// An owner that is cut off has lost the session: it is never left to wait, or to believe that it serves.
fn no_way_back(world: &World) -> bool {
    !world.fenced || !matches!(world.claim(), Claim::Unclaimed | Claim::Claimed { .. })
}

const DEAD: Bounds = Bounds {
    targets: 2,
    owner_alive: false,
    wrong_suspicions: 0,
    memory_may_vanish: false,
    faults: if cfg!(debug_assertions) { 1 } else { 2 },
    flaw: None,
};
const ALIVE: Bounds =
    Bounds { owner_alive: true, wrong_suspicions: 1, faults: if cfg!(debug_assertions) { 0 } else { 1 }, ..DEAD };

fn holds(bounds: Bounds) {
    let checker = Protocol(bounds).checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    let found = reach::explore(&Protocol(bounds));
    println!("{} states: {bounds:?}", found.states);
    assert_eq!(found.states, checker.unique_state_count());
    assert_eq!(found.stuck, None, "there is no way on from here");
}

#[test]
fn an_owner_that_died_has_one_heir() {
    holds(DEAD);
}

#[test]
fn an_owner_that_is_only_late_is_left_alone_or_succeeded() {
    holds(ALIVE);
}

#[test]
fn two_takers_that_are_both_wrong_do_no_harm() {
    holds(Bounds { wrong_suspicions: 2, faults: 0, ..ALIVE });
}

#[test]
fn with_the_memory_gone_nobody_serves_wrongly_or_tries_for_ever() {
    holds(Bounds { memory_may_vanish: true, faults: 0, ..DEAD });
}

#[test]
#[ignore = "minutes"]
fn two_takers_that_are_both_wrong_meet_a_fault() {
    holds(Bounds { wrong_suspicions: 2, faults: 1, ..ALIVE });
}

#[test]
#[ignore = "minutes"]
fn the_memory_goes_besides_a_fault() {
    holds(Bounds { memory_may_vanish: true, faults: 1, ..DEAD });
}

/// Whether this goes wrong in a flawed world: one of the properties, or that there is always a way on.
fn goes_wrong(flaw: Flaw, bounds: Bounds, what: &'static str) -> bool {
    let model = Protocol(Bounds { flaw: Some(flaw), ..bounds });
    if what == STUCK {
        return reach::explore(&model).stuck.is_some();
    }
    let found = HasDiscoveries::AllOf([what].into());
    // Some flaws leave no end of states: claims that are lost are made anew for ever.
    let checker = model.checker().threads(2).finish_when(found).target_state_count(1_000_000).spawn_bfs().join();
    checker.discovery(what).is_some()
}

#[test]
fn every_assumption_is_needed() {
    let alive = Bounds { faults: 0, ..ALIVE };
    let dead = Bounds { faults: 1, ..DEAD };
    for (flaw, bounds, what) in [
        (Flaw::FenceLies, alive, ONE_OWNER),
        (Flaw::FenceAnswersFirst, alive, ONE_OWNER),
        (Flaw::FenceByAddress, dead, STUCK),
        (Flaw::SwapInTwoSteps, dead, ONE_OWNER),
        (Flaw::EarlierRead, alive, NOTHING_LOST),
        (Flaw::AnswerBeforeCommit, alive, NOTHING_LOST),
        (Flaw::ServesUnasked, dead, ONE_OWNER),
    ] {
        assert!(goes_wrong(flaw, bounds, what), "{flaw:?} does not show in {what:?}");
    }
}
