//! Simulated quality of service of failure detectors, against closed forms and published numbers.

use backdoor_core::Nanos;
use backdoor_core::detector::{Detector, Heartbeat, PhiExponential};
use backdoor_sim::qos::closed::{self, ClosedForm};
use backdoor_sim::qos::configure::{Requirements, configure};
use backdoor_sim::qos::delay::{Delay, Recorded};
use backdoor_sim::qos::measures::Measures;
use backdoor_sim::qos::rare;
use backdoor_sim::qos::replication::{Goal, Outcome, Totals, replicate};
use backdoor_sim::qos::setting::{DetectorKind, Setting};
use backdoor_sim::stats::Estimate;

use crate::case::{Case, Round};
use crate::table::{Comparison, Known};

/// Heartbeats of the published numbers: every second, 1% lost, 20 ms on average.
const PUBLISHED: (f64, f64, &str) = (1.0, 0.01, "exp:20ms");

fn seconds(s: f64) -> Nanos {
    Nanos::from_secs_f64(s)
}

fn delay(text: &str) -> Delay {
    match text.strip_prefix("recorded:") {
        // Three delays of a fast path, and one of a slow.
        Some(ms) => {
            let delays = ms.split(' ').map(|ms| Nanos::from_millis(ms.parse().expect("a number")));
            Delay::Recorded(Recorded::new(delays.collect()).expect("some delays"))
        }
        None => Delay::Law(text.parse().expect("a distribution")),
    }
}

fn setting(detector: DetectorKind, (period_s, loss, law): (f64, f64, &str)) -> Setting {
    let setting = Setting { detector, period: seconds(period_s), loss, delay: delay(law), poll: None };
    setting.check().expect("a possible setting");
    setting
}

/// As the table calls it.
fn name(setting: &Setting) -> String {
    let detector = match setting.detector {
        DetectorKind::Deadline { timeout } => format!("deadline {timeout}"),
        DetectorKind::Sfd { cutoff, timeout } => format!("SFD, c {cutoff}, TO {timeout}"),
        DetectorKind::NfdS { shift } => format!("NFD-S, δ {shift}"),
        DetectorKind::NfdU { margin } => format!("NFD-U, α {margin}"),
        DetectorKind::NfdE { margin, window } => format!("NFD-E, α {margin}, n {window}"),
        DetectorKind::PhiNormal { threshold, window, .. } => format!("φ normal, Φ {threshold}, n {window}"),
        DetectorKind::PhiExponential { threshold, window } => format!("φ exponential, Φ {threshold}, n {window}"),
        other => format!("{other:?}"),
    };
    format!("{detector}; η {}, p_L {}, D {}", setting.period, setting.loss, setting.delay)
}

/// Which measures are compared.
#[derive(Clone, Copy)]
enum Which {
    All,
    Mistakes,
    /// The mean of T_D alone.
    Detection,
}

/// The measures of a setting beside what they should be.
fn compare(name: &str, measures: &Measures, form: &ClosedForm, which: Which, replications: u64) -> Vec<Comparison> {
    let mut rows = Vec::new();
    let mut row = |measure, found: Option<Estimate>, known| {
        // Where nothing was seen there is no interval, and the comparison fails.
        let found = found.unwrap_or(Estimate::exact(0.0));
        rows.push(Comparison { setting: name.into(), measure, found, known, replications });
    };
    if !matches!(which, Which::Mistakes) {
        row("E(T_D), s", measures.t_d_mean_s, Known::Mean(form.t_d_mean_s));
    }
    if let (Which::All, Some(bound)) = (which, form.t_d_max_s) {
        row("longest T_D, s", measures.t_d_max_s.map(Estimate::exact), Known::Bound(bound));
    }
    if !matches!(which, Which::Detection) {
        row("E(T_MR), s", measures.t_mr_s, Known::Mean(form.t_mr_s));
        row("E(T_M), s", measures.t_m_s, Known::Mean(form.t_m_s.unwrap_or(f64::NAN)));
        // Nearer to 1, it is 1 to a machine.
        if form.p_a < 1.0 - 1e-11 {
            row("P_A", measures.p_a, Known::Mean(form.p_a));
        }
    }
    rows
}

