//! What a monitored node does all day: an operating system that ticks, applications with event loops, and the client
//! sessions they serve.
//!
//! ```text
//!   every tick_interval:  cpuN tick task  -> counter os/cpuN        (one per core, pinned)
//!                         kernel thread   -> counter os             (migrates)
//!   loop: work, advance, sleep loop_interval + jitter               (one per application)
//!   request arrives -> session active -> service + commit -> advance, or idle if nothing is pending
//! ```
//!
//! All of it is work for the node's run queue ([`crate::cpu`]); how late a counter moves under load is the run queue's
//! answer, not a parameter. Requests come from outside (an open system: clients do not wait for each other), and are
//! received by the kernel in interrupt context, which is what marks a waiting session active: so a session whose
//! handler hangs is seen to hang from its next request on, although the handler itself never says anything again.
//!
//! [`Activity`] has the other ways in which a session's activity can be told. The kernel also knows how many requests wait:
//! with `pending_gauges` it keeps that in a gauge for each session.
//!
//! [`Chain`] and [`Disk`] are what others wait for; without them, nobody waits for anybody.
//!
//! A commit costs `commit_work + commit_work_per_kib · size` of CPU time as part of the request's work, and stores a
//! payload that is a function of session and sequence, so that whoever recovers it can be checked byte for byte. What the two
//! are unless they are set was measured: what a service lost by its saves, of 64 B to 128 KiB, whose requests take some 17 us,
//! on a virtual machine with two processors (`backdoor live overhead`).

mod services;

pub use services::{Backup, Chain, Disk};

use backdoor_core::Nanos;

use crate::dist::Dist;

/// The work of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Time from one tick of the operating system's counters to the next.
    pub tick_interval: Nanos,
    /// CPU time of one tick, for each counter.
    pub tick_work: Nanos,
    /// Number of applications.
    pub applications: usize,
    /// Time that an application's event loop sleeps between two turns, before jitter.
    pub loop_interval: Nanos,
    /// What is added to each of those sleeps.
    pub loop_jitter: Dist,
    /// CPU time of one turn of the loop.
    pub loop_work: Nanos,
    /// Sessions of each application, each with a handler (a task) of its own.
    pub sessions: usize,
    /// Time from one request of a session to its next.
    pub request_interval: Dist,
    /// CPU time of serving one request, without the commit.
    pub service_work: Dist,
    /// Size of a session's committed state; `None`: sessions keep no State Box and end with their application.
    pub state_bytes: Option<usize>,
    /// A commit after every so many requests of a session, at least 1.
    pub commit_every: u64,
    /// CPU time of a commit, whatever its size.
    pub commit_work: Nanos,
    /// CPU time that each KiB of state adds to a commit.
    pub commit_work_per_kib: Nanos,
    /// Pauses of whole applications (garbage collection): not failures, only silences.
    pub pauses: Option<Pauses>,
    /// Who says whether a session has something to do.
    pub activity: Activity,
    /// Whether each session's waiting requests are counted in a gauge, which the directory names.
    pub pending_gauges: bool,
    /// Processes that wait for each other. `activity` and `pending_gauges` go for them, too.
    pub chain: Option<Chain>,
    /// What applications and the chain wait for.
    pub disk: Option<Disk>,
    /// Who is told of every commit before the answer.
    pub backup: Option<Backup>,
}

/// Who says whether a session has something to do, or only waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activity {
    /// The kernel says that it is active when a request comes, the handler that it is idle when the last is answered.
    #[default]
    Kernel,
    /// The handler alone, which counts the requests that it has answered and says that it is idle. One that hangs says so
    /// for ever.
    Handler,
    /// Nobody: its counter moves with each answer, as a heartbeat does, and it never counts as idle.
    Nobody,
}

/// Stop-the-world pauses of each application, with its sessions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pauses {
    /// Time from the end of one pause to the start of the next.
    pub interval: Dist,
    /// How long one lasts.
    pub length: Dist,
}

