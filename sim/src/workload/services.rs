//! Processes and devices that others wait for: what makes one failure look like many.
//!
//! ```text
//!   chain:  request ──> first ──> middle ──> last ──> disk       each waits for the reply of the next
//!   disk:   application's loop, every so many turns ──> disk     the turn goes on when its request completes
//! ```
//!
//! A caller does nothing else while it waits, and says that it is active all the while, for it has a request. So when a
//! process stops, those before it stop one after another: the silence spreads by itself, and comes to the first process
//! first, whose last step is the oldest.

use backdoor_core::Nanos;

use crate::cpu::CpuParams;
use crate::dist::Dist;

/// A chain of processes through which every request passes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chain {
    /// How many, at least 2. Each is an entity at the level of applications, and says that it waits for the next.
    pub processes: usize,
    /// Time from one request to the first process to the next.
    pub request_interval: Dist,
    /// CPU time that each process spends on a request before it passes it on.
    pub work: Dist,
    /// The last process reads from the disk for every request, if there is a disk.
    pub reads_disk: bool,
}

impl Default for Chain {
    /// First, middle and last; a request every 20 ms that takes each 200 µs, and a read from the disk.
    fn default() -> Self {
        Chain {
            processes: 3,
            request_interval: super::exponential(Nanos::from_millis(20)),
            work: super::exponential(Nanos::from_micros(200)),
            reads_disk: true,
        }
    }
}

/// A disk: requests are done one after another, by the device itself. It is an entity at the level of applications, kept
/// by the kernel, whose counter moves when a request comes and when it completes, and which is idle without any.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Disk {
    /// Time that the device takes for a request.
    pub read_time: Dist,
    /// Each application reads after every so many turns of its loop, at least 1, and waits for it.
    pub every: u64,
    /// Time after which whoever got an error asks again.
    pub retry_after: Nanos,
}

impl Default for Disk {
    /// 2 ms for a request, one every 5 turns, errors retried after 5 ms.
    fn default() -> Self {
        let read_time = super::exponential(Nanos::from_millis(2));
        Disk { read_time, every: 5, retry_after: Nanos::from_millis(5) }
    }
}

/// Another node that is told of every commit before the answer goes out: what State Boxes are compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Backup {
    /// Its processors.
    pub cpu: CpuParams,
    /// Always-busy tasks on it.
    pub load: usize,
    /// Bytes of an update; `None`: the whole state.
    pub update_bytes: Option<usize>,
}
