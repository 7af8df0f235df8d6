//! What the commands that measure have in common: several configurations, one after the other, each a row at a time.

use documented::DocumentedFields;
use serde::Serialize;

use super::Format;
use crate::cli::Failure;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::results::Table;

/// One configuration of an experiment.
pub(super) trait Measurement {
    type Row: Clone + Serialize;
    type Report;
    type Error: std::error::Error;

    /// Whether it can be run.
    fn check(&self) -> Result<(), Self::Error>;
    /// What it counts in the progress.
    const UNIT: &'static str = "runs";
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
    /// What makes these no success, in one sentence, though all of it was measured.
    fn complaint(reports: &[Self::Report]) -> Option<String> {
        let _ = reports;
        None
    }
}

/// What the columns of these rows are, for the end of a command's help.
pub(super) fn columns<R: DocumentedFields>() -> String {
    let mut text = "Columns of --format csv (a cell is empty where there is no such value):".to_owned();
    for (name, about) in R::FIELD_NAMES.iter().zip(R::FIELD_DOCS) {
        text += &format!("\n  {name}");
        text += &format!("\n          {}", about.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    text
}

/// Runs all of them, and prints what is finished as soon as it is: every row as CSV, every configuration as text.
pub(super) fn run<M: Measurement>(configs: &[M], quiet: bool, format: Format) -> Result<(), Failure> {
    // All of them first: the last of several must not be found impossible when the others have taken an hour.
    configs.iter().try_for_each(M::check)?;
    let interrupt = Interrupt::listen()?;
    let all = configs.iter().map(|config| config.rows() as usize).sum();
    let progress = if quiet { Progress::hidden() } else { Progress::new(all) };
    let mut output = Output { progress: &progress, interrupt: &interrupt, is_first: true, state: Ok(true) };
    let (mut reports, mut outcome) = (Vec::new(), Ok(()));
    for config in configs {
        let bar = progress.experiment(&config.name(), config.rows() as usize).counted_in(M::UNIT);
        let mut rows = 0;
        let finished = &mut |row: &M::Row| {
            rows += 1;
            if format == Format::Csv {
                output.row(row);
            }
            bar.point_finished();
        };
        let (report, ended) = match config.run(&interrupt, finished) {
            Ok(report) => (Some(report), Ok(())),
            Err(error) => {
                let message = error.to_string();
                match M::partial(error) {
                    Ok(report) => (Some(report).filter(|_| rows > 0), Err(Failure::interrupted(message, &interrupt))),
                    Err(error) => (None, Err(error.into())),
                }
            }
        };
        if ended.is_ok() {
            bar.finish();
        }
        if let Some(report) = report {
            if format == Format::Text {
                output.text(&M::text(&report));
            }
            reports.push(report);
        }
        outcome = ended;
        if outcome.is_err() || !matches!(output.state, Ok(true)) {
            break;
        }
    }
    progress.finish();
    let outcome = outcome.and_then(|()| M::complaint(&reports).map_or(Ok(()), |why| Err(Failure::Message(why))));
    // A reader that has left is no failure, and that it stopped the rest is none either.
    if output.state? { outcome } else { Ok(()) }
}

/// Standard output, and what has become of it.
struct Output<'a> {
    progress: &'a Progress,
    interrupt: &'a Interrupt,
    /// Whether nothing was written yet.
    is_first: bool,
    /// Whether somebody still reads it.
    state: Result<bool, Failure>,
}

impl Output<'_> {
    fn row(&mut self, row: &impl Serialize) {
        match Table::from_rows(&[row]) {
            Ok(table) if self.is_first => self.write(&table.to_csv()),
            Ok(table) => self.write(&table.to_csv_without_head()),
            Err(error) => self.stop(Err(error.into())),
        }
    }

    fn text(&mut self, text: &str) {
        if self.is_first { self.write(text) } else { self.write(&format!("\n{text}")) }
    }

    fn write(&mut self, text: &str) {
        self.is_first = false;
        match self.progress.out(text) {
            Ok(true) => {}
            Ok(false) => self.stop(Ok(false)),
            Err(error) => self.stop(Err(error.into())),
        }
    }

    /// Nothing more can be written: there is no use in going on.
    fn stop(&mut self, state: Result<bool, Failure>) {
        self.state = state;
        self.interrupt.request();
    }
}
