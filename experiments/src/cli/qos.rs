//! `backdoor qos`.

mod detector;

use std::path::PathBuf;

use backdoor_core::Nanos;
use backdoor_sim::qos::configure::{Requirements, configure};
use backdoor_sim::qos::delay::Delay;
use backdoor_sim::qos::replay::ReplayConfig;
use backdoor_sim::qos::setting::{DetectorKind, Setting};

use super::Failure;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::qos::report::Report;
use crate::qos::trace::{self, TraceError};
use crate::qos::{Method, Plan, QosError, simulate};
use crate::say;
use detector::DetectorOptions;

/// How good one failure detector is: detection time, time between mistakes, their duration, query accuracy.
///
/// Simulates a sender of heartbeats and the detector, with 95% intervals and, where one exists, the closed form. Or takes
/// recorded arrivals (--trace). Mistakes too rare to wait for are simulated by importance sampling, where that is possible,
/// and the output says so.
///
/// Example: backdoor qos --detector nfd-s --eta 1s --detection-time 1.1s --loss 0.01 --delay exp:20ms
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    detector: DetectorOptions,
    /// Probability that a heartbeat is lost.
    #[arg(long, default_value_t = 0.0, value_name = "P", allow_negative_numbers = true)]
    loss: f64,
    /// Delay of those that are not: const:T, exp:MEAN, uniform:LOW:HIGH, normal:MEAN:SD, lognormal:MEAN:SD,
    /// pareto:SCALE:SHAPE, or trace:FILE, a CSV file of delays in nanoseconds to draw from.
    #[arg(long, value_name = "DELAY")]
    delay: Option<String>,
    /// Arrivals that were recorded, instead of simulated ones: a CSV file of times in nanoseconds, or of sequence numbers
    /// and times, or what 'backdoor live record' wrote.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["loss", "delay", "configure"])]
    trace: Option<PathBuf>,
    /// Whose progress, if the trace holds that of several: a name, or the number of a watch. Such traces are recorded by
    /// 'backdoor live record', with the evidence that a monitor had.
    #[arg(long, value_name = "NAME", requires = "trace")]
    entity: Option<String>,
    /// Use a recording whose last line has no line end, without that line.
    #[arg(long)]
    allow_torn: bool,
    /// For NFD-S: choose the longest --eta that meets --detection-time, --recurrence and --duration, and try it.
    #[arg(long, requires_all = ["recurrence", "duration"], conflicts_with_all = ["eta", "delta"])]
    configure: bool,
    /// Least mean time between mistakes.
    #[arg(long, value_name = "DURATION")]
    recurrence: Option<Nanos>,
    /// Longest mean duration of a mistake.
    #[arg(long, value_name = "DURATION")]
    duration: Option<Nanos>,
    /// Mistakes to see, at least.
    #[arg(long, default_value_t = 2000, value_name = "N")]
    mistakes: u64,
    /// Go on until the intervals of T_MR and T_M reach no further than this fraction of the value to either side.
    #[arg(long, value_name = "FRACTION", allow_negative_numbers = true)]
    precision: Option<f64>,
    /// Stop after so many heartbeats, whatever was seen.
    #[arg(long, default_value_t = 500_000_000, value_name = "N")]
    max_heartbeats: u64,
    /// How to simulate mistakes.
    #[arg(long, value_enum, default_value_t)]
    method: Method,
    /// Seed of all random numbers.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Threads, at most 1024; 0 for one per processor. Never changes the results.
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
    /// A row per measure as CSV, or a table for people.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// No progress on standard error.
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Csv,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.mistakes == 0 {
        return Err(Failure::Message("the number of mistakes must be at least 1".into()));
    }
    match &arguments.trace {
        Some(path) => {
            let detector = arguments.detector.for_recording()?;
            let DetectorOptions { eta, poll, .. } = arguments.detector;
            let config = ReplayConfig { detector, period: eta.unwrap_or(Nanos::from_secs(1)), poll };
            let interrupt = Interrupt::listen()?;
            match trace::replay(path, arguments.allow_torn, arguments.entity.as_deref(), &config, &interrupt) {
                Err(error @ TraceError::Interrupted) => Err(Failure::interrupted(error.to_string(), &interrupt)),
                report => arguments.print(report?, Vec::new()),
            }
        }
        None => arguments.simulate(),
    }
}

impl Arguments {
    fn simulate(&self) -> Result<(), Failure> {
        let mut notes = Vec::new();
        let delay = self.delay(&mut notes)?;
        let setting = self.setting(delay, &mut notes)?;
        let plan = Plan {
            setting,
            mistakes: self.mistakes,
            precision: self.precision,
            max_heartbeats: self.max_heartbeats,
            method: self.method,
            seed: self.seed,
            threads: self.threads,
        };
        plan.check()?;
        let interrupt = Interrupt::listen()?;
        let progress = if self.quiet { Progress::hidden() } else { Progress::new(0) };
        let report = simulate(&plan, &interrupt, &progress);
        progress.finish();
        match report {
            Err(error @ QosError::Interrupted) => Err(Failure::interrupted(error.to_string(), &interrupt)),
            report => self.print(report?, notes),
        }
    }

    fn delay(&self, notes: &mut Vec<String>) -> Result<Delay, Failure> {
        let Some(text) = &self.delay else {
            return Err(Failure::Message(
                "say how long heartbeats take with --delay, such as exp:20ms, or give a --trace".into(),
            ));
        };
        match text.strip_prefix("trace:") {
            Some("") => Err(Failure::Message("name the file of delays after 'trace:'".into())),
            Some(path) => {
                let (delay, note) = trace::delays(path.as_ref(), self.allow_torn)?;
                notes.extend(note);
                Ok(delay)
            }
            None => Ok(Delay::Law(text.parse()?)),
        }
    }

    fn setting(&self, delay: Delay, notes: &mut Vec<String>) -> Result<Setting, Failure> {
        let options = &self.detector;
        let (period, detector) = match (self.recurrence, self.duration) {
            (Some(recurrence), Some(duration)) if self.configure => {
                let detection_time = options
                    .detection_time
                    .ok_or_else(|| Failure::Message("--configure needs --detection-time".into()))?;
                let required = Requirements { detection_time, recurrence, duration };
                let Some(found) = configure(required, self.loss, &delay)? else {
                    let message = "no heartbeat period meets these requirements, and so no failure detector does";
                    return Err(Failure::Message(message.into()));
                };
                notes.push(format!("configured: --eta {} --delta {}", found.period, found.shift));
                (found.period, DetectorKind::NfdS { shift: found.shift })
            }
            _ => {
                let period = options
                    .eta
                    .ok_or_else(|| Failure::Message("say how often heartbeats are sent with --eta".into()))?;
                (period, options.kind(Some((period, delay.mean_s())))?)
            }
        };
        Ok(Setting { detector, period, loss: self.loss, delay, poll: options.poll })
    }

    fn print(&self, mut report: Report, notes: Vec<String>) -> Result<(), Failure> {
        report.notes.splice(0..0, notes);
        match self.format {
            Format::Text => say::out(&report.to_text())?,
            Format::Csv => {
                // Standard output is for the table alone.
                say::err(&format!("{}.", report.method));
                report.notes.iter().for_each(|note| say::err(&format!("Note: {note}.")));
                say::out(&report.to_csv())?
            }
        };
        Ok(())
    }
}
