//! RDMA devices and the library that programs them, as the kernel and the file system show them.
//!
//! What the files mean: `Documentation/ABI/stable/sysfs-class-infiniband` in the kernel's sources.

use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use serde::Serialize;

use super::gid::{GidEntry, GidType, LinkLayer, choose};
use super::machine::{System, has_module};
use super::sysfs::{names, shown, under, value, word};
use super::{Finding, Machine, Section};

/// Most entries of a GID table that are listed for people; the chosen one always is.
const LIST_UP_TO: usize = 12;
/// The state in which a port carries data.
const ACTIVE: u32 = 4;
/// Linked, not yet configured.
const INITIALIZING: u32 = 2;
/// Configured, not yet released.
const ARMED: u32 = 3;

/// An RDMA device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Its name, such as `mlx5_0`.
    pub name: String,
    /// Version of its firmware.
    pub firmware: Option<String>,
    /// What kind of card it is.
    pub board: Option<String>,
    /// Its identity.
    pub node_guid: Option<String>,
    /// The file through which programs reach it, such as `uverbs0`.
    pub uverbs: Option<String>,
    /// Why this user can't open that file, if so.
    pub no_access: Option<String>,
    /// Its ports, in order.
    pub ports: Vec<Port>,
    /// Files that make no sense.
    pub odd: Vec<String>,
}

/// A port of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Port {
    /// Its number, from 1.
    pub number: u32,
    /// Whether it carries data.
    pub state: Option<PortState>,
    /// What the cable does.
    pub physical: Option<String>,
    /// What carries its packets.
    pub link_layer: Option<LinkLayer>,
    /// Speed of the link.
    pub rate: Option<String>,
    /// On InfiniBand, the address that the subnet manager gave it; 0 is none.
    pub lid: Option<u16>,
    /// Entries of its GID table that are in use.
    pub gids: Vec<GidEntry>,
    /// Index of the entry that connections would use.
    pub chosen_gid: Option<u32>,
    /// Files that make no sense.
    pub odd: Vec<String>,
}

/// A port's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortState {
    /// By number: 4 is the one that carries data.
    pub number: u32,
    /// By name, such as `ACTIVE`.
    pub name: String,
}

impl Port {
    /// What keeps it from being used, and what to do. `device` is fit for a command.
    fn trouble(&self, device: &str) -> Option<(String, String)> {
        let netdev = self.gids.iter().find_map(|entry| entry.netdev.as_deref()).unwrap_or_default();
        let netdev = word(netdev, "NETDEV");
        let (Some(PortState { number, name }), Some(link_layer)) = (&self.state, self.link_layer) else {
            let remedy = format!("rdma link show {device}/{}", self.number);
            return Some(("its state or its link layer is not known".into(), remedy));
        };
        let (what, remedy) = match (link_layer, *number) {
            (LinkLayer::Ethernet, ACTIVE) if self.chosen_gid.is_none() => (
                "no RoCE v2 address, so there is no GID to use".into(),
                format!("sudo ip address add ADDRESS/24 dev {netdev}"),
            ),
            (LinkLayer::Infiniband, ACTIVE) if self.lid.unwrap_or(0) == 0 => (
                "no LID: no subnet manager has found it".into(),
                "sudo systemctl start opensm (on one machine, if no switch does it)".into(),
            ),
            (LinkLayer::Infiniband, ACTIVE) if self.chosen_gid.is_none() => (
                "its GID 0 is not known".into(),
                format!("cat /sys/class/infiniband/{device}/ports/{}/gids/0", self.number),
            ),
            (_, ACTIVE) => return None,
            (LinkLayer::Ethernet, _) => (
                format!("{name} instead of ACTIVE"),
                format!("sudo ip link set {netdev} up; check the cable and the switch"),
            ),
            (LinkLayer::Infiniband, INITIALIZING | ARMED) => (
                format!("{name} instead of ACTIVE: it waits for a subnet manager"),
                "sudo systemctl start opensm (on one machine, if no switch does it)".into(),
            ),
            (LinkLayer::Infiniband, _) => {
                (format!("{name} instead of ACTIVE"), "check the cable and the switch".into())
            }
        };
        Some((what, remedy))
    }
}

