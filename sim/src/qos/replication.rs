//! One independent run of a setting: mistakes first, then crashes.

use backdoor_core::Nanos;
use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::process::Process;
use super::setting::{AnyDetector, Setting};
use super::watch::Watch;
use crate::streams::Streams;

/// How much to simulate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goal {
    /// Mistakes to see.
    pub mistakes: u64,
    /// Heartbeats after which to give up; those of the warm-up don't count.
    pub heartbeats: u64,
    /// Crashes to see.
    pub crashes: u32,
}

/// Time and what happened in it. Mistakes are a number, or a sum of weights.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Time with the sender alive, in seconds.
    pub time_s: f64,
    /// Mistakes that began in it.
    pub mistakes: f64,
    /// Time of suspicion in it, in seconds.
    pub suspected_s: f64,
}

/// Detection times.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Detections {
    /// How many crashes there were.
    pub crashes: u32,
    /// Sum of the detection times, in seconds.
    pub sum_s: f64,
    /// The longest, in seconds.
    pub max_s: f64,
}

/// What a replication saw.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    /// From the beginning of a mistake to the beginning of another: the number of mistakes that was asked for. Nothing if
    /// the cap came first.
    pub cycles: Option<Totals>,
    /// From the warm-up to the last heartbeat, wherever that fell.
    pub window: Totals,
    /// Crashes.
    pub detections: Detections,
    /// Heartbeats sent, all together.
    pub heartbeats: u64,
}

/// Heartbeats between two looks at whether to stop.
const PATIENCE: u64 = 1 << 16;

/// Adds up suspicions and their begins.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    mistakes: u64,
    suspected: Nanos,
    since: Option<Nanos>,
}

impl Tally {
    fn suspected(&mut self, at: Nanos) {
        self.mistakes += 1;
        self.since = Some(at);
    }

    fn trusted(&mut self, at: Nanos) {
        if let Some(since) = self.since.take() {
            self.suspected += at - since;
        }
    }

    /// With the present suspicion, if any, up to `end`.
    fn totals(mut self, from: Nanos, end: Nanos) -> Totals {
        self.trusted(end);
        Totals {
            time_s: (end - from).as_secs_f64(),
            mistakes: self.mistakes as f64,
            suspected_s: self.suspected.as_secs_f64(),
        }
    }
}

/// Runs one replication; `None` if `stop` said so, which is asked every 65536 heartbeats.
///
/// The setting must have passed its [check](Setting::check). Its streams are "heartbeats" and "crashes".
pub fn replicate(setting: &Setting, goal: Goal, streams: &Streams, stop: &dyn Fn() -> bool) -> Option<Outcome> {
    let mut rng = streams.stream("heartbeats");
    let mut process = Process::new(setting);
    let mut watch = Watch::new(setting.detector(), setting.poll);
    for _ in 0..setting.warm_up() {
        process.send(&mut rng);
        while let Some(heartbeat) = process.arrival() {
            watch.arrival(heartbeat);
        }
        if process.sent().is_multiple_of(PATIENCE) && stop() {
            return None;
        }
    }
    let mut outcome = measure(setting, goal, &mut process, &mut watch, &mut rng, stop)?;
    outcome.detections = crash(setting, goal.crashes, &mut process, &mut watch, streams);
    outcome.heartbeats = process.sent();
    Some(outcome)
}

fn measure(
    setting: &Setting,
    goal: Goal,
    process: &mut Process<'_>,
    watch: &mut Watch<AnyDetector>,
    rng: &mut Xoshiro256PlusPlus,
    stop: &dyn Fn() -> bool,
) -> Option<Outcome> {
    let from = process.last_sent_at() + setting.period;
    // So that time does not come to its end.
    let heartbeats = goal.heartbeats.min((1 << 62) / setting.period.0.max(1));
    let mut window = Tally { since: watch.suspected_since().map(|_| from), ..Tally::default() };
    // The first mistake begins the first cycle.
    let mut cycles: Option<(Nanos, Tally)> = None;
    let mut done = None;
    for count in 1..=heartbeats {
        process.send(rng);
        while let Some(heartbeat) = process.arrival() {
            let changes = watch.arrival(heartbeat);
            // With a poll to wait for, one may be of a moment before.
            if let Some(at) = changes.suspected.map(|at| at.max(from)) {
                window.suspected(at);
                let (first, tally) = cycles.get_or_insert_with(|| (at, Tally::default()));
                if tally.mistakes == goal.mistakes && done.is_none() {
                    done = Some(tally.totals(*first, at));
                }
                tally.suspected(at);
            }
            if let Some(at) = changes.trusted.map(|at| at.max(from)) {
                window.trusted(at);
                if let Some((_, tally)) = &mut cycles {
                    tally.trusted(at);
                }
            }
        }
        if done.is_some() {
            break;
        }
        if count % PATIENCE == 0 && stop() {
            return None;
        }
    }
    let end = process.last_sent_at() + setting.period;
    // A suspicion under way that no arrival has brought to light yet.
    if watch.suspected_since().is_none() && watch.suspects_at() < end && window.since.is_none() {
        window.suspected(watch.suspects_at().max(from));
    }
    Some(Outcome { cycles: done, window: window.totals(from, end), ..Outcome::default() })
}

/// Lets the sender crash again and again, each time on a copy of what is.
fn crash(
    setting: &Setting,
    crashes: u32,
    process: &mut Process<'_>,
    watch: &mut Watch<AnyDetector>,
    streams: &Streams,
) -> Detections {
    let mut rng = streams.stream("crashes");
    let mut detections = Detections { crashes, ..Detections::default() };
    for _ in 0..crashes {
        // Not in step with anything that has a period.
        for _ in 0..rng.random_range(8..=24) {
            process.send(&mut rng);
            while let Some(heartbeat) = process.arrival() {
                watch.arrival(heartbeat);
            }
        }
        process.send(&mut rng);
        let at = process.last_sent_at() + Nanos(rng.random_range(0..setting.period.0));
        let (mut process, mut watch) = (process.clone(), watch.clone());
        while let Some(heartbeat) = process.last_arrival() {
            watch.arrival(heartbeat);
        }
        let took = (watch.lasting_suspicion() - at).as_secs_f64();
        detections.sum_s += took;
        detections.max_s = detections.max_s.max(took);
    }
    detections
}
