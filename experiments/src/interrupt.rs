//! Ctrl-C and SIGTERM: the first asks to stop, the second exits at once.
//!
//! The first one only sets a flag, which is looked at between points; what is finished by then is in the journal. A
//! second one exits from the signal handler itself, so it works even when a point hangs. Two that come at once are one:
//! wrappers such as `timeout` and terminals that signal a whole group deliver one wish twice.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Exit code after an interruption by Ctrl-C, as shells expect it: 128 plus the signal's number.
pub const EXIT_INTERRUPTED: u8 = 130;

/// Signals that are no further apart than this are one request: nobody presses a key twice as fast.
const ONE_WISH: Duration = Duration::from_millis(100);

/// A request to stop; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    requested: Arc<AtomicBool>,
    /// The signal that came; 0 for none, or for a request from within the program.
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// A request that only [`Interrupt::request`] makes: for tests and for use as a library.
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens for Ctrl-C and SIGTERM, for the rest of the process.
    ///
    /// # Errors
    /// When the operating system refuses to install the handlers.
    pub fn listen() -> io::Result<Self> {
        let interrupt = Self::default();
        let impatient = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, impatient.clone())?;
            signal_hook::flag::register_usize(signal, interrupt.signal.clone(), signal as usize)?;
            signal_hook::flag::register(signal, interrupt.requested.clone())?;
        }
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            if signals.forever().next().is_some() {
                std::thread::sleep(ONE_WISH);
                impatient.store(true, Ordering::SeqCst);
            }
        })?;
        Ok(interrupt)
    }

    /// Asks to stop.
    pub fn request(&self) {
        self.requested.store(true, Ordering::SeqCst);
    }

    /// Whether to stop.
    pub fn requested(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
    }

    /// The code to exit with after a stop: 130 for Ctrl-C, 143 for SIGTERM.
    pub fn exit_code(&self) -> u8 {
        match self.signal.load(Ordering::SeqCst) {
            0 => EXIT_INTERRUPTED,
            signal => 128 + signal as u8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reaches_every_clone() {
        let interrupt = Interrupt::new();
        let clone = interrupt.clone();
        assert!(!clone.requested());
        interrupt.request();
        assert!(clone.requested());
        assert_eq!(clone.exit_code(), EXIT_INTERRUPTED);
    }
}
