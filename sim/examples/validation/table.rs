//! Comparisons with what is known, and the Markdown table that they make.

use std::fmt::Write as _;

use backdoor_sim::stats::Estimate;
use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, StudentsT};

/// A difference of more standard errors than this is looked into.
pub(crate) const MOST_ERRORS: f64 = 3.0;

/// Replications of every simulated setting.
pub(crate) const REPLICATIONS: u64 = 40;

/// The same for a setting that is simulated again.
pub(crate) const REPLICATIONS_AGAIN: u64 = 4 * REPLICATIONS;

/// What a measure is held against.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Known {
    /// A mean, which the simulated one may differ from by chance.
    Mean(f64),
    /// A number computed without chance, as printed: with so many decimals.
    Printed(f64, usize),
    /// A bound that is never exceeded, and nearly reached.
    Bound(f64),
}

/// One measure of one setting.
#[derive(Clone, Debug)]
pub(crate) struct Comparison {
    /// The setting, in words.
    pub(crate) setting: String,
    /// The measure, with its unit.
    pub(crate) measure: &'static str,
    /// What came out.
    pub(crate) found: Estimate,
    /// What is known of it.
    pub(crate) known: Known,
    /// Independent replications behind what came out; 0 if there is no chance in it.
    pub(crate) replications: u64,
}

impl Comparison {
    /// The difference in standard errors, of a mean.
    pub(crate) fn errors(&self) -> Option<f64> {
        let Known::Mean(known) = self.known else { return None };
        let Estimate { value, low, high } = self.found;
        let half = f64::max(value - low?, high? - value);
        let error = half / student(self.replications).inverse_cdf(0.975);
        Some(if value == known { 0.0 } else { (value - known) / error })
    }

    /// Whether it is as it must be.
    pub(crate) fn holds(&self) -> bool {
        let value = self.found.value;
        match self.known {
            Known::Mean(_) => self.errors().is_some_and(|errors| errors.abs() <= MOST_ERRORS),
            // Some authors round, some cut off.
            Known::Printed(known, decimals) => (value - known).abs() < 0.1f64.powi(decimals as i32),
            Known::Bound(bound) => value <= bound * (1.0 + 1e-9) && value > 0.9 * bound,
        }
    }

    fn row(&self) -> String {
        let Comparison { setting, measure, found, known, .. } = self;
        let interval = match (found.low, found.high) {
            (Some(low), Some(high)) => format!("{} to {}", number(low, known), number(high, known)),
            _ => "none".into(),
        };
        let (reference, difference) = match known {
            Known::Mean(mean) => (number(*mean, known), self.errors().map_or("?".into(), |e| format!("{e:+.2}"))),
            Known::Printed(printed, decimals) => (format!("{printed:.decimals$}"), "computed".into()),
            Known::Bound(bound) => (format!("≤ {}", number(*bound, known)), "below".into()),
        };
        let difference = if self.holds() { difference } else { format!("**{difference}**") };
        let value = number(found.value, known);
        format!("| {setting} | {measure} | {value} | {interval} | {reference} | {difference} |")
    }
}

fn student(replications: u64) -> StudentsT {
    StudentsT::new(0.0, 1.0, replications as f64 - 1.0).expect("two replications or more")
}

/// Five digits, and of probabilities near 1 as many as tell how far from 1 they are.
fn number(value: f64, known: &Known) -> String {
    let reference = match known {
        Known::Mean(known) | Known::Printed(known, _) | Known::Bound(known) => known.abs(),
    };
    let decimals = match reference {
        0.0 => 5,
        size if (0.9..1.0).contains(&size) => 4 + (-(1.0 - size).log10()).clamp(0.0, 11.0) as usize,
        size if (1e-3..1e6).contains(&size) => (4 - size.log10().floor() as i32).clamp(0, 8) as usize,
        _ => return format!("{value:.4e}"),
    };
    format!("{value:.decimals$}")
}

/// Comparisons of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    /// What is compared.
    pub(crate) title: &'static str,
    /// The first round.
    pub(crate) rows: Vec<Comparison>,
    /// Settings of which a row was beyond its bound, once more with other random numbers.
    pub(crate) again: Vec<Comparison>,
}

impl Section {
    /// Its heading and table.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("### {}\n\n{HEAD}", self.title);
        for row in self.rows.iter().chain(&self.again) {
            let _ = writeln!(text, "{}", row.row());
        }
        text
    }

    /// What is not as it must be: a number without chance in it; a mean, if the second round says so, too.
    pub(crate) fn failures(&self) -> impl Iterator<Item = &Comparison> {
        let chance = |row: &&Comparison| matches!(row.known, Known::Mean(_));
        self.rows.iter().filter(move |row| !chance(row)).chain(&self.again).filter(|row| !row.holds())
    }
}

const HEAD: &str = "\
| setting | measure | simulated | 95% interval | closed form or published | difference in standard errors |
|---|---|---|---|---|---|
";

/// How many differences are how large, beside how many would be by chance. The differences of one setting's measures are
/// not independent of each other, so the numbers expected are right and those said to be likely are a guide.
pub(crate) fn multiplicity(sections: &[Section]) -> String {
    let rows = sections.iter().flat_map(|section| &section.rows);
    let errors: Vec<f64> = rows.filter_map(Comparison::errors).collect();
    let count = errors.len() as u64;
    let mut text = format!("Of {count} simulated means, with Student's {} degrees of freedom,\n\n", REPLICATIONS - 1);
    text +=
        "| differ by more than | how many | expected by chance | no more by chance, with 99% |\n|---|---|---|---|\n";
    for most in [2.0, MOST_ERRORS] {
        let beyond = errors.iter().filter(|errors| errors.abs() > most).count();
        let chance = 2.0 * student(REPLICATIONS).sf(most);
        let likely = Binomial::new(chance, count).map_or(0, |binomial| binomial.inverse_cdf(0.99));
        let expected = chance * count as f64;
        let _ = writeln!(text, "| {most:.0} standard errors | {beyond} | {expected:.1} | {likely} |");
    }
    text
}
