//! The machine's clock. The pure crates take `now` as an argument; this is where live programs get it from.

use std::io;
use std::num::NonZeroU64;
use std::os::fd::BorrowedFd;

use backdoor_core::Nanos;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::thread::ClockId;
use rustix::time::Timespec;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Time since an origin that all processes of this machine share (`CLOCK_MONOTONIC`): instants of different processes
/// can be compared, and no administrator sets it back.
pub fn now() -> Nanos {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Nanos(time.tv_sec as u64 * NANOS_PER_SECOND + time.tv_nsec as u64)
}

/// Sleeps until `instant`; returns at once if it has passed. An absolute sleep does not drift, however late its caller
/// was.
pub fn sleep_until(instant: Nanos) {
    let request = timespec(instant);
    // A signal interrupts the sleep; the instant stays the same.
    while let Err(Errno::INTR) = rustix::thread::clock_nanosleep_absolute(ClockId::Monotonic, &request) {}
}

/// Waits for one of `events` to happen to a descriptor, or an error, until `instant` at most; for ever without one. Answers
/// whether it has.
pub(crate) fn wait_for(descriptor: BorrowedFd<'_>, events: PollFlags, instant: Option<Nanos>) -> io::Result<bool> {
    loop {
        let left = instant.map(|instant| timespec(instant - now()));
        match poll(&mut [PollFd::from_borrowed_fd(descriptor, events)], left.as_ref()) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Asks the kernel to wake the calling thread as exactly as it can. By default it may add 50 µs to every sleep, to save
/// wake-ups. Where that is not granted, sleeps are merely less exact.
pub fn use_exact_timers() {
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}

pub(crate) fn timespec(span: Nanos) -> Timespec {
    Timespec { tv_sec: (span.0 / NANOS_PER_SECOND) as i64, tv_nsec: (span.0 % NANOS_PER_SECOND) as _ }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeps_last_until_their_instant() {
        use_exact_timers();
        let start = now();
        sleep_until(start + Nanos::from_millis(5));
        assert!(now() >= start + Nanos::from_millis(5));
        let start = now();
        sleep_until(Nanos::ZERO);
        assert!(now() < start + Nanos::from_secs(1), "an instant that has passed is not waited for");
    }
}
