//! A port of a network card, opened and chosen.

use std::sync::Arc;

use sideway::ibverbs::address::{GidEntry, GidType};
use sideway::ibverbs::device::{Device as Found, DeviceInfo, DeviceList};
use sideway::ibverbs::device_context::{AtomicCapability, DeviceContext, LinkLayer, Mtu, PortState};
use sideway::ibverbs::protection_domain::ProtectionDomain;

use super::address::Link;
use super::error::{VerbsError, call};

/// Which device to use. What is left open is found: the first active port with a usable address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceChoice {
    /// Name, such as `mlx5_0`.
    pub device: Option<String>,
    /// Port, from 1.
    pub port: Option<u8>,
    /// Index into the port's table of global identifiers. By default it is chosen by type, for the indices change
    /// whenever an address does: RoCE v2 with an IPv4 address, else with a global IPv6 address, else link-local.
    pub gid_index: Option<u32>,
}

/// An active port of a network card, with a protection domain: memory and queue pairs made through the same `Device` (or
/// a clone of it) work together, others don't.
#[derive(Clone, Debug)]
pub struct Device {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) domain: Arc<ProtectionDomain>,
    pub(super) context: Arc<DeviceContext>,
    pub(super) name: String,
    pub(super) port: Port,
    pub(super) limits: Limits,
}

/// The port, as its peers have to know it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Port {
    pub(super) number: u8,
    pub(super) link: Link,
    pub(super) lid: u16,
    pub(super) mtu: Mtu,
    pub(super) gid: [u8; 16],
    pub(super) gid_index: u8,
}

/// What the card can do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Work under way per queue pair.
    pub(super) depth: usize,
    /// READs and compare-and-swaps that a queue pair serves at once.
    pub(super) reads_served: u8,
    /// READs and compare-and-swaps that a queue pair has under way at once.
    pub(super) reads_issued: u8,
    /// Compare-and-swap.
    pub(super) atomics: bool,
}

impl Device {
    /// Opens the device that fits the choice.
    ///
    /// # Errors
    /// What is missing, by name; port by port, if a device has none that is active and has a usable address.
    pub fn open(choice: &DeviceChoice) -> Result<Self, VerbsError> {
        // The library is opened at run time; where it or the kernel's part is missing, this is where it shows.
        let list = DeviceList::new().map_err(|_| VerbsError::NotInstalled)?;
        let mut last = None;
        for found in list.iter() {
            if choice.device.as_ref().is_some_and(|name| *name != found.name()) {
                continue;
            }
            match Self::open_found(&found, choice) {
                Ok(device) => return Ok(device),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| match &choice.device {
            Some(name) if !list.is_empty() => {
                let names: Vec<_> = list.iter().map(|found| found.name()).collect();
                VerbsError::UnknownDevice { name: name.clone(), have: names.join(", ") }
            }
            _ => VerbsError::NoDevice,
        }))
    }

    fn open_found(found: &Found<'_>, choice: &DeviceChoice) -> Result<Self, VerbsError> {
        let name = found.name();
        let context = found.open().map_err(call("open the RDMA device"))?;
        let attributes = context.query_device().map_err(call("ask the RDMA device what it can do"))?;
        let ports = match choice.port {
            Some(port) => port..=port,
            None => 1..=attributes.phys_port_cnt(),
        };
        let mut problems = Vec::new();
        for number in ports {
            match Port::find(&context, number, choice.gid_index) {
                Ok(port) => {
                    let domain = context.alloc_pd().map_err(call("make a protection domain"))?;
                    let limit = |limit: i32| limit.clamp(1, 255) as u8;
                    let limits = Limits {
                        // One for the error that a completion queue must still have room for.
                        depth: attributes.max_qp_wr().min(attributes.max_cqe().saturating_sub(1)).max(1) as usize,
                        reads_served: limit(attributes.max_qp_rd_atom()),
                        reads_issued: limit(attributes.max_qp_init_rd_atom()),
                        atomics: attributes.atomic_capability() != AtomicCapability::None,
                    };
                    return Ok(Device { inner: Arc::new(Inner { domain, context, name, port, limits }) });
                }
                Err(why) => problems.push(format!("port {number} {why}")),
            }
        }
        if problems.is_empty() {
            problems.push("it has no ports".into());
        }
        Err(VerbsError::NoPort { device: name, why: problems.join("; ") })
    }

    /// Its name, such as `mlx5_0`.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its port, from 1.
    pub fn port(&self) -> u8 {
        self.inner.port.number
    }

    /// The kind of network that the port is on.
    pub fn link(&self) -> Link {
        self.inner.port.link
    }

    /// The global identifier that peers see; on RoCE v2, an IP address.
    pub fn gid(&self) -> std::net::Ipv6Addr {
        self.inner.port.gid.into()
    }

    /// Where that identifier stands in the port's table.
    pub fn gid_index(&self) -> u8 {
        self.inner.port.gid_index
    }

