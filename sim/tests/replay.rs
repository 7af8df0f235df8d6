//! One run, all detectors: replays on what one monitor observed, against monitors that run with those detectors.

use backdoor_core::Nanos;
use backdoor_core::detector::{
    Bertier, BertierGains, DeadlineDetector, Detector, Duty, Heartbeat, NfdE, NfdU, PhiExponential, PhiNormal,
    PullScore, Satzger, Schedule, Sfd, Tuned, TwoWindows, normal_tail_quantile,
};
use backdoor_core::progress_box::EntityRecord;
use backdoor_sim::cluster::mode::Mode;
use backdoor_sim::cluster::{
    Alone, Deadlines, Mark, NodeObservation, Observation, Scenario, Settings, observe, record, verdicts_by,
};
use backdoor_sim::dist::Dist;
use backdoor_sim::faults::{Arrivals, FaultOptions};
use backdoor_sim::metrics::{detection, replayed};
use backdoor_sim::streams::{StreamKey, Streams};
use backdoor_sim::workload::{Activity, Pauses};

const fn ms(n: u64) -> Nanos {
    Nanos::from_millis(n)
}

fn dist(text: &str) -> Dist {
    text.parse().unwrap()
}

fn streams() -> Streams {
    Streams::new(StreamKey { seed: 7, experiment: "replay", point: "", replication: 0 })
}

/// Load, pauses, loss, requests, and faults at all levels that overlap and are mended soon.
fn troubled(mode: Mode) -> Scenario {
    let mut scenario = Scenario { mode, nodes: 2, load: 5, duration: ms(2_000), ..Scenario::default() };
    scenario.workload.applications = 2;
    scenario.workload.sessions = 3;
    scenario.workload.tick_interval = ms(1);
    scenario.workload.loop_interval = ms(1);
    scenario.workload.loop_jitter = dist("exp:500us");
    scenario.workload.request_interval = dist("exp:20ms");
    scenario.workload.service_work = dist("exp:300us");
    scenario.workload.pauses = Some(Pauses { interval: dist("exp:1s"), length: dist("exp:20ms") });
    scenario.network_delay = dist("exp:50us");
    scenario.network_loss = 0.01;
    scenario.faults = FaultOptions {
        arrivals: Arrivals::Poisson { per_second: 2.0 },
        repair_after: Some(dist("exp:150ms")),
        ..FaultOptions::default()
    };
    scenario
}

/// The replay's marks for each of `knobs`, and for one detector alone, beside those of monitors with that detector.
#[track_caller]
fn agree<D: Tuned + 'static>(
    (scenario, run): (&Scenario, &Observation),
    name: &str,
    knobs: &[D::Knob],
    make: impl Fn(&EntityRecord, Nanos, D::Knob) -> D + Clone + Send + 'static,
) where
    D::Knob: Send,
{
    let ladders = |node: &NodeObservation| {
        let ladder = |record: &EntityRecord, now| Settings { detector: make(record, now, knobs[0]), knobs };
        node.suspicions(&node.evidence, knobs.len(), |record, now| Some(ladder(record, now)))
    };
    let rungs: Vec<_> = run.nodes.iter().map(ladders).collect();
    let mut marks = 0;
    for (rung, knob) in knobs.iter().copied().enumerate() {
        let made = make.clone();
        let logs = told(scenario, move |record, now| made(record, now, knob));
        for ((log, node), rungs) in logs.iter().zip(&run.nodes).zip(&rungs) {
            let replayed = node.marks(&rungs[rung]);
            assert!(*log == replayed, "{name}, rung {rung}: {:?}", first_difference(log, &replayed));
            marks += log.len();
        }
    }
    assert!(marks > 20, "{name}: only {marks} verdicts");
}

/// The same for a detector alone.
#[track_caller]
fn agrees<D: Detector>(
    (scenario, run): (&Scenario, &Observation),
    name: &str,
    make: impl Fn(&EntityRecord, Nanos) -> D + Clone + Send + 'static,
) {
    let logs = told(scenario, make.clone());
    let mut marks = 0;
    for (log, node) in logs.iter().zip(&run.nodes) {
        let rungs = node.suspicions(&node.evidence, 1, |record, now| Some(Alone(make(record, now))));
        let replayed = node.marks(&rungs[0]);
        assert!(*log == replayed, "{name}: {:?}", first_difference(log, &replayed));
        marks += log.len();
    }
    assert!(marks > 20, "{name}: only {marks} verdicts");
}

fn told<D: Detector>(
    scenario: &Scenario,
    make: impl Fn(&EntityRecord, Nanos) -> D + Clone + Send + 'static,
) -> Vec<Vec<Mark>> {
    verdicts_by(scenario, &streams(), make).unwrap().into_iter().map(|log| log.marks).collect()
}

fn first_difference<'a>(log: &'a [Mark], replayed: &'a [Mark]) -> Option<(&'a Mark, &'a Mark)> {
    log.iter().zip(replayed).find(|(a, b)| a != b)
}

