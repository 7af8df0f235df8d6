//! From replications to estimates with 95% intervals.

use super::replication::{Detections, Outcome, Totals};
use crate::stats::{self, Estimate};

/// The measures of Chen, Toueg and Aguilera. What was not seen often enough for a value has none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measures {
    /// Longest detection time seen, in seconds.
    pub t_d_max_s: Option<f64>,
    /// Mean detection time, in seconds.
    pub t_d_mean_s: Option<Estimate>,
    /// Mean time between the beginnings of mistakes, in seconds. With no mistake, only its lower bound.
    pub t_mr_s: Option<Estimate>,
    /// Mean duration of a mistake, in seconds.
    pub t_m_s: Option<Estimate>,
    /// Probability to be right at a random instant.
    pub p_a: Option<Estimate>,
    /// Mistakes per second.
    pub lambda_m_per_s: Option<Estimate>,
    /// Mistakes that this is made of; a sum of weights with importance sampling.
    pub mistakes: f64,
    /// Time that this is made of, in seconds.
    pub time_s: f64,
    /// Whether some replication reached its cap before its mistakes.
    pub capped: bool,
}

impl Measures {
    /// Of whole replications.
    pub fn of(outcomes: &[Outcome]) -> Self {
        let cycles: Option<Vec<Totals>> = outcomes.iter().map(|outcome| outcome.cycles).collect();
        let detections: Vec<Detections> = outcomes.iter().map(|outcome| outcome.detections).collect();
        let capped = cycles.is_none();
        let totals = cycles.unwrap_or_else(|| outcomes.iter().map(|outcome| outcome.window).collect());
        let mut measures = Measures { capped, ..Measures::of_mistakes(&totals, capped) };
        measures.detected(&detections);
        measures
    }

    /// Of mistakes alone, a total for each replication. `counted` says that their number is random and each counts for
    /// one: then few of them are Poisson's, and the interval is at least as wide as his.
    pub fn of_mistakes(totals: &[Totals], counted: bool) -> Self {
        let pairs = |of: fn(&Totals) -> (f64, f64)| totals.iter().map(of).collect::<Vec<_>>();
        let (time_s, mistakes) = totals.iter().fold((0.0, 0.0), |sum, t| (sum.0 + t.time_s, sum.1 + t.mistakes));
        let spread = stats::ratio(&pairs(|t| (t.mistakes, t.time_s)));
        let lambda = match counted.then(|| stats::rate(mistakes as u64, time_s)).flatten() {
            Some(poisson) => spread.map_or(Some(poisson), |spread| Some(poisson.widened_by(spread))),
            None => spread,
        };
        let recurrence = if counted {
            lambda.and_then(inverse)
        } else {
            stats::ratio(&pairs(|t| (t.time_s, t.mistakes))).map(|t_mr| t_mr.within(0.0, f64::INFINITY))
        };
        // Where all mistakes are one total's, nothing tells how they differ: not even that they don't.
        let several = totals.iter().filter(|t| t.mistakes > 0.0).nth(1).is_some();
        let duration = stats::ratio(&pairs(|t| (t.suspected_s, t.mistakes)))
            .map(|t_m| if several { t_m } else { Estimate::exact(t_m.value) });
        Measures {
            t_mr_s: recurrence,
            t_m_s: duration.map(|t_m| t_m.within(0.0, f64::INFINITY)),
            p_a: accuracy(totals),
            lambda_m_per_s: lambda.map(|lambda| lambda.within(0.0, f64::INFINITY)),
            mistakes,
            time_s,
            ..Measures::default()
        }
    }

