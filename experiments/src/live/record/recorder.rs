//! From a monitor's samples to the lines of a trace.
//!
//! The monitor judges by the entities' deadlines like any other; only its detectors also tell which watch they belong to.
//! After each of its turns it is looked at: who joined, whose word moved, who is gone.

use backdoor_core::Nanos;
use backdoor_core::detector::{DeadlineDetector, Detector, Heartbeat};
use backdoor_core::monitor::Monitor;
use backdoor_core::progress_box::{EntityRecord, EntityState, Liveness};
use std::sync::atomic::{AtomicU64, Ordering};

use super::format::Row;
use crate::live::watch::{Watch, WatchConfig};

/// The paper's detector, with a number that no other detector of the recording has.
#[derive(Clone, Copy, Debug)]
pub struct Witness {
    judge: DeadlineDetector,
    watch: u64,
}

impl Detector for Witness {
    const STEADY: bool = DeadlineDetector::STEADY;

    #[inline]
    fn progressed(&mut self, heartbeat: Heartbeat) {
        self.judge.progressed(heartbeat);
    }

    #[inline]
    fn last_progress(&self) -> Nanos {
        self.judge.last_progress()
    }

    #[inline]
    fn fresh_until(&self) -> Nanos {
        self.judge.fresh_until()
    }
}

/// A watch whose monitor a [`Recorder`] can look at.
pub fn watch(config: WatchConfig) -> Watch<Witness> {
    Watch::with(config, witnesses())
}

/// Makes witnesses, and numbers them as their watches begin.
fn witnesses() -> impl Fn(&EntityRecord, Nanos) -> Witness + Send + Sync {
    let next = AtomicU64::new(0);
    move |record, now| Witness {
        judge: DeadlineDetector::new(record.deadline, now),
        watch: next.fetch_add(1, Ordering::Relaxed),
    }
}

/// What was last written of a slot.
#[derive(Clone, Copy, Debug)]
struct Known {
    watch: u64,
    record: EntityRecord,
    liveness: Liveness,
    /// The look at which it was last there.
    look: u64,
}

/// Writes down what a monitor observes. Takes the memory of an entry for each slot of the node.
#[derive(Debug, Default)]
pub struct Recorder {
    known: Vec<Option<Known>>,
    looks: u64,
    attachment: u64,
    samples: u64,
    /// Evidence time of the recording at which that of this attachment began.
    base: Nanos,
    /// Earliest moments of the last sample and of the one before.
    begin: Nanos,
    before: Nanos,
    /// No line so far has a later moment.
    latest: Nanos,
}

impl Recorder {
    /// Takes in what a turn of the watch brought. `seen` is the clock after it.
    pub fn look(&mut self, watch: &Watch<Witness>, seen: Nanos, row: &mut dyn FnMut(Row)) {
        if let Some((attachment, monitor)) = watch.monitor() {
            self.look_at(attachment, monitor, seen, row);
        }
    }

    fn look_at(&mut self, attachment: u64, monitor: &Monitor<Witness>, seen: Nanos, row: &mut dyn FnMut(Row)) {
        if attachment != self.attachment {
            // Another monitor, whose evidence time begins anew.
            (self.attachment, self.samples, self.base) = (attachment, 0, self.evidence_time());
        }
        self.looks += 1;
        let samples = monitor.stats().samples;
        if samples != self.samples {
            self.samples = samples;
            (self.before, self.begin) = (self.begin, self.base + monitor.evidence_time());
        }
        let mut written = Written { unmoved: self.before, earliest: self.begin, seen, latest: &mut self.latest, row };
        for view in monitor.entities() {
            let index = view.slot.index();
            if self.known.len() <= index {
                self.known.resize(index + 1, None);
            }
            let now = Known { watch: view.detector.watch, record: *view.record, liveness: view.word, look: self.looks };
            let last_progress = self.base + view.last_progress;
            match self.known[index].replace(now) {
                Some(old) if old.watch == now.watch => {
                    if old.liveness != now.liveness {
                        written.progress(&now, last_progress);
                    }
                }
                old => {
                    old.inspect(|old| written.end(old));
                    written.begin(&now, last_progress);
                }
            }
        }
        for known in &mut self.known {
            if let Some(gone) = known.take_if(|known| known.look != self.looks) {
                written.end(&gone);
            }
        }
    }

    /// Evidence time so far.
    pub fn evidence_time(&self) -> Nanos {
        self.latest.max(self.begin)
    }
}

/// The lines of one look.
struct Written<'a> {
    unmoved: Nanos,
    earliest: Nanos,
    seen: Nanos,
    latest: &'a mut Nanos,
    row: &'a mut dyn FnMut(Row),
}

impl Written<'_> {
    fn begin(&mut self, known: &Known, latest: Nanos) {
        self.line(known, self.earliest, latest, known.liveness.state());
    }

    fn progress(&mut self, known: &Known, latest: Nanos) {
        self.line(known, self.unmoved, latest, known.liveness.state());
    }

    /// No sample begins before the end of the last one, so this is not before that watch's last line.
    fn end(&mut self, known: &Known) {
        self.line(known, self.unmoved, self.earliest, EntityState::Free);
    }

    fn line(&mut self, known: &Known, unmoved: Nanos, latest: Nanos, state: EntityState) {
        *self.latest = latest.max(*self.latest);
        let Known { watch, record, liveness, .. } = known;
        (self.row)(Row {
            watch: *watch,
            entity: record.name.to_string(),
            level: record.level,
            deadline: record.deadline,
            seen: self.seen,
            unmoved,
            earliest: self.earliest,
            latest,
            state,
            count: liveness.count(),
        });
    }
}
