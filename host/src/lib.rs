//! The operating-system side of a monitored node.
//!
//! ```text
//!      service process                agent process (`backdoor node`)            monitor process
//!   ┌───────────────────┐          ┌──────────────────────────────────┐       ┌───────────────────┐
//!   │ app::Node ────────┼─ socket ─┤ agent::Agent                     ├ socket┼─ attach::attach   │
//!   │  App, Session     │          │  one ticking thread per CPU      │       │   ShmTransport    │
//!   └──────┬────────────┘          └───────┬────────────────┬─────────┘       └─────────┬─────────┘
//!          │ stores: progress, commits     │ TCP, key       │ makes, formats, keeps     │ READ, compare-and-swap
//!          v                               │                v                           v
//!   ═══════ shared memory:  hook table │ Progress Box │ State Boxes │ claim words ═══════════════════
//!                                          │                ^
//!   ───────── another machine ─────────────┼────────────────┼─────────────────────────────────────────
//!                                          │                │ READ, compare-and-swap, by the network cards
//!                                   ┌──────┴────────────────┴─────────┐
//!                                   │ attach::attach    VerbsTransport│  monitor process
//!                                   └─────────────────────────────────┘
//! ```
//!
//! * The **[agent]** owns the memory, so that it outlives any service. It adds the operating system's own counters and
//!   gauges, and gives services and their sessions their places. Of sockets that services
//!   [let it watch](app::Session::watch_queue) it tells how much waits in each: who says it is idle meanwhile is suspected.
//!   When a service dies, what it left stays for recovery.
//! * The **[app]** library is what a service links: registered once, it reports progress and commits state with plain
//!   stores, and never waits for the agent or a monitor.
//! * A monitor that **[attaches](attach)** gets a transport and from then on reads without anybody's help. On the same
//!   machine that is a [`ShmTransport`](backdoor_transports::shm::ShmTransport), and page protection sees to it that it
//!   can write claim words and nothing else, and that a service can't write those.
//! * With the feature `verbs`, it may be on another machine: the agent registers the same memory with a network card,
//!   which keeps the same rights, and the monitor gets a `VerbsTransport`. How they meet, and what the key between them
//!   protects, is in `remote`.
//! * [Serving](serve) a client so that another node, or another process of this one, can carry the connection on: by
//!   the kernel's [repair mode](tcp), or over the same socket once the old [process] has ended.
//! * What moving a connection to another node does to the [network](net): links are cut, addresses move, neighbours are
//!   told.
//! * A [mirror] of what passes between clients and a node tells what its sockets held when nobody can ask it any more.
//! * The **[protocol]** is what they say to each other over the socket, and [`clock`] is the time they share.
//!
//! Everybody who may connect to the socket is the same user: processes are kept from each other's mistakes here, not
//! from each other's malice. A service could damage another's State Box; readers check everything and notice.
//!
//! ```
//! use backdoor_core::Nanos;
//! use backdoor_core::transport::*;
//! use backdoor_host::agent::{Agent, AgentConfig};
//! use backdoor_host::app::Node;
//! use backdoor_host::attach::attach_local;
//!
//! let directory = tempfile::tempdir()?;
//! let socket = directory.path().join("node.sock");
//! let agent = Agent::start(AgentConfig::at(&socket))?;
//!
//! // The service:
//! let node = Node::connect(&socket)?;
//! let mut app = node.register("kv", Nanos::from_secs(1))?;
//! app.progress().advance();
//! let mut session = app.open_session("client 7", Nanos::from_millis(50), 1024)?;
//! session.progress();
//! session.commit(b"balance = 7")?;
//! session.idle();
//!
//! // The monitor:
//! let (mut transport, link) = attach_local(&socket)?.into_parts();
//! let words = link.hook_table_words();
//! let from = RemoteSlice { key: link.hook_table(), offset: 0, words: words as u64 };
//! let into = LocalSlice::start_of(transport.allocate(words)?);
//! transport.post(&[WorkRequest { id: WorkId(1), operation: Operation::Read { from, into } }])?;
//! let mut completions = Vec::new();
//! transport.poll(&mut completions);
//! let table = backdoor_core::hook_table::HookTable::read(transport.buffer(into.buffer)?)?;
//! assert_eq!(table.incarnation, agent.incarnation());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(unsafe_code)]
#![warn(missing_docs)]

#[cfg(not(target_os = "linux"))]
compile_error!("the host side needs Linux: memfd, file sealing, SOCK_SEQPACKET, /proc");

pub mod agent;
pub mod app;
pub mod attach;
pub mod clock;
#[allow(unsafe_code)]
mod input_ring;
pub mod mirror;
pub mod net;
pub mod process;
pub mod protocol;
mod regions;
#[cfg(feature = "verbs")]
pub mod remote;
pub mod serve;
#[allow(unsafe_code)]
mod socket_option;
pub mod tcp;
pub mod wire;
