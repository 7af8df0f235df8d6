//! The monitor in real time: the pure monitor of `backdoor-core`, given a clock and a transport.
//!
//! The agent may come late, go, and come again; a [`Watch`] waits, goes on with what a dead agent left (services still
//! write into it), and turns to the next agent as soon as there is one.
//!
//! # When is a diagnosis due?
//! The counters of one failure do not fall silent at the same instant: a session that was being served stood still a
//! little before the loop of its application did. So a diagnosis waits until what is suspected has *settled*
//! ([`settles_by`]). Detection is the verdict itself and does not wait.

mod repeats;
mod suspicion;

pub use suspicion::Suspicion;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_core::detector::Detector;
use backdoor_core::diagnosis::{Cause, Failure, diagnose, settles_by};
use backdoor_core::hook_table::Purpose;
use backdoor_core::monitor::{Event, Monitor, MonitorConfig, MonitorStats, Standing};
use backdoor_core::progress_box::EntityRecord;
use backdoor_core::recovery::{Extraction, ExtractionConfig, RecoveryPlan, plan};
use backdoor_core::transport::Transport;
use backdoor_host::attach::{AgentLink, AttachError, Attachment, NodeAddress, attach};
use backdoor_host::clock;

use super::detector::{DetectorKind, LiveDetector};
use super::notice::{Entity, Notice, RecoveredState, Recovery, Summary, What, action_name, cause_name, to_hex};
use super::wakeups::Wakeups;
use repeats::Repeats;

/// Pause between two looks for an agent, or at whether it is still there.
const LOOK_EVERY: Nanos = Nanos::from_millis(50);
/// How long an attempt to attach is waited for before it is left to itself.
const ANSWER_AT_ONCE: Duration = Duration::from_millis(5);
/// How long a look at once may take.
const LAST_LOOK: Nanos = Nanos::from_millis(1);
/// How long before its time a spinning monitor stops to sleep.
const SPIN_MARGIN: Nanos = Nanos::from_micros(200);
/// Least pause between two looks for the answer to a READ.
const SHORTEST_NAP: Nanos = Nanos::from_micros(20);
/// An extraction over shared memory takes microseconds; one that takes this long is given up.
const EXTRACTION_LIMIT: Nanos = Nanos::from_secs(5);

/// How to watch.
#[derive(Clone, Debug)]
pub struct WatchConfig {
    /// Where the node is.
    pub node: NodeAddress,
    /// How to poll.
    pub monitor: MonitorConfig,
    /// What to judge by.
    pub detector: DetectorKind,
    /// Whether to spend a processor on waking up in time.
    pub spin: bool,
    /// Whether to read the state of the sessions that a failure affects, and to hand it out with the notice.
    pub recover: bool,
}

/// A node being watched.
struct Node<D> {
    monitor: Monitor<D>,
    transport: Box<dyn Transport + Send>,
    link: AgentLink,
    gone: bool,
    /// Failures reported and not resolved.
    reported: Vec<(Cause, Vec<Entity>)>,
    /// Verdicts have come since the last diagnosis.
    unsettled: bool,
    /// Where each entity stood when it was first looked at by [`Watch::everybody_judged`].
    first_look: HashMap<(u32, u32), Nanos>,
}

/// Makes an entity's detector when its watch begins.
type MakeDetector<D> = Arc<dyn Fn(&EntityRecord, Nanos) -> D + Send + Sync>;

/// A monitor in real time. `D` is the detector of each entity; [`Watch::new`] takes the one that is configured.
pub struct Watch<D = LiveDetector> {
    config: WatchConfig,
    make: MakeDetector<D>,
    node: Option<Node<D>>,
    look_at: Nanos,
    /// While a READ is under way: samples taken before it, and since when it is waited for.
    waiting: Option<(u64, Nanos)>,
    /// An attempt to attach, on a thread of its own, for it may have to wait for an answer.
    attaching: Option<Receiver<Result<Attachment, AttachError>>>,
    waiting_for: Option<String>,
    started: Nanos,
    summary: Summary,
    /// Of the agents before this one.
    past: MonitorStats,
    wakeups: Wakeups,
    events: Vec<Event>,
    repeats: Repeats,
}

impl Watch {
    /// A watch by the detector that is configured; see [`Watch::with`].
    pub fn new(config: WatchConfig) -> Self {
        let detector = config.detector;
        Watch::with(config, move |record, now| detector.make(record, now))
    }
}

