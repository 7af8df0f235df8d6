//! `backdoor live overhead`.

use backdoor_core::Nanos;

use super::Format;
use super::measurement::{self, Measurement};
use crate::cli::Failure;
use crate::interrupt::Interrupt;
use crate::live::overhead::{
    OverheadConfig, OverheadError, OverheadReport, OverheadRow, has_means, run as run_overhead,
};

/// Measure what State Boxes cost a service while nothing fails.
///
/// The same service runs twice, with State Boxes and an agent and without either; clients ask each in turn as fast as they
/// are answered, and check every answer. A request is eight bytes and costs one addition, so that little is there to hide
/// the cost behind.
///
/// Needs root, or CAP_NET_ADMIN: a State Box holds its connection's sequence numbers.
#[derive(Debug, clap::Args)]
#[command(after_long_help = measurement::columns::<OverheadRow>())]
pub(super) struct Arguments {
    /// Bytes of each session's state, all saved each time; several, separated by commas, run one after the other.
    #[arg(long, value_delimiter = ',', default_value = "64,1024", value_name = "BYTES")]
    state_size: Vec<usize>,
    /// Requests that a client has under way at once, and the service saves at once; several, separated by commas, run
    /// one after the other.
    #[arg(long, value_delimiter = ',', default_value = "1", value_name = "N")]
    requests_per_save: Vec<usize>,
    /// Clients, each with a connection of its own.
    #[arg(long, default_value_t = 4, value_name = "K")]
    clients: u32,
    /// Pairs of turns, one with State Boxes and one without.
    #[arg(long, default_value_t = 80, value_name = "N")]
    pairs: u32,
    /// How long a turn takes.
    #[arg(long, default_value = "100ms", value_name = "DURATION")]
    turn: Nanos,
    /// How often both services are started anew meanwhile: where their memory lies makes a difference that all pairs of a start
    /// share, so intervals take starts as the sample. Up to as many as pairs. [default: 8, or as many as pairs]
    #[arg(long, value_name = "N")]
    starts: Option<u32>,
    /// Let the scheduler put clients and their service where it likes. Without it, each client shares a processor with the
    /// thread that serves it, and turns of the same service differ less.
    #[arg(long)]
    unpinned: bool,
    /// Seed of the order of turns.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// A row per pair as CSV, or a summary for people.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// No progress on standard error.
    #[arg(long, short)]
    quiet: bool,
}

impl Arguments {
    fn configs(&self) -> Result<Vec<OverheadConfig>, Failure> {
        let program = std::env::current_exe()?;
        let of = |state_bytes: usize, requests_per_save: usize| OverheadConfig {
            state_bytes,
            requests_per_save,
            clients: self.clients,
            pairs: self.pairs,
            turn: self.turn,
            starts: self.starts.unwrap_or(self.pairs.clamp(1, 8)),
            pinned: !self.unpinned,
            seed: self.seed,
            ..OverheadConfig::new(program.clone())
        };
        let sizes = self.state_size.iter();
        Ok(sizes
            .flat_map(|bytes| self.requests_per_save.iter().map(move |n| (*bytes, *n)))
            .map(|(b, n)| of(b, n))
            .collect())
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    measurement::run(&arguments.configs()?, arguments.quiet, arguments.format)
}

impl Measurement for OverheadConfig {
    type Row = OverheadRow;
    type Report = OverheadReport;
    type Error = OverheadError;

    const UNIT: &'static str = "pairs";

    fn check(&self) -> Result<(), OverheadError> {
        self.check()?;
        has_means()
    }

    fn name(&self) -> String {
        format!("{} bytes, {} per save", self.state_bytes, self.requests_per_save)
    }

    fn rows(&self) -> u32 {
        self.pairs
    }

    fn run(
        &self,
        interrupt: &Interrupt,
        finished: &mut dyn FnMut(&OverheadRow),
    ) -> Result<OverheadReport, OverheadError> {
        run_overhead(self, interrupt, finished)
    }

    fn partial(error: OverheadError) -> Result<OverheadReport, OverheadError> {
        match error {
            OverheadError::Interrupted { report, .. } => Ok(*report),
            error => Err(error),
        }
    }

    fn text(report: &OverheadReport) -> String {
        report.to_text()
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    #[test]
    fn defaults_are_those_of_the_library() {
        let command = Arguments::augment_args(clap::Command::new("overhead"));
        let arguments = Arguments::from_arg_matches(&command.get_matches_from(["overhead"])).unwrap();
        let configs = arguments.configs().unwrap();
        let library = OverheadConfig::new(std::env::current_exe().unwrap());
        let of = |state_bytes| OverheadConfig { state_bytes, ..library.clone() };
        assert_eq!(configs, [of(64), library.clone()]);
    }
}
