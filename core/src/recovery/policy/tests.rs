use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::takeover::PartyId;

fn party(number: u32) -> PartyId {
    PartyId::new(number).unwrap()
}

fn rooms(free: &[u64]) -> Vec<Room> {
    free.iter().enumerate().map(|(at, free)| Room { party: party(at as u32), free: *free }).collect()
}

/// An application with ten sessions, alone on its node, hangs; somebody has room.
fn situation(targets: &[Room]) -> Situation<'_> {
    Situation {
        level: FailureLevel::Application,
        application: Some(Slot(7)),
        reach: Reach::Agent,
        affected: 10,
        of_application: 10,
        of_node: 10,
        not_kept: 0,
        stateless: 0,
        targets,
        can_reboot: false,
        restarts: 0,
        exclusions: 0,
    }
}

fn sure_takeovers() -> Policy {
    let policy = Policy::default();
    Policy { takeover: Price { failing: 0.0, ..policy.takeover }, ..policy }
}

fn remedies(decision: &Decision) -> Vec<Remedy> {
    decision.steps.iter().map(|step| step.remedy).collect()
}

#[test]
fn the_formula_by_hand() {
    let targets = rooms(&[20]);
    let policy = Policy {
        restart: Price { fixed: Nanos::from_millis(20), each: Nanos::from_millis(1), failing: 0.1 },
        takeover: Price { fixed: Nanos::from_millis(100), each: Nanos::from_millis(2), failing: 0.0 },
        bystander: 0.5,
        loss: Nanos::from_secs(100),
        ..Policy::default()
    };
    // 4 of the application's 9 sessions are silent; 11 more are another application's.
    let situation = Situation { affected: 4, of_application: 9, of_node: 20, ..situation(&targets) };
    let decision = policy.decide(&situation);
    // The restart: 20 ms + 1 ms · (9 + 1) / 2 for 4 who wait already and 5 who need not have.
    let restart = 0.025 * (4.0 + 0.5 * 5.0);
    // The takeover: 100 ms + 2 ms · (20 + 1) / 2; 9 wait by now, 11 need not have.
    let takeover = 0.121 * (9.0 + 0.5 * 11.0);
    assert_eq!(remedies(&decision), [Remedy::RestartInPlace, Remedy::Takeover]);
    let costs: Vec<f64> = decision.steps.iter().map(|step| step.cost).collect();
    assert!((costs[0] - restart).abs() < 1e-9 && (costs[1] - takeover).abs() < 1e-9, "{costs:?}");
    assert!((decision.cost - (restart + 0.1 * takeover)).abs() < 1e-9, "{decision:?}");
}

#[test]
fn sessions_that_nobody_needs_to_interrupt_speak_for_the_restart() {
    let targets = rooms(&[2000]);
    let certain = sure_takeovers();
    let alone = situation(&targets);
    let crowded = Situation { of_node: 1000, ..alone.clone() };
    assert_eq!(certain.decide(&alone).first(), Some(Remedy::Takeover), "faster, and always helps");
    let decision = certain.decide(&crowded);
    assert_eq!(remedies(&decision), [Remedy::RestartInPlace, Remedy::Takeover]);
    assert!(decision.afterwards.is_empty(), "it is restarted already");
}

#[test]
fn what_can_be_followed_by_another_remedy_is_tried_before_what_is_for_good() {
    let targets = rooms(&[2000]);
    let policy = Policy::default();
    // A takeover that does not help is the end; a restart that does not help is not.
    assert_eq!(remedies(&policy.decide(&situation(&targets))), [Remedy::RestartInPlace, Remedy::Takeover]);
}

#[test]
fn what_has_failed_again_and_again_is_not_restarted_once_more() {
    let targets = rooms(&[2000]);
    let policy = Policy::default();
    let at = |restarts| policy.decide(&Situation { of_node: 1000, restarts, ..situation(&targets) });
    assert_eq!(at(0).first(), Some(Remedy::RestartInPlace));
    let last = at(policy.most_restarts);
    assert_eq!(remedies(&last), [Remedy::Takeover]);
    assert_eq!(last.obstacles[0], (Remedy::RestartInPlace, Obstacle::CrashLoop(3)));
    assert_eq!(last.afterwards, [NodeAction::RebootNode, NodeAction::ExcludeNode(policy.exclusion)]);
}

