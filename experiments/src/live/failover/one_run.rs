//! One run: a client at work, a failure, whatever else goes wrong, and what came of it.

use std::sync::Arc;
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_host::clock;
use backdoor_sim::streams::Streams;
use rand::{Rng, RngExt};

use super::client::{Client, Errand};
use super::config::LATE_CONNECTIONS;
use super::disturbance::{Accident, Disturbance};
use super::heirs::Heir;
use super::report::FailoverRow;
use super::story::Story;
use super::world::World;
use super::{FailoverConfig, FailoverError, FailoverFailure};
use crate::interrupt::Interrupt;
use crate::live::parts::{Part, PartError, PartSignal};
use crate::live::web::milestone::Milestone;
use crate::live::web::serve::{WebOrder, WebReport};
use crate::live::web::taker::{TakerOrder, TakerReport};

/// How often a run looks at its client.
const LOOK_EVERY: Duration = Duration::from_micros(200);
/// How long a transfer may take at least to get to the moment of failure: the limit of a run counts from there.
const TO_THE_FAILURE: Nanos = Nanos::from_secs(60);
/// How long late clients are waited for: their first answer comes within milliseconds, or not before the takeover.
const LATE_CLIENTS: Nanos = Nanos::from_secs(2);
/// How long takers are listened to beyond the time in which they should notice a failure, if the client needs none of them.
const SPARED: Nanos = Nanos::from_millis(500);
/// How long a process that goes on again is watched.
const ZOMBIE: Duration = Duration::from_millis(300);

/// How far a taker has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taking {
    AtWork,
    /// Waits to be told to go on.
    Halted,
    Over,
}

/// A run that is under way.
struct Run<'a> {
    config: &'a FailoverConfig,
    interrupt: &'a Interrupt,
    world: World,
    client: Client,
    story: Story,
    /// What was told after node B's failure, and when that was.
    again: Option<(Story, Nanos)>,
    takers: Vec<Taking>,
    /// Connections that were made.
    connections: u64,
    /// What happened to node B when it had taken sessions over.
    befell_heir: Vec<&'static str>,
}

/// Does one run. What goes wrong in it is told in its row; an error is what keeps runs from being made at all. No row if
/// somebody asked to stop in the middle of it.
pub(super) fn one_run(
    config: &FailoverConfig,
    number: u32,
    streams: &Streams,
    interrupt: &Interrupt,
) -> Result<Option<FailoverRow>, FailoverError> {
    let world = World::make(config)?;
    let before = world.counted()?;
    let errand = Errand {
        kind: config.client,
        bytes: config.bytes,
        connections: config.sessions(),
        addresses: config.addresses(),
        connects_again: config.client.connects_again() && config.remedy.reboots(),
        seed: streams.stream("content").next_u64(),
    };
    let client = Client::start(&config.program, errand, &world.network.client).map_err(FailoverError::Client)?;
    // Somewhere in the middle: from a fifth to four fifths of the bytes; earlier, if another failure is to follow.
    let middle = if config.then.is_some() { 0.1..0.3 } else { 0.2..0.8 };
    let fail_at = (config.bytes as f64 * streams.stream("failure").random_range(middle)) as u64;
    let takers = vec![Taking::AtWork; world.takers.len()];
    let (story, again) = (Story::default(), None);
    let connections = errand.connections;
    let befell_heir = Vec::new();
    let mut run = Run { config, interrupt, world, client, story, again, takers, connections, befell_heir };
    // What goes wrong before the failure takes its time, and the client does not wait. What curl has read of a file before
    // its connection stands is less.
    let begun = run.gets_to(config.bytes / 20);
    if begun {
        run.disturb(Milestone::Watching)?;
    }
    let failed_at = if begun && run.gets_to(fail_at) {
        run.fail()?
    } else {
        run.story.trouble("the transfer did not get to the moment of failure".into());
        None
    };
    if let Some(failed_at) = failed_at {
        run.follow(failed_at)?;
        if let Some(then) = config.then {
            let part = streams.stream("second failure").random_range(0.1..0.5);
            run.fail_again(then, part)?;
        }
        run.wait(failed_at + config.limit * if config.then.is_some() { 2 } else { 1 });
    }
    if interrupt.requested() {
        return Ok(None);
    }
    run.end(number, failed_at, before).map(Some)
}

