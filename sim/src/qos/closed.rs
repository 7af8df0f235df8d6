//! Exact values of the measures, where they are known.
//!
//! # NFD-S and NFD-U
//! With k = ⌈δ/η⌉, p_j(x) = p_L + (1 − p_L)·P(D > δ + x − jη), q₀ = (1 − p_L)·P(D < δ + η), u(x) = Π_{j=0..k} p_j(x) and
//! p_s = q₀·u(0), Chen, Toueg and Aguilera 2002 have (theorem 5)
//!
//! ```text
//! E(T_MR) = η/p_s      E(T_M) = ∫₀^η u(x) dx / p_s      P_A = 1 − (1/η)·∫₀^η u(x) dx      T_D ≤ δ + η
//! ```
//!
//! u(x) is the probability that at τ_i + x none of the heartbeats that would be fresh has come; a mistake begins at τ_i if
//! none has by then, and heartbeat i − 1 had come before τ_i. NFD-U is NFD-S with δ = E(D) + α.
//!
//! E(T_D) is ours: the lasting suspicion begins at τ_{ℓ+1}, with ℓ the last heartbeat that comes before it is stale. Of
//! those sent before the crash each is such a one with probability q₀; with φ the time from the last sending to the crash,
//! uniform on [0, η),
//!
//! ```text
//! E(T_D) = Σ_{g≥0} q₀(1 − q₀)^g · E(δ + (1 − g)η − φ)⁺
//! ```
//!
//! # Timeouts: the deadline and SFD
//! Each accepted heartbeat is good for TO. Where accepted heartbeats never overtake each other (a cutoff c ≤ η, or delays
//! beyond η of less than 10⁻¹² probability), they follow each other after Nη + D′ − D, with N geometric with parameter
//! q = (1 − p_L)·P(D ≤ c), and D, D′ of the law of accepted delays; with G that gap and by renewal,
//!
//! ```text
//! λ_M = (q/η)·P(G > TO)      E(T_M) = E(G − TO)⁺ / P(G > TO)      P_A = 1 − (q/η)·E(G − TO)⁺
//! E(T_D) = Σ_{g≥0} q(1 − q)^g · E(TO − gη + D − φ)⁺
//! ```

use super::delay::Delay;
use super::integrate::{integrate, integrate_steps, rule_nodes};
use super::setting::{DetectorKind, Setting};

/// Expected values; what has no bound or no value is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ClosedForm {
    /// Upper bound of T_D, in seconds.
    pub t_d_max_s: Option<f64>,
    /// E(T_D), in seconds.
    pub t_d_mean_s: f64,
    /// E(T_MR), in seconds; infinite if there are no mistakes.
    pub t_mr_s: f64,
    /// E(T_M), in seconds; `None` if there are no mistakes.
    pub t_m_s: Option<f64>,
    /// P_A.
    pub p_a: f64,
    /// λ_M, per second.
    pub lambda_m_per_s: f64,
}

const NS: f64 = 1e-9;

/// The closed form of a setting, if there is one.
pub fn of(setting: &Setting) -> Option<ClosedForm> {
    if setting.poll.is_some() {
        return None;
    }
    let (period, loss, delay) = (setting.period.0 as f64, setting.loss, &setting.delay);
    match setting.detector {
        DetectorKind::NfdS { shift } => nfd_s(period, shift.0 as f64, loss, delay),
        DetectorKind::NfdU { margin } => {
            let mean_delay = (delay.mean_s() / NS).round();
            nfd_s(period, mean_delay + margin.0 as f64, loss, delay)
        }
        DetectorKind::Sfd { cutoff, timeout } => timeouts(period, timeout.0 as f64, Some(cutoff.0 as f64), loss, delay),
        DetectorKind::Deadline { timeout } | DetectorKind::Duty { timeout } => {
            timeouts(period, timeout.0 as f64, None, loss, delay)
        }
        _ => None,
    }
}

