//! How long until a client whose server died in the middle of a transfer goes on, and does it get every byte?
//!
//! One run: a client, two nodes and a switch, each in a network namespace; a service on node A, its heir on node B, a
//! monitor behind the switch that reads node A's memory. Somewhere in the middle of the transfer node A fails. Whoever
//! watches it takes its sessions over: claims them, cuts node A off, reads the State Boxes, hands them to node B,
//! which recreates the connections; the client, an ordinary one, is told nothing.
//!
//! # Moments
//! | column | from | to |
//! |---|---|---|
//! | `detection_ms` | the failure | the first suspicion of the service or of one of its sessions |
//! | `claim_ms` | the decision (the diagnosis has settled) | every claim stands, with no way back |
//! | `fence_ms` | | the switch has closed node A's port |
//! | `extract_ms` | | the last State Box is here |
//! | `reinstate_ms` | | the last connection begins to speak at node B |
//! | `first_byte_ms` | the decision | the first byte that moves at the client after its connection began to speak |
//! | `outage_ms` | | the longest time in which nothing moved over one of the client's connections, over the whole transfer, and up to the end of the run if it did not finish |
//!
//! Of many sessions, a phase ends with the last of them. All processes read one monotonic clock.
//!
//! # Several heirs
//! With `heirs` above 1, nodes B, C and so on stand by, and the service has as many addresses: for a client finds an
//! address at one node at a time. [`ClientKind::Many`] connects to them by turns. All sessions of an address go on at the
//! same node; which one decides core's [`spread_groups`](backdoor_core::recovery::policy::spread_groups), by how many
//! sessions the addresses have. One that is dead or says no is passed over at once, one that does not answer after a
//! second (the takeover's [`offer_timeout`](backdoor_core::takeover::TakeoverConfig::offer_timeout)); others are not kept
//! waiting by it. So that no two nodes have the same address, each asks on the link before it takes the first session of
//! an address, and declines if another one has it or asks, too; only one that is too busy to answer meanwhile can be
//! missed. So when a node has taken some sessions of an address and has no room for the others, these are not carried on;
//! and an address without any session goes to no node. What goes wrong with an heir, goes wrong with node B. `moved_to`
//! counts sessions by node; in `trouble` nodes are parties of the takeover, of which B is number 2, and C, D and E are 5
//! to 7.
//!
//! # A service of two processes
//! In a pair, a front talks to clients, and a worker counts their requests, over a link between the two. A session then has
//! a State Box in each, and the heirs are two processes, too: both State Boxes are carried on, whichever process failed,
//! and the heirs' ends of the link send again what was under way.
//!
//! # A second failure
//! With `then`, node B fails, too, in the middle of what is left of the transfer, after it has taken over all sessions. A
//! third node stands by for its sessions, and a second taker watches it from the end of the first takeover on. The columns
//! `then_detection_ms` and `then_first_byte_ms` are of that failure, and `outage_ms` is of the longer silence.
//!
//! # Other remedies
//! With the remedy `restart` nobody claims sessions and nothing is cut off: a supervisor on node A ends the service's process,
//! if it has not ended, and starts another, which re-adopts the sessions over their own sockets. `reinstate_ms` is then the
//! time from the decision until it has taken up the last one.
//!
//! With the remedy `reboot` node A starts anew: its processes are ended, which its kernel tells the clients by a reset, or by the
//! end of the connection where nothing was left unread; after `boot_time` there is another kernel at its addresses (a namespace of
//! its own) that knows of no connection, with an agent and a service that know of no session. Clients connect again, at once and
//! again and again. `lost` counts the sessions that ended so, `client_resets` and `client_connections` what the client's kernel saw of it, and
//! `reinstate_ms` is the time from the decision until the service listens again. As all that a takeover is compared with, it is
//! at its best: here it takes as long as processes take to start, and `boot_time` besides, which is none unless it is given.
//! Its clients' sessions begin anew, so counts begin at 1 again; `sha256_ok` says that over each connection every byte was right.
//!
//! With `policy`, core's policy decides by expected cost, and again when what it decided did not help: after a restart that
//! could not be, sessions are taken over, and if nobody can take them and nobody may take them yet, the node is rebooted. The
//! column `remedy` says what was done. What the policy asks for besides, when sessions are at another node (to start the application
//! again, to reboot), is told in `afterwards` and not done. Exclusion is done: the switch's port to node A, closed by the fence,
//! stays closed to the end of the run, and only a reboot opens it.
//!
//! # A suspicion that passes
//! When claims stand and nobody is cut off, a taker looks at the node once more. If nobody of it is suspected any more, all claims are given
//! back, and the service goes on by itself (`given_back`); the disturbance `resume` makes that happen. The failure `wrong` does not: there
//! the taker was told to suspect, and asks no monitor.
//!
//! # What can't be carried on
//! A connection that the node's kernel has accepted and its service has not is no session yet: once all sessions are
//! there, node B's kernel resets it if its client sends anything. A client that waits for the answer to what node A's
//! kernel has acknowledged is told nothing. If the agent has ended before the service, its memory is there still:
//! progress is watched on, and sessions are taken over. But nobody holds the sockets of a service that is killed then,
//! and node A's kernel ends its connections; one that is frozen or hangs holds them itself. Of a node whose agent can't
//! be asked (it has vanished, `cut`; its agent has failed, too; it is another machine) nobody knows which input its
//! kernel had acknowledged and its service not acted upon; a client that sends may wait for ever then, unless the taker
//! has a [mirror](backdoor_host::mirror) of what passed at the switch. Input that was on its way when the node was cut
//! off is sent again by the client's own timer, 200 ms after it was sent or later; what the mirror saw of it needs not
//! be.

