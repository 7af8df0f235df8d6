//! Configs with every kind of slip: each refused with one sentence that names file, line and key, before anything is
//! written and within no time.

use backdoor_experiments::study::Study;

const DETECTION: &str = r#"study = "detection"
figure = "accuracy"
title = "t"
summary = "s"
replications = 2
deadlines = ["5ms"]
[scenario]
duration = "2s"
[faults]
per_minute = 1.0
[faults.levels]
os = 1.0
[full]
replications = 3
"#;

const RECOVERY: &str = r#"study = "recovery"
title = "t"
summary = "s"
replications = 2
deadline = "20ms"
levels = ["os"]
sessions = [2]
state_bytes = [1024]
[scenario]
request_interval = "exp:200ms"
[full]
replications = 3
"#;

const REMEDIES: &str = r#"study = "remedies"
title = "t"
summary = "s"
replications = 2
deadline = "20ms"
levels = ["os"]
remedies = ["takeover", "reboot"]
sessions = [2]
state_bytes = 1024
[assumed]
boot = "2s"
[cost]
sessions = 2
state_bytes = [1024]
commit_every = [1]
update_bytes = 64
duration = "1s"
[scenario]
request_interval = "exp:200ms"
[full]
replications = 3
"#;

const DIAGNOSIS: &str = r#"study = "diagnosis"
title = "t"
summary = "s"
replications = 2
breakdowns = ["session", "last"]
deadline = "20ms"
card_gives_up_after = "67ms"
[scenario]
request_interval = "exp:200ms"
[full]
replications = 3
"#;

const LIVE: &str = r#"study = "live"
title = "t"
summary = "s"
failures = ["sigstop", "none"]
load = [0]
deadline = "20ms"
poll = "1ms"
runs = 1
healthy = "1s"
sessions = 2
state_bytes = 100
[simulation]
replications = 1
[simulation.scenario]
duration = "2s"
[full]
runs = 2
"#;

const OVERHEAD: &str = r#"study = "overhead"
title = "t"
summary = "s"
state_bytes = [64]
requests_per_save = [1]
clients = 1
pairs = 2
turn = "10ms"
[simulation]
replications = 2
duration = "1s"
[simulation.scenario]
request_interval = "exp:200ms"
[full]
pairs = 3
"#;

const PHASES: &str = r#"study = "phases"
title = "t"
summary = "s"
failure = "sigstop"
sessions = [1]
state_size = [0]
bytes = 1000
deadline = "100ms"
poll = "1ms"
runs = 2
[levels]
failures = ["cut"]
sessions = 1
state_size = 0
[simulation]
replications = 2
fence = "const:1ms"
[simulation.scenario]
request_interval = "exp:200ms"
[full]
runs = 3
"#;

const DETECTORS: &str = r#"study = "detectors"
title = "t"
summary = "s"
replications = 2
modes = ["read", "push"]
tolerance_per_hour = 1.0
accuracy = 0.99
recall = 0.9
[compared]
detector = "deadline"
detection_time = "20ms"
[detectors.deadline]
deadline = ["5ms", "9ms"]
[detectors.satzger]
stretch = [1.0, 2.0]
threshold = 0.99
window = 100
[detectors.phi-exponential]
threshold = [8.0]
window = 1000
[scenario]
duration = "2s"
[full]
replications = 3
"#;

/// The sentence for a config in which `line` is replaced by `by`.
#[track_caller]
fn refused(config: &str, line: &str, by: &str) -> String {
    assert!(config.contains(line), "{line}");
    let text = config.replacen(line, by, 1);
    let message = Study::parse("c", "c.toml", &text).expect_err(by).to_string();
    assert!(!message.contains('\n') && !message.contains("u64") && !message.contains("usize"), "{message}");
    message
}

#[test]
fn the_configs_themselves_are_good() {
    for config in [DETECTION, RECOVERY, REMEDIES, DIAGNOSIS, LIVE, OVERHEAD, PHASES, DETECTORS] {
        Study::parse("c", "c.toml", config).unwrap();
    }
}

