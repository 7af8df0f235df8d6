//! The saboteur: makes a machine fail, or its network, when it is told to.
//!
//! It looks beforehand whether it can, so that the word is followed by the deed at once. A link is brought up again by
//! itself: after the time it was given, or when whoever started it closes its standard input, be it by dying.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, Write};
use std::net::IpAddr;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use backdoor_host::clock;
use serde::{Deserialize, Serialize};

use super::link::Link;
use crate::config::Span;

/// Where the kernel takes orders that are otherwise given on a keyboard.
const SYSRQ: &str = "/proc/sysrq-trigger";

/// What it does to its machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum NodeFault {
    /// The kernel crashes. Nothing is written to disk before.
    KernelCrash,
    /// A network interface goes down.
    LinkDown {
        /// An address that it has.
        address: IpAddr,
        /// How long.
        down_for: Span,
    },
}

impl NodeFault {
    /// Makes it a fault of the machine that has this address.
    pub(in crate::live) fn happens_at(&mut self, local: IpAddr) {
        match self {
            NodeFault::KernelCrash => {}
            NodeFault::LinkDown { address, .. } => *address = local,
        }
    }
}

/// What it is told: to do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Sabotage {
    /// Now.
    Strike,
}

/// What it tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum SaboteurReport {
    /// It can do it.
    Ready,
    /// It can't.
    Cannot {
        /// Why not.
        why: String,
    },
    /// It has done it. Nobody may be able to hear that.
    Done {
        /// Right before, in monotonic nanoseconds.
        before_ns: u64,
        /// Right after.
        after_ns: u64,
    },
}

/// What stands ready.
enum Weapon {
    SysRq(File),
    Link(Link, Span),
}

impl Weapon {
    fn ready(fault: &NodeFault) -> Result<Self, String> {
        match fault {
            NodeFault::KernelCrash => OpenOptions::new().write(true).open(SYSRQ).map(Weapon::SysRq).map_err(|error| {
                format!("can't crash the kernel (needs root and magic SysRq): {}", crate::plain(&error))
            }),
            NodeFault::LinkDown { address, down_for } => Ok(Weapon::Link(Link::with(*address)?, *down_for)),
        }
    }
}

pub(super) fn play(fault: &NodeFault) -> Result<(), Box<dyn Error>> {
    let orders = orders();
    let weapon = match Weapon::ready(fault) {
        Ok(weapon) => weapon,
        Err(why) => return Ok(super::tell(&SaboteurReport::Cannot { why })?),
    };
    super::tell(&SaboteurReport::Ready)?;
    let Ok(Sabotage::Strike) = orders.recv() else { return Ok(()) };
    match weapon {
        Weapon::SysRq(mut sysrq) => {
            sysrq.write_all(b"c")?;
            Err("the kernel has not crashed".into())
        }
        Weapon::Link(link, down_for) => {
            let before_ns = clock::now().0;
            link.set_up(false)?;
            // A parent that has died can't be told, and the link must come up all the same.
            let _ = super::tell(&SaboteurReport::Done { before_ns, after_ns: clock::now().0 });
            let _ = orders.recv_timeout(Duration::from_nanos(down_for.0.0));
            link.set_up(true)?;
            Ok(())
        }
    }
}

/// Orders, until the parent closes the pipe.
fn orders() -> Receiver<Sabotage> {
    let (sender, orders) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Some(order) = line.ok().and_then(|line| serde_json::from_str(&line).ok()) else { break };
            if sender.send(order).is_err() {
                break;
            }
        }
    });
    orders
}
