//! `backdoor doctor` on machines made of files: with and without RDMA devices, well and badly set up, and with files
//! that hold nonsense.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backdoor_experiments::doctor::gid::LinkLayer;
use backdoor_experiments::doctor::{Finding, Machine, Mark, Probes, Report};
use backdoor_experiments::live::wakeups::WakeupError;

const MIB: u64 = 1 << 20;

/// A directory that looks like the root of a machine.
struct Fake(tempfile::TempDir);

impl Fake {
    /// Everything RDMA needs but a device.
    fn new() -> Self {
        let fake = Fake(tempfile::tempdir().unwrap());
        fake.put("tmp/.keep", "");
        fake.put("proc/sys/kernel/osrelease", "6.1.0-44-amd64\n");
        fake.put("proc/self/uid_map", "         0          0 4294967295\n");
        fake.put("etc/os-release", "PRETTY_NAME=\"Debian\"\nID=debian\n");
        fake.put("usr/lib/x86_64-linux-gnu/libibverbs.so.1", "");
        fake.put("usr/lib/x86_64-linux-gnu/libibverbs/libmlx5-rdmav34.so", "");
        fake.put("usr/lib/x86_64-linux-gnu/libibverbs/librxe-rdmav34.so", "");
        fake.limits(64 * MIB, 64 * MIB, 0);
        fake
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), content).unwrap();
    }

    fn limits(&self, soft: u64, hard: u64, capabilities: u64) {
        let header = "Limit                     Soft Limit           Hard Limit           Units     \n";
        let other = "Max cpu time              unlimited            unlimited            seconds   \n";
        let line = format!("Max locked memory         {soft:<20} {hard:<20} bytes     \n");
        self.put("proc/self/limits", format!("{header}{other}{line}"));
        self.put("proc/self/status", format!("Name:\tdoctor\nCapInh:\t0\nCapEff:\t{capabilities:016x}\n"));
    }

    /// A device with one port; its files are those of `sysfs-class-infiniband`.
    fn device(&self, name: &str, link_layer: &str, state: &str, gids: &[(&str, &str, &str)]) {
        let device = format!("sys/class/infiniband/{name}");
        self.put(&format!("{device}/fw_ver"), "16.35.2000\n");
        self.put(&format!("{device}/board_id"), "MT_0000000012\n");
        self.put(&format!("{device}/node_guid"), "0c42:a103:0065:7a0e\n");
        let port = format!("{device}/ports/1");
        self.put(&format!("{port}/state"), format!("{state}\n"));
        self.put(&format!("{port}/phys_state"), "5: LinkUp\n");
        self.put(&format!("{port}/link_layer"), format!("{link_layer}\n"));
        self.put(&format!("{port}/rate"), "100 Gb/sec (4X EDR)\n");
        self.put(&format!("{port}/lid"), "0x0\n");
        for (index, (gid, kind, netdev)) in gids.iter().enumerate() {
            self.put(&format!("{port}/gids/{index}"), format!("{gid}\n"));
            if !kind.is_empty() {
                self.put(&format!("{port}/gid_attrs/types/{index}"), format!("{kind}\n"));
            }
            if !netdev.is_empty() {
                self.put(&format!("{port}/gid_attrs/ndevs/{index}"), format!("{netdev}\n"));
            }
        }
        self.put("sys/class/infiniband_verbs/uverbs0/ibdev", format!("{name}\n"));
        self.put("dev/infiniband/uverbs0", "");
    }

    /// A card on Ethernet, as one finds it: two types for each of two addresses, and places that are not in use.
    fn mlx5(&self) {
        let link_local = "fe80:0000:0000:0000:0e42:a1ff:fe65:7a0e";
        let mapped = "0000:0000:0000:0000:0000:ffff:0a00:0005";
        let unused = "0000:0000:0000:0000:0000:0000:0000:0000";
        self.device(
            "mlx5_0",
            "Ethernet",
            "4: ACTIVE",
            &[
                (link_local, "IB/RoCE v1", "ens1f0"),
                (link_local, "RoCE v2", "ens1f0"),
                (mapped, "IB/RoCE v1", "ens1f0"),
                (mapped, "RoCE v2", "ens1f0"),
                (unused, "", ""),
            ],
        );
    }

    fn machine(&self) -> Machine {
        Machine {
            root: self.0.path().into(),
            path: vec!["/usr/bin".into()],
            library_path: Vec::new(),
            socket: "/tmp/backdoor.sock".into(),
            built_with_verbs: true,
            probes: Probes {
                cpus: 4,
                sealed_memory: Ok(()),
                wakeups: WakeupError { count: 200, median_ms: 0.05, p99_ms: 0.1, max_ms: 0.3 },
            },
        }
    }

    fn examine(&self) -> Report {
        self.machine().examine()
    }
}

