//! Recording the progress of real processes, for detectors to be tried on afterwards.
//!
//! ```text
//!  node ── memory ──> Watch ──> Recorder ──> TraceFile ──> trace.csv  ──> backdoor qos --trace, pandas
//!                  a monitor    its samples   a thread      + trace.csv.json
//!                  in real time               that writes
//! ```
//!
//! What a trace holds, and how it is to be read, is in [`mod@format`]; what is beside it in [`about`]. The recorder is a
//! monitor like any other, which also suspects by the entities' own deadlines: what it said is counted ([`Recorded`]), and
//! a replay of those deadlines on the trace says the same.

pub mod about;
pub mod file;
pub mod format;
pub mod recorder;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use backdoor_core::Nanos;
use backdoor_core::monitor::MonitorConfig;
use backdoor_core::progress_box::FailureLevel;
use backdoor_host::attach::NodeAddress;
use backdoor_host::clock;
use backdoor_sim::streams::{StreamKey, Streams};

use super::detect::{DetectConfig, DetectError, NodeParts, Service};
use super::detector::DetectorKind;
use super::notice::{Notice, What};
use super::watch::WatchConfig;
use crate::interrupt::Interrupt;
use crate::results::ResultsError;
use about::{About, Finished};
use file::TraceFile;
use recorder::Recorder;

/// How often a recorder looks whether it is to end.
const LOOK_EVERY: Nanos = Nanos::from_millis(20);
/// How long clients may take to be served for the first time.
const PATIENCE: Duration = Duration::from_secs(15);

/// What to record, and where to.
#[derive(Clone, Debug)]
pub struct RecordConfig {
    /// Whom to watch.
    pub subject: Subject,
    /// Time between polls.
    pub poll: Nanos,
    /// Whether the monitor spins just before each poll.
    pub spin: bool,
    /// How long, from when the node is watched.
    pub duration: Nanos,
    /// The trace.
    pub out: PathBuf,
    /// Whether to overwrite a trace that is there.
    pub force: bool,
}

/// Whom to watch.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A node that runs anyhow.
    Node(NodeAddress),
    /// The parts of an experiment, started for the recording: its node, service and load. What the experiment says of
    /// failures and runs is of no meaning here.
    Parts(Box<DetectConfig>),
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recorded {
    /// Lines, the head line not counted.
    pub lines: u64,
    /// Watches begun.
    pub watches: u64,
    /// Length by the clock.
    pub ran: Nanos,
    /// Length in evidence time.
    pub evidence: Nanos,
    /// Samples taken.
    pub samples: u64,
    /// Of those: too late to be evidence.
    pub late_samples: u64,
    /// What the recorder's monitor itself suspected by the entities' deadlines, by level.
    pub suspicions: [u64; FailureLevel::ALL.len()],
    /// Whether somebody asked to stop before its time.
    pub interrupted: bool,
}

/// Why there is no trace, or not all of one: what was written until then stays.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// There is a file already.
    #[error("{} exists; choose another --out, or overwrite it with --force", .0.display())]
    Exists(PathBuf),
    /// The trace can't be written.
    #[error("cannot write {}: {}", path.display(), crate::plain(reason))]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said; part of the sentence already.
        reason: io::Error,
    },
    /// What is to lie beside the trace can't be written.
    #[error(transparent)]
    About(ResultsError),
    /// A setting that can't be.
    #[error("{0}")]
    Config(String),
    /// The parts did not play theirs.
    #[error(transparent)]
    Parts(#[from] DetectError),
    /// Somebody asked to stop before there was anything to record.
    #[error("stopped before there was a node to record")]
    Interrupted,
}

impl RecordError {
    fn write(path: &Path) -> impl Fn(io::Error) -> Self {
        move |reason| RecordError::Write { path: path.into(), reason }
    }

    /// Whether the trace is empty because of it.
    fn is_before_the_first_line(&self) -> bool {
        matches!(self, RecordError::Config(_) | RecordError::Parts(_) | RecordError::Interrupted)
    }
}

