//! Ratios that survive a noisy machine: ours and the baseline in turn, many short rounds, the median of the rounds'
//! ratios.

use std::hint::black_box;
use std::time::Instant;

/// A measured pair.
pub(crate) struct Ratio {
    /// Median time of one of our operations, in nanoseconds.
    pub(crate) ours_ns: f64,
    /// Median time of one operation of the baseline, in nanoseconds.
    pub(crate) baseline_ns: f64,
    /// Median over the rounds of ours / baseline.
    pub(crate) ratio: f64,
    /// First and third quartile of the rounds' ratios.
    pub(crate) quartiles: (f64, f64),
}

const ROUNDS: usize = 61;

/// Times `ours` against `baseline`, each called `batch` times a round.
pub(crate) fn compare(batch: u32, mut ours: impl FnMut(), mut baseline: impl FnMut()) -> Ratio {
    let mut time = |operation: &mut dyn FnMut(u32)| {
        let start = Instant::now();
        operation(batch);
        start.elapsed().as_secs_f64() * 1e9 / f64::from(batch)
    };
    let mut ours = |n| (0..n).for_each(|_| ours());
    let mut baseline = |n| (0..n).for_each(|_| baseline());
    let (mut a, mut b, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS + 3 {
        let (x, y) = if round % 2 == 0 {
            let x = time(&mut ours);
            (x, time(&mut baseline))
        } else {
            let y = time(&mut baseline);
            (time(&mut ours), y)
        };
        // The first rounds warm caches and branch predictors.
        if round >= 3 {
            a.push(x);
            b.push(y);
            ratios.push(x / y);
        }
    }
    let quantile = |values: &mut Vec<f64>, q: f64| {
        values.sort_by(f64::total_cmp);
        values[((values.len() - 1) as f64 * q).round() as usize]
    };
    Ratio {
        ours_ns: quantile(&mut a, 0.5),
        baseline_ns: quantile(&mut b, 0.5),
        ratio: quantile(&mut ratios, 0.5),
        quartiles: (quantile(&mut ratios, 0.25), quantile(&mut ratios, 0.75)),
    }
}

/// Prints one line of the table.
pub(crate) fn report(what: &str, bound: &str, ratio: &Ratio) {
    let Ratio { ours_ns, baseline_ns, ratio, quartiles: (low, high) } = black_box(ratio);
    println!("{what:<58} {ours_ns:>12.2} {baseline_ns:>12.2} {ratio:>7.2} [{low:.2}, {high:.2}]  {bound}");
}

/// Prints the table's head.
pub(crate) fn head() {
    println!(
        "{:<58} {:>12} {:>12} {:>7} {:<12}  required",
        "what, against its baseline", "ours ns", "baseline ns", "ratio", "[quartiles]"
    );
}
