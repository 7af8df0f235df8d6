//! One breakdown, and what core's diagnosis makes of it: at which level, who is the root, and what a silent channel means.
//!
//! Every run is judged in four ways at once, on the same events: at the first sign or when core says that the answer is
//! [for good](backdoor_core::diagnosis::settles_by), and with or without what more there is to know. For failures behind a
//! channel that works, that is whom entities say they wait for; for failures of the channel, a second path: another card
//! of the node in another network, through which a second monitor reads the same Progress Box, less often.
//!
//! Breakdowns of the channel happen to the first of four nodes, of which two each are behind one path.

mod answer;

pub use answer::{Answer, DiagnosisOutcome, Found, Later, Way, Worth};

use backdoor_core::Nanos;
use backdoor_core::detector::DeadlineDetector;
use backdoor_core::diagnosis::reachability::{Channel, Conclusion, PathId, Reachability, SecondPath, conclude};
use backdoor_core::diagnosis::{
    Cause, ChannelLog, Failure, Lateness, Symptom, diagnose_symptoms, diagnose_symptoms_with, symptoms_settle_by,
};
use backdoor_core::monitor::{Event as Noticed, Monitor, MonitorConfig, Standing};
use backdoor_core::progress_box::Slot;
use backdoor_transports::sim_nic::{SimChannel, SimNode};
use rand::RngExt;

use super::inject::{self, BEHIND_ONE_PATH, Hit};
use super::memory::Slots;
use super::mode::Mode;
use super::path::RandomPath;
use super::scenario::{Scenario, ScenarioError};
use super::world::{Happening, World};
use crate::faults::{Arrivals, Breakdown};
use crate::streams::Streams;
use crate::workload::Activity;

/// What breaks down, and when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DiagnosisOptions {
    /// What.
    pub breakdown: Breakdown,
    /// The earliest moment at which it strikes, from the start of the run.
    pub strike_after: Nanos,
    /// It strikes at a random moment within so long after that.
    pub spread: Nanos,
    /// How long after the strike the run ends, whatever was found out.
    pub give_up_after: Nanos,
    /// How often the second path is read.
    pub second_poll: Nanos,
    /// How long after the last answer the run goes on, and the diagnosis is asked for again after every step.
    pub watch_on: Nanos,
}

impl DiagnosisOptions {
    /// A breakdown between 500 and 600 ms; 3 s until the end; a second path that is read every 10 ms; each way is asked
    /// once.
    pub fn of(breakdown: Breakdown) -> Self {
        DiagnosisOptions {
            breakdown,
            strike_after: Nanos::from_millis(500),
            spread: Nanos::from_millis(100),
            give_up_after: Nanos::from_secs(3),
            second_poll: Nanos::from_millis(10),
            watch_on: Nanos::ZERO,
        }
    }

    /// Whether there is in `scenario` what is to break down.
    ///
    /// # Errors
    /// There isn't.
    pub fn check(&self, scenario: &Scenario) -> Result<(), ScenarioError> {
        inject::check(scenario, self.breakdown)
    }
}

const STRIKE: u32 = 0;
const SECOND: u32 = 1;

/// Simulates one breakdown of what `scenario` describes. Its own faults, number of nodes, mode and duration don't count.
///
/// # Errors
/// The scenario is impossible, or has nothing that could break down like that.
pub fn diagnosis_run(
    scenario: &Scenario,
    streams: &Streams,
    options: &DiagnosisOptions,
) -> Result<DiagnosisOutcome, ScenarioError> {
    let breakdown = options.breakdown;
    let nodes = if breakdown.is_of_channel() { 2 * BEHIND_ONE_PATH } else { 1 };
    let duration = options.strike_after + options.spread + options.give_up_after;
    let warm_up = scenario.warm_up.min(options.strike_after);
    let mut scenario = Scenario { nodes, mode: Mode::Read, duration, warm_up, ..scenario.clone() };
    scenario.faults.arrivals = Arrivals::Never;
    if matches!(breakdown, Breakdown::LastIdle | Breakdown::LastIdleCounted) {
        scenario.workload.activity = Activity::Handler;
        scenario.workload.pending_gauges = breakdown == Breakdown::LastIdleCounted;
    }
    options.check(&scenario)?;
    let config = scenario.monitor;
    let mut world = World::new(&scenario, streams, |hook_table| Monitor::by_deadline(config, hook_table))?;
    let mut rng = streams.stream("breakdown");
    let strike_at = options.strike_after + Nanos(rng.random_range(0..=options.spread.0));
    world.call_driver(strike_at, STRIKE);
    let second = match breakdown.is_of_channel() {
        true => Some(Second::new(&world, streams, options.second_poll)?),
        false => None,
    };
    if second.is_some() {
        world.call_driver(Nanos::ZERO, SECOND);
    }
    let logs = vec![ChannelLog::default(); nodes];
    let slots = world.nodes[0].slots;
    let late = Lateness::default();
    let answers = [None; 4];
    let (hit, struck, later, ends) = (None, None, Default::default(), None);
    let draw = rng.random();
    let run = Run { options, draw, world, second, logs, late, slots, hit, struck, answers, later, ends };
    Ok(run.run())
}