/// u(x) of NFD-S; times in nanoseconds.
fn unfresh(x: f64, period: f64, shift: f64, loss: f64, delay: &Delay) -> f64 {
    let last = (shift / period).ceil() as u64;
    let mut product = 1.0;
    // From the youngest heartbeat to the oldest. Factors of 1 are those of heartbeats that are not sent by then.
    for j in (0..=last).rev() {
        product *= loss + (1.0 - loss) * delay.above(shift + x - j as f64 * period);
        if product == 0.0 {
            break;
        }
    }
    product
}

/// NFD-S with period η, shift δ, in nanoseconds. `None` if the shift is more than a million periods.
pub fn nfd_s(period: f64, shift: f64, loss: f64, delay: &Delay) -> Option<ClosedForm> {
    let last = (shift / period).ceil();
    if last > 1e6 {
        return None;
    }
    // u changes where a heartbeat's age is at a corner of the delay's law, or passes through its bulk.
    let mut corners = Vec::new();
    let ages = landmarks(delay);
    for j in 0..=last as u64 {
        let age = shift - j as f64 * period;
        corners.extend(ages.iter().map(|corner| corner - age).filter(|x| *x > 0.0 && *x < period));
    }
    let u = &mut |x| unfresh(x, period, shift, loss, delay);
    let never_fresh = integral(u, 0.0, period, &corners, delay);
    let in_time = (1.0 - loss) * delay.below(shift + period);
    let mistake = in_time * u(0.0);
    let mut t_d_mean = 0.0;
    let mut left = 1.0;
    for missed in 0..=last as u64 + 1 {
        t_d_mean += left * in_time * positive_part(shift + period - missed as f64 * period, period);
        left *= 1.0 - in_time;
    }
    Some(ClosedForm {
        t_d_max_s: Some((shift + period) * NS),
        t_d_mean_s: t_d_mean * NS,
        t_mr_s: period * NS / mistake,
        t_m_s: (mistake > 0.0).then(|| never_fresh * NS / mistake),
        p_a: 1.0 - never_fresh / period,
        lambda_m_per_s: mistake / (period * NS),
    })
}

/// Timeouts restarted by each heartbeat no slower than `cutoff`; times in nanoseconds.
fn timeouts(period: f64, timeout: f64, cutoff: Option<f64>, loss: f64, delay: &Delay) -> Option<ClosedForm> {
    let most = cutoff.unwrap_or(f64::INFINITY);
    let tail = delay.above(most.min(1e300));
    // Longer delays than this don't happen, to within 10^-13.
    let longest = most.min(delay.quantile_above(1e-13));
    if longest > period && delay.above(period) > 1e-12 || delay.corners().len() > 2 {
        return None;
    }
    let accepted = (1.0 - loss) * (1.0 - tail);
    if accepted <= 0.0 || timeout / period > 1e6 {
        return None;
    }
    let nodes = Nodes::of(|v| delay.quantile_above(tail + (1.0 - tail) * v).min(longest));
    let longer = |x: f64| ((delay.above(x) - tail) / (1.0 - tail)).clamp(0.0, 1.0);
    // P(D' - D > y); for a negative y by symmetry, so that what is integrated is small where it is hard to integrate.
    let difference = |y: f64| match y {
        y if y >= longest => 0.0,
        y if y < -longest => 1.0,
        y if y < 0.0 => 1.0 - nodes.mean(|d| longer(d - y)),
        y => nodes.mean(|d| longer(d + y)),
    };
    let (mut beyond, mut excess, mut t_d_mean, mut left) = (0.0, 0.0, 0.0, accepted);
    for count in 1u64.. {
        let y = timeout - count as f64 * period;
        let reach = y + period;
        if reach + longest > 0.0 {
            t_d_mean += left * nodes.mean(|d| positive_part(reach + d, period));
        }
        if y < longest {
            beyond += left * difference(y);
            excess += left * if y <= -longest { -y } else { nodes.mean(|d| nodes.mean(|e| (e - d - y).max(0.0))) };
        }
        left *= 1.0 - accepted;
        if left == 0.0 || y < -longest && -y * left < 1e-18 * excess {
            break;
        }
    }
    let rate = accepted / (period * NS) * beyond;
    Some(ClosedForm {
        t_d_max_s: cutoff.map(|cutoff| (cutoff + timeout) * NS),
        t_d_mean_s: t_d_mean * NS,
        t_mr_s: 1.0 / rate,
        t_m_s: (beyond > 0.0).then(|| excess * NS / beyond),
        p_a: 1.0 - accepted / period * excess,
        lambda_m_per_s: rate,
    })
}

