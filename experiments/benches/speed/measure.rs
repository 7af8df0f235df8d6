//! Ratios that survive a noisy machine: ours and the baseline in turn, many short rounds, the median of the rounds'
//! ratios.

use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A measured pair.
pub(crate) struct Ratio {
    /// Median time of one of our operations, in nanoseconds.
    ours_ns: f64,
    /// Median time of one operation of the baseline, in nanoseconds.
    baseline_ns: f64,
    /// Least time of one of our operations, and of the baseline's: that of the rounds which nobody disturbed.
    least_ns: (f64, f64),
    /// Median over the rounds of ours / baseline.
    ratio: f64,
    /// First and third quartile of the rounds' ratios.
    quartiles: (f64, f64),
}

const WARM_UP: usize = 3;
const ROUNDS: usize = 61;

/// Times `ours` against `baseline`, each called `batch` times a round.
pub(crate) fn compare(batch: u32, mut ours: impl FnMut(), mut baseline: impl FnMut()) -> Ratio {
    rounds(
        batch,
        &mut || {
            let start = Instant::now();
            (0..batch).for_each(|_| ours());
            start.elapsed()
        },
        &mut || {
            let start = Instant::now();
            (0..batch).for_each(|_| baseline());
            start.elapsed()
        },
    )
}

/// The same where each of our operations needs a preparation that is not to be timed.
pub(crate) fn compare_prepared<S>(
    batch: u32,
    subject: &mut S,
    prepare: impl Fn(&mut S),
    ours: impl Fn(&mut S),
    mut baseline: impl FnMut(),
) -> Ratio {
    rounds(
        batch,
        &mut || {
            let mut total = Duration::ZERO;
            for _ in 0..batch {
                prepare(subject);
                let start = Instant::now();
                ours(subject);
                total += start.elapsed();
            }
            total
        },
        &mut || {
            let mut total = Duration::ZERO;
            for _ in 0..batch {
                let start = Instant::now();
                baseline();
                total += start.elapsed();
            }
            total
        },
    )
}

fn rounds(batch: u32, ours: &mut dyn FnMut() -> Duration, baseline: &mut dyn FnMut() -> Duration) -> Ratio {
    let per_operation = |total: Duration| total.as_secs_f64() * 1e9 / f64::from(batch);
    let (mut a, mut b, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..WARM_UP + ROUNDS {
        let (x, y) = if round % 2 == 0 {
            let x = ours();
            (x, baseline())
        } else {
            let y = baseline();
            (ours(), y)
        };
        if round >= WARM_UP {
            a.push(per_operation(x));
            b.push(per_operation(y));
            ratios.push(per_operation(x) / per_operation(y));
        }
    }
    let quantile = |values: &mut Vec<f64>, q: f64| {
        values.sort_by(f64::total_cmp);
        values[((values.len() - 1) as f64 * q).round() as usize]
    };
    Ratio {
        least_ns: (quantile(&mut a, 0.0), quantile(&mut b, 0.0)),
        ours_ns: quantile(&mut a, 0.5),
        baseline_ns: quantile(&mut b, 0.5),
        ratio: quantile(&mut ratios, 0.5),
        quartiles: (quantile(&mut ratios, 0.25), quantile(&mut ratios, 0.75)),
    }
}

/// The printed table, and whether everything in it is as required.
pub(crate) struct Table {
    kept: bool,
}

impl Table {
    pub(crate) fn new() -> Self {
        println!(
            "{:<60} {:>12} {:>12} {:>7}  {:<14} required",
            "what / baseline", "ours ns", "baseline ns", "ratio", "quartiles"
        );
        Table { kept: true }
    }

    /// A bound in nanoseconds. It is about a machine at rest, so the least times are printed, and count.
    pub(crate) fn at_most_ns(&mut self, what: &str, bound: f64, measured: &Ratio) {
        let Ratio { least_ns: (ours, baseline), ratio, quartiles: (low, high), .. } = *measured;
        let quartiles = format!("[{low:.2}, {high:.2}]");
        self.line(what, (ours, baseline, ratio), &quartiles, &format!("≤ {bound} ns"), ours <= bound);
    }

    pub(crate) fn at_most(&mut self, what: &str, bound: f64, measured: &Ratio) {
        let Ratio { ours_ns, baseline_ns, ratio, quartiles: (low, high), .. } = *measured;
        let quartiles = format!("[{low:.2}, {high:.2}]");
        self.line(what, (ours_ns, baseline_ns, ratio), &quartiles, &format!("≤ {bound}"), ratio <= bound);
    }

    pub(crate) fn at_most_of(&mut self, what: &str, bound: f64, ours_ns: f64, baseline_ns: f64, ratio: f64) {
        self.line(what, (ours_ns, baseline_ns, ratio), "", &format!("≤ {bound}"), ratio <= bound);
    }

    pub(crate) fn at_least(&mut self, what: &str, bound: f64, ours_ns: f64, baseline_ns: f64, ratio: f64) {
        self.line(what, (ours_ns, baseline_ns, ratio), "", &format!("≥ {bound}"), ratio >= bound);
    }

    fn line(&mut self, what: &str, (ours, baseline, ratio): (f64, f64, f64), quartiles: &str, bound: &str, kept: bool) {
        let mark = if kept { "" } else { "  NOT KEPT" };
        println!("{what:<60} {ours:>12.2} {baseline:>12.2} {ratio:>7.2}  {quartiles:<14} {bound}{mark}");
        self.kept &= kept;
    }

    pub(crate) fn finish(self) -> ExitCode {
        if self.kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
