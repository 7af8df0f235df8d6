//! The two tables: what the cases measured, and every run of live detection.
//!
//! Their files come from a shell script and two virtual machines, or from whoever edited them since. So sizes are
//! bounded, every cell is looked at, and the first one that can't be is named by file and line.

use crate::live::detect::{DetectRow, FailureKind};
use crate::live::detector::DetectorKind;
use crate::results::{ResultsDir, ResultsError, Table, is_name};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// What the script writes its results into.
pub(super) const RESULTS: &str = "results.csv";
/// What a case writes its runs of live detection into.
const RUNS: &str = "detect.csv";
/// The metric of a case that gave up: its value is the reason.
const FAILURE: &str = "failure";
/// Names of the tables in a results directory.
pub(super) const METRICS_TABLE: &str = "soft_roce";
pub(super) const RUNS_TABLE: &str = "live_verbs";

/// Most bytes of a file, some thousand rows.
const MOST_BYTES: u64 = 1 << 20;
/// Most rows of a file, and of all cases' runs together.
const MOST_ROWS: usize = 5000;
/// Most cases.
const MOST_CASES: usize = 100;
/// Longest cell in bytes: a reason why something failed.
const LONGEST_CELL: usize = 400;
/// Longest name in bytes.
const LONGEST_NAME: usize = 60;

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {
    /// The metrics of all cases.
    pub metrics: Vec<Metric>,
    /// Every run of live detection, case after case.
    pub runs: Vec<DetectRow>,
}

/// A row of the script's results. The field names are the columns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metric {
    /// The case.
    pub case: String,
    /// What was measured; `failure` when the case gave up.
    pub metric: String,
    /// A number; the reason of a failure.
    pub value: String,
    /// Its unit.
    pub unit: String,
    /// What it must be, such as `<=1.15`; empty for whatever.
    pub bound: String,
    /// `yes` or `no`; empty without a bound.
    pub ok: String,
}

impl Metric {
    /// The value as a number.
    pub fn number(&self) -> Option<f64> {
        self.value.parse().ok().filter(|number: &f64| number.is_finite())
    }

    /// Why it fails its case, if it does.
    fn failure(&self) -> Option<String> {
        let Metric { metric, value, bound, .. } = self;
        match (self.ok.as_str(), metric.as_str(), bound.as_str()) {
            ("no", FAILURE, _) => Some(value.clone()),
            ("no", _, "") => Some(format!("{metric} is '{value}'")),
            ("no", ..) => Some(format!("{metric} is {value}, not {bound}")),
            _ => None,
        }
    }

    fn problem(&self) -> Option<String> {
        let Metric { case, metric, value, unit, bound, ok } = self;
        let name = |text: &String| is_name(text) && text.len() <= LONGEST_NAME;
        let limit = bound.trim_start_matches(['<', '>']).trim_start_matches('=');
        let is_bound =
            bound.is_empty() || (limit.len() < bound.len() && limit.parse::<f64>().is_ok_and(f64::is_finite));
        let wrong = |column, text: &String| Some(format!("'{}' is no {column}", short(text)));
        match () {
            () if !name(case) => wrong("case", case),
            () if !name(metric) => wrong("metric", metric),
            () if unit.len() > LONGEST_NAME => wrong("unit", unit),
            () if !is_bound => wrong("bound", bound),
            () if !["", "yes", "no"].contains(&ok.as_str()) => wrong("verdict (yes, no or nothing)", ok),
            // What is no number has failed.
            () if self.number().is_none() && ok != "no" => wrong("number", value),
            () => None,
        }
    }
}