impl Device {
    fn usable(&self) -> bool {
        self.no_access.is_none() && self.ports.iter().any(|port| port.trouble(&self.name).is_none())
    }
}

/// The section for people, and the devices for machines.
pub(super) fn examine(machine: &Machine, system: &System) -> (Section, Vec<Device>) {
    let mut findings = vec![if machine.built_with_verbs {
        Finding::ok("this program was built with verbs")
    } else {
        Finding::missing("this program was built without verbs", "cargo build --release --features verbs")
    }];
    findings.extend(library(machine, system));
    let devices: Vec<_> = names(&class(&machine.root)).iter().map(|name| device(&machine.root, name)).collect();
    let any_usable = devices.iter().any(Device::usable);
    for device in &devices {
        findings.push(describe(device, any_usable));
        for port in &device.ports {
            findings.push(describe_port(&device.name, port, any_usable));
        }
        let odd = device.odd.iter().cloned();
        let of_ports =
            device.ports.iter().flat_map(|p| p.odd.iter().map(move |odd| format!("ports/{}/{odd}", p.number)));
        let odd: Vec<_> = odd.chain(of_ports).collect();
        if let Some(first) = odd.first() {
            let more = if odd.len() > 1 { format!(" ({} more like it)", odd.len() - 1) } else { String::new() };
            findings.push(Finding::warning(
                format!("{}: {first}{more}", device.name),
                format!("look at /sys/class/infiniband/{}", word(&device.name, "DEVICE")),
            ));
        }
    }
    if devices.is_empty() {
        findings.push(no_device(machine, system));
    }
    (Section { name: "RDMA", needed_for: "--transport verbs", findings }, devices)
}

fn describe(device: &Device, any_usable: bool) -> Finding {
    let parts = [("firmware", &device.firmware), ("board", &device.board), ("GUID", &device.node_guid)];
    let parts: Vec<_> = parts.iter().filter_map(|(what, is)| Some(format!("{what} {}", is.as_ref()?))).collect();
    let name = shown(&device.name);
    let about = if parts.is_empty() { name } else { format!("{name}: {}", parts.join(", ")) };
    match (&device.no_access, &device.uverbs) {
        _ if device.ports.is_empty() => bad(any_usable, format!("{about}; no ports"), "sudo dmesg".into()),
        (None, _) => Finding::ok(about),
        (Some(why), None) => bad(any_usable, format!("{about}; {why}"), "sudo modprobe ib_uverbs".into()),
        (Some(why), Some(node)) => bad(
            any_usable,
            format!("{about}; /dev/infiniband/{node}: {why}"),
            format!(
                "sudo chmod a+rw /dev/infiniband/{}; in a container: --device=/dev/infiniband",
                word(node, "uverbs*")
            ),
        ),
    }
}

/// A second card or a second port that can't be used harms nobody.
fn bad(any_usable: bool, found: String, remedy: String) -> Finding {
    if any_usable { Finding::warning(found, remedy) } else { Finding::missing(found, remedy) }
}