/// Whole cycles of mistakes, then crashes.
fn simulate(setting: &Setting, mistakes: u64, crashes: u32, point: &str, round: Round) -> Measures {
    // Where no mistakes are asked for, nobody waits for one.
    let heartbeats = if mistakes == 0 { 0 } else { u64::MAX };
    let goal = Goal { mistakes, heartbeats, crashes };
    let one = |streams| replicate(setting, goal, &streams, &|| false).expect("nobody says stop");
    Measures::of(&round.streams(point).map(one).collect::<Vec<Outcome>>())
}

fn direct(setting: Setting, mistakes: u64, form: ClosedForm, which: Which) -> Case {
    let crashes = if matches!(which, Which::Mistakes) { 0 } else { 50 };
    Case::new(name(&setting), move |name, round| {
        compare(name, &simulate(&setting, mistakes, crashes, name, round), &form, which, round.replications())
    })
}

fn known(setting: &Setting) -> ClosedForm {
    closed::of(setting).expect("a closed form")
}

/// Mistakes of each replication, in settings where they are frequent.
const MISTAKES: u64 = 50;

/// NFD-S over periods, shifts, losses and laws: theorem 5 of Chen, Toueg and Aguilera.
pub(crate) fn nfd_s() -> Vec<Case> {
    let grid = [
        (0.1, PUBLISHED),
        (0.5, PUBLISHED),
        (0.02, (1.0, 0.0, "exp:20ms")),
        (0.35, (1.0, 0.2, "exp:300ms")),
        (0.25, (0.1, 0.1, "exp:100ms")),
        (3.0, (10.0, 0.5, "exp:2s")),
        (0.1, (0.1, 0.3, "const:30ms")),
        (0.25, (0.1, 0.5, "const:30ms")),
        (0.03, (1.0, 0.05, "uniform:0s:50ms")),
        (1.4, (1.0, 0.02, "uniform:200ms:1800ms")),
        (0.4, (1.0, 0.05, "normal:250ms:100ms")),
        (0.05, (1.0, 0.05, "normal:0s:100ms")),
        (0.02, (0.01, 0.05, "lognormal:8ms:9ms")),
        (0.015, (0.01, 0.05, "pareto:2ms:1.2")),
        (0.02, (0.01, 0.0, "pareto:5ms:2.5")),
        (0.025, (0.02, 0.1, "recorded:3 5 11 60")),
    ];
    let case = |(shift, heartbeats)| {
        let setting = setting(DetectorKind::NfdS { shift: seconds(shift) }, heartbeats);
        let form = known(&setting);
        direct(setting, MISTAKES, form, Which::All)
    };
    grid.map(case).into()
}

/// NFD-U, and the two timeouts.
pub(crate) fn others() -> Vec<Case> {
    let nfd_u = |margin| DetectorKind::NfdU { margin: seconds(margin) };
    let sfd = |cutoff, timeout| DetectorKind::Sfd { cutoff: seconds(cutoff), timeout: seconds(timeout) };
    let deadline = |timeout| DetectorKind::Deadline { timeout: seconds(timeout) };
    let grid = [
        (nfd_u(0.08), PUBLISHED),
        (nfd_u(0.05), (1.0, 0.05, "exp:50ms")),
        (nfd_u(0.12), (0.1, 0.2, "lognormal:30ms:40ms")),
        (nfd_u(0.6), (1.0, 0.1, "uniform:200ms:1800ms")),
        (sfd(0.04, 1.06), PUBLISHED),
        (sfd(0.16, 1.9), (1.0, 0.1, "exp:100ms")),
        (sfd(0.03, 0.115), (0.1, 0.2, "normal:20ms:8ms")),
        (sfd(0.006, 0.024), (0.01, 0.1, "lognormal:3ms:3ms")),
        (deadline(1.03), PUBLISHED),
        (deadline(0.108), (0.1, 0.05, "normal:20ms:5ms")),
        (deadline(0.25), (0.1, 0.3, "uniform:10ms:90ms")),
        (deadline(0.25), (0.1, 0.4, "const:30ms")),
    ];
    let case = |(detector, heartbeats)| {
        let setting = setting(detector, heartbeats);
        let form = known(&setting);
        direct(setting, MISTAKES, form, Which::All)
    };
    grid.map(case).into()
}