impl<D: Detector + 'static> Watch<D> {
    /// A watch that begins with its first [`turn`](Self::turn), in the calling thread, whose timers become exact.
    ///
    /// READs are waited for at least as long as the way to the node tries by itself.
    pub fn with(mut config: WatchConfig, make: impl Fn(&EntityRecord, Nanos) -> D + Send + Sync + 'static) -> Self {
        clock::use_exact_timers();
        let timeout = &mut config.monitor.read_timeout;
        *timeout = config.node.patience().map_or(*timeout, |patience| patience.max(*timeout));
        Watch {
            config,
            make: Arc::new(make),
            node: None,
            look_at: Nanos::ZERO,
            waiting: None,
            attaching: None,
            waiting_for: None,
            started: clock::now(),
            summary: Summary::default(),
            past: MonitorStats::default(),
            wakeups: Wakeups::default(),
            events: Vec::new(),
            repeats: Repeats::default(),
        }
    }

    /// Whether an agent has been found.
    pub fn is_connected(&self) -> bool {
        self.node.is_some()
    }

    /// The monitor of the node that is watched now, and which attachment of this watch it is, from 1.
    pub fn monitor(&self) -> Option<(u64, &Monitor<D>)> {
        self.node.as_ref().map(|node| (self.summary.attached, &node.monitor))
    }

    /// Sleeps until something is due, at most until `until`, does it, and appends what was noticed.
    pub fn turn(&mut self, until: Nanos, notices: &mut Vec<Notice>) {
        let poll_due = self.node.as_ref().map(|node| node.monitor.due());
        let answer_due = self.answer_due();
        self.sleep(poll_due.unwrap_or(Nanos::MAX).min(answer_due).min(self.look_at).min(until));
        self.poll(notices);
        self.note_waiting();
        // After the poll, which is the more urgent.
        if clock::now() >= self.look_at {
            self.look_for_agent(notices);
            self.look_at = clock::now() + LOOK_EVERY;
        }
    }

    /// When to look for the answer to a READ: soon, for most come soon; then after as long again as it was waited for, so
    /// that one that never comes costs little.
    fn answer_due(&self) -> Nanos {
        let Some((_, since)) = self.waiting else { return Nanos::MAX };
        let now = clock::now();
        now + (now - since).max(SHORTEST_NAP)
    }

    fn note_waiting(&mut self) {
        let known = self.waiting;
        self.waiting = self.node.as_ref().filter(|node| node.monitor.is_waiting()).map(|node| {
            let samples = node.monitor.stats().samples;
            known.filter(|(before, _)| *before == samples).unwrap_or_else(|| (samples, clock::now()))
        });
    }

    fn sleep(&self, until: Nanos) {
        if !self.config.spin {
            return clock::sleep_until(until);
        }
        clock::sleep_until(until - SPIN_MARGIN);
        while clock::now() < until {
            std::hint::spin_loop();
        }
    }

    fn look_for_agent(&mut self, notices: &mut Vec<Notice>) {
        if let Some(node) = &mut self.node {
            if !node.note_agents_end() {
                // A network card's channel finds the next agent by itself; then an attempt of ours is one too many.
                node.gone = false;
                self.attaching = None;
                let trouble = node.link.trouble();
                return self.say_waiting(trouble, notices);
            }
            if !std::mem::replace(&mut node.gone, true) {
                notices.push(notice(What::AgentGone));
            }
        }
        let Some(result) = self.attach() else { return };
        match result {
            Ok(attachment) => {
                let (transport, link) = attachment.into_parts();
                let again = self.forget();
                self.waiting_for = None;
                self.summary.attached += 1;
                notices.push(notice(What::Connected { incarnation: link.incarnation(), again }));
                let make = Arc::clone(&self.make);
                let make = move |record: &EntityRecord, now| make(record, now);
                let monitor = Monitor::new(self.config.monitor, link.hook_table(), make);
                self.node = Some(Node {
                    monitor,
                    transport,
                    link,
                    gone: false,
                    reported: Vec::new(),
                    unsettled: false,
                    first_look: HashMap::new(),
                });
            }
            Err(error) => self.say_waiting(Some(error.to_string()), notices),
        }
    }

    /// Says what is waited for, if that is news.
    fn say_waiting(&mut self, why: Option<String>, notices: &mut Vec<Notice>) {
        if self.waiting_for != why {
            notices.extend(why.clone().map(|why| notice(What::Waiting { why })));
            self.waiting_for = why;
        }
    }

    /// What came of an attempt to attach, if one has ended; otherwise sees to it that one is under way.
    fn attach(&mut self) -> Option<Result<Attachment, AttachError>> {
        let attempt = self.attaching.get_or_insert_with(|| {
            let (sender, receiver) = mpsc::channel();
            let node = self.config.node.clone();
            // Bounded in time; nobody minds its result if the watch has ended meanwhile. If there is no thread to be
            // had, the sender is dropped, and it is tried again.
            let _ = std::thread::Builder::new().name("attach".into()).spawn(move || sender.send(attach(&node)));
            receiver
        });
        // On this machine the answer comes at once, and is worth not waiting for the next look.
        match attempt.recv_timeout(ANSWER_AT_ONCE) {
            Ok(result) => {
                self.attaching = None;
                Some(result)
            }
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                self.attaching = None;
                None
            }
        }
    }

    /// Lets go of the node watched so far; answers whether there was one.
    fn forget(&mut self) -> bool {
        let Some(node) = self.node.take() else { return false };
        let stats = node.monitor.stats();
        self.past.samples += stats.samples;
        self.past.late_samples += stats.late_samples;
        true
    }

    fn poll(&mut self, notices: &mut Vec<Notice>) {
        let Some(node) = &mut self.node else { return };
        let (now, due) = (clock::now(), node.monitor.due());
        if now >= due || node.monitor.is_waiting() {
            if now >= due && due > Nanos::ZERO && node.monitor.hooks().is_some() {
                self.wakeups.record(due, now);
            }
            node.monitor.step(now, &mut node.transport, &mut self.events);
            // The verdict is reached when the step is done, not when it began.
            let at = clock::now();
            for event in self.events.drain(..) {
                count(&mut self.summary, &event);
                if matches!(
                    event,
                    Event::Suspected(_) | Event::Trusted(_) | Event::Left { .. } | Event::Restarted { .. }
                ) {
                    node.unsettled = true;
                }
                let what = What::of(&event);
                if self.repeats.is_news(&what, at) {
                    notices.push(Notice { at_ns: at.0, what });
                }
            }
        }
        if node.unsettled && !node.monitor.is_waiting() && settles_by(&node.monitor).is_none() {
            node.unsettled = false;
            self.summary.failures += node.report_failures(self.config.recover, notices);
        }
    }

    /// Whether every entity has been judged since the first call of this: made progress, waits, ended, or is suspected.
    pub fn everybody_judged(&mut self) -> bool {
        let Some(node) = &mut self.node else { return false };
        let mut entities = 0;
        let mut judged = 0;
        for entity in node.monitor.entities() {
            let key = (entity.slot.0, entity.record.generation);
            let first = *node.first_look.entry(key).or_insert(entity.last_progress);
            entities += 1;
            judged += usize::from(entity.standing != Standing::Trusted || entity.last_progress > first);
        }
        entities > 0 && entities == judged && !node.unsettled
    }

    /// Takes a sample if one is due, and waits a moment for it. Looks for no other agent meanwhile, which may take longer.
    pub fn look_at_once(&mut self, notices: &mut Vec<Notice>) {
        let until = clock::now() + LAST_LOOK;
        self.poll(notices);
        while self.node.as_ref().is_some_and(|node| node.monitor.is_waiting()) && clock::now() < until {
            clock::sleep_until(clock::now() + SHORTEST_NAP);
            self.poll(notices);
        }
    }

    /// What was done so far.
    pub fn summary(&self) -> Summary {
        let mut summary = self.summary.clone();
        let mut stats = self.past;
        if let Some(node) = &self.node {
            stats.samples += node.monitor.stats().samples;
            stats.late_samples += node.monitor.stats().late_samples;
            summary.suspected =
                node.monitor.entities().filter(|entity| entity.standing == Standing::Suspected).count() as u64;
        }
        summary.samples = stats.samples;
        summary.late_samples = stats.late_samples;
        summary.ran_s = (clock::now() - self.started).as_secs_f64();
        summary.wakeups = self.wakeups.summary();
        summary
    }
}

