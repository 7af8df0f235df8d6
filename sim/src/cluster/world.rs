//! The event loop: nodes, their monitors, and the channels between them, on one clock.

use std::ops::Range;

use backdoor_core::Nanos;
use backdoor_core::detector::Detector;
use backdoor_core::monitor::{Event as Noticed, Monitor};
use backdoor_core::transport::RegionKey;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::link::Link;
use super::memory::NodeMemory;
use super::node::Node;
use super::scenario::{Scenario, ScenarioError};
use super::{Agenda, Event, What};
use crate::engine::{Engine, EventId};
use crate::streams::Streams;

/// A monitor and its connection.
pub(super) struct Watch<D> {
    pub(super) monitor: Monitor<D>,
    pub(super) link: Link,
    nic_event: Option<(EventId, Nanos)>,
    due_event: Option<(EventId, Nanos)>,
    /// What the monitor noticed in its last step.
    pub(super) noticed: Vec<Noticed>,
    stalls: Xoshiro256PlusPlus,
    stalled: bool,
}

/// What came of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happening {
    /// The monitor of this node took a step.
    Stepped(usize),
    /// An event of whoever drives the world.
    Driver(u32),
    Other,
}

/// Everything that is simulated.
pub(super) struct World<D> {
    pub(super) scenario: Scenario,
    engine: Engine<Event>,
    pub(super) nodes: Vec<Node>,
    pub(super) watches: Vec<Watch<D>>,
    pub(super) events: u64,
}

impl<D: Detector> World<D> {
    pub(super) fn new(
        scenario: &Scenario,
        streams: &Streams,
        monitor: impl FnMut(RegionKey) -> Monitor<D>,
    ) -> Result<Self, ScenarioError> {
        World::of_nodes(scenario, 0..scenario.nodes, streams, monitor)
    }

    /// Some of the nodes. They share nothing, so whoever needs no two at the same time simulates one after another: then
    /// one node's memory is all that there is, and it stays in the cache.
    pub(super) fn of_nodes(
        scenario: &Scenario,
        nodes: Range<usize>,
        streams: &Streams,
        mut monitor: impl FnMut(RegionKey) -> Monitor<D>,
    ) -> Result<Self, ScenarioError> {
        scenario.check()?;
        let mut world = World {
            scenario: scenario.clone(),
            engine: Engine::new(),
            nodes: Vec::new(),
            watches: Vec::new(),
            events: 0,
        };
        for (index, node) in nodes.enumerate() {
            let streams = streams.nested("node", node as u64);
            // The scenario was checked: its boxes have possible sizes, and keys and slots suffice.
            let memory = NodeMemory::new(scenario, node).expect("a checked scenario fits the formats");
            let link = Link::new(scenario, node, &memory, &streams)?;
            let monitor = monitor(memory.hook_table);
            let stalls = streams.stream("observer stalls");
            let (nic_event, due_event, noticed) = (None, None, Vec::new());
            world.watches.push(Watch { monitor, link, nic_event, due_event, noticed, stalls, stalled: false });
            world.nodes.push(Node::new(scenario, memory, &streams)?);
            world.act(index, |node, agenda| node.start(scenario.warm_up, agenda));
            world.plan_monitor(index);
            world.plan_stall(index);
        }
        Ok(world)
    }

    pub(super) fn now(&self) -> Nanos {
        self.engine.now()
    }

    /// Lets the driver be called at an instant.
    pub(super) fn call_driver(&mut self, at: Nanos, token: u32) {
        self.agenda(0).at(at, What::Driver(token));
    }

    /// Lets the next event happen; `None` when the run has ended.
    pub(super) fn next(&mut self) -> Option<Happening> {
        let (now, Event { node, what }) = self.engine.next()?;
        if now > self.scenario.duration {
            return None;
        }
        self.events += 1;
        let index = node as usize;
        let stepped = match what {
            What::Driver(token) => return Some(Happening::Driver(token)),
            What::Nic => self.nic_event(index),
            What::Monitor => {
                self.watches[index].due_event = None;
                self.wake_monitor(index)
            }
            What::Request => self.act(index, |node, agenda| node.wake_agent(agenda.now())),
            What::Beat => self.act(index, |node, agenda| node.beat(agenda)),
            What::Heard => {
                self.watches[index].link.hear(now);
                self.look_at_link(index)
            }
            What::Cpu => self.act(index, |node, _| node.cpu_event_came()),
            What::Tick(tick) => self.act(index, |node, agenda| node.tick(tick as usize, agenda)),
            What::Loop(application) => self.act(index, |node, agenda| node.turn(application as usize, agenda)),
            What::Arrival(session) => self.act(index, |node, agenda| node.arrive(session as usize, agenda)),
            What::PauseBegin(application) => self.act(index, |node, agenda| node.pause(application as usize, agenda)),
            What::PauseEnd(application) => self.act(index, |node, agenda| node.unpause(application as usize, agenda)),
            What::ChainRequest => self.act(index, |node, agenda| node.chain_request(agenda)),
            What::DiskDone => self.act(index, |node, agenda| node.read_done(agenda)),
            What::ReadAgain(user) => self.act(index, |node, agenda| node.read_again(user as usize, agenda)),
            What::ToBackup(session) => self.act(index, |node, agenda| node.backup_hears(session as usize, agenda)),
            What::BackupCpu => self.act(index, |node, agenda| node.backup_runs(agenda)),
            What::FromBackup(session) => {
                self.act(index, |node, agenda| node.backup_has_heard(session as usize, agenda))
            }
            What::StallBegin => self.stall(index),
            What::StallEnd => self.end_stall(index),
            What::Strike => self.act(index, |node, agenda| node.strike(agenda)),
            What::Repair(failure) => self.act(index, |node, agenda| node.repair(failure as usize, agenda)),
        };
        Some(if stepped { Happening::Stepped(index) } else { Happening::Other })
    }

