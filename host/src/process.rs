//! Ending a process for certain, before another one takes its place.

use std::io;
use std::os::fd::AsFd;

use backdoor_core::Nanos;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::clock;

/// Ends process `id` (SIGKILL), and waits until it has ended: then none of its threads does anything any more, and all its
/// descriptors are closed. Without effect on a process that has ended already.
///
/// The number must be that of a process whose end nobody else may have waited for, or it may be another's by now.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] if it does not end within `patience`: it waits in the kernel for something that does not come.
/// Others as by the system.
pub fn end(id: u32, patience: Nanos) -> io::Result<()> {
    let id = i32::try_from(id).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    let process = match pidfd_open(id, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Ok(()),
        process => process?,
    };
    match pidfd_send_signal(&process, Signal::KILL) {
        // Ended and not waited for.
        Ok(()) | Err(Errno::SRCH) => {}
        Err(errno) => return Err(errno.into()),
    }
    match clock::wait_for(process.as_fd(), PollFlags::IN, Some(clock::now() + patience))? {
        true => Ok(()),
        false => Err(io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_that_is_stopped_ends_and_its_pipe_is_closed() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32).unwrap();
        rustix::process::kill_process(pid, Signal::STOP).unwrap();
        end(child.id(), Nanos::from_secs(10)).unwrap();
        assert_eq!(io::Read::read(&mut child.stdout.take().unwrap(), &mut [0]).unwrap(), 0);
        end(child.id(), Nanos::from_secs(10)).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
        end(child.id(), Nanos::from_secs(10)).unwrap();
        assert!(end(0, Nanos::ZERO).is_err());
    }
}