impl Tables {
    /// Reads the output directory of a run of the script.
    ///
    /// # Errors
    /// A file that is missing or malformed, which is named. A case that failed may have left half of one: that becomes
    /// one more reason why it failed.
    pub fn of_run(out: &Path) -> Result<Self, ResultsError> {
        let mut tables = Tables::default();
        for case in read_metrics(&out.join(RESULTS))?.chunk_by(|a, b| a.case == b.case) {
            let name = &case[0].case;
            let file = out.join("cases").join(name).join(RUNS);
            tables.metrics.extend_from_slice(case);
            if !file.exists() {
                continue;
            }
            match read_runs(&file, MOST_ROWS - tables.runs.len()) {
                Ok(runs) => tables.runs.extend(runs),
                Err(ResultsError::Malformed { reason, .. }) if case.iter().any(|metric| metric.failure().is_some()) => {
                    tables.metrics.push(Metric {
                        case: name.clone(),
                        metric: FAILURE.to_owned(),
                        value: format!("{RUNS} is left out: {reason}").chars().take(LONGEST_CELL / 4).collect(),
                        ok: "no".to_owned(),
                        ..Metric::default()
                    });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(tables)
    }

    /// Reads them from a results directory.
    ///
    /// # Errors
    /// As [`Tables::of_run`].
    pub fn read(dir: &ResultsDir) -> Result<Self, ResultsError> {
        let file = |name: &str| dir.path().join(format!("{name}.csv"));
        Ok(Tables { metrics: read_metrics(&file(METRICS_TABLE))?, runs: read_runs(&file(RUNS_TABLE), MOST_ROWS)? })
    }

    /// Writes them into a results directory.
    ///
    /// # Errors
    /// I/O.
    pub fn write(&self, dir: &ResultsDir) -> Result<(), ResultsError> {
        dir.write_csv(METRICS_TABLE, &self.metrics_table()?)?;
        dir.write_csv(RUNS_TABLE, &self.runs_table()?)?;
        Ok(())
    }

    /// The metrics as a table.
    pub(super) fn metrics_table(&self) -> Result<Table, ResultsError> {
        table(&self.metrics)
    }

    /// The runs as a table.
    pub(super) fn runs_table(&self) -> Result<Table, ResultsError> {
        table(&self.runs)
    }

    /// What failed, case by case: broken bounds, and cases of `expected` without results.
    pub fn failures(&self, expected: &[String]) -> Vec<String> {
        let failed = self.metrics.iter().filter_map(|metric| Some(format!("{}: {}", metric.case, metric.failure()?)));
        let silent = expected.iter().filter(|case| self.metrics.iter().all(|metric| metric.case != **case));
        failed.chain(silent.map(|case| format!("{case}: it has no result"))).collect()
    }
}

/// A table has its columns even without rows.
fn table<R: Serialize + Default + Clone>(rows: &[R]) -> Result<Table, ResultsError> {
    if rows.is_empty() { Ok(Table::new(columns::<R>())) } else { Table::from_rows(rows) }
}

fn columns<R: Serialize + Default>() -> Vec<String> {
    Table::from_rows(&[R::default()]).map(|table| table.columns().to_vec()).unwrap_or_default()
}

fn read_metrics(path: &Path) -> Result<Vec<Metric>, ResultsError> {
    let metrics: Vec<Metric> = read(path, MOST_ROWS, Metric::problem)?;
    let mut cases: Vec<&str> = Vec::new();
    for metric in &metrics {
        if cases.last() != Some(&metric.case.as_str()) {
            if cases.contains(&metric.case.as_str()) || cases.len() == MOST_CASES {
                let why = format!("the rows of {} are apart, or there are more than {MOST_CASES} cases", metric.case);
                return Err(malformed(path, why));
            }
            cases.push(&metric.case);
        }
    }
    if metrics.is_empty() { Err(malformed(path, "it has no rows".into())) } else { Ok(metrics) }
}

fn read_runs(path: &Path, most: usize) -> Result<Vec<DetectRow>, ResultsError> {
    read(path, most, run_problem)
}

fn run_problem(row: &DetectRow) -> Option<String> {
    let Some(failure) = FailureKind::ALL.into_iter().find(|kind| kind.name() == row.failure) else {
        return Some(format!("'{}' is no failure", short(&row.failure)));
    };
    let numbers = [row.deadline_ms, row.poll_ms, row.healthy_ms, row.clock_error_ms].map(Some);
    let optional = [row.detection_ms, row.extraction_ms, row.injection_ms];
    let wrong = numbers.into_iter().chain(optional).flatten().find(|ms| !(0.0..=1e9).contains(ms));
    match () {
        () if row.level != failure.level() => Some(format!("'{}' is no level of {}", short(&row.level), row.failure)),
        () if row.transport != "verbs" => Some(format!("'{}' is not the transport verbs", short(&row.transport))),
        () if DetectorKind::ALL.iter().all(|kind| kind.name() != row.detector) => {
            Some(format!("'{}' is no detector", short(&row.detector)))
        }
        () if row.cause.len() > LONGEST_NAME => Some(format!("'{}' is no cause", short(&row.cause))),
        () => wrong.map(|ms| format!("{ms} is no time in ms")),
    }
}

/// Reads a CSV file whose columns are the fields of `R`. `problem` says what is wrong with a row.
fn read<R: DeserializeOwned + Serialize + Default>(
    path: &Path,
    most: usize,
    problem: impl Fn(&R) -> Option<String>,
) -> Result<Vec<R>, ResultsError> {
    let bytes = bounded(path)?;
    let mut reader = csv::ReaderBuilder::new().flexible(true).has_headers(false).from_reader(&bytes[..]);
    let columns = columns::<R>();
    let header = csv::StringRecord::from(columns.clone());
    let (mut record, mut rows) = (csv::StringRecord::new(), Vec::new());
    let mut first = true;
    loop {
        let line = reader.position().line();
        let at = |why: String| malformed(path, format!("line {line}: {why}"));
        match reader.read_record(&mut record) {
            Ok(true) => {}
            Ok(false) if first => return Err(malformed(path, "it is empty".into())),
            Ok(false) => return Ok(rows),
            Err(_) => return Err(at("it is no text in UTF-8".into())),
        }
        let bad = |cell: &str| cell.len() > LONGEST_CELL || cell.chars().any(char::is_control);
        if record.iter().any(bad) {
            return Err(at("it has control characters, or a cell that is too long".into()));
        }
        if std::mem::take(&mut first) {
            if record != header {
                return Err(at(format!("the columns are not {}", columns.join(","))));
            }
            continue;
        }
        if record.len() != header.len() {
            return Err(at(format!("{} cells instead of {}", record.len(), header.len())));
        }
        if rows.len() == most {
            return Err(at(format!("there are more than {most} rows")));
        }
        let row: R = record.deserialize(Some(&header)).map_err(|error| at(cell(&error, &columns)))?;
        if let Some(problem) = problem(&row) {
            return Err(at(problem));
        }
        rows.push(row);
    }
}

/// Which cell can't be understood, without the library's own words for places in the file.
fn cell(error: &csv::Error, columns: &[String]) -> String {
    match error.kind() {
        csv::ErrorKind::Deserialize { err, .. } => {
            let column = err.field().and_then(|field| columns.get(field as usize)).map_or("", String::as_str);
            format!("column '{column}': {}", err.kind())
        }
        _ => "it can't be understood".to_owned(),
    }
}

fn bounded(path: &Path) -> Result<Vec<u8>, ResultsError> {
    let io = |error| ResultsError::io("read", path)(error);
    // A pipe would keep us waiting.
    if !path.metadata().map_err(io)?.is_file() {
        return Err(malformed(path, "it is no file".into()));
    }
    let mut bytes = Vec::new();
    let open = || File::open(path)?.take(MOST_BYTES + 1).read_to_end(&mut bytes);
    let length: io::Result<usize> = { open }();
    match length.map_err(io)? as u64 {
        length if length > MOST_BYTES => Err(malformed(path, format!("it has more than {MOST_BYTES} bytes"))),
        _ => Ok(bytes),
    }
}

fn malformed(path: &Path, reason: String) -> ResultsError {
    ResultsError::Malformed { path: path.to_path_buf(), reason }
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "case,metric,value,unit,bound,ok\n";
    const RUN: &str = "run,failure,level,transport,deadline_ms,poll_ms,load,detected,detection_ms,false_positives,cause,\
        sessions,affected,recovered,recovered_ok,extraction_ms,bytes_read,injection_ms,healthy_ms,late_samples,\
        false_os,false_application,false_session,clock_error_ms,detector,queues\n\
        0,sigstop,application,verbs,200.0,5.0,0,true,217.2,0,application,8,8,8,8,9.9,17920,0.7,707.2,1,0,0,0,0.7,duty,true\n\
        0,link-down,link,verbs,200.0,5.0,0,true,319.6,0,unreachable,8,0,0,0,,,,585.7,0,0,0,0,0.0,duty,true\n";

    fn metrics(text: impl AsRef<[u8]>) -> Result<Vec<Metric>, String> {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join(RESULTS);
        std::fs::write(&path, text).unwrap();
        let prefix = format!("cannot understand {}: ", path.display());
        read_metrics(&path).map_err(|error| error.to_string().strip_prefix(&prefix).unwrap().to_owned())
    }

    fn runs(text: &str) -> Result<Vec<DetectRow>, String> {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join(RUNS);
        std::fs::write(&path, text).unwrap();
        let prefix = format!("cannot understand {}: ", path.display());
        read_runs(&path, 3).map_err(|error| error.to_string().strip_prefix(&prefix).unwrap().to_owned())
    }

    #[test]
    fn what_the_script_writes_is_read() {
        let text = format!("{HEAD}a,x,1.5,ms,<=2,yes\na,y,0.3,,,\nb,failure,it hung,,,no\nb,duration,3,s,,\n");
        let found = metrics(&text).unwrap();
        assert_eq!((found.len(), found[0].number(), found[2].number()), (4, Some(1.5), None));
        let tables = Tables { metrics: found, runs: Vec::new() };
        assert_eq!(tables.metrics_table().unwrap().to_csv(), text);
        let expected = ["a", "b", "c"].map(String::from);
        assert_eq!(tables.failures(&expected), ["b: it hung", "c: it has no result"]);
        assert!(tables.runs_table().unwrap().to_csv().starts_with("run,failure,level,transport,"));
    }

    #[test]
    fn a_malformed_row_is_named_by_its_line() {
        let long = "x".repeat(LONGEST_CELL + 1);
        for (rows, why) in [
            ("", "it has no rows"),
            ("a,x,1,,,\na,x,1,,\n", "line 3: 5 cells instead of 6"),
            ("a,x,one,,,\n", "line 2: 'one' is no number"),
            ("a,x,NaN,,=1,yes\n", "line 2: 'NaN' is no number"),
            ("a,x,1,,about 2,yes\n", "line 2: 'about 2' is no bound"),
            ("a,x,1,,1,yes\n", "line 2: '1' is no bound"),
            ("a,x,1,,,perhaps\n", "line 2: 'perhaps' is no verdict (yes, no or nothing)"),
            ("../a,x,1,,,\n", "line 2: '../a' is no case"),
            ("a,<b>,1,,,\n", "line 2: '<b>' is no metric"),
            ("a,x,\u{1b}[2J,,,no\n", "line 2: it has control characters, or a cell that is too long"),
            (&format!("a,failure,{long},,,no\n"), "line 2: it has control characters, or a cell that is too long"),
            ("a,x,1,,,\nb,x,1,,,\na,x,1,,,\n", "the rows of a are apart, or there are more than 100 cases"),
        ] {
            assert_eq!(metrics(format!("{HEAD}{rows}")).unwrap_err(), why, "{rows}");
        }
        assert_eq!(metrics("").unwrap_err(), "it is empty");
        assert_eq!(metrics("hello\n").unwrap_err(), "line 1: the columns are not case,metric,value,unit,bound,ok");
        assert_eq!(metrics(b"\xff\xfe\n").unwrap_err(), "line 1: it is no text in UTF-8");
        assert_eq!(metrics("x".repeat(2 << 20)).unwrap_err(), "it has more than 1048576 bytes");
        let many = "a,x,1,,,\n".repeat(MOST_ROWS + 1);
        assert_eq!(metrics(format!("{HEAD}{many}")).unwrap_err(), "line 5002: there are more than 5000 rows");
    }

    #[test]
    fn runs_have_the_columns_of_live_detection() {
        let found = runs(RUN).unwrap();
        assert_eq!((found.len(), found[1].detection_ms, found[1].extraction_ms), (2, Some(319.6), None));
        let tables = Tables { metrics: Vec::new(), runs: found };
        assert_eq!(tables.runs_table().unwrap().to_csv(), RUN);
        for (from, to, why) in [
            ("sigstop", "sighing", "line 2: 'sighing' is no failure"),
            (",link,", ",os,", "line 3: 'os' is no level of link-down"),
            ("verbs", "shm", "line 2: 'shm' is not the transport verbs"),
            ("217.2", "inf", "line 2: inf is no time in ms"),
            ("217.2", "-1", "line 2: -1 is no time in ms"),
            ("319.6", "soon", "line 3: column 'detection_ms': invalid float literal"),
            ("true,319.6", "yes,319.6", "line 3: column 'detected': provided string was not `true` or `false`"),
            (",load,", ",loud,", "line 1: the columns are not run,failure,level,transport,deadline_ms,poll_ms,"),
        ] {
            let message = runs(&RUN.replacen(from, to, 1)).unwrap_err();
            assert!(message.starts_with(why), "{message}");
        }
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let place = tempfile::tempdir().unwrap();
        let message = read_metrics(place.path()).unwrap_err().to_string();
        assert!(message.ends_with("it is no file"), "{message}");
    }
}
