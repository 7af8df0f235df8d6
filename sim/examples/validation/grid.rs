//! All that is compared, in the order of the document.

use crate::case;
use crate::table::{Section, multiplicity};
use crate::{detectors, queues};

/// Runs all comparisons.
pub(crate) fn run() -> Vec<Section> {
    case::run(vec![
        ("Computed, beside what is printed", detectors::computed()),
        ("NFD-S", detectors::nfd_s()),
        ("NFD-U, SFD and the deadline", detectors::others()),
        ("Detectors that estimate", detectors::adaptive()),
        ("NFD-E, beside published simulations", detectors::published_nfd_e()),
        ("Importance sampling", detectors::rare_mistakes()),
        ("Run queue, first come, first served", queues::first_come()),
        ("Run queue, in turns and among busy tasks", queues::slices()),
    ])
}

/// The tables.
pub(crate) fn markdown(sections: &[Section]) -> String {
    let tables: Vec<String> = sections.iter().map(Section::markdown).collect();
    format!("{}\n{}", multiplicity(sections), tables.join("\n"))
}

/// The document with these tables in the place of those that it has: from "## Tables" to the next heading of its level.
pub(crate) fn with_tables(document: &str, sections: &[Section]) -> String {
    const HEADING: &str = "\n## Tables\n";
    let (before, after) = document.split_once(HEADING).unwrap_or((document, ""));
    let rest = after.split_once("\n## ").map_or(String::new(), |(_, rest)| format!("\n## {rest}"));
    format!("{before}{HEADING}\n{}{rest}", markdown(sections))
}
