//! A disk, on which two applications and the last process of a chain wait: it hangs, is slow, or answers with errors.

mod diagnosis_support;

use backdoor_core::Nanos;
use backdoor_sim::cluster::{DiagnosisOptions, Found, Worth, diagnosis_run};
use backdoor_sim::faults::Breakdown;
use backdoor_sim::streams::{StreamKey, Streams};
use diagnosis_support::{AT_ONCE_INFORMED, SETTLED, SETTLED_INFORMED, answers, scenario, worths};

#[test]
fn a_disk_that_hangs_is_the_root_of_everybody_who_waits_for_it() {
    let by_counters = answers(&scenario(), Breakdown::DiskHangs, SETTLED);
    assert_eq!(worths(&by_counters), [0, 0, 10], "{by_counters:?}");
    let early = answers(&scenario(), Breakdown::DiskHangs, AT_ONCE_INFORMED);
    assert!(worths(&early)[2] >= 5, "whoever asked first is overdue before the disk is: {early:?}");
    assert_eq!(worths(&answers(&scenario(), Breakdown::DiskHangs, SETTLED_INFORMED)), [10, 0, 0]);
}

#[test]
fn a_slow_disk_is_found_as_far_as_it_breaks_its_own_promise() {
    let mut slow = scenario();
    // Always 300 ms when it is slow: every request is late by the disk's own deadline.
    slow.workload.disk.as_mut().unwrap().read_time = "const:3ms".parse().unwrap();
    assert_eq!(worths(&answers(&slow, Breakdown::DiskSlow, SETTLED_INFORMED)), [10, 0, 0]);
    // Always 80 ms: within its deadline, while those in line for it are not.
    slow.workload.disk.as_mut().unwrap().read_time = "const:800us".parse().unwrap();
    let within = answers(&slow, Breakdown::DiskSlow, SETTLED_INFORMED);
    assert_eq!(worths(&within)[0], 0, "no counter says so: {within:?}");
}

/// In between its requests a slow disk is trusted, and those who wait for it are not.
#[test]
fn a_slow_disk_stays_the_root_while_it_moves() {
    let mut slow = scenario();
    slow.workload.disk.as_mut().unwrap().read_time = "const:3ms".parse().unwrap();
    let options = DiagnosisOptions { watch_on: Nanos::from_secs(2), ..DiagnosisOptions::of(Breakdown::DiskSlow) };
    for replication in 0..5 {
        let streams = Streams::new(StreamKey { seed: 7, experiment: "slow disk", point: "", replication });
        let outcome = diagnosis_run(&slow, &streams, &options).unwrap();
        let [blind, informed] = outcome.later;
        assert!(informed.all > 1000 && informed.right * 100 >= informed.all * 95, "{outcome:?}");
        assert!(blind.right * 2 < blind.all, "{outcome:?}");
    }
}

/// It answers everybody, so its counter moves: no counter of its own will ever tell. That its clients are silent
/// together is what there is.
#[test]
fn a_disk_that_answers_with_errors_is_a_doubt_and_no_more() {
    let answers = answers(&scenario(), Breakdown::DiskErrors, SETTLED_INFORMED);
    assert_eq!(worths(&answers), [0, 10, 0], "{answers:?}");
    assert!(answers.iter().all(|answer| answer.found == Found::Several && answer.worth == Worth::Open));
}