/// The findings of a section that are not as they should be.
fn troubles<'a>(report: &'a Report, section: &str) -> Vec<&'a Finding> {
    let section = report.sections.iter().find(|one| one.name == section).expect("there is such a section");
    section.findings.iter().filter(|finding| finding.mark != Mark::Ok).collect()
}

#[track_caller]
fn only<'a>(findings: &[&'a Finding]) -> &'a Finding {
    assert_eq!(findings.len(), 1, "{findings:#?}");
    findings[0]
}

fn remedy(finding: &Finding) -> &str {
    finding.remedy.as_deref().expect("whatever is wrong, there is something to do")
}

#[test]
fn a_card_on_ethernet_is_used_by_its_ipv4_address_in_roce_v2() {
    let fake = Fake::new();
    fake.mlx5();
    let report = fake.examine();
    assert!(report.can_run.shm && report.can_run.verbs, "{}", report.to_text(false));
    let port = &report.devices[0].ports[0];
    assert_eq!((port.link_layer, port.gids.len(), port.chosen_gid), (Some(LinkLayer::Ethernet), 4, Some(3)));
    let text = report.to_text(false);
    assert!(text.contains("uses GID 3:"), "{text}");
    assert!(text.contains("->  3  RoCE v2     ::ffff:10.0.0.5"), "{text}");
    assert!(text.contains("mlx5_0: firmware 16.35.2000, board MT_0000000012"), "{text}");
}

#[test]
fn without_a_device_memory_is_still_shared() {
    let fake = Fake::new();
    let report = fake.examine();
    assert!(report.can_run.shm && !report.can_run.verbs && report.devices.is_empty());
    let none = only(&troubles(&report, "RDMA"));
    assert!(none.found.contains("no software one"), "{none:?}");

    // With the module at hand, there is a command to try.
    fake.put("lib/modules/6.1.0-44-amd64/modules.dep", "kernel/drivers/infiniband/sw/rxe/rdma_rxe.ko.xz: a.ko b.ko\n");
    fake.put("sys/class/net/lo/operstate", "unknown\n");
    fake.put("sys/class/net/eth1/operstate", "up\n");
    let report = fake.examine();
    let none = only(&troubles(&report, "RDMA"));
    assert_eq!(remedy(none), "for trials: sudo modprobe rdma_rxe; sudo rdma link add rxe0 type rxe netdev eth1");
}

#[test]
fn a_port_that_is_down_is_named_with_its_network_device() {
    let fake = Fake::new();
    fake.device("rxe0", "Ethernet", "1: DOWN", &[("fe80:0000:0000:0000:0000:0000:0000:0001", "RoCE v2", "d0")]);
    fake.put("sys/class/infiniband/rxe0/ports/1/phys_state", "3: Disabled\n");
    let report = fake.examine();
    assert!(!report.can_run.verbs);
    let down = only(&troubles(&report, "RDMA"));
    assert_eq!(down.mark, Mark::Missing);
    assert!(down.found.starts_with("rxe0 port 1: DOWN, Disabled, Ethernet"), "{down:?}");
    assert!(remedy(down).starts_with("sudo ip link set d0 up"), "{down:?}");
}

