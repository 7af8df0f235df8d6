//! What all runs of one configuration share: the agent, the monitor, and the load.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use backdoor_core::Nanos;
use backdoor_core::state_box::words_needed;

use super::{DetectConfig, DetectError};
use crate::config::Span;
use crate::live::notice::{Notice, Summary, What};
use crate::live::parts::{Part, Ready, Role};

/// How long a part may take for what takes milliseconds on a machine that has time.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// Deadline of the operating system's counters, as a node has it by default: the system is not what is put to the test.
const OS_DEADLINE: Nanos = Nanos::from_millis(100);
/// Room for the remains of this many workers besides the one at work. They are kept for a second or so.
const REMAINS: usize = 24;

/// Dropping it ends the processes; the monitor first, so that it does not see the others go.
pub(super) struct Stage {
    monitor: Part,
    _load: Vec<Part>,
    _agent: Part,
    /// The agent's socket.
    pub(super) socket: String,
    /// Processes of earlier workers; what is said of those is no news.
    pub(super) past: HashSet<u64>,
}

impl Stage {
    pub(super) fn set(config: &DetectConfig) -> Result<Self, DetectError> {
        let sessions = config.sessions as usize;
        let mut agent = Part::start(
            &config.program,
            Role::Agent {
                capacity: 64 + (1 + REMAINS) * (1 + sessions),
                state_words: (1 + REMAINS) * sessions * words_needed(config.state_bytes),
                os_deadline: Span(config.deadline.max(OS_DEADLINE)),
                retain: Span(config.limit() + Nanos::from_millis(500)),
            },
        )?;
        let Ready { socket } = agent.expect(PATIENCE)?;
        // A generous estimate; it matters only where the kernel fails to end the load with its parent.
        let run = config.healthy + config.limit() + Nanos::from_secs(30);
        let lifetime = Span(run * u64::from(config.runs) + Nanos::from_secs(60));
        let load = (0..config.load).map(|_| Part::start(&config.program, Role::Load { lifetime }));
        let load = load.collect::<Result<_, _>>()?;
        let role = Role::Monitor { socket: socket.clone(), poll: Span(config.poll), spin: config.spin };
        let monitor = Part::start(&config.program, role)?;
        let mut stage = Stage { monitor, _load: load, _agent: agent, socket, past: HashSet::new() };
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(Notice { what: What::Attached { .. }, .. }) = stage.notice(PATIENCE)? {
                return Ok(stage);
            }
        }
        Err(DetectError::Blind { what: "attach", waited: PATIENCE })
    }

    /// What the monitor says next.
    pub(super) fn notice(&mut self, patience: Duration) -> Result<Option<Notice>, DetectError> {
        Ok(self.monitor.receive(patience)?)
    }

    /// Ends the monitor and gets its summary, then ends the rest.
    pub(super) fn end(mut self) -> Result<Summary, DetectError> {
        self.monitor.ask_to_end();
        loop {
            if let What::Summary(summary) = self.monitor.expect::<Notice>(PATIENCE)?.what {
                return Ok(summary);
            }
        }
    }
}
