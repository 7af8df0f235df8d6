//! How a monitor learns of a node's progress: the ways that are compared.
//!
//! All modes watch the same words (the Progress Box's header and liveness words) with the same monitor, detectors and
//! diagnosis of `backdoor-core`, on the same workload, faults and random numbers. They differ in who fetches the words,
//! and in what stands between.
//!
//! ```text
//!  read       monitor ──READ──▶ NIC ▶ memory ▶ NIC ──▶ monitor                 no processor of the node
//!  pull       monitor ──request─▶ [run queue ▶ agent] ──reply──▶ monitor       δ + W + w + δ
//!  push       timer ▶ [run queue ▶ agent] ──heartbeat──▶ monitor               W + w + δ
//!  watchdog   timer ▶ [run queue ▶ agent: the monitor itself] ──report──▶      W + w (+ δ, only if there is news)
//! ```
//!
//! δ is the network's delay one way, drawn from the scenario; *w* the CPU time of the message ([`AgentCosts`]); W the
//! time that the agent, a task of the node, waits for a core. **W is no parameter:** it is what
//! [`CpuModel`](crate::cpu::CpuModel) makes of load and workload. Nor is it what queueing theory gives for the standard
//! queues, in general:
//!
//! * With an endless slice and one core the run queue is first come, first served, and a woken agent waits for the work
//!   that is there. If that comes as a Poisson process of rate λ with work S, the mean is Pollaczek and Khinchine's
//!   W = λ·E(S²) / 2(1−ρ). (The agent comes at regular intervals that keep no step with it, so it sees time averages, as
//!   long as it seldom waits for longer than an interval: one who still waits isn't woken again.)
//! * With Linux's slices and always-busy tasks (ρ = 1) that has no meaning. A woken agent goes before tasks that have
//!   used up a slice, and waits for the rest of the slices that run: uniform on (0, s), mean s/2 on one core; if *c*
//!   cores are out of step, the least of *c* such, mean s/(c+1). The number of busy tasks does not matter; other
//!   sleepers that woke before add their work. That EEVDF places a woken task so is said in [`cpu`](crate::cpu).
//!
//! # No news
//! A reader over RDMA can tell a node that is silent from one whose counters stand still: the card answers. A reader of
//! messages can't. So in pull and push a poll that hears nothing until the next is due is answered with **what was last
//! heard**, and the monitor takes it for silence. That is what heartbeat detectors do (Chen, Toueg and Aguilera 2002),
//! it is what lets them notice that an operating system died, and why they accuse healthy nodes whose agents wait.
//!
//! # The modes, one by one
//! * **Read.** [`SimChannel`](backdoor_transports::sim_nic::SimChannel), as everywhere else in this crate.
//! * **Pull.** With each poll a request goes out, unless one is still unanswered: a client waits for its answer. It wakes
//!   the agent, who reads the words when it has got a core and done its work, and answers. A frozen node's NIC keeps the
//!   request; the answer comes after the thaw.
//! * **Push.** A timer wakes the agent every poll interval; one that goes off before the agent has finished is lost, as
//!   timers coalesce. Joining is an exchange of its own: hook table and directory are known from the start.
//! * **Watchdog.** The monitor itself is the agent. It reads the node's memory directly, sends a report when its
//!   verdict on somebody changes, and says nothing else: its own silence means health, and that is its weakness. It
//!   can't notice a stop of its own, nor of the processors it runs on: what it sees of a freeze after the thaw is one gap
//!   between samples, for which core's monitor rightly blames itself. A hardware timer that resets a node whose
//!   watchdog stops would; it is not modelled.
//!
//! Messages of pull, push and reports go over one TCP connection: they arrive in order. A lost one is sent again, after
//! three more messages have shown the loss (fast retransmit: RFC 5681, section 3.2), at the latest after 200 ms (Linux's
//! `TCP_RTO_MIN`; RFC 6298 would even have a second).

use std::fmt;

use backdoor_core::Nanos;
use backdoor_transports::sim_nic::{Leg, Path, Transit};

