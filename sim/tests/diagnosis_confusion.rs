//! What every breakdown is taken for: the small table of confusions, as it was when it was last looked at.

mod diagnosis_support;

use std::collections::BTreeMap;
use std::fmt::Write;

use backdoor_sim::cluster::{Scenario, Way};
use backdoor_sim::faults::Breakdown;
use diagnosis_support::{outcome, scenario};

const RUNS: u64 = 5;

/// A line for each breakdown and way: how often it was taken for what.
fn table(scenario: &Scenario) -> String {
    let mut table = String::new();
    for breakdown in Breakdown::COUNTERS.into_iter().chain(Breakdown::CHANNELS) {
        let outcomes: Vec<_> = (0..RUNS).map(|run| outcome(scenario, breakdown, run)).collect();
        for way in Way::ALL {
            let mut counts: BTreeMap<String, u32> = BTreeMap::new();
            for answer in outcomes.iter().map(|outcome| outcome.answer(way)) {
                let worth = format!("{:?}", answer.worth).to_lowercase();
                *counts.entry(format!("{} ({worth})", answer.found.name())).or_default() += 1;
            }
            let counts: Vec<String> = counts.iter().map(|(found, count)| format!("{count} {found}")).collect();
            let when = if way.settled { "for good" } else { "at once" };
            let known = match (way.informed, breakdown.is_of_channel()) {
                (false, _) => "",
                (true, false) => ", dependencies known",
                (true, true) => ", second path",
            };
            writeln!(table, "{breakdown}, {when}{known}: {}", counts.join(", ")).unwrap();
        }
    }
    table
}

#[test]
fn every_breakdown_is_taken_for_what_it_was_taken_for_before() {
    let table = table(&scenario());
    let expected = include_str!("diagnosis_confusion.txt");
    assert_eq!(table, expected, "if the new table is right, let it be the old one:\n{table}");
}