#[test]
fn typos_in_every_table() {
    for (config, tables) in [
        (DETECTION, &["", "scenario", "faults", "faults.levels", "full"][..]),
        (RECOVERY, &["", "scenario", "full"]),
        (REMEDIES, &["", "assumed", "cost", "scenario", "full"]),
        (DIAGNOSIS, &["", "scenario", "full"]),
        (LIVE, &["", "simulation", "simulation.scenario", "full"]),
        (OVERHEAD, &["", "simulation", "simulation.scenario", "full"]),
        (PHASES, &["", "levels", "simulation", "simulation.scenario", "full"]),
        (DETECTORS, &["", "compared", "detectors.deadline", "detectors.satzger", "scenario", "full"]),
    ] {
        for table in tables {
            let head = format!("[{table}]\n");
            let place = if table.is_empty() { "title = \"t\"\n" } else { &head };
            let line = config[..config.find(place).unwrap()].lines().count() + 2;
            let message = refused(config, place, &format!("{place}wrogn = 1\n"));
            let known = if table.is_empty() { String::new() } else { format!(" in [{table}]") };
            assert!(message.starts_with(&format!("c.toml:{line}: unknown key 'wrogn'{known}; ")), "{message}");
        }
    }
}

#[test]
fn values_that_cannot_be_detected_with() {
    for (line, by, start) in [
        ("replications = 2", "replications = 0", "c.toml:5: replications: must be from 1 to 1000000, not 0"),
        ("replications = 2", "replications = 1000000000000", "c.toml:5: replications: must be"),
        ("replications = 2", "replications = -1", "c.toml:5: replications: invalid value"),
        ("replications = 2", "replications = 'x'", "c.toml:5: replications: invalid type"),
        ("replications = 2", "replications = 99999999999999999999999", "c.toml:5: replications: invalid type"),
        ("replications = 3", "replications = 0", "c.toml:14: full.replications: must be"),
        ("replications = 3", "duration = '1s'", "c.toml:14: full.duration: the run ends"),
        ("replications = 3", "duration = '900000h'", "c.toml:14: full.duration: one run takes"),
        ("deadlines = [\"5ms\"]", "deadlines = []", "c.toml:6: deadlines: the list is empty"),
        ("deadlines = [\"5ms\"]", "deadlines = ['0s']", "c.toml:6: deadlines: must be more than zero"),
        ("per_minute = 1.0", "per_minute = nan", "c.toml:10: faults.per_minute: the rate of faults"),
        ("per_minute = 1.0", "per_minute = -1.0", "c.toml:10: faults.per_minute: the rate of faults"),
        ("per_minute = 1.0", "per_minute = inf", "c.toml:10: faults.per_minute: the rate of faults"),
        ("per_minute = 1.0", "per_minute = 1e300", "c.toml:7: scenario: one run takes about"),
        ("os = 1.0", "os = nan", "c.toml:11: faults.levels: the weights"),
        ("duration = \"2s\"", "duration = '0s'", "c.toml:8: scenario.duration: "),
        ("duration = \"2s\"", "duration = '500000h'", "c.toml:7: scenario: one run takes"),
        ("duration = \"2s\"", "load = 1000000000", "c.toml:8: scenario.load: a load of 1000000000"),
        ("duration = \"2s\"", "sessions = 1000000", "c.toml:8: scenario.sessions: 1000004 entities"),
        ("duration = \"2s\"", "cores = 0", "c.toml:8: scenario.cores: a node needs"),
        ("duration = \"2s\"", "poll_interval = '1ns'", "c.toml:7: scenario: one run takes"),
        ("duration = \"2s\"", "poll_interval = ['1ms', '0s']", "c.toml:8: scenario.poll_interval: "),
        ("duration = \"2s\"", "network_loss = nan", "c.toml:8: scenario.network_loss: "),
        ("duration = \"2s\"", "request_interval = 'const:0'", "c.toml:8: scenario.request_interval: "),
        ("duration = \"2s\"", "state_bytes = 0", "c.toml:8: scenario.state_bytes: "),
    ] {
        let message = refused(DETECTION, line, by);
        assert!(message.starts_with(start), "{by}: {message}");
    }
    let axes = "load = { from = 1, to = 20000, steps = 10000 }\nsessions = { from = 1, to = 20000, steps = 10000 }\n";
    let message = refused(DETECTION, "duration = \"2s\"\n", axes);
    assert!(message.starts_with("c.toml:7: scenario: its lists have more than 100000 combinations"), "{message}");
}

