//! Everything but RDMA itself: memory, limits, privileges, virtual machines.

use std::path::Path;

use rustix::fs::Access;

use super::sysfs::{is_plain, shown, text, under, value};
use super::{Finding, Machine, Section, agent_bytes};

/// Wake-ups later than this, at 99%, make the default poll interval of 1 ms a wish.
const LATE_MS: f64 = 1.0;
/// Room beside an agent's regions for the card's own queues, which drivers pin, too.
const QUEUE_BYTES: u64 = 1 << 20;
/// Longest list of modules that is read.
const MAX_MODULE_LIST_BYTES: u64 = 16 << 20;

const CAP_NET_ADMIN: u32 = 12;
const CAP_IPC_LOCK: u32 = 14;
const CAP_SYS_ADMIN: u32 = 21;

/// What several sections want to know.
pub(super) struct System {
    pub(super) kernel: Option<String>,
    pub(super) distribution: Distribution,
    /// Effective capabilities; `None` if the kernel doesn't say.
    capabilities: Option<u64>,
    /// Outside of the first user namespace, capabilities don't lift limits.
    first_user_namespace: bool,
    /// Soft and hard limit of locked memory in bytes.
    memlock: Result<(u64, u64), String>,
}

/// Who packages software here, as far as it changes a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Distribution {
    Debian,
    Fedora,
    Suse,
    Arch,
    Other,
}

impl System {
    pub(super) fn read(root: &Path) -> Self {
        let status = value(&under(root, "proc/self/status")).ok().flatten().unwrap_or_default();
        let capabilities = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        let uid_map = value(&under(root, "proc/self/uid_map")).ok().flatten();
        let whole = |map: String| map.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
        System {
            kernel: value(&under(root, "proc/sys/kernel/osrelease")).ok().flatten().map(|text| shown(&text)),
            distribution: distribution(root),
            capabilities,
            // Without the file, the kernel has no user namespaces.
            first_user_namespace: uid_map.is_none_or(whole),
            memlock: memlock(root),
        }
    }

    fn may(&self, capability: u32) -> bool {
        self.capabilities.is_some_and(|mask| mask >> capability & 1 == 1)
    }
}

impl Distribution {
    /// The command that installs packages, named for Debian, Fedora, SUSE and Arch.
    pub(super) fn install(self, [debian, fedora, suse, arch]: [&str; 4]) -> String {
        match self {
            Distribution::Debian => format!("sudo apt install {debian}"),
            Distribution::Fedora => format!("sudo dnf install {fedora}"),
            Distribution::Suse => format!("sudo zypper install {suse}"),
            Distribution::Arch => format!("sudo pacman -S {arch}"),
            Distribution::Other => format!("install the packages that Debian calls {debian}"),
        }
    }
}

fn distribution(root: &Path) -> Distribution {
    let release = value(&under(root, "etc/os-release")).ok().flatten().unwrap_or_default();
    let ids = release.lines().filter_map(|line| line.strip_prefix("ID=").or(line.strip_prefix("ID_LIKE=")));
    ids.flat_map(|ids| ids.trim_matches('"').split_ascii_whitespace())
        .find_map(|id| match id {
            "debian" | "ubuntu" => Some(Distribution::Debian),
            "fedora" | "rhel" | "centos" => Some(Distribution::Fedora),
            "suse" | "opensuse" | "sles" => Some(Distribution::Suse),
            "arch" => Some(Distribution::Arch),
            _ => None,
        })
        .unwrap_or(Distribution::Other)
}

fn memlock(root: &Path) -> Result<(u64, u64), String> {
    let limits = value(&under(root, "proc/self/limits"))?.ok_or("does not exist")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"));
    let line = line.ok_or("names no limit of locked memory")?;
    let mut numbers = line.split_ascii_whitespace().map(|number| match number {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    });
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(soft), Some(hard)) => Ok((soft, hard)),
        _ => Err(format!("has a limit of locked memory that is no number: {}", shown(line.trim()))),
    }
}

