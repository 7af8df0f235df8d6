//! Simulated quality of service against exact values and published ones. The larger grid, in release builds:
//! `cargo run --release -p backdoor-sim --example qos_validation`.

mod qos_support;

use backdoor_sim::qos::closed;
use backdoor_sim::qos::setting::DetectorKind;
use qos_support::{agree, detects, errors, sample_rare, seconds, setting, simulate};

fn nfd_s(detection_time_s: f64, period_s: f64) -> DetectorKind {
    DetectorKind::NfdS { shift: seconds(detection_time_s - period_s) }
}

#[test]
fn nfd_s_is_as_its_closed_form_over_a_grid() {
    for (period, shift, loss, delay) in [
        (1.0, 0.1, 0.01, "exp:20ms"),
        (1.0, 0.02, 0.0, "exp:20ms"),
        (1.0, 0.35, 0.2, "exp:300ms"),
        (0.1, 0.25, 0.1, "exp:100ms"),
        (0.1, 0.1, 0.3, "const:30ms"),
        (1.0, 0.03, 0.05, "uniform:0s:50ms"),
        (1.0, 1.4, 0.02, "uniform:200ms:1800ms"),
        (1.0, 0.4, 0.05, "normal:250ms:100ms"),
        (1.0, 0.05, 0.05, "normal:0s:100ms"),
        (0.01, 0.02, 0.05, "lognormal:8ms:9ms"),
        (0.01, 0.015, 0.05, "pareto:2ms:1.2"),
    ] {
        let setting = setting(DetectorKind::NfdS { shift: seconds(shift) }, period, loss, delay);
        let form = closed::of(&setting).unwrap();
        let measures = simulate(&setting, 2_000, 50);
        let name = format!("η {period}, δ {shift}, p {loss}, {delay}");
        agree(&name, &measures, &form);
        detects(&name, &measures, &form);
    }
}

#[test]
fn nfd_u_is_nfd_s_after_the_mean_delay() {
    let setting = setting(DetectorKind::NfdU { margin: seconds(0.05) }, 1.0, 0.05, "exp:50ms");
    let form = closed::of(&setting).unwrap();
    let measures = simulate(&setting, 2_000, 50);
    agree("NFD-U", &measures, &form);
    detects("NFD-U", &measures, &form);
}

#[test]
fn timeouts_are_as_their_closed_form() {
    let sfd = |cutoff, timeout| DetectorKind::Sfd { cutoff: seconds(cutoff), timeout: seconds(timeout) };
    for setting in [
        setting(sfd(0.04, 1.06), 1.0, 0.01, "exp:20ms"),
        setting(sfd(0.16, 1.9), 1.0, 0.1, "exp:100ms"),
        setting(DetectorKind::Deadline { timeout: seconds(1.03) }, 1.0, 0.01, "exp:20ms"),
        setting(DetectorKind::Deadline { timeout: seconds(0.108) }, 0.1, 0.05, "normal:20ms:5ms"),
        setting(DetectorKind::Deadline { timeout: seconds(0.25) }, 0.1, 0.3, "uniform:10ms:90ms"),
    ] {
        let form = closed::of(&setting).unwrap();
        let measures = simulate(&setting, 2_000, 50);
        let name = format!("{:?}", setting.detector);
        agree(&name, &measures, &form);
        detects(&name, &measures, &form);
    }
}

/// The reference's simulated row of NFD-E: 60.2 for a detection time of 1.1 s, with n = 32.
#[test]
fn nfd_e_is_nearly_as_good_as_nfd_s() {
    let kind = DetectorKind::NfdE { margin: seconds(1.1 - 0.02 - 1.0), window: 32 };
    let measures = simulate(&setting(kind, 1.0, 0.01, "exp:20ms"), 4_000, 0);
    let t_mr = measures.t_mr_s.unwrap();
    assert!((t_mr.value / 60.2 - 1.0).abs() < 0.05, "{t_mr:?}");
    assert!(t_mr.high.unwrap() > 58.0 && t_mr.low.unwrap() < 61.5, "{t_mr:?}");
}

#[test]
fn importance_sampling_is_as_direct_simulation_and_as_the_closed_form() {
    for setting in [
        setting(nfd_s(1.1, 1.0), 1.0, 0.01, "exp:20ms"),
        setting(DetectorKind::NfdS { shift: seconds(0.35) }, 1.0, 0.2, "exp:300ms"),
        setting(DetectorKind::NfdS { shift: seconds(1.4) }, 1.0, 0.02, "uniform:200ms:1800ms"),
        setting(DetectorKind::Sfd { cutoff: seconds(0.04), timeout: seconds(1.06) }, 1.0, 0.01, "exp:20ms"),
        setting(DetectorKind::Deadline { timeout: seconds(1.03) }, 1.0, 0.01, "exp:20ms"),
    ] {
        agree(&format!("{:?}", setting.detector), &sample_rare(&setting, 40_000), &closed::of(&setting).unwrap());
    }
}

/// The reference's third row (6059.2 s), mistakes once a month and once in ten billion years; and delays alone.
#[test]
fn mistakes_too_rare_to_wait_for() {
    for (detection_time, period, loss, delay) in [
        (2.1, 1.0, 0.01, "exp:20ms"),
        (30.0, 9.9765, 0.01, "exp:20ms"),
        (10.0, 1.0, 0.01, "exp:20ms"),
        (3.0, 1.0, 0.0, "lognormal:100ms:100ms"),
        (0.2, 0.1, 0.0, "normal:20ms:10ms"),
    ] {
        let setting = setting(nfd_s(detection_time, period), period, loss, delay);
        let (form, measures) = (closed::of(&setting).unwrap(), sample_rare(&setting, 40_000));
        agree(&format!("T_D {detection_time}, {delay}"), &measures, &form);
        assert!(measures.relative_half_width() < 0.15, "{measures:?}");
    }
}

#[test]
fn detectors_that_adapt_can_be_asked_for_any_quality() {
    let alarm = |threshold| {
        let kind = DetectorKind::PhiNormal { threshold, window: 100, min_deviation: seconds(0.001) };
        simulate(&setting(kind, 0.1, 0.0, "normal:20ms:5ms"), 400, 0)
    };
    // Differences of two normal delays are normal; so φ is what it says it is, but for the window's error.
    let rate = alarm(2.0).lambda_m_per_s.unwrap();
    assert!((0.07..0.18).contains(&rate.value), "{rate:?}: about one heartbeat in a hundred");
    assert!(alarm(1.0).lambda_m_per_s.unwrap().value > 5.0 * rate.value);
}

#[test]
fn a_poll_late_is_noticed() {
    let kind = DetectorKind::Deadline { timeout: seconds(0.015) };
    let mut polled = setting(kind, 0.01, 0.2, "const:1ms");
    polled.poll = Some(seconds(0.004));
    let measures = simulate(&polled, 400, 200);
    let longest = measures.t_d_max_s.unwrap();
    assert!(longest > 0.016 && longest <= 0.001 + 0.015 + 2.0 * 0.004, "{longest}");
    assert_eq!(closed::of(&polled), None);
}

#[test]
fn errors_are_measured_in_standard_errors() {
    let estimate = backdoor_sim::stats::Estimate { value: 2.0, low: Some(1.0), high: Some(3.0) };
    assert!((errors(Some(estimate), 1.0) - 2.022_691).abs() < 1e-9);
}
