//! What a trace is of: a JSON file beside it, for whoever finds it later.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::RecordError;
use crate::live::wakeups::WakeupError;
use crate::results::{Host, now_unix_s, write_whole};

/// The format of traces and of this file.
const FORMAT: &str = "backdoor-trace/1";

/// The contents of `TRACE.json`. Nothing that evaluates a trace needs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// The format's name and version.
    pub format: String,
    /// The command as typed.
    pub command: Vec<String>,
    /// Version of the program.
    pub version: String,
    /// The monitor's machine.
    pub host: Host,
    /// When the recording began, seconds since the Unix epoch.
    pub started_unix_s: u64,
    /// Whom it watches, for people.
    pub node: String,
    /// Time between polls.
    pub poll_ns: u64,
    /// Samples further apart are no evidence of silence in between.
    pub max_gap_ns: u64,
    /// Whether the monitor spins before each poll.
    pub spin: bool,
    /// What came of it; absent while it is recorded, and if the recorder was killed.
    pub finished: Option<Finished>,
}

/// The end of a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// Lines, the head line not counted.
    pub lines: u64,
    /// Watches begun.
    pub watches: u64,
    /// Length of the recording by the clock, in seconds.
    pub ran_s: f64,
    /// Length of it in evidence time, in seconds.
    pub evidence_s: f64,
    /// Samples taken.
    pub samples: u64,
    /// Of those: too late to be evidence of the silence before them.
    pub late_samples: u64,
    /// How late the monitor woke up.
    pub wakeups: WakeupError,
    /// Whether it ended before its time, by Ctrl-C.
    pub interrupted: bool,
}

impl About {
    /// A recording that starts now, on this machine.
    pub fn new(node: String, monitor: backdoor_core::monitor::MonitorConfig, spin: bool) -> Self {
        About {
            format: FORMAT.into(),
            command: std::env::args().collect(),
            version: env!("CARGO_PKG_VERSION").into(),
            host: Host::current(),
            started_unix_s: now_unix_s(),
            node,
            poll_ns: monitor.poll_interval.0,
            max_gap_ns: monitor.max_gap.0,
            spin,
            finished: None,
        }
    }

    /// Where it lies: beside the trace, under its name with `.json` appended.
    pub fn path(trace: &Path) -> PathBuf {
        let mut name = trace.file_name().unwrap_or_default().to_owned();
        name.push(".json");
        trace.with_file_name(name)
    }

    /// Writes it beside the trace, whole or not at all.
    ///
    /// # Errors
    /// [`RecordError::Write`].
    pub fn write(&self, trace: &Path) -> Result<(), RecordError> {
        let path = Self::path(trace);
        let text = serde_json::to_string_pretty(self).map_err(|error| RecordError::write(&path)(error.into()))?;
        write_whole(&path, format!("{text}\n").as_bytes()).map_err(RecordError::About)
    }
}
