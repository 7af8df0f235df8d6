//! `backdoor reproduce`: every study that comes with the program.

use super::{Failure, studies};
use crate::live::{failover, overhead};
use crate::soft_roce::here::Here;
use crate::soft_roce::{Plan, Source};
use crate::study::Study;

/// Run every experiment: tables, figures, report.
///
/// The quick profile takes about four minutes on two cores. Simulated tables are the same bytes for the same seed;
/// live ones are measurements of this machine, which should have nothing else to do meanwhile.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    options: studies::Options,
    /// Leave out the experiments with real processes.
    #[arg(long)]
    no_live: bool,
    /// Measurements by real verbs between two virtual machines, which take a minute more: made if
    /// transports/soft-roce/run of this checkout can begin at once, never, or those of an earlier run, taken from its
    /// output directory.
    #[arg(long, value_name = "auto|never|DIR", default_value_t)]
    soft_roce: Source,
}

/// The configs, in the order in which they are run. Live first: while the machine is cool and quiet.
const CONFIGS: [(&str, &str); 15] = [
    ("live", include_str!("../../configs/live.toml")),
    ("prediction", include_str!("../../configs/prediction.toml")),
    ("failover", include_str!("../../configs/failover.toml")),
    ("takeover-phases", include_str!("../../configs/takeover-phases.toml")),
    ("overhead", include_str!("../../configs/overhead.toml")),
    ("scale", include_str!("../../configs/scale.toml")),
    ("false-positives", include_str!("../../configs/false-positives.toml")),
    ("accuracy", include_str!("../../configs/accuracy.toml")),
    ("detectors", include_str!("../../configs/detectors.toml")),
    ("modes", include_str!("../../configs/modes.toml")),
    ("cases", include_str!("../../configs/cases.toml")),
    ("diagnosis", include_str!("../../configs/diagnosis.toml")),
    ("recovery", include_str!("../../configs/recovery.toml")),
    ("spread", include_str!("../../configs/spread.toml")),
    ("remedies", include_str!("../../configs/remedies.toml")),
];

/// Those that measure this machine.
const LIVE: [&str; 6] = ["live", "prediction", "failover", "takeover-phases", "overhead", "scale"];
/// What this user lacks, in a sentence.
type Missing = fn() -> Option<String>;
/// Those of these that take a privilege.
const PRIVILEGED: [(&[&str], Missing); 2] =
    [(&["failover", "takeover-phases"], failover::missing), (&["overhead"], overhead::missing)];

pub(super) const TITLE: &str = "Back-Doors: results";

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let privileged = PRIVILEGED.iter().filter(|_| !arguments.no_live);
    let skipped: Vec<_> = privileged.filter_map(|(names, missing)| Some((names, missing()?))).collect();
    let left_out = |name: &str| {
        arguments.no_live && LIVE.contains(&name) || skipped.iter().any(|(skipped, _)| skipped.contains(&name))
    };
    let wanted = CONFIGS.iter().filter(|(name, _)| !left_out(name));
    let wanted = wanted
        .map(|(name, text)| Study::parse(name, &format!("experiments/configs/{name}.toml"), text))
        .collect::<Result<Vec<_>, _>>()?;
    let here = Here { only_simulated: arguments.no_live, ..Here::current()? };
    let plan = Plan::make(&arguments.soft_roce, &here, arguments.options.profile())?;
    studies::run(&wanted, TITLE, "results", &arguments.options, Some(plan))?;
    for (names, why) in skipped {
        crate::say::out(&format!("{}: skipped: {why}\n", names.join(", ")))?;
    }
    Ok(())
}