#[test]
fn without_room_it_is_restarted_and_if_that_cannot_be_it_is_said() {
    let policy = Policy::default();
    for targets in [rooms(&[]), rooms(&[0, 0])] {
        let situation = situation(&targets);
        let decision = policy.decide(&situation);
        assert_eq!(remedies(&decision), [Remedy::RestartInPlace]);
        assert!(decision.obstacles.contains(&(Remedy::Takeover, Obstacle::NoRoom)));
        let nothing = policy.decide(&Situation { reach: Reach::Memory, ..situation });
        assert!(nothing.steps.is_empty());
        assert_eq!(
            nothing.obstacles,
            [
                (Remedy::RestartInPlace, Obstacle::NoAgent),
                (Remedy::Takeover, Obstacle::NoRoom),
                (Remedy::Reboot, Obstacle::NoReboot)
            ]
        );
        assert!((nothing.cost - 10.0 * policy.loss.as_secs_f64()).abs() < 1e-9);
    }
}

#[test]
fn what_comes_after_depends_on_what_failed() {
    let targets = rooms(&[100]);
    let policy = sure_takeovers();
    let after = |situation: Situation<'_>| policy.decide(&situation).afterwards;
    let base = situation(&targets);
    assert_eq!(after(base.clone()), [NodeAction::RestartApplication(Slot(7))]);
    let system = Situation { level: FailureLevel::Os, reach: Reach::Memory, exclusions: 2, ..base.clone() };
    let exclusion = NodeAction::ExcludeNode(Nanos(4 * policy.exclusion.0));
    assert_eq!(after(system), [NodeAction::RebootNode, exclusion]);
    let alone = Situation { reach: Reach::Memory, can_reboot: true, targets: &[], ..base.clone() };
    assert_eq!((remedies(&policy.decide(&alone)), after(alone)), (vec![Remedy::Reboot], vec![]), "that does it");
    let gone = Situation { reach: Reach::Nothing, exclusions: 60, ..base };
    assert_eq!(after(gone), [NodeAction::ExcludeNode(policy.longest_exclusion)]);
    assert_eq!(policy.exclusion(u32::MAX), policy.longest_exclusion);
}

#[test]
fn a_policy_that_cannot_be_is_named() {
    let policy = Policy::default();
    assert_eq!(policy.check(), Ok(()));
    let takeover = Price { failing: 1.5, ..policy.takeover };
    let message = Policy { takeover, ..policy }.check().unwrap_err().to_string();
    assert_eq!(message, "the probability that a takeover does not help must be from 0 to 1");
    assert!(Policy { bystander: f64::NAN, ..policy }.check().is_err());
    assert!(Policy { longest_exclusion: Nanos(1), ..policy }.check().is_err());
}

fn any_price() -> impl Strategy<Value = Price> {
    (0u64..10_000, 0u64..1000, 0.0..=1.0f64).prop_map(|(fixed, each, failing)| Price {
        fixed: Nanos::from_millis(fixed),
        each: Nanos::from_micros(each),
        failing,
    })
}

fn any_policy() -> impl Strategy<Value = Policy> {
    (any_price(), any_price(), any_price(), 0u64..600, 0.0..3.0f64, 0u32..6).prop_map(
        |(restart, takeover, reboot, loss, bystander, most_restarts)| Policy {
            restart,
            takeover,
            reboot,
            loss: Nanos::from_secs(loss),
            bystander,
            most_restarts,
            ..Policy::default()
        },
    )
}

/// Owns its targets.
#[derive(Clone, Debug)]
struct Any {
    targets: Vec<Room>,
    situation: Situation<'static>,
}

impl Any {
    fn situation(&self) -> Situation<'_> {
        Situation { targets: &self.targets, ..self.situation.clone() }
    }
}

fn any_situation() -> impl Strategy<Value = Any> {
    let level = prop_oneof![Just(FailureLevel::Session), Just(FailureLevel::Application), Just(FailureLevel::Os)];
    let reach = prop_oneof![Just(Reach::Nothing), Just(Reach::Memory), Just(Reach::Agent)];
    let sessions = (0u64..50, 0u64..50, 0u64..50, 0u64..60, 0u64..60);
    let targets = proptest::collection::vec(0u64..100, 0..5);
    (level, reach, sessions, targets, any::<bool>(), 0u32..8).prop_map(
        |(level, reach, (affected, more, others, not_kept, stateless), free, can_reboot, restarts)| Any {
            targets: rooms(&free),
            situation: Situation {
                level,
                application: None,
                reach,
                affected,
                of_application: affected + more,
                of_node: affected + more + others,
                not_kept,
                stateless,
                targets: &[],
                can_reboot,
                restarts,
                exclusions: 0,
            },
        },
    )
}