#[test]
fn a_second_card_that_is_down_is_only_a_warning() {
    let fake = Fake::new();
    fake.device("mlx5_1", "Ethernet", "1: DOWN", &[]);
    fake.put("sys/class/infiniband_verbs/uverbs1/ibdev", "mlx5_1\n");
    fake.put("dev/infiniband/uverbs1", "");
    fake.mlx5();
    let report = fake.examine();
    assert!(report.can_run.verbs, "{}", report.to_text(false));
    assert_eq!(only(&troubles(&report, "RDMA")).mark, Mark::Warning);
}

#[test]
fn only_roce_v1_is_no_address_to_use() {
    let fake = Fake::new();
    fake.device("mlx4_0", "Ethernet", "4: ACTIVE", &[("fe80::1", "IB/RoCE v1", "eth0")]);
    let report = fake.examine();
    let trouble = only(&troubles(&report, "RDMA"));
    assert!(trouble.found.contains("no RoCE v2 address") && !report.can_run.verbs, "{trouble:?}");
}

#[test]
fn an_infiniband_port_needs_a_lid() {
    let fake = Fake::new();
    fake.device("mlx5_0", "InfiniBand", "4: ACTIVE", &[("fe80:0000:0000:0000:0c42:a103:0065:7a0e", "IB/RoCE v1", "")]);
    fake.put("sys/class/infiniband/mlx5_0/ports/1/lid", "0x1f\n");
    let report = fake.examine();
    assert!(report.can_run.verbs, "{}", report.to_text(false));
    let port = &report.devices[0].ports[0];
    assert_eq!((port.lid, port.chosen_gid), (Some(31), Some(0)));
    assert!(report.to_text(false).contains("LID 31"));

    fake.put("sys/class/infiniband/mlx5_0/ports/1/lid", "0x0\n");
    assert!(only(&troubles(&fake.examine(), "RDMA")).found.contains("no LID"));
    fake.put("sys/class/infiniband/mlx5_0/ports/1/state", "2: INIT\n");
    assert!(only(&troubles(&fake.examine(), "RDMA")).found.contains("waits for a subnet manager"));
}

#[test]
fn nonsense_costs_one_line_and_no_more() {
    const NONSENSE: [&[u8]; 8] = [
        b"",
        b"\n",
        b"\xff\xfe\x00\x80",
        b"99999999999999999999: ACTIVE",
        b": : :",
        b"0xfffffffffffffffff",
        b"\x1b[2J\x1b]0;owned\x07",
        &[b'z'; 9000],
    ];
    let fake = Fake::new();
    fake.mlx5();
    let whole = fs::read_dir(fake.path("sys/class/infiniband/mlx5_0/ports/1")).unwrap();
    let mut files: Vec<_> = whole.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    files.push(fake.path("sys/class/infiniband/mlx5_0/fw_ver"));
    files.push(fake.path("sys/class/infiniband/mlx5_0/ports/1/gids/3"));
    files.push(fake.path("sys/class/infiniband/mlx5_0/ports/1/gid_attrs/types/3"));
    files.push(fake.path("sys/class/infiniband/mlx5_0/ports/1/gid_attrs/ndevs/3"));
    files.push(fake.path("sys/class/infiniband_verbs/uverbs0/ibdev"));
    files.push(fake.path("proc/self/limits"));
    files.push(fake.path("proc/self/status"));
    files.push(fake.path("proc/self/uid_map"));
    files.push(fake.path("proc/sys/kernel/osrelease"));
    files.push(fake.path("etc/os-release"));
    let sound = fake.examine().to_text(false).lines().count();
    for file in &files {
        let content = fs::read(file).unwrap();
        for nonsense in NONSENSE {
            fs::write(file, nonsense).unwrap();
            check(&fake, file, sound);
        }
        fs::remove_file(file).unwrap();
        check(&fake, file, sound);
        fs::create_dir(file).unwrap();
        check(&fake, file, sound);
        fs::remove_dir(file).unwrap();
        fs::write(file, content).unwrap();
    }

    fn check(fake: &Fake, file: &Path, sound: usize) {
        let report = fake.examine();
        let text = report.to_text(false);
        let grew = text.lines().count().saturating_sub(sound);
        assert!(grew <= 8, "{}: {grew} lines more:\n{text}", file.display());
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{}: {text:?}", file.display());
        serde_json::to_string(&report).unwrap();
        let odd: Vec<_> =
            report.devices.iter().flat_map(|d| d.odd.iter().chain(d.ports.iter().flat_map(|p| &p.odd))).collect();
        assert!(odd.len() <= 1, "{}: {odd:?}", file.display());
    }
}