    /// Does something to a node, and lets its processors catch up before and after; answers whether the monitor, being a
    /// task there, took a step.
    pub(super) fn act(&mut self, index: usize, work: impl FnOnce(&mut Node, &mut Agenda<'_>)) -> bool {
        let end = self.scenario.duration;
        let mut agenda = Agenda { engine: &mut self.engine, node: index as u32, end };
        let node = &mut self.nodes[index];
        let before = node.run(&mut agenda);
        work(node, &mut agenda);
        // One on the node that has got its core while its machine stands still is woken again by the end of that.
        let stepped = (before | node.run(&mut agenda)) && !self.watches[index].stalled;
        if stepped {
            self.step_monitor(index);
        }
        if let Some(words) = self.nodes[index].agent.as_mut().and_then(|agent| agent.sends.take()) {
            let now = self.now();
            if let Some(at) = self.watches[index].link.send(words, now) {
                self.agenda(index).at(at, What::Heard);
            }
        }
        let mut agenda = Agenda { engine: &mut self.engine, node: index as u32, end };
        self.nodes[index].plan_cpu(&mut agenda);
        stepped
    }

    fn agenda(&mut self, index: usize) -> Agenda<'_> {
        Agenda { engine: &mut self.engine, node: index as u32, end: self.scenario.duration }
    }

    fn nic_event(&mut self, index: usize) -> bool {
        self.watches[index].nic_event = None;
        self.look_at_link(index)
    }

    pub(super) fn look_at_link(&mut self, index: usize) -> bool {
        let now = self.now();
        let watch = &mut self.watches[index];
        watch.link.advance_to(now);
        let next = watch.link.next_event();
        // Everything due is done, so what is due now is to be polled.
        if next.is_some_and(|at| at <= now) {
            return self.wake_monitor(index);
        }
        self.plan_channel(index, next);
        false
    }

    fn plan_stall(&mut self, index: usize) {
        if let Some(stalls) = self.scenario.observer_stalls {
            let gap = stalls.interval.sample(&mut self.watches[index].stalls);
            self.agenda(index).after(gap, What::StallBegin);
        }
    }

    /// The monitor's machine stands still. What its card gets meanwhile waits for it.
    fn stall(&mut self, index: usize) -> bool {
        if let Some(stalls) = self.scenario.observer_stalls {
            self.watches[index].stalled = true;
            let length = stalls.length.sample(&mut self.watches[index].stalls);
            self.agenda(index).after(length, What::StallEnd);
        }
        false
    }

    fn end_stall(&mut self, index: usize) -> bool {
        self.watches[index].stalled = false;
        self.plan_stall(index);
        self.wake_monitor(index)
    }

    /// The monitor has something to do: at once, or when its task gets a core; or when its machine goes on.
    fn wake_monitor(&mut self, index: usize) -> bool {
        if self.watches[index].stalled {
            return false;
        }
        if !self.scenario.monitor_is_on_node() {
            self.step_monitor(index);
            return true;
        }
        let work = self.scenario.monitor_step_work();
        self.act(index, |node, agenda| {
            node.wake_monitor(agenda.now(), work);
        })
    }

    fn step_monitor(&mut self, index: usize) {
        let now = self.now();
        let Watch { monitor, link, noticed, .. } = &mut self.watches[index];
        noticed.clear();
        link.step(monitor, now, noticed);
        let next = link.next_event();
        if let Some(at) = link.request_arrives(now) {
            self.agenda(index).at(at, What::Request);
        }
        self.plan_channel(index, next);
        self.plan_monitor(index);
    }

    /// Schedules what the link does next, at `next`.
    fn plan_channel(&mut self, index: usize, next: Option<Nanos>) {
        let World { engine, watches, scenario, .. } = self;
        let mut agenda = Agenda { engine, node: index as u32, end: scenario.duration };
        let next = next.filter(|at| *at > agenda.now());
        agenda.keep(&mut watches[index].nic_event, next, What::Nic);
    }

    fn plan_monitor(&mut self, index: usize) {
        let World { engine, watches, scenario, .. } = self;
        let mut agenda = Agenda { engine, node: index as u32, end: scenario.duration };
        let Watch { monitor, due_event, .. } = &mut watches[index];
        // A step at its due time moves the due time on; should one ever not, time goes on all the same.
        let next = if self.events == 0 { monitor.due() } else { monitor.due().max(agenda.now() + Nanos(1)) };
        agenda.keep(due_event, Some(next), What::Monitor);
    }
}