/// Points of a law, with weights: means over it are sums over them. Dense where a tail begins.
struct Nodes(Vec<(f64, f64)>);

impl Nodes {
    /// By the value that is exceeded with a probability.
    fn of(quantile: impl Fn(f64) -> f64) -> Self {
        let mut cuts: Vec<f64> = (0..=50).map(|cut| f64::from(cut) / 50.0).collect();
        cuts.extend((2..14).flat_map(|decade| [0.1f64.powi(decade), 1.0 - 0.1f64.powi(decade)]));
        cuts.sort_by(f64::total_cmp);
        let mut nodes = Vec::new();
        for piece in cuts.windows(2) {
            rule_nodes(piece[0], piece[1], |v, weight| nodes.push((quantile(v), weight)));
        }
        Nodes(nodes)
    }

    fn mean(&self, f: impl Fn(f64) -> f64) -> f64 {
        self.0.iter().map(|(x, weight)| weight * f(*x)).sum()
    }
}

/// E(a − φ)⁺ with φ uniform on [0, `period`).
fn positive_part(a: f64, period: f64) -> f64 {
    if a <= 0.0 {
        0.0
    } else if a >= period {
        a - period / 2.0
    } else {
        a * a / (2.0 * period)
    }
}

fn integral(f: &mut dyn FnMut(f64) -> f64, from: f64, to: f64, corners: &[f64], delay: &Delay) -> f64 {
    if delay.is_discrete() { integrate_steps(f, from, to, corners) } else { integrate(f, from, to, corners) }
}

/// Corners of a law, and points that its bulk lies between.
fn landmarks(delay: &Delay) -> Vec<f64> {
    let mut landmarks = delay.corners();
    if !delay.is_discrete() {
        landmarks.extend([0.999, 0.9, 0.5, 0.1, 1e-3, 1e-6, 1e-12].map(|p| delay.quantile_above(p)));
        landmarks.push(0.0);
    }
    landmarks
}

#[cfg(test)]
mod tests {
    use super::*;
    use backdoor_core::Nanos;

    fn exp_20ms() -> Delay {
        Delay::Law("exp:20ms".parse().unwrap())
    }

    fn close(found: f64, expected: f64, tolerance: f64) {
        assert!((found / expected - 1.0).abs() < tolerance, "{found} for {expected}");
    }

    /// The reference's rows: η = 1 s, p_L = 0.01, D exponential with mean 20 ms.
    #[test]
    fn nfd_s_as_published() {
        for (detection_time, t_mr, t_m, p_a) in
            [(1.1, 60.59, 0.566, 0.99066), (1.5, 101.01, 0.530, 0.994752), (2.1, 6059.2, 0.566, 0.999907)]
        {
            let form = nfd_s(1e9, (detection_time - 1.0) * 1e9, 0.01, &exp_20ms()).unwrap();
            close(form.t_mr_s, t_mr, 1e-4);
            close(form.t_m_s.unwrap(), t_m, 1e-3);
            assert!((form.p_a - p_a).abs() < 1e-6, "{} for {p_a}", form.p_a);
            close(form.t_d_max_s.unwrap(), detection_time, 1e-12);
            close(1.0 - form.p_a, form.t_m_s.unwrap() / form.t_mr_s, 1e-9);
        }
    }