pub(super) fn shared_memory(machine: &Machine) -> Section {
    let probes = &machine.probes;
    let mut findings = vec![match &probes.sealed_memory {
        Ok(()) => Finding::ok(format!("{} of memory can be shared and sealed (memfd)", bytes(agent_bytes()))),
        Err(why) => Finding::missing(
            format!("memory for a default agent can't be shared: {}", shown(why)),
            "free some memory, or raise this container's memory limit",
        ),
    }];
    let directory = machine.socket.parent().unwrap_or(Path::new("/"));
    let allowed = rustix::fs::access(under(&machine.root, directory), Access::WRITE_OK | Access::EXEC_OK);
    findings.push(match allowed {
        Ok(()) => Finding::ok(format!("an agent can make its socket in {}", shown(&directory.to_string_lossy()))),
        Err(errno) => Finding::missing(
            format!(
                "no socket can be made in {}: {}",
                shown(&directory.to_string_lossy()),
                crate::plain(&errno.into())
            ),
            "export XDG_RUNTIME_DIR=$(mktemp -d), or give --socket PATH to every command",
        ),
    });
    let late = &probes.wakeups;
    let found = format!(
        "a thread that sleeps for 1 ms wakes up late by {:.2} ms (half of {} times), {:.2} ms (99%), {:.2} ms (worst)",
        late.median_ms, late.count, late.p99_ms, late.max_ms
    );
    findings.push(if late.p99_ms <= LATE_MS {
        Finding::ok(found)
    } else {
        Finding::warning(found, "stop what else runs here, or choose deadlines well above this")
    });
    findings.push(match probes.cpus {
        1 => Finding::warning(
            "1 processor: the monitor competes with what it watches",
            "give this machine a second processor before you measure",
        ),
        cpus => Finding::ok(format!("{cpus} processors")),
    });
    Section { name: "Shared memory", needed_for: "the default transport; the minimum", findings }
}

pub(super) fn memory_limits(system: &System) -> Section {
    let need = agent_bytes() + QUEUE_BYTES;
    let lifted = system.may(CAP_IPC_LOCK) && system.first_user_namespace;
    let wants = format!("an agent with default settings pins {} and its queues", bytes(agent_bytes()));
    let finding = match &system.memlock {
        _ if lifted => Finding::ok(format!("locked memory is not limited for this user (CAP_IPC_LOCK); {wants}")),
        Ok((soft, _)) if *soft >= need => Finding::ok(format!("{} of locked memory; {wants}", bytes(*soft))),
        Ok((soft, hard)) if *hard >= need => Finding::missing(
            format!("only {} of locked memory; {wants}", bytes(*soft)),
            // In KiB for the shell; to twice the need, for a larger arena.
            format!("ulimit -l {}", (need * 2).min(*hard) / 1024),
        ),
        Ok((soft, _)) => Finding::missing(
            format!("only {} of locked memory; {wants}", bytes(*soft)),
            "add `USER - memlock unlimited` to /etc/security/limits.conf; log in anew; \
             for a service: LimitMEMLOCK=infinity; for a container: --ulimit memlock=-1",
        ),
        Err(why) => Finding::warning(format!("/proc/self/limits {why}; {wants}"), "ulimit -l"),
    };
    let mut findings = vec![finding];
    if system.may(CAP_IPC_LOCK) && !system.first_user_namespace {
        findings.push(Finding::warning(
            "CAP_IPC_LOCK does not lift the limit in a user namespace",
            "raise the limit outside of the container: --ulimit memlock=-1",
        ));
    }
    Section { name: "Memory limits", needed_for: "--transport verbs", findings }
}