impl Default for Workload {
    /// One application with 8 sessions, each with a request every 100 ms that takes 500 µs; ticks and loop turns every
    /// 10 ms; 4 KiB of state, committed with every request; no pauses.
    fn default() -> Self {
        let millis = Nanos::from_millis;
        Workload {
            tick_interval: millis(10),
            tick_work: Nanos::from_micros(5),
            applications: 1,
            loop_interval: millis(10),
            loop_jitter: Dist::constant(Nanos::ZERO),
            loop_work: Nanos::from_micros(50),
            sessions: 8,
            request_interval: exponential(millis(100)),
            service_work: exponential(Nanos::from_micros(500)),
            state_bytes: Some(4096),
            commit_every: 1,
            commit_work: Nanos(500),
            commit_work_per_kib: Nanos(85),
            pauses: None,
            activity: Activity::Kernel,
            pending_gauges: false,
            chain: None,
            disk: None,
            backup: None,
        }
    }
}

impl Workload {
    /// Processes of the chain.
    pub fn processes(&self) -> usize {
        self.chain.map_or(0, |chain| chain.processes)
    }

    /// Sessions of the whole node.
    pub fn total_sessions(&self) -> usize {
        self.applications.saturating_mul(self.sessions)
    }

    /// CPU time of one commit; zero if sessions keep no State Box.
    pub fn commit_cost(&self) -> Nanos {
        self.state_bytes.map_or(Nanos::ZERO, |bytes| self.commit_work + self.commit_work_per_kib * bytes as u64 / 1024)
    }

    /// CPU time that the node needs per second of time, without its load: above the number of cores, requests pile up
    /// without end.
    pub fn utilisation(&self, cores: usize) -> f64 {
        let per_second = |work: Nanos, interval: f64| work.as_secs_f64() / interval;
        let ticks = (cores + 1) as f64 * per_second(self.tick_work, self.tick_interval.as_secs_f64());
        let turn = self.loop_interval.as_secs_f64() + self.loop_jitter.mean_s() + self.loop_work.as_secs_f64();
        let loops = self.applications as f64 * per_second(self.loop_work, turn);
        let request = self.service_work.mean_s() + self.commit_cost().as_secs_f64() / self.commit_every.max(1) as f64;
        let chain = self
            .chain
            .map_or(0.0, |chain| chain.processes as f64 * chain.work.mean_s() / chain.request_interval.mean_s());
        chain + ticks + loops + self.total_sessions() as f64 * request / self.request_interval.mean_s()
    }
}

/// Exponential with a mean that is known to be possible.
fn exponential(mean: Nanos) -> Dist {
    Dist::exp(mean).unwrap_or(Dist::constant(mean))
}

/// The state that `session` commits as its `sequence`-th version: `bytes` bytes that no other session or version has.
pub fn payload(session: u64, sequence: u64, bytes: usize, into: &mut Vec<u8>) {
    // What is there already need not be cleared: every word is written.
    into.resize(bytes.next_multiple_of(8), 0);
    let mut state = (session << 32 ^ sequence).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for word in into.as_chunks_mut().0 {
        // A Weyl sequence, folded once: cheap, and different in every word.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        *word = (state ^ state >> 29).to_le_bytes();
    }
    into.truncate(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_differ_by_session_and_version() {
        let of = |session, sequence| {
            let mut bytes = Vec::new();
            payload(session, sequence, 13, &mut bytes);
            bytes
        };
        assert_eq!(of(1, 1), of(1, 1));
        assert_eq!(of(1, 1).len(), 13);
        assert_ne!(of(1, 2), of(1, 1));
        assert_ne!(of(2, 1), of(1, 1));
        assert_ne!(of(2, 1), of(1, 2));
    }

    #[test]
    fn the_default_leaves_room() {
        let utilisation = Workload::default().utilisation(2);
        assert!(utilisation > 0.0 && utilisation < 0.1, "{utilisation}");
    }
}
