//! What every detector promises, whatever it is told.

use super::*;
use proptest::prelude::*;

const START: Heartbeat = Heartbeat { number: 3, at: Nanos(1_000) };

/// Tells a detector of heartbeats, asking after each; answers the freshness points.
fn watch<D: Detector>(mut detector: D, heartbeats: &[Heartbeat]) -> Vec<Nanos> {
    let mut last = detector.fresh_until();
    let mut points = vec![last];
    for heartbeat in heartbeats {
        detector.progressed(*heartbeat);
        let point = detector.fresh_until();
        assert!(!D::STEADY || point >= last, "steady, and moved from {last} to {point}");
        assert!(detector.last_progress() <= heartbeat.at);
        last = point;
        points.push(point);
    }
    points
}

/// Runs `watch` with one of each detector.
fn watch_all(heartbeats: &[Heartbeat], period: Nanos, margin: Nanos, window: usize, threshold: f64) -> Vec<Vec<Nanos>> {
    let schedule = Schedule { period, number: START.number, at: START.at };
    let now = START.at;
    vec![
        watch(DeadlineDetector::new(margin, now), heartbeats),
        watch(Duty::new(margin, now), heartbeats),
        watch(NfdS::new(schedule, margin, START), heartbeats),
        watch(NfdU::new(schedule, margin, START), heartbeats),
        watch(Sfd::new(schedule, period, margin, START), heartbeats),
        watch(PullScore::new(period, now), heartbeats),
        watch(NfdE::new(period, margin, window, START), heartbeats),
        watch(TwoWindows::new(period, margin, (1, window), START), heartbeats),
        watch(Bertier::new(period, margin, window, BertierGains::default(), START), heartbeats),
        watch(PhiNormal::new(threshold, window, margin, period, now), heartbeats),
        watch(PhiExponential::new(threshold, window, period, now), heartbeats),
        watch(Satzger::new(threshold, window, threshold, period, now), heartbeats),
        watch(SilenceRecorder::new(margin, now), heartbeats),
    ]
}

/// The detector with one setting of its knob answers for another that is no smaller.
fn one_for_all<D: Tuned>(make: impl Fn(D::Knob) -> D, heartbeats: &[Heartbeat], less: D::Knob, more: D::Knob) {
    let (mut one, mut other) = (make(less), make(more));
    for heartbeat in heartbeats {
        one.progressed(*heartbeat);
        other.progressed(*heartbeat);
        assert_eq!(one.fresh_until_with(more), other.fresh_until());
        assert!(one.fresh_until() <= other.fresh_until());
    }
}

/// Increasing numbers at times that don't decrease, from the whole range.
fn heartbeats() -> impl Strategy<Value = Vec<Heartbeat>> {
    let step = prop_oneof![4 => 1u64..3, 1 => 1u64..u64::MAX / 8];
    let wait = prop_oneof![2 => Just(0u64), 6 => 0u64..5_000, 1 => 0u64..u64::MAX];
    prop::collection::vec((step, wait), 0..40).prop_map(|steps| {
        let mut last = START;
        let next = |(step, wait): (u64, u64)| {
            last = Heartbeat { number: last.number.saturating_add(step), at: last.at + Nanos(wait) };
            last
        };
        steps.into_iter().map(next).collect()
    })
}

fn spans() -> impl Strategy<Value = Nanos> {
    prop_oneof![Just(Nanos::ZERO), (0u64..10_000).prop_map(Nanos), any::<u64>().prop_map(Nanos)]
}

fn thresholds() -> impl Strategy<Value = f64> {
    prop_oneof![0.0f64..20.0, Just(f64::NAN), Just(f64::INFINITY), Just(-1.0), any::<f64>()]
}

