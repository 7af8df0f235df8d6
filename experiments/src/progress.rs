//! How far a run is: bars on a terminal, a plain line now and then elsewhere.
//!
//! Everything goes to stderr, so that stdout stays usable in pipes. Bars are drawn without colour when `NO_COLOR` is
//! set. Where stderr is no terminal (a log, CI), a line at most every ten seconds says the same in words.

use crate::say::{self, OutputError};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How often a plain line may come.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// The progress of a run over several experiments.
#[derive(Debug)]
pub struct Progress {
    bars: Option<MultiProgress>,
    overall: ProgressBar,
    quiet: bool,
}

/// The progress of one experiment.
#[derive(Debug)]
pub struct Bar {
    name: String,
    unit: &'static str,
    bar: ProgressBar,
    overall: ProgressBar,
    /// When the last plain line was printed; `None` when bars are drawn or nothing is to be said.
    plain: Option<Mutex<Instant>>,
}

impl Progress {
    /// Progress over `points` points in all experiments together.
    pub fn new(points: usize) -> Self {
        if !std::io::stderr().is_terminal() {
            return Progress { bars: None, overall: hidden(points), quiet: false };
        }
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(8));
        let overall = bars.add(ProgressBar::new(points as u64).with_style(style("bold")).with_message("all"));
        overall.enable_steady_tick(Duration::from_millis(500));
        Progress { bars: Some(bars), overall, quiet: false }
    }

    /// Progress that says nothing: for tests and for `--quiet`.
    pub fn hidden() -> Self {
        Progress { bars: None, overall: hidden(0), quiet: true }
    }

    /// Starts the bar of one experiment.
    pub fn experiment(&self, name: &str, points: usize) -> Bar {
        let bar = match &self.bars {
            Some(bars) => {
                let bar = ProgressBar::new(points as u64).with_style(style("cyan")).with_message(name.to_string());
                bars.insert_before(&self.overall, bar)
            }
            None => hidden(points),
        };
        let plain = (self.bars.is_none() && !self.quiet).then(|| Mutex::new(Instant::now()));
        Bar { name: name.to_string(), unit: "points", bar, overall: self.overall.clone(), plain }
    }

    /// Prints a line above the bars.
    pub fn note(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| say::err(text)),
            None if self.quiet => {}
            None => say::err(text),
        }
    }

    /// Writes to standard output, which may be the same terminal; answers whether anybody still reads it.
    ///
    /// # Errors
    /// It can't be written for another reason.
    pub(crate) fn out(&self, text: &str) -> Result<bool, OutputError> {
        match &self.bars {
            Some(bars) => bars.suspend(|| say::out(text)),
            None => say::out(text),
        }
    }

    /// Takes the overall bar away.
    pub fn finish(&self) {
        self.overall.finish_and_clear();
    }
}

impl Bar {
    /// A bar that says nothing.
    pub fn hidden() -> Self {
        Progress::hidden().experiment("", 0)
    }

    /// The same, where what is counted are no points.
    pub fn counted_in(self, unit: &'static str) -> Self {
        Bar { unit, ..self }
    }

    /// `count` points were found finished in the journal; they don't count for the speed.
    pub fn resumed(&self, count: usize) {
        for bar in [&self.bar, &self.overall] {
            bar.inc(count as u64);
            bar.reset_eta();
        }
    }

    /// One more point is finished.
    pub fn point_finished(&self) {
        self.bar.inc(1);
        self.overall.inc(1);
        if let Some(last) = &self.plain
            && let Ok(mut last) = last.lock()
            && last.elapsed() >= PLAIN_EVERY
        {
            *last = Instant::now();
            self.line(&format!(", about {} left", words(self.bar.eta())));
        }
    }

    /// The experiment is finished (or given up): leaves the bar where it stands.
    pub fn finish(&self) {
        self.bar.abandon();
        if self.plain.is_some() {
            self.line("");
        }
    }

    fn line(&self, rest: &str) {
        let (done, all) = (self.bar.position(), self.bar.length().unwrap_or(0));
        say::err(&format!("{}: {done} of {all} {}{rest}", self.name, self.unit));
    }
}

fn hidden(points: usize) -> ProgressBar {
    ProgressBar::with_draw_target(Some(points as u64), ProgressDrawTarget::hidden())
}

fn style(color: &str) -> ProgressStyle {
    // The empty string counts as unset: https://no-color.org
    let color = match std::env::var_os("NO_COLOR") {
        Some(value) if !value.is_empty() => String::new(),
        _ => format!(".{color}"),
    };
    let template = format!("{{msg:>14}} [{{bar:30{color}}}] {{pos:>4}}/{{len}} {{elapsed}} + {{eta}} left");
    ProgressStyle::with_template(&template).expect("the template is constant").progress_chars("=> ")
}

fn words(left: Duration) -> String {
    match left.as_secs() {
        seconds if seconds < 100 => format!("{seconds} s"),
        seconds => format!("{} min", (seconds + 30) / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_without_a_terminal() {
        let progress = Progress::hidden();
        let bar = progress.experiment("e", 3);
        bar.resumed(1);
        bar.point_finished();
        bar.finish();
        assert_eq!(bar.bar.position(), 2);
        assert_eq!(words(Duration::from_secs(42)), "42 s");
        assert_eq!(words(Duration::from_secs(600)), "10 min");
    }

    #[test]
    fn styles_are_valid() {
        style("bold");
        style("cyan");
    }
}
