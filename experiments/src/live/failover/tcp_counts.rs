//! What a kernel has counted of TCP.

use backdoor_host::net::NetworkNamespace;

use super::FailoverError;

/// What a namespace's kernel has counted of TCP (RFC 4022).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TcpCounts {
    /// Connections begun here.
    pub(super) opened: u64,
    /// Connections that ended by a reset, sent or received.
    pub(super) resets: u64,
    /// Segments sent, without those that were sent again.
    pub(super) segments: u64,
}

impl TcpCounts {
    pub(super) fn of(namespace: &NetworkNamespace) -> Result<Self, FailoverError> {
        let text = namespace.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))?;
        TcpCounts::parse(&text.map_err(FailoverError::Files)?)
            .ok_or_else(|| FailoverError::Unexpected("the kernel's TCP counters can't be read".into()))
    }

    fn parse(snmp: &str) -> Option<Self> {
        let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let (names, values) = (lines.next()?, lines.next()?);
        let of = |name: &str| {
            let at = names.split(' ').position(|found| found == name)?;
            values.split(' ').nth(at)?.parse::<u64>().ok()
        };
        // Without those that were sent again: Linux counts them as RetransSegs only.
        Some(TcpCounts { opened: of("ActiveOpens")?, resets: of("EstabResets")?, segments: of("OutSegs")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let text = "Ip: A B\nIp: 1 2\nTcp: RtoMin ActiveOpens EstabResets OutSegs RetransSegs\nTcp: 200 7 3 9 4\n";
        assert_eq!(TcpCounts::parse(text), Some(TcpCounts { opened: 7, resets: 3, segments: 9 }));
        assert_eq!(TcpCounts::parse("Tcp: ActiveOpens\n"), None);
        let here = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
        assert!(TcpCounts::parse(&here).is_some());
    }
}