/// Detectors that estimate, where long windows or constant delays make their behaviour known.
pub(crate) fn adaptive() -> Vec<Case> {
    let factor = 8.0 * std::f64::consts::LN_10;
    let convicts = |heartbeats: (f64, f64, &str)| {
        let setting = setting(DetectorKind::PhiExponential { threshold: 8.0, window: 1000 }, heartbeats);
        let (period, loss, _) = heartbeats;
        // From the last arrival, Φ·ln 10 mean intervals; losses make intervals longer and the last arrival earlier.
        let lost = loss / (1.0 - loss);
        let t_d_mean_s = (factor * (1.0 + lost) - lost - 0.5) * period + setting.delay.mean_s();
        direct(setting, 0, ClosedForm { t_d_mean_s, ..ClosedForm::default() }, Which::Detection)
    };
    let heartbeats = (0.1, 0.0, "normal:20ms:5ms");
    let kind = DetectorKind::PhiNormal { threshold: 2.0, window: 2000, min_deviation: Nanos(1) };
    let normal = setting(kind, heartbeats);
    // Intervals of normal delays are normal with standard deviation √2·5 ms; one in a hundred exceeds Φ = 2, by E(Z − z)⁺.
    let (z, density) = (2.326_347_874_040_841_f64, 0.026_652_142_203_457_7);
    let t_m = (density / 0.01 - z) * 2f64.sqrt() * 0.005;
    let mistakes = ClosedForm { t_mr_s: 10.0, t_m_s: Some(t_m), p_a: 1.0 - t_m / 10.0, ..ClosedForm::default() };
    vec![
        convicts((1.0, 0.0, "const:20ms")),
        convicts((1.0, 0.0, "exp:20ms")),
        convicts((0.01, 0.1, "lognormal:2ms:1ms")),
        direct(normal, MISTAKES, mistakes, Which::Mistakes),
    ]
}

/// Importance sampling of a setting.
fn sampled(setting: Setting) -> Case {
    const SAMPLES: u64 = 1000;
    assert!(rare::applies(&setting));
    let form = known(&setting);
    Case::new(name(&setting), move |name, round| {
        let one = |streams| rare::replicate(&setting, SAMPLES, &streams, &|| false).expect("nobody says stop");
        let totals: Vec<Totals> = round.streams(name).map(one).collect();
        compare(name, &Measures::of_mistakes(&totals, false), &form, Which::Mistakes, round.replications())
    })
}

/// Importance sampling where direct simulation works as well, and mistakes once a month and less often.
pub(crate) fn rare_mistakes() -> Vec<Case> {
    let nfd_s = |shift| DetectorKind::NfdS { shift: seconds(shift) };
    let sfd = |cutoff, timeout| DetectorKind::Sfd { cutoff: seconds(cutoff), timeout: seconds(timeout) };
    let deadline = |timeout| DetectorKind::Deadline { timeout: seconds(timeout) };
    let grid = [
        (nfd_s(0.1), PUBLISHED),
        (nfd_s(0.35), (1.0, 0.2, "exp:300ms")),
        (nfd_s(1.4), (1.0, 0.02, "uniform:200ms:1800ms")),
        (sfd(0.04, 1.06), PUBLISHED),
        (deadline(1.03), PUBLISHED),
        (nfd_s(1.1), PUBLISHED),
        (nfd_s(20.0235), (9.9765, 0.01, "exp:20ms")),
        (DetectorKind::NfdU { margin: seconds(3.0) }, PUBLISHED),
        (sfd(0.16, 4.0), PUBLISHED),
        (deadline(4.05), PUBLISHED),
        (nfd_s(2.0), (1.0, 0.0, "lognormal:100ms:100ms")),
        (nfd_s(0.1), (0.1, 0.0, "normal:20ms:10ms")),
        (nfd_s(9.0), PUBLISHED),
    ];
    grid.map(|(detector, heartbeats)| sampled(setting(detector, heartbeats))).into()
}

