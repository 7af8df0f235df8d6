//! The simulator's numbers against closed forms and published ones: the grid of `examples/validation`, whose tables
//! `docs/validation.md` holds; and that the grid can fail.

#[path = "../examples/validation/case.rs"]
mod case;
#[path = "../examples/validation/detectors.rs"]
mod detectors;
#[path = "../examples/validation/grid.rs"]
mod grid;
#[path = "../examples/validation/queues.rs"]
mod queues;
#[path = "../examples/validation/table.rs"]
mod table;

use backdoor_core::Nanos;
use backdoor_sim::qos::closed;
use backdoor_sim::qos::delay::Delay;
use backdoor_sim::qos::measures::Measures;
use backdoor_sim::qos::replication::{Goal, replicate};
use backdoor_sim::qos::setting::{DetectorKind, Setting};
use backdoor_sim::stats::Estimate;
use backdoor_sim::streams::{StreamKey, Streams};
use case::{Case, Round};
use table::{Comparison, Known, Section};

#[test]
fn every_number_is_within_its_bound_and_the_document_holds_these_tables() {
    let sections = grid::run();
    let failures: Vec<&Comparison> = sections.iter().flat_map(Section::failures).collect();
    assert!(failures.is_empty(), "{failures:#?}");
    // Wide intervals would agree with anything.
    for row in sections.iter().flat_map(|section| &section.rows) {
        if let (Known::Mean(mean), Estimate { low: Some(low), high: Some(high), .. }) = (row.known, row.found) {
            assert!(high - low < 0.3 * mean, "{row:?}");
        }
    }
    // A bias of several standard errors would show here before single rows are beyond their bounds.
    let errors: Vec<f64> = sections.iter().flat_map(|s| &s.rows).filter_map(Comparison::errors).collect();
    assert!(errors.len() > 180, "{}", errors.len());
    let beyond = errors.iter().filter(|errors| errors.abs() > 2.0).count();
    assert!(beyond <= errors.len() / 10, "{beyond} of {} beyond two standard errors", errors.len());
    let document = include_str!("../../docs/validation.md");
    assert!(
        document == grid::with_tables(document, &sections),
        "docs/validation.md holds other tables than the simulator gives: see there how to make them"
    );
}

fn comparison(value: f64, known: Known) -> Comparison {
    let found = Estimate { value, low: Some(value - 0.202_269_1), high: Some(value + 0.202_269_1) };
    Comparison { setting: "made up".into(), measure: "x", found, known, replications: 40 }
}

#[test]
fn differences_are_measured_in_standard_errors() {
    // Student's 97.5% quantile with 39 degrees of freedom is 2.022691.
    assert!((comparison(1.2, Known::Mean(1.0)).errors().unwrap() - 2.0).abs() < 1e-5);
    assert!(comparison(1.299, Known::Mean(1.0)).holds() && !comparison(1.301, Known::Mean(1.0)).holds());
    assert!(comparison(1.014, Known::Printed(1.01, 2)).holds() && !comparison(1.021, Known::Printed(1.01, 2)).holds());
    assert!(comparison(0.95, Known::Bound(1.0)).holds());
    assert!(!comparison(1.01, Known::Bound(1.0)).holds() && !comparison(0.8, Known::Bound(1.0)).holds());
    let nothing = Comparison { found: Estimate::exact(1.0), ..comparison(1.0, Known::Mean(1.0)) };
    assert!(!nothing.holds(), "without an interval nothing is shown");
}

/// A row that is beyond its bound is tried again with other numbers; it fails if it is beyond again.
#[test]
fn a_wrong_number_fails_and_a_chance_does_not() {
    let wrong = |again: f64| {
        Case::new("wrong".into(), move |_, round| {
            vec![comparison(if round == Round::First { 2.0 } else { again }, Known::Mean(1.0))]
        })
    };
    let sections = case::run(vec![("both", vec![wrong(2.0)]), ("once", vec![wrong(1.1)])]);
    assert_eq!(sections.iter().map(|section| section.failures().count()).collect::<Vec<_>>(), [1, 0]);
    assert!(sections[1].markdown().contains("| again: made up |"), "both rounds are shown");
    assert!(table::multiplicity(&sections).contains("| 3 standard errors | 2 |"));
}

#[test]
fn tables_take_the_place_of_tables() {
    let document = "# Title\n\n## Tables\n\nold\n\n## End\n";
    let new = grid::with_tables(document, &[]);
    assert!(
        new.starts_with("# Title\n\n## Tables\n\n") && new.ends_with("\n\n## End\n") && !new.contains("old"),
        "{new}"
    );
    assert_eq!(grid::with_tables(&new, &[]), new);
}

/// Where no closed form applies, what it would be known from still bounds the simulation.
#[test]
fn a_poll_late_is_noticed() {
    let detector = DetectorKind::Deadline { timeout: Nanos::from_millis(15) };
    let delay = Delay::Law("const:1ms".parse().unwrap());
    let period = Nanos::from_millis(10);
    let polled = Setting { detector, period, loss: 0.2, delay, poll: Some(Nanos::from_millis(4)) };
    let goal = Goal { mistakes: 10, heartbeats: u64::MAX, crashes: 200 };
    let one = |replication| {
        let key = StreamKey { seed: 1, experiment: "validation", point: "polls", replication };
        replicate(&polled, goal, &Streams::new(key), &|| false).unwrap()
    };
    let measures = Measures::of(&(0..40).map(one).collect::<Vec<_>>());
    let longest = measures.t_d_max_s.unwrap();
    assert!(longest > 0.016 && longest <= 0.001 + 0.015 + 2.0 * 0.004, "{longest}");
    assert_eq!(closed::of(&polled), None);
}