proptest! {
    #[test]
    fn no_plan_asks_for_what_cannot_be(policy in any_policy(), any in any_situation()) {
        let situation = any.situation();
        let decision = policy.decide(&situation);
        let planned = remedies(&decision);
        if situation.reach != Reach::Agent || situation.restarts >= policy.most_restarts {
            prop_assert!(!planned.contains(&Remedy::RestartInPlace));
        }
        if situation.room() == 0 || situation.reach == Reach::Nothing {
            prop_assert!(!planned.contains(&Remedy::Takeover));
        }
        prop_assert!(planned.windows(2).all(|two| two[0] < two[1]), "nothing comes back after what is for good");
        // Whatever is not ruled out can be had: there is a plan unless all is ruled out.
        prop_assert_eq!(planned.is_empty(), decision.obstacles.len() == Remedy::ALL.len());
        prop_assert!(decision.cost.is_finite() && decision.cost >= 0.0);
    }

    /// A remedy that became cheaper is not given up for another, and the whole never becomes dearer.
    #[test]
    fn what_becomes_cheaper_is_not_given_up(
        policy in any_policy(), any in any_situation(), which in 0usize..3, time in 0.0..1.0f64, failing in 0.0..1.0f64,
    ) {
        let cheaper = |price: Price| Price {
            fixed: Nanos::from_secs_f64(price.fixed.as_secs_f64() * time),
            each: Nanos::from_secs_f64(price.each.as_secs_f64() * time),
            failing: price.failing * failing,
        };
        let mut better = policy;
        let (price, remedy) = match which {
            0 => (&mut better.restart, Remedy::RestartInPlace),
            1 => (&mut better.takeover, Remedy::Takeover),
            _ => (&mut better.reboot, Remedy::Reboot),
        };
        *price = cheaper(*price);
        let situation = any.situation();
        let (before, after) = (policy.decide(&situation), better.decide(&situation));
        prop_assert!(after.cost <= before.cost * (1.0 + 1e-9) + 1e-9, "{} < {}", before.cost, after.cost);
        // Of equals any may come first.
        if before.first() == Some(remedy) && after.cost < before.cost * (1.0 - 1e-9) {
            prop_assert!(remedies(&after).contains(&remedy));
        }
    }

    /// Who takes longer than another that always helps, and interrupts and loses no fewer, is not tried first.
    #[test]
    fn what_is_dominated_is_not_tried_first(policy in any_policy(), any in any_situation()) {
        let situation = any.situation();
        let takeover = Price { failing: 0.0, ..policy.takeover };
        let more = Nanos(policy.takeover.fixed.0 + 1 + 100 * policy.takeover.each.0);
        let restart = Price { fixed: more, each: policy.takeover.each, ..policy.restart };
        let policy = Policy { takeover, restart, reboot: Price { fixed: more, ..policy.reboot }, ..policy };
        // The node is the application's alone, and there is room for all.
        let situation = Situation { of_node: situation.of_application, stateless: 0, ..situation };
        let decision = policy.decide(&situation);
        let can_move = situation.room() >= situation.of_node && situation.reach != Reach::Nothing && situation.room() > 0;
        if can_move && situation.affected > 0 {
            prop_assert_eq!(decision.first(), Some(Remedy::Takeover));
        }
    }

    #[test]
    fn sessions_are_spread_by_free_room_to_within_one(
        numbers in proptest::collection::btree_set(0u64..10_000, 0..200),
        free in proptest::collection::vec(0u64..120, 0..5),
        rotation in 0usize..200,
    ) {
        let targets = rooms(&free);
        let mut sessions: Vec<u64> = numbers.into_iter().collect();
        let orders = spread(&sessions, &targets);
        prop_assert_eq!(orders.len(), sessions.len());
        let mut first: BTreeMap<PartyId, u64> = BTreeMap::new();
        for order in &orders {
            prop_assert_eq!(order.len(), targets.len());
            let mut parties = order.clone();
            parties.sort();
            parties.dedup();
            prop_assert_eq!(parties.len(), targets.len(), "each is asked once");
            if let Some(party) = order.first() {
                *first.entry(*party).or_default() += 1;
            }
        }
        let (room, wanted) = (free.iter().sum::<u64>(), sessions.len() as u64);
        if room >= wanted {
            for target in &targets {
                let got = first.get(&target.party).copied().unwrap_or(0);
                prop_assert!(got <= target.free);
                let exact = (wanted * target.free) as f64 / room.max(1) as f64;
                prop_assert!((got as f64 - exact).abs() < 1.0, "{} got {got} of {exact}", target.party);
            }
        }
        // Found in another order, each session is offered to the same targets.
        let before: BTreeMap<u64, Vec<PartyId>> = sessions.iter().copied().zip(orders).collect();
        let by = rotation % sessions.len().max(1);
        sessions.rotate_left(by);
        let after: BTreeMap<u64, Vec<PartyId>> = sessions.iter().copied().zip(spread(&sessions, &targets)).collect();
        prop_assert_eq!(before, after);
    }

    #[test]
    fn groups_stay_together_and_are_spread_evenly_whoever_fails(
        sizes in proptest::collection::vec(0u64..50, 0..12), targets in 1usize..5, rotation in 0usize..12,
    ) {
        let groups = groups(&sizes);
        let all: u64 = groups.iter().map(size).sum();
        let targets = rooms(&vec![all.max(1); targets]);
        let orders = spread_groups(&groups, &targets);
        for failed in std::iter::once(None).chain(targets.iter().map(Some)) {
            let left = targets.iter().filter(|target| Some(*target) != failed).map(|target| target.party);
            let left: Vec<PartyId> = left.collect();
            let loads = loads(&groups, &orders, &left);
            let of = |party: &PartyId| loads.get(party).copied().unwrap_or(0);
            let (least, most) = (left.iter().map(of).min(), left.iter().map(of).max());
            let largest = groups.iter().map(size).max();
            prop_assert!(most.unwrap_or(0) - least.unwrap_or(0) <= largest.unwrap_or(0), "{left:?}: {loads:?}");
        }
        let mut rotated = groups.clone();
        let by = rotation % groups.len().max(1);
        rotated.rotate_left(by);
        let mut expected = orders;
        expected.rotate_left(by);
        prop_assert_eq!(spread_groups(&rotated, &targets), expected, "whatever order they were found in");
    }

    #[test]
    fn no_group_goes_where_there_is_no_room_while_another_has(
        sizes in proptest::collection::vec(1u64..50, 0..12), free in proptest::collection::vec(0u64..120, 0..5),
    ) {
        let (groups, targets) = (groups(&sizes), rooms(&free));
        let orders = spread_groups(&groups, &targets);
        for order in &orders {
            let mut parties = order.clone();
            parties.sort();
            parties.dedup();
            prop_assert_eq!((parties.len(), order.len()), (targets.len(), targets.len()), "each is asked once");
        }
        let everybody: Vec<PartyId> = targets.iter().map(|target| target.party).collect();
        let loads = loads(&groups, &orders, &everybody);
        let load = |party| loads.get(&party).copied().unwrap_or(0);
        for full in targets.iter().filter(|target| load(target.party) > target.free) {
            let mine = groups.iter().zip(&orders).filter(|(_, order)| order[0] == full.party);
            let largest = mine.map(|(group, _)| group.sessions).max().unwrap();
            // What came last did not fit anywhere, and nobody has less by now.
            let others = targets.iter().filter(|other| other.party != full.party);
            prop_assert!(others.clone().all(|other| load(other.party) + largest > other.free), "{loads:?}");
        }
    }
}

