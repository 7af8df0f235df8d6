//! Settings of the connections between monitors and agents.

use std::net::TcpStream;
use std::time::Duration;

use rustix::net::sockopt;

/// Prepares a connection: packets go out at once, and a peer that vanished without a word (its machine or the way to
/// it) ends the connection after about `vanished_after`, of which Linux counts whole seconds.
pub(crate) fn prepare(stream: &TcpStream, vanished_after: Duration) -> std::io::Result<()> {
    let seconds = vanished_after.as_secs().max(3);
    // A third of the time until the first probe of a silent connection; then probes until the time is up.
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(seconds / 3))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs((seconds / 6).max(1)))?;
    sockopt::set_tcp_keepcnt(stream, 4)?;
    // This decides, for probes that stay unanswered and for data alike.
    sockopt::set_tcp_user_timeout(stream, u32::try_from(seconds * 1000).unwrap_or(u32::MAX))?;
    stream.set_nodelay(true)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vanished_peer_is_given_up_in_time() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        for (asked, given) in [(30_000, 30), (7_900, 7), (3_000, 3), (0, 3)] {
            prepare(&stream, Duration::from_millis(asked)).unwrap();
            assert!(sockopt::socket_keepalive(&stream).unwrap() && stream.nodelay().unwrap());
            assert_eq!(sockopt::tcp_user_timeout(&stream).unwrap(), given * 1000);
            let (idle, interval) = (sockopt::tcp_keepidle(&stream).unwrap(), sockopt::tcp_keepintvl(&stream).unwrap());
            // The time is up at a probe, so the next one after it decides.
            assert!(idle + interval <= Duration::from_secs(u64::from(given)), "{idle:?} {interval:?}");
            assert!(idle + 4 * interval >= Duration::from_secs(u64::from(given) - 1), "{idle:?} {interval:?}");
        }
    }
}
