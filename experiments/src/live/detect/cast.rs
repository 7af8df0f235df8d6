//! What the runs of one configuration share: the agent, the monitor, and the load.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use backdoor_core::Nanos;
use backdoor_core::state_box::words_needed;
use backdoor_host::clock;

use super::{DetectConfig, DetectError};
use crate::config::Span;
use crate::interrupt::Interrupt;
use crate::live::notice::{Notice, Summary, What};
use crate::live::parts::{Part, PartError, Place, Ready, Role};
use crate::live::reach::{NodeAddress, Offer, Reached, TransportKind, reach};
use crate::live::stage::connection::StageConnection;

/// How long a part may take for what takes milliseconds on a machine that has time.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// Deadline of the operating system's counters, as a node has it by default: the system is not what is put to the test.
const OS_DEADLINE: Nanos = Nanos::from_millis(100);
/// Room for the remains of this many workers besides the one at work. They are kept for a second or so.
const REMAINS: usize = 24;
/// Pause between two attempts to reach a stage that is to come back.
const RETRY_EVERY: Duration = Duration::from_millis(200);

/// The node's side: its agent and its load. Dropping it ends the processes.
pub(in crate::live) struct NodeParts {
    _load: Vec<Part>,
    _agent: Part,
    reached: Reached,
    /// Where they are.
    pub(in crate::live) place: Place,
    /// The agent's socket.
    pub(in crate::live) socket: String,
}

impl NodeParts {
    /// Starts them. `None` if somebody asked to stop.
    ///
    /// A stage that comes `again`, after a failure of its machine, is waited for.
    pub(in crate::live) fn start(
        config: &DetectConfig,
        again: bool,
        interrupt: &Interrupt,
    ) -> Result<Option<Self>, DetectError> {
        let Some(place) = place(config, again, interrupt)? else { return Ok(None) };
        let sessions = config.sessions as usize;
        let mut agent = place.start(Role::Agent {
            capacity: 64 + (1 + REMAINS) * (1 + sessions),
            state_words: (1 + REMAINS) * sessions * words_needed(config.state_bytes),
            os_deadline: Span(os_deadline(config.deadline)),
            // One worker's at a time: what an earlier one had is let go when it ends.
            queues: sessions + 1,
            retain: Span(config.limit() + Nanos::from_millis(500)),
            offer: (config.transport == TransportKind::Verbs)
                .then(|| Offer { listen: Ipv4Addr::LOCALHOST.into(), card: config.card.clone() }),
        })?;
        let ready: Ready = agent.expect(PATIENCE)?;
        let host = config.on.map(|stage| stage.ip());
        let reached = reach(config.transport, &ready, host, place.is_this_machine(), (&config.card, config.retry));
        let reached = reached.map_err(DetectError::Config)?;
        // A generous estimate; it matters only where the kernel fails to end the load with its parent.
        let run = config.healthy + config.limit() + Nanos::from_secs(30);
        let lifetime = Span(run * u64::from(config.runs) + Nanos::from_secs(60));
        let load = (0..config.load).map(|_| place.start(Role::Load { lifetime }));
        let load = load.collect::<Result<_, _>>()?;
        Ok(Some(NodeParts { _load: load, _agent: agent, reached, place, socket: ready.socket }))
    }

    /// The way there, for a monitor.
    pub(in crate::live) fn address(&self) -> &NodeAddress {
        &self.reached.address
    }

    /// Starts a monitor, on this machine, that has attached when this returns.
    pub(in crate::live) fn watched(&self, config: &DetectConfig) -> Result<Part, DetectError> {
        let role = Role::Monitor {
            node: self.address().clone(),
            poll: Span(config.poll),
            detector: config.detector,
            spin: config.spin,
        };
        let mut monitor = config.here().start(role)?;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(Notice { what: What::Attached { .. }, .. }) = monitor.receive(PATIENCE)? {
                return Ok(monitor);
            }
        }
        Err(DetectError::Blind { what: "attach", waited: PATIENCE })
    }
}

/// Dropping it ends the processes; the monitor first, so that it does not see the others go.
pub(super) struct Cast {
    monitor: Part,
    pub(super) node: NodeParts,
    /// Processes of earlier workers; what is said of those is no news.
    pub(super) past: HashSet<u64>,
}

impl Cast {
    /// Starts everybody. `None` if somebody asked to stop. See [`NodeParts::start`].
    pub(super) fn assemble(
        config: &DetectConfig,
        again: bool,
        interrupt: &Interrupt,
    ) -> Result<Option<Self>, DetectError> {
        let Some(node) = NodeParts::start(config, again, interrupt)? else { return Ok(None) };
        Ok(Some(Cast { monitor: node.watched(config)?, node, past: HashSet::new() }))
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

/// What the operating system's counters declare if the worker declares `deadline`.
pub(crate) fn os_deadline(deadline: Nanos) -> Nanos {
    deadline.max(OS_DEADLINE)
}

/// The way to where the node's parts are to run.
fn place(config: &DetectConfig, again: bool, interrupt: &Interrupt) -> Result<Option<Place>, DetectError> {
    let Some(address) = config.on else { return Ok(Some(config.here())) };
    let end = clock::now() + config.reboot_limit;
    loop {
        let error = match StageConnection::open(address) {
            Ok(stage) => return Ok(Some(Place::Stage(Rc::new(stage)))),
            Err(error) => error,
        };
        if !again || !error.may_pass() {
            return Err(PartError::from(error).into());
        }
        if interrupt.requested() {
            return Ok(None);
        }
        if clock::now() >= end {
            return Err(DetectError::StageStaysAway { waited: config.reboot_limit, last: error });
        }
        std::thread::sleep(RETRY_EVERY);
    }
}
