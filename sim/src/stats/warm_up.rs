//! How much of a series to leave out because it still remembers how the run began.

/// Observations to a batch.
const BATCH: usize = 5;

/// How many of the first observations MSER-5 leaves out: those without which the standard error of the mean, taken of
/// batches of five as if they were independent, is least. Looks no further than half of the series, and answers `None` if
/// the least is there, which says that the series is too short to tell; also for fewer than ten batches, and for what is
/// not finite.
///
/// Source: White, *An effective truncation heuristic for bias reduction in simulation output*, Simulation 69(6), 1997;
/// White, Cobb and Spratt, *A comparison of five steady-state truncation heuristics for simulation*, Winter Simulation
/// Conference 2000. A single series is noisy; the mean of several replications, observation by observation, is less so (Welch;
/// Law, *Simulation Modeling and Analysis*, 2015, section 9.5.1).
pub fn mser5(series: &[f64]) -> Option<usize> {
    let batches: Vec<f64> = series.chunks_exact(BATCH).map(|batch| batch.iter().sum::<f64>() / BATCH as f64).collect();
    if batches.len() < 10 || batches.iter().any(|mean| !mean.is_finite()) {
        return None;
    }
    let half = batches.len() / 2;
    // From the end on: sums of what is kept, about the last value, so that squares don't eat the digits.
    let origin = batches[batches.len() - 1];
    let (mut sum, mut squares) = (0.0, 0.0);
    let mut best = (f64::INFINITY, 0);
    for (left_out, mean) in batches.iter().enumerate().rev() {
        let x = mean - origin;
        sum += x;
        squares += x * x;
        let kept = (batches.len() - left_out) as f64;
        // Of equals, that which leaves out less.
        let error = (squares - sum * sum / kept).max(0.0) / (kept * kept);
        if left_out <= half && error <= best.0 {
            best = (error, left_out);
        }
    }
    (best.1 < half).then_some(best.1 * BATCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Noise without memory, from −0.5 to 0.5.
    fn noise(index: usize) -> f64 {
        ((index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) as f64 / (1u64 << 53) as f64 - 0.5
    }

    #[test]
    fn a_start_from_far_away_is_left_out_and_nothing_else() {
        let series: Vec<f64> =
            (0..1000).map(|i| if i < 100 { 20.0 - 0.2 * i as f64 } else { 0.0 } + noise(i)).collect();
        let left_out = mser5(&series).unwrap();
        assert!((85..=110).contains(&left_out), "{left_out}");
        assert!(mser5(&series[100..]).unwrap() < 50);
        assert_eq!(mser5(&[3.0; 100]), Some(0));
    }

    #[test]
    fn what_never_settles_is_said_to_be_too_short() {
        let series: Vec<f64> = (0..1000).map(|i| i as f64 + noise(i)).collect();
        assert_eq!(mser5(&series), None);
        assert_eq!(mser5(&[1.0; 49]), None);
        assert_eq!(mser5(&[f64::NAN; 100]), None);
    }

    /// Against the definition.
    #[test]
    fn it_is_the_least_of_all() {
        let series: Vec<f64> = (0..200).map(|i| (-(i as f64) / 20.0).exp() + 0.2 * noise(i)).collect();
        let batches: Vec<f64> = series.chunks(5).map(|batch| batch.iter().sum::<f64>() / 5.0).collect();
        let error = |left_out: &usize| {
            let kept = &batches[*left_out..];
            let mean = kept.iter().sum::<f64>() / kept.len() as f64;
            kept.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (kept.len() as f64).powi(2)
        };
        let expected = (0..=20).min_by(|a, b| error(a).total_cmp(&error(b))).unwrap();
        assert_eq!(mser5(&series), Some(expected * 5));
    }
}