use super::path::RandomPath;

/// Who fetches the words; see the [module](self).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The monitor, by one-sided READs that the node's network card serves.
    #[default]
    Read,
    /// The monitor asks, a process of the node answers.
    Pull,
    /// A process of the node sends, unasked.
    Push,
    /// A process of the node watches, and reports.
    Watchdog,
}

impl Mode {
    /// All of them.
    pub const ALL: [Mode; 4] = [Mode::Read, Mode::Pull, Mode::Push, Mode::Watchdog];

    /// As configurations write it.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Read => "read",
            Mode::Pull => "pull",
            Mode::Push => "push",
            Mode::Watchdog => "watchdog",
        }
    }

    /// CPU time of the node that one poll of `words` words takes.
    pub fn work(self, costs: &AgentCosts, words: u64) -> Nanos {
        let copy = costs.per_kiloword * words / 1024;
        match self {
            Mode::Read => Nanos::ZERO,
            Mode::Pull => costs.wake + costs.receive + copy + costs.send,
            Mode::Push => costs.wake + copy + costs.send,
            Mode::Watchdog => costs.wake + copy,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// CPU time that an agent spends on the node, in interrupts, kernel and process together.
///
/// The defaults are round numbers of the size that getrusage(2) shows for small messages over TCP between two processes
/// of one small virtual machine under Linux: 6 to 23 µs to answer a request, 16 to 19 µs to wake up by a timer, 31 to
/// 37 µs to wake up and send. Bare metal does better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentCosts {
    /// To be woken, by a timer or a message: interrupt, switch to the agent and from it, its system call.
    pub wake: Nanos,
    /// To receive a message.
    pub receive: Nanos,
    /// To send one.
    pub send: Nanos,
    /// To copy or to compare 1024 words.
    pub per_kiloword: Nanos,
}

impl Default for AgentCosts {
    fn default() -> Self {
        let micros = Nanos::from_micros;
        AgentCosts { wake: micros(5), receive: micros(5), send: micros(10), per_kiloword: micros(2) }
    }
}

/// What went over the network for monitoring, retransmissions included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages from the monitor to the node.
    pub to_node: u64,
    /// Messages from the node to the monitor.
    pub from_node: u64,
    /// Words of data in them.
    pub words: u64,
}

/// Bytes of a frame around a message, without preamble and gap: Ethernet 18, IPv4 20, and
/// RoCE v2's UDP 8, BTH 12, ICRC 4 with RETH 16 in a READ request or AETH 4 in its response (InfiniBand Architecture
/// Specification, volume 1, chapter 9 and annex A17); TCP 20 and timestamps 12 (RFC 9293, RFC 7323).
const ROCE_REQUEST: u64 = 18 + 20 + 8 + 12 + 16 + 4;
const ROCE_RESPONSE: u64 = 18 + 20 + 8 + 12 + 4 + 4;
const TCP_FRAME: u64 = 18 + 20 + 32;
/// What a request in pull says: operation, key, offset, number of words, padded.
pub(super) const REQUEST_WORDS: u64 = 3;
/// What a report of a watchdog says: entity, verdict, when, for how long.
const REPORT_WORDS: u64 = 4;

impl Traffic {
    /// Messages both ways.
    pub fn messages(&self) -> u64 {
        self.to_node + self.from_node
    }

    /// Bytes on the wire in `mode`, acknowledgements that carry nothing left out; every message in one frame.
    pub fn bytes(&self, mode: Mode) -> u64 {
        let (request, response) = match mode {
            Mode::Read => (ROCE_REQUEST, ROCE_RESPONSE),
            _ => (TCP_FRAME, TCP_FRAME),
        };
        request * self.to_node + response * self.from_node + 8 * self.words
    }

    /// Of `reports` reports of a watchdog.
    pub fn of_reports(reports: u64) -> Self {
        Traffic { to_node: 0, from_node: reports, words: reports * REPORT_WORDS }
    }