#[test]
fn values_that_no_detector_can_have() {
    for (line, by, start) in [
        ("\"read\", \"push\"", "'read', 'read'", "c.toml:5: modes: names one twice"),
        ("tolerance_per_hour = 1.0", "tolerance_per_hour = 0", "c.toml:6: tolerance_per_hour: must be more than zero"),
        ("accuracy = 0.99", "accuracy = 1.0", "c.toml:7: accuracy: must lie from 0 to less than 1"),
        ("recall = 0.9", "recall = -0.1", "c.toml:8: recall: must lie from 0 to less than 1"),
        ("detector = \"deadline\"", "detector = 'nfd-e'", "c.toml:10: compared.detector: must be one of"),
        ("\"5ms\", \"9ms\"", "'9ms', '5ms'", "c.toml:13: detectors.deadline.deadline: must go upwards"),
        ("\"5ms\", \"9ms\"", "'0s'", "c.toml:13: detectors.deadline.deadline: must be more than zero"),
        ("stretch = [1.0, 2.0]", "stretch = inf", "c.toml:15: detectors.satzger.stretch: must be more than zero, and"),
        ("threshold = 0.99", "threshold = nan", "c.toml:16: detectors.satzger.threshold: must be more than 0"),
        ("window = 100\n", "window = 0\n", "c.toml:17: detectors.satzger.window: must be from 1 to 65536"),
        ("threshold = [8.0]", "threshold = 301", "c.toml:19: detectors.phi-exponential.threshold: must be at most 300"),
        ("window = 1000", "window = 5\nmin_deviation = '1ms'", "c.toml:21: detectors.phi-exponential.min_deviation: "),
        ("replications = 2", "replications = 1000000", "c.toml:4: replications: must be from 1 to"),
        ("duration = \"2s\"", "monitor_shares_cpu = true", "c.toml:22: scenario.monitor_shares_cpu: is no mode"),
    ] {
        let message = refused(DETECTORS, line, by);
        assert!(message.starts_with(start), "{by}: {message}");
    }
}

#[test]
fn values_that_cannot_be_recovered_with() {
    for (line, by, start) in [
        ("sessions = [2]", "sessions = [0]", "c.toml:7: sessions: must be at least 1"),
        ("sessions = [2]", "sessions = [1000000]", "c.toml:7: sessions: 1000004 entities"),
        ("state_bytes = [1024]", "state_bytes = [0]", "c.toml:8: state_bytes: "),
        ("levels = [\"os\"]", "levels = ['oss']", "c.toml:6: levels[0]: unknown value 'oss'; did you mean 'os'?"),
        ("deadline = \"20ms\"", "deadline = '0s'", "c.toml:5: deadline: must be more than zero"),
        ("replications = 3", "replications = 0", "c.toml:12: full.replications: must be"),
        // What would be ignored is no less a mistake.
        ("[full]", "sessions = 3\n[full]", "c.toml:11: scenario.sessions: this kind of study sets it outside"),
        ("[full]", "state_bytes = 3\n[full]", "c.toml:11: scenario.state_bytes: this kind of study"),
        ("[full]", "load = [0, 5]\n[full]", "c.toml:11: scenario.load: must be one value"),
    ] {
        let message = refused(RECOVERY, line, by);
        assert!(message.starts_with(start), "{by}: {message}");
    }
}

