//! What an agent can be told.

use std::path::PathBuf;

use backdoor_core::Nanos;
use backdoor_core::progress_box::MAX_ENTITIES;
use rustix::process::Resource;

use super::queues::MAX_QUEUES;

/// Descriptors of the agent's own, with some to spare: memory, sockets, what a request may bring.
const OWN_DESCRIPTORS: usize = 64;

/// Settings of an agent. [`AgentConfig::at`] has a default for everything but the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// Where its socket is made.
    pub socket: PathBuf,
    /// Entities that the Progress Box has room for: one per CPU, two more of the agent's own, applications, sessions.
    pub capacity: usize,
    /// Words for all State Boxes together.
    pub state_words: usize,
    /// Claim words: sessions that can be open at once.
    pub claims: usize,
    /// How often the counters of the operating system advance.
    pub tick: Nanos,
    /// Silence of such a counter longer than this is a failure.
    pub os_deadline: Nanos,
    /// How often the agent's own counter advances.
    pub agent_tick: Nanos,
    /// Silence of the agent's own counter longer than this is a failure.
    pub agent_deadline: Nanos,
    /// How often the gauges are updated.
    pub gauge_period: Nanos,
    /// Sockets that can be watched at once. Each takes a descriptor, and a word in every poll of a monitor.
    pub queues: usize,
    /// How often it is asked what waits in them, one system call each; less often where that would take more than a
    /// twentieth of the time. Work that waits for an idle session counts from the
    /// second look on, so choose it well below the sessions' deadlines.
    pub queue_period: Nanos,
    /// What died is kept at least this long, for somebody to recover it; then until its room is needed.
    pub retain: Nanos,
    /// Connections of a session whose process died are kept this long, for somebody to carry them on; then their clients
    /// are told. Those of a session that its owner has lost are kept as long, for takers to read what they hold, unless it has
    /// moved; then they are closed without a word. It concerns those that the service
    /// [asked to be kept](crate::app::Session::keep_connection).
    pub keep: Nanos,
    /// Most connections at once.
    pub max_connections: usize,
    /// A connection that has made no request after this long is closed, from wherever it comes.
    pub greeting_timeout: Nanos,
    /// How to serve monitors on other machines; `None`: not at all.
    #[cfg(feature = "verbs")]
    pub remote: Option<super::RemoteConfig>,
}

impl AgentConfig {
    /// Defaults: 1024 entities, 8 MiB of State Boxes, 1 ms ticks, 256 sockets looked at every 2 ms.
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        AgentConfig {
            socket: socket.into(),
            capacity: 1024,
            state_words: 1 << 20,
            claims: 1024,
            tick: Nanos::from_millis(1),
            os_deadline: Nanos::from_millis(100),
            agent_tick: Nanos::from_millis(10),
            agent_deadline: Nanos::from_secs(1),
            gauge_period: Nanos::from_millis(100),
            queues: 256,
            queue_period: Nanos::from_millis(2),
            retain: Nanos::from_secs(60),
            keep: Nanos::from_secs(30),
            max_connections: 256,
            greeting_timeout: Nanos::from_secs(5),
            #[cfg(feature = "verbs")]
            remote: None,
        }
    }

    /// The first setting that can't be, and why.
    pub(super) fn check(&self, cpus: usize) -> Result<(), String> {
        let (shortest, second) = (Nanos::from_micros(10), Nanos::from_secs(1));
        for (name, period, deadline) in
            [("tick", self.tick, self.os_deadline), ("agent_tick", self.agent_tick, self.agent_deadline)]
        {
            // An upper bound, because whoever stops the agent waits for a tick.
            // And a lower one, because a timer can't do better and would only keep a processor busy.
            if period < shortest || period > second {
                return Err(format!("{name} is {period}, must be from {shortest} to {second}"));
            }
            if deadline <= period {
                return Err(format!("{name} is {period}, its deadline {deadline}: every pause would be a failure"));
            }
        }
        if self.queue_period < shortest || self.queue_period > second {
            return Err(format!("queue_period is {}, must be from {shortest} to {second}", self.queue_period));
        }
        if self.queues > MAX_QUEUES {
            return Err(format!("queues is {}, at most {MAX_QUEUES} are possible", self.queues));
        }
        self.check_descriptors(rustix::process::getrlimit(Resource::Nofile).current)?;
        if self.gauge_period == Nanos::ZERO {
            return Err("gauge_period is 0".into());
        }
        if self.capacity < cpus + 3 {
            return Err(format!(
                "capacity is {}, but {cpus} CPUs, the system, the agent and one application need {}",
                self.capacity,
                cpus + 3
            ));
        }
        if self.capacity > MAX_ENTITIES {
            return Err(format!("capacity is {}, at most {MAX_ENTITIES} entities are possible", self.capacity));
        }
        if self.claims == 0 || self.claims > u32::MAX as usize {
            return Err(format!("claims is {}", self.claims));
        }
        if self.max_connections == 0 {
            return Err("max_connections is 0".into());
        }
        #[cfg(feature = "verbs")]
        self.remote.as_ref().map_or(Ok(()), super::RemoteConfig::check)?;
        Ok(())
    }

    /// Whether everything that peers may make it hold at once fits: then none of them can exhaust its descriptors.
    fn check_descriptors(&self, limit: Option<u64>) -> Result<(), String> {
        let (queues, connections) = (self.queues, self.max_connections);
        let need = queues.saturating_add(connections).saturating_add(OWN_DESCRIPTORS) as u64;
        if limit.is_some_and(|limit| need > limit) {
            let limit = limit.unwrap_or_default();
            return Err(format!(
                "{queues} queues and {connections} connections need {need} descriptors, and this process may have {limit} \
                 (ulimit -n)"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_cannot_be_promised_more_descriptors_than_there_are() {
        let config = AgentConfig::at("/nonexistent");
        assert_eq!(config.check_descriptors(Some(1024)), Ok(()));
        assert_eq!(config.check_descriptors(None), Ok(()));
        let refused = config.check_descriptors(Some(512)).unwrap_err();
        assert!(refused.contains("576 descriptors") && refused.contains("512"), "{refused}");
        let config = AgentConfig { queues: MAX_QUEUES + 1, ..config };
        assert!(config.check(1).unwrap_err().contains("queues"));
    }

    #[test]
    fn a_capacity_beyond_that_of_a_progress_box_is_named_as_such() {
        let most = AgentConfig { capacity: MAX_ENTITIES, claims: MAX_ENTITIES, ..AgentConfig::at("/nonexistent") };
        assert_eq!(most.check(1), Ok(()));
        for capacity in [MAX_ENTITIES + 1, usize::MAX] {
            let refused = AgentConfig { capacity, claims: capacity, ..most.clone() }.check(1).unwrap_err();
            assert_eq!(refused, format!("capacity is {capacity}, at most 65536 entities are possible"));
        }
    }
}