#[test]
fn odd_files_are_named() {
    let fake = Fake::new();
    fake.mlx5();
    fake.put("sys/class/infiniband/mlx5_0/ports/1/state", [0xff, 0xfe]);
    fs::remove_file(fake.path("sys/class/infiniband/mlx5_0/ports/1/rate")).unwrap();
    fs::create_dir(fake.path("sys/class/infiniband/mlx5_0/ports/1/rate")).unwrap();
    let report = fake.examine();
    assert!(!report.can_run.verbs);
    let found: Vec<_> = troubles(&report, "RDMA").iter().map(|finding| finding.found.as_str()).collect();
    assert_eq!(
        found,
        [
            "mlx5_0 port 1: Ethernet: its state or its link layer is not known",
            "mlx5_0: ports/1/state is not text (1 more like it)"
        ]
    );
}

#[test]
fn directories_in_unlikely_places_are_no_devices() {
    let fake = Fake::new();
    fake.put("sys/class/infiniband/README", "not a device");
    fake.put("sys/class/infiniband/$(reboot)/ports/one/state", "4: ACTIVE");
    fake.put("sys/class/infiniband/$(reboot)/ports/4294967296/state", "4: ACTIVE");
    fake.put("sys/class/infiniband/$(reboot)/ports/0/state", "4: ACTIVE");
    fake.put("sys/class/infiniband/$(reboot)/ports/2/state", "1: DOWN");
    let report = fake.examine();
    assert!(!report.can_run.verbs);
    let numbers: Vec<_> = report.devices.iter().flat_map(|device| &device.ports).map(|port| port.number).collect();
    assert_eq!(numbers, [2]);
    for finding in troubles(&report, "RDMA") {
        assert!(!remedy(finding).contains("$("), "{finding:?}");
    }
}

#[test]
fn locked_memory_must_suffice_for_an_agent() {
    let fake = Fake::new();
    fake.mlx5();
    let limits = |soft, hard, capabilities| {
        fake.limits(soft, hard, capabilities);
        let report = fake.examine();
        let trouble = troubles(&report, "Memory limits").first().map(|finding| remedy(finding).to_owned());
        assert_eq!(report.can_run.verbs, trouble.is_none(), "{trouble:?}");
        assert!(report.can_run.shm);
        trouble
    };
    // What many systems give a user: enough for the State Boxes alone.
    assert!(limits(8 * MIB, 8 * MIB, 0).unwrap().contains("memlock unlimited"));
    assert!(limits(8 * MIB, u64::MAX, 0).unwrap().starts_with("ulimit -l "));
    assert_eq!(limits(16 * MIB, 16 * MIB, 0), None);
    assert_eq!(limits(0, 0, 1 << 14), None, "CAP_IPC_LOCK");
    // In a container with users of its own, that capability is not the machine's.
    fake.put("proc/self/uid_map", "0 100000 65536\n");
    assert!(limits(0, 0, 1 << 14).is_some());
}

