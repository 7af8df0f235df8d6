//! What the experiment found: a row per run, and a summary for people.

use std::borrow::Cow;
use std::fmt::Write;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use super::{DetectConfig, FailureKind};
use crate::live::notice::Summary;
use crate::live::reach::TransportKind;
use crate::live::wakeups::WakeupError;
use crate::results::{ResultsError, Table};
use crate::stats::{self, Estimate};

/// One run. The field names are the columns of the CSV.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, DocumentedFields)]
pub struct DetectRow {
    /// Number of the run, from 0.
    pub run: u32,
    /// How the worker failed.
    pub failure: Cow<'static, str>,
    /// Level of that failure.
    pub level: Cow<'static, str>,
    /// What the monitor read through.
    pub transport: Cow<'static, str>,
    /// Deadline, in ms.
    pub deadline_ms: f64,
    /// Time between polls, in ms.
    pub poll_ms: f64,
    /// Busy processes.
    pub load: u32,
    /// Whether the failure was detected before the run was given up.
    pub detected: bool,
    /// From the failure to the suspicion that lasted, in ms; 0 if a false suspicion turned true.
    pub detection_ms: Option<f64>,
    /// Suspicions of entities that had not failed, over the whole run.
    pub false_positives: u64,
    /// What the monitor's diagnosis said.
    pub cause: String,
    /// Sessions of the worker.
    pub sessions: u64,
    /// Sessions that the failure took service from.
    pub affected: u64,
    /// Of those: whose state was read out.
    pub recovered: u64,
    /// Of those: whose state is what their clients know, byte for byte.
    pub recovered_ok: u64,
    /// From the first READ of the extraction to the last answer, in ms.
    pub extraction_ms: Option<f64>,
    /// Bytes that it asked for.
    pub bytes_read: Option<u64>,
    /// How long it took to make the failure, in ms: for signals and for this machine's own link the length of the call
    /// that made it, at whose end the failure is taken to begin; for commands their length, at whose beginning; for what
    /// the worker does, from the order to the failure. None where that can't be told.
    pub injection_ms: Option<f64>,
    /// How long the worker was healthy, in ms.
    pub healthy_ms: f64,
    /// Polls that came too late to be evidence.
    pub late_samples: u64,
    /// False positives among the operating system's counters.
    pub false_os: u64,
    /// False positives among applications.
    pub false_application: u64,
    /// False positives among sessions.
    pub false_session: u64,
    /// By how much the moment of failure may be off because it was told by another machine's clock, in ms.
    pub clock_error_ms: f64,
    /// What the monitor judged by.
    pub detector: Cow<'static, str>,
    /// Whether the agent watched what waits in the sessions' sockets.
    pub queues: bool,
}

/// All runs of one configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct DetectReport {
    /// The configuration.
    pub config: DetectConfig,
    /// The runs.
    pub rows: Vec<DetectRow>,
    /// What the monitor says of itself.
    pub monitor: Summary,
    /// How late a loop that never sleeps was on this machine, under the same load.
    pub spin: WakeupError,
}

