//! `backdoor monitor`.

use std::io::IsTerminal;

use backdoor_core::Nanos;
use backdoor_core::monitor::MonitorConfig;
use backdoor_host::clock;

use super::Failure;
use crate::interrupt::Interrupt;
use crate::live::detector::DetectorKind;
use crate::live::notice::text::{TextWriter, Times};
use crate::live::notice::{Notice, What};
use crate::live::reach::ReachArguments;
use crate::live::watch::{Watch, WatchConfig};
use crate::say;

/// How often a watch looks whether it is to end.
const LOOK_EVERY: Nanos = Nanos::from_millis(50);

/// How long --once waits for memory that makes no sense to make some.
const SENSELESS_FOR: Nanos = Nanos::from_secs(1);

/// Watch a node by reading its memory, and say who in it stops making progress.
///
/// It may be started before the agent, and goes on when the agent is restarted. Ctrl-C ends it with a summary.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    node: ReachArguments,
    /// Time between polls.
    #[arg(long, default_value = "1ms", value_name = "DURATION")]
    poll: Nanos,
    /// What to judge by.
    #[arg(long, value_enum, default_value_t = DetectorKind::default())]
    detector: DetectorKind,
    /// Lines for people, or JSON objects for machines.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// How lines for people tell the time.
    #[arg(long, value_enum, default_value_t = Times::Relative)]
    time: Times,
    /// End as soon as every entity has been judged once; exit code 1 if somebody is suspected, there is no
    /// agent, or its memory can't be understood.
    #[arg(long, conflicts_with = "duration")]
    once: bool,
    /// End after this long.
    #[arg(long = "for", value_name = "DURATION")]
    duration: Option<Nanos>,
    /// Spin just before each poll: wakes up more exactly, and takes a processor.
    #[arg(long)]
    spin: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Where notices go.
enum Output {
    Text(TextWriter),
    Json,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let limits = (Nanos::from_micros(10), Nanos::from_secs(60));
    if arguments.poll < limits.0 || arguments.poll > limits.1 {
        let message = format!("--poll is {}, must be from {} to {}", arguments.poll, limits.0, limits.1);
        return Err(Failure::Message(message));
    }
    let interrupt = Interrupt::listen()?;
    let mut output = match arguments.format {
        Format::Text => Output::Text(TextWriter::new(arguments.time, colours())),
        Format::Json => Output::Json,
    };
    let end = arguments.duration.map_or(Nanos::MAX, |duration| clock::now() + duration);
    let mut watch = Watch::new(WatchConfig {
        node: arguments.node.address().map_err(Failure::Message)?,
        monitor: MonitorConfig::polling_every(arguments.poll),
        detector: arguments.detector,
        spin: arguments.spin,
        recover: false,
    });
    let mut notices = Vec::new();
    let mut senseless: Option<(Nanos, String)> = None;
    loop {
        let now = clock::now();
        watch.turn((now + LOOK_EVERY).min(end), &mut notices);
        let waits = notices.iter().find_map(|notice| match &notice.what {
            What::Waiting { why } => Some(why.clone()),
            _ => None,
        });
        if let (true, Some(why)) = (arguments.once, waits) {
            return Err(Failure::Message(why));
        }
        for notice in &notices {
            match &notice.what {
                What::BadMemory { error } => drop(senseless.get_or_insert((now, error.clone()))),
                What::NoProgressBox => drop(senseless.get_or_insert((now, "it offers none to monitor".into()))),
                What::Attached { .. } => senseless = None,
                _ => {}
            }
        }
        if let (true, Some((since, why))) = (arguments.once, &senseless)
            && now > *since + SENSELESS_FOR
        {
            return Err(Failure::Message(format!("the node's memory can't be understood: {why}")));
        }
        if !output.write(&notices)? {
            return Ok(());
        }
        notices.clear();
        let judged = arguments.once && watch.everybody_judged();
        if interrupt.requested() || judged || clock::now() >= end {
            break;
        }
    }
    let summary = watch.summary();
    let suspected = summary.suspected;
    output.write(&[Notice { at_ns: clock::now().0, what: What::Summary(summary) }])?;
    if interrupt.requested() {
        return Err(Failure::interrupted("interrupted".into(), &interrupt));
    }
    if arguments.once && suspected > 0 {
        return Err(Failure::Message(format!("suspected: {suspected} of the node's entities")));
    }
    Ok(())
}

impl Output {
    /// Answers whether anybody still reads.
    fn write(&mut self, notices: &[Notice]) -> Result<bool, Failure> {
        if notices.is_empty() {
            return Ok(true);
        }
        let lines = match self {
            Output::Text(writer) => writer.lines(notices),
            Output::Json => notices.iter().map(serde_json::to_string).collect::<Result<_, _>>()?,
        };
        let mut text = lines.join("\n");
        if !lines.is_empty() {
            text.push('\n');
        }
        Ok(say::out(&text)?)
    }
}

/// Only for a terminal, and not against the user's wish (<https://no-color.org>: the empty string is no wish).
pub(super) fn colours() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