mod chain;
mod client;
mod config;
mod disturbance;
mod failure;
mod heirs;
mod line;
mod network;
mod one_run;
mod report;
mod requests;
mod roles;
mod seen;
mod story;
mod tcp_counts;
mod world;

pub use client::ClientKind;
pub use config::{
    DEADLINES, Elsewhere, FailoverConfig, MAX_HEIRS, MAX_SESSIONS, MAX_TAKERS, RUN_LIMITS, SHORTEST_POLL, TRANSFERS,
};
pub use disturbance::{Accident, Disturbance};
pub use failure::{FailoverFailure, ServiceKind, Victim};
pub use report::{FailoverReport, FailoverRow, median};

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use backdoor_host::net::{Announcer, NetError, NetworkNamespace};
use backdoor_host::tcp::{self, TcpError};
use backdoor_sim::streams::{StreamKey, Streams};

use super::parts::{PartError, check_place_for_sockets};
use crate::interrupt::Interrupt;
use heirs::LONGEST_SOCKET_NAME;

/// Why the experiment ended early. Everything that it made is gone.
#[derive(Debug, thiserror::Error)]
pub enum FailoverError {
    /// A setting that can't be.
    #[error("{0}")]
    Config(String),
    /// The network can't be made; it says which privilege is missing if that is why.
    #[error("the experiment's network can't be made: {0}")]
    Network(#[from] NetError),
    /// Connections can't be carried on.
    #[error(transparent)]
    Privilege(TcpError),
    /// A process did not play its part.
    #[error(transparent)]
    Part(#[from] PartError),
    /// A part said what was not its turn to say.
    #[error("{0}")]
    Unexpected(String),
    /// The client could not be sent off.
    #[error("{0}")]
    Client(String),
    /// A file could not be made or read.
    #[error("a file of the experiment: {0}")]
    Files(#[source] std::io::Error),
    /// Somebody asked to stop.
    #[error("stopped after {} of {runs} runs", report.rows.len())]
    Interrupted {
        /// What was found until then.
        report: Box<FailoverReport>,
        /// All runs.
        runs: u32,
    },
}

/// What this machine or user lacks for any of them, in a sentence; `None` if all can be tried.
pub fn missing() -> Option<String> {
    let config = FailoverConfig::new(ClientKind::Curl, FailoverFailure::Sigstop, PathBuf::new());
    has_means(&config).err().map(|error| error.to_string())
}

/// Whether this machine and user have what the experiment needs: privileges, a place for sockets, the client's program.
///
/// # Errors
/// A sentence about the first of them that is missing.
pub fn has_means(config: &FailoverConfig) -> Result<(), FailoverError> {
    let namespace = NetworkNamespace::new()?;
    namespace.enter(tcp::may_recreate)?.map_err(FailoverError::Privilege)?;
    // What tells neighbours where an address is.
    Announcer::open(&namespace, "lo")?;
    let port = roles::SERVICE.port();
    namespace.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))?.map_err(|error| {
        let why = crate::plain(&error);
        FailoverError::Client(format!(
            "the service can't listen at port {port}: {why}; that takes CAP_NET_BIND_SERVICE"
        ))
    })?;
    check_place_for_sockets(LONGEST_SOCKET_NAME)?;
    if config.client.is_curl() { client::find_curl().map_err(FailoverError::Client) } else { Ok(()) }
}

/// Runs one configuration. `finished` gets each row as soon as there is one. The calling thread starts the processes and
/// must live until this returns.
pub fn run(
    config: &FailoverConfig,
    interrupt: &Interrupt,
    finished: &mut dyn FnMut(&FailoverRow),
) -> Result<FailoverReport, FailoverError> {
    config.check()?;
    has_means(config)?;
    let mut report = FailoverReport { config: config.clone(), rows: Vec::new() };
    for number in 0..config.runs {
        let key =
            StreamKey { seed: config.seed, experiment: "live-failover", point: "", replication: u64::from(number) };
        let row = match interrupt.requested() {
            true => None,
            false => one_run::one_run(config, number, &Streams::new(key), interrupt)?,
        };
        let Some(row) = row else {
            return Err(FailoverError::Interrupted { report: Box::new(report), runs: config.runs });
        };
        finished(&row);
        report.rows.push(row);
    }
    Ok(report)
}