    /// Whether a driver does the card's work on the processor, as Soft-RoCE does: such a device dies with its kernel, and
    /// may tear a word that is being stored.
    pub fn is_software(&self) -> bool {
        // Whatever sits on a bus has a link to it.
        !std::path::Path::new("/sys/class/infiniband").join(self.name()).join("device").exists()
    }

    /// Whether it offers compare-and-swap. Over one that does not, each ends as a
    /// [local fault](backdoor_core::transport::TransportError::LocalFault).
    pub fn has_compare_swap(&self) -> bool {
        self.inner.limits.atomics
    }

    /// Operations that a queue pair can have under way at most.
    pub fn max_depth(&self) -> usize {
        self.inner.limits.depth
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.inner
    }
}

impl Port {
    /// The port, if it is active and has an address; otherwise why it can't be used.
    fn find(context: &DeviceContext, number: u8, gid_index: Option<u32>) -> Result<Port, String> {
        let attributes = context.query_port(number).map_err(|error| super::error::chain(&error))?;
        if attributes.port_state() != PortState::Active {
            return Err(format!("is {:?}, not active", attributes.port_state()).to_lowercase());
        }
        let link = match attributes.link_layer() {
            LinkLayer::InfiniBand => Link::InfiniBand,
            LinkLayer::Ethernet => Link::Ethernet,
            LinkLayer::Unspecified => return Err("is on a link of unknown kind".into()),
        };
        let table = context.query_gid_table().map_err(|error| super::error::chain(&error))?;
        let entries = table.iter().filter(|entry| entry.port_num() == u32::from(number));
        let entries: Vec<Gid> = entries.map(Gid::from).collect();
        let chosen = choose_gid(link, &entries, gid_index)?;
        let gid_index = u8::try_from(chosen.index).map_err(|_| "has its address at an index above 255")?;
        Ok(Port { number, link, lid: attributes.lid(), mtu: attributes.active_mtu(), gid: chosen.bytes, gid_index })
    }
}

/// One row of a port's table of global identifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gid {
    index: u32,
    roce_v2: bool,
    bytes: [u8; 16],
}

impl From<&GidEntry> for Gid {
    fn from(entry: &GidEntry) -> Self {
        Gid { index: entry.gid_index(), roce_v2: entry.gid_type() == GidType::RoceV2, bytes: entry.gid().raw }
    }
}

/// Indices change whenever an address does, so it is the type that decides, unless the user has.
fn choose_gid(link: Link, entries: &[Gid], index: Option<u32>) -> Result<Gid, String> {
    let usable = |gid: &&Gid| link == Link::InfiniBand || gid.roce_v2;
    if let Some(index) = index {
        let found = entries.iter().find(|gid| gid.index == index);
        let found = found.ok_or_else(|| format!("has no global identifier at index {index}"))?;
        let usable = Some(found).filter(usable);
        return usable.copied().ok_or_else(|| format!("has no RoCE v2 address at index {index}"));
    }
    let order = |gid: &&Gid| {
        let address = std::net::Ipv6Addr::from(gid.bytes);
        let kind = match (address.to_ipv4_mapped(), address.is_unicast_link_local()) {
            _ if link == Link::InfiniBand => 0,
            (Some(_), _) => 0,
            (None, false) => 1,
            (None, true) => 2,
        };
        (kind, gid.index)
    };
    let best = entries.iter().filter(usable).min_by_key(order);
    best.copied().ok_or_else(|| "has no RoCE v2 address: give its network interface an IP address".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gid(index: u32, roce_v2: bool, address: &str) -> Gid {
        let bytes = address.parse::<std::net::Ipv6Addr>().unwrap().octets();
        Gid { index, roce_v2, bytes }
    }

    #[test]
    fn addresses_are_chosen_by_type() {
        // As a ConnectX lists them.
        let table = [
            gid(0, false, "fe80::1"),
            gid(1, true, "fe80::1"),
            gid(2, false, "::ffff:10.0.0.1"),
            gid(3, true, "::ffff:10.0.0.1"),
            gid(4, false, "2001:db8::1"),
            gid(5, true, "2001:db8::1"),
        ];
        let index = |entries: &[Gid]| choose_gid(Link::Ethernet, entries, None).map(|gid| gid.index);
        assert_eq!(index(&table), Ok(3));
        assert_eq!(index(&[table[0], table[1], table[5]]), Ok(5));
        assert_eq!(index(&table[..2]), Ok(1));
        assert!(index(&table[..1]).unwrap_err().contains("IP address"));
        assert_eq!(choose_gid(Link::InfiniBand, &table, None).map(|gid| gid.index), Ok(0));
    }

    #[test]
    fn the_users_choice_is_kept_or_refused() {
        let table = [gid(0, false, "fe80::1"), gid(7, true, "fe80::1")];
        assert_eq!(choose_gid(Link::Ethernet, &table, Some(7)).map(|gid| gid.index), Ok(7));
        assert!(choose_gid(Link::Ethernet, &table, Some(0)).unwrap_err().contains("RoCE v2"));
        assert!(choose_gid(Link::Ethernet, &table, Some(3)).unwrap_err().contains("index 3"));
    }
}