impl Run<'_> {
    /// Whether to go on waiting.
    fn has_time(&self, give_up: Nanos) -> bool {
        clock::now() < give_up && !self.interrupt.requested()
    }

    /// Whether the client has moved so much; not if it has finished before, or never does.
    fn gets_to(&self, bytes: u64) -> bool {
        let give_up = clock::now() + self.config.limit.max(TO_THE_FAILURE);
        let Run { client, connections, .. } = self;
        loop {
            if client.seen.bytes() >= bytes && client.seen.begun() >= *connections {
                return true;
            }
            if client.is_done() || !self.has_time(give_up) {
                return false;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Makes node A fail; answers when it had. `None` if there was nobody left to fail.
    fn fail(&mut self) -> Result<Option<Nanos>, FailoverError> {
        let Run { config, world, .. } = self;
        let clock = world.clock()?;
        let order = match config.failure {
            FailoverFailure::Sigstop | FailoverFailure::Zombie => {
                return Ok(Some(clock.to_ours(world.signal(config.victim, PartSignal::Stop)?)));
            }
            FailoverFailure::Sigkill => {
                if world.agent_has_ended()? {
                    self.story.trouble(NOBODY_HELD.into());
                }
                return Ok(Some(clock.to_ours(world.signal(config.victim, PartSignal::Kill)?)));
            }
            FailoverFailure::Cut => {
                let failed_at = world.signal(config.victim, PartSignal::Stop)?;
                world.cut()?;
                return Ok(Some(clock.to_ours(failed_at)));
            }
            FailoverFailure::Wrong => {
                let now = clock::now();
                for taker in &mut world.takers {
                    taker.send(&TakerOrder::Suspect)?;
                }
                return Ok(Some(now));
            }
            FailoverFailure::Deadlock => WebOrder::Deadlock,
            FailoverFailure::SessionStuck => WebOrder::Stick,
        };
        let give_up = clock::now() + config.limit;
        let mut at = Vec::new();
        for victim in world.victims(config.victim) {
            victim.send(&order)?;
            at.push(failed(victim, &self.client, give_up, self.interrupt)?.map(|at| clock.to_ours(at)));
        }
        // The first of them, if all of them have.
        let all: Option<Vec<Nanos>> = at.into_iter().collect();
        if let Some(first) = all.and_then(|all| all.into_iter().min()) {
            return Ok(Some(first));
        }
        self.story.trouble("the client had finished before the service could fail".into());
        Ok(None)
    }

    /// Listens to the takers until they are done, or have nothing to do: whoever serves nobody is not taken over from.
    fn follow(&mut self, failed_at: Nanos) -> Result<(), FailoverError> {
        let give_up = failed_at + self.config.limit;
        let noticed = failed_at + self.config.deadline * 3 + SPARED;
        while self.takers.iter().any(|taking| *taking != Taking::Over) && self.has_time(give_up) {
            if self.client.is_done() && self.story.decided().is_none() && clock::now() > noticed {
                break;
            }
            for taker in 0..self.takers.len() {
                if self.takers[taker] != Taking::Over {
                    self.listen_to(taker)?;
                }
            }
        }
        if self.config.failure == FailoverFailure::Zombie && self.story.moved() > 0 {
            self.resume_owner()?;
        }
        Ok(())
    }

    /// Waits for the client.
    fn wait(&self, give_up: Nanos) {
        while !self.client.is_done() && self.has_time(give_up) {
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Makes node B fail, which has taken over, when `part` of what is left of the transfer has moved; listens to the second
    /// taker until it is done.
    fn fail_again(&mut self, failure: FailoverFailure, part: f64) -> Result<(), FailoverError> {
        let config = self.config;
        if self.story.moved() < self.connections {
            self.story.trouble("node B has not taken over all sessions, and was not made to fail".into());
            return Ok(());
        }
        let mut taker = self.world.watch_heir(failure)?;
        let moved = self.client.seen.bytes();
        let at = moved + (config.bytes.saturating_sub(moved) as f64 * part) as u64;
        let failed_at = match self.gets_to(at) && !self.client.is_done() {
            true => match self.world.fail_heir(failure, &mut taker)? {
                Ok(at) => Some(at),
                Err(order) => {
                    let give_up = clock::now() + config.limit;
                    let standing_by = &mut self.world.heirs[0].standing_by;
                    standing_by.send(&order)?;
                    failed(standing_by, &self.client, give_up, self.interrupt)?
                }
            },
            false => None,
        };
        let Some(failed_at) = failed_at else {
            self.story.trouble("the client had finished before node B could fail".into());
            return Ok(());
        };
        let mut again = Story::default();
        let give_up = failed_at + config.limit;
        while self.has_time(give_up) {
            match taker.receive(LOOK_EVERY) {
                Ok(None) => {}
                Ok(Some(TakerReport::Done)) => break,
                Ok(Some(report)) => again.add(report),
                Err(error @ PartError::Ended { .. }) => {
                    again.trouble(error.to_string());
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.again = Some((again, failed_at));
        Ok(())
    }

    fn listen_to(&mut self, taker: usize) -> Result<(), FailoverError> {
        match self.world.takers[taker].receive(LOOK_EVERY) {
            Ok(None) => {}
            Ok(Some(TakerReport::Done)) => self.takers[taker] = Taking::Over,
            Ok(Some(TakerReport::Halted { at })) => {
                self.takers[taker] = Taking::Halted;
                if taker == 0 {
                    self.disturb(at)?;
                }
                self.let_go_on(taker)?;
            }
            Ok(Some(TakerReport::Reboot)) => {
                // Two takers may ask for one.
                if !self.story.has_rebooted() {
                    let up = self.world.reboot()?;
                    self.story.rebooted(up);
                }
                self.world.takers[taker].send(&TakerOrder::GoOn)?;
            }
            Ok(Some(report)) => self.story.add(report),
            Err(error @ PartError::Ended { .. }) => {
                self.story.trouble(error.to_string());
                self.takers[taker] = Taking::Over;
                for other in 0..self.takers.len() {
                    self.let_go_on(other)?;
                }
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Lets a taker go on that halts. The first one halted for what has happened meanwhile; the second for the first's end.
    fn let_go_on(&mut self, taker: usize) -> Result<(), FailoverError> {
        let is_its_turn = taker == 0 || self.takers[0] == Taking::Over;
        if self.takers[taker] != Taking::Halted || !is_its_turn {
            return Ok(());
        }
        self.takers[taker] = Taking::AtWork;
        match self.world.takers[taker].send(&TakerOrder::GoOn) {
            // It was killed meanwhile, and its end will be heard of.
            Ok(()) | Err(PartError::Ended { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whatever is to go wrong at this moment.
    fn disturb(&mut self, now: Milestone) -> Result<(), FailoverError> {
        for Disturbance { accident, at } in &self.config.disturbances {
            if *at != now {
                continue;
            }
            if *accident == Accident::Connect {
                for _ in 0..LATE_CONNECTIONS {
                    if let Err(why) = self.client.connect(1, &self.world.network.client) {
                        self.story.trouble(format!("a client that came late: {why}"));
                        break;
                    }
                    self.connections += 1;
                }
                let give_up = clock::now() + LATE_CLIENTS;
                while self.client.seen.begun() < self.connections && self.has_time(give_up) {
                    std::thread::sleep(LOOK_EVERY);
                }
            }
            self.world.disturb(*accident)?;
            match accident {
                Accident::CutHeir if now == Milestone::Served => self.befell_heir.push(HEIR_IS_CUT),
                Accident::RestartHeir if now == Milestone::Served => self.befell_heir.push(HEIR_IS_NEW),
                _ => {}
            }
        }
        Ok(())
    }

    /// Lets node A's service go on, whose sessions are another's now: it is to notice that, and to say nothing to their
    /// clients. It goes on for others.
    fn resume_owner(&mut self) -> Result<(), FailoverError> {
        let before = self.world.counted_at_a()?;
        self.world.signal(self.config.victim, PartSignal::Continue)?;
        std::thread::sleep(ZOMBIE);
        let said = self.world.counted_at_a()?.zip(before).map_or(0, |(now, before)| now.segments - before.segments);
        if said > 0 {
            self.story.trouble(format!("the service that went on again sent {said} segments to clients of others"));
        }
        for victim in self.world.victims(self.config.victim) {
            if victim.state()?.is_none_or(|state| "ZXT".contains(state)) {
                self.story.trouble("the service did not go on for others".into());
            }
        }
        Ok(())
    }

    fn end(
        self,
        number: u32,
        failed_at: Option<Nanos>,
        before: super::tcp_counts::TcpCounts,
    ) -> Result<FailoverRow, FailoverError> {
        let Run { config, world, client, mut story, again, connections, befell_heir, .. } = self;
        let mut row = FailoverRow {
            run: number,
            failure: config.failure.name().into(),
            client: config.client.name().into(),
            sessions: connections,
            mirror: config.mirror,
            service: config.service.name().into(),
            process: config.victim.name().into(),
            then: config.then.map_or("", FailoverFailure::name).into(),
            ..FailoverRow::default()
        };
        let after = world.counted()?;
        row.client_resets = after.resets - before.resets;
        row.client_connections = after.opened - before.opened;
        row.bytes = client.seen.bytes();
        row.outage_ms = client.seen.longest_silence(clock::now()).map(Nanos::as_millis_f64);
        // Unless that was its failure.
        let heirs = world.heirs.iter().filter(|_| config.then != Some(FailoverFailure::Sigkill));
        for heir in heirs.chain(&world.third) {
            let is_stopped = || Ok::<_, PartError>(heir.standing_by.state()?.is_some_and(|state| "Tt".contains(state)));
            if heir.standing_by.has_ended()? {
                story.trouble(format!("the process that stood by at node {} has ended", heir.name));
            } else if config.then.is_none() && is_stopped()? {
                story.trouble(format!("the process that stood by at node {} is stopped", heir.name));
            }
        }
        row.heirs = config.heirs;
        let moved = |heir: &Heir| heir.targets().iter().map(|(party, _)| story.moved_to(*party)).sum::<u64>();
        let moved: Vec<String> = world.heirs.iter().map(|heir| format!("{}:{}", heir.name, moved(heir))).collect();
        row.moved_to = moved.join(" ");
        let seen = Arc::clone(&client.seen);
        let has_finished = client.is_done();
        let verdict = if has_finished { client.verdict() } else { Err("the client did not finish".into()) };
        row.sha256_ok = verdict == Ok(true);
        if seen.is_wrong() || verdict == Ok(false) {
            story.trouble(WRONG_BYTES.into());
        }
        if let Err(why) = verdict {
            story.trouble(why);
        }
        let went_on = || story.decided().is_some_and(|decided| seen.first_after(decided).is_some());
        row.hit = failed_at.is_some() && (!has_finished || went_on());
        if failed_at.is_some() && !row.hit {
            story.trouble("the client had ended before anybody decided what to do".into());
        }
        if !has_finished && config.client.sends() && !config.mirror && story.input_known() == Some(false) {
            story.trouble(INPUT_IS_MISSING.into());
        }
        if !has_finished && config.is_disturbed_by(Accident::Connect) && story.moved() > 0 && seen.begun() < connections
        {
            story.trouble(NOT_ACCEPTED.into());
        }
        // Node C may have them by now.
        let has_them = |heir: &Heir| config.then.is_none() && story.moved_to(heir.party()) > 0;
        if !has_finished && world.heirs.first().is_some_and(has_them) {
            befell_heir.into_iter().for_each(|why| story.trouble(why.into()));
        }
        story.tell(config.failure, failed_at, &seen, &mut row);
        if let (Some((again, failed_at)), Some(then)) = (again, config.then) {
            let mut second = FailoverRow::default();
            again.tell(then, Some(failed_at), &seen, &mut second);
            row.then_is(second);
        }
        Ok(row)
    }
}

/// When a process that was told to fail had, by its node's clock; `None` if there was nobody left to fail.
fn failed(
    victim: &mut Part,
    client: &Client,
    give_up: Nanos,
    interrupt: &Interrupt,
) -> Result<Option<Nanos>, FailoverError> {
    while clock::now() < give_up && !interrupt.requested() {
        match victim.receive(LOOK_EVERY)? {
            Some(WebReport::Failed { at_ns }) => return Ok(Some(Nanos(at_ns))),
            Some(other) => {
                return Err(FailoverError::Unexpected(format!("the service was to fail and said {other:?}")));
            }
            // No session acts any more.
            None if client.is_done() => break,
            None => {}
        }
    }
    Ok(None)
}

/// A frozen process holds its sockets; those of a killed one live on with the agent's duplicates, or not at all.
const NOBODY_HELD: &str = "the agent was gone when the service was killed, so node A's kernel ended its connections";

/// What a mirror is for.
const INPUT_IS_MISSING: &str = "nobody could tell which input node A had acknowledged and not acted upon, so a client may \
                                wait for ever; with --mirror it is known";

/// No session yet, so nothing to be carried on.
const NOT_ACCEPTED: &str = "clients that came late may wait for ever: node A's kernel has acknowledged what they sent, and its \
                            service has not accepted them";

/// Nobody watches an heir, unless it is to fail after node A.
const HEIR_IS_CUT: &str = "node B, which took sessions over, has no link any more";

/// Its agent could have held the connections, but nobody took them over again.
const HEIR_IS_NEW: &str =
    "the process at node B that took sessions over has ended, and the one after it knows none of them";

/// What must never be.
const WRONG_BYTES: &str = "the client got wrong bytes";
