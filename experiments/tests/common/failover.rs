//! What the tests of `backdoor live failover` share: its rows, which only root gets.

use backdoor_experiments::live::failover::FailoverRow;

use super::Place;

/// Of tests that need no other one.
pub(crate) const DEADLINE: &str = "200ms";

/// The columns that others rely on, in their order.
const COLUMNS: [&str; 13] = [
    "run",
    "failure",
    "client",
    "bytes",
    "detection_ms",
    "claim_ms",
    "fence_ms",
    "extract_ms",
    "reinstate_ms",
    "first_byte_ms",
    "outage_ms",
    "sha256_ok",
    "client_resets",
];

/// Whether this test can be run; if not, says so.
pub(crate) fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: needs root");
    }
    is_root
}

/// The rows of a failover with this deadline and these arguments, at least one, after which nothing of it is left.
#[track_caller]
pub(crate) fn failovers(deadline: &str, arguments: &[&str]) -> Vec<FailoverRow> {
    let place = Place::new();
    let all = ["live", "failover", "--format", "csv", "--quiet", "--deadline", deadline];
    let output = place.output(&[&all, arguments].concat());
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    place.assert_nothing_is_left();
    let mut reader = csv::Reader::from_reader(output.stdout.as_slice());
    assert!(reader.headers().unwrap().iter().take(COLUMNS.len()).eq(COLUMNS), "{stdout}");
    let rows: Vec<FailoverRow> = reader.deserialize().collect::<Result<_, _>>().unwrap();
    assert!(!rows.is_empty(), "{stderr}");
    let status = i32::from(!rows.iter().all(|row| row.sha256_ok));
    assert_eq!(output.status.code(), Some(status), "{stdout}{stderr}");
    rows
}

/// Each is refused, in a sentence with this word.
#[track_caller]
pub(crate) fn assert_refused<'a>(arguments: impl IntoIterator<Item = (&'a [&'a str], &'a str)>) {
    Place::new().assert_refused(&["live", "failover"], arguments);
}
