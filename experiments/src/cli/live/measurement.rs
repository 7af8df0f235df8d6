//! What the commands that measure have in common: several configurations, one after the other, each a row at a time.

use serde::Serialize;

use super::Format;
use crate::cli::Failure;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::results::Table;
use crate::say;

/// One configuration of an experiment.
pub(super) trait Measurement {
    type Row: Clone + Serialize;
    type Report;
    type Error: std::error::Error;

    /// Whether it can be run.
    fn check(&self) -> Result<(), Self::Error>;
    /// What it is called in the progress.
    fn name(&self) -> String;
    /// Rows that it makes.
    fn rows(&self) -> u32;
    /// Runs it. `finished` gets each row as soon as there is one.
    fn run(&self, interrupt: &Interrupt, finished: &mut dyn FnMut(&Self::Row)) -> Result<Self::Report, Self::Error>;
    /// What was found until somebody asked to stop, if that is what the error says.
    fn partial(error: Self::Error) -> Result<Self::Report, Self::Error>;
    /// For people.
    fn text(report: &Self::Report) -> String;
}

/// Runs all of them, and prints what was finished even if something else was not: every row as CSV, every configuration as
/// text.
pub(super) fn run<M: Measurement>(configs: &[M], quiet: bool, format: Format) -> Result<(), Failure> {
    // All of them first: the last of several must not be found impossible when the others have taken an hour.
    configs.iter().try_for_each(M::check)?;
    let interrupt = Interrupt::listen()?;
    let all = configs.iter().map(|config| config.rows() as usize).sum();
    let progress = if quiet { Progress::hidden() } else { Progress::new(all) };
    let (mut rows, mut reports) = (Vec::new(), Vec::new());
    let mut outcome = Ok(());
    for config in configs {
        let bar = progress.experiment(&config.name(), config.rows() as usize);
        let before = rows.len();
        let finished = &mut |row: &M::Row| {
            rows.push(row.clone());
            bar.point_finished();
        };
        match config.run(&interrupt, finished) {
            Ok(report) => {
                bar.finish();
                reports.push(report);
            }
            Err(error) => {
                let message = error.to_string();
                outcome = Err(match M::partial(error) {
                    Ok(report) => {
                        reports.extend((rows.len() > before).then_some(report));
                        Failure::interrupted(message, &interrupt)
                    }
                    Err(error) => error.into(),
                });
                break;
            }
        }
    }
    progress.finish();
    let text = match format {
        Format::Csv if rows.is_empty() => return outcome,
        Format::Csv => Table::from_rows(&rows)?.to_csv(),
        Format::Text => reports.iter().map(M::text).collect::<Vec<_>>().join("\n"),
    };
    say::out(&text)?;
    outcome
}
