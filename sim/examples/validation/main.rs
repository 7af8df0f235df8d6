//! Simulated numbers against closed forms and published ones: prints the tables of `docs/validation.md`, or puts
//! them into the document that its argument names. Exits with 1 if something is beyond its bound, and says what.
//!
//! ```text
//! cargo run --release -p backdoor-sim --example validation
//! cargo run --release -p backdoor-sim --example validation -- docs/validation.md
//! ```

mod case;
mod detectors;
mod grid;
mod queues;
mod table;

use std::process::ExitCode;

use table::Section;

fn main() -> std::io::Result<ExitCode> {
    let sections = grid::run();
    match std::env::args_os().nth(1) {
        Some(path) => {
            let document = std::fs::read_to_string(&path)?;
            std::fs::write(&path, grid::with_tables(&document, &sections))?;
        }
        None => print!("{}", grid::markdown(&sections)),
    }
    let failures: Vec<_> = sections.iter().flat_map(Section::failures).collect();
    for failure in &failures {
        eprintln!("beyond its bound: {}: {}", failure.setting, failure.measure);
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