/// The published rows of NFD-E, n = 32, α = T_D^U − E(D) − η: its time between mistakes is nearly that of NFD-S.
pub(crate) fn published_nfd_e() -> Vec<Case> {
    let case = |(detection_time, t_mr_s): (f64, f64)| {
        let kind = DetectorKind::NfdE { margin: seconds(detection_time - 0.02 - 1.0), window: 32 };
        let setting = setting(kind, PUBLISHED);
        Case::new(name(&setting), move |name, round| {
            let measures = simulate(&setting, if t_mr_s > 1000.0 { 12 } else { 100 }, 0, name, round);
            let form = ClosedForm { t_mr_s, ..ClosedForm::default() };
            let rows = compare(name, &measures, &form, Which::Mistakes, round.replications());
            rows.into_iter().filter(|row| row.measure.starts_with("E(T_MR)")).collect()
        })
    };
    [(1.1, 60.2), (1.5, 101.0), (2.1, 6004.0)].map(case).into()
}

fn printed(setting: impl Into<String>, measure: &'static str, value: f64, known: f64, decimals: usize) -> Case {
    Case::new(setting.into(), move |name, _| {
        let (found, known) = (Estimate::exact(value), Known::Printed(known, decimals));
        vec![Comparison { setting: name.into(), measure, found, known, replications: 0 }]
    })
}

/// Numbers without chance, against those printed: NFD-S, the configurator, φ.
pub(crate) fn computed() -> Vec<Case> {
    let mut cases = Vec::new();
    for (detection_time, t_mr, mr_decimals, t_m, p_a, p_decimals) in
        [(1.1, 60.59, 2, 0.566, 0.99066, 5), (1.5, 101.01, 2, 0.530, 0.994752, 6), (2.1, 6059.2, 1, 0.566, 0.999907, 6)]
    {
        let setting = setting(DetectorKind::NfdS { shift: seconds(detection_time - 1.0) }, PUBLISHED);
        let (form, name) = (known(&setting), format!("T_D^U {detection_time} s: {}", name(&setting)));
        cases.push(printed(&name, "E(T_MR), s", form.t_mr_s, t_mr, mr_decimals));
        cases.push(printed(&name, "E(T_M), s", form.t_m_s.unwrap_or(f64::NAN), t_m, 3));
        cases.push(printed(&name, "P_A", form.p_a, p_a, p_decimals));
    }
    let required = Requirements {
        detection_time: Nanos::from_secs(30),
        recurrence: Nanos::from_secs(30 * 86_400),
        duration: Nanos::from_secs(60),
    };
    let found = configure(required, 0.01, &delay("exp:20ms")).expect("possible").expect("there is one");
    let name = "configurator: T_D^U 30 s, T_MR^L 30 days, T_M^U 60 s, p_L 0.01, D exp:20ms";
    cases.push(printed(name, "η, s", found.period.as_secs_f64(), 9.97, 2));
    cases.push(printed(name, "δ, s", found.shift.as_secs_f64(), 20.03, 2));
    let mut phi = PhiExponential::new(8.0, 100, Nanos::from_secs(1), Nanos::ZERO);
    (1..=200).for_each(|second| phi.progressed(Heartbeat { number: second, at: Nanos::from_secs(second) }));
    let convicted = (phi.fresh_until() - phi.last_progress()).as_secs_f64();
    cases.push(printed("φ exponential, Φ 8, an arrival each second", "silence convicted, s", convicted, 18.42, 2));
    cases
}