fn describe_port(device: &str, port: &Port, any_usable: bool) -> Finding {
    let state = port.state.as_ref().map(|state| state.name.clone());
    let layer = port.link_layer.map(|layer| match layer {
        LinkLayer::Ethernet => "Ethernet".to_owned(),
        LinkLayer::Infiniband => "InfiniBand".to_owned(),
    });
    let lid = port.lid.filter(|_| port.link_layer == Some(LinkLayer::Infiniband)).map(|lid| format!("LID {lid}"));
    let physical = port.physical.clone().filter(|physical| physical != "LinkUp");
    let about: Vec<_> = [state, physical, layer, port.rate.clone(), lid].into_iter().flatten().collect();
    let about = format!("{device} port {}: {}", port.number, about.join(", "));
    let mut finding = match port.trouble(word(device, "DEVICE")) {
        None => Finding::ok(match port.chosen_gid {
            Some(index) => format!("{about}; uses GID {index}:"),
            None => about,
        }),
        Some((what, remedy)) => bad(any_usable, format!("{}: {what}", about.trim_end_matches([' ', ':'])), remedy),
    };
    let address = |entry: &GidEntry| entry.gid.to_string();
    let width = port.gids.iter().map(|entry| address(entry).len()).max().unwrap_or(0);
    let mut left_out = 0;
    for (at, entry) in port.gids.iter().enumerate() {
        let chosen = port.chosen_gid == Some(entry.index);
        if at >= LIST_UP_TO && !chosen {
            left_out += 1;
            continue;
        }
        let kind = entry.kind.map_or("?", GidType::name);
        let netdev = entry.netdev.as_deref().unwrap_or("-");
        let arrow = if chosen { "->" } else { "" };
        let line = format!("{arrow:<2} {:>2}  {kind:<10}  {:<width$}  {netdev}", entry.index, address(entry));
        finding.details.push(line);
    }
    if left_out > 0 {
        finding.details.push(format!("and {left_out} more"));
    }
    finding
}

fn no_device(machine: &Machine, system: &System) -> Finding {
    let release = system.kernel.as_deref().unwrap_or_default();
    let loaded = under(&machine.root, "sys/module/rdma_rxe").is_dir();
    if loaded || has_module(&machine.root, release, "rdma_rxe") {
        let net = under(&machine.root, "sys/class/net");
        let up = |name: &&String| value(&net.join(name).join("operstate")).is_ok_and(|s| s.as_deref() == Some("up"));
        let all = names(&net);
        let netdev = all.iter().find(up).map_or("NETDEV", |name| word(name, "NETDEV"));
        return Finding::missing(
            "no RDMA device",
            format!("for trials: sudo modprobe rdma_rxe; sudo rdma link add rxe0 type rxe netdev {netdev}"),
        );
    }
    Finding::missing(
        "no RDMA device, and this kernel has no software one (rdma_rxe)",
        "install the card's driver (docs/rdma.md); or try it in virtual machines: transports/soft-roce/run",
    )
}

fn class(root: &Path) -> PathBuf {
    under(root, "sys/class/infiniband")
}

/// Reads files of one directory and keeps note of those that make no sense.
struct Files<'a> {
    directory: &'a Path,
    odd: Vec<String>,
}

impl Files<'_> {
    /// What `parse` makes of a file; what it makes nothing of is odd. A file that is not there is not.
    fn parsed<T>(&mut self, file: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        match value(&self.directory.join(file)) {
            Ok(None) => None,
            Ok(Some(text)) => {
                let parsed = parse(&text);
                if parsed.is_none() {
                    self.odd.push(format!("{file} makes no sense: {:?}", shown(&text)));
                }
                parsed
            }
            Err(why) => {
                self.odd.push(format!("{file} {why}"));
                None
            }
        }
    }

    fn text(&mut self, file: &str) -> Option<String> {
        self.parsed(file, |text| Some(shown(text))).filter(|text| !text.is_empty())
    }
}

fn device(root: &Path, name: &str) -> Device {
    let directory = class(root).join(name);
    let mut files = Files { directory: &directory, odd: Vec::new() };
    let (firmware, board) = (files.text("fw_ver"), files.text("board_id"));
    let node_guid = files.text("node_guid");
    let ports = names(&directory.join("ports"))
        .iter()
        .filter_map(|number| Some(port(&directory, number.parse().ok().filter(|number| *number > 0)?)))
        .collect();
    let verbs = under(root, "sys/class/infiniband_verbs");
    let belongs = |node: &&String| value(&verbs.join(node).join("ibdev")).is_ok_and(|of| of.as_deref() == Some(name));
    let uverbs = names(&verbs).iter().find(belongs).map(|node| shown(node));
    let no_access = match &uverbs {
        None => Some("programs have no way to it (ib_uverbs)".into()),
        Some(node) => {
            let path = under(root, "dev/infiniband").join(node);
            let access = rustix::fs::access(&path, Access::READ_OK | Access::WRITE_OK);
            access.err().map(|errno| crate::plain(&errno.into()))
        }
    };
    Device { name: shown(name), firmware, board, node_guid, uverbs, no_access, ports, odd: files.odd }
}