/// The second path: its own card at the node, its own monitor.
struct Second {
    card: SimNode,
    channel: SimChannel<RandomPath>,
    monitor: Monitor<DeadlineDetector>,
    log: ChannelLog,
    noticed: Vec<Noticed>,
}

impl Second {
    fn new(world: &World<DeadlineDetector>, streams: &Streams, poll: Nanos) -> Result<Self, ScenarioError> {
        let scenario = &world.scenario;
        // As the first one's, which could be registered.
        let (card, hook_table) = world.nodes[0].memory.second_card().expect("a checked scenario fits the formats");
        let path = RandomPath::new(scenario.network_delay, scenario.network_loss, streams.stream("second network"));
        let channel = SimChannel::connect(&card, path, scenario.nic.clone())?;
        let monitor = Monitor::by_deadline(MonitorConfig::polling_every(poll), hook_table);
        Ok(Second { card, channel, monitor, log: ChannelLog::default(), noticed: Vec::new() })
    }

    /// Takes a step; when to take the next.
    fn step(&mut self, now: Nanos) -> Nanos {
        self.noticed.clear();
        self.channel.advance_to(now);
        self.monitor.step(now, &mut self.channel, &mut self.noticed);
        self.log.look(now, &self.monitor, &self.noticed);
        let next = self.channel.next_event().map_or(self.monitor.due(), |at| at.min(self.monitor.due()));
        next.max(now + Nanos(1))
    }
}

struct Run<'a> {
    options: &'a DiagnosisOptions,
    draw: u64,
    world: World<DeadlineDetector>,
    second: Option<Second>,
    logs: Vec<ChannelLog>,
    late: Lateness,
    slots: Slots,
    hit: Option<Hit>,
    struck: Option<Nanos>,
    /// By [`Way::place`].
    answers: [Option<Answer>; 4],
    /// By whether informed.
    later: [Later; 2],
    /// When the run may end.
    ends: Option<Nanos>,
}