impl<D: Detector> Node<D> {
    /// An agent that closed its socket shows that the system runs: only who kept its counters has ended. Services that are
    /// there go on, and are watched on by theirs.
    fn note_agents_end(&mut self) -> bool {
        let gone = self.link.gone();
        if gone {
            self.monitor.keeper_ended();
        }
        gone
    }

    /// Reports failures that are new and those that are over; answers how many are new.
    fn report_failures(&mut self, recover: bool, notices: &mut Vec<Notice>) -> u64 {
        self.note_agents_end();
        let failures = diagnose(&self.monitor);
        let found: Vec<(Cause, Vec<Entity>)> = failures.iter().map(|f| (f.cause, self.entities_of(f))).collect();
        self.reported.retain(|old| {
            let lasts = found.contains(old);
            if !lasts {
                let (cause, roots) = (cause_name(old.0).into(), old.1.clone());
                notices.push(notice(What::Resolved { cause, roots }));
            }
            lasts
        });
        let mut new = 0;
        for (failure, known) in failures.iter().zip(found) {
            if self.reported.contains(&known) {
                continue;
            }
            new += 1;
            let plan = plan(&self.monitor, failure);
            let recovery = (recover && !plan.recoverable.is_empty()).then(|| self.recover(&plan));
            notices.push(notice(What::Failure {
                cause: cause_name(failure.cause).into(),
                roots: known.1.clone(),
                sessions: failure.sessions.len(),
                recoverable: plan.recoverable.len(),
                action: action_name(plan.action).into(),
                recovery,
            }));
            self.reported.push(known);
        }
        new
    }