#[test]
fn values_that_no_remedy_can_be_tried_with() {
    for (line, by, start) in [
        ("\"reboot\"]", "\"rebot\"]", "c.toml:7: remedies[1]: unknown value 'rebot'; did you mean 'reboot'?"),
        ("sessions = [2]", "sessions = [0]", "c.toml:8: sessions: must be at least 1"),
        ("[cost]\nsessions = 2", "[cost]\nsessions = 0", "c.toml:13: cost.sessions: must be at least 1"),
        ("commit_every = [1]", "commit_every = [0]", "c.toml:15: cost.commit_every: "),
        ("duration = \"1s\"", "duration = \"0s\"", "c.toml:17: cost.duration: the run ends at"),
        ("[full]", "duration = \"9s\"\n[full]", "c.toml:20: scenario.duration: each run ends"),
        ("replications = 3", "duration = \"3s\"", "c.toml:20: full: may set replications only"),
    ] {
        let message = refused(REMEDIES, line, by);
        assert!(message.starts_with(start), "{by}: {message}");
    }
}

#[test]
fn values_that_cannot_be_diagnosed_with() {
    for (line, by, start) in [
        (
            "[\"session\", \"last\"]",
            "['sesion']",
            "c.toml:5: breakdowns[0]: unknown value 'sesion'; did you mean 'session'?",
        ),
        ("[\"session\", \"last\"]", "['last', 'last']", "c.toml:5: breakdowns: names one twice"),
        ("deadline = \"20ms\"", "deadline = '0s'", "c.toml:6: deadline: must be more than zero"),
        ("\"67ms\"", "'0s'", "c.toml:7: card_gives_up_after: must be more than zero"),
        ("[full]", "sessions = 0\n[full]", "c.toml:10: scenario.sessions: the workload has no session"),
        ("[full]", "duration = '2s'\n[full]", "c.toml:10: scenario.duration: each run ends"),
        ("[full]", "monitor_shares_cpu = true\n[full]", "c.toml:10: scenario.monitor_shares_cpu: is not for"),
        ("replications = 3", "duration = '2s'", "c.toml:11: full.duration: each run ends"),
        ("replications = 3", "replications = 0", "c.toml:11: full.replications: must be"),
    ] {
        let message = refused(DIAGNOSIS, line, by);
        assert!(message.starts_with(start), "{by}: {message}");
    }
}

#[test]
fn precision_that_cannot_be_reached_for() {
    let good = "relative = 0.1\nof = 'detection_ms'\ncap = 40\nlevel = 'os'\ndeadline = '5ms'\n";
    let with = |config: &str, table: &str, text: &str| {
        let ten = config.replacen("replications = 2", "replications = 10", 1).replacen(
            "replications = 3",
            "replications = 12",
            1,
        );
        format!("{ten}[{table}]\n{text}")
    };
    for table in ["precision", "full.precision"] {
        Study::parse("c", "c.toml", &with(DETECTION, table, good)).unwrap();
        for (line, by, what) in [
            ("relative = 0.1", "relative = 0.0", "relative: must be a fraction between 0 and 1"),
            ("relative = 0.1", "relative = nan", "relative: must be a fraction between 0 and 1"),
            ("relative = 0.1", "relative = 1.0", "relative: must be a fraction between 0 and 1"),
            ("'detection_ms'", "'detection'", "of: must be a column with an interval: false_positives_per_hour, "),
            ("cap = 40", "cap = 11", "cap: must be at least the first 1"),
            ("cap = 40", "cap = 9", "cap: must be at least the first 1"),
            ("cap = 40", "cap = 100000000", "cap: must be from 1 to 1000000, not 100000000"),
            ("'os'", "'oss'", "level: must be os, application, session or all"),
            ("'5ms'", "'6ms'", "deadline: must be one of the deadlines"),
            ("cap = 40", "cap = 40\ncup = 3", "cup: unknown key"),
        ] {
            let text = with(DETECTION, table, &good.replace(line, by));
            let message = Study::parse("c", "c.toml", &text).expect_err(by).to_string();
            if by.contains("cup") {
                assert!(message.contains("unknown key 'cup' in ["), "{message}");
                continue;
            }
            // With twelve first ones under the full profile, and ten else.
            if by == "cap = 11" && table == "precision" {
                assert!(message.contains("must be at least the first 12"), "{message}");
            }
            assert!(message.contains(&format!("{table}.{what}")) && message.starts_with("c.toml:"), "{message}");
        }
    }
    let text = format!("{DETECTION}[precision]\n{good}");
    let message = Study::parse("c", "c.toml", &text).unwrap_err().to_string();
    assert_eq!(message, "c.toml:5: replications: must be at least 10 where a precision is asked for, not 2");
    let message = Study::parse("c", "c.toml", &with(RECOVERY, "precision", good)).unwrap_err().to_string();
    assert!(message.ends_with("precision.level: this kind of study has no rows by level"), "{message}");
    let outage = "relative = 0.1\nof = 'outage_ms'\ncap = 40\n";
    Study::parse("c", "c.toml", &with(RECOVERY, "precision", outage)).unwrap();
}