pub(super) fn privileges(system: &System) -> Section {
    let lacking: Vec<_> = [(CAP_NET_ADMIN, "CAP_NET_ADMIN"), (CAP_SYS_ADMIN, "CAP_SYS_ADMIN")]
        .into_iter()
        .filter(|(capability, _)| !system.may(*capability))
        .map(|(_, name)| name)
        .collect();
    let finding = match (system.capabilities, lacking.as_slice()) {
        (None, _) => Finding::warning("this process's capabilities can't be read", "grep Cap /proc/self/status"),
        (_, []) => Finding::ok("network namespaces can be made (CAP_NET_ADMIN, CAP_SYS_ADMIN)"),
        (_, lacking) => Finding::warning(
            format!("network namespaces can't be made: no {}", lacking.join(", no ")),
            "run what needs them under sudo",
        ),
    };
    let mut findings = vec![finding];
    if !system.first_user_namespace {
        findings.push(Finding::warning(
            "connections can't be made anew in a user namespace: CAP_NET_ADMIN gives no large buffers there",
            "run live failover outside of the container, or in one that has the machine's users",
        ));
    }
    Section { name: "Privileges", needed_for: "experiments with networks of their own", findings }
}

pub(super) fn virtual_machines(machine: &Machine, system: &System) -> Section {
    let packages = [
        ("qemu-system-x86_64", ["qemu-system-x86", "qemu-system-x86", "qemu-x86", "qemu-system-x86"]),
        ("busybox", ["busybox-static", "busybox", "busybox-static", "busybox"]),
        ("cpio", ["cpio"; 4]),
    ];
    let (found, lacking): (Vec<_>, Vec<_>) = packages.iter().partition(|(program, _)| on_path(machine, program));
    let names = |list: &[&(&str, _)]| list.iter().map(|(program, _)| *program).collect::<Vec<_>>().join(", ");
    let mut findings = Vec::new();
    if !found.is_empty() {
        findings.push(Finding::ok(names(&found)));
    }
    if !lacking.is_empty() {
        let all = [0, 1, 2, 3].map(|at| lacking.iter().map(|(_, names)| names[at]).collect::<Vec<_>>().join(" "));
        findings.push(Finding::missing(
            format!("not installed: {}", names(&lacking)),
            system.distribution.install(all.each_ref().map(String::as_str)),
        ));
    }
    findings.push(soft_roce(machine, system));
    Section { name: "Virtual machines", needed_for: "trying RDMA without hardware: transports/soft-roce/run", findings }
}

/// Whether the running kernel has the software RDMA device. Guests bring their own, so that is never missing.
fn soft_roce(machine: &Machine, system: &System) -> Finding {
    if under(&machine.root, "sys/module/rdma_rxe").is_dir() {
        return Finding::ok("this kernel has Soft-RoCE (rdma_rxe), loaded");
    }
    match &system.kernel {
        Some(release) if has_module(&machine.root, release, "rdma_rxe") => {
            Finding::ok("this kernel has Soft-RoCE (rdma_rxe), not loaded")
        }
        _ => Finding::ok("this kernel has no Soft-RoCE (rdma_rxe); the virtual machines bring a kernel that has"),
    }
}

/// Whether a module can be loaded into the kernel, or is part of it.
pub(super) fn has_module(root: &Path, release: &str, module: &str) -> bool {
    if !is_plain(release) {
        return false;
    }
    let file = format!("/{module}.ko");
    ["modules.dep", "modules.builtin"].iter().any(|list| {
        let path = under(root, "lib/modules").join(release).join(list);
        let modules = text(&path, MAX_MODULE_LIST_BYTES).ok().flatten().unwrap_or_default();
        modules.lines().any(|line| {
            let path = line.split(':').next().unwrap_or_default();
            path.rsplit_once(&file).is_some_and(|(_, end)| ["", ".gz", ".xz", ".zst"].contains(&end.trim()))
        })
    })
}

fn on_path(machine: &Machine, program: &str) -> bool {
    machine.path.iter().any(|directory| {
        let file = under(&machine.root, directory).join(program);
        file.is_file() && rustix::fs::access(&file, Access::EXEC_OK).is_ok()
    })
}

fn bytes(bytes: u64) -> String {
    match bytes {
        u64::MAX => "an unlimited amount".into(),
        0..1024 => format!("{bytes} bytes"),
        1024..0x10_0000 => format!("{:.0} KiB", bytes as f64 / 1024.0),
        0x10_0000..0x4000_0000 => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}
