//! The command line: one file per command, each from arguments to an exit code by way of the library.
//!
//! Exit codes: 0 done; 1 failed, with one sentence on standard error; 2 wrong usage; 130 interrupted.

mod inspect;
mod live;
mod monitor;
mod node;
mod plot;
mod reproduce;
mod studies;
mod sweep;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::interrupt::EXIT_INTERRUPTED;

/// Watch a machine from outside by one-sided remote memory access, notice within milliseconds that something in it
/// stopped making progress, and read its sessions' state out of it.
#[derive(Debug, Parser)]
#[command(name = "backdoor", version, about, arg_required_else_help = true, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Reproduce(reproduce::Arguments),
    Sweep(sweep::Arguments),
    Plot(plot::Arguments),
    Live(live::Arguments),
    Node(node::Arguments),
    Monitor(monitor::Arguments),
    Inspect(inspect::Arguments),
}

/// Why a command ended without success.
#[derive(Debug)]
pub enum Failure {
    /// One sentence for the user.
    Message(String),
    /// The user interrupted it; the sentence says how to go on.
    Interrupted(String),
}

impl<E: std::error::Error> From<E> for Failure {
    /// The error and its causes in one sentence.
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !message.contains(&cause_text) {
                message = format!("{message}: {cause_text}");
            }
            source = cause.source();
        }
        Failure::Message(message)
    }
}

/// Reads the command line, runs the command, and reports its failure.
pub fn run() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Reproduce(arguments) => reproduce::run(&arguments),
        Command::Sweep(arguments) => sweep::run(&arguments),
        Command::Plot(arguments) => plot::run(&arguments),
        Command::Live(arguments) => live::run(arguments),
        Command::Node(arguments) => node::run(&arguments),
        Command::Monitor(arguments) => monitor::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Message(message)) => {
            eprintln!("backdoor: {message}");
            ExitCode::FAILURE
        }
        Err(Failure::Interrupted(message)) => {
            eprintln!("backdoor: {message}");
            ExitCode::from(EXIT_INTERRUPTED)
        }
    }
}
