//! A channel falls silent: the node's card, its link, the way of several nodes, the monitor's own link, or the node itself.

mod diagnosis_support;

use backdoor_core::Nanos;
use backdoor_core::diagnosis::reachability::Conclusion;
use backdoor_sim::cluster::{Answer, Found};
use backdoor_sim::faults::Breakdown;
use diagnosis_support::{AT_ONCE, AT_ONCE_INFORMED, SETTLED, SETTLED_INFORMED, answers, scenario, worths};

fn all_are(answers: &[Answer], conclusion: Conclusion) -> bool {
    answers.iter().all(|answer| answer.found == Found::Channel(conclusion))
}

/// How long a card waits for an answer before it reports that nobody does, with some polls of the second path more.
const GIVES_UP: Nanos = Nanos::from_millis(67);
const SLACK: Nanos = Nanos::from_millis(35);

#[test]
fn a_dead_card_is_told_from_a_dead_node_by_a_second_path_and_by_nothing_else() {
    for breakdown in [Breakdown::Card, Breakdown::Link] {
        let alone = answers(&scenario(), breakdown, SETTLED);
        assert!(all_are(&alone, Conclusion::SilentNode), "{breakdown}: {alone:?}");
        let second = answers(&scenario(), breakdown, SETTLED_INFORMED);
        assert!(all_are(&second, Conclusion::CardOrPath), "{breakdown}: {second:?}");
        assert!(second.iter().all(|a| (GIVES_UP..GIVES_UP + SLACK).contains(&a.after.unwrap())), "{second:?}");
    }
}

#[test]
fn a_partition_is_seen_by_the_neighbours_that_fall_silent_too() {
    let early = answers(&scenario(), Breakdown::Partition, AT_ONCE);
    assert!(all_are(&early, Conclusion::SilentNode), "its neighbour may be well for all that is known: {early:?}");
    for way in [SETTLED, SETTLED_INFORMED] {
        let answers = answers(&scenario(), Breakdown::Partition, way);
        assert!(all_are(&answers, Conclusion::Partition), "{answers:?}");
    }
}

#[test]
fn the_monitors_own_link_accuses_nobody() {
    for way in [AT_ONCE, AT_ONCE_INFORMED, SETTLED, SETTLED_INFORMED] {
        let answers = answers(&scenario(), Breakdown::OwnLink, way);
        assert!(all_are(&answers, Conclusion::OwnFault), "{answers:?}");
        assert!(answers.iter().all(|answer| answer.after.unwrap() < Nanos::from_millis(5)), "{answers:?}");
    }
}

#[test]
fn a_node_without_power_is_down_when_both_paths_say_so() {
    assert!(all_are(&answers(&scenario(), Breakdown::Power, SETTLED), Conclusion::SilentNode));
    let second = answers(&scenario(), Breakdown::Power, SETTLED_INFORMED);
    assert!(all_are(&second, Conclusion::NodeDown), "{second:?}");
}

#[test]
fn a_system_that_takes_its_card_along_is_down_by_the_second_cards_word() {
    let second = answers(&scenario(), Breakdown::SystemAndCard, SETTLED_INFORMED);
    assert!(all_are(&second, Conclusion::NodeDown), "{second:?}");
    assert_eq!(worths(&second), [10, 0, 0]);
}

/// Losses and a slow network make evidence come late, not wrong.
#[test]
fn on_a_bad_network_nobody_is_accused_wrongly() {
    let mut bad = scenario();
    bad.network_loss = 0.02;
    bad.network_delay = "exp:200us".parse().unwrap();
    for breakdown in Breakdown::CHANNELS {
        let second = answers(&bad, breakdown, SETTLED_INFORMED);
        assert_eq!(worths(&second)[2], 0, "{breakdown}: {second:?}");
        assert!(worths(&second)[0] >= 9, "{breakdown}: {second:?}");
    }
}
