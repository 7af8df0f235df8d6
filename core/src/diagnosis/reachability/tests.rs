//! The table row by row, and what holds of any evidence.

use super::*;
use proptest::prelude::*;
use proptest::sample::Index;

const NOTICED: u64 = 120;

fn failed(answered: u64, error: TransportError, noticed: u64) -> Evidence {
    let failure = Some(ChannelFailure { error, noticed: Nanos(noticed) });
    Evidence { answered: Some(Nanos(answered)), failure }
}
fn silent() -> Evidence {
    failed(100, TransportError::Unreachable, NOTICED)
}
fn works(answered: u64) -> Evidence {
    Evidence { answered: Some(Nanos(answered)), failure: None }
}
fn on(path: u32, evidence: Evidence) -> Channel {
    Channel { path: PathId(path), evidence }
}
fn second(evidence: Evidence, system: System) -> Option<SecondPath> {
    Some(SecondPath { evidence, system })
}
fn of(channels: &[Channel], second: Option<SecondPath>) -> (Conclusion, bool) {
    let Reachability { conclusion, settled } = conclude(0, channels, second.as_ref());
    (conclusion, settled)
}

#[test]
fn what_the_channel_itself_says() {
    use TransportError as E;
    for (error, expected, settled) in [
        (E::Refused, Conclusion::Refused, true),
        (E::OutOfBounds, Conclusion::Refused, true),
        (E::LocalFault, Conclusion::OwnFault, true),
        (E::Unreachable, Conclusion::SilentNode, true),
        (E::Flushed, Conclusion::SilentNode, false),
    ] {
        assert_eq!(of(&[on(0, failed(100, error, NOTICED))], None), (expected, settled), "{error:?}");
    }
    assert_eq!(of(&[on(0, works(1))], None), (Conclusion::Reachable, true));
    assert_eq!(of(&[], None), (Conclusion::SilentNode, false));
}

#[test]
fn a_local_fault_elsewhere_accuses_nobody_here() {
    let local = |answered, noticed| on(1, failed(answered, TransportError::LocalFault, noticed));
    let down = second(silent(), System::Unknown);
    assert_eq!(of(&[on(0, silent()), local(110, 115)], down), (Conclusion::OwnFault, true));
    assert_eq!(of(&[on(0, silent()), local(50, 60)], down), (Conclusion::NodeDown, true), "it was over before");
}

#[test]
fn everybody_silent_at_once_is_the_monitors_own_side() {
    let channels = [on(0, silent()), on(0, silent()), on(1, silent())];
    assert_eq!(of(&channels, None), (Conclusion::OwnFault, true));
    assert_eq!(of(&channels[..2], None), (Conclusion::Partition, true), "or the one way there is");
    let mut channels = channels;
    channels[2].evidence = works(119);
    assert_eq!(of(&channels, None), (Conclusion::Partition, false), "its next answer may not come");
    channels[2].evidence = works(121);
    assert_eq!(of(&channels, None), (Conclusion::Partition, true));
}

#[test]
fn a_neighbour_that_answers_clears_the_way() {
    let others = [on(0, works(121)), on(1, works(121))];
    let channels = [on(0, silent()), others[0], others[1]];
    assert_eq!(of(&channels, None), (Conclusion::SilentNode, true));
    let early = [on(0, silent()), on(0, works(110)), others[1]];
    assert_eq!(of(&early, None), (Conclusion::SilentNode, false), "it may be silent too");
    let long_ago = [on(0, silent()), on(0, failed(10, TransportError::Unreachable, 30)), others[1]];
    assert_eq!(of(&long_ago, None), (Conclusion::SilentNode, true), "that was another event");
}

#[test]
fn the_second_path_tells_a_dead_card_from_a_dead_node() {
    let channels = [on(0, silent()), on(0, works(121)), on(1, works(121))];
    let answers = works(130);
    for (path, system, expected, settled) in [
        (answers, System::Moved(Nanos(125)), Conclusion::CardOrPath, true),
        (answers, System::Moved(Nanos(119)), Conclusion::SilentNode, false),
        (answers, System::StandsStill, Conclusion::NodeDown, true),
        (answers, System::Unknown, Conclusion::SilentNode, true),
        (works(115), System::Moved(Nanos(110)), Conclusion::SilentNode, false),
        (silent(), System::Moved(Nanos(99)), Conclusion::NodeDown, true),
        (failed(100, TransportError::LocalFault, 110), System::Unknown, Conclusion::SilentNode, true),
        (failed(10, TransportError::Unreachable, 20), System::Unknown, Conclusion::SilentNode, true),
        (Evidence::default(), System::Unknown, Conclusion::SilentNode, false),
    ] {
        assert_eq!(of(&channels, second(path, system)), (expected, settled), "{path:?} {system:?}");
    }
}

#[test]
fn in_a_partition_the_second_path_clears_the_nodes() {
    let channels = [on(0, silent()), on(0, silent()), on(1, works(121))];
    let lives = second(works(130), System::Moved(Nanos(130)));
    assert_eq!(of(&channels, lives), (Conclusion::Partition, true));
    assert_eq!(of(&channels, second(silent(), System::Unknown)), (Conclusion::NodeDown, true));
}