    /// A second derivation for exponential delays and δ < η: u(x) = (p_L + (1−p_L)e^(−(δ+x)/m)) for x < η − δ, and times
    /// the next heartbeat's factor after that. With δ = η/2 and no loss, in elementary integrals.
    #[test]
    fn nfd_s_by_hand() {
        let (period, shift, mean) = (1e9, 0.5e9, 0.2e9);
        let delay = Delay::Law("exp:200ms".parse().unwrap());
        let form = nfd_s(period, shift, 0.0, &delay).unwrap();
        let e = |x: f64| (-x / mean).exp();
        let first = mean * (e(shift) - e(period));
        // x from η−δ to η: e^(−(δ+x)/m) · e^(−(δ+x−η)/m).
        let second = e(2.0 * shift - period) * mean / 2.0 * (e(2.0 * (period - shift)) - e(2.0 * period));
        let mistake = (1.0 - e(shift + period)) * e(shift);
        close(form.t_m_s.unwrap(), (first + second) * NS / mistake, 1e-9);
        close(form.t_mr_s, period * NS / mistake, 1e-12);
    }

    #[test]
    fn constant_delays_leave_losses_only() {
        let delay = Delay::Law("const:100ms".parse().unwrap());
        // δ = 100 ms: in time to the nanosecond. A loss is noticed then, and lasts until the next heartbeat: a period.
        let form = nfd_s(1e9, 1e8, 0.25, &delay).unwrap();
        close(form.t_mr_s, 1.0 / (0.75 * 0.25), 1e-12);
        close(form.t_m_s.unwrap(), 1.0 / 0.75, 1e-12);
        close(form.p_a, 0.75, 1e-12);
        let none = nfd_s(1e9, 1e8, 0.0, &delay).unwrap();
        assert_eq!((none.t_mr_s, none.t_m_s, none.p_a), (f64::INFINITY, None, 1.0));
        // A nanosecond less, and every heartbeat is a nanosecond late.
        let late = nfd_s(1e9, 1e8 - 1.0, 0.0, &delay).unwrap();
        close(late.t_m_s.unwrap(), 1e-9, 1e-6);
    }

    /// Without loss, and with delays too short for any doubt: E(T_D) = δ + η/2.
    #[test]
    fn detection_takes_half_a_period_less_than_its_bound() {
        let form = nfd_s(1e9, 3e8, 0.0, &Delay::Law("const:1ms".parse().unwrap())).unwrap();
        close(form.t_d_mean_s, 0.8, 1e-12);
    }

    /// Exponential delays without a cutoff and without loss: P(D' − D > y) = e^(−y/m)/2 for y > 0.
    #[test]
    fn timeouts_by_hand() {
        let detector = DetectorKind::Deadline { timeout: Nanos::from_millis(1050) };
        let setting = Setting { detector, period: Nanos::from_secs(1), loss: 0.0, delay: exp_20ms(), poll: None };
        let form = of(&setting).unwrap();
        let beyond = (-2.5f64).exp() / 2.0;
        close(form.t_mr_s, 1.0 / beyond, 1e-8);
        close(form.t_m_s.unwrap(), 0.02, 1e-6);
        close(form.t_d_mean_s, 1.05 + 0.02 - 0.5, 1e-6);
        // Losses only.
        let delay = Delay::Law("const:20ms".parse().unwrap());
        let form = of(&Setting { loss: 0.1, delay, ..setting }).unwrap();
        close(form.t_mr_s, 1.0 / (0.9 * 0.1), 1e-9);
        // Excess of n periods: n − 1.05; E = Σ_{n≥2} 0.9·0.1^(n−1)·(n − 1.05).
        let excess: f64 = (2..40).map(|n| 0.9 * 0.1f64.powi(n - 1) * (f64::from(n) - 1.05)).sum();
        close(form.p_a, 1.0 - 0.9 * excess, 1e-12);
    }
}