/// Where a recording is.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// There is no node yet, for this reason.
    Waiting(String),
    /// For so long it has been recorded.
    Recording(Nanos),
}

impl RecordConfig {
    fn check(&self) -> Result<(), RecordError> {
        let error = |text: String| Err(RecordError::Config(text));
        let (least, most) = (Nanos::from_micros(10), Nanos::from_secs(60));
        if self.poll < least || self.poll > most {
            return error(format!("the poll interval is {}, must be from {least} to {most}", self.poll));
        }
        if self.duration == Nanos::ZERO {
            return error("the duration must be more than zero".into());
        }
        match &self.subject {
            Subject::Parts(parts) => Ok(parts.check()?),
            Subject::Node(_) => Ok(()),
        }
    }

    /// For people.
    fn node(&self) -> String {
        match &self.subject {
            Subject::Node(address) => format!("the node at {address}"),
            Subject::Parts(parts) => format!(
                "parts started for the recording: a worker with {} sessions, {} busy processes{}",
                parts.sessions,
                parts.load,
                parts.on.map_or(String::new(), |stage| format!(", on the stage at {stage}"))
            ),
        }
    }
}

/// Records. The calling thread starts the parts and must live until this returns. `stage` is told of every look.
///
/// # Errors
/// See [`RecordError`]; also when the recording was under way: then what was recorded until then is in the file.
pub fn record(
    config: &RecordConfig,
    interrupt: &Interrupt,
    stage: &mut dyn FnMut(&Stage),
) -> Result<Recorded, RecordError> {
    config.check()?;
    let trace = TraceFile::create(&config.out, config.force)?;
    let outcome = record_into(trace, config, interrupt, stage);
    if matches!(&outcome, Err(error) if error.is_before_the_first_line()) {
        // An empty trace would be in the way of the next attempt.
        for path in [config.out.clone(), About::path(&config.out)] {
            if path.is_file() {
                let _ = std::fs::remove_file(path);
            }
        }
    }
    outcome
}

fn record_into(
    trace: TraceFile,
    config: &RecordConfig,
    interrupt: &Interrupt,
    stage: &mut dyn FnMut(&Stage),
) -> Result<Recorded, RecordError> {
    let monitor = MonitorConfig::polling_every(config.poll);
    let mut about = About::new(config.node(), monitor, config.spin);
    about.write(&config.out)?;
    let (parts, address) = match &config.subject {
        Subject::Node(address) => (None, address.clone()),
        Subject::Parts(parts) => {
            let (parts, address) = start(parts, interrupt)?;
            (Some(parts), address)
        }
    };
    let watch =
        WatchConfig { node: address, monitor, detector: DetectorKind::Deadline, spin: config.spin, recover: false };
    let mut session = Session::new(watch, trace);
    session.run(config.duration, interrupt, stage)?;
    // Before the parts end, which is no part of the recording.
    let (recorded, wakeups) = session.end(interrupt.requested())?;
    drop(parts);
    about.finished = Some(Finished {
        lines: recorded.lines,
        watches: recorded.watches,
        ran_s: recorded.ran.as_secs_f64(),
        evidence_s: recorded.evidence.as_secs_f64(),
        samples: recorded.samples,
        late_samples: recorded.late_samples,
        wakeups,
        interrupted: recorded.interrupted,
    });
    about.write(&config.out)?;
    Ok(recorded)
}

/// Fields are dropped in this order: who serves, then where it runs.
pub(crate) struct Parts {
    _service: Service,
    #[cfg_attr(not(feature = "studies"), expect(dead_code, reason = "it ends with the others"))]
    node: NodeParts,
}

#[cfg(feature = "studies")]
impl Parts {
    /// Starts a monitor beside whatever else watches, as a process of its own; it has attached when this returns.
    pub(crate) fn monitor(&self, config: &DetectConfig) -> Result<super::parts::Part, DetectError> {
        self.node.watched(&as_recorded(config))
    }
}