fn port(device: &Path, number: u32) -> Port {
    let directory = device.join("ports").join(number.to_string());
    let mut files = Files { directory: &directory, odd: Vec::new() };
    let state = files.parsed("state", numbered);
    let physical = files.parsed("phys_state", numbered).map(|state| state.name);
    let link_layer = files.parsed("link_layer", |text| match text {
        "Ethernet" => Some(LinkLayer::Ethernet),
        "InfiniBand" => Some(LinkLayer::Infiniband),
        _ => None,
    });
    let rate = files.text("rate");
    let lid = files.parsed("lid", |text| u16::from_str_radix(text.strip_prefix("0x")?, 16).ok());
    let mut gids = Vec::new();
    for name in names(&directory.join("gids")) {
        let Ok(index) = name.parse::<u32>() else { continue };
        let gid = files.parsed(&format!("gids/{name}"), |text| text.parse::<Ipv6Addr>().ok());
        // Of entries that are not in use, not even the type can be read.
        let Some(gid) = gid.filter(|gid| !gid.is_unspecified()) else { continue };
        let kind = files.parsed(&format!("gid_attrs/types/{name}"), GidType::parse);
        let netdev = files.text(&format!("gid_attrs/ndevs/{name}"));
        gids.push(GidEntry { index, gid, kind, netdev });
    }
    let chosen_gid = link_layer.and_then(|layer| choose(layer, &gids)).map(|entry| entry.index);
    Port { number, state, physical, link_layer, rate, lid, gids, chosen_gid, odd: files.odd }
}

/// A state as sysfs writes it: `4: ACTIVE`.
fn numbered(text: &str) -> Option<PortState> {
    let (number, name) = text.split_once(": ")?;
    Some(PortState { number: number.parse().ok()?, name: shown(name) })
}

/// The library is opened at run time; without it, no program finds a device.
fn library(machine: &Machine, system: &System) -> Vec<Finding> {
    let packages = [
        "libibverbs1 ibverbs-providers rdma-core",
        "libibverbs rdma-core",
        "libibverbs1 libibverbs rdma-core",
        "rdma-core",
    ];
    let root = &machine.root;
    let multiarch = |name: &String| name.contains("-linux-");
    let mut directories: Vec<_> = machine.library_path.iter().map(|directory| under(root, directory)).collect();
    for usual in ["usr/lib", "lib", "usr/lib64", "lib64", "usr/local/lib"] {
        let directory = under(root, usual);
        directories.extend(names(&directory).iter().filter(|name| multiarch(name)).map(|name| directory.join(name)));
        directories.push(directory);
    }
    let Some(directory) = directories.into_iter().find(|directory| directory.join("libibverbs.so.1").is_file()) else {
        return vec![Finding::missing("libibverbs.so.1 is not installed", system.distribution.install(packages))];
    };
    let library = directory.strip_prefix(root).unwrap_or(&directory).join("libibverbs.so.1");
    let providers: Vec<_> = names(&directory.join("libibverbs"))
        .iter()
        .filter_map(|file| file.strip_prefix("lib")?.split_once("-rdmav").map(|(provider, _)| shown(provider)))
        .collect();
    if providers.is_empty() {
        return vec![Finding::missing(
            format!("/{}, but no drivers for it", shown(&library.to_string_lossy())),
            system.distribution.install(packages),
        )];
    }
    vec![Finding::ok(format!("/{}, with drivers for {}", shown(&library.to_string_lossy()), providers.join(", ")))]
}
