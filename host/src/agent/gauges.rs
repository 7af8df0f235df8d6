//! The paper's statistics of interest, as far as Linux tells them without asking too much.

use std::fs;

use backdoor_core::Nanos;

/// A gauge of the Progress Box and its index there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(usize)]
pub enum Gauge {
    /// When the gauges were last updated: `CLOCK_MONOTONIC` in nanoseconds.
    UpdatedNs = 0,
    /// Context switches since the machine started.
    ContextSwitches = 1,
    /// Tasks that run or could.
    RunnableTasks = 2,
    /// Tasks that wait for a disk.
    BlockedTasks = 3,
    /// Load average over one minute, in thousandths.
    LoadAverageMilli = 4,
    /// Memory that nobody uses, in bytes.
    FreeMemoryBytes = 5,
    /// Memory that could be had without swapping, in bytes.
    AvailableMemoryBytes = 6,
    /// Sessions in the Progress Box, orphans among them.
    Sessions = 7,
    /// Applications and sessions that nobody serves and that are kept for recovery.
    Orphans = 8,
    /// Words for State Boxes that are free.
    FreeStateWords = 9,
}

impl Gauge {
    /// All gauges, in the order of their indices.
    pub const ALL: [Gauge; 10] = [
        Gauge::UpdatedNs,
        Gauge::ContextSwitches,
        Gauge::RunnableTasks,
        Gauge::BlockedTasks,
        Gauge::LoadAverageMilli,
        Gauge::FreeMemoryBytes,
        Gauge::AvailableMemoryBytes,
        Gauge::Sessions,
        Gauge::Orphans,
        Gauge::FreeStateWords,
    ];

    /// Index in the Progress Box's gauges.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name shown to people, with its unit.
    pub const fn name(self) -> &'static str {
        match self {
            Gauge::UpdatedNs => "updated_ns",
            Gauge::ContextSwitches => "context_switches",
            Gauge::RunnableTasks => "runnable_tasks",
            Gauge::BlockedTasks => "blocked_tasks",
            Gauge::LoadAverageMilli => "load_average_milli",
            Gauge::FreeMemoryBytes => "free_memory_bytes",
            Gauge::AvailableMemoryBytes => "available_memory_bytes",
            Gauge::Sessions => "sessions",
            Gauge::Orphans => "orphans",
            Gauge::FreeStateWords => "free_state_words",
        }
    }
}

/// Room for these gauges in an agent's Progress Box, some of it for gauges to come. Those of queues come behind.
pub(super) const GAUGE_SLOTS: usize = 16;

const _: () = assert!(Gauge::ALL.len() <= GAUGE_SLOTS);

/// Reads what the system tells and hands each value on. What can't be read is left as it was.
pub(super) fn sample(now: Nanos, mut set: impl FnMut(Gauge, u64)) {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let stat = read("/proc/stat");
    let memory = read("/proc/meminfo");
    let values = [
        (Gauge::ContextSwitches, field(&stat, "ctxt")),
        (Gauge::RunnableTasks, field(&stat, "procs_running")),
        (Gauge::BlockedTasks, field(&stat, "procs_blocked")),
        (Gauge::LoadAverageMilli, load_average_milli(&read("/proc/loadavg"))),
        (Gauge::FreeMemoryBytes, field(&memory, "MemFree:").map(|kib| kib.saturating_mul(1024))),
        (Gauge::AvailableMemoryBytes, field(&memory, "MemAvailable:").map(|kib| kib.saturating_mul(1024))),
        (Gauge::UpdatedNs, Some(now.0)),
    ];
    for (gauge, value) in values {
        if let Some(value) = value {
            set(gauge, value);
        }
    }
}

/// The number after `key` at the start of a line.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok())
}

fn load_average_milli(text: &str) -> Option<u64> {
    let load: f64 = text.split_whitespace().next()?.parse().ok()?;
    Some((load * 1000.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_the_order() {
        for (index, gauge) in Gauge::ALL.into_iter().enumerate() {
            assert_eq!(gauge.index(), index, "{}", gauge.name());
        }
    }

    #[test]
    fn the_texts_of_proc_are_read() {
        let stat = "cpu  1 2 3\nctxt 123456\nbtime 1\nprocesses 9\nprocs_running 3\nprocs_blocked 0\n";
        assert_eq!(field(stat, "ctxt"), Some(123_456));
        assert_eq!(field(stat, "procs_running"), Some(3));
        assert_eq!(field(stat, "nothing"), None);
        assert_eq!(field("MemFree:       12 kB\n", "MemFree:"), Some(12));
        assert_eq!(load_average_milli("0.57 0.64 0.3 1/86 123\n"), Some(570));
        assert_eq!(load_average_milli(""), None);
    }

    #[test]
    fn this_machine_tells_something() {
        let mut seen = Vec::new();
        sample(Nanos(5), |gauge, value| seen.push((gauge, value)));
        assert!(seen.contains(&(Gauge::UpdatedNs, 5)));
        assert!(seen.iter().any(|(gauge, value)| *gauge == Gauge::ContextSwitches && *value > 0));
    }
}
