//! Where a connection stands that nobody reads from or writes to: for whoever goes on with it in its process' place.

use std::os::fd::AsFd;

use backdoor_core::channels::KeptSocket;

use super::TcpError;
use super::repair::{Queue, Repair, established};

/// How often it is tried to catch a moment in which nothing comes.
const ATTEMPTS: u32 = 1000;

/// Reads it. The connection goes on meanwhile, and is left as it was.
///
/// Its process must have ended. While its numbers are read, for some microseconds, the kernel may count output as sent that
/// it has not sent; then it sends it as if it had been lost.
///
/// # Errors
/// [`TcpError::NotPermitted`], [`TcpError::NotTcp`], [`TcpError::NotEstablished`]; [`TcpError::Silent`];
/// [`TcpError::NotCutOff`] if input never pauses.
pub fn standing(socket: impl AsFd) -> Result<KeptSocket, TcpError> {
    let socket = socket.as_fd();
    established(socket)?;
    let repair = Repair::enter(socket)?;
    if repair.was_silent() {
        return Err(TcpError::Silent);
    }
    let written = repair.sequence(Queue::Send).map_err(TcpError::while_doing("read where the connection stands"))?;
    for _ in 0..ATTEMPTS {
        if let Some(unread) = repair.unread()? {
            return Ok(KeptSocket { written, first_unread: unread.first });
        }
    }
    Err(TcpError::NotCutOff)
}