#[test]
fn a_device_needs_its_file_and_its_library() {
    let fake = Fake::new();
    fake.mlx5();
    fs::remove_file(fake.path("dev/infiniband/uverbs0")).unwrap();
    let report = fake.examine();
    let trouble = only(&troubles(&report, "RDMA"));
    assert!(trouble.found.ends_with("/dev/infiniband/uverbs0: no such file or directory"), "{trouble:?}");
    fs::remove_dir_all(fake.path("sys/class/infiniband_verbs")).unwrap();
    assert_eq!(remedy(only(&troubles(&fake.examine(), "RDMA"))), "sudo modprobe ib_uverbs");

    fake.mlx5();
    fs::remove_dir_all(fake.path("usr/lib/x86_64-linux-gnu/libibverbs")).unwrap();
    let report = fake.examine();
    assert!(only(&troubles(&report, "RDMA")).found.contains("no drivers for it"));
    fs::remove_file(fake.path("usr/lib/x86_64-linux-gnu/libibverbs.so.1")).unwrap();
    let report = fake.examine();
    assert_eq!(remedy(only(&troubles(&report, "RDMA"))), "sudo apt install libibverbs1 ibverbs-providers rdma-core");
    // A library elsewhere serves as well.
    fake.put("opt/rdma/libibverbs.so.1", "");
    fake.put("opt/rdma/libibverbs/libmlx5-rdmav34.so", "");
    let elsewhere = Machine { library_path: vec!["/opt/rdma".into()], ..fake.machine() };
    assert!(elsewhere.examine().can_run.verbs);
}

#[test]
fn a_build_without_verbs_says_so() {
    let fake = Fake::new();
    fake.mlx5();
    let report = Machine { built_with_verbs: false, ..fake.machine() }.examine();
    assert!(!report.can_run.verbs);
    let trouble = only(&troubles(&report, "RDMA"));
    assert_eq!(trouble.found, "this program was built without verbs");
    assert_eq!(remedy(trouble), "cargo build --release --features verbs");
}

#[test]
fn without_shareable_memory_or_a_place_for_the_socket_nothing_can_run() {
    let fake = Fake::new();
    let mut machine = fake.machine();
    machine.probes.sealed_memory = Err("can't create shared memory: Function not implemented".into());
    assert!(!machine.examine().can_run.shm);
    let nowhere = Machine { socket: "/absent/backdoor.sock".into(), ..fake.machine() };
    let report = nowhere.examine();
    assert!(!report.can_run.shm);
    assert!(only(&troubles(&report, "Shared memory")).found.contains("/absent: no such file or directory"));
}

#[test]
fn programs_for_virtual_machines_are_looked_for_on_the_path() {
    use std::os::unix::fs::PermissionsExt;
    let fake = Fake::new();
    for program in ["busybox", "cpio"] {
        fake.put(&format!("usr/bin/{program}"), "");
        fs::set_permissions(fake.path(&format!("usr/bin/{program}")), fs::Permissions::from_mode(0o755)).unwrap();
    }
    // Not a program.
    fake.put("usr/bin/qemu-system-x86_64", "");
    fs::set_permissions(fake.path("usr/bin/qemu-system-x86_64"), fs::Permissions::from_mode(0o644)).unwrap();
    let report = fake.examine();
    let lacking = only(&troubles(&report, "Virtual machines"));
    assert_eq!(
        (lacking.found.as_str(), remedy(lacking)),
        ("not installed: qemu-system-x86_64", "sudo apt install qemu-system-x86")
    );
}

#[test]
fn lines_fit_a_terminal() {
    let fake = Fake::new();
    fake.mlx5();
    fake.limits(8 * MIB, 8 * MIB, 0);
    for line in fake.examine().to_text(false).lines() {
        assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
    }
    let coloured = fake.examine().to_text(true);
    assert!(coloured.contains("\x1b[31mmissing\x1b[0m"), "{coloured:?}");
}

#[test]
fn the_command_answers_people_machines_and_scripts() {
    let doctor = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backdoor"));
        command.arg("doctor").args(arguments).stdin(Stdio::null()).output().unwrap()
    };
    let text = doctor(&[]);
    let stdout = String::from_utf8(text.stdout).unwrap();
    assert_eq!(text.status.code(), Some(0), "{stdout}");
    assert!(stdout.contains("This machine can run") && !stdout.contains('\x1b'), "{stdout}");

    let json = doctor(&["--format", "json", "--transport", "verbs"]);
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(report["can_run"]["shm"], true);
    let verbs = report["can_run"]["verbs"].as_bool().unwrap();
    assert_eq!(json.status.code(), Some(i32::from(!verbs)));
    let stderr = String::from_utf8(json.stderr).unwrap();
    assert_eq!(stderr.is_empty(), verbs, "{stderr}");
}
