//! The command line: one file per command, each from arguments to an exit code by way of the library.
//!
//! Exit codes: as the end of the help says.

mod doctor;
mod hooks;
mod inspect;
mod live;
mod monitor;
mod node;
#[cfg(feature = "studies")]
mod plot;
#[cfg(feature = "studies")]
mod qos;
#[cfg(feature = "studies")]
mod reproduce;
#[cfg(feature = "studies")]
mod studies;
#[cfg(feature = "studies")]
mod sweep;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::interrupt::Interrupt;
use crate::say;

/// Watch a machine from outside by one-sided remote memory access, notice within milliseconds that something in it
/// stopped making progress, and read its sessions' state out of it.
#[derive(Debug, Parser)]
#[command(name = "backdoor", version, after_help = EXIT_STATUS, arg_required_else_help = true, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// For the end of the help.
const EXIT_STATUS: &str = "Exit status: 0 done; 1 failed, with one sentence on standard error; 2 wrong usage; 130 stopped \
    by Ctrl-C, 143 by SIGTERM. The first of those lets a command end in order, and keeps what is finished; a second one \
    ends it at once.";

#[derive(Debug, Subcommand)]
enum Command {
    #[cfg(feature = "studies")]
    Reproduce(reproduce::Arguments),
    #[cfg(feature = "studies")]
    Sweep(sweep::Arguments),
    #[cfg(feature = "studies")]
    Plot(plot::Arguments),
    #[cfg(feature = "studies")]
    Qos(Box<qos::Arguments>),
    Live(live::Arguments),
    Node(node::Arguments),
    Monitor(monitor::Arguments),
    Inspect(inspect::Arguments),
    Hooks(hooks::Arguments),
    Doctor(doctor::Arguments),
}

/// Why a command ended without success.
#[derive(Debug)]
pub enum Failure {
    /// One sentence for the user.
    Message(String),
    /// The user interrupted it.
    Interrupted {
        /// One sentence that says how to go on.
        message: String,
        /// What shells expect after the signal that came.
        exit_code: u8,
    },
}

impl Failure {
    fn interrupted(message: String, interrupt: &Interrupt) -> Self {
        Failure::Interrupted { message, exit_code: interrupt.exit_code() }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    /// The error and its causes in one sentence.
    fn from(error: E) -> Self {
        let mut message = say::without_numbers(&error.to_string());
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = say::without_numbers(&cause.to_string());
            if !message.to_lowercase().contains(&cause_text.to_lowercase()) {
                message = format!("{message}: {cause_text}");
            }
            source = cause.source();
        }
        Failure::Message(message)
    }
}

/// Reads the command line, runs the command, and reports its failure.
pub fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if is_a_sentence(error.kind()) => {
            say::err(&format!("backdoor: {}", in_a_sentence(&error.to_string())));
            return ExitCode::from(2);
        }
        Err(error) => error.exit(),
    };
    let outcome = match arguments.command {
        #[cfg(feature = "studies")]
        Command::Reproduce(arguments) => reproduce::run(&arguments),
        #[cfg(feature = "studies")]
        Command::Sweep(arguments) => sweep::run(&arguments),
        #[cfg(feature = "studies")]
        Command::Plot(arguments) => plot::run(&arguments),
        #[cfg(feature = "studies")]
        Command::Qos(arguments) => qos::run(&arguments),
        Command::Live(arguments) => live::run(arguments),
        Command::Node(arguments) => node::run(&arguments),
        Command::Monitor(arguments) => monitor::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Hooks(arguments) => hooks::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Message(message)) => {
            say::err(&format!("backdoor: {message}"));
            ExitCode::FAILURE
        }
        Err(Failure::Interrupted { message, exit_code }) => {
            say::err(&format!("backdoor: {message}"));
            ExitCode::from(exit_code)
        }
    }
}

/// Whether clap's complaint says all that there is to say: who mistypes a name is helped by its hints, too.
fn is_a_sentence(kind: ErrorKind) -> bool {
    use ErrorKind::{ArgumentConflict, InvalidValue, MissingRequiredArgument, ValueValidation};
    matches!(kind, InvalidValue | ValueValidation | MissingRequiredArgument | ArgumentConflict)
}

/// What is wrong with the arguments, without the hints and lines that clap adds: as what is found wrong later.
fn in_a_sentence(error: &str) -> String {
    let first = error.split("\n\n").next().unwrap_or(error);
    let words: Vec<&str> = first.trim_start_matches("error: ").split_whitespace().collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::ResultsDir;

    #[test]
    fn values_that_cannot_be_read_are_one_sentence() {
        let error = Arguments::try_parse_from(["backdoor", "qos", "--detector", "nfds"]).unwrap_err();
        let sentence = in_a_sentence(&error.to_string());
        assert!(sentence.starts_with("invalid value 'nfds' for '--detector <DETECTOR>' [possible values: nfd-s, "));
        assert!(sentence.ends_with(']') && !sentence.contains("  "), "{sentence}");
        for (arguments, expected) in [
            (&["sweep"][..], "the following required arguments were not provided: <CONFIG>"),
            (
                &["qos", "--trace", "x", "--loss", "0.1"],
                "the argument '--trace <FILE>' cannot be used with '--loss <P>'",
            ),
        ] {
            let error = Arguments::try_parse_from([&["backdoor"], arguments].concat()).unwrap_err();
            assert!(is_a_sentence(error.kind()));
            assert_eq!(in_a_sentence(&error.to_string()), expected);
        }
    }

    #[test]
    fn causes_are_named_once_and_without_numbers() {
        let Err(error) = ResultsDir::open("/dev/null/x") else { panic!("there is nothing there") };
        let Failure::Message(message) = Failure::from(error) else { panic!("nobody interrupted it") };
        assert_eq!(message, "cannot read /dev/null/x: a part of the path is not a directory");
        let missing = std::io::Error::from_raw_os_error(2);
        let Failure::Message(message) = Failure::from(missing) else { panic!("nobody interrupted it") };
        assert_eq!(message, "No such file or directory");
    }
}
