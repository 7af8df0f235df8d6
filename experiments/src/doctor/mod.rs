//! What this machine can run, and what to do about what it can't.
//!
//! ```text
//!  /sys /proc /dev /lib ── sysfs (bounded, suspicious reading) ──┬─ rdma     devices, ports, GIDs, the library
//!                                                                └─ machine  memory limits, privileges, QEMU
//!  Probes: what has to be tried instead of read                        │
//!                                                                      v
//!                                                   Report ── text (people), serde (machines)
//! ```
//!
//! Nothing here needs an RDMA library, so that the build that lacks one can say what is missing. Everything that is
//! read lies under a root that the caller names, so that a test can build a machine out of files. What the files hold
//! is the kernel's word, but drivers differ and containers mount what they like: a file that is missing, is no text or
//! makes no sense costs one line in the report, never more.

pub mod gid;
mod machine;
mod rdma;
mod sysfs;
pub mod text;

use std::path::PathBuf;

use backdoor_core::Nanos;
use backdoor_core::hook_table::hook_table_words;
use backdoor_core::progress_box::Geometry;
use backdoor_core::words::WORD_BYTES;
use backdoor_host::agent::{AgentConfig, Gauge, default_socket};
use backdoor_host::clock;
use backdoor_transports::shm::SealedMemory;
use serde::Serialize;

use crate::live::wakeups::{WakeupError, Wakeups};

pub use rdma::{Device, Port, PortState};

/// How often a wake-up is tried; as often as a monitor polls by default.
const WAKE_EVERY: Nanos = Nanos::from_millis(1);
/// For how long: short enough to wait for, long enough for a 99% quantile.
const WAKE_FOR: Nanos = Nanos::from_millis(200);
/// A page, to which every registration is rounded up.
const PAGE: u64 = 4096;

/// Whether this program can use RDMA at all.
pub const fn built_with_verbs() -> bool {
    cfg!(feature = "verbs")
}

/// The machine to look at.
#[derive(Clone, Debug)]
pub struct Machine {
    /// `/`, or a directory that looks like it.
    pub root: PathBuf,
    /// Where programs are looked for, under the root.
    pub path: Vec<PathBuf>,
    /// Where libraries are looked for before the usual places, under the root.
    pub library_path: Vec<PathBuf>,
    /// Where an agent would make its socket, under the root.
    pub socket: PathBuf,
    /// Whether the program was built for RDMA.
    pub built_with_verbs: bool,
    /// What was tried.
    pub probes: Probes,
}

/// What no file tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Probes {
    /// Processors that this process may use.
    pub cpus: usize,
    /// Whether memory as large as a default agent's can be had, shared and sealed; or why not.
    pub sealed_memory: Result<(), String>,
    /// How late a sleeping thread was woken.
    pub wakeups: WakeupError,
}

impl Probes {
    /// Tries it; takes about 0.2 s.
    pub fn take() -> Self {
        let words = agent_bytes() as usize / WORD_BYTES;
        let sealed = || SealedMemory::create("backdoor-doctor", words)?.map();
        // In a thread of its own, because timer slack is the thread's and stays changed.
        let wakeups = std::thread::spawn(|| {
            clock::use_exact_timers();
            let mut wakeups = Wakeups::default();
            let start = clock::now();
            let mut due = start + WAKE_EVERY;
            while due < start + WAKE_FOR {
                clock::sleep_until(due);
                let now = clock::now();
                wakeups.record(due, now);
                due = (due + WAKE_EVERY).max(now);
            }
            wakeups.summary()
        });
        Probes {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            sealed_memory: sealed().map(drop).map_err(|error| error.to_string()),
            wakeups: wakeups.join().unwrap_or_default(),
        }
    }
}

impl Machine {
    /// The machine that this program runs on.
    pub fn this_one() -> Self {
        let list = |name| std::env::var_os(name).map(|paths| std::env::split_paths(&paths).collect());
        Machine {
            root: "/".into(),
            path: list("PATH").unwrap_or_default(),
            library_path: list("LD_LIBRARY_PATH").unwrap_or_default(),
            socket: default_socket(),
            built_with_verbs: built_with_verbs(),
            probes: Probes::take(),
        }
    }

    /// Looks at everything.
    pub fn examine(&self) -> Report {
        let system = machine::System::read(&self.root);
        let (rdma, devices) = rdma::examine(self, &system);
        let limits = machine::memory_limits(&system);
        let lacks = |section: &Section| section.findings.iter().any(|finding| finding.mark == Mark::Missing);
        let shared_memory = machine::shared_memory(self);
        let can_run = CanRun { shm: !lacks(&shared_memory), verbs: !lacks(&rdma) && !lacks(&limits) };
        Report {
            kernel: system.kernel.clone(),
            cpus: self.probes.cpus,
            built_with_verbs: self.built_with_verbs,
            can_run,
            devices,
            sections: vec![
                shared_memory,
                rdma,
                limits,
                machine::privileges(&system),
                machine::virtual_machines(self, &system),
            ],
        }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Release of the kernel, if it says one.
    pub kernel: Option<String>,
    /// Processors that this process may use.
    pub cpus: usize,
    /// Whether the program was built for RDMA.
    pub built_with_verbs: bool,
    /// The verdict.
    pub can_run: CanRun,
    /// RDMA devices, in the order of their names.
    pub devices: Vec<Device>,
    /// Findings by subject, for people.
    pub sections: Vec<Section>,
}

/// Which transports can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CanRun {
    /// Memory shared between processes: the minimum.
    pub shm: bool,
    /// RDMA, with an agent of default size.
    pub verbs: bool,
}

/// Findings on one subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Section {
    /// The subject.
    pub name: &'static str,
    /// What it is needed for.
    pub needed_for: &'static str,
    /// In the order in which one would mend them.
    pub findings: Vec<Finding>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it is.
    pub mark: Mark,
    /// What was found, in one sentence.
    pub found: String,
    /// A table that belongs to it, line by line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
    /// The command or the setting that mends it.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// As it should be.
    Ok,
    /// It works, with less than one might expect; or it is only needed for some things.
    Warning,
    /// Without it, what the section is for can't run.
    Missing,
}

impl Finding {
    fn ok(found: impl Into<String>) -> Self {
        Finding { mark: Mark::Ok, found: found.into(), details: Vec::new(), remedy: None }
    }

    fn warning(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Finding { mark: Mark::Warning, found: found.into(), details: Vec::new(), remedy: Some(remedy.into()) }
    }

    fn missing(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Finding { mark: Mark::Missing, found: found.into(), details: Vec::new(), remedy: Some(remedy.into()) }
    }
}

/// Bytes that an agent with default settings registers with a card, in whole pages.
fn agent_bytes() -> u64 {
    let config = AgentConfig::at("");
    let progress = Geometry::new(config.capacity, Gauge::ALL.len()).map_or(0, Geometry::total_words);
    [progress, config.state_words, config.claims, hook_table_words(3)]
        .iter()
        .map(|words| ((words * WORD_BYTES) as u64).next_multiple_of(PAGE))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_agent_registers_a_little_more_than_its_state_boxes() {
        let states = (AgentConfig::at("").state_words * WORD_BYTES) as u64;
        assert!(agent_bytes() > states && agent_bytes() < states + (1 << 20), "{}", agent_bytes());
    }

    #[test]
    fn probes_of_this_machine_give_an_answer() {
        let probes = Probes::take();
        assert!(probes.cpus > 0 && probes.wakeups.count > 0, "{probes:?}");
        assert_eq!(probes.sealed_memory, Ok(()));
    }
}