    fn entities_of(&self, failure: &Failure) -> Vec<Entity> {
        let roots = self.monitor.entities().filter(|entity| failure.roots.contains(&entity.slot));
        roots.map(|entity| Entity::new(entity.slot, entity.record)).collect()
    }

    /// Reads the sessions' states. The channel is the monitor's own, which has no work under way meanwhile.
    fn recover(&mut self, plan: &RecoveryPlan) -> Recovery {
        let Some(hook) = self.monitor.hooks().and_then(|hooks| hooks.find(Purpose::Recovery)) else {
            return Recovery::default();
        };
        let sessions = plan.recoverable.iter().copied();
        let mut extraction = Extraction::new(ExtractionConfig::default(), hook.memory, sessions);
        // Text is made of the states after the clock has stopped.
        let mut answers = Vec::with_capacity(plan.recoverable.len());
        let start = clock::now();
        while !extraction.is_done() && clock::now() < start + EXTRACTION_LIMIT {
            extraction.step(&mut self.transport, &mut |session, state| {
                let state = state.map(|state| (state.committed.sequence, state.committed.payload.to_vec()));
                answers.push((*session, state));
            });
        }
        let took = clock::now() - start;
        let states = answers.into_iter().map(|(session, state)| {
            let entity = Entity::new(session.slot, &session.record);
            match state {
                Ok((sequence, bytes)) => RecoveredState { entity, sequence, state_hex: to_hex(&bytes), error: None },
                Err(error) => {
                    RecoveredState { entity, sequence: 0, state_hex: String::new(), error: Some(error.to_string()) }
                }
            }
        });
        let stats = extraction.stats();
        Recovery { states: states.collect(), took_ns: took.0, reads: stats.reads, bytes_read: stats.bytes_read }
    }
}

fn notice(what: What) -> Notice {
    Notice { at_ns: clock::now().0, what }
}

fn count(summary: &mut Summary, event: &Event) {
    match event {
        Event::Joined { .. } => summary.entities += 1,
        Event::Suspected(_) => summary.suspicions += 1,
        Event::Trusted(_) => summary.withdrawn += 1,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch_of_nobody() -> Watch {
        let node = std::path::Path::new("/nonexistent/node.sock").into();
        let monitor = MonitorConfig::polling_every(Nanos::from_millis(1));
        Watch::new(WatchConfig { node, monitor, detector: DetectorKind::Duty, spin: false, recover: false })
    }

    #[test]
    fn what_is_waited_for_is_said_when_it_is_news() {
        let (mut watch, mut notices) = (watch_of_nobody(), Vec::new());
        let whys = [Some("a"), Some("a"), Some("b"), None, None, Some("b")];
        whys.iter().for_each(|why| watch.say_waiting(why.map(str::to_owned), &mut notices));
        let said = notices.iter().map(|notice| match &notice.what {
            What::Waiting { why } => why.as_str(),
            other => panic!("{other:?}"),
        });
        assert_eq!(said.collect::<Vec<_>>(), ["a", "b", "b"], "it was well in between");
    }

    #[test]
    fn the_longer_an_answer_is_waited_for_the_rarer_it_is_looked_for() {
        let mut watch = watch_of_nobody();
        assert_eq!(watch.answer_due(), Nanos::MAX);
        let waited = Nanos::from_millis(5);
        let now = clock::now();
        watch.waiting = Some((0, now - waited));
        assert!(watch.answer_due() >= now + waited);
        watch.note_waiting();
        assert_eq!(watch.waiting, None, "no READ is under way");
    }
}
