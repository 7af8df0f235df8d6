//! A monitor's way to its node, in each [mode](super::mode): how words get from the one to the other.

use std::collections::VecDeque;

use backdoor_core::Nanos;
use backdoor_core::detector::Detector;
use backdoor_core::monitor::{Event as Noticed, Monitor};
use backdoor_core::transport::RemoteSlice;
use backdoor_core::words::Ordering;
use backdoor_transports::sim_nic::{Leg, SimChannel};

use super::memory::NodeMemory;
use super::mode::{Mode, REQUEST_WORDS, Stream, Traffic};
use super::near::NearMemory;
use super::path::RandomPath;
use super::scenario::{Scenario, ScenarioError};
use crate::streams::Streams;

/// What is between a monitor and its node.
#[derive(Debug)]
pub(super) enum Link {
    /// Two network cards.
    Cards(Box<SimChannel<RandomPath>>),
    /// An agent who is asked, or who sends by itself.
    Messages(Box<Messages>),
    /// Nothing, for the monitor is there; its reports go over the network.
    Reports(Box<Reports>),
}

/// A connection to an agent, and what was last heard from it.
#[derive(Debug)]
pub(super) struct Messages {
    heard: NearMemory,
    /// The monitor's copy.
    copy: NodeMemory,
    path: RandomPath,
    to_node: Stream,
    from_node: Stream,
    interval: Nanos,
    /// Whether polls are requests.
    asks: bool,
    /// Polls that a request, or a look at an unanswered one, was made for.
    asked: u64,
    unanswered: bool,
    /// Words of messages on their way to the monitor.
    under_way: VecDeque<Vec<u64>>,
}

/// A watchdog's view, and its connection to whom it reports to.
#[derive(Debug)]
pub(super) struct Reports {
    memory: NearMemory,
    path: RandomPath,
    stream: Stream,
    samples: u64,
    known: Nanos,
}

impl Link {
    /// A link to the node `index`, whose memory is `memory`.
    pub(super) fn new(
        scenario: &Scenario,
        index: usize,
        memory: &NodeMemory,
        streams: &Streams,
    ) -> Result<Self, ScenarioError> {
        let (nic, monitor) = (&scenario.nic, &scenario.monitor);
        let path = RandomPath::new(scenario.network_delay, scenario.network_loss, streams.stream("network"));
        Ok(match scenario.mode {
            Mode::Read => Link::Cards(Box::new(SimChannel::connect(&memory.nic, path, nic.clone())?)),
            Mode::Pull | Mode::Push => {
                // The scenario was checked: its boxes have possible sizes, and keys and slots suffice.
                let copy = NodeMemory::new(scenario, index).expect("a checked scenario fits the formats");
                let polled = RemoteSlice { key: copy.progress_key, offset: 0, words: copy.polled().len() as u64 };
                // Long before the monitor takes the silence of its own copy for a fault of the channel.
                let patience = monitor.poll_interval.min(monitor.read_timeout / 2);
                Link::Messages(Box::new(Messages {
                    heard: NearMemory::of_what_was_heard(&copy.nic, nic, polled, patience)?,
                    copy,
                    path,
                    to_node: Stream::default(),
                    from_node: Stream::default(),
                    interval: monitor.poll_interval,
                    asks: scenario.mode == Mode::Pull,
                    asked: 0,
                    unanswered: false,
                    under_way: VecDeque::new(),
                }))
            }
            Mode::Watchdog => Link::Reports(Box::new(Reports {
                memory: NearMemory::of_this_machine(&memory.nic, nic)?,
                path,
                stream: Stream::default(),
                samples: 0,
                known: Nanos::ZERO,
            })),
        })
    }

    pub(super) fn advance_to(&mut self, now: Nanos) {
        match self {
            Link::Cards(channel) => channel.advance_to(now),
            Link::Messages(messages) => messages.heard.advance_to(now),
            Link::Reports(reports) => reports.memory.advance_to(now),
        }
    }

    pub(super) fn next_event(&self) -> Option<Nanos> {
        match self {
            Link::Cards(channel) => channel.next_event(),
            Link::Messages(messages) => messages.heard.next_event(),
            Link::Reports(reports) => reports.memory.next_event(),
        }
    }

    /// Lets the monitor take a step.
    pub(super) fn step<D: Detector>(&mut self, monitor: &mut Monitor<D>, now: Nanos, noticed: &mut Vec<Noticed>) {
        self.advance_to(now);
        match self {
            Link::Cards(channel) => monitor.step(now, &mut **channel, noticed),
            Link::Messages(messages) => monitor.step(now, &mut messages.heard, noticed),
            Link::Reports(reports) => {
                monitor.step(now, &mut reports.memory, noticed);
                reports.look(monitor.stats().samples, now);
            }
        }
    }

    /// When the monitor's last step, taken at `now`, is known to whom it tells: with a report, if it is far from them.
    pub(super) fn known_at(&self, now: Nanos) -> Nanos {
        match self {
            Link::Reports(reports) => reports.known,
            _ => now,
        }
    }

    /// When a request that the last step made gets to the node.
    pub(super) fn request_arrives(&mut self, now: Nanos) -> Option<Nanos> {
        let Link::Messages(messages) = self else { return None };
        let polls = messages.heard.polls();
        let polled = std::mem::replace(&mut messages.asked, polls) != polls;
        if !messages.asks || !polled || std::mem::replace(&mut messages.unanswered, true) {
            return None;
        }
        let Messages { path, to_node, interval, .. } = &mut **messages;
        Some(to_node.send(path, Leg::ToNode, now, REQUEST_WORDS, Some(*interval)))
    }

    /// The agent sends `words`; when they arrive.
    pub(super) fn send(&mut self, words: Vec<u64>, now: Nanos) -> Option<Nanos> {
        let Link::Messages(messages) = self else { return None };
        let Messages { path, from_node, interval, under_way, .. } = &mut **messages;
        let arrives = from_node.send(path, Leg::FromNode, now, words.len() as u64, Some(*interval));
        under_way.push_back(words);
        Some(arrives)
    }

    /// The next message of the agent is there.
    pub(super) fn hear(&mut self, now: Nanos) {
        let Link::Messages(messages) = self else { return };
        let Some(words) = messages.under_way.pop_front() else { return };
        // What waited until now without it was answered without it.
        messages.heard.advance_to(now);
        for (word, heard) in messages.copy.polled().iter().zip(words) {
            word.store(heard, Ordering::Relaxed);
        }
        messages.unanswered = false;
        messages.heard.heard(now);
    }

    /// What went over the network so far, without a watchdog's reports: those are as many as its deadlines make them.
    pub(super) fn traffic(&mut self) -> Traffic {
        match self {
            Link::Cards(channel) => channel.path_mut().traffic(),
            Link::Messages(messages) => messages.path.traffic(),
            Link::Reports(_) => Traffic::default(),
        }
    }
}

impl Reports {
    /// After a step: a report of what a sample showed would arrive then. Drawn for each sample, whether or not there is
    /// anything to report, so that all deadlines can be judged on one run.
    fn look(&mut self, samples: u64, now: Nanos) {
        if std::mem::replace(&mut self.samples, samples) != samples {
            // Reports are rare: nothing follows that would show a loss.
            self.known = self.stream.send(&mut self.path, Leg::FromNode, now, 0, None);
        }
    }
}