    /// Both.
    pub fn and(self, other: Traffic) -> Self {
        Traffic {
            to_node: self.to_node + other.to_node,
            from_node: self.from_node + other.from_node,
            words: self.words + other.words,
        }
    }

    /// Without what there was before.
    pub(super) fn less(self, before: Traffic) -> Self {
        Traffic {
            to_node: self.to_node - before.to_node,
            from_node: self.from_node - before.from_node,
            words: self.words - before.words,
        }
    }
}

/// Linux's `TCP_RTO_MIN`.
const RTO_MIN: Nanos = Nanos::from_millis(200);
/// Messages behind a lost one whose acknowledgements show the loss.
const DUPLICATES: u64 = 3;

/// One direction of a TCP connection: messages arrive, and in order.
#[derive(Debug, Default)]
pub(super) struct Stream {
    last_arrival: Nanos,
}

impl Stream {
    /// Sends a message of `words` words; when it arrives. Others follow every `interval`.
    pub(super) fn send(
        &mut self,
        path: &mut RandomPath,
        leg: Leg,
        now: Nanos,
        words: u64,
        interval: Option<Nanos>,
    ) -> Nanos {
        let resend = interval.map_or(RTO_MIN, |interval| RTO_MIN.min(interval * DUPLICATES));
        let mut departs = now;
        let mut wait = resend;
        let arrives = loop {
            match path.one_way(leg, departs, words) {
                Transit::ArrivesAfter(delay) => break departs + delay,
                Transit::Lost => {
                    departs += wait;
                    // What is lost again is found by the timer, which doubles each time (RFC 6298, 5.5).
                    wait = (wait * 2).max(RTO_MIN);
                }
            }
        };
        self.last_arrival = self.last_arrival.max(arrives);
        self.last_arrival
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::Dist;
    use crate::streams::{StreamKey, Streams};

    fn path(delay: Dist, loss: f64) -> RandomPath {
        let streams = Streams::new(StreamKey { seed: 1, experiment: "tcp", point: "", replication: 0 });
        RandomPath::new(delay, loss, streams.stream("network"))
    }

    #[test]
    fn messages_of_a_connection_stay_in_order() {
        let mut path = path("exp:5ms".parse().unwrap(), 0.1);
        let mut stream = Stream::default();
        let interval = Some(Nanos::from_millis(1));
        let arrivals: Vec<Nanos> =
            (0..2_000).map(|n| stream.send(&mut path, Leg::FromNode, Nanos::from_millis(n), 20, interval)).collect();
        assert!(arrivals.is_sorted());
        assert!(arrivals.iter().zip(0..).all(|(at, n)| *at >= Nanos::from_millis(n)));
        let traffic = path.traffic();
        assert_eq!(traffic.to_node, 0);
        // Each is sent 1/(1 - 0.1) times.
        assert!((2_150..2_300).contains(&traffic.from_node), "{traffic:?}");
        assert_eq!(traffic.words, traffic.from_node * 20);
    }

    #[test]
    fn a_loss_is_shown_by_what_follows_or_found_by_the_timer() {
        // 0.5: the first loss is as good as any.
        for (interval, shortest) in [(Some(Nanos::from_millis(1)), 3), (Some(Nanos::from_secs(1)), 200), (None, 200)] {
            let mut path = path(Dist::constant(Nanos::ZERO), 0.5);
            let late = |_| Stream::default().send(&mut path, Leg::FromNode, Nanos::ZERO, 0, interval);
            let arrivals: Vec<Nanos> = (0..200).map(late).filter(|at| *at > Nanos::ZERO).collect();
            assert_eq!(arrivals.iter().min(), Some(&Nanos::from_millis(shortest)));
        }
    }

    #[test]
    fn bytes_are_those_of_the_frames() {
        let poll = Traffic { to_node: 1, from_node: 1, words: 20 };
        assert_eq!(poll.bytes(Mode::Read), 78 + 66 + 160);
        assert_eq!(poll.bytes(Mode::Push), 70 + 70 + 160);
        assert_eq!(Traffic::of_reports(2).bytes(Mode::Watchdog), 2 * (70 + 32));
    }
}
