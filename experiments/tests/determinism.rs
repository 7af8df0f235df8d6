//! Same seed, same bytes: `backdoor sweep` run twice, with one thread and with two, and with another seed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

const DETECTION: &str = r#"
study = "detection"
figure = "trade-off"
title = "Small"
summary = "A detection study of a few seconds of simulated time."
replications = 3
deadlines = ["3ms", "10ms", "40ms"]
[scenario]
load = [0, 6]
poll_interval = ["1ms", "2ms"]
network_loss = [0.0, 0.01]
monitor_shares_cpu = [false, true]
loop_jitter = "uniform:0ns:100us"
warm_up = "200ms"
duration = "1200ms"
[faults]
per_minute = 60.0
repair_after = "exp:200ms"
"#;

const RECOVERY: &str = r#"
study = "recovery"
title = "Small"
summary = "A recovery study of a few failures."
replications = 3
deadline = "20ms"
levels = ["os", "application", "session"]
sessions = [1, 5]
state_bytes = [100, 5000]
[scenario]
request_interval = "exp:50ms"
"#;

const REMEDIES: &str = r#"
study = "remedies"
title = "Small"
summary = "A study of remedies for a few failures."
replications = 3
deadline = "20ms"
levels = ["os", "application", "session"]
remedies = ["takeover", "failover", "restart", "reboot"]
sessions = [1, 5]
state_bytes = 5000
[assumed]
fence = "exp:1ms"
boot = "300ms"
[cost]
sessions = 3
state_bytes = [100, 5000]
commit_every = [1, 3]
update_bytes = 64
duration = "500ms"
[scenario]
request_interval = "exp:50ms"
network_loss = 0.01
"#;

const MODES: &str = r#"
study = "modes"
title = "Small"
summary = "Ways of watching, for a few seconds of simulated time."
replications = 3
modes = ["read", "pull", "push", "watchdog"]
deadlines = ["3ms", "20ms"]
deadline = "20ms"
[scenario]
load = [0, 3]
poll_interval = ["1ms", "5ms"]
network_loss = 0.01
loop_jitter = "uniform:0ns:100us"
warm_up = "200ms"
duration = "1200ms"
[faults]
per_minute = 60.0
repair_after = "exp:200ms"
"#;

const DETECTORS: &str = r#"
study = "detectors"
title = "Small"
summary = "Detectors on a few seconds of simulated time."
replications = 3
modes = ["read", "push"]
tolerance_per_hour = 10000.0
accuracy = 0.9
recall = 0.9
[compared]
detector = "deadline"
detection_time = "20ms"
[detectors.deadline]
deadline = ["3ms", "20ms"]
[detectors.bertier]
phi = [4.0, 40.0]
window = 50
[detectors.phi-accrual]
threshold = [1.0, 8.0, 100.0]
window = 100
[scenario]
load = [0, 3]
loop_jitter = "uniform:0ns:100us"
tick_interval = "1ms"
loop_interval = "1ms"
warm_up = "200ms"
duration = "1200ms"
[faults]
per_minute = 60.0
repair_after = "exp:200ms"
"#;

const PRECISION: &str = r#"
study = "detection"
figure = "trade-off"
title = "Small"
summary = "A detection study that goes on until it knows enough."
replications = 10
deadlines = ["3ms", "10ms"]
[precision]
of = "detection_ms"
relative = 0.05
cap = 25
level = "all"
deadline = "10ms"
[scenario]
load = [0, 6]
loop_jitter = "uniform:0ns:100us"
warm_up = "200ms"
duration = "1200ms"
[faults]
per_minute = 60.0
repair_after = "exp:200ms"
"#;

const DIAGNOSIS: &str = r#"
study = "diagnosis"
title = "Small"
summary = "A few breakdowns."
replications = 2
breakdowns = ["system", "last", "disk-slow", "partition", "own-link"]
deadline = "60ms"
card_gives_up_after = "20ms"
[scenario]
load = [0, 3]
"#;

