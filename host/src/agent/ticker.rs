//! The counters of the operating system: threads that do nothing but show that they are scheduled.
//!
//! One is pinned to each CPU and tells that this CPU still runs threads; one may migrate and tells that any does. A
//! single hung CPU freezes its own counter while the migrating one goes on.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use backdoor_core::Nanos;
use backdoor_core::progress_box::Counter;
use backdoor_transports::shm::SharedWord;
use rustix::thread::CpuSet;

use crate::clock;

/// The CPUs that this process may run on.
pub(super) fn cpus() -> io::Result<Vec<usize>> {
    let allowed = rustix::thread::sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect())
}

/// Starts a thread that advances `counter` every `period` until `stop`, and then lets it depart.
///
/// Answers when the thread is pinned: a counter that says "CPU 3" and runs elsewhere would be a lie.
pub(super) fn start(
    mut counter: Counter<SharedWord>,
    cpu: Option<usize>,
    period: Nanos,
    stop: Arc<AtomicBool>,
) -> io::Result<JoinHandle<()>> {
    let (report, pinned) = mpsc::sync_channel(1);
    let name = cpu.map_or("tick-os".into(), |cpu| format!("tick-cpu{cpu}"));
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        let result = cpu.map_or(Ok(()), pin);
        let failed = result.is_err();
        if report.send(result).is_err() || failed {
            return;
        }
        clock::use_exact_timers();
        let mut next = clock::now();
        while !stop.load(Ordering::Relaxed) {
            counter.advance();
            // Ticks that were missed are gone: making up for them would look like progress that did not happen.
            next = (next + period).max(clock::now());
            clock::sleep_until(next);
        }
        counter.depart();
    })?;
    match pinned.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(errno)) => Err(errno.into()),
        Err(_) => Err(io::Error::other("the thread ended at once")),
    }
}

fn pin(cpu: usize) -> Result<(), rustix::io::Errno> {
    let mut only = CpuSet::new();
    only.set(cpu);
    rustix::thread::sched_setaffinity(None, &only)
}