/// Starts the parts, and waits until every client has been served once.
pub(crate) fn start(config: &DetectConfig, interrupt: &Interrupt) -> Result<(Parts, NodeAddress), RecordError> {
    let config = &as_recorded(config);
    config.transport.try_here(&config.card).map_err(RecordError::Config)?;
    let node = NodeParts::start(config, false, interrupt)?.ok_or(RecordError::Interrupted)?;
    let address = node.address().to_attach().map_err(RecordError::Config)?;
    let key = StreamKey { seed: config.seed, experiment: "live-record", point: "", replication: 0 };
    let service = Service::start(config, &node, &Streams::new(key))?;
    let begin = Instant::now();
    while !service.all_served() {
        if interrupt.requested() {
            return Err(RecordError::Interrupted);
        }
        if begin.elapsed() > PATIENCE {
            return Err(DetectError::Blind { what: "see every client served", waited: PATIENCE }.into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok((Parts { _service: service, node }, address))
}

/// Judged by silence alone, on the monitor's clock: what waits for idle sessions is not in a trace.
fn as_recorded(config: &DetectConfig) -> DetectConfig {
    DetectConfig { detector: DetectorKind::Deadline, queues: false, ..config.clone() }
}

/// A recording under way.
pub(crate) struct Session {
    watch: super::watch::Watch<recorder::Witness>,
    recorder: Recorder,
    trace: TraceFile,
    notices: Vec<Notice>,
    began: Option<Nanos>,
    watches: u64,
    suspicions: [u64; FailureLevel::ALL.len()],
}

impl Session {
    /// Begins with [`run`](Self::run), in the thread that calls it.
    pub(crate) fn new(config: WatchConfig, trace: TraceFile) -> Self {
        Session {
            watch: recorder::watch(config),
            recorder: Recorder::default(),
            trace,
            notices: Vec::new(),
            began: None,
            watches: 0,
            suspicions: Default::default(),
        }
    }

    /// Records for `duration` from when the node is watched, or until somebody asks to stop.
    pub(crate) fn run(
        &mut self,
        duration: Nanos,
        interrupt: &Interrupt,
        stage: &mut dyn FnMut(&Stage),
    ) -> Result<(), RecordError> {
        let mut told = Nanos::ZERO;
        while !interrupt.requested() {
            let end = self.began.map_or(Nanos::MAX, |began| began + duration);
            if clock::now() >= end {
                return Ok(());
            }
            self.watch.turn((clock::now() + LOOK_EVERY).min(end), &mut self.notices);
            let now = clock::now();
            let (trace, watches) = (&mut self.trace, &mut self.watches);
            self.recorder.look(&self.watch, now, &mut |row| {
                *watches = (*watches).max(row.watch + 1);
                trace.push(&row);
            });
            if self.began.is_none() && self.watches > 0 {
                self.began = Some(now);
            }
            self.take_notices(stage);
            self.trace.flush(now)?;
            if let Some(began) = self.began
                && now >= told + LOOK_EVERY
            {
                told = now;
                stage(&Stage::Recording(now - began));
            }
        }
        if self.began.is_none() { Err(RecordError::Interrupted) } else { Ok(()) }
    }

    fn take_notices(&mut self, stage: &mut dyn FnMut(&Stage)) {
        for notice in self.notices.drain(..) {
            match notice.what {
                What::Waiting { why } => stage(&Stage::Waiting(why)),
                What::Suspected { entity, .. } => {
                    let level = FailureLevel::ALL.iter().position(|level| level.name() == entity.level);
                    self.suspicions[level.unwrap_or(0)] += 1;
                }
                _ => {}
            }
        }
    }

    /// Writes what is left.
    pub(crate) fn end(self, interrupted: bool) -> Result<(Recorded, super::wakeups::WakeupError), RecordError> {
        let ran = self.began.map_or(Nanos::ZERO, |began| clock::now() - began);
        let summary = self.watch.summary();
        let evidence = self.recorder.evidence_time();
        let lines = self.trace.finish()?;
        let recorded = Recorded {
            lines,
            watches: self.watches,
            ran,
            evidence,
            samples: summary.samples,
            late_samples: summary.late_samples,
            suspicions: self.suspicions,
            interrupted,
        };
        Ok((recorded, summary.wakeups))
    }
}