/// Sweeps into a new directory; answers the CSVs by name.
fn sweep(place: &Path, config: &str, threads: u32, seed: u32, out: &str) -> BTreeMap<String, Vec<u8>> {
    let (file, out) = (place.join("small.toml"), place.join(out));
    fs::write(&file, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_backdoor"));
    command.arg("sweep").arg(&file).arg("--out").arg(&out);
    let run = command.args(["--threads", &threads.to_string(), "--seed", &seed.to_string()]).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let files = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path());
    let tables = files.filter(|path| path.extension().is_some_and(|extension| extension == "csv"));
    tables.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap())).collect()
}

#[track_caller]
fn depends_on_config_and_seed_alone(config: &str, rows: usize) {
    let place = tempfile::tempdir().unwrap();
    let one = sweep(place.path(), config, 1, 1, "one");
    let table = String::from_utf8(one["small.csv"].clone()).unwrap();
    assert_eq!(table.lines().count(), rows + 1);
    for (threads, out) in [(1, "again"), (2, "two"), (2, "two-again"), (0, "all")] {
        // Not `assert_eq`, which would print both tables.
        assert!(one == sweep(place.path(), config, threads, 1, out), "other bytes in {out}");
    }
    assert!(one != sweep(place.path(), config, 1, 2, "seed"), "another seed must give another table");
}

#[test]
fn detection() {
    depends_on_config_and_seed_alone(DETECTION, 16 * 4 * 3);
}

/// The same when the number of replications depends on what comes out, threads and interruptions notwithstanding.
#[test]
fn replications_until_precise() {
    depends_on_config_and_seed_alone(PRECISION, 2 * 4 * 2);
    let place = tempfile::tempdir().unwrap();
    let whole = sweep(place.path(), PRECISION, 2, 1, "out");
    let mut table = csv::Reader::from_reader(whole["small.csv"].as_slice());
    let rows: Vec<BTreeMap<String, String>> = table.deserialize().map(Result::unwrap).collect();
    let mut reached = Vec::new();
    for row in &rows {
        let number = |column: &str| row[column].parse::<f64>().unwrap();
        let replications: u64 = row["replications"].parse().unwrap();
        assert!([10, 20, 25].contains(&replications), "{row:?}");
        let asked = row["level"] == "all" && row["deadline_ms"] == "10";
        if !asked {
            assert_eq!(row["precision_reached"], "");
            continue;
        }
        let (value, low, high) = (number("detection_ms"), number("detection_ms_low"), number("detection_ms_high"));
        let precise = (high - value).max(value - low) <= 0.05 * value;
        assert_eq!(row["precision_reached"], precise.to_string(), "{row:?}");
        assert!(precise || replications == 25, "{row:?}");
        reached.push((replications, precise));
    }
    assert_eq!(reached.len(), 2);
    assert!(reached.iter().any(|(replications, _)| *replications > 10), "the config must ask for more: {reached:?}");

    // All but one point are lost, as if it had been interrupted then.
    let out = place.path().join("out");
    let journal = out.join("journal/small.jsonl");
    let text = fs::read_to_string(&journal).unwrap();
    let kept: Vec<&str> = text.lines().take(2).collect();
    fs::write(&journal, kept.join("\n") + "\n").unwrap();
    fs::remove_file(out.join("small.csv")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_backdoor"));
    command.arg("sweep").arg(place.path().join("small.toml")).arg("--out").arg(&out).args([
        "--resume",
        "--threads",
        "1",
    ]);
    let run = command.output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert!(fs::read(out.join("small.csv")).unwrap() == whole["small.csv"], "other bytes after an interruption");
}

#[test]
fn modes() {
    depends_on_config_and_seed_alone(MODES, 4 * 4 * 4 * 2);
}

#[test]
fn detectors() {
    // Bertier's does not watch sessions.
    depends_on_config_and_seed_alone(DETECTORS, 4 * (7 + 7 + 5));
}

#[test]
fn diagnosis() {
    depends_on_config_and_seed_alone(DIAGNOSIS, 5 * 2 * 4);
}

#[test]
fn remedies() {
    depends_on_config_and_seed_alone(REMEDIES, 3 * 4 * 2);
}

#[test]
fn recovery() {
    depends_on_config_and_seed_alone(RECOVERY, 12);
}