fn error() -> impl Strategy<Value = TransportError> {
    use TransportError as E;
    prop_oneof![
        4 => Just(E::Unreachable), 2 => Just(E::LocalFault),
        1 => Just(E::Refused), 1 => Just(E::OutOfBounds), 1 => Just(E::Flushed),
    ]
}
fn evidence() -> impl Strategy<Value = Evidence> {
    let failure = (error(), 0u64..200).prop_map(|(error, at)| ChannelFailure { error, noticed: Nanos(at) });
    (proptest::option::of((0u64..200).prop_map(Nanos)), proptest::option::of(failure))
        .prop_map(|(answered, failure)| Evidence { answered, failure })
}
fn channels() -> impl Strategy<Value = Vec<Channel>> {
    proptest::collection::vec((0u32..3, evidence()).prop_map(|(path, evidence)| on(path, evidence)), 1..6)
}
fn second_path() -> impl Strategy<Value = SecondPath> {
    let moved = (0u64..200).prop_map(|at| System::Moved(Nanos(at)));
    let system = prop_oneof![Just(System::Unknown), moved, Just(System::StandsStill)];
    (evidence(), system).prop_map(|(evidence, system)| SecondPath { evidence, system })
}

/// What really happened, in the world that the last test makes up.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Truth {
    OwnSide,
    Path,
    Card,
    Node,
}

proptest! {
    #[test]
    fn own_faults_accuse_nobody(channels in channels(), second in proptest::option::of(second_path())) {
        let own = &channels[0].evidence;
        let local = |c: &Channel| c.evidence.failure.is_some_and(|f| f.error == TransportError::LocalFault);
        let is_own = local(&channels[0]) || channels.iter().any(|c| local(c) && c.evidence.silent_together(own));
        let conclusion = conclude(0, &channels, second.as_ref()).conclusion;
        prop_assert!(!(is_own && conclusion.accuses_node()), "{conclusion:?}");
    }

    #[test]
    fn without_a_second_path_nothing_is_said_of_the_node(channels in channels()) {
        let conclusion = conclude(0, &channels, None).conclusion;
        prop_assert!(!matches!(conclusion, Conclusion::NodeDown | Conclusion::CardOrPath), "{conclusion:?}");
    }

    #[test]
    fn the_order_of_the_others_says_nothing(
        channels in channels(), second in proptest::option::of(second_path()), turn in 0usize..6,
    ) {
        let mut turned = channels.clone();
        let others = turned.len() - 1;
        turned[1..].rotate_left(if others > 0 { turn % others } else { 0 });
        prop_assert_eq!(conclude(0, &channels, second.as_ref()), conclude(0, &turned, second.as_ref()));
    }

    /// Channels that had not failed go on, or fail in any way; what was settled stays.
    #[test]
    fn settled_is_for_good(
        channels in channels(), second in proptest::option::of(second_path()),
        which: Index, later in 200u64..300, fails in proptest::option::of((error(), 1u64..50)),
    ) {
        let before = conclude(0, &channels, second.as_ref());
        let mut after = channels.clone();
        let other = which.index(channels.len());
        if before.settled && other != 0 && channels[other].evidence.failure.is_none() {
            let evidence = &mut after[other].evidence;
            match fails {
                Some((error, within)) => {
                    evidence.failure = Some(ChannelFailure { error, noticed: Nanos(later + within) });
                }
                None => evidence.answered = Some(Nanos(later)),
            }
            prop_assert_eq!(before, conclude(0, &after, second.as_ref()));
        }
    }

    /// One thing fails at 100. Whatever is concluded is true, and with a second path it is the truth.
    #[test]
    fn what_is_settled_is_true(
        truth in prop_oneof![Just(Truth::OwnSide), Just(Truth::Path), Just(Truth::Card), Just(Truth::Node)],
        paths in proptest::collection::vec(0u32..2, 0..5),
        times in proptest::collection::vec((0u64..20, 1u64..20, any::<bool>()), 6),
        reports_local: bool, has_second: bool, card_answers: bool,
    ) {
        let affected = |index: usize, path: u32| match truth {
            Truth::OwnSide => true,
            Truth::Path => path == 0,
            Truth::Card | Truth::Node => index == 0,
        };
        let error = match truth {
            Truth::OwnSide if reports_local => TransportError::LocalFault,
            _ => TransportError::Unreachable,
        };
        let paths: Vec<u32> = std::iter::once(0).chain(paths).collect();
        let channel = |(index, path): (usize, &u32)| {
            let (before, after, late) = times[index];
            on(*path, match affected(index, *path) {
                true => failed(100 - before, error, 100 + after),
                false => works(if late { 150 } else { 100 }),
            })
        };
        let channels: Vec<Channel> = paths.iter().enumerate().map(channel).collect();
        let second = has_second.then(|| match truth {
            Truth::Node if card_answers => SecondPath { evidence: works(200), system: System::StandsStill },
            Truth::Node => SecondPath { evidence: silent(), system: System::Moved(Nanos(99)) },
            _ => SecondPath { evidence: works(200), system: System::Moved(Nanos(199)) },
        });
        let Reachability { conclusion, settled } = conclude(0, &channels, second.as_ref());
        let neighbours = paths[1..].contains(&0);
        let others = paths.contains(&1);
        let alone = if has_second { Conclusion::CardOrPath } else { Conclusion::SilentNode };
        let expected = match truth {
            Truth::OwnSide if reports_local || others => Conclusion::OwnFault,
            Truth::OwnSide | Truth::Path if neighbours => Conclusion::Partition,
            Truth::OwnSide | Truth::Path | Truth::Card => alone,
            Truth::Node if has_second => Conclusion::NodeDown,
            Truth::Node => Conclusion::SilentNode,
        };
        if settled {
            prop_assert_eq!(conclusion, expected);
        }
        prop_assert!(truth == Truth::Node || !conclusion.accuses_node());
    }
}