impl DetectReport {
    /// The rows of several configurations as one table, to be written as CSV.
    pub fn table<'a>(reports: impl IntoIterator<Item = &'a DetectReport>) -> Result<Table, ResultsError> {
        let rows: Vec<&DetectRow> = reports.into_iter().flat_map(|report| &report.rows).collect();
        Table::from_rows(&rows)
    }

    /// Detection times of the runs in which the failure was detected, in ms.
    pub fn detection_ms(&self) -> Vec<f64> {
        self.rows.iter().filter_map(|row| row.detection_ms).collect()
    }

    /// Median detection time in ms, with its 95% interval between order statistics.
    pub fn median_ms(&self) -> Option<Estimate> {
        stats::quantile(&mut self.detection_ms(), 0.5)
    }

    /// Whether the median keeps the [bound](DetectConfig::bound); `None` if nothing was to be detected or nothing was, or if it was
    /// a node or a link: there the deadline is not what it takes.
    pub fn keeps_bound(&self) -> Option<bool> {
        if self.config.failure.is_of_node() {
            return None;
        }
        Some(self.median_ms()?.value <= self.config.bound().as_millis_f64())
    }

    /// False positives per second of healthy time, over all entities together.
    pub fn false_positive_rate(&self) -> Option<Estimate> {
        let healthy: f64 = self.rows.iter().map(|row| row.healthy_ms / 1e3).sum();
        stats::rate(self.sum(|row| row.false_positives), healthy)
    }

    fn sum(&self, of: impl Fn(&DetectRow) -> u64) -> u64 {
        self.rows.iter().map(of).sum()
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let config = &self.config;
        let mut text = String::new();
        // Writing to a String can't fail.
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<18}{value}");
        };
        if config.failure != FailureKind::None {
            let detected = self.rows.iter().filter(|row| row.detected).count();
            line("detected", format!("{detected} of {} runs", self.rows.len()));
            let median = self.median_ms().map_or("none".into(), |median| estimate(&median, "ms"));
            line("median", median);
            let mut times = self.detection_ms();
            times.sort_by(f64::total_cmp);
            if let (Some(least), Some(most)) = (times.first(), times.last()) {
                line("range", format!("{least:.2} to {most:.2} ms"));
            }
            let kept = match self.keeps_bound() {
                Some(true) => "kept by the median",
                Some(false) => "NOT kept by the median",
                None => "nothing to compare",
            };
            if !config.failure.is_of_node() {
                let bound = config.bound().as_millis_f64();
                let looks = if config.failure.shows_in_queues() { " + two looks at the queues" } else { "" };
                line("bound", format!("{bound:.2} ms = deadline + poll + 1 ms{looks}: {kept}"));
            }
            let clock_error = self.rows.iter().map(|row| row.clock_error_ms).fold(0.0, f64::max);
            if clock_error > 0.0 {
                line("clocks", format!("of two machines; the moment of failure is off by at most {clock_error:.3} ms"));
            }
            line("diagnosis", self.causes());
            let (affected, recovered) = (self.sum(|row| row.affected), self.sum(|row| row.recovered));
            let right = self.sum(|row| row.recovered_ok);
            line("states", format!("{recovered} of {affected} read out, {right} right byte for byte"));
            let mut took: Vec<f64> = self.rows.iter().filter_map(|row| row.extraction_ms).collect();
            if let Some(median) = stats::quantile(&mut took, 0.5) {
                let bytes = self.rows.iter().filter_map(|row| row.bytes_read).max().unwrap_or(0);
                line("reading them out", format!("{:.3} ms in the median, for {bytes} bytes", median.value));
            }
        }
        let healthy = self.rows.iter().map(|row| row.healthy_ms / 1e3).sum::<f64>();
        let rate = self.false_positive_rate().map_or(String::new(), |rate| format!(": {}", estimate(&rate, "per s")));
        line("false positives", format!("{} in {healthy:.1} s of health{rate}", self.sum(|row| row.false_positives)));
        if self.sum(|row| row.false_positives) > 0 {
            let [os, application, session] =
                [self.sum(|r| r.false_os), self.sum(|r| r.false_application), self.sum(|r| r.false_session)];
            line("", format!("os {os}, application {application}, session {session}"));
        }
        let late = format!("{} of {} samples", self.monitor.late_samples, self.monitor.samples);
        line("monitor late", late);
        line("its wake-up error", wakeup(&self.monitor.wakeups));
        line("a spin loop's", wakeup(&self.spin));
        format!("{}\n{text}", self.title())
    }

    fn title(&self) -> String {
        let config = &self.config;
        let plural = |count: u64| if count == 1 { "" } else { "s" };
        format!(
            "{} ({}): detector {}, deadline {}, poll {}, {} busy process{}, {} session{} of {} bytes{}, over {}{}",
            config.failure.name(),
            match config.failure {
                FailureKind::None => "nobody fails",
                other => other.level(),
            },
            config.detector.name(),
            config.deadline,
            config.poll,
            config.load,
            if config.load == 1 { "" } else { "es" },
            config.sessions,
            plural(config.sessions),
            config.state_bytes,
            if config.queues { "" } else { ", queues not watched" },
            match config.transport {
                TransportKind::Shm => "shared memory",
                TransportKind::Verbs => "verbs",
            },
            config.on.map_or(String::new(), |stage| format!(", on the stage at {stage}"))
        )
    }

    /// Which causes were diagnosed, how often.
    fn causes(&self) -> String {
        let mut counts: Vec<(&str, usize)> = Vec::new();
        for row in &self.rows {
            let cause = if row.cause.is_empty() { "none" } else { &row.cause };
            match counts.iter_mut().find(|(known, _)| *known == cause) {
                Some((_, count)) => *count += 1,
                None => counts.push((cause, 1)),
            }
        }
        counts.iter().map(|(cause, count)| format!("{cause} {count}")).collect::<Vec<_>>().join(", ")
    }
}