fn groups(sizes: &[u64]) -> Vec<Group> {
    sizes.iter().enumerate().map(|(at, sessions)| Group { key: at as u64, sessions: *sessions }).collect()
}

fn size(group: &Group) -> u64 {
    group.sessions.max(1)
}

/// Sessions of each target if only those `left` take any.
fn loads(groups: &[Group], orders: &[Vec<PartyId>], left: &[PartyId]) -> BTreeMap<PartyId, u64> {
    let mut loads = BTreeMap::new();
    for (group, order) in groups.iter().zip(orders) {
        if let Some(party) = order.iter().find(|party| left.contains(party)) {
            *loads.entry(*party).or_default() += size(group);
        }
    }
    loads
}

#[test]
fn groups_of_a_target_that_fails_go_to_several_others() {
    // The two that share a target do not share the next.
    let orders = spread_groups(&groups(&[4, 3, 3, 2]), &rooms(&[100; 3]));
    let orders: Vec<Vec<u32>> = orders.iter().map(|order| order.iter().map(|party| party.number()).collect()).collect();
    assert_eq!(orders, [[0, 2, 1], [1, 2, 0], [2, 0, 1], [1, 0, 2]]);
    // Twice the room, twice the sessions.
    let orders = spread_groups(&groups(&[5; 3]), &rooms(&[20, 10]));
    let first: Vec<u32> = orders.iter().map(|order| order[0].number()).collect();
    assert_eq!(first, [0, 0, 1]);
    assert!(spread_groups(&groups(&[1, 2]), &[]).iter().all(Vec::is_empty));
}
