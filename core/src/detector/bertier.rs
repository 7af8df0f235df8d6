//! Bertier's detector: NFD-E's estimate of the next arrival, with a margin that follows how wrong the estimates were.
//!
//! With each heartbeat *k*, by Jacobson's estimator of round trip times:
//!
//! ```text
//! error = A_k − EA_k − delay            EA_k: what was expected before it came
//! delay = delay + γ·error
//! var   = var + γ·(|error| − var)
//! α     = β·delay + φ·var               τ_{k+1} = EA_{k+1} + α
//! ```
//!
//! Source: Bertier, Marin and Sens, *Implementation and Performance Evaluation of an Adaptable Failure Detector*, DSN
//! 2002, section 4.2, with γ = 0.1, β = 1, φ = 4; Jacobson, *Congestion Avoidance and Control*, SIGCOMM 1988.
//!
//! When arrivals are regular, var goes to zero and the margin with it: quick, and prone to mistakes, on good networks.

use super::schedule::Schedule;
use super::window::Window;
use super::{Detector, Heartbeat, Tuned};
use crate::Nanos;

/// How the margin follows the errors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BertierGains {
    /// Weight of the last error, γ: 0 to 1.
    pub gamma: f64,
    /// Weight of the mean error in the margin, β.
    pub beta: f64,
    /// Weight of the mean absolute error in the margin, φ.
    pub phi: f64,
}

impl Default for BertierGains {
    /// Those of the paper.
    fn default() -> Self {
        BertierGains { gamma: 0.1, beta: 1.0, phi: 4.0 }
    }
}

/// Trusts up to an adaptive margin after the next heartbeat's estimated arrival.
#[derive(Clone, Debug)]
pub struct Bertier {
    schedule: Schedule,
    gains: BertierGains,
    lateness: Window,
    newest: Heartbeat,
    delay_ns: f64,
    var_ns: f64,
}

impl Bertier {
    /// With a heartbeat every `period`, estimates from the last `window` heartbeats (1 to
    /// [`MAX_WINDOW`](super::MAX_WINDOW); 1000 in the source), and a `margin` before anything is known of errors. Starts
    /// as if heartbeat `start.number` had come at `start.at`. Gains that are not finite count as zero.
    pub fn new(period: Nanos, margin: Nanos, window: usize, gains: BertierGains, start: Heartbeat) -> Self {
        let schedule = Schedule { period, number: start.number, at: start.at };
        let finite = |gain: f64| if gain.is_finite() { gain } else { 0.0 };
        let gains = BertierGains { gamma: finite(gains.gamma), beta: finite(gains.beta), phi: finite(gains.phi) };
        let var_ns = if gains.phi > 0.0 { margin.0 as f64 / gains.phi } else { 0.0 };
        Bertier { schedule, gains, lateness: Window::new(window), newest: start, delay_ns: 0.0, var_ns }
    }
}

impl Detector for Bertier {
    #[inline]
    fn progressed(&mut self, heartbeat: Heartbeat) {
        if heartbeat.number > self.newest.number {
            let lateness = self.schedule.lateness(heartbeat);
            let error = lateness.saturating_sub(self.lateness.mean()) as f64 - self.delay_ns;
            self.delay_ns += self.gains.gamma * error;
            self.var_ns += self.gains.gamma * (error.abs() - self.var_ns);
            self.lateness.push(lateness);
            self.newest = heartbeat;
        }
    }

    #[inline]
    fn last_progress(&self) -> Nanos {
        self.newest.at
    }

    #[inline]
    fn fresh_until(&self) -> Nanos {
        self.fresh_until_with(self.gains.phi)
    }
}

/// By the weight of the mean absolute error, φ. A margin before anything is known of errors was made of the detector's own.
impl Tuned for Bertier {
    type Knob = f64;

    #[inline]
    fn fresh_until_with(&self, phi: f64) -> Nanos {
        // The cast saturates.
        let margin = (self.gains.beta * self.delay_ns + phi * self.var_ns) as i64;
        self.schedule.after_next(self.newest.number, self.lateness.mean().saturating_add(margin))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// η = 1000, n = 2, γ = 0.5, β = 1, φ = 4, no margin at first. Worked by hand:
    /// 1: late 100, expected 0: error 100, delay 50, var 50, α 250; EA_2 = 2100.
    /// 2: late 200, expected 100: error 50, delay 75, var 50, α 275; EA_3 = 3150.
    #[test]
    fn the_margin_follows_the_errors() {
        let gains = BertierGains { gamma: 0.5, ..BertierGains::default() };
        let mut detector = Bertier::new(Nanos(1000), Nanos::ZERO, 2, gains, Heartbeat { number: 0, at: Nanos(0) });
        assert_eq!(detector.fresh_until(), Nanos(1000));
        detector.progressed(Heartbeat { number: 1, at: Nanos(1100) });
        assert_eq!(detector.fresh_until(), Nanos(2100 + 250));
        detector.progressed(Heartbeat { number: 2, at: Nanos(2200) });
        assert_eq!(detector.fresh_until(), Nanos(3150 + 275));
        detector.progressed(Heartbeat { number: 1, at: Nanos(2300) });
        assert_eq!(detector.fresh_until(), Nanos(3150 + 275), "stale");
    }

    #[test]
    fn the_first_margin_is_the_one_asked_for() {
        let start = Heartbeat { number: 0, at: Nanos(0) };
        let detector = Bertier::new(Nanos(1000), Nanos(80), 10, BertierGains::default(), start);
        assert_eq!(detector.fresh_until(), Nanos(1080));
    }
}
