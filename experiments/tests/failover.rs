//! Clients whose server dies go on at another node: real processes, real connections, in network namespaces.
//!
//! As root these run, and fail where they can't; without the privilege the command says what is missing.

mod common;

use backdoor_experiments::live::failover::FailoverRow;
use common::Place;

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

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn rows(arguments: &[&str]) -> Vec<FailoverRow> {
    let place = Place::new();
    let mut all = vec!["live", "failover", "--format", "csv", "--quiet", "--deadline", "50ms"];
    all.extend(arguments);
    let output = place.output(&all);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
    let mut reader = csv::Reader::from_reader(output.stdout.as_slice());
    let header: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    assert_eq!(header[..COLUMNS.len()], COLUMNS);
    let left = std::fs::read_dir(place.path()).unwrap().count();
    assert_eq!(left, 0, "files are left");
    reader.deserialize().collect::<Result<_, _>>().unwrap()
}

#[test]
fn without_the_privilege_one_sentence_says_what_is_missing() {
    if !is_root() {
        let output = Place::new().output(&["live", "failover", "--runs", "1"]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains("CAP_"), "{stderr}");
    }
}

#[test]
fn every_client_survives_every_failure() {
    if !is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    for (client, size) in [("curl", "30MB"), ("curl-upload", "30MB"), ("requests", "500kB"), ("keep-alive", "20MB")] {
        let failures = "sigstop,sigkill,deadlock,session-stuck,wrong";
        let rows = rows(&["--client", client, "--failure", failures, "--size", size, "--runs", "1"]);
        assert_eq!(rows.len(), 5);
        for row in rows {
            assert!(row.is_good() && row.moved == 1, "{row:?}");
            assert!(row.first_byte_ms.is_some() && row.outage_ms.is_some(), "{row:?}");
        }
    }
}