    /// Takes detection times in, those of each replication.
    pub fn detected(&mut self, detections: &[Detections]) {
        let seen: Vec<&Detections> = detections.iter().filter(|detections| detections.crashes > 0).collect();
        if seen.is_empty() {
            return;
        }
        self.t_d_max_s = Some(seen.iter().map(|detections| detections.max_s).fold(0.0, f64::max));
        let means: Vec<f64> = seen.iter().map(|detections| detections.sum_s / f64::from(detections.crashes)).collect();
        self.t_d_mean_s = stats::mean(&means).map(|mean| mean.within(0.0, f64::INFINITY));
    }

    /// The larger of the relative half widths of T_MR and T_M; infinite if one has no interval.
    pub fn relative_half_width(&self) -> f64 {
        let of = |estimate: Option<Estimate>| match estimate {
            Some(Estimate { value, low: Some(low), high: Some(high) }) if value > 0.0 => (high - low) / 2.0 / value,
            _ => f64::INFINITY,
        };
        of(self.t_mr_s).max(of(self.t_m_s))
    }
}

/// 1 − the fraction of time in suspicion, which keeps its digits when it is small. Where suspicion was never seen, there
/// is no interval.
fn accuracy(totals: &[Totals]) -> Option<Estimate> {
    let pairs: Vec<(f64, f64)> = totals.iter().map(|t| (t.suspected_s, t.time_s)).collect();
    let wrong = stats::ratio(&pairs)?;
    if wrong.value == 0.0 {
        return Some(Estimate::exact(1.0));
    }
    let right = |bound: Option<f64>| bound.map(|bound| 1.0 - bound);
    let accuracy = Estimate { value: 1.0 - wrong.value, low: right(wrong.high), high: right(wrong.low) };
    Some(accuracy.within(0.0, 1.0))
}

/// 1 / x: the bounds change places. `None` for a rate without events: infinity is no number.
fn inverse(rate: Estimate) -> Option<Estimate> {
    let of = |bound: Option<f64>| bound.filter(|bound| *bound > 0.0).map(|bound| 1.0 / bound);
    Some(Estimate { value: of(Some(rate.value))?, low: of(rate.high), high: of(rate.low) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(time_s: f64, mistakes: f64, suspected_s: f64) -> Totals {
        Totals { time_s, mistakes, suspected_s }
    }

    #[test]
    fn measures_fit_together() {
        let runs = [totals(100.0, 10.0, 5.0), totals(120.0, 10.0, 4.0), totals(80.0, 10.0, 6.0)];
        let measures = Measures::of_mistakes(&runs, false);
        assert_eq!(measures.t_mr_s.unwrap().value, 10.0);
        assert_eq!(measures.t_m_s.unwrap().value, 0.5);
        assert_eq!(measures.p_a.unwrap().value, 0.95);
        assert_eq!(measures.lambda_m_per_s.unwrap().value, 0.1);
        assert!(measures.relative_half_width() < 0.7);
    }

    #[test]
    fn how_long_one_mistake_lasts_has_no_interval() {
        let (none, one) = (totals(100.0, 0.0, 0.0), totals(100.0, 1.0, 3.0));
        let duration = |runs: &[Totals]| Measures::of_mistakes(runs, true).t_m_s.unwrap();
        assert_eq!(duration(&[none, one, none, none]), Estimate::exact(3.0));
        let two = duration(&[none, one, none, totals(100.0, 1.0, 5.0)]);
        assert!(two.value == 4.0 && two.low.unwrap() < 3.0 && two.high.unwrap() > 5.0, "{two:?}");
    }

    #[test]
    fn no_mistake_bounds_their_rate() {
        let measures = Measures::of_mistakes(&[totals(100.0, 0.0, 0.0); 4], true);
        let rate = measures.lambda_m_per_s.unwrap();
        assert!(rate.value == 0.0 && (rate.high.unwrap() - 3.689 / 400.0).abs() < 1e-5);
        assert_eq!((measures.t_mr_s, measures.t_m_s), (None, None));
        assert_eq!(measures.p_a, Some(Estimate::exact(1.0)));
        assert_eq!(measures.relative_half_width(), f64::INFINITY);
    }
}