proptest! {
    /// No sequence of heartbeats and no parameter makes a detector overflow, panic, or break its promise to be steady.
    #[test]
    fn nothing_overflows_and_the_steady_are(
        heartbeats in heartbeats(),
        period in spans(),
        margin in spans(),
        window in 0usize..20,
        threshold in thresholds(),
    ) {
        watch_all(&heartbeats, period, margin, window, threshold);
    }

    /// One detector answers for every setting of its knob, and a larger one never makes it hastier.
    #[test]
    fn the_tuned_are_those_of_every_setting(
        heartbeats in heartbeats(),
        period in (0u64..10_000).prop_map(Nanos),
        [less, more] in [(0u64..10_000).prop_map(Nanos), (0u64..10_000).prop_map(Nanos)],
        window in 1usize..20,
    ) {
        let (less, more) = (less.min(more), less.max(more));
        let [low, high] = [less, more].map(|knob| knob.0 as f64 / 100.0);
        let (schedule, now) = (Schedule { period, number: START.number, at: START.at }, START.at);
        let gains = |phi| BertierGains { phi, ..BertierGains::default() };
        one_for_all(|knob| DeadlineDetector::new(knob, now), &heartbeats, Nanos(less.0 + 1), Nanos(more.0 + 1));
        one_for_all(|knob| Sfd::new(schedule, period, knob, START), &heartbeats, less, more);
        one_for_all(|knob| NfdS::new(schedule, knob, START), &heartbeats, less, more);
        one_for_all(|knob| NfdU::new(schedule, knob, START), &heartbeats, less, more);
        one_for_all(|knob| NfdE::new(period, knob, window, START), &heartbeats, less, more);
        one_for_all(|knob| TwoWindows::new(period, knob, (1, window), START), &heartbeats, less, more);
        one_for_all(|phi| Bertier::new(period, Nanos::ZERO, window, gains(phi), START), &heartbeats, low, high);
        one_for_all(|phi| PhiExponential::new(phi, window, period, now), &heartbeats, low, high);
        one_for_all(|stretch| Satzger::new(0.9, window, stretch, period, now), &heartbeats, low, high);
        let normal = |knob| PhiNormal::new(knob, window, Nanos(5), period, now);
        let [mut one, mut other] = [low, high].map(normal);
        for heartbeat in &heartbeats {
            one.progressed(*heartbeat);
            other.progressed(*heartbeat);
            prop_assert_eq!(one.fresh_until_with(normal_tail_quantile(high)), other.fresh_until());
            prop_assert!(one.fresh_until() <= other.fresh_until());
        }
    }

    /// The freshness point depends on spans only: a later origin of time moves it by as much.
    #[test]
    fn the_origin_of_time_is_the_callers(
        waits in prop::collection::vec(0u64..5_000, 1..40),
        shift in 0u64..1 << 40,
    ) {
        let at = |origin: u64| {
            let start = Heartbeat { number: 0, at: Nanos(origin) };
            let mut now = origin;
            let mut heartbeats = Vec::new();
            for (number, wait) in waits.iter().enumerate() {
                now += wait;
                heartbeats.push(Heartbeat { number: number as u64 + 1, at: Nanos(now) });
            }
            watch(NfdE::new(Nanos(1_000), Nanos(2_000_000), 7, start), &heartbeats)
        };
        // Far enough from the origin for no point to be cut off there.
        let base = 1 << 30;
        let moved: Vec<Nanos> = at(base).into_iter().map(|point| point + Nanos(shift)).collect();
        prop_assert_eq!(at(base + shift), moved);
    }
}

#[test]
fn perfectly_regular_heartbeats_are_trusted_by_all() {
    let period = Nanos::from_millis(10);
    let heartbeats: Vec<Heartbeat> =
        (1..2_000).map(|n| Heartbeat { number: 3 + n, at: Nanos(1_000) + period * n }).collect();
    for (detector, points) in watch_all(&heartbeats, period, Nanos::from_millis(15), 100, 3.0).iter().enumerate() {
        for (point, next) in points.iter().zip(&heartbeats) {
            assert!(*point >= next.at, "detector {detector}: {point} before {}", next.at);
        }
    }
}

#[test]
fn what_was_overtaken_is_no_news() {
    let mut newest = Newest::default();
    let news: Vec<bool> = [0, 2, 1, 2, 3].into_iter().map(|number| newest.is_news(number)).collect();
    assert_eq!(news, [true, true, false, false, true]);
}
