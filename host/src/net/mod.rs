//! What carrying a TCP connection to another node needs of the network: namespaces to try it in, links to cut, addresses
//! to move, and the announcement that an address is somewhere else now.
//!
//! ```text
//!   ┌ client ┐       ┌ node A ┐       ┌ node B ┐         each a NetworkNamespace
//!   │  eth0  │       │  eth0  │       │  eth0  │ <────── Links: the service's address moves here from A;
//!   └───┬────┘       └───┬────┘       └───┬────┘         Announcer: and the client hears of it
//!       │ veth           │ veth           │ veth
//!   ┌───┴─ client ───────┴─ a ────────────┴─ b ────┐
//!   │                   bridge                     │     a fourth one, the switch; `set_down("a")` there is the fence:
//!   └──────────────────────────────────────────────┘     whatever node A still sends goes nowhere
//! ```
//!
//! * A [`NetworkNamespace`] has links, addresses, neighbours and sockets of its own, and whatever is begun inside is part
//!   of it. It has no name, so nothing is left behind by whoever crashes.
//! * [`Links`] changes them by rtnetlink. Each call returns when the kernel has confirmed the change.
//! * An [`Announcer`] makes the neighbours send to this link what they have for an address, by gratuitous ARP.
//! * A [`Prober`] hears whether somebody else has an address.
//!
//! Everything is a system call: a process such as `ip` takes longer than all the rest of a takeover.
//!
//! ```no_run
//! use std::net::Ipv4Addr;
//! use backdoor_host::net::{Announcer, Links, NetworkNamespace};
//!
//! let service = Ipv4Addr::new(10, 77, 0, 100);
//! let (switch, node_b) = (NetworkNamespace::new()?, NetworkNamespace::new()?);
//! let (mut ports, mut links) = (Links::of(&switch)?, Links::of(&node_b)?);
//! // ... a bridge, node A and node B, as drawn. Beforehand:
//! let announcer = Announcer::open(&node_b, "eth0")?;
//! // Node A failed:
//! ports.set_down("a")?;
//! links.add_address("eth0", service, 32)?;
//! announcer.announce(service)?;
//! # Ok::<(), backdoor_host::net::NetError>(())
//! ```

mod announcer;
mod arp;
mod capture;
mod error;
mod links;
mod namespace;
mod packet_socket;
mod prober;
mod route_socket;
#[allow(unsafe_code)]
mod system;

pub use announcer::Announcer;
pub(crate) use capture::{Capture, Captured};
pub use error::{Cause, NetError};
pub use links::{HardwareAddress, Links};
pub use namespace::NetworkNamespace;
pub use prober::Prober;
