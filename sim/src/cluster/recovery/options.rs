//! What fails, what is done about it, and the times that no model gives.

use backdoor_core::Nanos;
use backdoor_core::progress_box::FailureLevel;
use backdoor_core::recovery::ExtractionConfig;
use backdoor_core::takeover::TakeoverConfig;
use serde::Deserialize;

use crate::cpu::CpuParams;
use crate::dist::Dist;

/// What is done about a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Remedy {
    /// The sessions are carried on elsewhere, with the state of their State Boxes.
    #[default]
    Takeover,
    /// A backup that was told of every change, before its answer, becomes the primary.
    Failover,
    /// The service is started again, without any state: on the node, or, if the operating system has failed, on another.
    Restart,
    /// The node is started again, and the service on it, without any state.
    Reboot,
}

impl Remedy {
    /// All of them.
    pub const ALL: [Remedy; 4] = [Remedy::Takeover, Remedy::Failover, Remedy::Restart, Remedy::Reboot];

    /// As configurations write it.
    pub const fn name(self) -> &'static str {
        match self {
            Remedy::Takeover => "takeover",
            Remedy::Failover => "failover",
            Remedy::Restart => "restart",
            Remedy::Reboot => "reboot",
        }
    }
}

/// What fails, and how it is recovered.
#[derive(Clone, Debug, PartialEq)]
pub struct RecoveryOptions {
    /// Level of the failure.
    pub level: FailureLevel,
    /// What is done about it.
    pub remedy: Remedy,
    /// When it strikes, from the start of the run.
    pub fail_at: Nanos,
    /// How the State Boxes are read, each time that the takeover asks for it. It asks again by itself.
    pub extraction: ExtractionConfig,
    /// How patient taker and target are.
    pub takeover: TakeoverConfig,
    /// From asking for a fence to its confirmation.
    pub fence: Dist,
    /// Whether the fence of a takeover cuts off the node, as a switch's port does, so that all of its sessions are taken
    /// over, whichever failed. Otherwise it cuts off those that failed. For other remedies it makes no difference.
    pub whole_node: bool,
    /// What the failed node's agent takes to tell what its kernel holds of one session's connection. It tells of one session
    /// after another, before their State Boxes are read; of a node whose operating system has failed nobody can be asked.
    pub telling: Nanos,
    /// Nodes that sessions are taken over to; they are spread over these. At least one.
    pub targets: usize,
    /// Processors of each of them.
    pub target_cpu: CpuParams,
    /// Always-busy tasks on each.
    pub target_load: usize,
    /// CPU time to reinstate a session, whatever its size.
    pub reinstate_work: Nanos,
    /// CPU time that each KiB of its state adds.
    pub reinstate_work_per_kib: Nanos,
    /// CPU time to make a session's backup its primary, which has state and connection ready.
    pub promote_work: Nanos,
    /// CPU time from the start of the service's process until clients can come.
    pub service_start: Nanos,
    /// From the order to reboot until the service's process starts.
    pub boot: Nanos,
    /// How long after the fault the run ends, recovered or not.
    pub give_up_after: Nanos,
}

impl Default for RecoveryOptions {
    /// An application fails after 2 s and is taken over; an idle target of two cores; 10 s until the end. What is
    /// assumed, and on what ground:
    ///
    /// * a fence in 1 ms: a rule of a switch or a host's filter, asked for over the network. Cutting the power takes seconds;
    /// * 65 µs to tell what a connection holds, and 400 µs + 2 µs/KiB to reinstate a session: what `backdoor live failover`
    ///   takes on a virtual machine of two processors with 100 sessions and more. Most of the latter is a thread for the
    ///   session and its connection in the kernel;
    /// * 50 µs to promote a backup: it has a connection rebuilt and silent, and lets it speak. To rebuild one by
    ///   `TCP_REPAIR` took 55 to 95 µs on a small virtual machine, most of which the backup has done beforehand;
    /// * 10 ms to start a service: a small native program. Managed runtimes and warm caches take seconds;
    /// * 5.7 s to boot: a virtual machine of two processors with a kernel and a RAM disk and nothing else, which
    ///   `transports/soft-roce/run` measures. Firmware and services of a server make it minutes.
    fn default() -> Self {
        RecoveryOptions {
            level: FailureLevel::Application,
            remedy: Remedy::Takeover,
            fail_at: Nanos::from_secs(2),
            extraction: ExtractionConfig { attempts: 1, ..ExtractionConfig::default() },
            takeover: TakeoverConfig::default(),
            fence: Dist::constant(Nanos::from_millis(1)),
            whole_node: false,
            targets: 1,
            target_cpu: CpuParams::default(),
            target_load: 0,
            telling: Nanos::from_micros(65),
            reinstate_work: Nanos::from_micros(400),
            reinstate_work_per_kib: Nanos::from_micros(2),
            promote_work: Nanos::from_micros(50),
            service_start: Nanos::from_millis(10),
            boot: Nanos::from_millis(5_700),
            give_up_after: Nanos::from_secs(10),
        }
    }
}

impl RecoveryOptions {
    /// CPU time to reinstate a session with `bytes` bytes of state.
    pub fn reinstatement(&self, bytes: u64) -> Nanos {
        self.reinstate_work + self.reinstate_work_per_kib * bytes / 1024
    }
}
