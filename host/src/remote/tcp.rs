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