fn estimate(estimate: &Estimate, unit: &str) -> String {
    match (estimate.low, estimate.high) {
        (Some(low), Some(high)) => format!("{:.2} {unit}, 95% interval [{low:.2}, {high:.2}]", estimate.value),
        _ => format!("{:.2} {unit} (too few runs for an interval)", estimate.value),
    }
}

fn wakeup(error: &WakeupError) -> String {
    let WakeupError { median_ms, p99_ms, max_ms, .. } = error;
    format!("{median_ms:.3} ms median, {p99_ms:.3} ms at 99%, {max_ms:.3} ms at worst")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(detection_ms: Option<f64>) -> DetectRow {
        DetectRow {
            run: 0,
            failure: "sigstop".into(),
            level: "application".into(),
            transport: "shm".into(),
            deadline_ms: 20.0,
            poll_ms: 1.0,
            load: 0,
            detected: detection_ms.is_some(),
            detection_ms,
            false_positives: 0,
            cause: "application".into(),
            sessions: 8,
            affected: 8,
            recovered: 8,
            recovered_ok: 8,
            extraction_ms: Some(0.02),
            bytes_read: Some(1000),
            injection_ms: Some(0.01),
            healthy_ms: 120.0,
            late_samples: 0,
            false_os: 0,
            false_application: 0,
            false_session: 0,
            clock_error_ms: 0.0,
            detector: "duty".into(),
            queues: true,
        }
    }

    fn report(times: impl IntoIterator<Item = Option<f64>>) -> DetectReport {
        let config = DetectConfig::of(FailureKind::Sigstop).unwrap();
        let rows = times.into_iter().map(row).collect();
        DetectReport { config, rows, monitor: Summary::default(), spin: WakeupError::default() }
    }

    #[test]
    fn the_columns_are_those_that_others_rely_on() {
        let csv = DetectReport::table([&report([Some(20.5), None])]).unwrap().to_csv();
        let head = "run,failure,level,transport,deadline_ms,poll_ms,load,detected,detection_ms,false_positives,";
        assert!(csv.starts_with(head), "{csv}");
        assert!(csv.contains("\n0,sigstop,application,shm,20.0,1.0,0,true,20.5,0,"), "{csv}");
        assert!(csv.contains(",false,,0,"), "{csv}");
    }

    #[test]
    fn the_bound_is_kept_or_not_or_unknown() {
        assert_eq!(report([Some(21.9), Some(20.1), None]).keeps_bound(), Some(true));
        assert_eq!(report([Some(22.1)]).keeps_bound(), Some(false));
        assert_eq!(report([None]).keeps_bound(), None);
    }

    #[test]
    fn the_text_holds_what_matters() {
        let text = report((0..20).map(|n| Some(20.0 + f64::from(n) / 20.0))).to_text();
        for part in ["20 of 20 runs", "kept by the median", "160 of 160 read out, 160 right", "spin loop"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