#[test]
fn an_observation_tells_what_every_detector_would_have_said() {
    let period = ms(1);
    let start = |now| Heartbeat { number: 0, at: now };
    let schedule = move |now| Schedule { period, number: 0, at: now };
    let gains = |phi| BertierGains { phi, ..BertierGains::default() };
    for (mode, activity) in Mode::ALL.into_iter().zip([Activity::Kernel, Activity::Handler].repeat(2)) {
        let mut scenario = troubled(mode);
        // What the handler keeps from the monitor, its gauge tells.
        (scenario.workload.activity, scenario.workload.pending_gauges) = (activity, activity == Activity::Handler);
        let run = observe(&scenario, &streams()).unwrap();
        let on = (&scenario, &run);
        let margins = [2, 5, 30].map(ms);
        agree(on, "deadline", &margins, |_, now, knob| DeadlineDetector::new(knob, now));
        agree(on, "nfd-e", &margins, move |_, now, knob| NfdE::new(period, knob, 32, start(now)));
        agree(on, "nfd-u", &[ms(50), ms(900)], move |_, now, knob| NfdU::new(schedule(now), knob, start(now)));
        agree(on, "2w-fd", &margins, move |_, now, knob| TwoWindows::new(period, knob, (1, 200), start(now)));
        let bertier = move |_: &EntityRecord, now, phi| Bertier::new(period, Nanos::ZERO, 100, gains(phi), start(now));
        agree(on, "bertier", &[1.0, 8.0], bertier);
        let z = [0.5, 8.0].map(normal_tail_quantile);
        let phi = |z: f64| if z < 2.0 { 0.5 } else { 8.0 };
        let normal = move |_: &EntityRecord, now, z| PhiNormal::new(phi(z), 200, Nanos(50_000), period, now);
        agree(on, "phi", &z, normal);
        agree(on, "phi exp", &[0.7, 2.5], move |_, now, phi| PhiExponential::new(phi, 200, period, now));
        agree(on, "satzger", &[1.0, 3.0], move |_, now, stretch| Satzger::new(0.9, 200, stretch, period, now));
        agrees(on, "pull score", move |_, now| PullScore::new(period, now));
        let duty = move |_: &EntityRecord, now| Duty::new(ms(3), now);
        let logs = told(&scenario, duty);
        for (log, node) in logs.iter().zip(&run.nodes) {
            let replayed = node.marks(&node.suspicions_by_sample(duty));
            assert!(*log == replayed, "duty: {:?}", first_difference(log, &replayed));
            assert!(log.len() > 10, "duty: only {} verdicts", log.len());
            // On the monitor's clock it makes no difference how it is replayed.
            let deadline = |_: &EntityRecord, now| DeadlineDetector::new(ms(3), now);
            let fast = node.suspicions(&node.evidence, 1, |record, now| Some(Alone(deadline(record, now))));
            assert!(node.suspicions_by_sample(deadline) == fast[0], "deadline, by sample");
            assert_ne!(replayed, node.marks(&fast[0]), "the clocks differ under load");
        }
        agrees(on, "sfd", move |_, now| Sfd::new(schedule(now), ms(800), ms(9), start(now)));
    }
}

/// So that the replay is judged as records of silences are, whose judge is tested on its own.
#[test]
fn replayed_deadlines_are_judged_as_recorded_silences_are() {
    for mode in Mode::ALL {
        let scenario = Scenario { duration: ms(8_000), ..troubled(mode) };
        let deadlines = [3, 8, 40].map(ms);
        let run = observe(&scenario, &streams()).unwrap();
        let recorded = record(&scenario, &streams(), deadlines[0]).unwrap();
        let of_node = |node: &NodeObservation| {
            node.suspicions(&node.evidence, 3, |_, now| {
                Some(Settings { detector: DeadlineDetector::new(deadlines[0], now), knobs: &deadlines })
            })
        };
        let suspicions: Vec<_> = run.nodes.iter().map(of_node).collect();
        let judged = detection(&recorded, &deadlines.map(Deadlines::all));
        let mut found = 0;
        for (quality, mut expected) in replayed(&run, &suspicions).into_iter().zip(judged) {
            expected.levels.iter_mut().for_each(|level| level.diagnosed_right = 0);
            assert_eq!(quality, expected.levels, "{mode}");
            found += quality.iter().map(|level| level.detected + level.false_positives).sum::<u64>();
        }
        assert!(found > 100, "{mode}: {found}");
        for (node, other) in run.nodes.iter().zip(&recorded.nodes) {
            assert_eq!((node.stats, &node.failures), (other.stats, &other.failures), "{mode}");
        }
    }
}

/// Who is suspected all the time makes no mistakes that could be counted: the time tells.
#[test]
fn suspicion_without_end_lingers() {
    let scenario = Scenario { duration: ms(3_000), ..Scenario::default() };
    let run = observe(&scenario, &streams()).unwrap();
    let node = &run.nodes[0];
    // As if heartbeats came ten times as often as they do.
    let start = |now| Heartbeat { number: 0, at: now };
    let suspicions =
        node.suspicions(&node.evidence, 1, |_, now| Some(Alone(NfdE::new(ms(1), ms(1), 1000, start(now)))));
    let [os, ..] = &replayed(&run, &[suspicions])[0];
    assert_eq!((os.false_positives, os.query_accuracy()), (0, 1.0));
    assert_eq!(os.lingering, os.up_time);
}
