//! The `backdoor` command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    backdoor_experiments::cli::run()
}