impl Run<'_> {
    fn run(mut self) -> DiagnosisOutcome {
        while let Some(happening) = self.world.next() {
            let now = self.world.now();
            if self.ends.is_some_and(|end| now >= end) {
                break;
            }
            match happening {
                Happening::Stepped(node) => self.look(node),
                Happening::Driver(SECOND) => {
                    let Some(second) = &mut self.second else { continue };
                    let next = second.step(now);
                    self.world.call_driver(next, SECOND);
                }
                Happening::Driver(STRIKE) => self.strike(),
                Happening::Driver(_) | Happening::Other => continue,
            }
            if let Some(effective) = self.effective() {
                match self.options.breakdown.is_of_channel() {
                    true => self.look_at_channels(now - effective),
                    false => self.look_at_counters(now - effective),
                }
            }
            if self.ends.is_none() && self.answers.iter().all(Option::is_some) {
                self.ends = Some(now + self.options.watch_on);
            }
        }
        let nothing = Answer { found: Found::Nothing, worth: Worth::Wrong, after: None };
        let answers = self.answers.map(|answer| answer.unwrap_or(nothing));
        DiagnosisOutcome { effective: self.effective(), answers, later: self.later }
    }

    /// Shows the last step of a node's monitor to whoever keeps evidence. Seeing it twice changes nothing.
    fn look(&mut self, node: usize) {
        let watch = &self.world.watches[node];
        self.logs[node].look(self.world.now(), &watch.monitor, &watch.noticed);
        if node == 0 {
            self.late.look(&watch.monitor, &watch.noticed);
        }
    }

    fn strike(&mut self) {
        let breakdown = self.options.breakdown;
        if !self.world.nodes[0].is_ready_for(breakdown) {
            self.world.call_driver(self.world.now() + Nanos::from_micros(200), STRIKE);
            return;
        }
        let card = self.second.as_ref().map(|second| &second.card);
        self.hit = Some(self.world.break_down(breakdown, self.draw, card));
        self.struck = Some(self.world.now());
        // A link that goes down under work makes its monitor step.
        (0..self.logs.len()).for_each(|node| self.look(node));
    }

    fn effective(&self) -> Option<Nanos> {
        match self.world.nodes[0].failures.first() {
            Some(failure) => failure.effective,
            None => self.struck,
        }
    }

    fn answer(&mut self, informed: bool, settled: bool, found: Found, worth: Worth, after: Nanos) {
        let answer = Answer { found, worth, after: Some(after) };
        self.answers[Way { informed, settled: false }.place()].get_or_insert(answer);
        if settled {
            self.answers[Way { informed, settled: true }.place()].get_or_insert(answer);
            let later = &mut self.later[usize::from(informed)];
            later.all += 1;
            later.right += u64::from(worth == Worth::Right);
        }
    }

    fn look_at_counters(&mut self, after: Nanos) {
        let monitor = &self.world.watches[0].monitor;
        let mut symptoms: Vec<Symptom> = monitor.entities().map(Symptom::from).collect();
        if symptoms.iter().all(|symptom| symptom.standing != Standing::Suspected) {
            return;
        }
        let informed = diagnose_symptoms_with(&symptoms, &self.late);
        let informed_settled = symptoms_settle_by(&symptoms).is_none();
        symptoms.iter_mut().for_each(|symptom| symptom.record = symptom.record.without_dependencies());
        let blind = diagnose_symptoms(&symptoms);
        let blind_settled = symptoms_settle_by(&symptoms).is_none();
        for (informed, failures, is_settled) in [(false, blind, blind_settled), (true, informed, informed_settled)] {
            let (found, worth) = (self.found(&failures), self.worth(&failures));
            self.answer(informed, is_settled, found, worth, after);
        }
    }

    fn found(&self, failures: &[Failure]) -> Found {
        let [failure, others @ ..] = failures else { return Found::Nothing };
        if !others.is_empty() && failure.cause != Cause::Processor {
            return Found::Several;
        }
        let root = failure.roots.first().map_or(0, |slot| slot.index());
        match failure.cause {
            Cause::OperatingSystem => Found::System,
            Cause::Processor => Found::Processor,
            Cause::Reporter => Found::Reporter,
            Cause::Session => Found::Session,
            Cause::Application | Cause::NotServing if root < self.slots.session(0) => Found::Application,
            Cause::Application if root == self.slots.disk() => Found::Disk,
            Cause::Application if root == self.slots.process(0) => Found::First,
            Cause::Application if root + 1 == self.slots.disk() => Found::Last,
            Cause::Application | Cause::NotServing => Found::Middle,
        }
    }

    fn worth(&self, failures: &[Failure]) -> Worth {
        let (Some(hit), Some((failure, others))) = (&self.hit, failures.split_first()) else { return Worth::Wrong };
        let is_cause = self.found(failures) == Found::of(self.options.breakdown);
        let is_stuck = |other: &Failure| other.roots.iter().all(|root| hit.stuck.contains(root));
        let is_root = failure.roots.iter().all(|root| hit.roots.contains(root) || hit.stuck.contains(root));
        let has_roots = hit.roots.iter().all(|root| failure.roots.contains(root));
        let is_doubt = |root: &Slot| failures.iter().all(|failure| failure.perhaps.contains(root));
        match () {
            () if is_cause && is_root && has_roots && others.iter().all(is_stuck) => Worth::Right,
            () if hit.roots.iter().all(is_doubt) => Worth::Open,
            () => Worth::Wrong,
        }
    }

    fn look_at_channels(&mut self, after: Nanos) {
        if self.logs[0].evidence().failure.is_none() {
            return;
        }
        let path = |node: usize| PathId((node / BEHIND_ONE_PATH) as u32);
        let of_node = |(node, log): (usize, &ChannelLog)| Channel { path: path(node), evidence: log.evidence() };
        let channels: Vec<Channel> = self.logs.iter().enumerate().map(of_node).collect();
        let second: Option<SecondPath> = self.second.as_ref().map(|second| second.log.as_second_path(&second.monitor));
        for (informed, second) in [(false, None), (true, second.as_ref())] {
            let Reachability { conclusion, settled } = conclude(0, &channels, second);
            let found = Found::Channel(conclusion);
            let worth = match conclusion {
                _ if found == Found::of(self.options.breakdown) => Worth::Right,
                Conclusion::SilentNode => Worth::Open,
                _ => Worth::Wrong,
            };
            self.answer(informed, settled, found, worth, after);
        }
    }
}