#[test]
fn values_that_cannot_be_measured_with() {
    for (line, by, start) in [
        ("load = [0]", "load = [4294967296]", "c.toml:5: load: a load of 4294967295 busy processes: at most 1024"),
        ("deadline = \"20ms\"", "deadline = '0s'", "c.toml:6: deadline: the deadline is 0s"),
        ("poll = \"1ms\"", "poll = '0s'", "c.toml:7: poll: the poll interval is 0s"),
        ("runs = 1\n", "runs = 0\n", "c.toml:8: runs: 0 runs: must be from 1 to 100000"),
        ("runs = 1\n", "runs = 4000000000\n", "c.toml:8: runs: 4000000000 runs"),
        ("runs = 2", "runs = 0", "c.toml:17: full.runs: 0 runs"),
        ("healthy = \"1s\"", "healthy = '100h'", "c.toml:9: healthy: a healthy part"),
        ("sessions = 2", "sessions = 1000000", "c.toml:10: sessions: 1000000 sessions"),
        ("state_bytes = 100", "state_bytes = 0", "c.toml:11: state_bytes: states of 0 bytes"),
        ("replications = 1", "replications = 0", "c.toml:13: simulation.replications: must be"),
        ("duration = \"2s\"", "load = 3", "c.toml:15: simulation.scenario.load: this kind of study"),
    ] {
        let message = refused(LIVE, line, by);
        assert!(message.starts_with(start), "{by}: {message}");
    }
}

#[test]
fn values_that_show_no_case() {
    const CASES: &str = include_str!("../configs/cases.toml");
    for (line, by, expected) in [
        ("poll = \"1ms\"", "poll = '50ms'", "c.toml:13: poll: must be less than the deadline, 50ms"),
        ("poll = \"1ms\"", "poll = '1h'", "c.toml:13: poll: must be less than the deadline, 50ms"),
        ("deadline = \"50ms\"", "deadline = '1ns'", "c.toml:12: deadline: must be more than two turns of a loop, 2ms"),
        ("duration = \"34s\"", "duration = '1000000h'", "c.toml: one run takes about "),
    ] {
        let message = refused(CASES, line, by);
        assert!(message.starts_with(expected), "{by}: {message}");
    }
}

#[test]
fn a_name_that_no_table_can_have_is_refused_at_once() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("my config.toml");
    std::fs::write(&path, DETECTION).unwrap();
    let message = Study::load(&path).unwrap_err().to_string();
    assert!(message.starts_with(&format!("{}: results are named after this file", path.display())), "{message}");
}
