//! A network interface, taken down and brought up again.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

/// The flag of an interface that is up (`IFF_UP`).
const UP: u32 = 1;
/// That of the loopback interface (`IFF_LOOPBACK`).
const LOOPBACK: u32 = 8;
/// Flags that are shown while somebody listens to all traffic, and would stay if they were written back
/// (`IFF_PROMISC`, `IFF_ALLMULTI`).
const LENT: u32 = 0x300;

/// The interface that has an address.
#[derive(Debug)]
pub(super) struct Link {
    name: String,
    flags: PathBuf,
}

impl Link {
    /// Finds it, and makes sure that it can be taken down. Fails with a sentence for the user.
    pub(super) fn with(address: IpAddr) -> Result<Self, String> {
        // The kernel tells addresses by netlink only. This form of the answer has not changed in twenty years, and
        // BusyBox gives it, too.
        let listing = Command::new("ip").args(["-o", "addr", "show"]).output();
        let listing = listing.map_err(|error| format!("can't run 'ip' (iproute2): {}", crate::plain(&error)))?;
        let listing = String::from_utf8_lossy(&listing.stdout);
        let name = interface_of(&listing, address).ok_or_else(|| format!("no network interface has {address}"))?;
        let link = Link { name: name.into(), flags: format!("/sys/class/net/{name}/flags").into() };
        let flags = link.read().map_err(|error| link.cannot(&error))?;
        if flags & LOOPBACK != 0 {
            return Err(format!("{address} is on the loopback interface, which is not taken down"));
        }
        // What it is already; it shows whether it may be changed.
        link.write(flags).map_err(|error| link.cannot(&error))?;
        Ok(link)
    }

    /// Takes it down, or up.
    pub(super) fn set_up(&self, up: bool) -> Result<(), String> {
        let change = |flags: u32| if up { flags | UP } else { flags & !UP };
        self.read().and_then(|flags| self.write(change(flags))).map_err(|error| self.cannot(&error))
    }

    fn read(&self) -> io::Result<u32> {
        let text = std::fs::read_to_string(&self.flags)?;
        u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).map_err(io::Error::other)
    }

    fn write(&self, flags: u32) -> io::Result<()> {
        std::fs::write(&self.flags, format!("{:#x}", flags & !LENT))
    }

    fn cannot(&self, error: &io::Error) -> String {
        format!("can't take the interface {} down and up (that needs root): {}", self.name, crate::plain(error))
    }
}

/// Who has the address, by a listing of `ip -o addr show`.
fn interface_of(listing: &str, address: IpAddr) -> Option<&str> {
    listing.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (name, _family, own) = (words.next()?, words.next()?, words.next()?);
        let own: IpAddr = own.split('/').next()?.parse().ok()?;
        // "eth0@if5" is one end of a pair.
        let name = name.split('@').next()?;
        (own == address && !name.contains('/')).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "\
1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever preferred_lft forever
2: rdma0    inet 10.77.0.1/24 brd 10.77.0.255 scope global rdma0\\       valid_lft forever preferred_lft forever
3: veth1@if4    inet 10.78.0.1 peer 10.78.0.2/32 scope global veth1\\       valid_lft forever preferred_lft forever
2: rdma0    inet6 fe80::fc:ff:fe00:1/64 scope link \\       valid_lft forever preferred_lft forever
nonsense
";

    #[test]
    fn the_interface_is_found_by_its_address() {
        let find = |address: &str| interface_of(LISTING, address.parse().unwrap());
        assert_eq!(find("10.77.0.1"), Some("rdma0"));
        assert_eq!(find("fe80::fc:ff:fe00:1"), Some("rdma0"));
        assert_eq!(find("10.78.0.1"), Some("veth1"));
        assert_eq!(find("10.78.0.2"), None, "that is the other end");
    }

    #[test]
    fn the_loopback_interface_is_left_alone() {
        let refused = Link::with("127.0.0.1".parse().unwrap()).unwrap_err();
        assert!(refused.contains("loopback") || refused.contains("'ip'"), "{refused}");
        let refused = Link::with("192.0.2.77".parse().unwrap()).unwrap_err();
        assert!(refused.contains("no network interface") || refused.contains("'ip'"), "{refused}");
    }
}
